"""Callbacks of `nagcore.minimize`: any callable that takes a `State`; returning True stops the run.

>>> from nagcore.callbacks import History
>>> history = History()      # pass it as callbacks=(history,), then read history.value
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

__all__ = ["Callback", "History", "Progress", "State"]


@dataclass(frozen=True)
class State:
    """What a run knows after a pass that moved it.

    Attributes
    ----------
    n_iter, n_passes : int
        Iterations, and passes over X of this run.
    value : float
        F at `w`, the iterate.
    gap : float
        Bound or estimate of F(best) − min F; NaN before there is one.
    gap_kind : {"certificate", "estimate", "none"}
    seconds : float
        Wall-clock time since the run began.
    null_value : float
        F₀, the value of the null model: progress is gap / (F₀ − value).
    tol : float
        What the run aims at.
    nbytes : int
        Bytes of X that one pass reads.

    Examples
    --------
    >>> import numpy as np
    >>> import nagcore
    >>> objective = nagcore.Objective(np.eye(3), np.ones(3), loss="squared", l2=0.1)
    >>> seen = []
    >>> result = nagcore.minimize(objective, callbacks=[lambda state: seen.append(state.n_iter)])
    >>> len(seen) == result.n_iter
    True
    """

    n_iter: int
    n_passes: int
    value: float
    gap: float
    gap_kind: str
    seconds: float
    null_value: float
    tol: float
    nbytes: int
    _w: Callable[[], np.ndarray] = field(repr=False)

    @property
    def w(self) -> np.ndarray:
        """The iterate, shape (p,) or (p, k), a new array at each access."""
        return self._w()

    @property
    def relative_gap(self) -> float:
        """gap / (F₀ − value), what `tol` is compared with; infinite where nothing is gained yet."""
        gained = self.null_value - self.value
        if math.isnan(self.gap):
            return math.inf
        return self.gap / gained if gained > 0 else (0.0 if self.gap == 0 else math.inf)


class Callback(Protocol):
    """The protocol: called with a State after every iteration, stops the run by returning True.

    Examples
    --------
    >>> import numpy as np
    >>> import nagcore
    >>> def two_iterations(state):
    ...     return state.n_iter >= 2
    >>> X = np.random.default_rng(0).standard_normal((100, 3))
    >>> objective = nagcore.Objective(X, (X[:, 0] > 0).astype(int), loss="logistic", l2=1e-6)
    >>> nagcore.minimize(objective, tol=1e-12, callbacks=[two_iterations]).n_iter
    2
    """

    def __call__(self, state: State) -> bool | None: ...


class History:
    """Records a run; `minimize` returns one as `result.history`.

    Attributes
    ----------
    n_passes, seconds, value, gap : list
        One entry per iteration; `value` is the lowest so far.

    >>> len(History())
    0
    """

    def __init__(self) -> None:
        self.n_passes: list[int] = []
        self.seconds: list[float] = []
        self.value: list[float] = []
        self.gap: list[float] = []

    def __call__(self, state: State) -> None:
        self.n_passes.append(state.n_passes)
        self.seconds.append(state.seconds)
        self.value.append(min(state.value, self.value[-1]) if self.value else state.value)
        self.gap.append(state.gap)

    def __len__(self) -> int:
        return len(self.n_passes)

    def __repr__(self) -> str:
        if not self.n_passes:
            return "History(empty)"
        return (f"History({len(self)} iterations, {self.n_passes[-1]} passes, "
                f"{self.seconds[-1]:.3g} s, value {self.value[-1]:.6g}, gap {self.gap[-1]:.3g})")


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
