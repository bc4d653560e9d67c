"""What all tests share: THE table of tolerances, the check that reads it, where real data lies."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# A deadline per example would time the machine, and a fixed seed keeps a red run red.
settings.register_profile("nagcore", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("nagcore")

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}

# THE table of tolerances. A computed number may differ from the oracle's by k · eps · magnitude.
# The eps is the arithmetic's, never the storage's: narrow storage is read exactly. The magnitude is the
# sum of the absolute values of the terms that make the number. k depends on neither n nor d.
TOLERANCES = {
    # quantity: k                 magnitude
    "gradient": 8,  #             reference.magnitudes(...).gradient: Σ|x|(|r| + φ''Σ|xw| + …)
    "value": 8,  #                reference.magnitudes(...).value
    "margins": 8,  #              .margins: Σ_k |x_ik w_k| + |b| + |offset_i|
    "residual": 8,  #             .residuals: |r| + φ''·(margin's magnitude) + operands of r
    "loss": 8,  #                 |φ| + |r|·|z|: the loss of exact margins
    "rmatvec": 8,  #              (1/S) Σ_i s_i |x_ij v_i|
    "gram": 8,  #                 (1/S) Σ_i s_i|v_i| |x_ij x_ik|, |x| = |scale·x| + |shift| as stored
    "curvature": 8,  #            φ''·(1 + |z| + |y|), at exact margins
    "hessian_vector": 8,  #       (1/S) |X|ᵀ(s∘|weights|∘(|X||v|))
    "row_product": 8,  #          Σ_j |x_ij| Σ_i |x_ij v_i|
    "cholesky": 8,  #             |L||L|ᵀ, of A − LLᵀ
    "triangular": 4,  #           |L||x|, of b − Lx
    "update": 4,  #               |θ| + lr·(|g| + μ|b|): float64, or no fma
    "norm": 8,  #                 the norm itself
    "ema": 2,  #                  |ema| + |θ|
    "solver": 1e7,  #             |w|: two methods that stop at gradient 1e-9 or so, in float64
}


def limit(quantity: str, arithmetic: str, magnitude):
    """The largest difference the table allows; four times the smallest normal number is always allowed.

    Passes round what is smaller than that number to zero, and a half of a loss is one of their steps.
    """
    tiny = np.finfo(np.float64 if arithmetic == "float64" else np.float32).tiny
    return TOLERANCES[quantity] * EPS[arithmetic] * np.asarray(magnitude, np.float64) + 4 * tiny


@pytest.fixture(scope="session")
def close():
    """``close(got, want, quantity, arithmetic, magnitude)`` asserts by the table."""

    def check(got, want, quantity, arithmetic, magnitude, note=""):
        got, want = np.asarray(got), np.asarray(want)
        assert got.shape == want.shape, f"{quantity}: shape {got.shape}, not {want.shape}; {note}"
        error = np.abs(got.astype(np.longdouble) - want.astype(np.longdouble))
        allowed = np.broadcast_to(limit(quantity, arithmetic, magnitude), error.shape)
        bad = ~(error <= allowed)  # so that NaN is bad
        if bad.any():
            at = np.unravel_index(np.argmax(np.where(bad, error / allowed, -1)), error.shape)
            raise AssertionError(
                f"{quantity} ({arithmetic}): {int(bad.sum())} of {bad.size} off; worst at {at}: "
                f"got {got[at]!r}, want {want[at]!r}, error {float(error[at]):.3g} is "
                f"{float(error[at] / allowed[at]):.3g} of what is allowed; {note}"
            )
        return float((error / allowed).max(initial=0))

    return check


@pytest.fixture(scope="session")
def real_data():
    """The module load.py of the folder that NAGCORE_DATA names; skips the test where none is."""
    folder = os.environ.get("NAGCORE_DATA")
    path = Path(folder or ".", "load.py")
    if not folder or not path.is_file():
        pytest.skip("NAGCORE_DATA names no folder with a load.py")
    spec = importlib.util.spec_from_file_location("nagcore_test_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
