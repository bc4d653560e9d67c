"""What happens to an optimizer in use: schedulers, scalers, closures, moving storage, other devices."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

from torch.optim.optimizer import (  # noqa: E402
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import nagcore.torch  # noqa: E402
from nagcore.torch import SGD, memory  # noqa: E402

RULE = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}


def twins(*shapes, dtype=torch.float32):
    values = [torch.randn(s, dtype=dtype) for s in shapes]
    return tuple([torch.nn.Parameter(v.clone()) for v in values] for _ in range(2))


def give(pairs, *, replace=True):
    for p, q in pairs:
        g = torch.randn_like(p)
        if replace or p.grad is None:
            p.grad, q.grad = g.clone(), g.clone()
        else:
            p.grad.copy_(g)
            q.grad.copy_(g)


def same(ps, qs):
    return all(torch.equal(p, q) for p, q in zip(ps, qs))


# ----- the cache ------------------------------------------------------------------------------


def test_tensors_that_stay_are_laid_out_once():
    ours, theirs = twins((64, 3), (5,), (7, 2, 2))
    a, b = SGD(ours, **RULE), torch.optim.SGD(theirs, **RULE)
    for _ in range(5):
        give(zip(ours, theirs), replace=False)
        a.step()
        b.step()
    assert same(ours, theirs)
    assert a._memory.plan.layouts == 1


def moved_parameter(p, optimizer):
    p.data = p.data.clone()


def turned_parameter(p, optimizer):
    p.data = p.data.t().contiguous().t()


def new_gradient(p, optimizer):
    p.grad = p.grad.clone()


def turned_gradient(p, optimizer):
    p.grad = p.grad.t().contiguous().t()


def gradient_data(p, optimizer):
    p.grad.data = p.grad.data.clone()


def new_buffer(p, optimizer):
    optimizer.state[p]["momentum_buffer"] = optimizer.state[p]["momentum_buffer"].clone()


def moved_buffer(p, optimizer):
    buffer = optimizer.state[p]["momentum_buffer"]
    buffer.data = buffer.data.clone()


def shared_buffer(p, optimizer):
    optimizer.state[p]["momentum_buffer"].share_memory_()


def new_state(p, optimizer):
    optimizer.state[p] = dict(optimizer.state[p])


def cleared_state(p, optimizer):
    optimizer.state.clear()


def replaced_state(p, optimizer):
    optimizer.state = copy.copy(optimizer.state)
    optimizer.state[p] = {}


def reordered_state(p, optimizer):
    entries = list(optimizer.state.items())
    optimizer.state.clear()
    optimizer.state.update(reversed(entries))


def another_entry_first(p, optimizer):
    optimizer.state[p] = {"note": 1, **optimizer.state[p]}


def no_gradient(p, optimizer):
    p.grad = None


def zeroed(p, optimizer):
    optimizer.zero_grad(set_to_none=False)


def new_group(p, optimizer):
    optimizer.param_groups[0]["params"] = list(optimizer.param_groups[0]["params"])


CHANGES = [
    moved_parameter, turned_parameter, new_gradient, turned_gradient, gradient_data, new_buffer,
    moved_buffer, shared_buffer, new_state, cleared_state, replaced_state, reordered_state,
    another_entry_first, no_gradient, zeroed, new_group,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("exchange", [True, False], ids=["exchange-table", "python"])
def test_the_cache_notices(change, exchange, monkeypatch):
    if not exchange:  # as with torch before 2.10
        monkeypatch.setattr(
            memory.Memory,
            "_new_plan",
            staticmethod(lambda: nagcore._core.TensorPlan(None, memory.describe, memory.counter, True)),
        )
    ours, theirs = twins((6, 4), (3, 3))
    a, b = SGD(ours, **RULE), torch.optim.SGD(theirs, **RULE)
    for turn in range(4):
        give(zip(ours, theirs), replace=turn == 0)
        if turn == 2:
            change(ours[0], a)
            change(theirs[0], b)
        a.step()
        b.step()
        if turn == 2 and ours[0].grad is None:
            give(zip(ours, theirs))
    assert same(ours, theirs)


def test_parameters_may_be_swapped():
    p, q = (torch.nn.Parameter(torch.full((3,), v)) for v in (1.0, 5.0))
    p.grad = torch.ones(3)
    optimizer = SGD([p], lr=0.5, momentum=0.9)
    optimizer.step()
    torch.utils.swap_tensors(p, q)  # refused where anybody else holds the tensor
    p.grad = torch.ones(3)
    optimizer.step()  # momentum is 0.9 + 1 by now
    assert torch.allclose(p, torch.full((3,), 5.0 - 0.5 * 1.9))
    assert torch.equal(q, torch.full((3,), 0.5))


def test_momentum_that_is_let_go_is_freed():
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = SGD([p], lr=0.5, momentum=0.9)
    optimizer.step()
    buffer = optimizer.state[p]["momentum_buffer"]
    gone = weakref.ref(buffer.untyped_storage())
    optimizer.state.clear()
    optimizer.step()  # makes another
    assert optimizer.state[p]["momentum_buffer"] is not buffer
    del buffer
    gc.collect()
    assert gone() is None


# ----- who watches ----------------------------------------------------------------------------


def test_the_profiler_sees_the_step():
    (p,), _ = twins((3,))
    p.grad = torch.ones(3)
    optimizer = SGD([p], lr=0.5)
    optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        optimizer.step()
    names = [event.key for event in seen.key_averages()]
    assert names.count("Optimizer.step#SGD.step") == 1


@pytest.mark.parametrize("kind", ["SGD", "a subclass", "a subclass with its own step"])
def test_hooks_of_all_optimizers_are_called_once(kind):
    class Plain(SGD):
        pass

    class Own(SGD):
        def step(self, closure=None):
            return super().step(closure)

    (p,), _ = twins((3,))
    p.grad = torch.ones(3)
    optimizer = {"SGD": SGD, "a subclass": Plain}.get(kind, Own)([p], lr=0.5)
    calls = []
    hooks = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("before")),
        optimizer.register_step_pre_hook(lambda *_: calls.append("own")),
        register_optimizer_step_post_hook(lambda *_: calls.append("after")),
    ]
    try:
        optimizer.step(lambda: 1.0)
    finally:
        for hook in hooks:
            hook.remove()
    optimizer.step()
    assert calls == ["before", "own", "after"]


def test_a_hook_may_change_what_the_step_is_given():
    (p,), _ = twins((3,))
    optimizer = SGD([p], lr=0.5)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: 7.0), kwargs))
    assert optimizer.step(lambda: 1.0) == 7.0


# ----- what is let go -------------------------------------------------------------------------


def test_gradients_that_are_let_go_are_freed():
    p = torch.nn.Parameter(torch.ones(1000))
    optimizer = SGD([p], **RULE)
    p.grad = torch.ones(1000)
    optimizer.step()
    gone = weakref.ref(p.grad.untyped_storage())
    optimizer.zero_grad()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("late", [False, True])
def test_a_model_can_be_converted_by_swapping(late):
    """torch swaps no tensor that a weak reference points at, and the step kept one to each gradient."""
    ours, theirs = (torch.nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    a, b = SGD(ours.parameters(), **RULE), torch.optim.SGD(theirs.parameters(), **RULE)
    before = torch.__future__.get_swap_module_params_on_conversion()

    def step(dtype):
        for model, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            model(torch.arange(3, dtype=dtype)).sum().backward()
            optimizer.step()

    if late:
        step(torch.float32)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        step(torch.float32)
        ours.double()
        theirs.double()
        step(torch.float64)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert p.dtype is torch.float64
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_saved_tensors_notice_a_step():
    p = torch.nn.Parameter(torch.ones(2))
    loss = p.square().sum()
    p.grad = torch.ones(2)
    SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ----- groups and gradients that come late -----------------------------------------------------


def test_groups_are_added_and_gradients_come_and_go():
    ours, theirs = twins((4,), (3, 2), (5,))
    a, b = (cls(ps[:2], **RULE) for cls, ps in ((SGD, ours), (torch.optim.SGD, theirs)))
    for turn in range(8):
        if turn == 3:
            for o, ps in ((a, ours), (b, theirs)):
                o.add_param_group({"params": ps[2:], "lr": 0.5})
        give(zip(ours, theirs))
        if turn % 3 == 1:
            ours[1].grad = theirs[1].grad = None
        a.step()
        b.step()
    assert same(ours, theirs)


@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR", "OneCycleLR", "CyclicLR"])
def test_schedulers_of_rate_and_momentum(name):
    options = {
        "StepLR": {"step_size": 2}, "CosineAnnealingLR": {"T_max": 5},
        "OneCycleLR": {"max_lr": 0.5, "total_steps": 10},
        "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2},
    }[name]  # fmt: skip
    ours, theirs = twins((4, 3))
    a, b = SGD(ours, **RULE), torch.optim.SGD(theirs, **RULE)
    schedulers = [getattr(torch.optim.lr_scheduler, name)(o, **options) for o in (a, b)]
    for _ in range(8):
        give(zip(ours, theirs))
        for o, s in zip((a, b), schedulers):
            o.step()
            s.step()
    assert same(ours, theirs)


def test_a_tensor_rate_is_read_at_each_step():
    ours, theirs = twins((3,))
    rates = [torch.tensor(0.1) for _ in range(2)]
    a, b = SGD(ours, lr=rates[0], momentum=0.5), torch.optim.SGD(theirs, lr=rates[1], momentum=0.5)
    for _ in range(3):
        give(zip(ours, theirs))
        a.step()
        b.step()
        for rate in rates:
            rate.mul_(0.5)
    assert same(ours, theirs)


def test_a_rate_that_requires_a_gradient_is_torchs():
    rate = torch.tensor(0.1, requires_grad=True)
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = SGD([p], lr=rate)
    p.grad = torch.ones(2)
    with pytest.warns(UserWarning, match="requires a gradient: torch's own SGD takes the step"):
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.9))


def test_closure_runs_with_gradients_and_returns_the_loss():
    p = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        assert torch.is_grad_enabled()
        loss = p.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert p.item() == 1.0


def test_a_compiled_step_runs_the_same_code():
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = SGD([p], lr=0.5, momentum=0.9)
    torch.compile(optimizer.step, backend="eager")()
    assert p.tolist() == [0.5] * 3


def test_a_compiled_model_trains_as_the_plain_one():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    other = copy.deepcopy(model)
    compiled = torch.compile(other, backend="aot_eager")
    x = torch.randn(16, 4)
    a, b = SGD(model.parameters(), **RULE), SGD(compiled.parameters(), **RULE)
    for _ in range(3):
        for m, o in ((model, a), (compiled, b)):
            o.zero_grad()
            m(x).square().mean().backward()
            o.step()
    for p, q in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(p, q)


# ----- what torch steps ------------------------------------------------------------------------


def test_other_devices_and_dtypes_are_torchs_and_said_once():
    mixed = [
        torch.nn.Parameter(torch.ones(3)),
        torch.nn.Parameter(torch.ones(2, device="meta")),
    ]
    optimizer = SGD(mixed, lr=0.5, momentum=0.9)

    def steps():
        for _ in range(3):
            for p in mixed:
                p.grad = torch.ones_like(p)
            optimizer.step()

    with pytest.warns(UserWarning, match="on meta: torch's own SGD steps these parameters") as seen:
        steps()
    assert len(seen) == 1
    assert "momentum_buffer" in optimizer.state[mixed[1]]
    assert optimizer.last_report.tensors == 1


def test_shared_memory_is_torchs():
    base = torch.ones(6)
    p, q = torch.nn.Parameter(base[:4]), torch.nn.Parameter(base[2:])
    optimizer = SGD([p, q], lr=0.5)
    p.grad, q.grad = torch.ones(4), torch.ones(4)
    with pytest.warns(UserWarning, match="shared"):
        optimizer.step()
    assert base.tolist() == [0.5, 0.5, 0.0, 0.0, 0.5, 0.5]


def test_clipping_is_joint_with_what_torch_steps():
    base = torch.zeros(6)
    p, q = torch.nn.Parameter(base[:4]), torch.nn.Parameter(base[3:])
    r = torch.nn.Parameter(torch.zeros(1))
    optimizer = SGD([p, q, r], lr=1.0, max_norm=1.0)
    p.grad, q.grad, r.grad = torch.tensor([3.0, 0, 0, 0]), torch.tensor([0, 0, 4.0]), torch.tensor([12.0])
    with pytest.warns(UserWarning, match="shared"):
        optimizer.step()
    assert optimizer.last_report.grad_norm == pytest.approx(13.0)
    torch.testing.assert_close(base, -torch.tensor([3.0, 0, 0, 0, 0, 4.0]) / 13)
    torch.testing.assert_close(r.detach(), torch.tensor([-12.0 / 13]))


# ----- loss scaling ----------------------------------------------------------------------------


@pytest.mark.parametrize("scaler_of", [torch.amp.GradScaler, nagcore.torch.GradScaler])
def test_scalers_of_torch_and_ours(scaler_of):
    ours, theirs = twins((300,), (4, 5))
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    runs = []
    for params, optimizer, scaler in (
        (ours, SGD(ours, max_norm=1.0, **options), scaler_of("cpu", init_scale=512.0)),
        (theirs, torch.optim.SGD(theirs, **options), torch.amp.GradScaler("cpu", init_scale=512.0)),
    ):
        torch.manual_seed(5)
        for turn in range(5):
            optimizer.zero_grad()
            x = torch.randn(300)
            loss = (params[0] * x).sum() * 2 + params[1].square().sum()
            scaler.scale(loss * (float("nan") if turn in (0, 3) else 1.0)).backward()
            if params is theirs:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(params, 1.0)
            else:
                before = [p.detach().clone() for p in params]
            scaler.step(optimizer)
            scaler.update()
            if params is ours:
                assert optimizer.last_report.found_inf == (turn in (0, 3))
                assert same(params, before) == (turn in (0, 3))
        runs.append(scaler.get_scale())
    assert runs[0] == runs[1] == 128.0
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_grad_scale_without_found_inf_looks_for_itself():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = SGD([p], lr=1.0, momentum=0.9)
    optimizer.grad_scale = torch.tensor(4.0)
    p.grad = torch.tensor([1.0, float("inf"), 1.0])
    optimizer.step()
    assert optimizer.last_report.found_inf
    assert p.tolist() == [1.0] * 3
    p.grad = torch.full((3,), 2.0)
    optimizer.step()
    assert p.tolist() == [0.5] * 3
    assert optimizer.last_report.grad_norm == pytest.approx(0.75**0.5)
