"""The compiled proximal Newton loop: minima that NumPy finds slowly, what its records say, where it stops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nagcore import Objective, _core
from solvers.problems import fit_case, value

LOSSES = ("logistic", "huber", "poisson", "squared_hinge")


def loop_of(objective, w=None, **how):
    """A loop and its margins, from w or the null model."""
    w = objective.null_model()[1] if w is None else w
    margins = tuple(np.empty(objective.shape[0], objective.problem.compute) for _ in range(2))
    return _core.ProxNewton(objective.problem.core, w, *margins, objective.l1, objective.l2, **how), margins


def proximal_gradient(objective, steps=4000):
    """Nesterov's method with a backtracked step and restarts, from the core's plain passes alone."""
    d, l1 = objective.shape[1], objective.l1
    x = y = objective.null_model()[1]
    L, t = 1e-3, 1.0

    def prox(v, step):
        v = v.copy()
        v[:d] = np.sign(v[:d]) * np.maximum(np.abs(v[:d]) - l1 * step, 0.0)
        return v

    for _ in range(steps):
        f, g = objective.value_and_grad(y)
        while True:
            new = prox(y - g / L, 1 / L)
            change = new - y
            most = f + g @ change + 0.5 * L * change @ change + 1e-14 * abs(f)
            if objective.value_and_grad(new)[0] <= most:
                break
            L *= 2
        t_new = 1.0 if (y - new) @ (new - x) > 0 else 0.5 * (1 + math.sqrt(1 + 4 * t * t))
        y = new + (t - 1) / t_new * (new - x) if t_new > 1 else new
        x, t = new, t_new
    return x


def run_to_the_end(loop, objective, most=60):
    records, points, gradients, data_gradients = [], [], [], []
    for _ in range(most):
        found = loop.run(30, 1e-10, objective.null_value, 1e-15)
        records += found[0]
        points += list(found[1])
        gradients += list(found[2])
        data_gradients += list(found[3])
        if not found[0][-1][9] or found[0][-1][4] <= 1e-11 * (objective.null_value - found[0][-1][2]):
            break
    return records, points, gradients, data_gradients


@pytest.mark.parametrize("penalty", ["l1", "elasticnet"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_loop_ends_at_the_minimum(loss, weights, fit_intercept, penalty):
    case = fit_case(loss, "plain", penalty, fit_intercept=fit_intercept, weights=weights)
    objective = Objective(**case)
    loop, _ = loop_of(objective)
    records, points, gradients, data_gradients = run_to_the_end(loop, objective)
    best = points[-1]
    slow = proximal_gradient(Objective(**case))
    assert value(case, best) <= value(case, slow) + 1e-10 * abs(value(case, slow))
    np.testing.assert_allclose(best, slow, rtol=1e-4, atol=1e-5)
    fresh = Objective(**case)
    for r, w, g, u in zip(records, points, gradients, data_gradients, strict=True):
        data_value, smooth, whole, bound, free, _, passes, hessian, moved, _ = r
        assert (passes, hessian) == (1, True)
        f, grad = fresh.value_and_grad(w)
        assert smooth == pytest.approx(f, rel=1e-12)
        assert whole == pytest.approx(value(case, w), rel=1e-12)
        np.testing.assert_allclose(g, grad, atol=1e-12)
        assert data_value == pytest.approx(smooth - 0.5 * objective.l2 * (w[:6] ** 2).sum(), rel=1e-12)
        np.testing.assert_allclose(u[:6], g[:6] - objective.l2 * w[:6], atol=1e-13)
        if moved and not fit_intercept:  # a proof
            assert whole - bound <= value(case, best) + 1e-12 * abs(whole)
        assert not moved or free <= bound
    assert records[-1][4] <= 1e-9 * (objective.null_value - records[-1][2])


@pytest.mark.parametrize("seed", range(6))
def test_models_whose_exchange_cycles_are_solved_by_coordinates(seed):
    """Columns that are nearly alike: active sets exchanged in blocks go round in circles there."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(50, 1)) + 0.1 * rng.normal(size=(50, 30))
    case = {"X": X, "y": (rng.random(50) > 0.5).astype(float), "loss": "logistic", "l1": 2e-3, "l2": 1e-3,
            "fit_intercept": True}
    objective = Objective(**case)
    w = objective.null_model()[1]
    _, g, H = objective.problem.core.hessian(w)
    C = H[:30, :30] - np.outer(H[30, :30], H[30, :30]) / H[30, 30] + 1e-3 * np.eye(30)
    head = g[:30] - H[30, :30] / H[30, 30] * g[30]
    cycled = _core.settle_on_gram(C, head, w[:30], 2e-3, 1e-9, 8, False) is None
    records, points, _, _ = run_to_the_end(loop_of(objective)[0], objective)
    assert records[-1][4] <= 1e-9 * (objective.null_value - records[-1][2])
    g = objective.value_and_grad(points[-1])[1]
    q, at = g[:30], points[-1][:30]
    wrong = np.where(at == 0, np.maximum(np.abs(q) - 2e-3, 0), np.abs(q + 2e-3 * np.sign(at)))
    assert max(wrong.max(), abs(g[30])) <= 1e-6
    if seed == 0:
        assert cycled  # else these data show nothing


