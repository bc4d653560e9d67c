"""The compiled L-BFGS loop against the same iteration in NumPy; where it stops; starts from samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nagcore import Objective, _core, minimize
from nagcore.solvers import driver, plbfgs, rows, warmstart
from nagcore.solvers.metric import Metric
from nagcore.solvers.newton import minimum_of_sample
from solvers.problems import fit_case, minimum

LOSSES = ("logistic", "huber", "poisson", "squared_hinge")


def metric_of(objective, seed=0):
    """Some L, scale, mean and scale_b, and the matrix T of w = T v that they stand for."""
    rng, d, p = np.random.default_rng(seed), objective.shape[1], objective.p
    L = np.tril(rng.normal(size=(d, d)) / 4, -1) + np.diag(rng.uniform(0.8, 1.2, d))
    scale, mean, scale_b = rng.uniform(0.5, 1.5, d), rng.normal(size=d) / 2, 1.7
    T = np.zeros((p, p))
    T[:d, :d] = scale[:, None] * np.linalg.inv(L).T
    if p > d:
        T[d, :d], T[d, d] = -mean @ T[:d, :d], scale_b
    return (L, scale, mean, scale_b), T


def loop_of(objective, v, parts, **more):
    problem, n = objective.problem, objective.shape[0]
    margins = np.empty(n, problem.compute), np.empty(n, problem.compute)
    rms = np.ones(objective.shape[1])
    return _core.Lbfgs(problem.core, v, *margins, *parts, rms, objective.l2, **more), margins


def reference_step(pairs, g):
    """−H g, H by inverse updates of a whole matrix (Nocedal & Wright, 6.17)."""
    if not pairs:
        return -g
    s, y = pairs[-1]
    H, eye = np.eye(len(g)) * (s @ y) / (y @ y), np.eye(len(g))
    for s, y in pairs:
        V = eye - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    return -H @ g


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_loop_makes_the_steps_of_numpy(loss, fit_intercept):
    objective = Objective(**(fit_case(loss, fit_intercept=fit_intercept, weights=True) | {"l2": 0.2}))
    near = 0.9 * minimize(objective, solver="fista", tol=1e-3).w
    parts, T = metric_of(objective)
    v0, d = np.linalg.solve(T, near), objective.shape[1]
    loop, margins = loop_of(objective, v0, parts)
    records, points, gradients, ws, us = loop.run(20)
    while len(records) < 12 or not records[-1][5]:  # calls end where the line search looks
        more = loop.run(12)
        records, (points, gradients, ws, us) = records + more[0], (
            np.concatenate(both) for both in zip((points, gradients, ws, us), more[1:], strict=True))
    for record, v, g, w, u in zip(records, points, gradients, ws, us, strict=True):
        data_value, f, bound, seconds, passed, moved, _ = record
        np.testing.assert_allclose(w, T @ v, rtol=1e-10, atol=1e-12)
        value, grad = objective.value_and_grad(w)
        assert f == pytest.approx(value, rel=1e-13)
        assert data_value == pytest.approx(value - 0.1 * float((w[:d] ** 2).sum()), rel=1e-12)
        np.testing.assert_allclose(g, T.T @ grad, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(grad[:d] - u[:d], 0.2 * w[:d], rtol=1e-9, atol=1e-12)
        assert passed
        assert seconds > 0
        head = grad[:d] - parts[2] * grad[d] if fit_intercept else grad
        if moved:
            assert bound == pytest.approx(float(head @ head) / 0.4, rel=1e-9, abs=1e-25)
    pairs, steps = [], 0
    taken = [i for i, record in enumerate(records) if record[5]]
    for i, j in itertools.pairwise(taken):
        step = reference_step(pairs, gradients[i])
        if j == i + 1 and np.abs(step).max() > 1e-6:  # a full step
            np.testing.assert_allclose(points[j] - points[i], step, rtol=1e-6, atol=1e-9)
            steps += 1
        pairs = [*pairs, (points[j] - points[i], gradients[j] - gradients[i])][-12:]
    assert steps >= 3
    kept = loop.pairs
    assert len(kept) == len(pairs)
    for one, other in zip(kept, pairs, strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=1e-15)
        np.testing.assert_allclose(one[1], other[1], atol=1e-15)
    at = objective.margins(ws[taken[-1]])
    np.testing.assert_allclose(margins[loop.current], at, rtol=1e-12, atol=1e-12)


def test_known_start_takes_no_pass_and_a_proposed_step_is_tried_first():
    objective = Objective(**(fit_case("logistic") | {"l2": 0.1}))
    parts, T = metric_of(objective)
    v, best = np.full(7, 0.1), minimize(objective, tol=1e-10).w
    w = T @ v
    problem = objective.problem.core
    for step in (np.linalg.solve(T, best) - v, v - np.linalg.solve(T, best)):  # downhill, uphill
        loop, margins = loop_of(objective, v, parts)
        value, u = problem.value_and_grad(w, None, margins[0])
        loop.know(value, w, u)
        loop.propose(step)
        records, points, gradients, _, _ = loop.run(2)
        assert [record[4] for record in records] == [False, True]
        np.testing.assert_allclose(gradients[0], T.T @ objective.value_and_grad(w)[1], rtol=1e-10)
        wanted = step if step @ gradients[0] < 0 else -gradients[0]
        np.testing.assert_allclose(points[1], v + wanted, rtol=1e-12)
    loop, _ = loop_of(objective, v, parts)
    s, y = np.arange(7.0), np.arange(7.0) + 1
    for i in range(14):
        loop.remember(s + i, y)
    assert [pair[0][0] for pair in loop.pairs] == list(range(2, 14))


def test_linear_term_moves_the_minimum_to_where_the_gradient_is_against_it():
    objective = Objective(**(fit_case("logistic") | {"l2": 0.1}))
    linear = np.linspace(-0.02, 0.02, 7)
    w = minimum_of_sample(objective, 1e-14, linear=linear)
    np.testing.assert_allclose(objective.value_and_grad(w)[1], -linear, atol=1e-7)
    near = minimum_of_sample(objective, 1e-14, w=w + 0.1, linear=linear)
    np.testing.assert_allclose(near, w, atol=1e-6)
    loop, _ = loop_of(objective, np.zeros(7), (None, np.ones(6), np.zeros(6), 1.0), linear=linear)
    for _ in range(60):
        records, points, *_ = loop.run()
    np.testing.assert_allclose(points[-1], w, atol=1e-5)
    value = objective.value_and_grad(points[-1])[0]
    assert records[-1][1] == pytest.approx(value + linear @ points[-1], rel=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_and_numpy_iterations_agree(monkeypatch, dtype, fit_intercept):
    case = fit_case("logistic", "correlated", fit_intercept=fit_intercept, n=3000)
    case["X"] = case["X"].astype(dtype)
    fast = minimize(Objective(**case), solver="plbfgs", tol=1e-8)
    monkeypatch.setattr(plbfgs, "_compiled", lambda oracle, x: plbfgs._by_passes(oracle, x, 1.0))
    slow = minimize(Objective(**case), solver="plbfgs", tol=1e-8)
    assert fast.converged
    assert slow.converged
    assert abs(fast.n_passes - slow.n_passes) <= 1
    np.testing.assert_allclose(fast.w, slow.w, atol=1e-4)


@pytest.mark.parametrize("n", [300, 9000])  # with and without a start from samples
@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_watched_and_unwatched_runs_are_the_same(monkeypatch, n, l2):
    monkeypatch.setattr(driver, "_RENEW_AFTER", 2)  # so that metrics are made anew
    case = fit_case("logistic", "correlated", weights=True, n=n) | {"l2": l2}
    case["X"] = case["X"].astype(np.float32)
    seen = []
    plain = minimize(Objective(**case), solver="plbfgs", tol=1e-8)
    watched = minimize(Objective(**case), solver="plbfgs", tol=1e-8, callbacks=[seen.append])
    np.testing.assert_array_equal(plain.w, watched.w)
    for name in ("n_iter", "n_passes", "message", "gap"):
        assert getattr(plain, name) == getattr(watched, name)
    for name in ("n_passes", "value", "gap"):
        np.testing.assert_array_equal(getattr(plain.history, name), getattr(watched.history, name))
    assert len(seen) == plain.n_iter == len(plain.history.rows)


@pytest.mark.parametrize("limit", range(1, 9))
def test_limits_end_unwatched_runs_where_they_end_watched_ones(limit):
    case = fit_case("logistic", "correlated")
    plain, watched = (
        minimize(Objective(**case), solver="plbfgs", tol=1e-10, max_passes=limit + 1, callbacks=callbacks)
        for callbacks in ((), (lambda _: None,)))
    for name in ("n_iter", "n_passes", "message"):
        assert getattr(plain, name) == getattr(watched, name)
    np.testing.assert_array_equal(plain.w, watched.w)


def tall(n=20_000, d=8, odds=0.01, seed=0):
    """Two classes, of which one is rare."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    z = X @ np.linspace(-1, 1, d) + math.log(odds)
    return {"X": X, "y": (z + rng.logistic(size=n) > 0).astype(float), "loss": "logistic", "l2": 1 / n,
            "l1": 0.0, "fit_intercept": True}


