"""torch's own OptimizerInfo runs over the class: its inputs, its error inputs, its generic properties."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")
common = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="torch's test helpers need expecttest"
)

from torch.optim.lr_scheduler import ExponentialLR, LinearLR, ReduceLROnPlateau, StepLR  # noqa: E402

import nagcore.torch  # noqa: E402

INFO = common.OptimizerInfo(
    nagcore.torch.SGD,
    optim_inputs_func=common.optim_inputs_func_sgd,
    optim_error_inputs_func=common.optim_error_inputs_func_sgd,
    scheduler_inputs=(
        [lambda o: StepLR(o, gamma=0.9, step_size=10)],
        [lambda o: LinearLR(o, start_factor=0.4, end_factor=1, total_iters=4)],
        [
            lambda o: StepLR(o, gamma=0.9, step_size=10),
            lambda o: LinearLR(o, start_factor=0.4, end_factor=0.6, total_iters=4),
        ],
        [
            lambda o: StepLR(o, gamma=0.99, step_size=10),
            lambda o: ExponentialLR(o, gamma=0.99),
            lambda o: ReduceLROnPlateau(o),
        ],
    ),
    supported_impls=("foreach", "differentiable", "fused"),
    not_og_supported_flags=("foreach", "differentiable", "fused", "maximize", "capturable"),
    supports_fused_on=("cpu",),
)
INPUTS = [
    pytest.param(o.kwargs, id=o.desc.replace(" ", "-")) for o in INFO.optim_inputs_func("cpu")
]
ERRORS = [
    pytest.param(e, id=str(i))
    for i, e in enumerate(INFO.optim_error_inputs_func("cpu", torch.float32))
]
SGD = INFO.optim_cls


def fresh(kwargs):
    """Keyword arguments whose tensors are this test's own: a scheduler writes into a tensor lr."""
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}


def line_of_best_fit(contiguous=True):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 5, 2, generator=generator)[..., 0]
    weight = weight.contiguous() if contiguous else weight
    bias, data = torch.randn(10, generator=generator), torch.randn(5, generator=generator)
    weight, bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)

    def loss():
        return ((weight @ data + bias) ** 2).sum()

    return weight, bias, loss


@pytest.mark.parametrize("error", ERRORS)
def test_error_inputs(error):
    given = error.optimizer_error_input
    params = [torch.randn(1, 1, requires_grad=True)] if given.params is None else given.params
    if error.error_type is UserWarning:
        with pytest.warns(UserWarning, match=error.error_regex):
            SGD(params, **given.kwargs)
        return
    with pytest.raises(error.error_type, match=error.error_regex):
        SGD(params, **given.kwargs)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("schedulers", [(), *INFO.scheduler_inputs])
@pytest.mark.parametrize("kwargs", INPUTS)
def test_goes_in_the_right_direction(kwargs, schedulers, contiguous):
    kwargs = fresh(kwargs)
    weight, bias, loss_of = line_of_best_fit(contiguous)
    optimizer = SGD([weight, bias], **kwargs)
    made = [make(optimizer) for make in schedulers]

    def closure():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    first = closure().item()
    # 0.5 of decay and more than its share of momentum at lr 1e-3: a few steps are enough.
    for _ in range(20):
        loss = optimizer.step(closure)
        for scheduler in made:
            scheduler.step(loss.detach()) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()
    last = closure().item()
    assert last > first if kwargs.get("maximize") else last < first


@pytest.mark.parametrize("kwargs", INPUTS)
@pytest.mark.parametrize("flags", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}])
def test_flags_change_no_bit(kwargs, flags):
    models = []
    for more in ({}, flags):
        weight, bias, loss_of = line_of_best_fit()
        optimizer = SGD([weight, bias], **fresh(kwargs), **more)
        for _ in range(4):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()
        models.append((weight, bias))
    assert all(torch.equal(a, b) for a, b in zip(*models))


