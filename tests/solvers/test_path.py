"""The path: strengths, warm starts, counts, ends, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp

from nagcore import Objective, minimize
from nagcore.solvers import largest_strength, path
from nagcore.solvers.columnstore import ColumnStore
from nagcore.solvers.workingset import Kept
from solvers.problems import fit_case


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_every_solution_is_that_of_its_strength_alone(loss, l1_ratio):
    case = fit_case(loss, "correlated", "l2", weights=True) | {"l2": 0.0}
    objective = Objective(**case)
    found = path(objective, l1_ratio=l1_ratio, n_strengths=8, eps=1e-2, tol=1e-8)
    assert found.n_passes == objective.n_passes
    assert not found.coefs[..., 0].any()
    assert found.coefs[..., 2].any()
    assert (np.diff(found.strengths) < 0).all()
    assert found.coefs.shape == (*objective.w_shape[:0], 6, *objective.w_shape[1:], 8)
    for j, strength in enumerate(found.strengths):
        alone = minimize(Objective(**case | {"l1": l1_ratio * strength, "l2": (1 - l1_ratio) * strength}),
                         tol=1e-8)
        assert abs(alone.value - found.results[j].value) <= alone.gap + found.gaps[j] + 1e-13
        assert found.results[j].gap_kind == "certificate"
        assert found.results[j].converged or (j == 0 and found.gaps[j] < 1e-12)  # nothing to gain there


def test_warm_starts_pay():
    case = fit_case("logistic", "correlated") | {"l2": 0.0}
    objective = Objective(**case)
    strengths = largest_strength(objective) * np.geomspace(1, 1e-3, 20)
    warm = path(objective, strengths=strengths, tol=1e-6).n_passes
    cold = sum(minimize(objective.with_penalty(0.0, s), tol=1e-6).n_passes for s in strengths)
    assert warm < cold


def test_largest_strength_is_where_the_first_coefficient_moves():
    for positive in (False, True):
        objective = Objective(**fit_case("squared", "scales") | {"l2": 0.0, "positive": positive})
        strength = largest_strength(objective)
        assert not minimize(objective.with_penalty(0.0, strength * (1 + 1e-9)), tol=1e-12).coef.any()
        assert minimize(objective.with_penalty(0.0, strength * (1 - 1e-3)), tol=1e-12).coef.any()


@pytest.mark.parametrize(("how", "words"), [
    ({"l1_ratio": 1.5}, "l1_ratio is 1.5"), ({"eps": -1}, "eps is -1"),
    ({"n_strengths": 0}, "n_strengths is 0"), ({"strengths": []}, "strengths must be"),
    ({"strengths": [np.nan]}, "strengths must be"), ({"tol": -1.0}, "tol is -1"),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(how, words):
    with pytest.raises(ValueError, match=words):
        path(Objective(**fit_case("squared")), **how)
    with pytest.raises(TypeError, match="path takes a nagcore"):
        path(np.eye(3))


def wide(loss, layout, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 1500)) * (rng.random((120, 1500)) < 0.3)
    w = np.zeros(1500)
    w[::150] = 2 * rng.normal(size=10)
    y = X @ w + rng.normal(size=120)
    X = sp.csr_matrix(X.astype(dtype)) if layout == "csr" else np.asarray(X, dtype, order=layout)
    return X, (y > 0).astype(float) if loss == "logistic" else y


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("layout", "dtype"), [("C", np.float64), ("F", np.float32), ("csr", np.float64)])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_many_columns_take_a_pass_a_strength(loss, layout, dtype, fit_intercept):
    """And one more for the proof with an intercept, whose best value the working set has already."""
    X, y = wide(loss, layout, dtype)
    objective = Objective(X, y, loss=loss, fit_intercept=fit_intercept)
    found = path(objective, n_strengths=20, eps=0.05, tol=1e-6)
    assert found.n_passes <= (44 if fit_intercept else 25)
    assert found.n_passes == pytest.approx(objective.n_passes, abs=1e-2)
    assert objective.kept is None  # the columns went with the path
    for j in (5, 19):
        l1 = float(found.strengths[j])
        alone = minimize(Objective(X, y, loss=loss, l1=l1, fit_intercept=fit_intercept), tol=1e-9)
        assert found.results[j].converged
        assert -alone.gap - 1e-14 <= found.results[j].value - alone.value <= found.gaps[j] + 1e-14
        assert (found.coefs[:, j] != 0).sum() >= 3


def test_least_squares_of_few_columns_take_one_pass_for_all_strengths():
    rng = np.random.default_rng(0)
    for shift, most in ((3.0, 4), (300.0, math.inf)):
        X = rng.normal(size=(400, 30)) + shift
        y = X @ (rng.random(30) < 0.3) + rng.normal(size=400)
        objective = Objective(X, y, loss="squared")
        found = path(objective, n_strengths=30, tol=1e-8)
        assert found.n_passes <= most
        for j in (1, 10, 29):
            each = objective.with_penalty(0.0, float(found.strengths[j]))
            assert found.results[j].gap_kind == "certificate"
            # What is proven from moments is proven by a pass over X, too.
            proven = each.gap(found.results[j].w)
            assert proven <= found.gaps[j] + 1e-9 * found.results[j].null_value
            assert found.results[j].converged


class _CountsHessians:
    """A problem's core, as an object of its own."""

    def __init__(self, core):
        self.made = 0
        self._within = core

    def __getattr__(self, name):
        return getattr(self._within, name)

    def hessian(self, *args):
        self.made += 1
        return self._within.hessian(*args)


