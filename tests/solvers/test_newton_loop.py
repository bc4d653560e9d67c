"""The compiled Newton loop against the same iteration in NumPy; what it hands back; where it stops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nagcore import Objective, _core, minimize
from nagcore.solvers import newton, warmstart
from nagcore.solvers.base import Horizon, Oracle
from nagcore.solvers.coordinates import OwnCoordinates
from solvers.problems import fit_case, minimum

LOSSES = ("squared", "logistic", "huber", "poisson", "squared_hinge", "softmax")


def loop_of(objective, w=None):
    """A loop and its margins, from w or the null model."""
    w = objective.null_model()[1] if w is None else w
    problem, shape = objective.problem, (objective.shape[0], *objective.w_shape[1:])
    margins = np.empty(shape, problem.compute), np.empty(shape, problem.compute)
    return _core.Newton(problem.core, w, *margins, objective.l2, objective.s), margins


def hessian_of(objective, w):
    """∇²F of shape (kp, kp), class-major, without anything that the loop uses but the core's passes."""
    d, k = objective.shape[1], objective.k
    problem = objective.problem.core
    if k == 1:
        H = problem.hessian(w)[2]
    else:
        H = problem.class_hessian(w, np.empty((objective.shape[0], k)))[2].reshape(len(w) * k, -1)
    penalised = np.tile(np.arange(len(w)) < d, k)
    return H + objective.l2 * np.diag(penalised.astype(float))