def test_a_hessian_that_is_kept_serves_several_steps():
    case = fit_case("logistic", "plain", "l1")
    objective = Objective(**case)
    plain = run_to_the_end(loop_of(objective)[0], objective)
    loop, margins = loop_of(objective, reuse=True)
    assert loop.hessian is None
    kept = run_to_the_end(loop, objective)
    assert sum(r[7] for r in kept[0]) < len(kept[0])
    assert kept[0][-1][2] == pytest.approx(plain[0][-1][2], rel=1e-10)
    here = objective.problem.core.hessian(kept[1][-1])[2]
    np.testing.assert_allclose(loop.hessian, here, rtol=0.1, atol=1e-2)
    # The last pass, and its Hessian, are where the next strength begins.
    z = margins[loop.current].copy()
    next_, (first, _) = loop_of(objective, kept[1][-1], reuse=True, hessian=loop.hessian,
                                known=(kept[0][-1][0], kept[3][-1]))
    first[...] = z
    (begun,), points, gradients, _ = next_.run(1)
    assert (begun[6], begun[7]) == (0, False)
    np.testing.assert_array_equal(points[0], kept[1][-1])
    np.testing.assert_array_equal(gradients[0], kept[2][-1])
    assert begun[2] == kept[0][-1][2]


def test_loop_gives_the_same_bits_for_every_number_of_threads():
    case = fit_case("logistic", "plain", "l1")
    case = case | {"X": np.tile(case["X"], (90, 1)), "y": np.tile(case["y"], 90)}
    found = []
    for n_threads in (1, 2):
        objective = Objective(**case, n_threads=n_threads)
        found.append(loop_of(objective)[0].run(6, 0.0, objective.null_value))
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert [r[2:5] for r in found[0][0]] == [r[2:5] for r in found[1][0]]


def test_loop_stays_where_values_say_nothing():
    objective = Objective(**fit_case("logistic", "plain", "l1"))
    records, points, _, _ = run_to_the_end(loop_of(objective)[0], objective)
    loop, _ = loop_of(objective, points[-1])
    seen = [loop.run(1, 0.0)[0][0] for _ in range(6)]
    assert all(r[8] for r in seen)
    assert not seen[-1][9]
    assert seen[-1][2] <= records[-1][2] + 1e-15


def test_loop_names_what_it_does_not_take():
    objective = Objective(**fit_case("logistic", "plain", "l1"))
    core, w = objective.problem.core, objective.null_model()[1]
    z, other = np.empty(120), np.empty(120)
    classes = Objective(**fit_case("softmax"))
    for wrong, message in (
        ((core, w, z, other, 0.0), "l1 is 0.0"),
        ((core, w, z, z, 0.1), "overlap in memory"),
        ((core, w[1:], z, other, 0.1), "w has shape"),
        ((core, w, z, other, 0.1, 0.0, None, True, None, (0.5, w)), "known is given without a hessian"),
        ((classes.problem.core, classes.null_model()[1], np.empty((120, 3)), np.empty((120, 3)), 0.1),
         "3 margins a row"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.ProxNewton(*wrong)
    with pytest.raises(ValueError, match="steps is 0"):
        loop_of(objective)[0].run(0)
    far = np.full_like(w, 1e4)
    with pytest.raises(ValueError, match="infinite at the starting point"):
        loop_of(Objective(**fit_case("poisson", "plain", "l1")), far)[0].run()
