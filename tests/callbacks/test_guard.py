"""The anomaly guard: what it lets pass, what it stops, and that it never does so in silence."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nagcore
from nagcore.callbacks import AnomalyError, AnomalyEvent, AnomalyGuard, AnomalyWarning

NORMS = st.floats(0, 1e12)


def primed(action="skip", **more):
    """A guard that knows norms from 0.9 to 1.1."""
    guard = AnomalyGuard(action, on_event=more.pop("on_event", lambda event: None), **more)
    for step, norm in enumerate(np.random.default_rng(0).uniform(0.9, 1.1, 50), start=1):
        assert guard.check(step, loss=0.5, grad_norm=norm).action == "ok"
    return guard


@pytest.mark.parametrize("given", [
    {"loss": math.nan}, {"loss": math.inf}, {"loss": -math.inf}, {"grad_norm": math.nan},
    {"grad_norm": math.inf}, {"found_inf": True}, {"loss": 0.5, "grad_norm": 1.0, "found_inf": True},
    {"loss": np.float32("nan")},
])  # fmt: skip
@pytest.mark.parametrize("action", ["skip", "clip", "raise", "rollback"])
def test_non_finite_numbers_are_never_let_through(action, given):
    seen = []
    guard = AnomalyGuard(action, on_event=seen.append)
    guard.remember("a good state")
    if action == "raise":
        with pytest.raises(AnomalyError, match="step 4: the "):
            guard.check(4, **given)
    else:
        verdict = guard.check(4, **given)
        assert verdict.action == ("skip" if action == "clip" else action)
        assert verdict.max_norm is None
        assert verdict.reason
    assert len(guard.events) == len(seen) == sum(guard.counts.values()) == 1
    assert guard.events[0].step == 4
    assert guard.events[0].kind == ("loss" if not math.isfinite(given.get("loss", 0)) else "gradient")
    assert guard.last_good == "a good state"


@pytest.mark.parametrize(("action", "verdict"), [("skip", "skip"), ("clip", "clip"), ("rollback", "skip")])
def test_a_spike_is_met_with_the_action(action, verdict):
    guard = primed(action)
    limit = guard.limit
    found = guard.check(51, loss=0.5, grad_norm=40.0)
    assert found.action == verdict  # with nothing remembered there is nothing to go back to
    assert found.max_norm == (limit if action == "clip" else None)
    assert guard.events == [AnomalyEvent(51, "spike", 40.0, limit, verdict)]
    assert guard.counts == {"loss": 0, "gradient": 0, "spike": 1, "level": 0}
    guard.remember([1.0])
    if action == "rollback":
        assert guard.check(52, grad_norm=40.0).action == "rollback"
    with pytest.raises(AnomalyError, match="gradient norm is 40"):
        primed("raise").check(51, grad_norm=40.0)


@given(st.lists(NORMS, min_size=20, max_size=130), NORMS)
def test_the_limit_is_the_rolling_median_and_deviation(norms, last):
    """Against NumPy, on the norms that the guard itself has accepted."""
    guard, accepted = AnomalyGuard(window=30, warmup=10, threshold=4.0, on_event=lambda event: None), []
    for step, norm in enumerate([*norms, last], start=1):
        window = np.array(accepted[-30:])
        if len(window) < 10 or (m := np.median(window)) == 0:
            limit = math.inf
        else:
            limit = m + 4.0 * max(1.4826 * np.median(np.abs(window - m)), 0.1 * m)
        assert guard.limit == pytest.approx(limit, rel=1e-12)
        ok = norm <= guard.limit
        assert (guard.check(step, grad_norm=norm).action == "ok") == ok
        if ok:
            accepted.append(norm)
        if guard.counts["level"]:
            break


def test_clip_to_and_what_a_clipped_step_leaves():
    guard = primed("clip", clip_to=1.5)
    assert guard.check(51, grad_norm=40.0).max_norm == 1.5
    assert max(guard.state_dict()["norms"]) == 1.5
    high = primed("clip", clip_to=1e6)
    limit = high.limit
    assert high.check(51, grad_norm=40.0).max_norm == limit


def test_skipped_steps_do_not_teach_the_guard():
    guard = primed("skip")
    before = guard.limit
    for step in range(30):
        assert guard.check(step, grad_norm=1e6).action == "skip"
        assert guard.check(step, grad_norm=math.nan).action == "skip"
    assert guard.limit == before


def test_a_level_that_stays_is_taken_as_new():
    """A guard that only ever skipped would stop the training for good."""
    seen = []
    guard = primed("skip", patience=5, on_event=seen.append)
    actions = [guard.check(step, grad_norm=100.0).action for step in range(10)]
    assert actions == ["skip"] * 5 + ["ok"] * 5
    assert [event.kind for event in seen] == ["spike"] * 5 + ["level"]
    assert guard.counts["level"] == 1


@pytest.mark.parametrize("kind", ["loss", "grad_norm"])
def test_parameters_that_are_lost_end_the_run(kind):
    guard = primed("skip", patience=5)
    for step in range(5):
        assert guard.check(step, **{kind: math.nan}).action == "skip"
        # Good news of another kind do not hide it.
        other = {"loss": {"grad_norm": 1.0}, "grad_norm": {"loss": 0.5}}[kind]
        assert guard.check(step, **other).action == "ok"
    with pytest.raises(AnomalyError, match="most likely lost"):
        guard.check(6, **{kind: math.nan})
    assert guard.events[-1].action == "raise"


@pytest.mark.parametrize("known", [{}, {"grad_norm": 1.0}, {"grad_norm": 1.0, "loss": 0.5}])
def test_one_good_step_resets_the_patience(known):
    guard = primed("skip", patience=2)
    for step in range(20):
        assert guard.check(step, **known, found_inf=step % 3 != 0).action == ("skip" if step % 3 else "ok")
    for step in range(20):
        loss = math.nan if step % 3 else 0.5
        assert guard.check(step, loss=loss).action == ("skip" if step % 3 else "ok")


def test_it_warns_where_nobody_listens():
    guard = AnomalyGuard("skip")
    with pytest.warns(AnomalyWarning, match="step 3: the loss is nan; skipped"):
        guard.check(3, loss=math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(100):
            guard.check(step, loss=1.0, grad_norm=1.0 + step % 2)


def test_vanishing_gradients_set_no_limit():
    guard = AnomalyGuard()
    for step in range(50):
        guard.check(step, grad_norm=0.0)
    assert guard.limit == math.inf
    assert guard.check(50, grad_norm=1e-3).action == "ok"


def test_state_goes_through_json_and_continues():
    rng, guard = np.random.default_rng(1), primed("clip", window=40)
    guard.check(51, loss=math.nan)
    norms = rng.uniform(0.5, 4.0, 200)
    state = json.loads(json.dumps(guard.state_dict()))
    again = AnomalyGuard("clip", window=40, on_event=lambda event: None)
    again.load_state_dict(state)
    assert str(again.events) == str(guard.events)  # as text, for NaN is not NaN
    for step, norm in enumerate(norms, start=52):
        assert again.check(step, grad_norm=norm) == guard.check(step, grad_norm=norm)
    assert again.counts == guard.counts
    assert again.counts["spike"] > 0


@pytest.mark.parametrize("change", [
    {"norms": [1.0, -1.0]}, {"norms": 3}, {"norms": [math.nan]}, {"counts": {}}, {"events": [[1]]},
    {"in_a_row": 0},
])  # fmt: skip
def test_a_damaged_state_is_refused_and_changes_nothing(change):
    guard = primed("clip")
    before = guard.state_dict()
    with pytest.raises(ValueError, match="no state of an AnomalyGuard"):
        guard.load_state_dict({**before, **change})
    assert guard.state_dict() == before


@pytest.mark.parametrize("bad", [
    lambda: AnomalyGuard("ignore"), lambda: AnomalyGuard(window=1),
    lambda: AnomalyGuard(window=10, warmup=11), lambda: AnomalyGuard(warmup=0),
    lambda: AnomalyGuard(threshold=0), lambda: AnomalyGuard(threshold=math.nan),
    lambda: AnomalyGuard("clip", clip_to=-1.0), lambda: AnomalyGuard("skip", clip_to=1.0),
    lambda: AnomalyGuard(patience=0), lambda: AnomalyGuard(window=2.5),
    lambda: AnomalyGuard().check(1, grad_norm=-1.0),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(bad):
    with pytest.raises(ValueError, match="Use "):
        bad()
    with pytest.raises(TypeError, match="Use "):
        AnomalyGuard(on_event=3)


def test_a_hand_written_loop_survives_a_bad_batch():
    """The skipped batch leaves no trace: the parameters are those of a run without it."""
    rng = np.random.default_rng(0)
    X, w_true = rng.normal(size=(40, 32, 5)), rng.normal(size=5)
    y = X @ w_true
    X_bad = X.copy()
    X_bad[30] *= 1e8

    def train(X, batches, guard=None):
        w, b = np.zeros(5), np.zeros(5)
        for step, i in enumerate(batches, start=1):
            g = X[i].T @ (X[i] @ w - y[i]) / 32
            if guard is not None and guard.check(step, grad_norm=float(np.linalg.norm(g))).action == "skip":
                continue
            nagcore.nesterov_step_([w], [g], [b], lr=0.05, momentum=0.8)
        return w

    guard = AnomalyGuard("skip", on_event=lambda event: None)
    survived = train(X_bad, range(40), guard)
    assert [event.step for event in guard.events] == [31]
    np.testing.assert_array_equal(survived, train(X, [i for i in range(40) if i != 30]))


def test_minimize_stops_at_a_value_that_is_not_finite():
    objective = nagcore.Objective(np.eye(6), np.arange(6.0), loss="squared", l2=1e-3)
    guard = AnomalyGuard(on_event=lambda event: None)
    found = nagcore.minimize(objective, callbacks=[guard])
    assert found.converged
    assert not guard.events

    class Spoilt:
        """The state of a solver whose F has overflowed."""

        n_iter, value, grad_norm = 3, math.inf, None

    class Lost(Spoilt):
        """And one whose gradient has, at a value that has not."""

        value, grad_norm = 1.0, math.nan

    assert guard(Spoilt()) is True
    assert guard(Lost()) is True
    assert guard.counts["loss"] == guard.counts["gradient"] == 1
