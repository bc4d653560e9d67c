"""Bad input to nagcore.keras.SGD: one clear error, and nothing is written."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from integrations.keras.backend_tools import BACKEND, apply, make_variables, numbers, state
from nagcore import schedules
from nagcore.callbacks import AnomalyGuard
from nagcore.keras import SGD

NESTEROV = {"momentum": 0.9, "nesterov": True}


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"learning_rate": float("nan")}, ValueError, "learning_rate is nan; it must be not negative"),
        ({"learning_rate": -0.1}, ValueError, "learning_rate is -0.1"),
        ({"learning_rate": float("inf")}, ValueError, "learning_rate is inf"),
        ({"momentum": float("nan")}, ValueError, r"momentum is nan; it must be in \[0, 1\]"),
        ({"momentum": 1.5}, ValueError, r"momentum is 1.5; it must be in \[0, 1\]"),
        ({"momentum": "0.9"}, TypeError, "momentum is '0.9'; it must be a real number"),
        ({"nesterov": True}, ValueError, "nesterov=True needs momentum > 0"),
        ({"weight_decay": float("nan")}, ValueError, "weight_decay is nan"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay is -1.0"),
        ({"clipnorm": float("nan")}, ValueError, "clipnorm is nan"),
        ({"global_clipnorm": -1.0}, ValueError, "global_clipnorm is -1.0"),
        ({"clipvalue": float("inf")}, ValueError, "clipvalue is inf"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, ValueError, "Only one of"),
        ({"use_ema": True, "ema_momentum": float("nan")}, ValueError, "ema_momentum is nan"),
        ({"loss_scale_factor": 0.0}, ValueError, "loss_scale_factor is 0"),
        ({"gradient_accumulation_steps": 1}, ValueError, "must be an integer >= 2"),
        ({"n_threads": 0}, ValueError, "n_threads is 0"),
        ({"n_threads": 2.0}, ValueError, "n_threads is 2.0"),
        ({"acceleration": 0.9}, TypeError, r"acceleration=nagcore.schedules.Nesterov\(\)"),
        ({"guard": "skip"}, TypeError, r"guard=nagcore.callbacks.AnomalyGuard\(\)"),
        ({"dampening": 0.1}, ValueError, "dampening"),
    ],
    ids=repr,
)
def test_arguments_are_judged_at_once(settings, error, match):
    with pytest.raises(error, match=match):
        SGD(**settings)


def test_numbers_of_numpy_and_integers_are_numbers():
    optimizer = SGD(np.float32(0.5), np.float64(0.5), weight_decay=0, nesterov=True)
    assert float(numbers(optimizer.learning_rate)) == 0.5
    assert optimizer.get_config()["momentum"] == 0.5


def trained():
    variables = make_variables(shapes=[(3, 5), (7,)])
    optimizer = SGD(0.1, **NESTEROV, weight_decay=0.1, use_kernel=True)
    apply(optimizer, [keras.ops.ones(v.shape) for v in variables], variables)
    return optimizer, variables, state(variables, optimizer)


def unchanged(optimizer, variables, before):
    return all(np.array_equal(a, b) for a, b in zip(state(variables, optimizer), before))


@pytest.mark.parametrize("shape", [(5, 3), (15,), (3, 4), (1, 5)])
def test_a_gradient_of_another_shape(shape):
    optimizer, variables, before = trained()
    wrong = re.escape(f"v0 has shape {shape} and the variable (3, 5); they must agree. Nothing")
    with pytest.raises(ValueError, match=wrong):
        optimizer.apply([keras.ops.ones(shape), keras.ops.ones(7)], variables)
    assert unchanged(optimizer, variables, before)


def test_gradients_of_another_dtype_are_cast_as_in_keras():
    if BACKEND == "jax":
        pytest.skip("jax holds no float64 here")
    found = []
    for dtype in ("float32", "float64"):
        optimizer, variables, _ = trained()
        optimizer.apply([keras.ops.ones(v.shape, dtype=dtype) for v in variables], variables)
        found.append(state(variables, optimizer))
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(BACKEND not in ("numpy", "torch"), reason="said by the runtimes of jax and tensorflow")
@pytest.mark.parametrize("rate", [float("nan"), -0.5])
def test_a_learning_rate_gone_wrong_writes_nothing(rate):
    optimizer, variables, before = trained()
    optimizer.learning_rate = rate
    with pytest.raises(ValueError, match="lr is"):
        optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
    optimizer.learning_rate = 0.1
    assert unchanged(optimizer, variables, before)


def test_gradients_in_another_number():
    optimizer, variables, before = trained()
    with pytest.raises(ValueError, match="gradients"):
        optimizer.apply([keras.ops.ones((3, 5))])
    assert unchanged(optimizer, variables, before)


def test_variables_of_another_model():
    optimizer, variables, before = trained()
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([keras.ops.ones(2)], [keras.Variable(np.ones(2, "float32"))])
    assert unchanged(optimizer, variables, before)


@pytest.mark.parametrize("kind", ["shapes", "count"])
def test_a_state_of_another_model_sets_nothing(kind):
    optimizer, variables, before = trained()
    other = SGD(0.5, **NESTEROV)
    other.build(make_variables(shapes=[(3, 5), (8,)] if kind == "shapes" else [(3, 5)]))
    with pytest.raises(ValueError, match="belongs to another model"):
        optimizer.set_weights([numbers(v) for v in other.variables])
    store = {}
    other.save_own_variables(store)
    with pytest.raises(ValueError, match="belongs to another model"):
        optimizer.load_own_variables(store)
    assert unchanged(optimizer, variables, before)


@pytest.mark.parametrize(
    "extra",
    [{"guard": AnomalyGuard()}, {"acceleration": schedules.Constant(0.9)}],
    ids=["guard", "acceleration"],
)
def test_what_keras_cannot_do_is_not_handed_to_keras(extra):
    w = keras.Variable(np.ones(2, "float32"))
    optimizer = SGD(0.1, use_kernel=False, **extra)
    with pytest.raises(ValueError, match="need nagcore's kernel"):
        optimizer.apply([keras.ops.ones(2)], [w])
    narrow = keras.Variable(np.ones(2, "float32"), dtype="bfloat16")
    with pytest.raises(ValueError, match="cannot be updated by nagcore because its dtype is bfloat16"):
        SGD(0.1, **extra).apply([keras.ops.ones(2, dtype="bfloat16")], [narrow])
    assert numbers(w).tolist() == [1.0, 1.0]


@pytest.mark.skipif(BACKEND != "torch", reason="devices of torch")
def test_variables_on_another_device_are_left_to_keras():
    import torch

    w = keras.Variable(np.ones(2, "float32"))
    optimizer = SGD(0.1, momentum=0.9)
    optimizer.build([w])
    door = optimizer._door
    assert "it is on meta" in door.refusal(_OnMeta(w), torch.ones(2, device="meta"))


class _OnMeta:
    """A variable whose tensor is on a device without memory, which stands for any other device."""

    def __init__(self, variable):
        self.value, self.dtype = variable.value.to("meta"), variable.dtype
