"""What `nagcore.minimize` tells its callbacks, and what a callback is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

__all__ = ["Callback", "State", "in_use", "use"]


@dataclass(frozen=True)
class State:
    """What a run knows after a pass that moved it.

    Attributes
    ----------
    n_iter : int
        Iterations of this run.
    n_passes : float
        Passes over X of this run; m sampled rows count as m/n.
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
    grad_norm : float or None
        ‖∇F‖ at the point of the last pass, which accelerated methods look at ahead of `w`; with l1 or
        `positive` the norm of the least subgradient. It costs no pass: None where the method has no
        gradient in the variables of w at hand, as "newton_cg".

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
    n_passes: float
    value: float
    gap: float
    gap_kind: str
    seconds: float
    null_value: float
    tol: float
    nbytes: int
    _w: Callable[[], np.ndarray] = field(repr=False)
    grad_norm: float | None = None

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

    A callback may have a method `finish(state)` besides. It is called once when the run ends, be it by an
    error or Ctrl-C, with the best point so far as `state.w`; not where there was no iteration.

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


_IN_USE: ContextVar[tuple[Callable[[State], Any], ...]] = ContextVar("nagcore_callbacks", default=())


@contextmanager
def use(*callbacks: Callable[[State], Any]) -> Iterator[None]:
    """Have every `nagcore.minimize` of the block call these, those inside estimators as well.

    scikit-learn's `fit` takes no callbacks, and an estimator that carried them could be neither cloned nor
    compared; so they are given round it. A fit that has a closed form, or needs no iteration, calls
    nothing. The block holds for its own thread and process: `n_jobs` elsewhere does not see it.

    Examples
    --------
    >>> import numpy as np
    >>> from nagcore import callbacks, linear_model
    >>> X = np.random.default_rng(0).standard_normal((100, 3))
    >>> history = callbacks.History()
    >>> with callbacks.use(history):
    ...     model = linear_model.LogisticRegression().fit(X, X[:, 0] > 0)
    >>> len(history) > 0
    True
    """
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"A callback is {type(callback).__name__}; use takes callables of a State. "
                            "Use nagcore.callbacks.use(History()).")
    token = _IN_USE.set((*_IN_USE.get(), *callbacks))
    try:
        yield
    finally:
        _IN_USE.reset(token)


def in_use() -> tuple[Callable[[State], Any], ...]:
    """The callbacks of the `use` blocks that we are in, outermost first."""
    return _IN_USE.get()
