"""Newton's method, the normal equations and L-BFGS in a metric: solutions, passes, steps, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from nagcore import Objective, _core, minimize
from nagcore.solvers import metric as metric_module
from nagcore.solvers import newton, normal, plbfgs
from nagcore.solvers.base import Oracle
from nagcore.solvers.coordinates import ClassCoordinates, Columns, Coordinates, OwnCoordinates
from nagcore.solvers.dense import EquilibratedHessian, MinimumNorm, cholesky
from nagcore.solvers.linesearch import best_step
from nagcore.solvers.metric import Metric
from nagcore.solvers.rows import Sampler
from solvers.problems import KINDS, fit_case, minimum, value

EPS = 2.0**-52
ONE_MARGIN = ("squared", "logistic", "huber", "poisson", "squared_hinge")


def own_oracle(case):
    objective = Objective(**case)
    return Oracle(objective, OwnCoordinates(objective), objective.problem)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ONE_MARGIN)
def test_newton_and_plbfgs_find_the_minimum_in_few_passes(loss, kind, fit_intercept):
    case = fit_case(loss, kind, "l2", fit_intercept, weights=True)
    best = minimum(case)
    for solver, most in (("newton", 16), ("plbfgs", 45), ("pnag", 120)):
        found = minimize(Objective(**case), solver=solver, tol=1e-9)
        note = f"{solver} {found.n_passes} {found.message} {found.gap}"
        assert found.converged, note
        assert found.gap_kind == "certificate", note
        slack = 1e-9 * (found.null_value - found.value) + 50 * EPS * abs(found.null_value)
        assert found.value - best <= slack, note
        assert found.n_passes <= most, note


def test_newton_makes_newtons_steps():
    """Near the solution: w⁺ = w − (∇²F)⁻¹∇F, one pass each."""
    case = fit_case("logistic", weights=True) | {"l2": 0.3}
    oracle = own_oracle(case)
    points = []
    for it in itertools.islice(newton.newton(oracle, np.zeros(7)), 5):
        points.append(it.x)
        assert oracle.objective.n_passes == len(points)
    objective, l2 = Objective(**case), np.diag([0.3] * 6 + [0.0])
    for w, w_next in itertools.pairwise(points):
        _, g = objective.value_and_grad(w)
        H = objective.problem.hessian(w)[2] + l2
        np.testing.assert_allclose(w_next, w - np.linalg.solve(H, g), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("far", [3.0, 30.0])
def test_newton_and_plbfgs_come_back_from_far_starts(far):
    """Full steps overshoot there: margins of both ends give the step, and f never rises."""
    case = fit_case("logistic", "correlated")
    best = minimum(case)
    w0 = far * np.random.default_rng(0).normal(size=7)
    for solver in ("newton", "plbfgs"):
        values = []
        found = minimize(Objective(**case), w0, solver=solver, tol=1e-8,
                         callbacks=[lambda state, values=values: values.append(state.value)])
        assert found.converged
        assert found.value - best <= 1e-8
        assert values == sorted(values, reverse=True)


def test_best_step_is_the_minimum_along_the_segment():
    case = fit_case("poisson", penalty="l2")
    oracle, rng = own_oracle(case), np.random.default_rng(0)
    x = 0.1 * rng.normal(size=7)
    z, z_end = oracle.new_margins(), oracle.new_margins()
    f, g = oracle.gradient(x, z)
    p = -4 * g
    oracle.gradient(x + p, z_end)
    passes = oracle.objective.n_passes
    t = best_step(oracle, x, z, p, z_end, float(g @ p))
    assert oracle.objective.n_passes == passes
    values = [value(case, x + u * p) for u in (t, 0.8 * t, 1.2 * t)]
    assert min(values) == values[0] < f


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 1e-8, 1e-2])
@pytest.mark.parametrize("kind", ["plain", "collinear", "correlated", "wide", "zeros"])
def test_normal_equations_equal_lstsq(kind, l2, fit_intercept):
    """Of minimum norm where columns repeat or n < d; columns are centred where there is an intercept."""
    rng = np.random.default_rng(0)
    case = fit_case("squared", "plain" if kind in ("wide", "zeros") else kind, "l2", fit_intercept)
    X, y = case["X"], case["y"]
    if kind == "wide":
        X, y = rng.normal(size=(15, 40)), rng.normal(size=15)
    elif kind == "zeros":
        X = np.concatenate([X, np.zeros((len(X), 2)), X[:, :3]], axis=1)
    d = X.shape[1]
    found = minimize(Objective(X, y, loss="squared", l2=l2, fit_intercept=fit_intercept), tol=1e-12)
    centre = X.mean(axis=0) * fit_intercept
    tall = np.concatenate([X - centre, np.sqrt(l2 * len(X)) * np.eye(d)])
    target = np.concatenate([y - y.mean() * fit_intercept, np.zeros(d)])
    want = np.linalg.lstsq(tall if l2 else tall[: len(X)], target[: None if l2 else len(X)], rcond=1e-10)[0]
    assert found.solver == "normal"
    assert found.converged
    assert found.gap_kind == ("certificate" if l2 else "estimate")
    # With collinear columns w itself is fixed by a tiny l2 alone: to as many digits as that has.
    loose = l2 == 1e-8 and kind in ("collinear", "wide", "zeros")
    np.testing.assert_allclose(found.coef, want, rtol=1e-7, atol=1e-5 if loose else 1e-8)
    if fit_intercept:
        assert found.intercept == pytest.approx(y.mean() - centre @ want, abs=1e-5 if loose else 1e-8)
    assert found.n_passes <= 4


def test_normal_forgets_what_a_start_holds_outside_the_rows():
    case = fit_case("squared", "collinear", "l2") | {"l2": 0.0}
    cold = minimize(Objective(**case), tol=1e-12)
    warm = minimize(Objective(**case), np.full(7, 3.0), tol=1e-12)
    np.testing.assert_allclose(warm.w, cold.w, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_columns_of_units_that_span_ten_to_the_eight_are_solved(dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 9))
    y = (X @ rng.normal(size=9) + rng.logistic(size=3000) > 0).astype(float)
    X = (X * 10.0 ** np.linspace(-4, 4, 9)).astype(dtype)
    for solver in ("newton", "plbfgs"):
        found = minimize(Objective(X, y, loss="logistic", l2=1 / 3000), solver=solver)
        assert found.converged
        assert found.n_passes <= 25
    unit = 10.0 ** -np.linspace(-4, 4, 9)
    exact = minimize(Objective(X, X @ unit, loss="squared"), tol=1e-12)
    assert exact.converged
    np.testing.assert_allclose(exact.coef, unit, rtol=1e-4)


@pytest.mark.parametrize("loss", ["logistic", "squared", "softmax"])
def test_plbfgs_and_its_sample_start_on_many_rows(loss):
    """With 2000 rows per column a twentieth of X is solved first; that counts as a part of a pass."""
    rng = np.random.default_rng(0)
    n, d = 40_000, 8
    X = rng.normal(size=(n, d)) @ np.diag(10.0 ** np.linspace(0, 3, d))
    signal = X @ (rng.normal(size=d) / 10.0 ** np.linspace(0, 3, d))
    if loss == "squared":
        y = signal + rng.normal(size=n)
    else:
        cuts = [0.0] if loss == "logistic" else [-1.0, 1.0]
        y = np.digitize(signal + rng.logistic(size=n), cuts).astype(float)
    objective = Objective(X, y, loss=loss, l2=1 / n)
    found = minimize(objective, solver="plbfgs", tol=1e-6)
    assert found.converged
    assert found.gap_kind == "certificate"
    assert found.n_passes <= (12 if loss != "softmax" else 40)
    assert found.n_passes == pytest.approx(objective.n_passes)
    assert float(found.n_passes) != int(found.n_passes)
    other = minimize(Objective(X, y, loss=loss, l2=1 / n), solver="fista", tol=1e-9)
    assert found.value - other.value <= 1e-6 * (other.null_value - other.value)


def test_two_loops_are_bfgs():
    """H_k g by recursion equals the BFGS matrix of the same pairs."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(5, 5))
    A = A @ A.T + np.eye(5)
    pairs = [(s, A @ s) for s in rng.normal(size=(3, 5))]
    s, y = pairs[-1]
    H = np.eye(5) * (s @ y) / (y @ y)
    for s, y in pairs:
        V = np.eye(5) - np.outer(s, y) / (s @ y)
        H = V @ H @ V.T + np.outer(s, s) / (s @ y)
    g = rng.normal(size=5)
    np.testing.assert_allclose(plbfgs.two_loops(pairs, g, 1.0), H @ g, rtol=1e-10)
    np.testing.assert_allclose(plbfgs.two_loops([], g, 4.0), g / 4)


