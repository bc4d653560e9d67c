"""Newton's method for classes: its Hessian, its steps, and when it is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from nagcore import Objective, minimize
from nagcore.solvers.auto import choose
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
    w, z = np.random.default_rng(0).normal(size=objective.w_shape), np.empty((120, 3))
    value, g, H = objective.problem.class_hessian(w, z)
    assert objective.n_passes == 1 + 3
    np.testing.assert_array_equal(z, objective.margins(w))
    data = Objective(**(case | {"l2": 0.0}))
    assert value == data.value_and_grad(w)[0]
    np.testing.assert_array_equal(g, data.value_and_grad(w)[1])
    objective = data
    for j, c in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[j, c] = 1e-5
        change = objective.value_and_grad(w + step)[1] - objective.value_and_grad(w - step)[1]
        np.testing.assert_allclose(H[c, j].T, change / 2e-5, rtol=1e-5, atol=1e-8)


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
