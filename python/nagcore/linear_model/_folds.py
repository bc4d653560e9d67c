"""Folds of a cross-validation on an X that stays where it is: weights, moments, scores of some rows.

Rows that a fold holds out have weight zero, or their moments are left out of the sum. What scores them
reads them in blocks: only few are ever copied, or those that a scorer asks to see.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nagcore.linear_model._base import linear_scores
from nagcore.linear_model._moments import Moments, moments, raise_if_bad

__all__ = ["HeldOut", "fold_moments", "fold_weights", "takes_predictions"]

_COPIED = 1 << 20    # bytes of X that are sooner copied once than gathered for each score
_BLOCK = 1 << 20     # bytes of X that are gathered at a time


def fold_weights(train: np.ndarray, n: int, s: np.ndarray | None) -> np.ndarray:
    """Weights of all n rows under which a fit is one to the rows `train` alone."""
    kept = np.bincount(np.arange(n)[train], minlength=n).astype(np.float64)
    if s is not None:
        kept *= s
    return kept


def fold_moments(
    X: Any, Y: np.ndarray, s: np.ndarray | None, origin: tuple[np.ndarray, np.ndarray], folds: list
) -> tuple[list[Moments], list[Moments]]:
    """Moments of each fold's test rows, and of its training rows.

    Where folds part the rows, the latter are sums of the former: one read of X serves all folds.
    """
    n = X.shape[0]
    tests = [moments(X, Y, s, origin, np.arange(n)[test]) for _, test in folds]
    for m in tests:
        raise_if_bad(m.xx, X)
    held = np.concatenate([np.arange(n)[test] for _, test in folds])
    parted = len(held) == n and len(np.unique(held)) == n
    trains = []
    for i, (train, test) in enumerate(folds):
        others = np.arange(n)[train]
        if parted and len(others) == n - len(np.arange(n)[test]):
            rest = [m for j, m in enumerate(tests) if j != i]
            trains.append(sum(rest[1:], rest[0]))
        else:
            trains.append(moments(X, Y, s, origin, others))
    return tests, trains


class HeldOut:
    """The rows that a fold holds out, for the scores of one model after the other.

    Parameters
    ----------
    X : (n, d) dense or CSR
    rows : (m,) indices, or a mask of shape (n,)

    >>> HeldOut(np.arange(6.0).reshape(3, 2), np.array([2, 0])).scores(np.array([[1.0, 1.0]]), 0.5)
    array([[9.5],
           [1.5]])
    """

    def __init__(self, X: Any, rows: np.ndarray) -> None:
        self.X, self.rows = X, np.arange(X.shape[0])[rows]
        held = X.nnz * (X.data.itemsize + X.indices.itemsize) if hasattr(X, "nnz") else X.nbytes
        self._each = max(held // X.shape[0], 1)  # bytes of a row
        self._copy = self.copy() if len(self.rows) * self._each <= _COPIED else None

    def copy(self) -> Any:
        """The rows of X themselves."""
        return self.X[self.rows]

    def scores(self, coef: np.ndarray, intercept: np.ndarray | float) -> np.ndarray:
        """X @ coef.T + intercept of these rows, shape (m, k)."""
        if self._copy is not None:
            return linear_scores(self._copy, coef, intercept)
        step = max(_BLOCK // self._each, 1)
        return np.concatenate([
            linear_scores(self.X[self.rows[i : i + step]], coef, intercept)
            for i in range(0, len(self.rows), step)
        ])


def takes_predictions(scorer: Any) -> bool:
    """Whether a scorer looks at nothing of X but what the model says of it: one of scikit-learn's make."""
    return hasattr(scorer, "_score_func")
