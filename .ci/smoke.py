"""What a user with NumPy alone can do, asked of the wheel and of a build without OpenMP."""

import re
import sys

import numpy as np

import nagcore
from nagcore import _core

rng = np.random.default_rng(0)
X = rng.standard_normal((1003, 37))
y = np.where(X @ rng.standard_normal(37) > 0, 1.0, -1.0)
w = rng.standard_normal(37) / 10

value, grad = nagcore.value_and_grad(X, y, w, loss="logistic", l2=0.1)
z = X @ w
np.testing.assert_allclose(value, np.logaddexp(0, -y * z).mean() + 0.05 * w @ w, rtol=1e-12)
np.testing.assert_allclose(
    grad, X.T @ (-y / (1 + np.exp(y * z))) / len(y) + 0.1 * w, rtol=1e-10, atol=1e-13
)

theta, g, b = np.ones(5, np.float32), np.full(5, 0.5, np.float32), np.zeros(5, np.float32)
nagcore.nesterov_step_(theta, g, b, lr=0.1, momentum=0.9, first_step=True)
np.testing.assert_allclose(theta, 1 - 0.1 * (0.5 + 0.9 * 0.5), rtol=1e-6)

result = nagcore.minimize(nagcore.Objective(X, y, loss="logistic", l2=0.1), tol=1e-8)
assert result.converged, result.message

absent = {"scipy", "sklearn", "typer", "matplotlib"} & set(sys.modules)
assert not absent, f"the core imported {absent}"
with_openmp = "--no-openmp" not in sys.argv
assert _core.openmp_enabled() == with_openmp
if not with_openmp and sys.platform == "linux":
    with open("/proc/self/maps") as maps:
        found = re.search(r"/lib(gomp|omp|iomp5)\b", maps.read())
    assert not found, f"a build without OpenMP brings {found[0]}"
print(f"nagcore {nagcore.__version__} works on {', '.join(_core.isa_names())}")
