"""Proximal Newton: its inner problem, solutions and exact zeros, working sets, passes, constraints."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet

from nagcore import Objective, minimize
from nagcore.penalties import Box
from nagcore.solvers import quadratic_l1
from nagcore.solvers.quadratic_l1 import violation
from solvers.problems import KINDS, fit_case, minimum

EPS = 2.0**-52
ONE_MARGIN = ("squared", "logistic", "huber", "poisson", "squared_hinge")


SIDES = st.sampled_from([None, (0.0, np.inf), (-np.inf, 0.5), (-0.5, 0.7), (0.2, 0.4), (0.3, 0.3)])


@given(st.integers(1, 8), st.sampled_from([0.0, 0.3, 2.0]), SIDES, st.integers(0, 2**31))
def test_inner_problem_ends_where_no_coordinate_wants_to_move(p, l1, sides, seed):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(p + 2, p)) * 10.0 ** rng.integers(-2, 3, p)
    C, g, w = A.T @ A + 1e-9 * np.eye(p), rng.normal(size=p), rng.normal(size=p)
    w[rng.random(p) < 0.3] = 0.0
    box = None if sides is None else Box(*sides).of_columns(p)
    w = w if box is None else box.clip(w)
    found = quadratic_l1.minimise(C, g, w, l1, 1e-9, box)
    q = g + C @ (found - w)
    assert violation(q, found, l1, box).max() <= 1e-6 * (1 + np.abs(g).max())
    assert box is None or box.contains(found)


def test_inner_problem_of_collinear_columns_ends():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(20, 4))
    A = np.concatenate([A, A[:, :2], A[:, :1] + A[:, 1:2]], axis=1)
    C, g = A.T @ A, 5 * rng.normal(size=20) @ A
    found = quadratic_l1.minimise(C, g, np.zeros(7), 1.0, 1e-8)
    assert violation(g + C @ found, found, 1.0).max() <= 1e-7


@pytest.mark.parametrize("penalty", ["l1", "elasticnet"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ONE_MARGIN)
def test_few_passes_to_a_certified_minimum(loss, kind, penalty):
    case = fit_case(loss, kind, penalty, weights=True)
    found = minimize(Objective(**case), solver="prox_newton", tol=1e-9)
    best = minimum(case)
    note = f"{found.n_passes} {found.message} {found.gap}"
    assert found.converged, note
    assert found.gap_kind == "certificate", note
    assert found.value - best <= 1e-9 * (found.null_value - best) + 50 * EPS * abs(found.null_value), note
    assert found.n_passes <= 25, note


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_working_sets_on_wide_data(loss, fit_intercept, layout):
    """The same solution and zeros as FISTA's, in a tenth of the passes; copies of columns are counted."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 2000)) * (rng.random((150, 2000)) < 0.3)
    w = np.zeros(2000)
    w[::200] = 3 * rng.normal(size=10)
    y = X @ w + rng.normal(size=150)
    y = (y > 0).astype(float) if loss == "logistic" else y
    X = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_matrix}[layout](X)
    plain = Objective(X, y, loss=loss, fit_intercept=fit_intercept)
    l1 = 0.1 * float(np.abs(plain.value_and_grad(plain.null_model()[1])[1][:2000]).max())
    objective = Objective(X, y, loss=loss, l1=l1, fit_intercept=fit_intercept)
    found = minimize(objective, tol=1e-8)
    other = minimize(Objective(X, y, loss=loss, l1=l1, fit_intercept=fit_intercept), tol=1e-8,
                     solver="fista", max_passes=5000)
    assert found.solver == "prox_newton"
    assert "working set" in found.why
    assert found.converged
    assert abs(found.value - other.value) <= found.gap + other.gap
    np.testing.assert_allclose(found.coef, other.coef, atol=2e-3)
    assert found.n_passes <= 20
    assert found.n_passes < 0.3 * other.n_passes
    assert found.n_passes != int(found.n_passes)
    assert found.n_passes == pytest.approx(objective.n_passes, abs=2e-3)


@pytest.mark.parametrize("l1", [0.0, 0.05])
def test_coefficients_that_must_not_be_negative(l1):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 20))
    y = X @ rng.normal(size=20) + rng.normal(size=300)
    found = minimize(Objective(X, y, loss="squared", l1=l1, l2=0.01, positive=True), tol=1e-10)
    assert found.solver == "prox_newton"
    assert found.converged
    assert (found.coef >= 0).all()
    assert (found.coef == 0).any()
    ratio = l1 / (l1 + 0.01)
    want = ElasticNet(alpha=l1 + 0.01, l1_ratio=ratio, positive=True, tol=1e-12, max_iter=10**6).fit(X, y)
    np.testing.assert_allclose(found.coef, want.coef_, atol=1e-6)


def test_least_squares_computes_its_hessian_once():
    case = fit_case("squared", "correlated", "l1")
    objective, made = Objective(**case), []
    hessian = type(objective.problem).hessian
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(objective.problem), "hessian",
                      lambda self, *args: made.append(1) or hessian(self, *args))
        minimize(objective, tol=1e-10)
        stronger = minimize(objective.with_penalty(0.0, 2 * case["l1"]), tol=1e-10)
    assert len(made) == 1
    fresh = minimize(Objective(**case | {"l1": 2 * case["l1"]}), tol=1e-10)
    np.testing.assert_allclose(stronger.w, fresh.w, atol=1e-6)


def test_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 30)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=2000) > 0).astype(float)
    found = [minimize(Objective(X, y, loss="logistic", l1=0.01, n_threads=n), tol=1e-9).w for n in (1, 2, 3)]
    for w in found[1:]:
        np.testing.assert_array_equal(w, found[0])
