"""The options torch does not have: each against the formula, saved and resumed to the same bits."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

from nagcore.torch import SGD  # noqa: E402


def parameters(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(11)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def give(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def test_decoupled_decay_shrinks_the_parameter_itself():
    (p,) = parameters((50,))
    start = p.detach().clone()
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.5, decoupled_weight_decay=True)
    give([p], 1)
    optimizer.step()
    torch.testing.assert_close(p.detach(), start * (1 - 0.1 * 0.5) - 0.1 * p.grad)
    assert torch.equal(optimizer.state[p]["momentum_buffer"], p.grad)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_is_torchs_clip_grad_norm(max_norm):
    ours = parameters((20, 3), (7,))
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    a = SGD(ours, lr=0.1, momentum=0.9, max_norm=max_norm)
    b = torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    for step in range(4):
        give(ours, step)
        give(theirs, step)
        norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        a.step()
        b.step()
        assert a.last_report.grad_norm == pytest.approx(float(norm), rel=1e-6)
        give(theirs, step)
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours, theirs))  # left as they were
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_moving_average_is_lerp_and_swaps_there_and_back():
    params = parameters((33,), (4, 4))
    optimizer = SGD(params, lr=0.1, momentum=0.9, ema_decay=0.75)
    averages = None
    for step in range(5):
        give(params, step)
        optimizer.step()
        now = [p.detach().clone() for p in params]
        averages = now if averages is None else [e.lerp(p, 0.25) for e, p in zip(averages, now)]
    for p, e in zip(params, averages):
        assert torch.equal(optimizer.state[p]["ema"], e)
    with optimizer.swap_ema() as inside:
        assert inside is optimizer
        assert all(torch.equal(p, e) for p, e in zip(params, averages))
        with pytest.raises(RuntimeError, match="swap_ema"):
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, now))
    optimizer.swap_ema()
    optimizer.swap_ema()
    assert all(torch.equal(p, q) for p, q in zip(params, now))


def test_a_moving_average_begins_on_state_of_torch():
    (p,) = parameters((9,))
    theirs = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    give([p], 0)
    theirs.step()
    optimizer = SGD([p], lr=0.1, momentum=0.9, ema_decay=0.5)
    optimizer.load_state_dict(theirs.state_dict())
    begin, buffer = p.detach().clone(), theirs.state[p]["momentum_buffer"].clone()
    give([p], 1)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], 0.9 * buffer + p.grad)
    torch.testing.assert_close(optimizer.state[p]["ema"], (begin + p.detach()) / 2)


# ----- bfloat16 momentum -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bfloat16_momentum_is_right_to_its_precision(dtype):
    params = parameters((1003,), (40, 30), dtype=dtype)
    wide = [torch.nn.Parameter(p.detach().clone()) for p in params]
    a = SGD(params, lr=0.01, momentum=0.9, nesterov=True, state_dtype=torch.bfloat16)
    b = SGD(wide, lr=0.01, momentum=0.9, nesterov=True)
    for step in range(5):
        for ps, o in ((params, a), (wide, b)):
            give(ps, step)
            o.step()
    for p, q in zip(params, wide):
        kept, exact = a.state[p]["momentum_buffer"], b.state[q]["momentum_buffer"]
        assert kept.dtype is torch.bfloat16
        # Five roundings of at most one unit of 2^-7, damped by 0.9 each step.
        assert float((kept.float() - exact).abs().max()) <= 4.1 * 2**-7 * float(exact.abs().max())


def test_stochastic_rounding_keeps_small_gradients():
    """To nearest, b ← b + 2^-10 stays at 1; stochastically its mean moves by 2^-10 a step."""
    p = torch.nn.Parameter(torch.zeros(20_000))
    optimizer = SGD([p], lr=0.0, momentum=1.0, state_dtype=torch.bfloat16)
    p.grad = torch.ones(20_000)
    optimizer.step()
    p.grad = torch.full((20_000,), 2.0**-10)
    for _ in range(64):
        optimizer.step()
    kept = optimizer.state[p]["momentum_buffer"].float()
    # 64 steps of variance 2^-10 (2^-7 - 2^-10): the mean of 20 000 is within 5 deviations.
    deviation = math.sqrt(64 * 2**-10 * (2**-7 - 2**-10) / 20_000)
    assert abs(float(kept.mean()) - (1 + 64 * 2**-10)) < 5 * deviation
    assert set(np.unique((kept.numpy() * 128) % 1)) == {0.0}


def test_float64_and_complex_keep_momentum_of_their_own():
    params = [torch.nn.Parameter(torch.ones(3, dtype=d)) for d in (torch.float64, torch.complex64)]
    optimizer = SGD(params, lr=0.1, momentum=0.9, state_dtype=torch.bfloat16)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert [optimizer.state[p]["momentum_buffer"].dtype for p in params] == [torch.float64, torch.complex64]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_master_weights_add_up_what_16_bits_lose(dtype):
    p = torch.nn.Parameter(torch.ones(100, dtype=dtype))
    optimizer = SGD([p], lr=2.0**-14, master_weights=True)
    for _ in range(256):
        p.grad = torch.ones(100, dtype=dtype)
        optimizer.step()
    assert torch.equal(optimizer.state[p]["master"], torch.full((100,), 1 - 2.0**-6))
    assert torch.equal(p.detach(), torch.full((100,), 1 - 2.0**-6).to(dtype))


OPTIONS = [
    {"state_dtype": torch.bfloat16}, {"ema_decay": 0.9}, {"master_weights": True},
    {"max_norm": 0.1, "ema_decay": 0.5, "state_dtype": torch.bfloat16}, {},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_saved_run_goes_on_to_the_same_bits(options, dtype, tmp_path):
    params = parameters((70, 30), (9,), dtype=dtype)
    rule = dict(lr=0.1, momentum=0.9, nesterov=True, **options)
    optimizer = SGD(params, **rule)
    for step in range(3):
        give(params, step)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    again = SGD(others, **rule)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [s["momentum_buffer"].dtype for s in again.state.values()] == [
        s["momentum_buffer"].dtype for s in optimizer.state.values()
    ]
    for step in range(3, 6):
        for ps, o in ((params, optimizer), (others, again)):
            give(ps, step)
            o.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others))


def test_a_deep_copy_keeps_the_options():
    params = parameters((5,))
    optimizer = SGD(params, lr=0.1, momentum=0.9, ema_decay=0.5, state_dtype=torch.bfloat16)
    give(params, 0)
    optimizer.step()
    twin = copy.deepcopy(optimizer)
    (q,) = twin.param_groups[0]["params"]
    for ps, o in ((params, optimizer), ([q], twin)):
        give(ps, 1)
        o.step()
    assert torch.equal(params[0], q)
    assert torch.equal(optimizer.state[params[0]]["ema"], twin.state[q]["ema"])


# ----- guard and acceleration ------------------------------------------------------------------


@pytest.fixture
def guard_of():
    guards = pytest.importorskip("nagcore.callbacks")
    if not hasattr(guards, "AnomalyGuard"):
        pytest.skip("nagcore.callbacks has no AnomalyGuard")
    return guards.AnomalyGuard


def calm(optimizer, params, steps=30):
    for step in range(steps):
        give(params, step)
        optimizer.step()


@pytest.mark.parametrize("action", ["skip", "clip", "rollback", "raise"])
def test_a_guard_judges_before_anything_is_written(guard_of, action):
    seen = []
    params = parameters((40,))
    optimizer = SGD(params, lr=0.01, momentum=0.9, guard=guard_of(action, on_event=seen.append))
    calm(optimizer, params)
    before = params[0].detach().clone()
    buffer = optimizer.state[params[0]]["momentum_buffer"].clone()
    params[0].grad = torch.full((40,), 1e6)
    if action == "raise":
        with pytest.raises(RuntimeError, match="gradient norm"):
            optimizer.step()
    else:
        optimizer.step()
    now = params[0].detach()
    if action == "clip":
        assert 0 < float((now - before).abs().max()) < 1
        assert optimizer.last_report.clip_factor < 1e-3
    elif action == "rollback":
        kept, state = optimizer.guard.last_good[0]
        assert torch.equal(now, kept)
        # Kept before the first step, when no buffer was written yet: none comes back.
        assert state == {}
        assert optimizer.state[params[0]] == {}
    else:
        assert torch.equal(now, before)
        assert torch.equal(optimizer.state[params[0]]["momentum_buffer"], buffer)
    assert [e.kind for e in seen] == ["spike"]


@pytest.mark.parametrize("late", [False, True], ids=["all", "late"])
def test_going_back_brings_no_unwritten_buffer(guard_of, late):
    """A state kept on a parameter's first step holds none of the buffers made for that step."""
    params = parameters((40,), (7,))
    guard = guard_of("rollback", window=30, on_event=lambda e: None)
    optimizer = SGD(params, lr=0.01, momentum=0.9, ema_decay=0.9, guard=guard)
    twin_params = [p.detach().clone().requires_grad_() for p in params]

    def step(ps, o, seed):
        give(ps, seed)
        if late and o._taken < 30:
            ps[1].grad = None
        o.step()

    # Kept before step 1, and before step 31, on which the late parameter's state is made.
    for seed in range(31 if late else 30):
        step(params, optimizer, seed)
    good = [(p.clone(), {k: v.clone() for k, v in s.items()}) for p, s in guard.last_good]
    assert set(good[1][1]) == set()
    assert set(good[0][1]) == ({"momentum_buffer", "ema"} if late else set())
    give(params, 99)
    params[0].grad.fill_(1e6)
    optimizer.step()
    # From there, another optimizer started on the kept values takes the same step.
    twin = SGD(twin_params, lr=0.01, momentum=0.9, ema_decay=0.9)
    for q, (value, state) in zip(twin_params, good):
        q.data.copy_(value)
        if state:
            twin.state[q] = state
    for ps, o in ((params, optimizer), (twin_params, twin)):
        give(ps, 7)
        o.step()
    for p, q in zip(params, twin_params):
        assert torch.equal(p, q)
        for key in ("momentum_buffer", "ema"):
            assert torch.equal(optimizer.state[p][key], twin.state[q][key])


