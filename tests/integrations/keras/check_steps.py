"""nagcore.keras.SGD against keras.optimizers.SGD on one backend, step by step and under `fit`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from integrations.keras.backend_tools import (
    BACKEND,
    FUSED,
    ULPS,
    apply,
    make_data,
    make_grads,
    make_model,
    make_variables,
    numbers,
    state,
    ulps,
)
from nagcore import schedules
from nagcore.callbacks import AnomalyGuard
from nagcore.keras import SGD
from nagcore.reference.update import fma

LR = 0.1
CASES = {
    "plain": {},
    "heavy_ball": {"momentum": 0.7},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.03},
    "plain_decay": {"weight_decay": 0.03},
    "clipnorm": {"momentum": 0.9, "nesterov": True, "clipnorm": 0.7},
    "global_clipnorm": {"momentum": 0.9, "nesterov": True, "global_clipnorm": 0.7},
    "clipvalue": {"momentum": 0.9, "nesterov": True, "clipvalue": 0.2},
    "loss_scale": {"momentum": 0.9, "loss_scale_factor": 1000.0},
    "ema": {"momentum": 0.9, "nesterov": True, "use_ema": True, "ema_momentum": 0.9},
    "ema_overwrite": {"momentum": 0.9, "use_ema": True, "ema_overwrite_frequency": 2},
    "accumulation": {"momentum": 0.9, "nesterov": True, "gradient_accumulation_steps": 2},
    "everything": {
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.01,
        "global_clipnorm": 1.0,
        "use_ema": True,
        "ema_overwrite_frequency": 3,
        "gradient_accumulation_steps": 2,
        "loss_scale_factor": 8.0,
    },
}
FITTING = BACKEND != "numpy"
needs_fit = pytest.mark.skipif(not FITTING, reason="keras has no fit on its numpy backend")


def pair(case, use_kernel=True, dtype="float32"):
    """keras's optimizer and ours, each with its variables."""
    both = []
    for make, more in ((keras.optimizers.SGD, {}), (SGD, {"use_kernel": use_kernel})):
        variables = make_variables(dtype=dtype)
        optimizer = make(LR, **CASES[case], **more)
        optimizer.build(variables)
        both.append((optimizer, variables))
    return both


def same_state(target, source):
    (optimizer, variables), (other, others) = target, source
    for mine, theirs in zip([*variables, *optimizer.variables], [*others, *other.variables]):
        mine.assign(numbers(theirs))


# XLA folds a scale that is no power of two into the rate, and so keras's own rule takes that step.
LEFT_TO_KERAS = {"loss_scale"} if BACKEND == "jax" else set()


