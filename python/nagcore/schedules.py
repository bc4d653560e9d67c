"""Schedules of acceleration: the momentum μ of step t = 1, 2, …, for every optimizer of nagcore.

A schedule is called with the number of the step and returns the momentum to use in it. `AdaptiveRestart`
looks at the gradient as well: give it ⟨g_t, θ_t − θ_{t−1}⟩ before asking for step t.

>>> from nagcore import schedules
>>> mu = schedules.Nesterov()
>>> [mu(t) for t in (1, 2, 4)]
[0.0, 0.25, 0.5]
"""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Mapping
from typing import Any

__all__ = [
    "AdaptiveRestart",
    "Constant",
    "Nesterov",
    "Schedule",
    "StronglyConvex",
    "Sutskever",
    "Warmup",
]


def _step(t: Any) -> int:
    if type(t) is not int:
        if isinstance(t, bool) or not isinstance(t, numbers.Integral):
            raise TypeError(f"The step is {t!r}; a schedule takes a whole number, 1 for the first step. "
                            "Use schedule(1).")
        t = int(t)
    if t < 1:
        raise ValueError(f"The step is {t}; steps are counted from 1. Use schedule(1) for the first step.")
    return t


def _real(value: Any) -> float:
    """The number as a float; NaN, which no comparison accepts, for what is no number."""
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan


def _momentum(value: Any, name: str, call: str) -> float:
    if not 0 <= _real(value) < 1:
        raise ValueError(f"{name} is {value!r}; a momentum is a number in [0, 1). Use {call}.")
    return float(value)


