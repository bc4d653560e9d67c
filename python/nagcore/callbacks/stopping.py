"""When a run has stopped getting better, and how it keeps the best that it had."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._checks import number, real, whole
from .state import State

__all__ = ["EarlyStopping"]

_MONITORS = ("value", "gap", "relative_gap")


class EarlyStopping:
    """Stops a run when its metric no longer gets better, and keeps the weights of the best metric.

    The weights kept are those of the lowest (highest) metric met, however small the last gain; `restore`
    puts them back, whether the run was stopped or came to its own end. Only a gain of more than
    `min_delta` over the last that counted resets the patience. NaN is never better.

    As a callback of `nagcore.minimize` it watches `monitor`; the result is the best point anyway.

    Parameters
    ----------
    patience : int
        Updates without a gain that counts, ≥ 1: at that many the run is to stop.
    min_delta : float
        ≥ 0, in the units of the metric.
    mode : {"min", "max"}
    monitor : {"value", "gap", "relative_gap"}
        What of a `State` is the metric; in a loop of your own `update` is given it.

    Attributes
    ----------
    best : float
        The best metric; NaN before the first.
    best_weights : object
        The weights of `best`, copies in the form in which they were given, or None.
    waited : int
        Updates since the last gain that counted.
    stopped : bool

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came and what is accepted.

    Examples
    --------
    >>> import numpy as np
    >>> from nagcore.callbacks import EarlyStopping
    >>> stopper, w = EarlyStopping(patience=2), np.zeros(2)
    >>> for loss in [0.9, 0.4, 0.5, 0.6, 0.1]:
    ...     w += 1.0
    ...     if stopper.update(loss, weights={"w": w}):
    ...         break
    >>> stopper.restore({"w": w})
    >>> loss, stopper.best, w.tolist()
    (0.6, 0.4, [2.0, 2.0])
    """

    def __init__(
        self, patience: int = 10, *, min_delta: float = 0.0, mode: str = "min", monitor: str = "value"
    ) -> None:
        self.patience = whole(patience, "patience", "EarlyStopping", 1, 10)
        if not 0 <= real(min_delta) < math.inf:
            raise ValueError(f"min_delta is {min_delta!r}; EarlyStopping takes a number ≥ 0. "
                             "Use EarlyStopping(min_delta=1e-4).")
        if mode not in ("min", "max"):
            raise ValueError(f'mode is {mode!r}; EarlyStopping takes "min" for losses and "max" for scores. '
                             'Use EarlyStopping(mode="max").')
        if monitor not in _MONITORS:
            raise ValueError(f"monitor is {monitor!r}; EarlyStopping takes {', '.join(_MONITORS)}. "
                             'Use EarlyStopping(monitor="value"), or update(metric) in a loop of your own.')
        self.min_delta, self.mode, self.monitor = float(min_delta), mode, monitor
        self.reset()

    def reset(self) -> None:
        """Forget everything, for a new run."""
        self.best, self._counted, self.waited, self.stopped = math.nan, math.nan, 0, False
        self.best_weights: Any = None

    def update(self, metric: float, weights: Any = None) -> bool:
        """Take in one metric; True when the run is to stop.

        Parameters
        ----------
        metric : float
        weights : array, sequence or mapping of arrays, or callable, optional
            What belongs to it. It is copied, each time the metric is the best so far and only then; a
            callable is called then, and what it returns is kept as it is.
        """
        metric = number(metric, "metric", "EarlyStopping.update")
        if self._better(metric, self.best, 0.0):
            self.best = metric
            if weights is not None:
                self.best_weights = weights() if callable(weights) else _copy(weights)
        if self._better(metric, self._counted, self.min_delta):
            self._counted, self.waited = metric, 0
        else:
            self.waited += 1
        self.stopped = self.waited >= self.patience
        return self.stopped

    def restore(self, weights: Any) -> None:
        """Write the best weights into these arrays, in place, at the end of a run however it ended.

        Parameters
        ----------
        weights : array, sequence or mapping of arrays
            Of the form that `update` was given. Each array is written into; torch tensors as well.

        Raises
        ------
        ValueError
            No weights were given to `update`, or these are of another form; nothing is written.
        """
        if self.best_weights is None:
            raise ValueError("There are no best weights: update was never given any. "
                             "Use stopper.update(metric, weights=arrays).")
        pairs = list(_pairs(self.best_weights, weights))
        for kept, array in pairs:
            if tuple(kept.shape) != tuple(array.shape) or kept.dtype != array.dtype:
                raise ValueError(f"An array has shape {tuple(array.shape)} and dtype {array.dtype}, and the "
                                 f"kept one {tuple(kept.shape)} and {kept.dtype}. Restore what update was "
                                 "given.")
        for kept, array in pairs:
            if isinstance(array, np.ndarray):
                array[...] = kept
            else:
                array.detach().copy_(kept)

    def __call__(self, state: State) -> bool:
        """Watch a `nagcore.minimize` run; True stops it."""
        if state.n_iter <= 1:
            self.reset()
        metric = getattr(state, self.monitor)
        if self.monitor != "value" and not math.isfinite(metric):
            return False  # there is no gap yet
        return self.update(metric)

    def _better(self, metric: float, than: float, by: float) -> bool:
        if math.isnan(metric):
            return False
        if math.isnan(than):
            return True
        return metric < than - by if self.mode == "min" else metric > than + by

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights, as JSON values; put `best_weights` into the checkpoint's arrays."""
        return {"best": self.best, "counted": self._counted, "waited": self.waited, "stopped": self.stopped}

    def load_state_dict(self, state: Mapping[str, Any], best_weights: Any = None) -> None:
        """Go on where `state_dict` was taken; ValueError for anything else, and nothing is changed."""
        try:
            best, counted = float(state["best"]), float(state["counted"])
            waited, stopped = int(state["waited"]), bool(state["stopped"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This is no state of an EarlyStopping ({type(error).__name__}: {error}). "
                             "Use what EarlyStopping.state_dict() returned.") from None
        self.best, self._counted, self.waited, self.stopped = best, counted, waited, stopped
        self.best_weights = best_weights

    def __repr__(self) -> str:
        return (f"EarlyStopping(patience={self.patience}, min_delta={self.min_delta}, mode={self.mode!r}; "
                f"best {self.best:.6g}, waited {self.waited})")


def _copy(weights: Any) -> Any:
    if isinstance(weights, np.ndarray):
        return weights.copy()
    if isinstance(weights, Mapping):
        return {name: _copy(value) for name, value in weights.items()}
    if isinstance(weights, (list, tuple)):
        return [_copy(value) for value in weights]
    if hasattr(weights, "detach"):
        return weights.detach().clone()
    return copy.deepcopy(weights)


def _pairs(kept: Any, arrays: Any) -> Any:
    """The arrays of two structures side by side; ValueError where the structures differ."""
    mapping = isinstance(kept, Mapping)
    if mapping or isinstance(kept, list):
        same = isinstance(arrays, Mapping) if mapping else isinstance(arrays, (list, tuple))
        keys = kept.keys() if mapping else range(len(kept))
        if not same or len(kept) != len(arrays) or (mapping and set(kept) != set(arrays)):
            raise ValueError(f"The weights are {_form(arrays)}, and those kept are {_form(kept)}. "
                             "Restore what update was given.")
        for key in keys:
            yield from _pairs(kept[key], arrays[key])
    elif isinstance(arrays, np.ndarray) or hasattr(arrays, "detach"):
        yield kept, arrays
    else:
        raise ValueError(f"The weights are {_form(arrays)}, which nothing can be written into. "
                         "Use the attribute best_weights.")


def _form(weights: Any) -> str:
    if isinstance(weights, Mapping):
        return f"a mapping with the keys {', '.join(map(repr, list(weights)[:5]))}"
    if isinstance(weights, (list, tuple)):
        return f"a sequence of {len(weights)}"
    return type(weights).__name__
