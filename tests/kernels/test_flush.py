"""Passes round results below the smallest normal number to zero, and leave the thread as it was."""

import platform

import numpy as np
import pytest

from nagcore import _core

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="flush-to-zero is set on x86")


def halves_survive() -> bool:
    return bool((np.array([1e-39], np.float32) * np.float32(0.5))[0] > 0)


@x86
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_residuals_are_normal_or_zero(compute, n_threads):
    far = 115.0 if compute == "float32" else 760.0
    z = np.linspace(0.7 * far, far, 20_000).astype(compute)
    X, y = z[:, None].copy(), np.ones(len(z))
    problem = _core.Problem(X, y, loss="logistic", n_threads=n_threads)
    tiny, r = float(np.finfo(compute).tiny), np.empty_like(z)
    problem.loss_from_margins(z, r)
    in_pass = np.empty_like(z)
    problem.value_and_grad(np.ones(1), None, None, in_pass)
    for got in (np.abs(r), np.abs(in_pass), problem.curvature_from_margins(z)):
        assert ((got == 0) | (got >= tiny)).all()
        assert (got[-1], got[0] > 0) == (0, True)
    np.testing.assert_allclose(-r[0], np.exp(-float(z[0])), rtol=1e-5)
    assert halves_survive()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_small_numbers_of_x_are_read(n_threads):
    X = np.full((9000, 3), 1e-40, np.float32)
    problem = _core.Problem(X, np.ones(9000), loss="squared", n_threads=n_threads)
    z = problem.margins(np.array([1e30, 0.0, 0.0]))
    np.testing.assert_allclose(z, float(X[0, 0]) * 1e30, rtol=1e-6)
    _, grad = problem.value_and_grad(np.array([1e30, 0.0, 0.0]))
    assert np.isfinite(grad).all()
    assert halves_survive()