class Schedule:
    """What all schedules have in common: call one with the step, t = 1, 2, …, to get its momentum in [0, 1).

    Attributes
    ----------
    adaptive : bool
        Whether `observe` has an effect.

    Examples
    --------
    >>> from nagcore import schedules
    >>> class EveryOther(schedules.Schedule):
    ...     def momentum(self, t):
    ...         return 0.9 * (t % 2)
    >>> [EveryOther()(t) for t in (1, 2, 3)]
    [0.9, 0.0, 0.9]
    """

    adaptive = False
    _fields: tuple[str, ...] = ()  # what makes two schedules of a class differ, and what it remembers

    def __call__(self, t: int) -> float:
        return self.momentum(_step(t))

    def momentum(self, t: int) -> float:
        """The momentum of step t, a whole number ≥ 1; what a class of your own defines."""
        raise TypeError(f"{type(self).__name__} defines no momentum(t); nagcore's schedules are "
                        f"{', '.join(name for name in __all__ if name != 'Schedule')}. "
                        "Use nagcore.schedules.Constant(0.9).")

    def observe(self, alignment: float) -> None:
        """Take in ⟨g_t, θ_t − θ_{t−1}⟩ before the momentum of step t is asked for; only if `adaptive`."""

    def state_dict(self) -> dict[str, Any]:
        """All that decides the momenta to come, as JSON values."""
        return {"schedule": type(self).__name__, **{name: getattr(self, name) for name in self._fields}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises ValueError for the state of another schedule, and leaves this one as it was.
        """
        name, wanted = type(self).__name__, {"schedule", *self._fields}
        if not isinstance(state, Mapping) or state.get("schedule") != name:
            given = state.get("schedule") if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"The state is one of {given!r}; this schedule is {name}. "
                             f"Load it into nagcore.schedules.{given}(…), or make the state anew.")
        if set(state) != wanted:
            raise ValueError(f"The state of {name} has the entries {sorted(state)}; nagcore takes "
                             f"{sorted(wanted)}. Use what {name}.state_dict() returned.")
        self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        fresh = type(self)(**{field: state[field] for field in self._fields})  # with the usual checks
        self.__dict__.update(fresh.__dict__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f}={getattr(self, f)!r}' for f in self._fields)})"


class Constant(Schedule):
    """The same momentum at every step.

    Parameters
    ----------
    mu : float
        In [0, 1).

    Raises
    ------
    ValueError
        mu is not in [0, 1).

    Examples
    --------
    >>> from nagcore import schedules
    >>> schedules.Constant(0.9)(17)
    0.9
    """

    _fields = ("mu",)

    def __init__(self, mu: float = 0.9) -> None:
        self.mu = _momentum(mu, "mu", "Constant(0.9)")

    def momentum(self, t: int) -> float:
        """mu."""
        return self.mu


class Warmup(Schedule):
    """Momentum that grows in a straight line to mu over some steps, as torch's LinearLR does to a rate.

    μ_t = start + (mu − start)·min(t − 1, steps)/steps

    Parameters
    ----------
    mu : float
        What it grows to, in [0, 1).
    steps : int
        Steps until then, ≥ 1: step steps + 1 is the first with mu.
    start : float
        Momentum of the first step, in [0, 1).

    Raises
    ------
    ValueError
        A momentum outside [0, 1), or steps < 1.

    Examples
    --------
    >>> from nagcore import schedules
    >>> mu = schedules.Warmup(0.8, steps=4)
    >>> [round(mu(t), 3) for t in (1, 2, 5, 6)]
    [0.0, 0.2, 0.8, 0.8]
    """

    _fields = ("mu", "steps", "start")

    def __init__(self, mu: float = 0.9, steps: int = 1000, *, start: float = 0.0) -> None:
        self.mu = _momentum(mu, "mu", "Warmup(0.9, 1000)")
        self.start = _momentum(start, "start", "Warmup(0.9, 1000, start=0.5)")
        if not (_real(steps) >= 1 and isinstance(steps, numbers.Integral)):
            raise ValueError(f"steps is {steps!r}; Warmup takes a whole number ≥ 1. Use Warmup(0.9, 1000).")
        self.steps: int = int(steps)

    def momentum(self, t: int) -> float:
        """start + (mu − start)·min(t − 1, steps)/steps, and exactly mu from there on."""
        if t > self.steps:
            return self.mu
        return self.start + (self.mu - self.start) * (t - 1) / self.steps


class Nesterov(Schedule):
    """Nesterov's momentum for convex functions, μ_t = (t − 1)/(t + 2).

    Source: Nesterov 1983, in the form of Su, Boyd and Candès 2016.

    Examples
    --------
    >>> from nagcore import schedules
    >>> schedules.Nesterov()(4)
    0.5
    """

    def momentum(self, t: int) -> float:
        """(t − 1)/(t + 2)."""
        return (t - 1) / (t + 2)


class Sutskever(Schedule):
    """Momentum in steps of 250 towards a bound: μ_t = min(1 − 2^(−1 − log₂(⌊t/250⌋ + 1)), mu_max).

    Source: Sutskever, Martens, Dahl and Hinton 2013, equation 5.

    Parameters
    ----------
    mu_max : float
        The bound, in [0, 1); the paper uses 0, 0.9, 0.99, 0.995 and 0.999.

    Raises
    ------
    ValueError
        mu_max is not in [0, 1).

    Examples
    --------
    >>> from nagcore import schedules
    >>> [schedules.Sutskever(0.99)(t) for t in (1, 250, 750, 10**6)]
    [0.5, 0.75, 0.875, 0.99]
    """

    _fields = ("mu_max",)

    def __init__(self, mu_max: float = 0.99) -> None:
        self.mu_max = _momentum(mu_max, "mu_max", "Sutskever(0.99)")

    def momentum(self, t: int) -> float:
        """min(1 − ½/(⌊t/250⌋ + 1), mu_max): the same number without the logarithm."""
        return min(1 - 0.5 / (t // 250 + 1), self.mu_max)


class StronglyConvex(Schedule):
    """The momentum for a strongly convex function of known condition, μ = (√κ − 1)/(√κ + 1).

    Source: Nesterov 2004, section 2.2.

    Parameters
    ----------
    condition : float
        κ = L/m ≥ 1: largest over smallest curvature.

    Raises
    ------
    ValueError
        condition is not a finite number ≥ 1.

    Examples
    --------
    >>> from nagcore import schedules
    >>> schedules.StronglyConvex(9.0)(1)
    0.5
    """

    _fields = ("condition",)

    def __init__(self, condition: float) -> None:
        if not 1 <= _real(condition) < math.inf:
            raise ValueError(f"condition is {condition!r}; StronglyConvex takes a finite number ≥ 1, the "
                             "largest over the smallest curvature. Use StronglyConvex(100.0).")
        self.condition: float = float(condition)

    def momentum(self, t: int) -> float:
        """(√κ − 1)/(√κ + 1), which rounds to a number below 1 at any κ."""
        root = math.sqrt(self.condition)
        return min((root - 1) / (root + 1), 1 - 2.0**-53)


class AdaptiveRestart(Schedule):
    """A schedule that starts again when the last step went against the gradient: ⟨g_t, θ_t − θ_{t−1}⟩ > 0.

    At a restart the momentum is 0 for one step, which drops the velocity, and the inner schedule goes
    on with its second step. On one batch's gradient the sign is partly noise; `smoothing` averages
    over steps: a ← smoothing·a + (1 − smoothing)·⟨g_t, θ_t − θ_{t−1}⟩, from 0 after a restart.

    Source: O'Donoghue and Candès 2015, the gradient scheme.

    Parameters
    ----------
    inner : Schedule
        `Nesterov()` by default.
    smoothing : float
        In [0, 1); 0 judges each step by itself.

    Attributes
    ----------
    restarts : int
        How often it has started again.

    Raises
    ------
    TypeError, ValueError
        inner is no schedule, or smoothing is not in [0, 1).

    Examples
    --------
    >>> from nagcore import schedules
    >>> mu = schedules.AdaptiveRestart(schedules.Nesterov())
    >>> mu(4)
    0.5
    >>> mu.observe(+1.0)     # step 5 went uphill
    >>> [mu(t) for t in (5, 6, 8)]
    [0.0, 0.25, 0.5]
    """

    adaptive = True
    _fields = ("smoothing", "restarts", "_begun", "_pending", "_mean")

    def __init__(self, inner: Schedule | None = None, *, smoothing: float = 0.0) -> None:
        self.inner = Nesterov() if inner is None else inner
        if not isinstance(self.inner, Schedule):
            raise TypeError(f"inner is {type(inner).__name__}; AdaptiveRestart takes a schedule. "
                            "Use AdaptiveRestart(nagcore.schedules.Nesterov()).")
        self.smoothing = _momentum(smoothing, "smoothing", "AdaptiveRestart(smoothing=0.9)")
        self.restarts, self._begun, self._pending, self._mean = 0, 0, False, 0.0

    def observe(self, alignment: float) -> None:
        """Take in ⟨g_t, θ_t − θ_{t−1}⟩; one that is not finite says nothing and is left out."""
        alignment = float(alignment)
        if not math.isfinite(alignment):
            return
        if self.smoothing:
            alignment = self.smoothing * self._mean + (1 - self.smoothing) * alignment
        self._mean = alignment
        if alignment > 0:
            self._pending = True

    def momentum(self, t: int) -> float:
        """The inner momentum of step t counted from the last restart; 0 at the restart itself."""
        if self._pending:
            self._pending, self._mean = False, 0.0
            self._begun, self.restarts = t, self.restarts + 1
        if self._begun == 0:
            return self.inner(t)
        if t <= self._begun:
            return 0.0
        return self.inner(t - self._begun + 1)

    def state_dict(self) -> dict[str, Any]:
        """All that decides the momenta to come, the inner schedule's state included."""
        return {**super().state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; ValueError for another schedule's state, inner or outer."""
        if not isinstance(state, Mapping) or "inner" not in state:
            super().load_state_dict(state)  # names what it is
            raise ValueError("The state of AdaptiveRestart has no entry 'inner'; nagcore takes one. "
                             "Use what AdaptiveRestart.state_dict() returned.")
        trial = copy.deepcopy(self.inner)
        trial.load_state_dict(state["inner"])
        super().load_state_dict({key: value for key, value in state.items() if key != "inner"})
        self.inner = trial

    def _restore(self, state: Mapping[str, Any]) -> None:
        counts = (state["restarts"], state["_begun"])
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts):
            raise ValueError(f"The state of AdaptiveRestart counts {counts}; they are whole numbers ≥ 0. "
                             "Use what AdaptiveRestart.state_dict() returned.")
        self.smoothing = _momentum(state["smoothing"], "smoothing", "AdaptiveRestart(smoothing=0.9)")
        self.restarts, self._begun = counts
        self._pending, self._mean = bool(state["_pending"]), float(state["_mean"])

    def __repr__(self) -> str:
        return f"AdaptiveRestart({self.inner!r}, smoothing={self.smoothing!r})"