def test_a_guard_skips_what_is_not_finite_on_the_first_step(guard_of):
    params = parameters((4,))
    optimizer = SGD(params, lr=0.1, momentum=0.9, guard=guard_of(on_event=lambda e: None))
    params[0].grad = torch.full((4,), float("nan"))
    before = params[0].detach().clone()
    optimizer.step()
    assert torch.equal(params[0], before)
    assert optimizer.last_report.found_inf
    assert len(optimizer.state) == 0
    give(params, 0)
    optimizer.step(loss=float("nan"))
    assert torch.equal(params[0], before)
    optimizer.step(loss=1.0)
    assert not torch.equal(params[0], before)


class Halves:
    """A schedule of its own: μ_t = (t − 1)/(2t), and all that it was shown."""

    def __init__(self, adaptive):
        self.adaptive, self.shown = adaptive, []

    def __call__(self, t):
        return (t - 1) / (2 * t)

    def observe(self, alignment):
        self.shown.append(alignment)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.shown = []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_schedule_sets_momentum_and_look_ahead(dtype):
    params = parameters((600,), (5, 5), dtype=dtype)
    schedule = Halves(adaptive=True)
    optimizer = SGD(params, lr=0.1, nesterov=True, acceleration=schedule)
    exact = [(p.detach().double().clone(), torch.zeros(p.shape, dtype=torch.float64)) for p in params]
    for t in range(1, 6):
        give(params, t)
        optimizer.step()
        mu, nu = (t - 1) / (2 * t), t / (2 * t + 2)
        assert optimizer.param_groups[0]["momentum"] == mu
        following, shown = [], 0.0
        for p, (x, b) in zip(params, exact):
            g = p.grad.double()
            b = mu * b + g
            following.append((x - 0.1 * (g + nu * b), b))
            shown -= 0.1 * float((g * b).sum())
        exact = following
        assert schedule.shown[-1] == pytest.approx(shown, rel=1e-5)
    if dtype is not torch.bfloat16:
        for p, (x, _) in zip(params, exact):
            torch.testing.assert_close(p.detach().double(), x, rtol=1e-5, atol=1e-6)


