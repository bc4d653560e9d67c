"""Coefficients ≥ 0: the solution, its certificate and its zeros, against solvers made for the constraint."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize, nnls

import nagcore
from nagcore.objective.duality import penalty_gap
from nagcore.penalties import Penalty

N, D = 200, 12


def table(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, D)) * np.geomspace(0.1, 10, D) + rng.standard_normal(D)
    return X, X @ rng.standard_normal(D) + 3 + rng.standard_normal(N), rng.random(N) + 0.1


def by_bounds(objective, l1):
    """L-BFGS-B on the same smooth function, to the end of its digits."""
    d = objective.shape[1]

    def function(w):
        value, grad = objective.value_and_grad(w)
        grad[:d] += l1
        return value + l1 * w[:d].sum(), grad

    bounds = [(0, None)] * d + [(None, None)] * (objective.p - d)
    return minimize(function, np.zeros(objective.p), jac=True, method="L-BFGS-B", bounds=bounds,
                    options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 10_000})


@pytest.mark.parametrize("solver", ["auto", "fista"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("l1", "l2"), [(0.1, 0.0), (0.1, 0.1), (0.0, 0.1), (0.0, 0.0)])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_positive_coefficients_reach_the_constrained_minimum(solver, fit_intercept, l1, l2, loss):
    X, y, s = table()
    target = y if loss == "squared" else (y > y.mean()).astype(float)
    if loss == "logistic":
        l1 = l1 / 10
    objective = nagcore.Objective(X, target, loss=loss, l1=l1, l2=l2, positive=True,
                                  sample_weight=s, fit_intercept=fit_intercept)
    result = nagcore.minimize(objective, tol=1e-10, solver=solver, max_passes=3000)
    best = by_bounds(objective, l1)
    assert result.converged
    assert result.gap_kind == ("certificate" if l1 or l2 else "estimate")
    assert (result.coef >= 0).all()
    assert -1e-9 <= (result.value - best.fun) / (result.null_value - best.fun) <= 1e-9
    if result.gap_kind == "certificate":
        assert result.value - result.gap <= best.fun + 1e-14


def test_least_squares_equals_lawson_and_hansons():
    X, y, _ = table(1)
    objective = nagcore.Objective(X, y, loss="squared", positive=True, fit_intercept=False)
    result = nagcore.minimize(objective, tol=1e-14, max_passes=3000)
    want = nnls(X, y)[0]
    assert_allclose(result.coef, want, atol=1e-5 * want.max())
    assert np.array_equal(result.coef == 0, want == 0)


def test_averaged_iterates_end_on_exact_zeros():
    X, y, _ = table()
    objective = nagcore.Objective(X, y, loss="squared", l2=0.1, positive=True)
    result = nagcore.minimize(objective, tol=1e-8, solver="acfgm", max_passes=3000)
    assert result.converged
    assert (result.coef == 0).any()


def test_a_start_outside_the_constraint_is_brought_inside():
    X, y, _ = table()
    objective = nagcore.Objective(X, y, loss="squared", l2=0.1, positive=True)
    result = nagcore.minimize(objective, np.full(D + 1, -1.0), max_passes=3000)
    assert result.converged
    assert (result.coef >= 0).all()


def test_several_classes_refuse_the_constraint():
    with pytest.raises(ValueError, match="positive is True and the loss has 3 classes"):
        nagcore.Objective(np.eye(3), np.arange(3.0), loss="softmax", positive=True)
    with pytest.raises(TypeError, match="positive=True"):
        Penalty(positive=1)


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.3, 0.2), (0.0, 0.2)])
def test_penalty_gap_is_fenchels_under_the_constraint(l1, l2):
    """Ω(w) + Ω*(−u) + ⟨w, u⟩ with Ω* by maximising over a fine grid of w ≥ 0."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 60, 600_001)
    for w, u in zip(rng.random(20), rng.normal(size=20)):
        if l2 == 0:
            u = max(u, -l1)
        conjugate = np.max(-u * grid - l1 * grid - 0.5 * l2 * grid**2)
        want = l1 * w + 0.5 * l2 * w * w + conjugate + w * u
        got = penalty_gap(np.array([w]), np.array([u]), Penalty(l2, l1, True))
        assert_allclose(got, want, atol=1e-8)
    assert penalty_gap(np.zeros(1), np.array([-1.0]), Penalty(0.0, 0.5, True)) == np.inf