def test_a_secant_changes_what_it_says_and_stays_definite():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(30, 30))
    H = A @ A.T + np.eye(30)
    B = np.eye(30) * 10
    for s in rng.normal(size=(60, 30)):
        y = H @ s
        expected = B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (s @ y)
        assert _core.secant_(B, s, y)
        np.testing.assert_allclose(B, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(B @ s, y, rtol=1e-8, atol=1e-8)
        assert np.linalg.eigvalsh(B)[0] > 0
    before = B.copy()
    for step, change in ((s, -y), (np.zeros(30), y)):
        assert not _core.secant_(B, step, change)
        assert (B == before).all()
    with pytest.raises(ValueError, match="s has shape"):
        _core.secant_(B, np.ones(3), y)


def test_pairs_survive_a_change_of_variables():
    """⟨s, y⟩ and the step do not depend on the metric that they are remembered in."""
    case = fit_case("logistic", "correlated", weights=True)
    objective, rng = Objective(**case), np.random.default_rng(0)
    memory, made = None, []
    for seed in range(2):
        A = np.random.default_rng(seed).normal(size=(30, 7))
        columns = Columns.of_gram(A.T @ A / 30, 6, 1.0)
        coordinates = Coordinates(objective, columns, EPS)
        oracle = Oracle(objective, coordinates, objective.problem, memory)
        if memory is None:
            memory = oracle._memory
            s, y = rng.normal(size=(2, 7))
            oracle.pairs().append((s, y))
            made.append((coordinates.to_w(s), s @ y))
        else:
            ((s, y),) = oracle.pairs()
            np.testing.assert_allclose(coordinates.to_w(s), made[0][0], rtol=1e-9, atol=1e-10)
            assert s @ y == pytest.approx(made[0][1], rel=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_metrics_of_classes_are_an_exact_change_of_variables(fit_intercept):
    """Up to the mean over classes, which the loss does not see; gradients have none of it."""
    case = fit_case("softmax", "correlated", "l2", fit_intercept, weights=True)
    objective, rng = Objective(**case), np.random.default_rng(0)
    metric = Metric(objective, 0)
    assert metric.by_class
    at_null = metric.at(objective.problem, objective.null_margins())
    if isinstance(at_null, list):  # one matrix, and a factor for each class where frequencies differ
        assert all(part.correlation is at_null[0].correlation for part in at_null)
        assert len({part.curvature for part in at_null}) == objective.k
    columns = metric.at(objective.problem, rng.normal(size=(len(case["y"]), objective.k)))
    coordinates = ClassCoordinates(objective, list(columns), EPS)
    oracle = Oracle(objective, coordinates, objective.problem)
    w = rng.normal(size=objective.w_shape)
    v, z = coordinates.to_v(w), oracle.new_margins()
    np.testing.assert_allclose(coordinates.to_w(v), w - w.mean(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(oracle.centred_classes(v), v)
    _, g = oracle.gradient(v, z)
    direction, h = rng.normal(size=v.shape), 1e-6
    ahead, behind = (oracle.gradient(v + e * direction, z)[0] for e in (h, -h))
    assert (g * direction).sum() == pytest.approx((ahead - behind) / (2 * h), rel=1e-5)
    s, y = direction, oracle.gradient(v + direction, z)[1] - g
    oracle.pairs().append((s, y))
    other = ClassCoordinates(objective, [part._replace(curvature=2.0) for part in columns], EPS)
    Oracle(objective, other, objective.problem, oracle._memory).pairs()  # there and back
    ((s_back, y_back),) = oracle.pairs()
    np.testing.assert_allclose(y_back, y, rtol=1e-6, atol=1e-9)
    assert (s_back * y_back).sum() == pytest.approx((s * y).sum(), rel=1e-6)


def test_a_long_run_samples_more_rows():
    """Rare features, few of them penalised: the metric of 5 to 17 rows per column was not enough."""
    rng = np.random.default_rng(2)
    n, d = 40_000, 200
    often = np.r_[np.full(20, 1e-4), 10.0 ** rng.uniform(-1.7, -0.7, d - 20)]
    X = (rng.random((n, d)) < often).astype(np.float32)
    y = (X @ rng.normal(size=d) * 1.5 - 2 + 0.6 * rng.logistic(size=n) > 0).astype(float)
    objective = Objective(X, y, loss="logistic", l2=1e-2 / n)
    sampler = Sampler(objective, 0)
    assert sampler.rows_for(0) <= sampler.rows_for(5) < sampler.rows_for(24) <= n
    rows, factor = sampler.draw(np.ones(n), 0)
    assert len(rows) == len(factor) == sampler.m
    assert objective.n_passes < 1.2  # the probe for rare columns
    assert np.isin(np.flatnonzero(X[:, :20].any(axis=1)), rows).all()
    weights = np.zeros(n)
    np.add.at(weights, rows, factor)
    sampled, full = X[rows].T @ factor, X.sum(axis=0)
    np.testing.assert_allclose(sampled, full, rtol=0.5, atol=50)
    np.testing.assert_allclose(weights.sum(), n, rtol=0.02)
    found = minimize(objective, solver="plbfgs")
    assert found.converged
    assert found.n_passes < 60


def test_metrics_of_classes_take_fewer_passes():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 12)) @ rng.normal(size=(12, 12))
    y = (X @ rng.normal(size=(12, 4)) + rng.gumbel(size=(3000, 4))).argmax(axis=1).astype(float)
    each = minimize(Objective(X, y, loss="softmax", l2=1e-4), solver="plbfgs", tol=1e-8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric_module, "_CLASS_ENTRIES", 0)
        shared = minimize(Objective(X, y, loss="softmax", l2=1e-4), solver="plbfgs", tol=1e-8)
    assert each.converged
    assert each.n_passes < 0.9 * shared.n_passes
    assert abs(each.value - shared.value) <= each.gap + shared.gap


def test_equilibrated_hessian_solves_and_takes_bad_pivots():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(50, 7)) * 10.0 ** np.arange(-3, 4)
    A[:, 6] = 1.0
    H, g = A.T @ A, rng.normal(size=7)
    factor = EquilibratedHessian(H, True, 0.0, 0.0)
    assert factor.ridge == 0.0
    x = factor.solve(g)
    np.testing.assert_allclose(H @ x, g, rtol=1e-6, atol=1e-8 * np.abs(g).max())
    assert factor.norm(g) == pytest.approx(np.sqrt(g @ x), rel=1e-8)
    A[:, 1], A[:, 2] = 2 * A[:, 0], 5.0  # collinear, and constant beside the intercept
    factor = EquilibratedHessian(A.T @ A, True, 0.0, 0.0)
    x = factor.solve(A.T @ rng.normal(size=50))
    assert np.isfinite(x).all()
    assert x[2] == 0.0
    with pytest.raises(ValueError, match="Scale the columns"):
        cholesky(np.full((2, 2), np.nan), 0.0)


def test_minimum_norm_is_the_pseudo_inverse():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 9))
    solver = MinimumNorm(A.T @ A, False, EPS)
    g = A.T @ rng.normal(size=6)
    np.testing.assert_allclose(solver.solve(g), np.linalg.pinv(A.T @ A) @ g, rtol=1e-7, atol=1e-9)
    w = rng.normal(size=9)
    np.testing.assert_allclose(A @ solver.project(w), A @ w, rtol=1e-9)
    np.testing.assert_allclose(solver.project(w), np.linalg.pinv(A) @ A @ w, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("solver", "loss", "how", "words"), [
    ("newton", "logistic", {"l1": 0.1}, "needs a smooth objective; l1 is 0.1"),
    ("plbfgs", "logistic", {"l1": 0.1}, "needs a smooth objective"),
    ("pnag", "logistic", {"positive": True}, "needs a smooth objective; positive is True"),
    ("prox_newton", "softmax", {"l1": 0.1}, "one margin per row"),
    ("normal", "logistic", {"l1": 0.0}, "takes loss squared; this one is \"logistic\""),
])
def test_what_a_solver_cannot_take_is_one_clear_error(solver, loss, how, words):
    objective = Objective(**fit_case(loss) | how)
    with pytest.raises(ValueError, match=words):
        minimize(objective, solver=solver)
    assert objective.n_passes == 0


