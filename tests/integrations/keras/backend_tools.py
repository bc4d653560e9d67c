"""What the checks of one backend share: models, data, single steps with given gradients."""

from __future__ import annotations

import keras
import numpy as np

from nagcore import _core

BACKEND = keras.backend.backend()
SHAPES = [(3, 5), (7,), (1,), (4099,), ()]
# One step of ours against keras's own on the same backend, in ulps of max(|w|, |w'|, |μv|, |lr·g|): equal to
# the bit on numpy, on eager tensorflow, which rounds every operation, and, where there is an fma, on torch
# and on jax under jit, whose contractions convention="keras-torch" and "keras-jax" follow.
FUSED = _core.active_isa() != "baseline"
ULPS = {"numpy": 0, "tensorflow": 0, "torch": 0 if FUSED else 4, "jax": 0 if FUSED else 4}[BACKEND]


def numbers(x) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(x.value if isinstance(x, keras.Variable) else x))


def state(variables, optimizer) -> list[np.ndarray]:
    return [numbers(v) for v in [*variables, *optimizer.variables]]


def make_variables(seed=0, shapes=SHAPES, dtype="float32", scale=1.0):
    rng = np.random.default_rng(seed)
    return [
        keras.Variable((scale * rng.standard_normal(s)).astype(dtype), name=f"v{i}")
        for i, s in enumerate(shapes)
    ]


def make_grads(variables, rng, scale=1.0):
    return [
        keras.ops.convert_to_tensor(np.asarray(scale * rng.standard_normal(tuple(v.shape)), v.dtype))
        for v in variables
    ]


def apply(optimizer, grads, variables) -> None:
    """One step as a compiled `fit` takes it: under jit on jax, in a graph on tensorflow."""
    if BACKEND == "jax":
        import jax

        if not optimizer.built:
            optimizer.build(variables)
        if not hasattr(optimizer, "jitted_for_tests"):
            object.__setattr__(optimizer, "jitted_for_tests", jax.jit(optimizer.stateless_apply))
        new, own = optimizer.jitted_for_tests(
            [v.value for v in optimizer.variables], grads, [v.value for v in variables]
        )
        for variable, value in zip([*variables, *optimizer.variables], [*new, *own]):
            variable.assign(value)
    elif BACKEND == "torch":
        import torch

        with torch.no_grad():
            optimizer.apply(grads, variables)
    else:
        optimizer.apply(grads, variables)


def ulps(got, want, *magnitudes) -> float:
    """The largest difference in units in the last place of the largest magnitude."""
    got, want = np.asarray(got), np.asarray(want)
    top = np.abs(want)
    for m in magnitudes:
        top = np.maximum(top, np.abs(m))
    spacing = np.spacing(np.maximum(top, np.finfo(want.dtype).tiny).astype(want.dtype))
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    return float((difference / spacing).max(initial=0.0))


def make_model(seed=0, dtype=None):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.layers.Input((12,)),
            keras.layers.Dense(16, activation="relu", dtype=dtype),
            keras.layers.Dense(8, activation="tanh", dtype=dtype),
            keras.layers.Dense(1, activation="sigmoid", dtype=dtype),
        ]
    )


def make_data(n=160, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 12)).astype(np.float32)
    return X, (X[:, :1] + X[:, 1:2] ** 2 > 0.5).astype(np.float32)
