"""The two methods step by step: one pass each, the paper's iterates, steps taken back, what they refuse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nagcore import Objective, reference
from nagcore.solvers import acfgm, fista, get, minimize
from nagcore.solvers.base import Oracle
from nagcore.solvers.coordinates import Columns, Coordinates
from solvers.numpy_problem import NumpyProblem
from solvers.problems import fit_case, minimum


def plain_oracle(case, **penalty):
    """An oracle on the NumPy double, whose own variables are plain: no rows to look at, curvature one."""
    how = {k: v for k, v in case.items() if k in ("loss", "fit_intercept", "sample_weight")}
    problem = NumpyProblem(case["X"], case["y"], **how)
    objective = Objective.from_problem(problem, sample_weight=case.get("sample_weight"), **penalty)
    d = case["X"].shape[1]
    columns = Columns(np.zeros(d), np.full(d, 1 - objective.l2), None, 1.0)
    coordinates = Coordinates(objective, columns, 2.0**-52)
    np.testing.assert_array_equal(coordinates.to_w(np.ones(objective.w_shape)), 1.0)
    return Oracle(objective, coordinates, objective.problem), problem


def run_of(method, oracle, passes, L=1.0):
    return list(itertools.islice(method(oracle, np.zeros(oracle.objective.w_shape), L), passes))


@pytest.mark.parametrize("method", [fista.fista, acfgm.acfgm])
@pytest.mark.parametrize("loss", ["logistic", "squared", "huber", "softmax"])
def test_every_step_of_a_solver_is_one_pass(method, loss):
    oracle, problem = plain_oracle(fit_case(loss, penalty="elasticnet"), l1=0.02, l2=0.02)
    steps = method(oracle, np.zeros(oracle.objective.w_shape), 1.0)
    for n, _ in zip(range(1, 40), steps):
        assert problem.passes == n


@pytest.mark.parametrize("loss", ["logistic", "squared", "poisson"])
def test_fista_knows_its_iterates_without_a_pass_at_them(loss):
    """The margins blended from those of y are the margins of x, and so is the value."""
    oracle, problem = plain_oracle(fit_case(loss, fit_intercept=True, weights=True), l1=0.01)
    for it in itertools.islice(fista.fista(oracle, np.zeros(7), 1.0), 60):
        if it.moved:
            z = problem._margins(oracle.coordinates.to_w(it.x))
            np.testing.assert_allclose(it.z, z, rtol=1e-9, atol=1e-9)
            assert it.f == pytest.approx(problem.loss_from_margins(z), rel=1e-12)


@pytest.mark.parametrize("L", [1e-4, 1e-2, 1.0, 1e3])
def test_fista_takes_back_steps_that_are_too_long(L):
    """From any first L: every step that stands satisfies the test of backtracking."""
    case = fit_case("logistic", "correlated")
    oracle, _ = plain_oracle(case, l2=0.05)
    steps = run_of(fista.fista, oracle, 80, L)
    taken_back = [it for it in steps if not it.moved]
    assert taken_back or L == 1e3
    assert not any(not it.moved for it in steps[:10]) or L < 1e3
    moved = [it for it in steps if it.moved]
    for before, after in itertools.pairwise(moved):
        step = after.x - before.y
        model = before.fy + (before.g * step).sum() + after.L / 2 * (step**2).sum()
        assert after.f <= model + 2e-3 * after.L / 2 * (step**2).sum() + 1e-13
    assert moved[-1].f < moved[0].f
    lowest = min(it.L for it in moved)
    assert L < 1e3 or lowest < 1e3  # steps grow again


def test_fista_restarts_and_beats_the_method_without():
    """On a strongly convex problem restarts turn the 1/t² of FISTA into a linear rate."""
    oracle, _ = plain_oracle(fit_case("squared", "correlated"), l2=1e-4)
    steps = run_of(fista.fista, oracle, 400)
    best = min(it.f for it in steps if it.moved)
    w = reference.fista(lambda x: oracle.gradient(x, oracle.new_margins()), np.zeros(7), n_iter=200)
    f = oracle.gradient(w, oracle.new_margins())[0]
    assert f - best <= 1e-6 * f
    values = [it.f - best for it in steps if it.moved]
    assert np.median(values[200:220]) <= 1e-3 * np.median(values[60:80]) + 1e-14


def test_acfgm_makes_the_papers_iterates():
    """The reference transcribes the paper for any f and ∇f; the bracket is exact for least squares."""
    oracle, _ = plain_oracle(fit_case("squared"), l2=0.05, l1=0.01)
    z = oracle.new_margins()

    def prox(x, eta):
        return oracle.prox(x, eta)

    points = [it.x for it in run_of(acfgm.acfgm, oracle, 40, 3.0) if it.moved]
    for n in (1, 2, 3, 10, 25):
        want = reference.acfgm(lambda x: oracle.gradient(x, z), np.zeros(7), prox=prox, L=3.0, n_iter=n)
        np.testing.assert_allclose(points[n], want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", ["logistic", "huber", "squared_hinge", "softmax"])
def test_the_bracket_from_margins_keeps_its_digits(loss):
    """f(x) − f(y) − ⟨∇f(y), x − y⟩: like the difference of objectives while that has digits, and like
    a square of the distance where the difference is rounding."""
    case = fit_case(loss, weights=True)
    oracle, _ = plain_oracle(case, l2=0.05)
    rng = np.random.default_rng(0)
    y, step = 0.1 * rng.normal(size=(2, *oracle.objective.w_shape))
    at = {}
    for name, v in (("y", y), ("near", y + 1e-3 * step), ("nearer", y + 1e-9 * step)):
        z, r = oracle.new_margins(), oracle.new_margins()
        at[name] = (v, z, r, *oracle.gradient(v, z, r))
    v, z, r, f, g = at["y"]
    near = at["near"]
    exact = near[3] - f - (g * (near[0] - v)).sum()
    got = oracle.divergence(*near[:3], v, z, r)
    assert got == pytest.approx(exact, rel=2e-3)
    smaller = oracle.divergence(*at["nearer"][:3], v, z, r)
    assert smaller == pytest.approx(got * 1e-12, rel=2e-2)


def test_acfgm_refuses_unbounded_curvature_and_names_the_remedy():
    objective = Objective(**fit_case("poisson"))
    with pytest.raises(ValueError, match=r'"acfgm" needs .*"poisson".*solver="fista"'):
        minimize(objective, solver="acfgm")
    assert objective.n_passes == 0
    assert get("fista", objective).name == "fista"


def test_fista_survives_an_exponential_that_overflows():
    """Rates from a start far off: the first steps overflow and are taken back."""
    case = fit_case("poisson", penalty="l2")
    w0 = np.zeros(7)
    w0[:6] = 6.0
    found = minimize(Objective(**case), w0, tol=1e-6, max_passes=5000)
    assert found.converged
    assert found.value - minimum(case) <= 2e-6 * (found.null_value - found.value)
    with pytest.raises(ValueError, match="infinite at the starting point"):
        minimize(Objective(**case), np.full(7, 1e3))


def test_methods_agree_with_each_other():
    for penalty in ("l1", "l2", "elasticnet"):
        case = fit_case("logistic", penalty=penalty, weights=True)
        one, two = (minimize(Objective(**case), tol=1e-7, max_passes=20_000, solver=solver)
                    for solver in ("fista", "acfgm"))
        assert one.converged
        assert two.converged
        np.testing.assert_allclose(one.w, two.w, atol=5e-3)
        assert abs(one.value - two.value) <= one.gap + two.gap


def test_acfgm_returns_exact_zeros_under_l1():
    found = minimize(Objective(**fit_case("squared", penalty="l1") | {"l1": 0.5}), tol=1e-5,
                     solver="acfgm", max_passes=5000)
    same = minimize(Objective(**fit_case("squared", penalty="l1") | {"l1": 0.5}), tol=1e-9)
    assert found.converged
    assert (same.coef == 0).any()
    np.testing.assert_array_equal(found.coef == 0, same.coef == 0)
