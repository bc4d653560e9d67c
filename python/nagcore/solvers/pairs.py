"""What L-BFGS remembers of a run: steps and changes of gradient, through all changes of variables."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Pairs"]

_PAIRS = 12  # steps remembered with their changes of gradient


class Pairs:
    """The last steps s and changes of gradient y of a run, through all its changes of variables.

    They lie in the variables of the oracle that used them last, or `rest` in the problem's own: ⟨s, y⟩
    is the same in all.
    """

    def __init__(self) -> None:
        self._pairs: deque = deque(maxlen=_PAIRS)
        self._coordinates: Any = None
        self._lent: Callable[[], Any] | None = None  # gives the pairs of a loop that keeps them
        self.residual, self.residual_age = 0.0, 0  # of `Oracle.rounding`: the same in all variables

    def seen_in(self, coordinates: Any) -> deque:
        """The pairs in the variables of `coordinates`, which are theirs from now on."""
        self._fetch()
        if self._coordinates is not coordinates:
            self.rest()
            self._replace(coordinates, True)
            self._coordinates = coordinates
        return self._pairs

    def rest(self) -> None:
        """Leave the variables, so that their metric can go before there is another."""
        self._fetch()
        old, self._coordinates = self._coordinates, None
        if old is not None:
            self._replace(old, False)

    def forget(self) -> None:
        """Drop all pairs."""
        self._fetch()
        self._pairs.clear()

    def lend(self, give: Callable[[], Any]) -> None:
        """Let a loop have the pairs, which `give` gives back in the same variables."""
        self._lent = give

    def _fetch(self) -> None:
        if self._lent is not None:
            self._pairs.clear()
            self._pairs.extend(self._lent())
            self._lent = None

    def _replace(self, coordinates: Any, inwards: bool) -> None:
        """Change the pairs' variables: into those of `coordinates`, or from them to the problem's own."""
        pairs, joined = list(self._pairs), coordinates.joined
        if not pairs:
            return
        if joined is not None and pairs[0][0].ndim == 1:  # vectors of all pairs in one go
            steps, changes = (np.stack(part, axis=1) for part in zip(*pairs, strict=True))
            steps, changes = _changed(joined, steps, changes, inwards)
            pairs = [(s.copy(), y.copy()) for s, y in zip(steps.T, changes.T, strict=True)]
        else:
            pairs = [_changed(coordinates, s, y, inwards) for s, y in pairs]
        self._pairs.clear()
        self._pairs.extend(pairs)


def _changed(coordinates: Any, s: np.ndarray, y: np.ndarray, inwards: bool) -> tuple[np.ndarray, np.ndarray]:
    """A step and a change of gradient in the variables of `coordinates`, or out of those."""
    if inwards:
        return coordinates.to_v(s), coordinates.pull_back(y, 0.0, s)
    return coordinates.to_w(s), coordinates.push(y)
