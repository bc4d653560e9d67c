"""best_intercept in the core: the shift that balances residuals, for every loss, against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, root

from cases import LOSSES
from nagcore import Objective, _core
from nagcore.reference import value_and_grad
from solvers.problems import fit_case


def search(objective, z, **how):
    moved, r = np.empty_like(z), np.empty_like(z)
    curvature = objective.loss.curvature_bound
    return _core.best_intercept(objective.problem.core, z, curvature, moved, r, **how), moved, r


def wanted(case, z):
    """The best shift by SciPy on the reference's gradient along a column of ones; of classes with mean 0."""
    how = {"loss": case["loss"], "sample_weight": case.get("sample_weight"), "offset": z}
    ones = np.ones((len(z), 1))

    def mean(b):
        w = np.reshape(b, (1, *z.shape[1:]))
        return value_and_grad(ones, case["y"], w, **how)[1][0]

    if z.ndim == 1:
        return brentq(mean, -60, 60, xtol=1e-14, rtol=1e-15)
    b = np.append(root(lambda b: mean(np.append(b, 0.0))[:-1], np.zeros(z.shape[1] - 1), tol=1e-13).x, 0.0)
    return b - b.mean()


@pytest.mark.parametrize("at_zero", [False, True])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_best_intercept_is_what_scipy_finds(loss, weights, at_zero):
    case = fit_case(loss, weights=weights)
    objective, rng = Objective(**case), np.random.default_rng(2)
    for size in (0.0,) if at_zero else (0.1, 2.0):
        z = size * rng.normal(size=(120, *objective.w_shape[1:]))
        before = z.copy()
        (b, value, moved, given, mean, residual), shifted, r = search(objective, z, at_zero=at_zero)
        want = wanted(case, z)
        np.testing.assert_allclose(b - np.mean(b) if z.ndim == 2 else b, want, atol=2e-8)
        np.testing.assert_array_equal(z, before)
        assert moved
        np.testing.assert_allclose(shifted, z + b, rtol=1e-14, atol=1e-15)
        here, at = np.empty_like(z), objective.problem.core.loss_from_margins
        assert value == pytest.approx(at(shifted, here), rel=1e-14)
        np.testing.assert_array_equal(r, here)
        assert given == pytest.approx(at(z), rel=1e-14)
        s = np.full(120, 1 / 120) if objective.s is None else objective.s
        assert np.abs(s @ r).max() <= 1e-13 * residual * 120
        np.testing.assert_allclose(mean, s @ r, atol=1e-15 * 120)
        assert residual == pytest.approx(float((s @ np.abs(r)).max()), rel=1e-12)


def test_balanced_margins_stay_where_they_are():
    case = fit_case("logistic")
    case["y"] = np.tile([0.0, 1.0], 60)
    (b, value, moved, given, mean, _), _, _ = search(Objective(**case), np.zeros(120))
    assert (b, moved, mean) == (0.0, False, 0.0)
    assert value == given == pytest.approx(np.log(2))


def test_counts_that_are_far_away_are_found():
    """The exponential makes secants useless until the bracket is small."""
    y = np.random.default_rng(0).poisson(1e6, 50).astype(float)
    objective = Objective(np.ones((50, 1)), y, loss="poisson")
    for at_zero in (True, False):
        b = search(objective, np.zeros(50), at_zero=at_zero)[0][0]
        assert b == pytest.approx(np.log(y.mean()), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_best_intercept_gives_the_same_bits_for_every_number_of_threads(loss, dtype):
    case = fit_case(loss, weights=True)
    case = case | {"X": np.tile(case["X"], (90, 1)).astype(dtype), "y": np.tile(case["y"], 90),
                   "sample_weight": np.tile(case["sample_weight"], 90)}
    found = []
    for n_threads in (1, 2):
        objective = Objective(**case, n_threads=n_threads)
        z = np.random.default_rng(0).normal(size=(10800, *objective.w_shape[1:])).astype(dtype)
        found.append(search(objective, z))
    for one, two in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(found[0][2], found[1][2])


def test_best_intercept_names_what_it_does_not_take():
    objective = Objective(**fit_case("logistic"))
    core, z = objective.problem.core, np.zeros(120)
    for wrong, error, message in (
        ((core, z[:9], 1.0, z, z), ValueError, "z has shape"),
        ((core, z, 0.0, z.copy(), z.copy()), ValueError, "curvature is"),
        ((core, z, 1.0, z, z.copy()), ValueError, "moved and z overlap|z and moved overlap"),
        ((core, z, 1.0, None, z.copy()), TypeError, "moved or residuals is None"),
    ):
        with pytest.raises(error, match=message):
            _core.best_intercept(*wrong)
