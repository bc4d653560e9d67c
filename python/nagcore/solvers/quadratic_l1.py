"""min over δ of ⟨g, δ⟩ + ½⟨δ, Cδ⟩ + l1‖w + δ‖₁ for a small dense C: active sets, or coordinate descent.

With the free coefficients and their signs fixed the problem is one linear system; the others are at
zero, or at a bound. With few columns and no bounds but w ≥ 0, exchanging whole blocks (wrong signs leave,
then all offenders enter) mostly finds both in two or three systems. It may cycle. Then, and in other
cases, coordinate descent finds them, and the system's solution is taken as far as none leaves the piece
of its interval on which l1|·| is linear (the last digits cost one solve, where coordinate descent would
crawl). The two alternate until no coordinate wants to move.

Source: Portugal, Júdice & Vicente 1994 (block pivoting); Friedman, Hastie & Tibshirani 2010
(coordinate descent on a Gram matrix); Osborne, Presnell & Turlach 2000 (the signed system).
"""

from __future__ import annotations

import numpy as np

from nagcore import _core
from nagcore.penalties import Box
from nagcore.solvers.dense import cholesky_solve

__all__ = ["FEW", "minimise", "violation"]

FEW = 64         # columns up to which a linear system costs less than sweeps
_SETTLED = 8      # active sets tried first
_SWEEPS = 4       # of coordinate descent between two signed systems
_ROUNDS = 100


def violation(q: np.ndarray, w: np.ndarray, l1: float, box: Box | None = None) -> np.ndarray:
    """How far zero is from q + l1·∂|w|, for each coordinate; with the box's normals where there is one.

    >>> violation(np.array([0.5, -2.0, 1.0]), np.array([0.0, 0.0, -3.0]), 1.0)
    array([0., 1., 0.])
    >>> violation(np.array([0.5, -2.0, 1.0]), np.array([0.0, 1.0, 1.0]), 0.0, Box(0.0, 1.0))
    array([0., 0., 1.])
    """
    if box is None or box.nonnegative:
        at_zero = np.abs(q) if box is None else -q
        return np.where(w == 0, np.maximum(at_zero - l1, 0.0), np.abs(q + l1 * np.sign(w)))
    down = np.where(w <= box.lower, -np.inf, np.where(w > 0, q + l1, q - l1))
    up = np.where(w >= box.upper, -np.inf, np.where(w < 0, l1 - q, -q - l1))
    return np.maximum(np.maximum(down, up), 0.0)


def minimise(
    C: np.ndarray, g: np.ndarray, w: np.ndarray, l1: float, accuracy: float, box: Box | None = None
) -> np.ndarray:
    """w + δ (in the box, as w is), until no violation is larger than `accuracy`.

    Parameters
    ----------
    C : ndarray of shape (p, p)
        Symmetric positive semidefinite.
    g, w : ndarray of shape (p,)
    l1, accuracy : float
    box : Box of p coefficients, optional

    >>> minimise(np.eye(2), np.array([-3.0, 0.5]), np.zeros(2), 1.0, 1e-12)
    array([2., 0.])
    >>> minimise(np.eye(2), np.array([-3.0, 0.5]), np.zeros(2), 0.0, 1e-12, Box([-1.0, -1.0], [1.0, 1.0]))
    array([ 1. , -0.5])
    """
    C = np.ascontiguousarray(C)
    positive = box is not None and box.nonnegative
    if len(w) <= FEW and (box is None or positive):
        settled = _core.settle_on_gram(C, g, w, l1, accuracy, _SETTLED, positive)
        if settled is not None:
            return settled
    w, q = w.copy(), g.copy()
    diagonal = C.diagonal()
    ends = (None, None) if box is None else (box.lower, box.upper)
    for _ in range(_ROUNDS):
        _core.sweep_on_gram_(C, q, w, l1, 0.01 * accuracy, _SWEEPS, *ends)
        if violation(q, w, l1, box)[diagonal > 0].max(initial=0.0) <= accuracy:
            return w
        _signed_step(C, q, w, l1, box)
    return w


def _free(C: np.ndarray, w: np.ndarray, l1: float, box: Box | None) -> np.ndarray:
    """Which coefficients may move both ways on the piece of l1|·| that they are on, and have curvature."""
    if box is None:
        return w.nonzero()[0]
    return (((w != 0) | (l1 == 0)) & (w > box.lower) & (w < box.upper) & (C.diagonal() > 0)).nonzero()[0]


def _pieces(A: np.ndarray, sign: np.ndarray, l1: float, box: Box | None):
    """The ends between which the coefficients A keep their signs, and stay in the box."""
    if box is None:
        return np.where(sign > 0, 0.0, -np.inf), np.where(sign < 0, 0.0, np.inf)
    low, high = box.lower[A], box.upper[A]
    if l1:
        low = np.where(sign > 0, np.maximum(low, 0.0), low)
        high = np.where(sign < 0, np.minimum(high, 0.0), high)
    return low, high


def _signed_step(C: np.ndarray, q: np.ndarray, w: np.ndarray, l1: float, box: Box | None) -> None:
    """Solve for the free coefficients with their signs, and go there until the first leaves its piece."""
    A = _free(C, w, l1, box)
    if not A.size:
        return
    sign = np.sign(w[A])
    CA = np.ascontiguousarray(C[np.ix_(A, A)])
    step = cholesky_solve(CA, -(q[A] + l1 * sign))
    low, high = _pieces(A, sign, l1, box)
    end = np.clip(w[A] + step, low, high)
    crossing = np.flatnonzero(end != w[A] + step)
    t = 1.0
    if crossing.size:
        ratios = (end - w[A])[crossing] / step[crossing]
        t = min(float(ratios.min()), 1.0)
    moved = np.clip(w[A] + t * step, low, high)
    if crossing.size:
        first = crossing[ratios.argmin()]
        moved[first] = end[first]
    change = moved - w[A]
    # Where rounding of a nearly singular system would go uphill, coordinate descent goes on alone.
    bend = float(np.einsum("i,ij,j->", change, CA, change))
    slope = float(np.einsum("i,i->", change, q[A] + l1 * sign))
    if slope + 0.5 * bend <= 0:
        w[A] = moved
        q += np.einsum("i,ij->j", change, C[A])
