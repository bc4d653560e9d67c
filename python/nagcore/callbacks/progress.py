"""How far a run is, while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable

from .state import State

__all__ = ["Progress"]


class Progress:
    """Calls `report` with the state at most once every `every` seconds, and once at the first.

    Parameters
    ----------
    report : callable
        Takes a State, say to move a bar; what it returns is ignored.
    every : float
        Seconds between reports.

    >>> Progress(lambda state: print(state.value), every=0.5)
    Progress(every=0.5)
    """

    def __init__(self, report: Callable[[State], object], every: float = 0.1) -> None:
        self._report, self.every, self._next = report, every, -math.inf

    def __call__(self, state: State) -> None:
        if state.n_iter <= 1:
            self._next = -math.inf
        if state.seconds >= self._next:
            self._next = state.seconds + self.every
            self._report(state)

    def __repr__(self) -> str:
        return f"Progress(every={self.every})"
