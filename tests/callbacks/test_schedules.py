"""Schedules of momentum against their formulas, and restarts where the gradient says so."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nagcore import schedules
from nagcore.schedules import AdaptiveRestart, Constant, Nesterov, StronglyConvex, Sutskever, Warmup

STEPS = st.integers(1, 10**7)
ALL = [Constant(0.9), Warmup(0.95, 30), Warmup(0.5, 7, start=0.9), Nesterov(), Sutskever(0.995),
       StronglyConvex(1e4), AdaptiveRestart(Warmup(0.9, 5)), AdaptiveRestart(smoothing=0.8)]


@given(STEPS)
def test_formulas(t):
    assert Constant(0.3)(t) == 0.3
    assert Nesterov()(t) == (t - 1) / (t + 2)
    assert Warmup(0.9, 50)(t) == pytest.approx(0.9 * min(t - 1, 50) / 50, rel=1e-15)
    assert Warmup(0.9, 50, start=0.4)(t) == pytest.approx(0.4 + 0.5 * min(t - 1, 50) / 50, rel=1e-15)
    sutskever = min(1 - 2 ** (-1 - math.log2(math.floor(t / 250) + 1)), 0.99)
    assert Sutskever(0.99)(t) == pytest.approx(sutskever, rel=1e-14)


@given(st.floats(1, 1e300), STEPS)
def test_strongly_convex_formula(condition, t):
    root = math.sqrt(condition)
    assert StronglyConvex(condition)(t) == pytest.approx((root - 1) / (root + 1), rel=1e-15, abs=0)


@given(st.sampled_from(ALL), STEPS)
def test_a_momentum_is_in_the_unit_interval_and_a_python_float(schedule, t):
    mu = schedule(np.int64(t))
    assert type(mu) is float
    assert 0 <= mu < 1


def test_strongly_convex_agrees_with_the_other_form():
    q = 1 / 37.0
    assert StronglyConvex(37.0)(5) == pytest.approx((1 - math.sqrt(q)) / (1 + math.sqrt(q)), rel=1e-15)


def test_warmup_is_linear_lr():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.9)
    line = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 3, total_iters=10)
    mu = Warmup(0.9, 10, start=0.3)
    for t in range(1, 20):
        assert mu(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        line.step()


@pytest.mark.parametrize("inner", [Nesterov(), Constant(0.9), Warmup(0.9, 4)], ids=repr)
def test_adaptive_restart_starts_again(inner):
    mu = AdaptiveRestart(inner)
    assert mu.adaptive
    for t in range(1, 10):
        mu.observe(-1.0)
        assert mu(t) == inner(t)
    mu.observe(0.5)
    assert mu(10) == 0.0  # the velocity is dropped
    assert mu(10) == 0.0  # and asking twice changes nothing
    assert mu.restarts == 1
    for t in range(11, 20):
        mu.observe(0.0)  # not uphill
        assert mu(t) == inner(t - 9)
    mu.observe(math.nan)
    assert mu(20) == inner(11)


def test_only_adaptive_schedules_listen():
    for schedule in ALL:
        before = schedule(20)
        schedule.observe(1e9)
        assert schedule(20) == (0.0 if schedule.adaptive else before)


def test_smoothing_waits_for_more_than_one_step_uphill():
    quick, slow = AdaptiveRestart(), AdaptiveRestart(smoothing=0.9)
    for schedule in (quick, slow):
        for t in range(1, 11):
            schedule.observe(-1.0)
            schedule(t)
        schedule.observe(1.0)
        schedule(11)
    assert (quick.restarts, slow.restarts) == (1, 0)
    for t in range(12, 40):
        slow.observe(1.0)
        slow(t)
    assert slow.restarts >= 1


def test_adaptive_restart_is_faster_on_a_quadratic():
    """Ill-conditioned, so that momentum that only grows swings; restarts take the swing out."""
    curvature = np.array([1.0, 1e-3])

    def steps(schedule):
        x, before = np.ones(2), np.ones(2)
        for t in range(1, 30000):
            y = x + schedule(t) * (x - before)
            g = curvature * y
            before, x = x, y - g
            schedule.observe(float(g @ (x - before)))
            if 0.5 * curvature @ x**2 < 1e-20:
                return t
        return 30000

    adaptive = AdaptiveRestart(Nesterov())
    assert steps(adaptive) < 0.5 * steps(Nesterov())
    assert adaptive.restarts > 0


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_state_goes_through_json_and_continues(schedule):
    rng = np.random.default_rng(0)
    alignments = rng.normal(size=200)

    def run(schedule, begin, stop):
        out = []
        for t in range(begin, stop):
            schedule.observe(alignments[t])
            out.append(schedule(t))
        return out

    def fresh():
        if isinstance(schedule, AdaptiveRestart):
            inner = Warmup(0.1, 2) if isinstance(schedule.inner, Warmup) else Nesterov()
            return AdaptiveRestart(inner)
        return {Constant: Constant, Warmup: Warmup, Nesterov: Nesterov, Sutskever: Sutskever}.get(
            type(schedule), lambda: StronglyConvex(2.0))()

    run(schedule, 1, 100)
    schedule.observe(1.0)  # a restart that is still to come is part of the state
    state = json.loads(json.dumps(schedule.state_dict()))
    whole = run(schedule, 100, 200)
    again = fresh()
    again.load_state_dict(state)
    assert run(again, 100, 200) == whole
    assert repr(again) == repr(schedule)


@pytest.mark.parametrize("state", [
    None, {}, {"schedule": "Nesterov"}, {"schedule": "Constant"}, {"schedule": "Constant", "mu": 2.0},
    {"schedule": "Constant", "mu": "0.5"}, {"schedule": "Constant", "mu": 0.5, "steps": 3},
])  # fmt: skip
def test_a_state_of_something_else_is_refused_and_changes_nothing(state):
    schedule = Constant(0.25)
    with pytest.raises(ValueError, match=r"Use |Load "):
        schedule.load_state_dict(state)
    assert schedule(3) == 0.25


@pytest.mark.parametrize("change", [
    {"inner": {"schedule": "Constant", "mu": 0.5}}, {"restarts": -1}, {"_begun": 1.5}, {"smoothing": 1.0},
])  # fmt: skip
def test_a_damaged_state_of_adaptive_restart_is_refused_whole(change):
    schedule = AdaptiveRestart(Nesterov(), smoothing=0.5)
    schedule.observe(1.0)
    schedule(5)
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=r"Use |Load "):
        schedule.load_state_dict({**before, **change})
    assert schedule.state_dict() == before


@pytest.mark.parametrize("bad", [
    lambda: Constant(1.0), lambda: Constant(-0.1), lambda: Constant("0.9"), lambda: Constant(math.nan),
    lambda: Constant(True), lambda: Warmup(0.9, 0), lambda: Warmup(0.9, 2.5),
    lambda: Warmup(0.9, 5, start=1.0),
    lambda: Sutskever(1.5), lambda: StronglyConvex(0.5), lambda: StronglyConvex(math.inf),
    lambda: StronglyConvex(None), lambda: AdaptiveRestart(smoothing=1.0), lambda: Nesterov()(0),
    lambda: Nesterov()(-3),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(bad):
    with pytest.raises(ValueError, match="Use "):
        bad()


@pytest.mark.parametrize("bad", [
    lambda: Nesterov()(1.0), lambda: Nesterov()(True), lambda: AdaptiveRestart(0.9),
    lambda: schedules.Schedule()(1),
])  # fmt: skip
def test_bad_types_are_one_clear_error(bad):
    with pytest.raises(TypeError, match="Use "):
        bad()
