"""Copies of some columns of X in float64, each in one piece, for steps that look at no others.

Columns come as the working set grows, and stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nagcore import _core
from nagcore.objective import Objective
from nagcore.penalties import Box
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
        Which coefficients of w the columns belong to.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._n, self._d = objective.shape
        self.held = np.zeros(self._d, bool)
        self.index = np.zeros(0, np.intp)
        self._dense = isinstance(objective.X, np.ndarray)
        self._table = np.empty((0, self._n)) if self._dense else np.zeros(0)
        self._rows, self._starts = np.zeros(0, np.int32), np.zeros(1, np.int64)

    def add(self, columns: np.ndarray) -> None:
        """Copy columns that are not held yet. Their share of X counts as read."""
        objective, columns = self._objective, columns[~self.held[columns]]
        if not columns.size:
            return
        objective.reads.rows += max(len(columns) * self._n // self._d, 1)
        self.held[columns] = True
        before = len(self.index)
        self.index = np.concatenate([self.index, columns])
        part = objective.X[:, columns]
        if self._dense:
            self._add_dense(before, _decode(part, objective.read_as).T)
            return
        part = part.tocsc()
        part.sum_duplicates()
        self._table = np.concatenate([self._table, part.data.astype(np.float64)])
        self._rows = np.concatenate([self._rows, part.indices.astype(np.int32)])
        self._starts = np.concatenate([self._starts, self._starts[-1] + part.indptr[1:].astype(np.int64)])

    def _add_dense(self, before: int, new: np.ndarray) -> None:
        total = before + len(new)
        if total > len(self._table):
            grown = np.empty((max(total, 3 * len(self._table) // 2), self._n))
            grown[:before] = self._table[:before]
            self._table = grown
        self._table[before:total] = new

    def products(self, r: np.ndarray) -> np.ndarray:
        """⟨column, r⟩ for each column held."""
        return _core.column_products(*self._arrays(), r, self._objective.problem.n_threads)

    def add_margins(self, change: np.ndarray, z: np.ndarray) -> None:
        """z, in place, grows by what a change of the columns' coefficients adds to the margins."""
        _core.add_columns_(*self._arrays(), change, z)

    def _arrays(self) -> tuple[Any, Any, Any]:
        if self._dense:
            return self._table[: len(self.index)], None, None
        return self._table, self._rows, self._starts

    def minimise(
        self, v, g, slope_b, w, objective: Objective, box: Box | None, accuracy: float
    ) -> tuple[np.ndarray, float, np.ndarray]:
        """w minimising ⟨g, δ⟩ + ½⟨δ, (A diag(v) Aᵀ + l2)δ⟩ + l1‖w + δ‖₁ over the columns A, in their box.

        Also what the intercept, of gradient `slope_b`, changes by, and the change of all margins.
        """
        lower, upper = (None, None) if box is None else (box.lower, box.upper)
        moved, b, t, _ = _core.minimise_on_columns(
            *self._arrays(), v, g, w, objective.l1, objective.l2, slope_b, lower, upper, accuracy)
        return moved, b, t