def test_corrected_sample_leads_far_beyond_the_first():
    objective = Objective(**tall())
    run = driver.Run(objective, plbfgs.METHOD, tol=1e-6, max_passes=100, max_iter=math.inf, max_seconds=None,
                     callbacks=())
    run.judge.start(None)
    start = warmstart.from_sample(run, Metric(objective, 0))
    least = minimum(tall())
    first, second = (objective.value(w) - least for w in (start.w, start.proposed))
    assert 0 <= second < 0.05 * first
    data_value = first + least - objective.penalty_value(start.w[:8])
    assert start.known.data_value == pytest.approx(data_value, abs=1e-6)
    np.testing.assert_allclose(start.known.z, objective.margins(start.w), rtol=1e-5, atol=1e-5)
    found = minimize(Objective(**tall()), solver="plbfgs", tol=1e-6)
    assert found.converged
    assert found.value - least <= 1e-6 * (found.null_value - least)
    assert found.n_passes <= 9


def test_start_from_samples_is_the_same_for_every_number_of_threads():
    one, two = (minimize(Objective(**tall(), n_threads=k), solver="plbfgs", tol=1e-6) for k in (1, 2))
    np.testing.assert_array_equal(one.w, two.w)


def test_rare_columns_are_looked_for_where_l2_does_not_hold_steps():
    """A column of three ones, which samples miss."""
    n = 20_000
    rng = np.random.default_rng(3)
    X = np.hstack([rng.normal(size=(n, 6)).clip(-1, 1), np.zeros((n, 1))]).astype(np.float32)
    X[[17, 8000, 19_000], 6] = 1
    y = (X[:, 0] + rng.logistic(size=n) > 0).astype(float)
    found = {}
    for strength in (1e-4, 1.0):
        objective = Objective(X, y, loss="logistic", l2=strength / n, fit_intercept=False)
        sampler = rows.Sampler(objective, 0)
        sampler.draw(None, 0)
        found[strength] = sampler._rare.tolist()
    assert found == {1e-4: [17, 8000, 19_000], 1.0: []}


