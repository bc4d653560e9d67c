"""What minimize tells its callbacks beside value and gap: the gradient's norm, and that the run has ended."""

from __future__ import annotations

import numpy as np
import pytest

import nagcore
from nagcore.callbacks import AnomalyError, AnomalyGuard, Checkpoint, EarlyStopping
from nagcore.solvers.gradients import gradient_norm


def problem(loss="logistic", fit_intercept=False, **how):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 8)) * np.logspace(0, 1.5, 8)
    y = X @ rng.normal(size=8) / 10 + rng.normal(size=300)
    if loss == "softmax":
        y = np.digitize(y, [-1, 1])
    elif loss == "logistic":
        y = (y > 0).astype(float)
    return nagcore.Objective(X, y, loss=loss, fit_intercept=fit_intercept, **how)


class Ended:
    """Counts the calls of finish and keeps the last states."""

    def __init__(self, at=10**9, error=None):
        self.at, self.error, self.seen, self.ends = at, error, [], []

    def __call__(self, state):
        self.seen.append(state)
        if state.n_iter == self.at:
            if self.error is not None:
                raise self.error
            return True
        return None

    def finish(self, state):
        self.ends.append((state, state.w))


# ----- the gradient's norm ------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton", "plbfgs", "fista"])
@pytest.mark.parametrize("how", [{}, {"fit_intercept": True}, {"loss": "softmax"}], ids=str)
def test_the_norm_is_that_of_the_objective_and_costs_no_pass(solver, how):
    objective, seen = problem(l2=1e-2, **how), []
    if solver == "newton" and "loss" in how:
        solver = "acfgm"

    def look(state):
        seen.append((state.grad_norm, state.w, state.n_passes))

    with_look = nagcore.minimize(objective, solver=solver, tol=1e-12, callbacks=[look])
    without = nagcore.minimize(objective, solver=solver, tol=1e-12)
    assert with_look.n_passes == without.n_passes
    assert with_look.w.tobytes() == without.w.tobytes()
    start = float(np.linalg.norm(objective.value_and_grad(np.zeros(objective.w_shape))[1]))
    assert all(norm >= 0 for norm, _, _ in seen)
    assert seen[-1][0] < 1e-4 * start
    if solver == "newton":  # whose pass is at w itself
        for norm, w, _ in seen:
            at_w = float(np.linalg.norm(objective.value_and_grad(w)[1]))
            assert norm == pytest.approx(at_w, rel=1e-4, abs=1e-6 * start)


PENALTIES = [{"l1": 0.05}, {"l1": 0.05, "l2": 0.1}, {"l2": 0.1, "positive": True}]


@pytest.mark.parametrize("how", PENALTIES, ids=str)
def test_with_l1_or_signs_it_is_the_least_subgradient(how):
    objective = problem("squared", **how)
    plain = problem("squared")
    rng = np.random.default_rng(5)
    l1, l2 = how.get("l1", 0.0), how.get("l2", 0.0)
    for _ in range(20):
        w = np.round(np.abs(rng.normal(size=8)) if objective.positive else rng.normal(size=8))
        u = plain.value_and_grad(w)[1]
        # Over a fine grid of the subdifferential: l1·s with s in [−1, 1] at 0, no s ≤ 0 lost to w ≥ 0.
        least = 0.0
        for g, at in zip(u + l2 * w, w, strict=True):
            choices = [g + l1 * np.sign(at)] if at else g + l1 * np.linspace(-1, 1, 200_001)
            if objective.positive and not at:
                choices = np.minimum(np.add(choices, 0.0), 0.0)
            least += np.min(np.abs(choices)) ** 2
        assert gradient_norm(objective, w, u) == pytest.approx(least**0.5, abs=1e-5)
    ended = Ended()
    result = nagcore.minimize(objective, tol=1e-12, callbacks=[ended])
    assert result.converged
    start = gradient_norm(objective, np.zeros(8), plain.value_and_grad(np.zeros(8))[1])
    assert ended.seen[-1].grad_norm < 1e-3 * start


def test_where_a_method_has_no_gradient_in_w_there_is_no_norm():
    rng = np.random.default_rng(0)
    sparse = pytest.importorskip("scipy.sparse").random(40, 400, 0.05, "csr", random_state=0)
    labels, ended = rng.integers(0, 2, 40), Ended()
    objective = nagcore.Objective(sparse, labels, loss="logistic", l2=1e-2)
    nagcore.minimize(objective, solver="newton_cg", callbacks=[ended])
    assert {state.grad_norm for state in ended.seen} == {None}
    assert len(ended.ends) == 1


# ----- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["converged", "stopped", "interrupted", "max_passes", "max_seconds"])
def test_finish_is_called_once_however_the_run_ends(way):
    objective = problem(l2=1e-4)
    limits = {"max_passes": {"max_passes": 9}, "max_seconds": {"max_seconds": 1e-9}}.get(way, {})
    first = Ended(3, KeyboardInterrupt() if way == "interrupted" else None)
    first = first if way in ("stopped", "interrupted") else Ended()
    second = Ended()
    watch = [first, second, lambda state: None]  # the last one has no finish
    result = nagcore.minimize(objective, solver="fista", callbacks=watch, **limits)
    assert way in result.message
    for callback in (first, second):
        assert len(callback.ends) == 1
        state, w = callback.ends[0]
        assert w.tobytes() == result.w.tobytes()
        assert (state.value, state.gap, state.n_iter) == (result.value, result.gap, result.n_iter)


def test_finish_is_called_after_an_error_and_not_without_a_step():
    objective, ended = problem(l2=1e-4), Ended(2, ZeroDivisionError("mine"))
    with pytest.raises(ZeroDivisionError, match="mine"):
        nagcore.minimize(objective, solver="fista", callbacks=[ended])
    assert [state.n_iter for state, _ in ended.ends] == [2]
    ended = Ended()
    with pytest.raises(ValueError, match="infinite at the starting point"):
        with np.errstate(all="ignore"):
            nagcore.minimize(problem("squared"), np.full(8, 1e300), solver="fista", callbacks=[ended])
    assert not ended.seen
    assert not ended.ends


def test_what_ctrl_c_ends_is_in_the_checkpoint(tmp_path):
    objective, checkpoint = problem(l2=1e-4), Checkpoint(tmp_path, every=1000)
    watch = [checkpoint, Ended(5, KeyboardInterrupt())]
    result = nagcore.minimize(objective, solver="fista", callbacks=watch)
    assert result.message == "interrupted"
    saved = checkpoint.load_latest()
    assert saved.step == 5
    assert saved.state["w"].tobytes() == result.w.tobytes()
    assert saved.metric == result.value


def test_the_last_step_is_not_saved_twice(tmp_path):
    checkpoint = Checkpoint(tmp_path, every=3, keep=9)
    nagcore.minimize(problem(l2=1e-4), solver="fista", callbacks=[checkpoint, Ended(6)])
    assert [checkpoint.read(path).step for path in checkpoint.paths] == [3, 6]


def test_the_other_callbacks_bear_the_end():
    objective = problem(l2=1e-4)
    nagcore.minimize(objective, callbacks=[AnomalyGuard("raise"), EarlyStopping(3)])
    with pytest.raises(AnomalyError):
        AnomalyGuard("raise").check(1, grad_norm=float("nan"))
