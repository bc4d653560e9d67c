"""min over δ of ⟨g, δ⟩ + ½⟨δ, Cδ⟩ + l1‖w + δ‖₁ for a small dense C: active sets, or coordinate descent.

With the support and its signs fixed the problem is one linear system. With few columns, exchanging whole
blocks (wrong signs leave, then all offenders enter) mostly finds both in two or three systems. It may
cycle. Then, and with more columns, coordinate descent finds them, and the system's solution is taken as
far as no sign changes (the last digits cost one solve, where coordinate descent would crawl). The two
alternate until no coordinate wants to move.

Source: Portugal, Júdice & Vicente 1994 (block pivoting); Friedman, Hastie & Tibshirani 2010
(coordinate descent on a Gram matrix); Osborne, Presnell & Turlach 2000 (the signed system).
"""

from __future__ import annotations

import numpy as np

from nagcore import _core
from nagcore.solvers.dense import cholesky_solve

__all__ = ["minimise", "violation"]

_FEW = 64         # columns up to which a linear system costs less than sweeps
_SETTLED = 8      # active sets tried first
_SWEEPS = 4       # of coordinate descent between two signed systems
_ROUNDS = 100


def violation(q: np.ndarray, w: np.ndarray, l1: float, positive: bool = False) -> np.ndarray:
    """How far zero is from q + l1·∂|w|, for each coordinate; with w ≥ 0 if `positive`.

    >>> violation(np.array([0.5, -2.0, 1.0]), np.array([0.0, 0.0, -3.0]), 1.0)
    array([0., 1., 0.])
    """
    at_zero = -q if positive else np.abs(q)
    return np.where(w == 0, np.maximum(at_zero - l1, 0.0), np.abs(q + l1 * np.sign(w)))


def minimise(
    C: np.ndarray, g: np.ndarray, w: np.ndarray, l1: float, accuracy: float, positive: bool = False
) -> np.ndarray:
    """w + δ (≥ 0 if `positive`, as w is), until no violation is larger than `accuracy`.

    Parameters
    ----------
    C : ndarray of shape (p, p)
        Symmetric positive semidefinite.
    g, w : ndarray of shape (p,)
    l1, accuracy : float

    >>> minimise(np.eye(2), np.array([-3.0, 0.5]), np.zeros(2), 1.0, 1e-12)
    array([2., 0.])
    """
    C = np.ascontiguousarray(C)
    if len(w) <= _FEW:
        settled = _core.settle_on_gram(C, g, w, l1, accuracy, _SETTLED, positive)
        if settled is not None:
            return settled
    w, q = w.copy(), g.copy()
    diagonal = C.diagonal()
    for _ in range(_ROUNDS):
        _core.sweep_on_gram_(C, q, w, l1, 0.01 * accuracy, _SWEEPS, positive)
        if violation(q, w, l1, positive)[diagonal > 0].max(initial=0.0) <= accuracy:
            return w
        _signed_step(C, q, w, l1)
    return w


def _signed_step(C: np.ndarray, q: np.ndarray, w: np.ndarray, l1: float) -> None:
    """Solve for the support with its signs, and go there until the first sign would change."""
    A = np.flatnonzero(w)
    if not A.size:
        return
    sign = np.sign(w[A])
    CA = np.ascontiguousarray(C[np.ix_(A, A)])
    step = cholesky_solve(CA, -(q[A] + l1 * sign))
    crossing = sign * (w[A] + step) < 0
    t = 1.0
    if crossing.any():
        ratios = w[A][crossing] / -step[crossing]
        t = float(ratios.min())
    moved = w[A] + t * step
    if t < 1:
        moved[np.flatnonzero(crossing)[int(ratios.argmin())]] = 0.0
    change = moved - w[A]
    # Where rounding of a nearly singular system would go uphill, coordinate descent goes on alone.
    bend = float(np.einsum("i,ij,j->", change, CA, change))
    slope = float(np.einsum("i,i->", change, q[A] + l1 * sign))
    if slope + 0.5 * bend <= 0:
        w[A] = moved
        q += np.einsum("i,ij->j", change, C[A])
