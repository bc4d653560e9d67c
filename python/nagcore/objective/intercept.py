"""The best intercept for given margins: evaluations O(n) on the margins, none a pass.

The search is compiled (`_core.best_intercept`): on small tables Python between its evaluations took
ten times what they do.

`s` below is the vector of weights divided by their sum, or None for equal weights.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from nagcore import _core

__all__ = ["Intercept", "best_intercept", "dot", "largest", "mean_size", "row_mean"]

_BLOCK_ROWS = 1 << 14
_LONG = 64  # rows per class from which arrays of rows and classes are worked through by class


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """⟨a, b⟩ in float64. Not BLAS: its bits depend on how many threads BLAS has, these do not."""
    return float(np.add.reduce(np.multiply(a, b, dtype=np.float64), axis=None))


def row_mean(a: np.ndarray, s: np.ndarray | None) -> np.ndarray | float:
    """(1/S) Σ s_i a_i over rows, in float64."""
    if a.ndim == 2 and a.shape[1] * _LONG <= len(a):  # NumPy adds such rows one by one
        return np.array([row_mean(column, s) for column in a.T])
    if s is None:
        return np.add.reduce(a, axis=0, dtype=np.float64) / len(a)
    return np.einsum("i,i...->...", s, a, dtype=np.float64)


def largest(a: np.ndarray | float) -> float:
    """max |a|, of one number or of an array."""
    return abs(float(a)) if isinstance(a, float) else float(np.abs(a).max())


def mean_size(r: np.ndarray, s: np.ndarray | None) -> float:
    """(1/S) Σ s_i |r_i|, the largest over classes: in blocks of rows, so that nothing of r's size is made."""
    if len(r) <= _BLOCK_ROWS:
        return largest(row_mean(np.abs(r), s))
    total: np.ndarray | float = 0.0
    for i in range(0, len(r), _BLOCK_ROWS):
        block = np.abs(r[i : i + _BLOCK_ROWS])
        share = len(block) / len(r) if s is None else 1.0
        total = total + share * row_mean(block, None if s is None else s[i : i + _BLOCK_ROWS])
    return largest(total)


class Intercept(NamedTuple):
    """The best shift of the margins: `b` (a number, or one per class) and what holds there."""

    b: np.ndarray | float
    value: float
    z: np.ndarray
    r: np.ndarray
    given_value: float  # the mean loss at the margins as they were given
    mean: np.ndarray | float  # of the residuals: zero but for rounding
    size: float               # their mean size, the largest over classes


class _Foreign:
    """What the search asks of a problem that is not the core's: the loss at shifted margins, and its bend."""

    def __init__(self, problem: Any, s: np.ndarray | None) -> None:
        self.problem, self.s = problem, s

    def shifted_loss(
        self, z: np.ndarray, b: Any, moved: np.ndarray, r: np.ndarray
    ) -> tuple[float, Any, float]:
        """Loss, mean residual and mean size of residuals at z + b, as the core's function of that name."""
        if b is not None:
            z = np.add(z, b, out=moved, casting="same_kind")
        value = self.problem.loss_from_margins(z, r)
        return value, row_mean(r, self.s), mean_size(r, self.s)

    def bend(self, z: np.ndarray, out: np.ndarray) -> float:
        """The mean curvature at z."""
        if not getattr(self.problem, "second_order", False):
            return math.nan
        return float(row_mean(self.problem.curvature_from_margins(z, out), self.s))


def best_intercept(
    problem: Any,
    z: np.ndarray,
    s: np.ndarray | None,
    curvature: float,
    at_zero: bool = False,
    spare: np.ndarray | None = None,
) -> Intercept:
    """Minimise (1/S) Σ s_i φ(z_i + b) over b.

    A mean residual that rounding cannot tell from zero ends the search (csrc/engine/intercept.h).

    Parameters
    ----------
    problem : _core.Problem, or an object with its `loss_from_margins`
        Used for that, and for `curvature_from_margins` where it has `second_order`.
    z : ndarray of shape (n,) or (n, k)
        Margins in the problem's compute dtype; left as they are, and returned where b is zero.
    s : ndarray of shape (n,) or None
        Weights that sum to one.
    curvature : float
        A bound on φ'': 1/curvature times the mean residual never steps too far. May be infinite.
    at_zero : bool
        Whether all margins are zero: the search begins where the loss's link points.
    spare : ndarray like z, optional
        A buffer for the shifted margins, which are then returned in it.

    Returns
    -------
    Intercept
        The shift, the mean loss there, the shifted margins and their residuals.
    """
    core = problem
    while not isinstance(core, _core.Problem) and hasattr(core, "core"):
        core = core.core  # whose margins are the same
    moved, r = np.empty_like(z) if spare is None else spare, np.empty_like(z)
    at = core if isinstance(core, _core.Problem) else _Foreign(problem, s)
    b, value, shifted, given_value, mean, size = _core.best_intercept(
        at, z, curvature, moved, r, at_zero, core.loss)
    return Intercept(b, value, moved if shifted else z, r, given_value, mean, size)