@pytest.mark.parametrize("solver", ["newton", "plbfgs", "normal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_on_any_number_of_threads(solver, dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30_000, 12)).astype(dtype)
    y = (X[:, 0] + rng.normal(size=len(X)) > 0).astype(float)
    loss = "squared" if solver == "normal" else "logistic"
    found = [minimize(Objective(X, y, loss=loss, l2=1e-4, n_threads=n), solver=solver, tol=1e-9)
             for n in (1, 2, 3)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.w, found[0].w)
        assert other.n_passes == found[0].n_passes


def test_sparse_rows_are_solved_alike():
    rng = np.random.default_rng(0)
    X = sp.random(4000, 60, 0.05, format="csr", random_state=0)
    y = (X @ rng.normal(size=60) * 3 + rng.logistic(size=4000) > 0).astype(float)
    dense = minimize(Objective(X.toarray(), y, loss="logistic", l2=1e-3), tol=1e-9)
    for solver in ("newton", "plbfgs"):
        found = minimize(Objective(X, y, loss="logistic", l2=1e-3), solver=solver, tol=1e-9)
        assert found.converged
        np.testing.assert_allclose(found.w, dense.w, atol=1e-4)


def test_methods_are_registered_with_what_they_need():
    assert newton.METHOD.second_order
    assert normal.METHOD.losses == ("squared",)
    assert plbfgs.METHOD.smooth
    assert hasattr(_core.Problem, "hessian")
