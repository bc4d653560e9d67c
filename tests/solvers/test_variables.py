"""The solvers' variables: an exact change of variables, honest moments, the prox that belongs to it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer

from nagcore import Objective, minimize, reference
from nagcore.solvers.base import Oracle
from nagcore.solvers.coordinates import Columns, Coordinates, curvature_rows
from nagcore.solvers.metric import Metric
from nagcore.solvers.moments import sample_moments
from nagcore.solvers.prox import best_shift, class_threshold
from solvers.numpy_problem import NumpyProblem
from solvers.problems import KINDS, fit_case

EPS = 2.0**-52


def oracle_of(objective, seed=0):
    rows = curvature_rows(objective, objective.problem, objective.null_margins())
    columns = Columns.of(objective, seed, rows)
    coordinates = Coordinates(objective, columns, EPS)
    return Oracle(objective, coordinates, objective.problem)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("penalty", ["l2", "elasticnet"])
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_change_of_variables_is_exact(kind, loss, penalty, fit_intercept):
    """f(v) = f(w(v)), its gradient is the slope in v, and v(w(v)) = v; dense for l2, diagonal for l1."""
    objective = Objective(**fit_case(loss, kind, penalty, fit_intercept, weights=True))
    oracle, rng = oracle_of(objective), np.random.default_rng(0)
    v = 0.1 * rng.normal(size=objective.w_shape)
    w = oracle.coordinates.to_w(v)
    z = oracle.new_margins()
    f, g = oracle.gradient(v, z)
    assert f == pytest.approx(objective.value_and_grad(w)[0], rel=1e-12)
    assert oracle.smooth(v, z) == pytest.approx(f, rel=1e-12)
    direction = rng.normal(size=v.shape)
    h = 1e-5
    ahead, behind = (oracle.gradient(v + e * direction, z)[0] for e in (h, -h))
    slope = (ahead - behind) / (2 * h)
    assert (g * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-7)
    back = oracle.coordinates.to_v(w)
    np.testing.assert_allclose(back, v, rtol=1e-5, atol=1e-6 if kind == "collinear" else 1e-8)


def test_columns_of_any_units_look_alike():
    """The Hessian of least squares in v is the identity when all rows are sampled."""
    objective = Objective(**fit_case("squared", "scales", "l2"))
    oracle, z = oracle_of(objective), oracle_of(objective).new_margins()
    base = oracle.gradient(np.zeros(7), z)[1]
    H = np.stack([oracle.gradient(e, z)[1] - base for e in np.eye(7)])
    np.testing.assert_allclose(H, np.eye(7), atol=1e-5)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("storage", ["float64", "float32", "uint8", "bfloat16", "bits", "csr"])
def test_moments_of_all_rows(storage, fit_intercept, weights):
    case = fit_case("squared", fit_intercept=fit_intercept, weights=weights)
    X, extra = case["X"], {}
    if storage == "float32":
        X = X.astype(np.float32)
    elif storage == "uint8":
        X, extra = (X * 20 + 100).astype(np.uint8), {"scale": 0.5, "shift": -3.0}
    elif storage == "bfloat16":
        X = X.astype(pytest.importorskip("ml_dtypes").bfloat16)
    elif storage == "bits":
        X = (X.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        extra = {"dtype": "bfloat16"}
    elif storage == "csr":
        X = sp.csr_matrix(np.where(X > 0, X, 0))
    objective = Objective(**case | {"X": X} | extra)
    if storage == "bits":
        full = (X.astype(np.uint32) << 16).view(np.float32).astype(float)
    else:
        full = (X.toarray() if storage == "csr" else np.asarray(X)).astype(float)
        full = full * extra.get("scale", 1.0) + extra.get("shift", 0.0)
    s = case.get("sample_weight", np.ones(len(full)))
    s = s / s.sum()
    mean, spread, correlation = sample_moments(objective, np.random.default_rng(0), True, s)
    centre = s @ full
    np.testing.assert_allclose(mean, centre, rtol=1e-9, atol=1e-12)
    second = (full - centre * fit_intercept).T @ (s[:, None] * (full - centre * fit_intercept))
    np.testing.assert_allclose(spread, np.diag(second), rtol=1e-9)
    unit = np.sqrt(np.diag(second))
    np.testing.assert_allclose(correlation, second / np.outer(unit, unit), rtol=1e-7, atol=1e-9)
    assert objective.n_passes == 1 + (storage == "csr")


def test_large_dense_data_are_sampled_and_rare_columns_read_in_full():
    """No column may look flatter than it is: steps along it would be far too long."""
    rng = np.random.default_rng(0)
    n = 200_000
    X = rng.normal(size=(n, 4)).astype(np.float32)
    X[:, 2] = 0
    X[[17, 40_000, 180_001], 2] = 1000.0
    objective = Objective(X, rng.normal(size=n), loss="squared", l1=0.1)
    mean, spread, _ = sample_moments(objective, np.random.default_rng(0), False)
    assert 1 < objective.n_passes < 1.5  # the rare column by every row, the rest by a sample
    np.testing.assert_allclose(spread[[0, 1, 3]], 1.0, rtol=0.05)
    assert spread[2] == pytest.approx(X[:, 2].astype(float).var(), rel=1e-6)
    assert mean[2] == pytest.approx(X[:, 2].astype(float).mean(), rel=1e-6)
    plain = Objective(X[:, :2], rng.normal(size=n), loss="squared", l1=0.1)
    sample_moments(plain, np.random.default_rng(0), False)
    assert 0 < plain.n_passes < 0.5


def test_a_column_that_is_constant_or_zero_stays_finite():
    X = np.zeros((30, 3))
    X[:, 1], X[:, 2] = 1e6, np.arange(30)
    for l1, l2 in ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1)):
        oracle = oracle_of(Objective(X, X[:, 2] > 10, loss="logistic", l1=l1, l2=l2))
        w = oracle.coordinates.to_w(np.ones(4))
        assert np.isfinite(w).all()
        assert np.isfinite(oracle.gradient(np.ones(4), oracle.new_margins())[1]).all()


def test_squares_that_overflow_leave_the_variables_as_they_are():
    X = np.random.default_rng(0).normal(size=(40, 2)) * [1e200, 1.0]
    objective = Objective(X, X[:, 1] > 0, loss="logistic")
    columns = Columns.of(objective, 0, np.ones(40))
    np.testing.assert_array_equal(columns.spread, 1.0)


@given(st.integers(2, 6), st.sampled_from([0.0, 0.3, 1.0, 2.0]), st.integers(0, 2**31))
def test_class_threshold_is_the_prox_of_the_penalty_over_shifts(k, a, seed):
    """Its objective, written over p = u + m·1 without constraints, rises in every direction."""
    rng = np.random.default_rng(seed)
    h, tau, a = 2 * rng.normal(size=(1, k)), rng.random((1, 1)) + 1e-3, np.full((1, 1), a)
    u, m = class_threshold(h, tau, a)
    assert abs(u.sum()) <= 1e-12

    def objective(p):
        mean = p.mean()
        near = ((p - mean - (h - h.mean())) ** 2).sum() / 2
        return float(tau[0, 0] * np.abs(p).sum() + a[0, 0] * k / 2 * mean**2 + near)

    least = objective(u + m)
    for size in (1.0, 0.1, 1e-3):
        for _ in range(10):
            assert objective(u + m + size * rng.normal(size=(1, k))) >= least - 1e-12

    def over_shifts(m):
        return float(tau[0, 0] * np.abs(u + m).sum() + a[0, 0] * k / 2 * float(m[0, 0]) ** 2)

    assert over_shifts(best_shift(u, tau, a)) == pytest.approx(over_shifts(m), abs=1e-12)


def test_class_threshold_gives_exact_zeros():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(50, 4))
    u, m = class_threshold(h, np.full((50, 1), 0.8), np.zeros((50, 1)))
    zeros = np.abs(u + m) < 1e-12
    assert 20 < zeros.sum() < 180
    flat = (u == 0).all(axis=1)
    assert flat.any()


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "poisson", "squared_hinge"])
def test_curvature_of_rows_is_the_references(loss):
    case = fit_case(loss)
    objective = Objective(**case)
    z = np.random.default_rng(0).normal(size=120)
    phi = reference.LOSSES[loss]
    y = phi.encode(case["y"], 1)
    want = (phi.residual(z + 1e-6, y, 1.0) - phi.residual(z - 1e-6, y, 1.0)) / 2e-6
    got = curvature_rows(objective, objective.problem, z)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)
    # Without that door, by differences of residuals over a finite hop.
    double = NumpyProblem(case["X"], case["y"], loss=loss, fit_intercept=True)
    far = (phi.residual(z + 1e-2, y, 1.0) - phi.residual(z - 1e-2, y, 1.0)) / 2e-2
    blind = Objective.from_problem(double)
    np.testing.assert_allclose(curvature_rows(blind, blind.problem, z), far, rtol=1e-9, atol=1e-12)


def test_variables_are_renewed_where_the_loss_bends():
    """On separable-looking data the curvature of most rows dies away, and with it the first variables'
    fit; least squares keeps its own."""
    X, y = load_breast_cancer(return_X_y=True)
    made = []
    at = Metric.at

    def spy(self, problem, z, passes=0.0):
        columns = at(self, problem, z, passes)
        made.append(self.rows.mean())
        return columns

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metric, "at", spy)
        bent = minimize(Objective(X, y, loss="logistic", l2=1 / len(y)), tol=1e-6,
                        solver="fista")
        assert len(made) > 1
        assert made[-1] < 0.5 * made[0]
        made.clear()
        straight = minimize(Objective(X, y.astype(float), loss="squared", l1=1e-3), tol=1e-6,
                            solver="fista")
        assert len(made) == 1
    assert bent.converged
    assert bent.n_passes < 60
    assert straight.n_iter > 20
