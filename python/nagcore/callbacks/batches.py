"""The order in which a run sees its data, in three numbers, so that it can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ._checks import whole

__all__ = ["Batches"]


class Batches:
    """Row numbers in batches, shuffled anew each epoch, that go on from the very batch where a run ended.

    The order of an epoch is a function of (seed, epoch) alone: rows sorted by the raw output of PCG64,
    whose stream NumPy keeps the same in all its versions. A batch that was handed out counts as used.

    Parameters
    ----------
    n : int
        Rows.
    batch_size : int
    seed : int
        ≥ 0.
    shuffle : bool
    drop_last : bool
        Whether a last batch that is smaller is left out.

    Attributes
    ----------
    epoch : int
        0 at first; it grows when a loop over the batches comes to its end.
    position : int
        Rows of this epoch that have been handed out.

    Raises
    ------
    ValueError
        A size that is no whole number ≥ 1, or no batch in an epoch.

    Examples
    --------
    >>> from nagcore.callbacks import Batches
    >>> batches = Batches(6, 2, seed=1)
    >>> first = next(iter(batches))
    >>> state = batches.state_dict()
    >>> again = Batches(6, 2, seed=1)
    >>> again.load_state_dict(state)
    >>> rest, same = [b.tolist() for b in batches], [b.tolist() for b in again]
    >>> rest == same, len(rest), batches.epoch
    (True, 2, 1)
    """

    def __init__(
        self, n: int, batch_size: int, *, seed: int = 0, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        self.n = whole(n, "n", "Batches", 1, 1000)
        self.batch_size = whole(batch_size, "batch_size", "Batches", 1, 32)
        self.seed = whole(seed, "seed", "Batches", 0, 0)
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        if self.drop_last and self.n < self.batch_size:
            raise ValueError(f"{self.n} rows make no batch of {self.batch_size}, and drop_last leaves out "
                             "smaller ones. Use Batches(n, batch_size, drop_last=False).")
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The batches that are left of this epoch, int64 row numbers each."""
        epoch, order = self.epoch, self._order()
        end = len(self) * self.batch_size if self.drop_last else self.n
        while self.epoch == epoch and self.position < end:
            begin, self.position = self.position, min(self.position + self.batch_size, end)
            yield order[begin : self.position]
        if self.epoch == epoch:
            self.epoch, self.position = epoch + 1, 0

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.n)
        return np.argsort(np.random.PCG64([self.seed, self.epoch]).random_raw(self.n), kind="stable")

    def state_dict(self) -> dict[str, Any]:
        """Where the run is in its data, and what makes the order, as JSON values."""
        return {**self._settings(), "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; ValueError where the data or the batches are others."""
        for name, value in self._settings().items():
            if name not in state or state[name] != value:
                raise ValueError(f"The state was taken with {name}={state.get(name)!r}, and these "
                                 f"batches have {name}={value!r}; the order would be another. "
                                 "Make them as they were.")
        epoch = whole(state.get("epoch"), "epoch", "Batches.load_state_dict", 0, 0)
        position = whole(state.get("position"), "position", "Batches.load_state_dict", 0, 0)
        if position > self.n:
            raise ValueError(f"The state stands at row {position} of {self.n}. "
                             "Use what Batches.state_dict() returned.")
        self.epoch, self.position = epoch, position

    def _settings(self) -> dict[str, Any]:
        return {"n": self.n, "batch_size": self.batch_size, "seed": self.seed, "shuffle": self.shuffle,
                "drop_last": self.drop_last}

    def __repr__(self) -> str:
        return (f"Batches({self.n}, {self.batch_size}, seed={self.seed}; epoch {self.epoch}, "
                f"{self.position} rows)")
