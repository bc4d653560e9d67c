"""Newton's method for classes: its Hessian, its steps, and when it is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from nagcore import Objective, minimize
from nagcore.solvers.auto import choose
from nagcore.solvers.base import Oracle
from nagcore.solvers.coordinates import OwnCoordinates
from nagcore.solvers.dense import ClassHessian
from solvers.problems import KINDS, fit_case, minimum

EPS = 2.0**-52


def soft_case(fit_intercept=True):
    """Probabilities as targets."""
    case = fit_case("softmax", "plain", "l2", fit_intercept, weights=True)
    case["y"] = np.random.default_rng(3).dirichlet(np.ones(3), len(case["y"]))
    return case


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("soft", [False, True])
def test_class_hessian_is_the_derivative_of_the_gradient(soft, fit_intercept):
    hard = fit_case("softmax", "plain", "l2", fit_intercept, weights=True)
    case = soft_case(fit_intercept) if soft else hard
    objective = Objective(**case)
    oracle = Oracle(objective, OwnCoordinates(objective), objective.problem)
    w, z = np.random.default_rng(0).normal(size=objective.w_shape), oracle.new_margins()
    _, g, H = oracle.hessian(w, z)
    assert objective.n_passes == 1 + 3
    np.testing.assert_allclose(g, objective.value_and_grad(w)[1], rtol=1e-12, atol=1e-14)
    for j, c in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[j, c] = 1e-5
        change = objective.value_and_grad(w + step)[1] - objective.value_and_grad(w - step)[1]
        np.testing.assert_allclose(H[c, j].T, change / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_class_hessian_solves_for_gradients_without_a_mean(l2, fit_intercept):
    rng = np.random.default_rng(0)
    objective = Objective(rng.normal(size=(200, 4)) + 3, rng.integers(0, 3, 200), loss="softmax", l2=l2,
                          fit_intercept=fit_intercept)
    oracle = Oracle(objective, OwnCoordinates(objective), objective.problem)
    w = 0.3 * rng.normal(size=objective.w_shape)
    _, _, H = oracle.hessian(w, oracle.new_margins())
    dense, p = H.reshape(3 * H.shape[1], -1).copy(), H.shape[1]
    g = rng.normal(size=w.shape)
    g -= g.mean(axis=1, keepdims=True)
    factor = ClassHessian(H, fit_intercept, 0.0, l2)
    found = factor.solve(g)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-13 * np.abs(found).max())
    np.testing.assert_allclose((dense @ found.T.reshape(-1)).reshape(3, p).T, g, rtol=1e-7, atol=1e-9)
    assert factor.norm(g) == pytest.approx(np.sqrt((g * found).sum()), rel=1e-10)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_newton_of_classes_finds_the_minimum(kind, fit_intercept):
    case = fit_case("softmax", kind, "l2", fit_intercept, weights=True)
    assert choose(Objective(**case))[0] == "newton"
    best = minimum(case)
    found = minimize(Objective(**case), tol=1e-9)
    note = f"{found.n_iter} {found.message} {found.gap}"
    assert found.solver == "newton"
    assert found.converged, note
    assert found.gap_kind == "certificate"
    assert found.n_iter <= 14, note
    slack = 1e-9 * (found.null_value - found.value) + 50 * EPS * abs(found.null_value)
    assert found.value - best <= slack, note


def test_newton_takes_probabilities_and_float32():
    case = soft_case()
    found = minimize(Objective(**case), solver="newton", tol=1e-9)
    other = minimize(Objective(**case), solver="plbfgs", tol=1e-9)
    assert found.converged
    np.testing.assert_allclose(found.value, other.value, rtol=1e-9)
    narrow = fit_case("softmax", "plain", "l2")
    wide = minimize(Objective(**narrow), tol=1e-9)
    narrow["X"] = narrow["X"].astype(np.float32)
    found = minimize(Objective(**narrow), solver="newton", tol=1e-9)
    assert found.converged
    np.testing.assert_allclose(found.value, wide.value, rtol=1e-6)


def test_newton_of_classes_gives_the_same_bits_for_every_number_of_threads():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3000, 6)), rng.integers(0, 3, 3000)
    first, second = (minimize(Objective(X, y, loss="softmax", l2=1e-3, n_threads=threads), solver="newton")
                     for threads in (1, 2))
    np.testing.assert_array_equal(first.w, second.w)


def test_many_classes_or_columns_are_left_to_the_metric():
    rng = np.random.default_rng(0)
    for n, d, k in ((200, 4, 12), (200, 150, 3)):
        objective = Objective(rng.normal(size=(n, d)), np.arange(n) % k, loss="softmax", l2=1e-3)
        assert choose(objective)[0] == "plbfgs"