def test_the_schedules_of_nagcore_restart_on_a_quadratic():
    schedules = pytest.importorskip("nagcore.schedules", reason="nagcore.schedules is not here")
    curvature = torch.logspace(0, 3, 30)

    def loss_after(steps, acceleration):
        w = torch.nn.Parameter(torch.ones(30))
        optimizer = SGD([w], lr=1e-3, nesterov=acceleration is not None, acceleration=acceleration)
        for _ in range(steps):
            w.grad = curvature * w.detach()
            optimizer.step()
        return float((curvature * w.detach() ** 2).sum())

    plain = loss_after(600, None)
    nesterov = loss_after(600, schedules.Nesterov())
    restarted = loss_after(600, schedules.AdaptiveRestart(schedules.Nesterov()))
    assert nesterov < 1e-2 * plain
    assert restarted < 1e-3 * nesterov


# ----- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lr", "momentum", "dampening", "weight_decay"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_hyper_parameters_are_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name} is a finite number"):
        SGD(parameters((2,)), **{name: value})
    params = parameters((2,))
    optimizer = SGD(params, lr=0.1)
    before = params[0].detach().clone()
    give(params, 0)
    optimizer.param_groups[0][name] = value
    with pytest.raises(ValueError, match=f"{name} is .*finite"):
        optimizer.step()
    assert torch.equal(params[0], before)
    assert len(optimizer.state) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid learning rate"),
        ({"weight_decay": -1.0}, "Invalid weight_decay"),
        ({"nesterov": True}, "Nesterov momentum requires a momentum"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "zero dampening"),
        ({"max_norm": 0.0}, "max_norm is 0"),
        ({"max_norm": math.nan}, "max_norm is nan"),
        ({"ema_decay": 1.5}, "ema_decay is 1.5"),
        ({"state_dtype": torch.float16}, "state_dtype is torch.float16"),
        ({"n_threads": 0}, "n_threads is 0"),
        ({"differentiable": True, "max_norm": 1.0}, "max_norm"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SGD(parameters((2,)), **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"fused": True, "foreach": True}, RuntimeError),
        ({"fused": True, "differentiable": True}, RuntimeError),
        ({"guard": 3}, TypeError),
        ({"acceleration": 0.9}, TypeError),
    ],
)
def test_options_that_do_not_go_together(options, error):
    with pytest.raises(error):
        SGD(parameters((2,)), **options)


