"""The update against torch.optim.SGD: equal to the bit in float32 and float64, step after step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nagcore import NesterovPlan, _core, nesterov_step_

torch = pytest.importorskip("torch")

SHAPES = [(1,), (3,), (7,), (15,), (16,), (17,), (3, 5), (64, 64), (4095,), (4097,), (2, 3, 1, 4)]

# torch's kernels round an fma once; the x86-64 baseline has none, so there each step may differ by
# a rounding of its largest term.
EXACT = _core.active_isa() != "baseline"

FORMS = [
    {"momentum": m, "dampening": d, "nesterov": n}
    for m, d, n in itertools.product((0.0, 0.9), (0.0, 0.1), (False, True))
    if not (n and (m == 0 or d != 0))
]


def assert_same(ours: np.ndarray, theirs, scale: float = 8.0) -> None:
    theirs = theirs.detach().numpy()
    if EXACT:
        np.testing.assert_array_equal(ours, theirs)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * np.finfo(ours.dtype).eps * scale)


def make(rng, dtype, shapes=SHAPES):
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.013])
@pytest.mark.parametrize("form", FORMS, ids=lambda f: "-".join(f"{k}{v}" for k, v in f.items()))
def test_update_equals_torch_sgd(form, weight_decay, maximize, foreach, dtype):
    rng = np.random.default_rng(7)
    params = make(rng, dtype)
    buffers = [np.full_like(p, np.nan) for p in params]  # a first step must not read them
    theirs = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    settings = dict(form, weight_decay=weight_decay, maximize=maximize)
    optimizer = torch.optim.SGD(theirs, lr=0.1, foreach=foreach, **settings)
    for step in range(5):
        lr = 0.1 / (step + 1)  # a schedule, whose rounding to float32 differs from step to step
        optimizer.param_groups[0]["lr"] = lr
        grads = make(rng, dtype)
        for t, g in zip(theirs, grads, strict=False):
            t.grad = torch.from_numpy(g.copy())
        optimizer.step()
        report = nesterov_step_(params, grads, buffers, lr=lr, first_step=step == 0, **settings)
        for p, t, b in zip(params, theirs, buffers, strict=False):
            assert_same(p, t)
            if form["momentum"]:
                assert_same(b, optimizer.state[t]["momentum_buffer"])
            else:
                assert np.isnan(b).all()
        norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads))
        assert report.grad_norm == pytest.approx(norm, rel=1e-13)
        assert report.tensors == len(params)
        assert report.elements == sum(p.size for p in params)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_update_equals_torch_on_any_number_of_threads(n_threads):
    rng = np.random.default_rng(3)
    shapes = [(100_003,), *SHAPES, (40_000,)]
    params, grads = make(rng, np.float32, shapes), make(rng, np.float32, shapes)
    buffers = make(rng, np.float32, shapes)
    theirs = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    optimizer = torch.optim.SGD(theirs, lr=0.03, momentum=0.8, nesterov=True, weight_decay=0.1)
    for t, g, b in zip(theirs, grads, buffers, strict=False):
        t.grad = torch.from_numpy(g.copy())
        optimizer.state[t]["momentum_buffer"] = torch.from_numpy(b.copy())
    optimizer.step()
    nesterov_step_(
        params, grads, buffers, lr=0.03, momentum=0.8, weight_decay=0.1, n_threads=n_threads
    )
    for p, t, b in zip(params, theirs, buffers, strict=False):
        assert_same(p, t)
        assert_same(b, optimizer.state[t]["momentum_buffer"])


def test_parameter_that_joins_late_has_its_own_first_step():
    # torch's fused SGD raises TypeError here (docs/numerics.md); single-tensor SGD does not.
    rng = np.random.default_rng(11)
    params = make(rng, np.float32, [(5, 3), (9,)])
    buffers = [np.full_like(p, np.nan) for p in params]
    theirs = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    optimizer = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, nesterov=True, foreach=False)
    seen = [False, False]
    for step in range(4):
        active = [0, 1] if step >= 2 else [0]
        grads = make(rng, np.float32, [(5, 3), (9,)])
        for i, t in enumerate(theirs):
            t.grad = torch.from_numpy(grads[i].copy()) if i in active else None
        optimizer.step()
        nesterov_step_(
            [params[i] for i in active],
            [grads[i] for i in active],
            [buffers[i] for i in active],
            lr=0.1,
            first_step=[not seen[i] for i in active],
        )
        for i in active:
            seen[i] = True
        for p, t in zip(params, theirs, strict=False):
            assert_same(p, t)


def test_decoupled_decay_is_multiplied_by_the_parameter():
    # SGDW as torch writes decoupled decay in AdamW: param.mul_(1 - lr * weight_decay).
    rng = np.random.default_rng(5)
    (p,), (b,) = make(rng, np.float32, [(4099,)]), make(rng, np.float32, [(4099,)])
    t = torch.nn.Parameter(torch.from_numpy(p.copy()))
    optimizer = torch.optim.SGD([t], lr=0.05, momentum=0.9, nesterov=True)
    optimizer.state[t]["momentum_buffer"] = torch.from_numpy(b.copy())
    for _ in range(3):
        g = rng.standard_normal(p.shape).astype(np.float32)
        t.grad = torch.from_numpy(g.copy())
        with torch.no_grad():
            t.mul_(1 - 0.05 * 0.02)
        optimizer.step()
        nesterov_step_(p, g, b, lr=0.05, weight_decay=0.02, decoupled=True)
        assert_same(p, t)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999])
def test_moving_average_equals_torch_lerp(decay, dtype):
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    rng = np.random.default_rng(13)
    params, buffers = make(rng, dtype), make(rng, dtype)
    ema = [np.full_like(p, np.nan) for p in params]
    average = get_ema_multi_avg_fn(decay)
    theirs = None
    for step in range(3):
        nesterov_step_(
            params,
            make(rng, dtype),
            buffers,
            lr=0.1,
            first_step=step == 0,
            ema=ema,
            ema_decay=decay,
        )
        now = [torch.from_numpy(p.copy()) for p in params]
        if theirs is None:
            theirs = now  # AveragedModel copies at first
        else:
            average(theirs, now, step)
        for e, t in zip(ema, theirs, strict=False):
            assert_same(e, t)


@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clipping_agrees_with_torch(max_norm):
    rng = np.random.default_rng(17)
    params, grads, buffers = (make(rng, np.float32) for _ in range(3))
    theirs = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    optimizer = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, nesterov=True)
    for t, g, b in zip(theirs, grads, buffers, strict=False):
        t.grad = torch.from_numpy(g.copy())
        optimizer.state[t]["momentum_buffer"] = torch.from_numpy(b.copy())
    norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    optimizer.step()
    report = nesterov_step_(params, grads, buffers, lr=0.1, max_norm=max_norm)
    assert report.grad_norm == pytest.approx(float(norm), rel=1e-6)
    factor = min(1.0, max_norm / (report.grad_norm + 1e-6))
    assert report.clip_factor == pytest.approx(factor, rel=1e-15)
    for p, t in zip(params, theirs, strict=False):
        # torch sums the norm in float32, so the factors may differ in their last bits
        np.testing.assert_allclose(
            p, t.detach().numpy(), rtol=0, atol=32 * np.finfo(np.float32).eps
        )


def test_update_writes_through_to_torch_tensors():
    rng = np.random.default_rng(19)
    t = torch.from_numpy(rng.standard_normal((2, 3, 4, 5)).astype(np.float32))
    t = t.to(memory_format=torch.channels_last)  # dense, in neither C nor Fortran order
    other = torch.nn.Parameter(t.clone(memory_format=torch.preserve_format))
    optimizer = torch.optim.SGD([other], lr=0.1, momentum=0.9, nesterov=True)
    b = torch.zeros_like(t)
    for step in range(3):
        g = torch.from_numpy(rng.standard_normal(t.shape).astype(np.float32))  # C order
        other.grad = g.clone()
        optimizer.step()
        plan = NesterovPlan(t.numpy(), g.numpy(), b.numpy())
        plan.step(lr=0.1, first_step=step == 0)
        assert_same(t.numpy(), other)
