"""What surrounds the step of nagcore.keras.SGD on one backend: saving, scaling, hand-overs, guards."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

from integrations.keras.backend_tools import (
    BACKEND,
    apply,
    make_data,
    make_grads,
    make_model,
    make_variables,
    numbers,
    state,
)
from nagcore import schedules
from nagcore.callbacks import AnomalyError, AnomalyGuard, AnomalyWarning
from nagcore.keras import SGD

FITTING = BACKEND != "numpy"
needs_fit = pytest.mark.skipif(not FITTING, reason="keras has no fit on its numpy backend")
only_torch = pytest.mark.skipif(BACKEND != "torch", reason="about torch tensors")
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="about tensorflow graphs")
NESTEROV = {"momentum": 0.9, "nesterov": True}


def run(optimizer, variables, steps=4, seed=1, scale=1.0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        apply(optimizer, make_grads(variables, rng, scale), variables)


# ----- saving and loading -----------------------------------------------------------------------


def compiled(optimizer):
    model = make_model()
    model.compile(optimizer, "mse")
    return model


def train(model, epochs=1):
    X, y = make_data(64)
    if FITTING:
        model.fit(X, y, batch_size=32, epochs=epochs, verbose=0, shuffle=False)
        for variable in model.trainable_variables:
            variable.assign(numbers(variable))  # keras on jax shares their buffers with the averages
    else:
        run(model.optimizer, model.trainable_variables, 2 * epochs, scale=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {**NESTEROV, "use_ema": True, "weight_decay": 0.01, "n_threads": 1, "clipnorm": 1.0},
        {"nesterov": True, "acceleration": schedules.AdaptiveRestart(schedules.Sutskever(0.9))},
    ],
    ids=["ema", "acceleration"],
)
def test_a_saved_model_goes_on_to_the_same_bits(settings, tmp_path):
    model = compiled(SGD(0.05, **copy.deepcopy(settings)))
    train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is SGD
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert int(loaded.optimizer.iterations) == 2
    train(model)
    train(loaded)
    pairs = zip(
        state(model.trainable_variables, model.optimizer),
        state(loaded.trainable_variables, loaded.optimizer),
    )
    for a, b in pairs:
        np.testing.assert_array_equal(b, a)


def test_a_saved_model_loads_in_a_new_process(tmp_path):
    model = compiled(SGD(0.05, **NESTEROV))
    train(model)
    model.save(tmp_path / "model.keras")
    script = (
        "import sys, keras, nagcore.keras\n"
        "o = keras.saving.load_model(sys.argv[1]).optimizer\n"
        "print(type(o).__module__, o.momentum, o.nesterov, int(o.iterations))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.keras")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert out.stdout.split() == ["nagcore.keras.sgd", "0.9", "True", "2"], out.stderr


def test_state_goes_both_ways_between_keras_and_nagcore():
    theirs, ours = (make(0.1, **NESTEROV) for make in (keras.optimizers.SGD, SGD))
    a, b = make_variables(), make_variables()
    theirs.build(a)
    ours.build(b)
    run(theirs, a)
    ours.set_weights([numbers(v) for v in theirs.variables])
    for x, y in zip(theirs.variables, ours.variables):
        np.testing.assert_array_equal(numbers(y), numbers(x))
    run(ours, b)
    theirs.set_weights([numbers(v) for v in ours.variables])
    assert int(theirs.iterations) == 8
    assert SGD.from_config(theirs.get_config()).momentum == 0.9


def test_a_custom_schedule_says_what_saving_needs():
    class Mine(schedules.Schedule):
        def momentum(self, t):
            return 0.5

    with pytest.raises(ValueError, match="register_keras_serializable"):
        SGD(acceleration=Mine()).get_config()


def test_a_clone_begins_its_adaptive_schedule_anew():
    schedule = schedules.AdaptiveRestart(schedules.Nesterov())
    optimizer, variables = SGD(0.1, nesterov=True, acceleration=schedule), make_variables()
    run(optimizer, variables, 3)
    schedule.observe(1.0)
    clone, again = SGD.from_config(optimizer.get_config()), make_variables(seed=9)
    fresh = SGD(0.1, nesterov=True, acceleration=schedules.AdaptiveRestart(schedules.Nesterov()))
    other = make_variables(seed=9)
    run(clone, again, 3)
    run(fresh, other, 3)
    for a, b in zip(again, other):
        np.testing.assert_array_equal(numbers(a), numbers(b))


# ----- acceleration and guard -------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    "schedule", [schedules.Nesterov(), schedules.Warmup(0.8, 3), schedules.Constant(0.5)], ids=repr
)
def test_acceleration_follows_the_schedule(schedule, nesterov):
    w = keras.Variable(np.array([1.0, -2.0], "float32"))
    optimizer = SGD(0.1, nesterov=nesterov, acceleration=schedule)
    want, v = np.array([1.0, -2.0]), np.zeros(2)
    for t in range(1, 6):
        g = np.array([0.3 * t, -1.0])
        v = schedule(t) * v - 0.1 * g
        want = want + (schedule(t + 1) * v - 0.1 * g if nesterov else v)
        apply(optimizer, [keras.ops.convert_to_tensor(g.astype("float32"))], [w])
        np.testing.assert_allclose(numbers(w), want, rtol=1e-5)
    np.testing.assert_allclose(numbers(optimizer.momentums[0]), v, rtol=1e-5)


def test_adaptive_acceleration_restarts_when_a_step_went_uphill():
    schedule = schedules.AdaptiveRestart(schedules.Constant(0.9))
    w = keras.Variable(np.ones(3, "float32"))
    optimizer = SGD(0.1, acceleration=schedule)
    for sign in (1.0, 1.0, -1.0):  # the third gradient points back
        apply(optimizer, [keras.ops.convert_to_tensor(np.full(3, sign, "float32"))], [w])
    assert schedule.restarts == 1
    np.testing.assert_allclose(numbers(optimizer.momentums[0]), 0.1, rtol=1e-6)


def guarded(guard, scale_at=None, steps=8):
    """Steps with gradients of norm about 2, one of which is scaled."""
    w, rng = keras.Variable(np.ones(400, "float32")), np.random.default_rng(0)
    optimizer, trail = SGD(0.01, **NESTEROV, guard=guard), []
    for step in range(1, steps + 1):
        g = (0.1 * rng.standard_normal(400)).astype("float32")
        if scale_at and step in scale_at:
            g = g * np.float32(scale_at[step])
        apply(optimizer, [keras.ops.convert_to_tensor(g)], [w])
        trail.append((numbers(w), numbers(optimizer.momentums[0])))
    return optimizer, trail


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e4])
def test_guard_skips(bad):
    guard = AnomalyGuard("skip", warmup=4, window=8, on_event=lambda event: None)
    optimizer, trail = guarded(guard, {6: bad})
    for before, after in zip(trail[4], trail[5]):
        np.testing.assert_array_equal(after, before)
    assert np.abs(trail[6][0] - trail[5][0]).max() > 0
    assert [e.step for e in guard.events] == [6]
    assert np.isfinite(trail[-1][0]).all()
    assert optimizer.last_report.tensors == 1


def test_guard_clips_a_spike():
    guard = AnomalyGuard("clip", warmup=4, window=8, on_event=lambda event: None)
    _, trail = guarded(guard, {6: 1e4})
    assert [e.action for e in guard.events] == ["clip"]
    pulled = 0.9 * trail[4][1] - trail[5][1]  # lr times the clipped gradient
    assert np.linalg.norm(pulled) == pytest.approx(0.01 * guard.events[0].limit, rel=1e-4)


def test_guard_rolls_back():
    guard = AnomalyGuard("rollback", warmup=4, window=4, on_event=lambda event: None)
    _, trail = guarded(guard, {7: np.nan})
    for kept, after in zip(trail[3], trail[6]):  # the copy made after step 4
        np.testing.assert_array_equal(after, kept)


def test_guard_warns_and_raises():
    if BACKEND in ("numpy", "torch"):  # jax and tensorflow report through their runtimes
        with pytest.warns(AnomalyWarning, match="step 6"):
            guarded(AnomalyGuard("skip", warmup=4), {6: np.nan})
        with pytest.raises(AnomalyError, match="step 6"):
            guarded(AnomalyGuard("raise", warmup=4), {6: np.nan})
    else:
        with pytest.raises(Exception, match="step 6"):
            guarded(AnomalyGuard("raise", warmup=4), {6: np.nan})


@needs_fit
def test_guard_and_acceleration_under_fit():
    guard = AnomalyGuard("skip", warmup=3, on_event=lambda event: None)
    model = compiled(SGD(0.05, nesterov=True, acceleration=schedules.Nesterov(), guard=guard))
    X, y = make_data(160)
    X[64:96] = np.nan  # the third batch
    start = state(model.trainable_variables, model.optimizer)[:6]
    model.fit(X, y, batch_size=32, epochs=1, verbose=0, shuffle=False)
    assert [(e.step, e.kind) for e in guard.events] == [(3, "gradient")]
    end = state(model.trainable_variables, model.optimizer)
    assert all(np.isfinite(a).all() for a in end)
    assert any(np.abs(a - b).max() > 0 for a, b in zip(start, end))


def test_guard_judges_the_accumulated_gradient_only():
    guard = AnomalyGuard("skip", on_event=lambda event: None)
    optimizer, variables = SGD(0.1, gradient_accumulation_steps=2, guard=guard), make_variables()
    run(optimizer, variables, 6)
    assert len(guard.state_dict()["norms"]) == 3


# ----- scaling, narrow types, hand-overs --------------------------------------------------------


@pytest.mark.parametrize("use_kernel", [None, True])
def test_loss_scaling_skips_and_halves(use_kernel):
    inner = SGD(0.1, **NESTEROV, use_kernel=use_kernel)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
    w = keras.Variable(np.ones(5, "float32"))
    optimizer.build([w])
    apply(optimizer, [keras.ops.ones(5) * 1024.0], [w])
    np.testing.assert_allclose(numbers(w), 1 - 0.1 * 1.9, rtol=1e-6)
    before = numbers(w)
    apply(optimizer, [keras.ops.ones(5) * np.inf], [w])
    np.testing.assert_array_equal(numbers(w), before)
    assert float(numbers(optimizer.dynamic_scale)) == 512.0
    apply(optimizer, [keras.ops.ones(5) * 512.0], [w])
    assert int(inner.iterations) == 2
    np.testing.assert_allclose(numbers(w), before - 0.1 * 1.9 - 0.81 * 0.1, rtol=1e-5)


@needs_fit
def test_mixed_precision_trains():
    model = make_model(dtype="mixed_bfloat16" if BACKEND != "torch" else "mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1, **NESTEROV, use_kernel=True))
    model.compile(optimizer, "mse")
    X, y = make_data(256)
    history = model.fit(X, y, batch_size=32, epochs=4, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert optimizer.inner_optimizer.last_report.tensors == 6
    assert all(v.dtype == "float32" for v in model.trainable_variables)


def test_bfloat16_variables_are_left_to_keras_and_it_is_said_once():
    both = []
    for make, more in ((keras.optimizers.SGD, {}), (SGD, {"use_kernel": True})):
        variables = [
            keras.Variable(np.ones(3, "float32")),
            keras.Variable(np.ones(4, "float32"), dtype="bfloat16"),
        ]
        optimizer = make(0.125, **NESTEROV, weight_decay=0.5, **more)
        optimizer.build(variables)
        grads = [keras.ops.ones(3), keras.ops.ones(4, dtype="bfloat16")]
        if make is SGD:
            with pytest.warns(UserWarning, match=r"left to keras's own rule because its dtype is bfloat16"):
                optimizer.apply(grads, variables)
        else:
            optimizer.apply(grads, variables)
        optimizer.apply(grads, variables)  # pytest makes a second warning an error
        both.append([numbers(v).astype("float32") for v in variables])
    np.testing.assert_allclose(both[1][0], both[0][0], rtol=1e-6)
    np.testing.assert_array_equal(both[1][1], both[0][1])


def test_stateless_apply_changes_no_variable():
    if BACKEND in ("tensorflow", "torch"):
        pytest.skip("keras has no stateless_apply there, or writes in place itself")
    theirs, ours = (make(0.1, **NESTEROV) for make in (keras.optimizers.SGD, SGD))
    variables, found = make_variables(), []
    before = [numbers(v) for v in variables]
    grads = make_grads(variables, np.random.default_rng(0))
    for optimizer in (theirs, ours):
        optimizer.build(variables)
        new, _ = optimizer.stateless_apply(
            [numbers(v) for v in optimizer.variables], grads, [numbers(v) for v in variables]
        )
        found.append([np.array(x) for x in new])
    for a, b, kept, v in zip(*found, before, variables):
        np.testing.assert_allclose(b, a, rtol=1e-6)
        np.testing.assert_array_equal(numbers(v), kept)


@pytest.mark.skipif(BACKEND == "torch", reason="keras shares the parameter there, on purpose")
def test_a_variable_made_from_another_keeps_its_own_memory():
    first = keras.Variable(np.ones(3, "float32"))
    second = keras.Variable(first)
    apply(SGD(0.5), [keras.ops.ones(3)], [second])
    assert numbers(first).tolist() == [1.0, 1.0, 1.0]
    assert numbers(second).tolist() == [0.5, 0.5, 0.5]


@only_torch
def test_storage_that_moves_is_noticed():
    variables = make_variables(shapes=[(5,), (3, 4)])
    optimizer = SGD(0.1, **NESTEROV)
    run(optimizer, variables, 2)
    for v in [*variables, *optimizer.momentums]:
        v.value.data = v.value.data.clone()
    old = [numbers(v) for v in variables]
    run(optimizer, variables, 1)
    assert all(np.abs(numbers(v) - o).max() > 0 for v, o in zip(variables, old))


@only_torch
def test_autograd_sees_that_variables_were_written():
    import torch

    w = keras.Variable(np.ones(3, "float32"))
    y = (w.value**2).sum()
    apply(SGD(0.1), [keras.ops.ones(3)], [w])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y, w.value)


@only_torch
def test_gradients_of_any_strides_give_the_same():
    found = []
    for transpose in (False, True):
        w = keras.Variable(np.zeros((3, 4), "float32"))
        g = keras.ops.convert_to_tensor(np.arange(12.0, dtype="float32").reshape(3, 4))
        if transpose:
            g = g.T.contiguous().T
        optimizer = SGD(0.1, **NESTEROV)
        for _ in range(3):
            apply(optimizer, [g], [w])
        found.append(numbers(w))
    np.testing.assert_array_equal(*found)


@only_torch
def test_a_compiled_torch_model_trains():
    import torch

    model = compiled(SGD(0.05, **NESTEROV, use_kernel=True))
    X, y = make_data(64)
    train(model)  # keras builds its metrics in the first batch
    step = torch.compile(lambda data: model.train_step(data), backend="eager")
    losses = [float(step((X, y))["loss"]) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert int(model.optimizer.iterations) == 6
    assert model.optimizer.last_report.tensors == 6


@only_tensorflow
def test_xla_and_sparse_gradients_are_left_to_keras():
    X, y = make_data(64)
    model = make_model()
    model.compile(SGD(0.05, **NESTEROV, use_kernel=True), "mse", jit_compile=True)
    with pytest.warns(UserWarning, match="compiled by XLA"):
        model.fit(X, y, batch_size=32, verbose=0)
    assert int(model.optimizer.iterations) == 2
    words = keras.Sequential([keras.layers.Embedding(20, 4), keras.layers.Flatten(), keras.layers.Dense(1)])
    words.compile(SGD(0.05, **NESTEROV, use_kernel=True), "mse")
    with pytest.warns(UserWarning, match="its gradient is sparse"):
        words.fit(np.zeros((8, 3), "int32"), np.ones((8, 1), "float32"), verbose=0)
    assert words.optimizer.last_report.tensors == 2


@pytest.mark.skipif(BACKEND not in ("numpy", "torch"), reason="copying backends keep the old values anyway")
def test_arrays_are_written_in_place():
    w = keras.Variable(np.ones(3, "float32"))
    optimizer = SGD(0.5)
    optimizer.build([w])
    held = w.value
    apply(optimizer, [keras.ops.ones(3)], [w])
    assert w.value is held
    assert numbers(held).tolist() == [0.5, 0.5, 0.5]


def test_pickle_and_deepcopy_keep_the_arguments():
    optimizer = SGD(0.1, **NESTEROV, n_threads=2, use_kernel=True, acceleration=schedules.Warmup(0.8, 3))
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert other is not optimizer
        assert other.get_config() == optimizer.get_config()
