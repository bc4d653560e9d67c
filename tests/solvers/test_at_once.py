"""Small Newton fits in one call of the core: what a `Run` returns, to the last bit but the clock's."""

import dataclasses

import numpy as np
import pytest

from nagcore import Objective, minimize, solvers
from nagcore.solvers.at_once import at_once
from nagcore.solvers.workingset import Kept

LOSSES = ("logistic", "softmax", "poisson", "huber")


def data(loss, n=180, d=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * rng.uniform(0.3, 3, d) + rng.uniform(-1, 1, d)
    z = X @ rng.standard_normal((d, 3)) / np.sqrt(d)
    if loss == "softmax":
        return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    if loss == "logistic":
        return X, (z[:, 0] + rng.logistic(size=n) > 0).astype(int)
    if loss == "poisson":
        return X, rng.poisson(np.exp(np.clip(0.5 * z[:, 0], -5, 3))).astype(float)
    return X, z[:, 0] + rng.standard_normal(n)


def by_run(monkeypatch, objective, solver="newton", **options):
    with monkeypatch.context() as patch:
        patch.setattr(solvers, "at_once", lambda *_: None)
        return minimize(objective, solver=solver, **options)


def same(objective, short, long):
    assert short is not None
    assert objective.n_passes == short.n_passes
    for field in dataclasses.fields(long):
        a, b = getattr(long, field.name), getattr(short, field.name)
        if field.name == "history":
            clocks = [row.pop("seconds") for row in b.rows]
            assert clocks == sorted(clocks)
            assert clocks[-1] <= short.seconds
            assert b.rows == [{k: v for k, v in row.items() if k != "seconds"} for row in a.rows]
        elif field.name != "seconds":
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            assert type(a) is type(b), field.name


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-6, 1e-10])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_result_is_that_of_a_run(monkeypatch, loss, tol, weighted, fit_intercept):
    X, y = data(loss)
    weight = np.random.default_rng(1).uniform(0.2, 2, len(y)) if weighted else None
    options = {"loss": loss, "l2": 1e-3, "fit_intercept": fit_intercept, "sample_weight": weight}
    long, objective = by_run(monkeypatch, Objective(X, y, **options), tol=tol), Objective(X, y, **options)
    same(objective, at_once(objective, tol, 1000, 1000, "newton", long.why), long)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 1e-3])
@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-6, 1e-9])
@pytest.mark.parametrize("shape", [(180, 5), (2000, 40)])
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "softmax"])
def test_the_result_under_l1_is_that_of_a_run(monkeypatch, loss, shape, tol, l2, fit_intercept):
    X, y = data(loss, *shape)
    options = {"loss": loss, "l1": 3e-3, "l2": l2, "fit_intercept": fit_intercept}
    for kept in (None, Kept(one=True)):  # of the second a Hessian serves for several steps
        first, second = Objective(X, y, **options), Objective(X, y, **options)
        first.kept, second.kept = kept, Kept(one=True) if kept else None
        long = by_run(monkeypatch, first, "prox_newton", tol=tol)
        assert long.converged
        same(second, at_once(second, tol, 1000, 1000, "prox_newton", long.why), long)


def test_a_path_keeps_what_its_strengths_share():
    X, y = data("logistic")
    objective = Objective(X, y, loss="logistic", l1=3e-3)
    objective.kept = Kept()
    assert at_once(objective, 1e-6, 1000, 1000, "prox_newton", "") is None
    assert minimize(objective, solver="prox_newton").converged
    assert "H" in objective.kept.hessian
    assert objective.kept.last is not None


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_a_watched_run_takes_the_same_steps(loss):
    X, y = data(loss)
    states = []
    watched = minimize(Objective(X, y, loss=loss, l2=1e-3), solver="newton", callbacks=[states.append])
    alone = minimize(Objective(X, y, loss=loss, l2=1e-3), solver="newton")
    assert [s.n_iter for s in states] == [row["step"] for row in alone.history.rows]
    np.testing.assert_array_equal(alone.w, watched.w)


@pytest.mark.parametrize(
    "options",
    [{"l2": 0.0}, {"l1": 1e-3}, {"bounds": (-1.0, 1.0)}, {"offset": np.ones(180)}, {"compute": "float32"}],
)
def test_what_it_leaves_to_a_run(options):
    X, y = data("logistic")
    if "compute" in options:
        X, options = X.astype(np.float32), {}
    objective = Objective(X, y, loss="logistic", **{"l2": 1e-3, **options})
    for solver in ("newton", "prox_newton"):
        if "l1" not in options or solver == "newton":
            assert at_once(objective, 1e-6, 1000, 1000, solver, "") is None
    assert objective.n_passes == 0


def test_what_it_did_not_finish_costs_no_passes():
    X, y = data("logistic")
    objective = Objective(X, y, loss="logistic", l2=1e-6)
    assert at_once(objective, 1e-12, 3, 1000, "newton", "") is None
    assert objective.n_passes == 0
    result = minimize(objective, solver="newton", tol=1e-12, max_passes=3)
    assert (result.message, result.n_passes) == ("max_passes=3 reached", 3)


def test_bad_input_is_told_as_ever():
    X, y = data("logistic")
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        minimize(Objective(X, y, loss="logistic", l2=1e-3), solver="newton")
