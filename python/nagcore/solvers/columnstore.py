"""Copies of some columns of X in float64, each in one piece, for steps that look at no others.

The intercept is a last column of ones. Columns come as the working set grows, and stay.
"""

from __future__ import annotations

import numpy as np

from nagcore import _core
from nagcore.objective import Objective
from nagcore.solvers.moments import _decode

__all__ = ["ColumnStore"]


class ColumnStore:
    """Columns of an objective's X, and the products with them.

    Parameters
    ----------
    objective : Objective
        Made from X itself (`divisible`).

    Attributes
    ----------
    index : ndarray of int
        Which coefficients of w the columns belong to; with an intercept its index, d, is the last.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._n, self._d = objective.shape
        self._ones = int(objective.fit_intercept)
        self.held = np.zeros(self._d, bool)
        self.index = np.full(self._ones, self._d)
        self._dense = isinstance(objective.X, np.ndarray)
        self._table = np.ones((self._ones, self._n)) if self._dense else np.ones(self._ones * self._n)
        self._rows = np.tile(np.arange(self._n, dtype=np.int32), self._ones)
        self._starts = np.arange(self._ones + 1, dtype=np.int64) * self._n

    @property
    def penalised(self) -> int:
        """How many of the columns are not the intercept's."""
        return len(self.index) - self._ones

    def add(self, columns: np.ndarray) -> None:
        """Copy columns that are not held yet. Their share of X counts as read."""
        objective, columns = self._objective, columns[~self.held[columns]]
        if not columns.size:
            return
        objective.reads.rows += max(len(columns) * self._n // self._d, 1)
        self.held[columns] = True
        before = self.penalised
        self.index = np.concatenate([self.index[:before], columns, self.index[before:]])
        part = objective.X[:, columns]
        if self._dense:
            self._add_dense(before, np.ascontiguousarray(_decode(part, objective.read_as).T))
            return
        part = part.tocsc()
        part.sum_duplicates()
        cut = int(self._starts[before])
        self._table = np.concatenate([self._table[:cut], part.data.astype(np.float64), self._table[cut:]])
        self._rows = np.concatenate([self._rows[:cut], part.indices.astype(np.int32), self._rows[cut:]])
        ends = cut + part.indptr[1:].astype(np.int64)
        self._starts = np.concatenate([self._starts[: before + 1], ends, self._starts[before + 1 :]
                                       + (ends[-1] - cut)])

    def _add_dense(self, before: int, new: np.ndarray) -> None:
        total = before + len(new) + self._ones
        if total > len(self._table):
            grown = np.empty((max(total, 3 * len(self._table) // 2), self._n))
            grown[:before] = self._table[:before]
            self._table = grown
        self._table[before : before + len(new)] = new
        self._table[before + len(new) : total] = 1.0

    def products(self, r: np.ndarray) -> np.ndarray:
        """⟨column, r⟩ for each column held. Not BLAS: its bits depend on how many threads it has."""
        if self._dense:
            return np.einsum("ji,i->j", self._table[: len(self.index)], r)
        sums = np.add.reduceat(np.append(self._table * r[self._rows], 0.0), self._starts[:-1])
        sums[np.diff(self._starts) == 0] = 0.0
        return sums

    def minimise(self, v, g, w, objective: Objective, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
        """w minimising ⟨g, δ⟩ + ½⟨δ, (A diag(v) Aᵀ + l2)δ⟩ + l1‖w + δ‖₁ over the columns A; and Aᵀδ."""
        arrays = (self._table[: len(self.index)], None, None)
        if not self._dense:
            arrays = (self._table, self._rows, self._starts)
        moved, t, _ = _core.minimise_on_columns(
            *arrays, v, g, w, objective.l1, objective.l2, self.penalised, objective.positive, accuracy)
        return moved, t
