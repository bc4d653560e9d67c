"""Gaps are bounds: against minima found elsewhere, against the reference's dual, at points near and far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import LOSSES
from nagcore import Objective, losses, minimize, reference
from nagcore.objective.duality import (
    _scaling_gap,
    best_intercept,
    imbalance,
    mean_size,
    penalty_gap,
    row_mean,
)
from nagcore.penalties import Penalty
from solvers.numpy_problem import NumpyProblem
from solvers.problems import KINDS, PENALTIES, fit_case, minimum, value

EPS = 2.0**-52


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_converged_means_what_tol_says(loss, penalty, fit_intercept):
    """F(w) − min F ≤ tol·(F₀ − min F) for every fit that a certificate calls converged."""
    turn = LOSSES.index(loss) + list(PENALTIES).index(penalty)
    for i, kind in enumerate((KINDS[turn % 4], KINDS[(turn + 2 + fit_intercept) % 4])):
        case = fit_case(loss, kind, penalty, fit_intercept, weights=i == 1, seed=i, n=80)
        best = minimum(case)
        for solver, tol in (("fista", 1e-3), ("fista", 1e-8), ("acfgm", 1e-2), ("newton", 1e-3),
                            ("newton", 1e-9), ("normal", 1e-9), ("plbfgs", 1e-3), ("plbfgs", 1e-9),
                            ("prox_newton", 1e-3), ("prox_newton", 1e-9)):
            if solver == "acfgm" and not losses.get(loss).bounded_curvature:
                continue
            if solver in ("newton", "normal", "plbfgs") and penalty != "l2":
                continue
            if solver in ("newton", "prox_newton") and loss == "softmax":
                continue
            if solver == "normal" and loss != "squared":
                continue
            found = minimize(Objective(**case), tol=tol, solver=solver, max_passes=5000)
            note = f"{kind} {solver} {tol} {found}"
            gained = found.null_value - min(best, found.value)
            rounding = 50 * EPS * max(abs(found.null_value), abs(found.value))
            assert found.gap_kind == "certificate", note
            assert found.converged or solver == "acfgm" or kind == "scales", note
            assert abs(found.value - value(case, found.w)) <= rounding, note
            if found.converged:
                assert found.gap <= tol * (found.null_value - found.value) + rounding, note
                assert found.value - best <= tol * gained + rounding, note
            assert found.value - best <= found.gap + rounding, note


@pytest.mark.parametrize("loss", LOSSES)
def test_gap_bounds_the_distance_everywhere(loss):
    rng = np.random.default_rng(3)
    for penalty in PENALTIES:
        for fit_intercept in (True, False):
            case = fit_case(loss, "plain", penalty, fit_intercept, weights=True)
            objective, best = Objective(**case), minimum(case)
            solution = minimize(objective, tol=1e-9).w
            for size in (1.0, 1e-2, 1e-4, 1e-6):
                w = solution + size * rng.normal(size=solution.shape)
                slack = 100 * EPS * abs(value(case, w))
                assert objective.gap(w) >= value(case, w) - best - slack, (penalty, fit_intercept, size)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_gap_with_l2_is_the_reference_dual_at_the_residuals(loss, fit_intercept):
    """With l2 > 0 and l1 = 0 both take the same dual point, one by conjugates, one without."""
    case = fit_case(loss, "plain", "l2", fit_intercept, weights=True)
    how = {k: v for k, v in case.items() if k not in ("X", "y")}
    objective, rng = Objective(**case), np.random.default_rng(0)
    for size in (0.1, 1.0):
        w = size * rng.normal(size=objective.w_shape)
        want = reference.duality_gap(case["X"], case["y"], w, **how)
        assert objective.gap(w) == pytest.approx(want, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_gap_with_l1_alone_is_close_to_the_reference_dual(loss, fit_intercept):
    """Without a formula of the conjugate the bound is looser, but of the same order."""
    case = fit_case(loss, "plain", "l1", fit_intercept)
    how = {k: v for k, v in case.items() if k not in ("X", "y")}
    objective, rng = Objective(**case), np.random.default_rng(0)
    solution = minimize(objective, tol=1e-9).w
    for size in (1.0, 1e-2, 1e-4):
        w = solution + size * rng.normal(size=solution.shape)
        want = reference.duality_gap(case["X"], case["y"], w, **how)
        got = objective.gap(w)
        assert got >= want - 1e-11
        assert got <= 8 * want + 1e-11


def test_gap_counts_its_passes():
    for fit_intercept, passes in ((True, 2), (False, 1)):
        objective = Objective(**fit_case("logistic", fit_intercept=fit_intercept))
        objective.gap(np.zeros(objective.w_shape))
        assert objective.n_passes == passes


def test_gap_without_a_penalty_is_none():
    objective = Objective(**fit_case("logistic") | {"l2": 0.0})
    assert objective.gap_kind == "none"
    assert np.isnan(objective.gap(np.zeros(objective.w_shape)))
    assert objective.n_passes == 0


def test_gap_of_soft_labels_under_l1_alone_is_infinite_or_a_bound():
    case = fit_case("softmax", "plain", "l1")
    case["y"] = np.random.default_rng(0).dirichlet(np.ones(3), len(case["y"]))
    objective = Objective(**case)
    found = minimize(objective, tol=1e-6, max_passes=300)
    w = found.w + 0.1
    assert objective.gap(w) >= objective.value(w) - found.value - 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_best_intercept_balances_the_residuals(loss):
    rng = np.random.default_rng(1)
    case = fit_case(loss, weights=True)
    problem = NumpyProblem(case["X"], case["y"], loss=loss, sample_weight=case["sample_weight"])
    s = case["sample_weight"] / case["sample_weight"].sum()
    shape = (120,) if problem.k == 1 else (120, problem.k)
    for size in (0.1, 3.0):
        z = size * rng.normal(size=shape)
        found = best_intercept(problem, z, s, losses.get(loss).curvature_bound)
        mean = np.max(np.abs(row_mean(found.r, s)))
        assert mean <= 1e-10 * (1 + np.abs(found.r).max()), size
        around = [problem.loss_from_margins(found.z + e) for e in (-1e-3, 1e-3)]
        assert found.value <= min(around) + 1e-14 * abs(found.value)
        np.testing.assert_allclose(found.z, z + found.b, rtol=1e-12, atol=1e-12)
    assert problem.passes == 0


def test_best_intercept_of_far_counts():
    """The exponential makes secants useless until the bracket is small."""
    y = np.random.default_rng(0).poisson(1e6, 50).astype(float)
    problem = NumpyProblem(np.ones((50, 1)), y, loss="poisson")
    found = best_intercept(problem, np.zeros(50), None, np.inf)
    assert found.b == pytest.approx(np.log(y.mean()), rel=1e-12)


@given(st.integers(2, 40), st.floats(0, 0.9), st.integers(0, 2**31))
def test_imbalance_removes_the_mean_by_shrinking(n, shift, seed):
    rng = np.random.default_rng(seed)
    s = rng.random(n) + 0.1
    s /= s.sum()
    theta = rng.normal(size=n)
    theta[:2] = -1.0, 1.0
    theta += shift
    kept = imbalance(theta, float(row_mean(theta, s)), mean_size(theta, s))
    assert np.all((0 <= np.asarray(kept)) & (np.asarray(kept) <= 1))
    assert abs(row_mean(kept * theta, s)) <= 1e-14 * (1 + np.abs(theta).max())


@given(st.floats(0, 3), st.floats(0.01, 3), st.integers(0, 2**31))
def test_penalty_gap_is_fenchel_young(l1, l2, seed):
    """Ω(w) + Ω*(−u) + ⟨w, u⟩ with Ω* at its maximiser, which a grid confirms."""
    rng = np.random.default_rng(seed)
    w, u = rng.normal(size=1) * 2, rng.normal(size=1) * 2
    top = -np.sign(u[0]) * max(abs(u[0]) - l1, 0) / l2
    near = top + np.linspace(-1, 1, 101)
    near = -u[0] * near - l1 * np.abs(near) - l2 / 2 * near**2
    conjugate = -u[0] * top - l1 * abs(top) - l2 / 2 * top**2
    assert conjugate >= near.max() - 1e-12
    want = l1 * abs(w[0]) + l2 / 2 * w[0] ** 2 + conjugate + w[0] * u[0]
    got = penalty_gap(w, u, Penalty(l2=l2, l1=l1))
    assert got >= 0
    assert got == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_zero_gap_at_the_null_model():
    """With l1 beyond its largest useful value the null model is optimal: 0/0 is converged."""
    case = fit_case("logistic", penalty="l1") | {"l1": 10.0}
    found = minimize(Objective(**case), tol=1e-9)
    assert found.converged
    assert not found.coef.any()
    assert found.gap <= 1e-15
    assert found.n_passes <= 4


def test_rows_with_margins_far_out_do_not_void_the_bound():
    """Their residuals are an exponential's tail: they shrink by a share over a step of about that share."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = (X[:, 0] + 0.3 * rng.normal(size=200) > 0).astype(float)
    X = np.vstack([X, [[60.0, 0, 0], [-60.0, 0, 0]]])
    y = np.append(y, [1.0, 0.0])
    found = minimize(Objective(X, y, loss="logistic", l1=1e-3), tol=1e-9)
    assert found.converged
    assert found.gap_kind == "certificate"


