"""What `nagcore.minimize` tells its callbacks, and what a callback is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

__all__ = ["Callback", "State"]


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
