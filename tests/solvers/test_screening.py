"""Screening: what is dropped is zero in the solution, passes get shorter, the proof is of all columns."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from nagcore import Objective, minimize
from nagcore.solvers import largest_strength, screening


def case(loss, layout, dtype=np.float64, fit_intercept=True, weights=False, share=0.0, **how):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 300))
    X += 0.9 * np.roll(X, 1, 1) + rng.normal(size=(900, 1))
    X *= 10.0 ** rng.uniform(-1, 1, 300)
    if layout == "csr":
        X *= rng.random(X.shape) < 0.5
    w = np.zeros(300)
    w[::30] = 3 / X[:, ::30].std(axis=0)
    y = X @ w + 3 * rng.normal(size=900)
    y = (y > 0).astype(float) if loss in ("logistic", "squared_hinge") else y
    X = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_matrix}[layout](X.astype(dtype))
    s = rng.exponential(size=900) if weights else None
    plain = Objective(X, y, loss=loss, fit_intercept=fit_intercept, sample_weight=s, **how)
    l1 = 0.1 * largest_strength(plain)
    return Objective(X, y, loss=loss, l1=l1, l2=share * l1, fit_intercept=fit_intercept,
                     sample_weight=s, **how)


class Watched(screening.Screen):
    """A screen that the tests can find afterwards."""

    made: ClassVar[list[screening.Screen]] = []

    def __init__(self, objective):
        super().__init__(objective)
        self.made.append(self)


@pytest.fixture
def screens(monkeypatch):
    monkeypatch.setattr("nagcore.solvers.driver.Screen", Watched)
    Watched.made.clear()
    return Watched.made


@pytest.mark.parametrize(("layout", "dtype"), [
    ("C", np.float64), ("F", np.float32), ("csr", np.float64), ("csr", np.float32)])
@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_dropped_columns_are_zero_and_the_proof_is_of_all_columns(
        loss, fit_intercept, share, layout, dtype, screens):
    how = {"loss": loss, "layout": layout, "dtype": dtype, "fit_intercept": fit_intercept, "share": share,
           "weights": layout == "C"}
    objective = case(**how)
    found = minimize(objective, solver="fista", tol=1e-9)
    exact = minimize(case(**how), solver="prox_newton", tol=1e-13)
    assert screens[0].part is not None
    assert screens[0].dropped.sum() >= 150
    assert not exact.coef[screens[0].dropped].any()
    assert not found.coef[screens[0].dropped].any()
    assert found.converged
    assert found.gap_kind == "certificate"
    assert -1e-14 <= found.value - exact.value + exact.gap <= found.gap + exact.gap + 1e-14


def test_fewer_bytes_are_read(monkeypatch):
    short = minimize(case("squared", "C"), solver="fista", tol=1e-10)
    monkeypatch.setattr(screening, "_MOST_SHARE", 0.0)
    whole = minimize(case("squared", "C"), solver="fista", tol=1e-10)
    assert whole.n_passes == int(whole.n_passes)
    assert short.n_passes < 0.85 * whole.n_passes
    assert short.n_iter > short.n_passes - 30
    assert abs(short.value - whole.value) <= short.gap + whole.gap


@pytest.mark.parametrize("positive", [False, True])
def test_the_sphere_holds_the_solution_however_far_the_point(positive):
    objective = case("squared", "C", positive=positive)
    exact = minimize(objective, solver="prox_newton", tol=1e-13)
    screen, dropped = screening.Screen(objective), []
    norms = screening._norms(objective)
    rng = np.random.default_rng(0)
    for size in (3.0, 1e-1, 1e-2, 1e-3, 1e-4):
        w = exact.w * (1 + size * rng.normal(size=exact.w.shape))
        certificate = objective.certify(np.maximum(w, 0.0) if positive else w)
        out = screen._outside(certificate.slope, norms, certificate.gap)
        assert not exact.coef[out].any()
        dropped.append(int(out.sum()))
    assert dropped == sorted(dropped)
    assert dropped[0] < dropped[-1] >= 150


@pytest.mark.parametrize(("loss", "how"), [("squared", {"share": 0.0}), ("huber", {}), ("squared_hinge", {})])
def test_where_it_applies(loss, how):
    objective = case(loss, "C", **how)
    assert screening.Screen.applies(objective)
    assert not screening.Screen.applies(objective.with_penalty(0.1, 0.0))
    few = Objective(np.eye(4), np.ones(4), loss="squared", l1=0.1)
    assert not screening.Screen.applies(few)
    assert not screening.Screen.applies(Objective(np.ones((900, 300)), np.ones(900), loss="poisson", l1=0.1))