@pytest.mark.parametrize("curved", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shrunk", [1e-9, 1e-3, 0.3, "by row"])
def test_shrunken_residuals_cost_what_the_conjugate_says(shrunk, weighted, curved):
    """Above φ(z) + φ*(αr) − αzr, and within a factor of it, small for small 1 − α; several blocks of rows."""
    rng = np.random.default_rng(0)
    n = 70_000
    z, y = 6 * rng.standard_normal(n), rng.integers(0, 2, n)
    s = rng.exponential(size=n) if weighted else None
    objective = Objective(np.ones((n, 1)), y, loss="logistic", l1=1.0, fit_intercept=False, sample_weight=s)
    problem, r = objective.wide, np.empty(n)
    problem.loss_from_margins(z, r)
    alpha = np.where(r > 0, 0.9, 1.0) if shrunk == "by row" else 1 - shrunk
    before = z.copy()
    problem.second_order = curved  # else step lengths know a bound of the curvature alone
    bound = _scaling_gap(problem, z, r, alpha, objective.s, 0.25)
    np.testing.assert_array_equal(z, before)

    # The divergence of q = σ(z) and p = y + αr, by the part of it that is alike for y = 0 and y = 1:
    # v = |r| moves to αv, 1 − v to 1 − αv.
    v = np.abs(r)
    exact = alpha * v * np.log(alpha) + (1 - alpha * v) * np.log1p((1 - alpha) * v / (1 - v))
    weight = np.full(n, 1 / n) if s is None else s / s.sum()
    exact = float(weight @ exact)
    slack = 1e-15  # of what rounding leaves where 1 − α is 1e-9
    assert bound >= exact - slack
    assert bound <= (20 if shrunk in (1e-9, 1e-3) else 1000) * exact + 100 * slack
    own = _scaling_gap(problem, z, r, alpha, objective.s, 0.25, z)
    assert own == pytest.approx(bound, rel=1e-9)