@pytest.mark.parametrize("kwargs", INPUTS)
def test_flags_agree_with_torch_under_differentiable(kwargs):
    """differentiable=True goes through torch: gradients flow through the step."""
    found = []
    for cls in (torch.optim.SGD, SGD):
        start = torch.linspace(-1, 1, 6, requires_grad=True)
        gradient = torch.linspace(1, 3, 6, requires_grad=True)
        p = start.clone()
        optimizer = cls([p], differentiable=True, **fresh(kwargs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2):
                p.grad = gradient.square()
                optimizer.step()
        found.append(torch.autograd.grad(p.pow(2).sum(), [start, gradient]))
    assert all(torch.equal(a, b) for a, b in zip(*found))


@pytest.mark.parametrize("schedule", [False, True])
def test_param_groups_have_their_own_numbers(schedule):
    weight, bias, _ = line_of_best_fit()
    both = []
    for cls in (torch.optim.SGD, SGD):
        w, b = (torch.nn.Parameter(t.detach().clone()) for t in (weight, bias))
        optimizer = cls(
            [
                {"params": [w], "lr": 0.01, "weight_decay": 0.5},
                {"params": [b], "momentum": 0.5, "nesterov": True},
            ],
            lr=0.001, momentum=0.9,
        )  # fmt: skip
        scheduler = StepLR(optimizer, 2) if schedule else None
        for _ in range(5):
            w.grad, b.grad = torch.ones_like(w), torch.full_like(b, 2.0)
            optimizer.step()
            if scheduler:
                scheduler.step()
        both.append((w, b))
    for theirs, ours in zip(*both):
        torch.testing.assert_close(theirs, ours, rtol=3e-7, atol=0)


@pytest.mark.parametrize("kwargs", INPUTS)
def test_step_without_gradients_does_nothing(kwargs):
    p = torch.nn.Parameter(torch.randn(2, 3))
    before = p.detach().clone()
    optimizer = SGD([p], **fresh(kwargs))
    optimizer.step()
    assert torch.equal(p, before)
    assert len(optimizer.state) == 0


@pytest.mark.parametrize("kwargs", INPUTS)
def test_zero_gradients_move_decayed_parameters_only(kwargs):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = SGD([p], **fresh(kwargs))
    p.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(p.detach(), torch.ones(3)) is not ("weight_decay" in kwargs)


@pytest.mark.parametrize("kwargs", INPUTS)
def test_can_be_printed_copied_and_pickled(kwargs):
    weight, bias, loss_of = line_of_best_fit()
    optimizer = SGD([weight, bias], **fresh(kwargs))
    loss_of().backward()
    optimizer.step()
    assert repr(optimizer).startswith("SGD (")
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert str(twin.state_dict()) == str(optimizer.state_dict())
        for group, other in zip(optimizer.param_groups, twin.param_groups):
            assert len(group["params"]) == len(other["params"])
            for q in other["params"]:
                q.grad = torch.ones_like(q)
        weight.grad, bias.grad = torch.ones_like(weight), torch.ones_like(bias)
        before = [p.detach().clone() for p in (weight, bias)]
        optimizer_state = copy.deepcopy(optimizer.state_dict())
        optimizer.step()
        twin.step()
        for p, q in zip((weight, bias), twin.param_groups[0]["params"]):
            assert torch.equal(p, q)
        with torch.no_grad():
            for p, b in zip((weight, bias), before):
                p.copy_(b)
        optimizer.load_state_dict(optimizer_state)


def test_deepcopy_keeps_every_public_attribute():
    optimizer = SGD([torch.nn.Parameter(torch.randn(2, 3))], max_norm=2.0, n_threads=1)
    twin = copy.deepcopy(optimizer)
    public = {name for name in dir(optimizer) if not name.startswith("_")}
    assert public <= set(dir(twin))
    assert (twin.max_norm, twin.n_threads) == (2.0, 1)


@pytest.mark.parametrize("kwargs", INPUTS)
@pytest.mark.parametrize("direction", ["ours-to-theirs", "theirs-to-ours"])
def test_state_dict_goes_both_ways(kwargs, direction):
    first, second = (SGD, torch.optim.SGD) if direction == "ours-to-theirs" else (torch.optim.SGD, SGD)
    weight, bias, loss_of = line_of_best_fit()
    a = first([weight, bias], **fresh(kwargs))
    for _ in range(3):
        a.zero_grad()
        loss_of().backward()
        a.step()
    copies = [torch.nn.Parameter(p.detach().clone()) for p in (weight, bias)]
    b = second(copies, lr=77.0)
    file = io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    b.load_state_dict(torch.load(file, weights_only=True))
    for p, q in zip((weight, bias), copies):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    a.step()
    b.step()
    for p, q in zip((weight, bias), copies):
        torch.testing.assert_close(p, q, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("kwargs", INPUTS)
def test_state_dict_is_deterministic(kwargs):
    runs = []
    for _ in range(2):
        weight, bias, loss_of = line_of_best_fit()
        optimizer = SGD([weight, bias], **fresh(kwargs))
        for _ in range(3):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()
        runs.append((weight, optimizer.state_dict()))
    assert torch.equal(runs[0][0], runs[1][0])
    assert str(runs[0][1]) == str(runs[1][1])


@pytest.mark.parametrize("kwargs", INPUTS)
def test_older_state_dicts_without_later_flags_load(kwargs):
    weight, bias, loss_of = line_of_best_fit()
    optimizer = SGD([weight, bias], **fresh(kwargs))
    loss_of().backward()
    optimizer.step()
    old = optimizer.state_dict()
    for group in old["param_groups"]:
        for flag in (*INFO.not_og_supported_flags, "decoupled_weight_decay"):
            group.pop(flag, None)
    optimizer.load_state_dict(old)
    optimizer.step()
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is False


def test_named_parameters_in_and_out():
    model = torch.nn.Linear(3, 2)
    named = SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    model(torch.ones(1, 3)).sum().backward()
    named.step()
    plain = SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain.load_state_dict(named.state_dict())
    named.load_state_dict(plain.state_dict())
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]


def test_every_hook_is_called_in_its_order():
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    calls = []
    optimizer.register_step_pre_hook(lambda o, a, k: calls.append("pre"))
    optimizer.register_step_post_hook(lambda o, a, k: calls.append("post"))
    optimizer.register_state_dict_pre_hook(lambda o: calls.append("save"))
    optimizer.register_state_dict_post_hook(lambda o, d: calls.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda o, d: calls.append("load"))
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append("loaded"))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["pre", "post", "save", "saved", "load", "loaded"]