def refused(params, optimizer, error, message):
    before = [p.detach().clone() for p in params]
    with pytest.raises(error, match=message):
        optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before))


def test_sparse_gradients_are_refused_with_the_fix():
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    other = torch.nn.Parameter(torch.ones(3))
    other.grad = torch.ones(3)
    embedding(torch.tensor([1, 3])).sum().backward()
    optimizer = SGD([other, embedding.weight], lr=0.1, momentum=0.9)
    refused([other, embedding.weight], optimizer, RuntimeError, "sparse_coo.*sparse=False")
    assert len(optimizer.state) == 0


def test_gradients_of_another_dtype_are_refused():
    params = parameters((3,), (4,))
    give(params, 0)
    try:
        params[1].grad_dtype = None
        params[1].grad = torch.ones(4, dtype=torch.float64)
    except (AttributeError, RuntimeError, TypeError):
        pytest.skip("this torch lets no gradient of another dtype in")
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    refused(params, optimizer, ValueError, r"gradient of torch.float64; they must agree")


def test_gradients_of_another_shape_are_refused():
    params = parameters((3,), (4,))
    give(params, 0)
    params[1].data = torch.zeros(6)
    refused(params, SGD(params, lr=0.1, momentum=0.9), ValueError, r"gradient of shape \(4,\)")


def test_float32_gradients_of_16_bit_parameters_are_welcome():
    (p,) = parameters((3,), dtype=torch.bfloat16)
    try:
        p.grad_dtype = torch.float32
        p.grad = torch.ones(3)
    except (AttributeError, RuntimeError, TypeError):
        pytest.skip("this torch lets no gradient of another dtype in")
    before = p.detach().float()
    SGD([p], lr=0.5).step()
    assert torch.equal(p.detach(), (before - 0.5).to(torch.bfloat16))


def test_state_of_another_shape_is_refused():
    params = parameters((3,), (4,))
    give(params, 0)
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    optimizer.step()
    optimizer.state[params[1]]["momentum_buffer"] = torch.zeros(5)
    refused(params, optimizer, ValueError, r'state\[1\]\["momentum_buffer"\] has shape \(5,\)')


@pytest.mark.parametrize("shapes", [((4,), (3,)), ((3,),), ((3,), (4,), (5,))])
def test_state_dicts_of_other_models_are_refused(shapes):
    params, others = parameters((3,), (4,)), parameters(*shapes)
    ours, theirs = SGD(params, lr=0.1, momentum=0.9), torch.optim.SGD(others, lr=0.5, momentum=0.9)
    for ps, o in ((params, ours), (others, theirs)):
        give(ps, 0)
        o.step()
    kept = ours.state[params[0]]["momentum_buffer"]
    with pytest.raises(ValueError, match=r"of this model|match"):
        ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr"] == 0.1
    assert ours.state[params[0]]["momentum_buffer"] is kept


def test_a_state_of_a_later_version_is_refused():
    params = parameters((3,))
    optimizer = SGD(params, lr=0.1, ema_decay=0.5)
    saved = optimizer.state_dict()
    saved["nagcore"]["version"] = 99
    with pytest.raises(ValueError, match="version 99"):
        optimizer.load_state_dict(saved)
