"""The update against keras.optimizers.SGD, run eagerly on keras' NumPy backend: equal to the bit.

keras' backend is fixed at its first import, so it runs in a process of its own; what it computed
comes back as arrays.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from nagcore import nesterov_step_

if importlib.util.find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)

STEPS = 4
SHAPES = [(1,), (7,), (3, 5), (4099,)]
CASES = {
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "heavy_ball": {"momentum": 0.7, "nesterov": False},
    "plain": {"momentum": 0.0, "nesterov": False},
    "decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.03},
    "ema": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "ema_decay": 0.98},
}
LR = 0.1

SCRIPT = """
import json, sys
import numpy as np, keras
assert keras.backend.backend() == "numpy"
cases, shapes, steps, lr, out = json.loads(sys.argv[1])
found = {}
for name, settings in cases.items():
    rng = np.random.default_rng(23)
    params = [keras.Variable(rng.standard_normal(s).astype(np.float32)) for s in shapes]
    settings = dict(settings)
    decay = settings.pop("ema_decay", None)
    if decay is not None:
        settings.update(use_ema=True, ema_momentum=decay)
    optimizer = keras.optimizers.SGD(learning_rate=lr, **settings)
    optimizer.build(params)
    for step in range(steps):
        grads = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        optimizer.apply(grads)
        for i, p in enumerate(params):
            found[f"{name}-{step}-{i}-param"] = np.array(p.value)
            if optimizer.momentum:
                found[f"{name}-{step}-{i}-buffer"] = np.array(optimizer.momentums[i].value)
            if decay is not None:
                average = optimizer._model_variables_moving_average[i]
                found[f"{name}-{step}-{i}-ema"] = np.array(average.value)
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def keras_results(tmp_path_factory):
    out = tmp_path_factory.mktemp("keras") / "results.npz"
    argument = json.dumps([CASES, SHAPES, STEPS, LR, str(out)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return dict(found)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_update_equals_keras_sgd(keras_results, name, n_threads):
    rng = np.random.default_rng(23)
    settings = dict(CASES[name], decoupled=True)
    params = [rng.standard_normal(s).astype(np.float32) for s in SHAPES]
    buffers = [np.full_like(p, np.nan) for p in params]
    ema = [np.full_like(p, np.nan) for p in params] if "ema_decay" in settings else None
    for step in range(STEPS):
        grads = [rng.standard_normal(s).astype(np.float32) for s in SHAPES]
        nesterov_step_(
            params,
            grads,
            buffers,
            lr=LR,
            convention="keras",
            first_step=step == 0,
            ema=ema,
            n_threads=n_threads,
            **settings,
        )
        for i, (p, b) in enumerate(zip(params, buffers, strict=False)):
            np.testing.assert_array_equal(p, keras_results[f"{name}-{step}-{i}-param"])
            if settings["momentum"]:
                np.testing.assert_array_equal(b, keras_results[f"{name}-{step}-{i}-buffer"])
            if ema is not None:
                np.testing.assert_array_equal(ema[i], keras_results[f"{name}-{step}-{i}-ema"])


def test_torch_and_keras_agree_at_constant_lr_through_the_state_conversion():
    """v = −lr·b turns torch's state into keras', up to rounding."""
    rng = np.random.default_rng(29)
    p = rng.standard_normal(1003)
    b = rng.standard_normal(1003)
    q, v = p.copy(), -0.05 * b
    for _ in range(6):
        g = rng.standard_normal(1003)
        nesterov_step_(p, g, b, lr=0.05)
        nesterov_step_(q, g, v, lr=0.05, convention="keras")
        np.testing.assert_allclose(q, p, rtol=0, atol=1e-14)
        np.testing.assert_allclose(v, -0.05 * b, rtol=0, atol=1e-14)
