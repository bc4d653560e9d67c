"""A guard against steps that would spoil a run: non-finite numbers and spikes of the gradient norm."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ._checks import real, whole
from .state import State

__all__ = ["AnomalyError", "AnomalyEvent", "AnomalyGuard", "AnomalyWarning", "Verdict"]

_ACTIONS = ("skip", "clip", "raise", "rollback")
_NORMAL = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation
# The deviation is taken as at least this part of the median: norms that hardly vary are no reason to
# call one that is ten percent larger a spike.
_LEAST = 0.1


class AnomalyWarning(RuntimeWarning):
    """An `AnomalyGuard` has met something wrong; the message says what, and what is done about it.

    >>> issubclass(AnomalyWarning, RuntimeWarning)
    True
    """


class AnomalyError(RuntimeError):
    """An `AnomalyGuard` ends the run: its action is "raise", or too many steps in a row are not finite.

    >>> guard = AnomalyGuard("raise")
    >>> guard.check(7, loss=float("nan"))
    Traceback (most recent call last):
        ...
    nagcore.callbacks.guard.AnomalyError: step 7: the loss is nan
    """


class AnomalyEvent(NamedTuple):
    """One anomaly: in which step, what it was, its size and limit, and what was done.

    Attributes
    ----------
    step : int
    kind : {"loss", "gradient", "spike", "level"}
        A loss or a gradient that is not finite; a gradient norm over its limit; norms that stay so
        high that they are taken as the new level.
    value, limit : float
        What was met and what is accepted; limit is infinite for "loss" and "gradient".
    action : {"ok", "skip", "clip", "raise", "rollback"}

    >>> AnomalyEvent(3, "spike", 50.0, 2.0, "skip").kind
    'spike'
    """

    step: int
    kind: str
    value: float
    limit: float
    action: str


class Verdict(NamedTuple):
    """What an `AnomalyGuard` says of a step that is about to be taken.

    Attributes
    ----------
    action : {"ok", "skip", "clip", "rollback"}
        Take it; leave it out; cut the gradient to `max_norm` and take it; go back to the last good state.
    max_norm : float or None
        Only with "clip".
    reason : str
        Empty with "ok".

    >>> AnomalyGuard().check(1, loss=0.5).action
    'ok'
    """

    action: str
    max_norm: float | None
    reason: str


_OK = Verdict("ok", None, "")


class AnomalyGuard:
    """Judges each step before it is taken: a non-finite loss or gradient, or a spike of the gradient norm.

    A spike is ‖g‖ > m + threshold·s, where m is the median of the last norms and s the larger of
    1.4826 · (median of |‖g_i‖ − m|) and m/10. The norms of accepted steps count, clipped ones as clipped.
    Nothing passes in silence: each event is kept in `events`, counted in `counts`, and given to
    `on_event`, or to `warnings.warn` where there is none. "skip" and "clip" need ‖g‖ before the
    update, which is one more read of the gradients.

    As a callback of `nagcore.minimize` it looks whether value and gradient are finite, not for spikes:
    accelerated gradients rise and fall. "raise" raises, every other action stops the run, whose result
    is the best point so far.

    Parameters
    ----------
    action : {"skip", "clip", "raise", "rollback"}
        What is done about an event. "clip" skips a gradient that is not finite, and "rollback" skips
        where no good state was handed to `remember`.
    window : int
        Norms that are remembered, ≥ 2.
    threshold : float
        Deviations above the median that are accepted, > 0.
    warmup : int
        Norms before spikes are looked for, at most window.
    clip_to : float, optional
        What "clip" cuts a spike to; by default, and at most, the limit m + threshold·s.
    patience : int
        Events in a row that are borne, ≥ 1. The next spike is no spike but a new level: it is accepted,
        recorded as such, and the window starts again. The next non-finite step raises AnomalyError,
        because parameters that are themselves lost would be skipped for ever.
    on_event : callable, optional
        Takes the AnomalyEvent, in place of the warning.

    Attributes
    ----------
    events : list of AnomalyEvent
    counts : dict of str to int
        Events by kind: "loss", "gradient", "spike", "level".
    last_good : object
        What `remember` was given last, or None.

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came and what is accepted.

    Examples
    --------
    >>> from nagcore.callbacks import AnomalyGuard
    >>> seen = []
    >>> guard = AnomalyGuard("clip", warmup=3, on_event=seen.append)
    >>> for step, norm in enumerate([1.0, 1.1, 0.9, 80.0], start=1):
    ...     verdict = guard.check(step, grad_norm=norm)
    >>> verdict.action, round(verdict.max_norm, 3)
    ('clip', 2.483)
    >>> guard.check(5, loss=float("inf")).action, guard.counts["spike"], len(seen)
    ('skip', 1, 2)
    """

    def __init__(
        self,
        action: str = "skip",
        *,
        window: int = 100,
        threshold: float = 10.0,
        warmup: int = 20,
        clip_to: float | None = None,
        patience: int = 50,
        on_event: Callable[[AnomalyEvent], object] | None = None,
    ) -> None:
        if action not in _ACTIONS:
            raise ValueError(f"action is {action!r}; AnomalyGuard takes "
                             + ", ".join(f'"{a}"' for a in _ACTIONS) + '. Use AnomalyGuard("skip").')
        self.window = whole(window, "window", "AnomalyGuard", 2, 100)
        self.warmup = whole(warmup, "warmup", "AnomalyGuard", 1, 20)
        self.patience = whole(patience, "patience", "AnomalyGuard", 1, 50)
        if warmup > window:
            raise ValueError(f"warmup is {warmup} and window {window}; the window never holds so many norms. "
                             f"Use AnomalyGuard(window={window}, warmup={window}).")
        for name, number in (("threshold", threshold), ("clip_to", clip_to)):
            if number is None and name == "clip_to":
                continue
            if not 0 < real(number) < math.inf:
                raise ValueError(f"{name} is {number!r}; AnomalyGuard takes a positive number. "
                                 f"Use AnomalyGuard({name}=10.0).")
        if clip_to is not None and action != "clip":
            raise ValueError(f'clip_to is {clip_to!r} and action is "{action}"; only "clip" cuts. '
                             f'Use AnomalyGuard("clip", clip_to={clip_to!r}).')
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event is {type(on_event).__name__}; AnomalyGuard takes a callable or None. "
                            "Use AnomalyGuard(on_event=print).")
        self.action, self.threshold, self.on_event = action, float(threshold), on_event
        self.clip_to = None if clip_to is None else float(clip_to)
        self.events: list[AnomalyEvent] = []
        self.counts = dict.fromkeys(("loss", "gradient", "spike", "level"), 0)
        self.last_good: Any = None
        self._norms: deque[float] = deque()
        self._sorted: list[float] = []  # the same norms, so that the median costs nothing
        # Events in a row by kind: a finite loss says nothing about the gradient, nor the other way.
        self._in_a_row = dict.fromkeys(("loss", "gradient", "spike"), 0)

    # The verdict --------------------------------------------------------------------------------

    def check(
        self,
        step: int,
        *,
        loss: float | None = None,
        grad_norm: float | None = None,
        found_inf: bool = False,
    ) -> Verdict:
        """Say what is to be done with this step, before the update; raises AnomalyError under "raise".

        Parameters
        ----------
        step : int
            For the record.
        loss, grad_norm : float, optional
            What is known of the step; grad_norm is that of all gradients together, unscaled.
        found_inf : bool
            That a gradient is known to hold an infinity or NaN, as a loss scaler reports it.
        """
        step = int(step)
        if loss is not None and not math.isfinite(loss := float(loss)):
            return self._lost(AnomalyEvent(step, "loss", loss, math.inf, ""), f"the loss is {loss}")
        if grad_norm is not None:
            grad_norm = float(grad_norm)
            if grad_norm < 0:
                raise ValueError(f"grad_norm is {grad_norm}; a norm is not negative. "
                                 "Use the square root of the sum of squares.")
            if not math.isfinite(grad_norm):
                return self._lost(AnomalyEvent(step, "gradient", grad_norm, math.inf, ""),
                                  f"the gradient norm is {grad_norm}")
        if found_inf:
            return self._lost(AnomalyEvent(step, "gradient", math.nan, math.inf, ""),
                              "the gradient holds numbers that are not finite")
        if loss is not None:
            self._in_a_row["loss"] = 0
        if grad_norm is None:
            if loss is None:
                self._in_a_row["gradient"] = 0
            return _OK
        self._in_a_row["gradient"] = 0
        if (limit := self._exceeded(grad_norm)) is not None:
            return self._spike(step, grad_norm, limit)
        self._in_a_row["spike"] = 0
        self._accept(grad_norm)
        return _OK

    def __call__(self, state: State) -> bool:
        """Judge value and gradient of a `nagcore.minimize` run; True, which stops it, after an event."""
        if state.n_iter <= 1:
            self._in_a_row["loss"] = self._in_a_row["gradient"] = 0
        norm = state.grad_norm
        lost = None if norm is None or math.isfinite(norm) else norm
        return self.check(state.n_iter, loss=state.value, grad_norm=lost).action != "ok"

    @property
    def limit(self) -> float:
        """The largest norm that is accepted now; infinite during warmup."""
        if len(self._sorted) < self.warmup:
            return math.inf
        m = _median(self._sorted)
        if m == 0:  # gradients that vanish have no scale to exceed
            return math.inf
        spread = _median(sorted(abs(norm - m) for norm in self._sorted))
        return m + self.threshold * max(_NORMAL * spread, _LEAST * m)

    def _exceeded(self, norm: float) -> float | None:
        """The limit if norm is over it. The deviation is only worked out where it can matter."""
        if len(self._sorted) < self.warmup or norm <= (1 + self.threshold * _LEAST) * _median(self._sorted):
            return None
        limit = self.limit
        return limit if norm > limit else None

    def _spike(self, step: int, norm: float, limit: float) -> Verdict:
        self._in_a_row["spike"] += 1
        if self._in_a_row["spike"] > self.patience:
            reason = (f"the gradient norm has been over its limit {limit:.6g} for "
                      f"{self._in_a_row['spike']} steps; "
                      f"{norm:.6g} is taken as its new level")
            self._norms.clear()
            self._sorted.clear()
            self._accept(norm)
            self._in_a_row["spike"] = 0
            self._note(AnomalyEvent(step, "level", norm, limit, "ok"), reason)
            return Verdict("ok", None, reason)
        reason = (f"the gradient norm is {norm:.6g}, and the last {len(self._sorted)} steps "
                  f"accept at most {limit:.6g}")
        max_norm = None
        if self.action == "clip":
            max_norm = limit if self.clip_to is None else min(self.clip_to, limit)
            self._accept(min(norm, max_norm))
        event = AnomalyEvent(step, "spike", norm, limit, self._possible(self.action))
        return self._act(event, reason, max_norm)

    def _lost(self, event: AnomalyEvent, reason: str) -> Verdict:
        self._in_a_row[event.kind] += 1
        if self._in_a_row[event.kind] > self.patience:
            self._note(event._replace(action="raise"), reason, quiet=True)
            raise AnomalyError(
                f"step {event.step}: {reason}, and so it was in the {self.patience} steps before. The "
                "parameters are most likely lost; go back to a checkpoint, or lower the learning rate.")
        action = "skip" if self.action == "clip" else self._possible(self.action)
        return self._act(event._replace(action=action), reason, None)

    def _possible(self, action: str) -> str:
        return "skip" if action == "rollback" and self.last_good is None else action

    def _act(self, event: AnomalyEvent, reason: str, max_norm: float | None) -> Verdict:
        if self.action == "rollback" and event.action == "skip":
            reason += "; no good state was remembered to go back to"
        self._note(event, reason, quiet=event.action == "raise")
        if event.action == "raise":
            raise AnomalyError(f"step {event.step}: {reason}")
        return Verdict(event.action, max_norm, reason)

    def _note(self, event: AnomalyEvent, reason: str, quiet: bool = False) -> None:
        self.events.append(event)
        self.counts[event.kind] += 1
        if self.on_event is not None:
            self.on_event(event)
        elif not quiet:  # an error of its own says it
            done = {"ok": "accepted", "skip": "skipped", "clip": "clipped",
                    "rollback": "taken back"}[event.action]
            warnings.warn(f"step {event.step}: {reason}; {done}", AnomalyWarning, stacklevel=5)

    def _accept(self, norm: float) -> None:
        if len(self._norms) == self.window:
            oldest = self._norms.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._norms.append(norm)
        insort(self._sorted, norm)

    # What a run keeps ---------------------------------------------------------------------------

    def remember(self, state: Any) -> None:
        """Keep a good state, of any kind, for `last_good`; the caller hands over a copy."""
        self.last_good = state

    def state_dict(self) -> dict[str, Any]:
        """Norms, events and counts as JSON values; `last_good` is not in it."""
        return {"norms": list(self._norms), "in_a_row": dict(self._in_a_row), "counts": dict(self.counts),
                "events": [list(event) for event in self.events]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; ValueError for anything else, and nothing is changed."""
        try:
            norms = [float(norm) for norm in state["norms"]]
            events = [AnomalyEvent(int(e[0]), str(e[1]), float(e[2]), float(e[3]), str(e[4]))
                      for e in state["events"]]
            counts = {kind: int(state["counts"][kind]) for kind in self.counts}
            in_a_row = {kind: int(state["in_a_row"][kind]) for kind in self._in_a_row}
            if not all(0 <= norm < math.inf for norm in norms):
                raise ValueError("a norm is negative or not finite")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"This is no state of an AnomalyGuard ({type(error).__name__}: {error}). "
                             "Use what AnomalyGuard.state_dict() returned.") from None
        self._norms = deque(norms[-self.window:])
        self._sorted = sorted(self._norms)
        self.events, self.counts, self._in_a_row = events, counts, in_a_row

    def __repr__(self) -> str:
        met = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        return f"AnomalyGuard({self.action!r}, {met or 'no events'})"


def _median(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])