def reference_step(objective, w):
    """−(∇²F)⁻¹∇F by NumPy: of least norm over shifts that all classes share."""
    g = objective.value_and_grad(w)[1]
    p = np.linalg.lstsq(hessian_of(objective, w), -g.T.reshape(-1), rcond=1e-12)[0]
    return p.reshape(-1, len(w)).T.reshape(w.shape)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_loop_makes_the_steps_of_numpy(loss, fit_intercept):
    objective = Objective(**(fit_case(loss, fit_intercept=fit_intercept, weights=True) | {"l2": 0.2}))
    near = 0.9 * minimize(objective, solver="fista", tol=1e-3).w
    loop, margins = loop_of(objective, near)
    records, points, gradients, data_gradients = loop.run(5)
    assert len(records) >= 2
    for record, w, g, u in zip(records, points, gradients, data_gradients, strict=True):
        data_value, f, decrement, bound, seconds, hessian, moved, _ = record
        value, grad = objective.value_and_grad(w)
        assert f == pytest.approx(value, rel=1e-13)
        d = objective.shape[1]
        assert data_value == pytest.approx(value - 0.1 * float((w[:d] ** 2).sum()), rel=1e-12)
        np.testing.assert_allclose(g, grad, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(g[:d] - u[:d], 0.2 * w[:d], rtol=1e-9, atol=1e-12)
        assert moved
        assert hessian
        assert seconds > 0
        step = reference_step(objective, w)
        assert decrement == pytest.approx(-0.5 * float((g * step).sum()), rel=1e-7, abs=1e-20)
        if not fit_intercept:
            assert bound == pytest.approx(float((g**2).sum()) / 0.4, rel=1e-9, abs=1e-25)
    for (w, w_next) in itertools.pairwise(points):
        if float(np.abs(w_next - w).max()) > 1e-6:
            np.testing.assert_allclose(w_next, w + reference_step(objective, w), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(margins[loop.current], objective.margins(points[-1]), rtol=1e-12, atol=1e-12)


def test_bound_is_the_gap_with_the_intercept_solved():
    objective = Objective(**(fit_case("logistic") | {"l2": 0.05}))
    loop, _ = loop_of(objective)
    for (_, f, _, bound, *_), w in zip(*loop.run(4)[:2], strict=True):
        assert f - minimum(fit_case("logistic") | {"l2": 0.05}) <= bound * (1 + 1e-9) + 1e-12
        H = objective.problem.core.hessian(w)[2]
        g = objective.value_and_grad(w)[1]
        head = g[:-1] - H[-1, :-1] / H[-1, -1] * g[-1]
        assert bound == pytest.approx(float(head @ head) / 0.1, rel=1e-9, abs=1e-25)


@pytest.mark.parametrize("loss", ["logistic", "softmax", "poisson"])
@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_watched_and_unwatched_runs_are_the_same(loss, l2):
    """With a callback a call is one pass; without, as many as nothing could end."""
    case = fit_case(loss, weights=True) | {"l2": l2}
    seen = []
    plain = minimize(Objective(**case), solver="newton", tol=1e-8)
    watched = minimize(Objective(**case), solver="newton", tol=1e-8, callbacks=[seen.append])
    np.testing.assert_array_equal(plain.w, watched.w)
    for name in ("n_iter", "n_passes", "message"):
        assert getattr(plain, name) == getattr(watched, name)
    assert plain.gap == watched.gap
    for name in ("n_passes", "value", "gap"):
        np.testing.assert_array_equal(getattr(plain.history, name), getattr(watched.history, name))
    assert len(seen) == plain.n_iter == len(plain.history.rows)
    seconds = plain.history.seconds
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] <= plain.seconds


@pytest.mark.parametrize("limit", range(1, 9))
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_limits_end_unwatched_runs_where_they_end_watched_ones(loss, limit):
    case = fit_case(loss, "correlated")
    most = 2 * limit + 1
    plain, watched = (
        minimize(Objective(**case), solver="newton", tol=1e-10, max_passes=most, callbacks=callbacks)
        for callbacks in ((), (lambda _: None,)))
    for name in ("n_iter", "n_passes", "message"):
        assert getattr(plain, name) == getattr(watched, name)
    np.testing.assert_array_equal(plain.w, watched.w)


def test_max_seconds_is_looked_at_after_each_pass():
    found = minimize(Objective(**fit_case("logistic")), solver="newton", tol=1e-9, max_seconds=1e-9)
    assert (found.n_iter, found.n_passes) == (1, 1)
    assert found.message == "max_seconds=1e-09 reached"


def test_horizon_is_not_passed():
    objective = Objective(**fit_case("logistic"))
    oracle = Oracle(objective, OwnCoordinates(objective), objective.problem)
    oracle.horizon = lambda: Horizon(2.0)
    run, at = newton.newton(oracle, np.zeros(7)), 0.0
    for n in (2, 4):
        it = next(run)
        assert objective.n_passes == n
        (step,) = it.trail
        assert step.later == 1
        assert step.f > it.f
        assert step.gap > it.bound
        assert at < step.at < it.at
        assert it.moved
        at = it.at
    np.testing.assert_array_equal(oracle.w, it.x)
    value, grad = Objective(**fit_case("logistic")).value_and_grad(it.x)
    assert it.f == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(it.g, grad, atol=1e-13)


def test_passes_of_another_object_give_the_same_steps():
    """A copy of X about an origin is a problem that Python puts together."""
    for loss in ("logistic", "softmax"):
        case = fit_case(loss, "plain")
        case["X"] = np.ascontiguousarray(case["X"] + 1000.0)
        narrow, _ = Objective(**case).narrowed("float32")
        assert not isinstance(narrow.problem.core, _core.Problem)
        found = minimize(Objective(**case), solver="newton", storage="float32", tol=1e-8)
        assert found.converged
        assert found.value - minimum(case) <= 1e-8 * (found.null_value - found.value) + 1e-12


def test_class_hessian_of_a_shifted_copy_is_that_of_x():
    case = fit_case("softmax", "plain")
    case["X"] = np.ascontiguousarray(case["X"] + 1000.0)
    objective = Objective(**case)
    narrow, _ = objective.narrowed("float32")
    w = np.random.default_rng(0).normal(size=objective.w_shape)
    w -= w.mean(axis=1, keepdims=True)
    w[-1] -= 1000 * w[:-1].sum(axis=0)
    value, g, H = objective.problem.class_hessian(w, np.empty((120, 3)))
    value_n, g_n, H_n = narrow.problem.class_hessian(w, np.empty((120, 3), np.float32))
    assert value_n == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(g_n, g, atol=1e-4 * np.abs(g).max())
    np.testing.assert_allclose(H_n, H, atol=1e-4 * np.abs(H).max())


def test_loop_names_what_it_does_not_take():
    objective = Objective(**fit_case("logistic"))
    z, other = np.empty(120), np.empty(120)
    core = objective.problem.core
    for wrong, message in (
        ((core, np.zeros(6), z, other), "w has shape"),
        ((core, np.zeros(7), z, z), "overlap"),
        ((core, np.zeros(7), z, np.empty(119)), "other has dtype"),
        ((core, np.zeros(7), z.astype(np.float32), other), "margins has dtype"),
        ((core, np.zeros(7), z, other, -1.0), "l2 is -1"),
        ((core, np.zeros(7), z, other, 0.0, np.ones(3)), "weights has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.Newton(*wrong)
    with pytest.raises(ValueError, match="steps is 0"):
        loop_of(objective)[0].run(0)
    with pytest.raises(ValueError, match="softmax loss; this problem's is logistic"):
        core.class_hessian(np.zeros(7), z)


def test_nan_in_x_is_named_by_its_place():
    case = fit_case("logistic")
    case["X"][17, 3] = np.nan
    with pytest.raises(ValueError, match="first in row 17, column 3"):
        loop_of(Objective(**case))[0].run(2)
    many = Objective(np.tile(case["X"], (60, 1)), np.tile(case["y"], 60), loss="logistic", l2=0.1)
    with pytest.raises(ValueError, match="first in row 17, column 3"):
        minimize(many, solver="newton")


def large_case(n=20_000, d=5, share=0.5, loss="logistic"):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    z = X @ rng.normal(size=d)
    if loss == "softmax":
        y = np.digitize(z + rng.logistic(size=n), [-1.0, 1.0]).astype(float)
    elif loss == "poisson":
        y = rng.poisson(np.exp(z / 3)).astype(float)
    else:
        y = (z + rng.logistic(size=n) > np.quantile(z, 1 - share)).astype(float)
    return {"X": X, "y": y, "loss": loss, "l2": 1e-4}


@pytest.mark.parametrize("loss", ["logistic", "poisson", "softmax"])
def test_newton_starts_from_the_solution_of_some_rows(loss, monkeypatch):
    case = large_case(loss=loss)
    started = minimize(Objective(**case), solver="newton", tol=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(warmstart, "_SHARE", math.inf)
        cold = minimize(Objective(**case), solver="newton", tol=1e-9)
    assert started.converged
    assert cold.converged
    assert started.n_iter < cold.n_iter
    assert started.n_passes < cold.n_passes
    assert started.n_passes != int(started.n_passes)  # the sample's share is counted
    assert started.value == pytest.approx(cold.value, rel=1e-9)


@pytest.mark.parametrize(
    "reason", ["few rows", "one class is rare", "a start is given", "few passes", "no weight"])
def test_newton_starts_at_the_null_model_where_a_sample_says_little(reason):
    case = large_case(share=0.0005 if reason == "one class is rare" else 0.5)
    how, w0 = {}, None
    if reason == "few rows":
        case["X"], case["y"] = case["X"][:3000], case["y"][:3000]
    elif reason == "a start is given":
        w0 = np.zeros(6)
    elif reason == "few passes":
        how["max_passes"] = 9
    elif reason == "no weight":
        s = np.zeros(len(case["y"]))
        s[:12] = 1.0
        case["sample_weight"] = s
    found = minimize(Objective(**case), w0, solver="newton", tol=1e-6, **how)
    assert found.n_passes == int(found.n_passes)
