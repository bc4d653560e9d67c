"""float32 and float64 trajectories equal torch.optim.SGD's single-tensor path to the bit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")
common = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="torch's test helpers need expecttest"
)

import nagcore  # noqa: E402
import nagcore.torch  # noqa: E402

fused_only = pytest.mark.skipif(
    nagcore._core.active_isa() == "baseline", reason="no fused multiply-add on this instruction set"
)
CONFIGS = [
    pytest.param(dict(o.kwargs), id=o.desc.replace(" ", "-"))
    for o in common.optim_inputs_func_sgd("cpu")
]
SHAPES = [(), (0,), (0, 3), (1,), (5,), (16,), (17, 33), (3, 5, 7), (4097,), (2, 3, 4, 5), (70_001,)]


def contiguous(generator, shape, dtype):
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def channels_last(generator, shape, dtype):
    return contiguous(generator, (4, 5, 3, 2), dtype).to(memory_format=torch.channels_last)


def transposed(generator, shape, dtype):
    return contiguous(generator, (31, 18), dtype).t()


def strided(generator, shape, dtype):
    return contiguous(generator, (40, 18), dtype)[::2, 1:13]


def pair(make, dtype=torch.float32, grad_make=None):
    """Twice the same parameters; and a function that gives both the same new gradients."""
    generator = torch.Generator().manual_seed(7)
    values = [make(generator, shape, dtype) for shape in SHAPES]
    both = []
    for _ in range(2):
        params = []
        for v in values:
            p = torch.nn.Parameter(torch.empty_strided(v.shape, v.stride(), dtype=v.dtype))
            p.data.copy_(v)
            params.append(p)
        both.append(params)

    def gradients():
        for a, b in zip(*both):
            g = contiguous(generator, a.shape, dtype)
            if grad_make is None:
                g = torch.empty_strided(a.shape, a.stride(), dtype=dtype).copy_(g)
            else:
                g = grad_make(g)
            a.grad, b.grad = g.clone(memory_format=torch.preserve_format), g

    return *both, gradients


def run(theirs, ours, gradients, steps=5, **options):
    theirs_optimizer = torch.optim.SGD(theirs, foreach=False, **options)
    ours_optimizer = nagcore.torch.SGD(ours, **options)
    for _ in range(steps):
        gradients()
        theirs_optimizer.step()
        ours_optimizer.step()
    return theirs_optimizer, ours_optimizer


def assert_same_bits(theirs, ours):
    for i, (a, b) in enumerate(zip(theirs, ours)):
        assert torch.equal(a, b), f"parameter {i} of shape {tuple(a.shape)} differs"


@fused_only
@pytest.mark.parametrize("make", [contiguous, channels_last, transposed, strided])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", CONFIGS)
def test_every_configuration_of_torch_to_the_bit(options, dtype, make):
    theirs, ours, gradients = pair(make, dtype)
    a, b = run(theirs, ours, gradients, **options)
    assert_same_bits(theirs, ours)
    if options.get("momentum"):
        assert_same_bits(*([o.state[p]["momentum_buffer"] for p in ps] for o, ps in ((a, theirs), (b, ours))))
    assert [set(s) for s in a.state.values()] == [set(s) for s in b.state.values()]


@fused_only
@pytest.mark.parametrize("options", CONFIGS)
def test_gradients_laid_out_unlike_their_parameters(options):
    theirs, ours, gradients = pair(
        transposed, grad_make=lambda g: g.contiguous() if g.dim() < 2 else g.t().contiguous().t()
    )
    run(theirs, ours, gradients, **options)
    assert_same_bits(theirs, ours)
    theirs, ours, gradients = pair(
        contiguous, grad_make=lambda g: g[..., :1].expand(g.shape) if g.dim() else g
    )
    run(theirs, ours, gradients, **options)
    assert_same_bits(theirs, ours)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_threads_change_no_bit(n_threads):
    one, many, gradients = pair(contiguous)
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "max_norm": 1.0, "ema_decay": 0.9}
    a = nagcore.torch.SGD(one, n_threads=1, **options)
    b = nagcore.torch.SGD(many, n_threads=n_threads, **options)
    for _ in range(3):
        gradients()
        a.step()
        b.step()
    assert_same_bits(one, many)
    assert a.last_report == b.last_report


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("options", CONFIGS)
def test_complex_parameters_follow_torch(options, dtype):
    generator = torch.Generator().manual_seed(3)
    value = torch.randn(5, 7, dtype=dtype, generator=generator)
    a, b = (torch.nn.Parameter(value.clone()) for _ in range(2))
    x, y = torch.optim.SGD([a], **options), nagcore.torch.SGD([b], **options)
    for _ in range(5):
        g = torch.randn(5, 7, dtype=dtype, generator=generator)
        a.grad, b.grad = g.clone(), g
        x.step()
        y.step()
    torch.testing.assert_close(a, b, rtol=4e-7 if dtype is torch.complex64 else 1e-15, atol=1e-7)


def test_lazy_conjugation_and_negation_are_carried_out():
    value = torch.randn(4, dtype=torch.complex64)
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.complex64))
    q = torch.nn.Parameter(torch.zeros(4))
    p.grad, q.grad = value.conj(), value.conj().imag
    assert p.grad.is_conj()
    assert q.grad.is_neg()
    nagcore.torch.SGD([p, q], lr=1.0).step()
    assert torch.equal(p, -value.conj().resolve_conj())
    assert torch.equal(q, value.imag)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_parameters_are_rounded_once(dtype):
    """The whole tensor moves (torch's fused step writes its tail alone), by float32 arithmetic."""
    generator = torch.Generator().manual_seed(1)
    value, g = (torch.randn(1003, generator=generator).to(dtype) for _ in range(2))
    p = torch.nn.Parameter(value.clone())
    optimizer = nagcore.torch.SGD([p], lr=0.1, momentum=0.9, nesterov=True)
    wide, buffer = value.float(), None
    for _ in range(3):
        p.grad = g.clone()
        optimizer.step()
        buffer = g.float() if buffer is None else buffer * 0.9 + g.float()
        wide = (wide.double() - 0.1 * (g.double() + 0.9 * buffer.double())).to(dtype).float()
    kept = optimizer.state[p]["momentum_buffer"]
    assert kept.dtype is torch.float32
    torch.testing.assert_close(kept, buffer, rtol=1e-6, atol=1e-6)
    apart = (p.detach().float() - wide).abs() / wide.abs().clamp_min(1e-3)
    assert float(apart.max()) < 2 * torch.finfo(dtype).eps
    assert float((p.detach() != value).float().mean()) > 0.98