def test_non_empty_state_under_a_string_survives():
    p = torch.nn.Parameter(torch.ones(1))
    optimizer = SGD([p], lr=0.1)
    optimizer.state["note"] = "kept"
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state["note"] == "kept"


@pytest.mark.parametrize("kwargs", INPUTS)
def test_complex_parameters_step_like_their_real_views(kwargs):
    generator = torch.Generator().manual_seed(2)
    value = torch.randn(4, 3, dtype=torch.complex64, generator=generator)
    whole = torch.nn.Parameter(value.clone())
    parts = torch.nn.Parameter(torch.view_as_real(value).clone())
    a, b = SGD([whole], **fresh(kwargs)), SGD([parts], **fresh(kwargs))
    for _ in range(3):
        whole.grad = torch.randn(4, 3, dtype=torch.complex64, generator=generator)
        parts.grad = torch.view_as_real(whole.grad).clone()
        a.step()
        b.step()
    assert torch.equal(torch.view_as_real(whole.detach()), parts.detach())


@pytest.mark.parametrize("kwargs", INPUTS)
@pytest.mark.parametrize("explicit", [False, True], ids=["step", "unscale-clip-step"])
def test_grad_scaling(kwargs, explicit):
    both = []
    for cls in (torch.optim.SGD, SGD):
        weight, bias, loss_of = line_of_best_fit()
        optimizer = cls([weight, bias], **fresh(kwargs))
        scaler = torch.amp.GradScaler("cpu", init_scale=128.0, growth_interval=2)
        for turn in range(5):
            optimizer.zero_grad()
            scaler.scale(loss_of() * (float("inf") if turn == 2 else 1.0)).backward()
            if explicit:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_([weight, bias], 1.0)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 256.0  # doubled, halved at the infinity, doubled
        both.append((weight, bias))
    for theirs, ours in zip(*both):
        torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)
