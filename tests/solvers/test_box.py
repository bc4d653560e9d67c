"""Coefficients within bounds: the minimum, its certificate and its bounds, against solvers made for boxes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from numpy.testing import assert_allclose

import nagcore
from nagcore import reference
from nagcore.penalties import Box
from solvers.problems import fit_case

N, D = 150, 8
INF = np.inf

BOXES = {
    "about zero": (-0.2, 0.3),
    "w >= 0": (0.0, INF),
    "w <= 0.1": (-INF, 0.1),
    "beside zero": (0.25, 0.6),
    "mixed": (np.array([-INF, 0.0, -0.1, 0.2, -INF, 0.3, -0.5, 0.0]),
              np.array([INF, INF, 0.1, 0.2, -0.1, INF, 0.4, 0.0])),
}  # fmt: skip


def table(loss, seed=0, sparse=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, D)) * np.geomspace(0.3, 3, D)
    if sparse:
        X *= rng.random((N, D)) < 0.4
        X[3] = 0.0
    signal = X @ rng.standard_normal(D) / 2
    y = {"squared": signal + rng.standard_normal(N) + 1, "huber": signal + rng.standard_t(2, N),
         "logistic": (signal + rng.logistic(size=N) > 0.3).astype(float),
         "squared_hinge": (signal + rng.logistic(size=N) > 0.3).astype(float),
         "poisson": rng.poisson(np.exp(np.clip(signal, -3, 2))).astype(float)}[loss]  # fmt: skip
    return X, y, rng.integers(0, 4, N).astype(float)


def oracle(X, y, s, loss, l1, l2, bounds, fit_intercept):
    """L-BFGS-B on w = a − b, a and b ≥ 0, so that l1 is linear: the least value, and where it is."""
    d = X.shape[1]
    lower, upper = (np.broadcast_to(np.asarray(side, float), d) for side in bounds)
    how = {"loss": loss, "l2": l2, "sample_weight": s, "fit_intercept": fit_intercept}

    def function(v):
        w = np.concatenate([v[:d] - v[d : 2 * d], v[2 * d :]])
        value, grad = reference.value_and_grad(X, y, w, **how)
        g = np.concatenate([grad[:d] + l1, -grad[:d] + l1, grad[d:]])
        return value + l1 * v[: 2 * d].sum(), g

    sides = [(max(a, 0), None if b == INF else max(b, 0)) for a, b in zip(lower, upper)]
    sides += [(max(-b, 0), None if a == -INF else max(-a, 0)) for a, b in zip(lower, upper)]
    sides += [(None, None)] * fit_intercept
    found = scipy.optimize.minimize(
        function, np.clip(0.0, [a if a is not None else -INF for a, _ in sides],
                          [b if b is not None else INF for _, b in sides]),
        jac=True, method="L-BFGS-B", bounds=sides,
        options={"ftol": 1e-16, "gtol": 1e-11, "maxiter": 20_000, "maxfun": 50_000})
    v = found.x
    return float(found.fun), np.concatenate([v[:d] - v[d : 2 * d], v[2 * d :]])


def check(result, objective, best):
    """Inside, at the minimum as far as was asked, and with a lower bound that is one."""
    box, d = objective.bounds, objective.shape[1]
    assert result.converged, result.message
    assert box.contains(result.coef)
    F0 = result.null_value
    assert -1e-9 * abs(F0 - best) <= result.value - best + 1e-13
    assert result.value - best <= 1e-7 * (F0 - best) + 1e-13
    assert result.gap_kind == ("certificate" if objective.penalty.provable else "estimate")
    if result.gap_kind == "certificate":
        assert result.value - result.gap <= best + 1e-13
        assert_allclose(objective.value(result.w), result.value, rtol=1e-5, atol=1e-9)
    assert result.w.shape == (d + objective.fit_intercept,)


@pytest.mark.parametrize("solver", ["auto", "fista", "acfgm"])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson", "huber"])
def test_smooth_losses_reach_what_l_bfgs_b_reaches(loss, fit_intercept, box, solver):
    if solver == "acfgm" and loss == "poisson":
        pytest.skip("acfgm needs a bounded curvature")
    X, y, s = table(loss)
    best, w = oracle(X, y, s, loss, 0.0, 0.05, BOXES[box], fit_intercept)
    objective = nagcore.Objective(X, y, loss=loss, l2=0.05, bounds=BOXES[box], sample_weight=s,
                                  fit_intercept=fit_intercept)
    result = nagcore.minimize(objective, tol=1e-9, solver=solver, max_passes=5000)
    check(result, objective, best)
    assert_allclose(result.w, w, atol=2e-4)
    lower, upper = objective.bounds.lower, objective.bounds.upper
    for side in (lower, upper):  # what the oracle has well inside a bound's multiplier is on the bound
        grad = objective.value_and_grad(w)[1][:D]
        held = (w[:D] == side) & (np.abs(grad) > 1e-2)
        if solver == "acfgm":  # whose points are means of such as are on it
            assert_allclose(result.coef[held], side[held], atol=1e-6)
        else:
            assert np.array_equal(result.coef[held], side[held])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("solver", ["auto", "fista"])
def test_least_squares_equals_lsq_linear(solver, box, sparse):
    X, y, s = table("squared", sparse=sparse)
    lower, upper = (np.broadcast_to(np.asarray(side, float), D).copy() for side in BOXES[box])
    fixed = lower == upper
    root = np.sqrt(s)
    rest = y - X[:, fixed] @ lower[fixed]  # lsq_linear wants lower < upper
    found = scipy.optimize.lsq_linear(X[:, ~fixed] * root[:, None], rest * root,
                                      (lower[~fixed], upper[~fixed]), method="bvls", tol=1e-15)
    want = lower.copy()
    want[~fixed] = found.x
    data = sp.csr_matrix(X) if sparse else X
    objective = nagcore.Objective(data, y, loss="squared", bounds=BOXES[box], sample_weight=s,
                                  fit_intercept=False)
    result = nagcore.minimize(objective, tol=1e-12, solver=solver, max_passes=5000)
    assert_allclose(result.coef, want, atol=1e-5)
    check(result, objective, found.cost / s.sum())


@pytest.mark.parametrize(("solver", "dtype"), [
    ("auto", np.float64), ("auto", np.float32), ("fista", np.float64), ("fista", np.float32),
    ("acfgm", np.float64),  # whose means creep towards a bound in float32
])  # fmt: skip
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_l1_within_bounds_meets_the_optimality_conditions(solver, loss, box, sparse, dtype):
    """0 ∈ q + l1·∂|w| + the normals of the box at w, q from the reference, coefficient by coefficient."""
    X, y, s = table(loss, seed=2, sparse=sparse)
    X = X.astype(dtype)
    l1, l2 = 0.05, 0.01
    data = sp.csr_matrix(X) if sparse else X
    objective = nagcore.Objective(data, y, loss=loss, l1=l1, l2=l2, bounds=BOXES[box], sample_weight=s)
    result = nagcore.minimize(objective, tol=1e-10, solver=solver, max_passes=5000)
    q = reference.value_and_grad(X.astype(float), y, result.w, loss=loss, l2=l2, sample_weight=s,
                                 fit_intercept=True)[1]
    w, lower, upper = result.coef, objective.bounds.lower, objective.bounds.upper
    assert abs(q[D]) <= 1e-4
    near = 1e-6 if solver == "acfgm" else 0.0  # means of points on a bound are near it
    for j in range(D):
        low = q[j] + l1 * (1 if w[j] > near else -1)
        high = q[j] + l1 * (-1 if w[j] < -near else 1)
        assert low <= 1e-4 or w[j] <= lower[j] + near, (j, w[j])
        assert high >= -1e-4 or w[j] >= upper[j] - near, (j, w[j])
    best, _ = oracle(X.astype(float), y, s, loss, l1, l2, BOXES[box], True)
    check(result, objective, best)


def test_one_side_infinite_and_l1_alone_scales_the_dual_point():
    X, y, s = table("squared", seed=3)
    for bounds in ((-0.1, INF), (-INF, 0.2), BOXES["mixed"]):
        best, _ = oracle(X, y, s, "squared", 0.1, 0.0, bounds, True)
        objective = nagcore.Objective(X, y, loss="squared", l1=0.1, bounds=bounds, sample_weight=s)
        for solver in ("auto", "fista"):
            check(nagcore.minimize(objective, tol=1e-9, solver=solver, max_passes=5000), objective, best)


def test_bounds_that_no_coefficient_meets_change_nothing():
    X, y, s = table("logistic")
    for l1, l2 in ((0.0, 0.05), (0.02, 0.0)):
        how = {"loss": "logistic", "l1": l1, "l2": l2, "sample_weight": s}
        free = nagcore.minimize(nagcore.Objective(X, y, **how), tol=1e-12)
        for solver in ("auto", "fista"):
            boxed = nagcore.minimize(nagcore.Objective(X, y, bounds=(-50, 50), **how), tol=1e-12,
                                     solver=solver, max_passes=5000)
            assert boxed.converged
            assert_allclose(boxed.w, free.w, atol=1e-5)


def test_all_coefficients_at_their_bounds():
    X, y, _ = table("squared")
    sign = np.sign(X.T @ (y - y.mean()))
    lower, upper = np.where(sign > 0, -1.0, -1e-3), np.where(sign > 0, 1e-3, 1.0)
    objective = nagcore.Objective(X, y, loss="squared", bounds=(lower, upper), fit_intercept=True)
    for solver in ("auto", "fista", "acfgm"):
        result = nagcore.minimize(objective, tol=1e-9, solver=solver)
        assert result.converged
        assert np.array_equal(result.coef, np.where(sign > 0, upper, lower))
        assert result.gap_kind == "certificate"


@pytest.mark.parametrize("solver", ["auto", "fista", "acfgm"])
def test_every_coefficient_fixed_leaves_the_intercept(solver):
    X, y, s = table("squared")
    w = np.linspace(-1, 1, D)
    objective = nagcore.Objective(X, y, loss="squared", bounds=(w, w), sample_weight=s)
    result = nagcore.minimize(objective, tol=1e-9, solver=solver)
    assert result.converged
    assert np.array_equal(result.coef, w)
    assert_allclose(result.intercept, np.average(y - X @ w, weights=s), atol=1e-9)
    assert result.gap <= 1e-12


def test_the_null_model_is_the_nearest_point_to_zero():
    X, y, s = table("logistic")
    lower, upper = BOXES["mixed"]
    objective = nagcore.Objective(X, y, loss="logistic", l1=0.1, l2=0.1, bounds=(lower, upper),
                                  sample_weight=s)
    value, w = objective.null_model()
    assert np.array_equal(w[:D], np.clip(0, lower, upper))
    want = reference.value_and_grad(X, y, w, loss="logistic", l2=0.1, sample_weight=s, fit_intercept=True)
    assert abs(want[1][D]) <= 1e-10
    assert_allclose(value, want[0] + 0.1 * np.abs(w[:D]).sum(), rtol=1e-12)
    assert objective.n_passes == 1
    weaker = objective.with_penalty(0.0, 0.2)
    assert_allclose(weaker.null_value, want[0] - 0.05 * w[:D] @ w[:D] + 0.2 * np.abs(w[:D]).sum())


@pytest.mark.parametrize("solver", ["auto", "fista", "acfgm"])
@pytest.mark.parametrize("sparse", [False, True])
def test_same_bits_for_every_number_of_threads(sparse, solver):
    X, y, s = table("logistic", sparse=sparse)
    data = sp.csr_matrix(X) if sparse else X
    found = [
        nagcore.minimize(nagcore.Objective(data, y, loss="logistic", l1=0.01, bounds=BOXES["mixed"],
                                           sample_weight=s, n_threads=threads), solver=solver)
        for threads in (1, 2, 4)
    ]  # fmt: skip
    for other in found[1:]:
        assert np.array_equal(found[0].w, other.w)
        assert found[0].gap == other.gap


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("bounds", [(-0.05, 0.1), (0.0, 0.1), (-INF, 0.05)])
@pytest.mark.parametrize("solver", ["auto", "prox_newton", "fista"])
def test_more_columns_than_a_hessian_takes(solver, bounds, sparse):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 700)) * (rng.random((80, 700)) < 0.3)
    y = X[:, :5] @ np.array([1.0, -1.0, 2.0, 0.05, -0.02]) + 0.1 * rng.standard_normal(80)
    best, _ = oracle(X, y, np.ones(80), "squared", 0.02, 0.0, bounds, True)
    data = sp.csr_matrix(X) if sparse else X
    objective = nagcore.Objective(data, y, loss="squared", l1=0.02, bounds=bounds)
    result = nagcore.minimize(objective, tol=1e-9, solver=solver, max_passes=20_000)
    check(result, objective, best)
    assert result.solver == ("fista" if solver == "fista" else "prox_newton")


@pytest.mark.parametrize("kind", ["collinear", "scales", "correlated"])
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "squared_hinge"])
def test_awkward_columns_without_a_penalty(loss, kind):
    """Constant, duplicate and ill-scaled columns; and an estimate where one side is open, held to the proof
    that bounds far away give."""
    case = fit_case(loss, kind, fit_intercept=True, weights=True) | {"l1": 0.0, "l2": 0.0}
    X = case["X"]
    unit = 0.3 / np.maximum(np.abs(X - X.mean(axis=0)).mean(axis=0), 1e-3)
    values = []
    for upper in (unit, 1e3 * unit, INF):
        objective = nagcore.Objective(bounds=(-unit, upper), **case)
        result = nagcore.minimize(objective, tol=1e-7)
        assert result.converged, result.message
        assert result.n_passes <= 40
        assert objective.bounds.contains(result.coef)
        assert result.gap_kind == ("estimate" if upper is INF else "certificate")
        values.append(result.value)
    assert values[0] >= values[1] - 1e-10
    assert abs(values[1] - values[2]) <= 1e-6 * (result.null_value - values[1])


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("l1", "bounds"), [(0.0, (-0.2, 0.2)), (0.02, (0.05, 0.2)), (0.0, (-0.1, -0.1))])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_working_sets_that_end_with_all_columns(loss, l1, bounds, fit_intercept):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 520)) / 5
    y = X[:, 0] + 0.1 * rng.standard_normal(40)
    y = (y > 0).astype(float) if loss == "logistic" else y
    objective = nagcore.Objective(X, y, loss=loss, l1=l1, bounds=bounds, fit_intercept=fit_intercept)
    result = nagcore.minimize(objective, tol=1e-8, solver="prox_newton", max_passes=200)
    other = nagcore.minimize(objective, tol=1e-8, solver="fista", max_passes=20_000)
    assert result.gap_kind == "certificate"
    check(result, objective, other.value)


def test_auto_leaves_working_sets_where_nothing_rests_at_zero():
    X, y = np.eye(600), np.linspace(-1, 1, 600)
    chosen = lambda **how: nagcore.solvers.auto.choose(  # noqa: E731
        nagcore.Objective(X, y, loss="squared", **how))
    assert chosen(l1=0.1, bounds=(-1, 1))[0] == "prox_newton"
    assert chosen(bounds=(0, 1))[0] == "prox_newton"
    assert chosen(bounds=(-1, 1))[0] == "fista"
    assert chosen(l1=0.1, bounds=(0.1, 1))[0] == "fista"
    assert chosen(bounds=(-1, 1))[1].startswith("bounds:")
    assert chosen(positive=True)[1].startswith("w ≥ 0:")
    assert chosen(l1=0.1, bounds=(-1, 1))[1].startswith("l1, bounds:")


def test_a_path_within_bounds():
    X, y, s = table("squared")
    objective = nagcore.Objective(X, y, loss="squared", bounds=(-0.2, 0.3), sample_weight=s)
    found = nagcore.solvers.path(objective, n_strengths=5, tol=1e-9)
    assert not found.coefs[:, 0].any()
    for strength, result in zip(found.strengths, found.results):
        best, _ = oracle(X, y, s, "squared", float(strength), 0.0, (-0.2, 0.3), True)
        check(result, objective.with_penalty(0.0, float(strength)), best)
    outside = nagcore.Objective(X, y, loss="squared", bounds=BOXES["beside zero"], sample_weight=s)
    with pytest.raises(ValueError, match="Use strengths="):
        nagcore.solvers.path(outside)
    found = nagcore.solvers.path(outside, strengths=[0.5, 0.1], tol=1e-9)
    for strength, result in zip([0.5, 0.1], found.results):
        best, _ = oracle(X, y, s, "squared", strength, 0.0, BOXES["beside zero"], True)
        check(result, outside.with_penalty(0.0, strength), best)


def test_positive_is_a_box_and_meets_others():
    X, y, _ = table("squared")
    how = {"loss": "squared", "l2": 0.1}
    positive = nagcore.minimize(nagcore.Objective(X, y, positive=True, **how))
    box = nagcore.minimize(nagcore.Objective(X, y, bounds=(0, INF), **how))
    assert np.array_equal(positive.w, box.w)
    both = nagcore.Objective(X, y, positive=True, bounds=(-1, 0.2), **how)
    assert both.bounds == Box(np.zeros(D), np.full(D, 0.2))
    assert nagcore.Objective(X, y, bounds=(-INF, INF), **how).bounds is None


def test_a_start_out_of_bounds_is_brought_inside_and_points_there_cost_infinity():
    X, y, _ = table("squared")
    objective = nagcore.Objective(X, y, loss="squared", bounds=(-0.2, 0.3))
    result = nagcore.minimize(objective, np.full(D + 1, 7.0), tol=1e-9)
    assert result.converged
    assert_allclose(result.w, nagcore.minimize(objective, tol=1e-9).w, atol=1e-4)
    assert objective.value(np.ones(D + 1)) == INF
    assert objective.gap(np.ones(D + 1)) == INF
    assert objective.gap(result.w) <= 1e-8


def test_screening_keeps_what_a_bound_holds_off_zero():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((400, 300))
    y = X[:, :3] @ np.array([1.0, -2.0, 3.0]) + 0.1 * rng.standard_normal(400)
    lower, upper = np.full(300, -0.8), np.full(300, 1.5)
    lower[7], upper[8] = 0.05, 0.0
    objective = nagcore.Objective(X, y, loss="squared", l1=0.2, bounds=(lower, upper))
    result = nagcore.minimize(objective, tol=1e-10, solver="fista", max_passes=3000)
    assert result.converged
    assert result.n_passes < 0.9 * result.n_iter  # passes became short
    assert result.coef[7] == 0.05
    exact = nagcore.minimize(objective, tol=1e-10, solver="prox_newton")
    assert_allclose(result.coef, exact.coef, atol=1e-5)


@pytest.mark.parametrize("bounds", [(-0.2, 0.3), (0.25, 0.6)])
def test_narrow_storage_of_x(bounds):
    X, y, s = table("logistic")
    objective = nagcore.Objective(X, y, loss="logistic", l2=0.01, bounds=bounds, sample_weight=s)
    best, _ = oracle(X, y, s, "logistic", 0.0, 0.01, bounds, True)
    result = nagcore.minimize(objective, tol=1e-9, solver="fista", storage="float32", max_passes=5000)
    check(result, objective, best)


@pytest.mark.parametrize("passes", [3, 5, 8])
def test_passes_keep_to_their_limit(passes):
    X, y, _ = table("logistic")
    for bounds in ((-0.2, 0.3), (0.25, 0.6)):
        for dtype in (np.float32, np.float64):
            objective = nagcore.Objective(X.astype(dtype), y, loss="logistic", bounds=bounds)
            result = nagcore.minimize(objective, tol=1e-12, solver="fista", max_passes=passes)
            assert result.n_passes <= passes
            assert objective.bounds.contains(result.coef)


@pytest.mark.parametrize("solver", ["auto", "fista"])
@pytest.mark.parametrize("bounds", [(-0.1, 0.2), ([0.1], 0.3), (np.array([-0.3]), np.array([-0.1]))])
def test_one_column(bounds, solver):
    X, y, s = table("squared")
    X = X[:, -1:]
    best, w = oracle(X, y, s, "squared", 0.1, 0.0, bounds, True)
    objective = nagcore.Objective(X, y, loss="squared", l1=0.1, bounds=bounds, sample_weight=s)
    result = nagcore.minimize(objective, tol=1e-9, solver=solver)
    check(result, objective, best)
    assert_allclose(result.w, w, atol=1e-4)


class _Sides:  # as scipy.optimize.Bounds, and without it
    lb, ub = np.array([-0.2]), 0.3


@pytest.mark.parametrize("bounds", [
    scipy.optimize.Bounds(-0.2, 0.3), scipy.optimize.Bounds(np.full(D, -0.2), np.full(D, 0.3)), _Sides(),
    [-0.2, 0.3], (np.full(D, -0.2), 0.3), np.array([-0.2, 0.3]),
    np.stack([np.full(D, -0.2), np.full(D, 0.3)]),
])  # fmt: skip
def test_ways_to_give_bounds(bounds):
    X, y, _ = table("squared")
    objective = nagcore.Objective(X, y, loss="squared", bounds=bounds)
    assert objective.bounds == Box(np.full(D, -0.2), np.full(D, 0.3))


@pytest.mark.parametrize(("bounds", "error", "words"), [
    (3.0, TypeError, "bounds is float"), ("ab", TypeError, "bounds is str"),
    ((1,), ValueError, "holds 1 items"), ([(0, 1)] * D, ValueError, "holds 8 items"),
    ((0.0, np.nan), ValueError, "upper bound holds NaN"), ((None, 1.0), ValueError, "lower bound holds NaN"),
    (("a", 1.0), TypeError, "lower bound is 'a'"), ((1.0, 0.0), ValueError, "coefficient 0 are 1.0 and 0.0"),
    ((INF, INF), ValueError, "lower < ∞"), ((-INF, -INF), ValueError, "upper > −∞"),
    ((np.zeros(3), np.ones(4)), ValueError, "3 numbers and the upper"),
    ((np.zeros(3), 1.0), ValueError, "3 numbers a side and X 8 columns"),
    ((np.zeros((D, 1)), 1.0), ValueError, r"shape \(8, 1\)"),
    ((0, np.arange(D) - 1.0), ValueError, "coefficient 0"),
])  # fmt: skip
def test_bad_bounds_are_one_clear_error(bounds, error, words):
    X, y, _ = table("squared")
    with pytest.raises(error, match=words) as caught:
        nagcore.Objective(X, y, loss="squared", bounds=bounds)
    assert "Use bounds=(lower, upper)" in str(caught.value)


def test_what_bounds_do_not_go_with():
    X, y, _ = table("squared")
    with pytest.raises(ValueError, match=r"bounds are given and the loss has 3 classes.*Use bounds=None"):
        nagcore.Objective(np.eye(3), np.arange(3.0), loss="softmax", bounds=(0, 1))
    with pytest.raises(ValueError, match=r"positive is True and the upper bound of coefficient 0 is -1\.0"):
        nagcore.Objective(X, y, loss="squared", positive=True, bounds=(-2, -1))
    with pytest.raises(ValueError, match=r'w has bounds\. Use solver="fista"'):
        nagcore.minimize(nagcore.Objective(X, y, loss="squared", bounds=(-2, -1)), solver="plbfgs")


def test_boxes_are_values():
    box = Box([-1.0, 0.0], 1.0)
    assert box == Box([-1.0, 0.0], [1.0, 1.0])
    assert hash(box) == hash(Box([-1.0, 0.0], [1.0, 1.0]))
    assert box != Box(0.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        box.lower[0] = 5.0
    given = np.zeros(2)
    assert Box(given, 1.0).lower is not given
    penalty = nagcore.penalties.Penalty(l1=0.1, bounds=(0, 1))
    assert dataclasses.replace(penalty, l1=0.2).bounds == Box(0.0, 1.0)