def test_null_value_without_an_intercept_is_that_of_margins_of_zero():
    for loss, level in (("logistic", 2), ("softmax", 3)):
        objective = Objective(**(fit_case(loss, fit_intercept=False, weights=True) | {"l2": 0.1}))
        assert objective.null_value == pytest.approx(objective.value(np.zeros(objective.w_shape)), rel=1e-14)
        assert objective.null_value == pytest.approx(math.log(level))


def test_loop_names_what_it_does_not_take():
    objective = Objective(**fit_case("logistic"))
    (L, scale, mean, scale_b), _ = metric_of(objective)
    z, other, core, rms = np.empty(120), np.empty(120), objective.problem.core, np.ones(6)
    good = {"problem": core, "v": np.zeros(7), "margins": z, "other": other, "L": L, "scale": scale,
            "mean": mean, "scale_b": scale_b, "rms": rms}
    for wrong, message in (
        ({"v": np.zeros(6)}, "v has shape"),
        ({"other": z}, "overlap"),
        ({"margins": z.astype(np.float32)}, "margins has dtype"),
        ({"L": np.zeros((6, 6))}, "zero on its diagonal"),
        ({"L": np.eye(5)}, "L has shape"),
        ({"scale": np.ones(5)}, "scale has shape"),
        ({"l2": -1.0}, "l2 is -1"),
        ({"linear": np.ones(3)}, "linear has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.Lbfgs(**(good | wrong))
    classes = Objective(**fit_case("softmax"))
    with pytest.raises(ValueError, match="3 margins a row"):
        _core.Lbfgs(**(good | {"problem": classes.problem.core}))
    with pytest.raises(ValueError, match="steps is 0"):
        _core.Lbfgs(**good).run(0)


def test_nan_in_x_is_named_by_its_place():
    case = fit_case("logistic")
    case["X"][17, 3] = np.nan
    objective = Objective(**case)
    with pytest.raises(ValueError, match="first in row 17, column 3"):
        loop_of(objective, np.zeros(7), metric_of(objective)[0])[0].run(2)