@pytest.mark.parametrize("columns", [60, 70])  # compiled steps, and steps of NumPy
def test_hessians_serve_several_strengths(columns):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, columns))
    y = (X[:, :10].sum(axis=1) + rng.normal(size=3000) > 0).astype(float)
    objective = Objective(X, y, loss="logistic")
    core = objective.problem.core = _CountsHessians(objective.problem.core)
    found = path(objective, n_strengths=30, eps=1e-2, tol=1e-7)
    assert all(result.converged for result in found.results[1:])
    assert 1 <= core.made <= 3
    assert found.n_passes <= 30 * 6


def test_solutions_lead_ahead_along_a_parabola():
    kept, strengths = Kept(), 0.8 ** np.arange(4)

    def at(l1):  # a parabola, a line, zero, what would change sign, what was zero two strengths before
        t = math.log(l1)
        return np.array([1 + t + t * t, 2 - t, 0.0, t - math.log(0.8**2.5), max(-t - 0.3, 0.0)])

    assert kept.ahead(0.5) is None
    for l1 in strengths[:3]:
        kept.add(l1, at(l1))
    found, w, before = kept.ahead(strengths[3]), at(strengths[2]), at(strengths[1])
    np.testing.assert_allclose(found[:2], at(strengths[3])[:2], rtol=1e-12)
    assert found[2] == found[3] == 0
    assert before[3] * w[3] > 0
    assert found[4] == pytest.approx(2 * w[4] - before[4])
    assert kept.ahead(1.0) is None  # not along the path
    kept.add(1.0, at(1.0))
    assert len(kept.trail) == 1


@pytest.mark.parametrize("layout", ["C", "csr"])
def test_what_lies_ahead_is_taken_where_it_is_lower(layout, monkeypatch):
    """The same solutions with a trail that leads nowhere, and more steps on the columns."""
    X, y = wide("logistic", layout)
    objective, strengths, steps = Objective(X, y, loss="logistic"), np.geomspace(1, 0.1, 20), {}
    strengths *= largest_strength(objective)
    minimise_on = ColumnStore.minimise

    def counted(self, *args):
        steps[ahead] += 1
        return minimise_on(self, *args)

    monkeypatch.setattr(ColumnStore, "minimise", counted)
    found, leads = {}, Kept.ahead
    astray = lambda kept, l1: None if leads(kept, l1) is None else -9 * leads(kept, l1)  # noqa: E731
    for ahead, where in (("as it leads", leads), ("astray", astray)):
        steps[ahead] = 0
        monkeypatch.setattr(Kept, "ahead", where)
        found[ahead] = path(objective, strengths=strengths, tol=1e-8)
        assert all(result.converged for result in found[ahead].results[1:])
    for a, b in zip(found["as it leads"].results, found["astray"].results):
        assert abs(a.value - b.value) <= a.gap + b.gap + 1e-15
    assert steps["as it leads"] < 0.9 * steps["astray"]


@pytest.mark.parametrize(("loss", "rows", "columns", "most"), [
    ("squared", 4000, 700, 4),        # the Gram matrix of one pass, where a fit alone takes gradients
    ("logistic", 4000, 700, 10 * 6),  # one Hessian for many strengths
    ("logistic", 90, 100, 10 * 3),    # few rows: working sets, a pass a strength and one for the proof
])  # fmt: skip
def test_how_columns_are_taken_along_a_path(loss, rows, columns, most):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, columns))
    y = X[:, :5].sum(axis=1) + rng.normal(size=rows)
    y = (y > 0).astype(float) if loss == "logistic" else y
    objective = Objective(X, y, loss=loss)
    found = path(objective, n_strengths=10, eps=0.05, tol=1e-7)
    assert found.n_passes <= most
    for j in (1, 9):
        alone = minimize(objective.with_penalty(0.0, float(found.strengths[j])), tol=1e-8, solver="fista")
        assert found.results[j].converged
        assert abs(found.results[j].value - alone.value) <= found.gaps[j] + alone.gap + 1e-14
