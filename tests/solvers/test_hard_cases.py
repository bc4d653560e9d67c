"""Data that break solvers: separable, constant, duplicate, empty, single, wildly weighted or scaled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from nagcore import Objective, minimize

SMOOTH = ("auto", "newton", "plbfgs", "fista")


def two_classes(n=400, d=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, (X @ rng.normal(size=d) + rng.logistic(size=n) > 0).astype(float)


@pytest.mark.parametrize("solver", SMOOTH)
def test_separable_classes_without_a_penalty_end_finite_and_are_told(solver):
    X, _ = two_classes()
    y = (X[:, 0] > 0).astype(float)
    with pytest.warns(RuntimeWarning, match="separates the classes"):
        found = minimize(Objective(X, y, loss="logistic"), solver=solver, tol=1e-6)
    assert np.isfinite(found.w).all()
    assert found.gap_kind == "estimate"
    assert found.value < 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minimize(Objective(X, y, loss="logistic", l2=1e-4), solver=solver)


@pytest.mark.parametrize("solver", SMOOTH)
def test_constant_duplicate_and_empty_columns(solver):
    X, y = two_classes()
    wide = np.concatenate([X, X[:, :2], np.zeros((400, 1)), np.full((400, 1), 7.0)], axis=1)
    plain = minimize(Objective(X, y, loss="logistic"), tol=1e-10)
    for l2 in (0.0, 1e-3):
        found = minimize(Objective(wide, y, loss="logistic", l2=l2), solver=solver, tol=1e-8)
        assert found.converged
        assert np.isfinite(found.w).all()
        if l2:
            np.testing.assert_allclose(found.coef[:2], found.coef[6:8], atol=1e-3)
            assert found.gap_kind == "certificate"
        else:
            assert found.value == pytest.approx(plain.value, abs=1e-7)


@pytest.mark.parametrize("solver", [*SMOOTH, "prox_newton"])
def test_rows_of_zeros_count_for_the_intercept_alone(solver):
    X, y = two_classes()
    X[::3] = 0.0
    penalty = {"l1": 1e-3} if solver == "prox_newton" else {"l2": 1e-3}
    for layout in (np.asarray, sp.csr_matrix):
        found = minimize(Objective(layout(X), y, loss="logistic", **penalty), solver=solver, tol=1e-8)
        assert found.converged
        assert found.gap_kind == "certificate"


@pytest.mark.parametrize("solver", [*SMOOTH, "prox_newton"])
def test_one_class_only(solver):
    """F falls for ever along the intercept: the run ends, finite, without coefficients."""
    X, _ = two_classes(50)
    penalty = {"l1": 1e-3} if solver == "prox_newton" else {"l2": 1e-3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = minimize(Objective(X, np.ones(50), loss="logistic", **penalty), solver=solver)
    assert np.isfinite(found.w).all()
    np.testing.assert_allclose(found.coef, 0.0, atol=1e-6)
    assert found.value < 1e-6


@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson", "huber", "squared_hinge"])
def test_one_sample(loss):
    for penalty in ({"l2": 0.1}, {"l1": 0.1}, {}):
        for fit_intercept in (True, False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                found = minimize(Objective(np.array([[1.0, 2.0]]), np.array([1.0]), loss=loss,
                                           fit_intercept=fit_intercept, **penalty), max_passes=300)
            assert np.isfinite(found.w).all()


@pytest.mark.parametrize("solver", SMOOTH)
def test_weights_that_span_ten_to_the_twelve(solver):
    X, y = two_classes()
    s = 10.0 ** np.random.default_rng(1).uniform(-6, 6, 400)
    found = minimize(Objective(X, y, loss="logistic", l2=1e-3, sample_weight=s), solver=solver, tol=1e-8)
    heavy = s > s.max() * 1e-6
    same = minimize(Objective(X[heavy], y[heavy], loss="logistic", l2=1e-3, sample_weight=s[heavy]),
                    tol=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.w, same.w, atol=2e-2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", [*SMOOTH, "prox_newton"])
def test_columns_that_span_ten_to_the_eight(solver, dtype):
    X, y = two_classes(2000, 9)
    unit = 10.0 ** np.linspace(-4, 4, 9)
    penalty = {"l1": 1e-4} if solver == "prox_newton" else {"l2": 1e-4}
    found = minimize(Objective((X * unit).astype(dtype), y, loss="logistic", **penalty), solver=solver,
                     max_passes=200)
    assert found.converged
    assert found.gap_kind == "certificate"


@pytest.mark.parametrize("solver", ["newton", "plbfgs", "prox_newton", "normal"])
def test_max_passes_tells_the_gap_it_reached(solver):
    X, y = two_classes()
    penalty = {"l1": 1e-3} if solver == "prox_newton" else {"l2": 1e-6}
    loss = "squared" if solver == "normal" else "logistic"
    found = minimize(Objective(X, y, loss=loss, **penalty), solver=solver, max_passes=4, tol=1e-14)
    assert found.n_passes <= 4
    assert found.gap_kind == "certificate"
    best = minimize(Objective(X, y, loss=loss, **penalty), tol=1e-12)
    assert found.value - best.value <= found.gap + 1e-14
    assert found.converged == (found.message == "converged")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("solver", ["newton", "plbfgs", "prox_newton", "normal"])
def test_nan_in_x_is_named_by_its_place_by_every_solver(solver, bad):
    X, y = two_classes()
    X[5, 3] = bad
    penalty = {"l1": 1e-3} if solver == "prox_newton" else {"l2": 1e-3}
    loss = "squared" if solver == "normal" else "logistic"
    for layout in (np.asarray, sp.csr_matrix):
        with pytest.raises(ValueError, match="row 5, column 3"):
            minimize(Objective(layout(X), y, loss=loss, **penalty), solver=solver)


def test_nan_in_a_row_that_no_sample_saw_is_found_by_the_first_pass():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60_000, 6))
    X[41_234, 2] = np.nan
    with pytest.raises(ValueError, match="row 41234, column 2"):
        minimize(Objective(X, (X[:, 0] > 0).astype(float), loss="logistic", l2=1e-3), solver="plbfgs")


def test_ten_thousand_times_more_columns_than_rows():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3, 30_000)).astype(np.float32), np.array([0.0, 1.0, 1.0])
    for penalty in ({"l2": 1e-2}, {"l1": 1e-2}):
        found = minimize(Objective(X, y, loss="logistic", **penalty), tol=1e-5)
        assert found.converged