@pytest.mark.filterwarnings("ignore:.*the compiler folds loss_scale_factor=1000.0:UserWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_step_equals_keras(case, dtype):
    """From the same state, one step apart by at most the backend's ulps; six steps."""
    if dtype == "float64" and BACKEND == "jax":
        pytest.skip("jax holds no float64 here")
    theirs, ours = pair(case, dtype=dtype)
    rng = np.random.default_rng(3)
    for step in range(6):
        before = [numbers(v) for v in theirs[1]]
        velocities = [numbers(m) for m in theirs[0].momentums] or [np.zeros_like(b) for b in before]
        scale = theirs[0].loss_scale_factor or 1.0
        grads = make_grads(theirs[1], rng, scale=scale)
        for optimizer, variables in (theirs, ours):
            apply(optimizer, grads, variables)
        for i, (t, o) in enumerate(zip(theirs[1], ours[1])):
            size = [before[i], 0.9 * velocities[i], LR / scale * numbers(grads[i])]
            off = ulps(numbers(o), numbers(t), *size)
            assert off <= ULPS, f"step {step}, variable {i}: {off} ulps"
        for t, o in zip(theirs[0].variables, ours[0].variables):
            assert t.shape == o.shape
            np.testing.assert_allclose(numbers(o), numbers(t), rtol=2e-6, atol=1e-6)
        assert int(ours[0].iterations) == int(theirs[0].iterations)
        if case in LEFT_TO_KERAS:
            assert ours[0].last_report is None
        elif not CASES[case].get("gradient_accumulation_steps"):
            assert ours[0].last_report.tensors == len(ours[1])
        same_state(ours, theirs)


@pytest.mark.skipif(BACKEND != "jax", reason="about XLA's folding of the loss scale")
def test_a_loss_scale_that_xla_folds_is_left_to_keras():
    def step(**options):
        w = keras.Variable(np.ones(3, "float32"))
        optimizer = SGD(LR, momentum=0.9, use_kernel=True, **options)
        optimizer.build([w])
        apply(optimizer, [keras.ops.convert_to_tensor(np.ones(3, "float32"))], [w])
        return optimizer.last_report

    with pytest.warns(UserWarning, match="left to keras's own rule because the compiler folds"):
        assert step(loss_scale_factor=3.0) is None
    assert step(loss_scale_factor=0.25).tensors == 1
    guard = AnomalyGuard()  # which keras's rule does not know
    assert step(loss_scale_factor=3.0, guard=guard).tensors == 1


@pytest.mark.skipif(BACKEND != "jax" or not FUSED, reason="about XLA's contractions, on jax and with an fma")
def test_what_xla_makes_of_the_rule():
    """v = fma(μ, v, −rnd(lr·g)), as the kernel has it; with a loss scale s, g·rnd(lr·rnd(1/s)) for lr·g."""
    rate, mu = np.float32(LR), np.float32(0.9)
    for scale in (None, 1000.0):
        w = keras.Variable(np.ones(4099, "float32"))
        optimizer = keras.optimizers.SGD(LR, momentum=0.9, loss_scale_factor=scale)
        optimizer.build([w])
        v, g = (np.random.default_rng(i).standard_normal(4099).astype("float32") for i in (0, 1))
        optimizer.momentums[0].assign(v)
        apply(optimizer, [keras.ops.convert_to_tensor(g)], [w])
        folded = rate if scale is None else rate * (np.float32(1) / np.float32(scale))
        np.testing.assert_array_equal(numbers(optimizer.momentums[0]), fma(mu, v, -(g * folded)))


@pytest.mark.parametrize("case", CASES)
def test_without_the_kernel_it_is_keras(case):
    """use_kernel=False hands every step to keras's own rule, to the bit."""
    theirs, ours = pair(case, use_kernel=False)
    rng = np.random.default_rng(5)
    for _ in range(4):
        grads = make_grads(theirs[1], rng)
        for optimizer, variables in (theirs, ours):
            apply(optimizer, grads, variables)
    for t, o in zip(state(theirs[1], theirs[0]), state(ours[1], ours[0])):
        np.testing.assert_array_equal(o, t)
    assert ours[0].last_report is None


@needs_fit
@pytest.mark.parametrize("case", ["nesterov", "decay", "ema", "everything"])
@pytest.mark.parametrize("use_kernel", [None, True])
def test_fit_equals_keras(case, use_kernel):
    """Under `fit`, batch by batch from the same state."""
    X, y = make_data()
    models = []
    for make, more in ((keras.optimizers.SGD, {}), (SGD, {"use_kernel": use_kernel})):
        model = make_model()
        model.compile(make(LR, **CASES[case], **more), "binary_crossentropy")
        model.optimizer.build(model.trainable_variables)
        models.append(model)
    theirs, ours = models
    for start in range(0, 160, 32):
        before = [numbers(v) for v in theirs.trainable_variables]
        batch = slice(start, start + 32)
        for model in models:
            model.fit(X[batch], y[batch], batch_size=32, verbose=0, shuffle=False)
        velocities = [numbers(m) for m in theirs.optimizer.momentums]
        for i, (t, o) in enumerate(zip(theirs.trainable_variables, ours.trainable_variables)):
            # XLA fuses the gradient's own sums differently, and tensorflow's graphs multiply λ and lr first.
            limit = ULPS + {"jax": 1, "tensorflow": 1}.get(BACKEND, 0)
            if BACKEND in ("jax", "tensorflow") and use_kernel is None:
                limit = 0  # the backend's own rule
            off = ulps(numbers(o), numbers(t), before[i], 0.9 * velocities[i])
            assert off <= limit, f"batch at {start}, {t.path}: {off} ulps"
        pairs = zip(
            [*ours.trainable_variables, *ours.optimizer.variables],
            [*theirs.trainable_variables, *theirs.optimizer.variables],
        )
        for mine, other in pairs:  # copies: after a fit with averages keras on jax shares buffers
            other.assign(numbers(other))
            mine.assign(numbers(other))


@needs_fit
def test_fit_learns():
    """Whole epochs with validation data: the loss falls as keras's does."""
    X, y = make_data(640)
    losses = []
    for make in (keras.optimizers.SGD, SGD):
        model = make_model()
        model.compile(make(0.05, momentum=0.9, nesterov=True), "binary_crossentropy")
        history = model.fit(X, y, batch_size=32, epochs=4, verbose=0, shuffle=False,
                            validation_data=(X, y))  # fmt: skip
        losses.append(history.history["loss"])
    assert losses[1][-1] < 0.8 * losses[1][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_excluded_variables_do_not_decay():
    theirs, ours = pair("decay")
    for optimizer in (theirs[0], ours[0]):
        optimizer.exclude_from_weight_decay(var_list=[theirs[1][0], ours[1][0]], var_names=["v1"])
    grads = [keras.ops.zeros(v.shape) for v in theirs[1]]
    start = [numbers(v) for v in ours[1]]
    for optimizer, variables in (theirs, ours):
        apply(optimizer, grads, variables)
    for i, (t, o) in enumerate(zip(theirs[1], ours[1])):
        assert ulps(numbers(o), numbers(t)) <= 1
        assert np.array_equal(numbers(o), start[i]) == (i in (0, 1))


def test_learning_rate_schedules_and_changes():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=2, decay_rate=0.5)
    for rates in (schedule, lambda: 0.03):
        both = []
        for make, more in ((keras.optimizers.SGD, {}), (SGD, {"use_kernel": True})):
            variables = make_variables()
            optimizer = make(rates, momentum=0.9, nesterov=True, **more)
            rng = np.random.default_rng(1)
            optimizer.build(variables)
            for _ in range(5):
                apply(optimizer, make_grads(variables, rng), variables)
            both.append([numbers(v) for v in variables])
        for t, o in zip(*both):
            np.testing.assert_allclose(o, t, rtol=1e-5, atol=1e-6)
    optimizer = SGD(0.5, use_kernel=True)
    w = keras.Variable(np.ones(2, "float32"))
    apply(optimizer, [keras.ops.ones(2)], [w])
    optimizer.learning_rate = 0.25
    apply(optimizer, [keras.ops.ones(2)], [w])
    assert numbers(w).tolist() == [0.25, 0.25]


def test_a_variable_without_gradient_is_left_alone():
    theirs, ours = pair("ema")
    rng = np.random.default_rng(2)
    for _ in range(3):
        grads = make_grads(theirs[1], rng)
        grads[1] = None
        for optimizer, variables in (theirs, ours):
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                optimizer.apply(grads, variables)
    for t, o in zip(state(theirs[1], theirs[0]), state(ours[1], ours[0])):
        np.testing.assert_allclose(o, t, rtol=2e-6, atol=1e-6)


def test_constraints_hold():
    w = keras.Variable(np.array([0.1, -0.2], "float32"))
    w.constraint = keras.constraints.NonNeg()
    SGD(0.5, use_kernel=True).apply([keras.ops.convert_to_tensor(np.array([1.0, -1.0], "float32"))], [w])
    assert numbers(w).tolist() == pytest.approx([0.0, 0.3])


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_change_no_bit(n_threads):
    found = []
    for threads in (None, n_threads):
        variables = make_variables(shapes=[(70_001,), (13,)])
        optimizer = SGD(LR, momentum=0.9, nesterov=True, n_threads=threads, use_kernel=True)
        rng = np.random.default_rng(4)
        for _ in range(2):
            apply(optimizer, make_grads(variables, rng), variables)
        found.append(state(variables, optimizer))
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(BACKEND not in ("numpy", "torch"), reason="elsewhere the default is keras's own rule")
@pytest.mark.parametrize(
    ("settings", "shapes", "pays"),
    [
        ({"momentum": 0.9, "nesterov": True}, [(3,)] * 4, False),
        ({"momentum": 0.9}, [(3,)] * 24, True),
        ({"momentum": 0.9}, [(1500, 1000)], True),
        ({"momentum": 0.9, "weight_decay": 0.01}, [(3,)], True),
        ({"use_ema": True}, [(3,)], True),
        ({}, [(3,)] * 24, False),
        ({"weight_decay": 0.01}, [(3,)] * 24, False),
        ({"nesterov": True, "acceleration": schedules.Nesterov()}, [(3,)], True),
    ],
    ids=str,
)
def test_the_faster_rule_takes_the_step(settings, shapes, pays):
    """On torch a list that is short in every respect is keras's; the bits are the same either way."""
    found = []
    for kernel in (None, True):
        variables = make_variables(shapes=shapes)
        optimizer = SGD(LR, **settings, use_kernel=kernel)
        for seed in range(2):
            apply(optimizer, make_grads(variables, np.random.default_rng(seed)), variables)
        found.append(state(variables, optimizer))
        if kernel is None:
            assert (optimizer.last_report is not None) == (pays or BACKEND == "numpy")
    for chosen, ours in zip(*found):
        if FUSED:
            np.testing.assert_array_equal(chosen, ours)
