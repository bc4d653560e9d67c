"""l1-penalised least squares on the moments G and c: exact, by active sets.

    min_w ½wᵀGw − cᵀw + (l2/2)‖w‖² + l1‖w‖₁        (w ≥ 0 if asked for)

On a given active set with given signs the solution is a linear system. Which set it is, the
primal-dual active set method finds (Hintermüller, Ito & Kunisch 2003: Newton's method on the
optimality conditions), mostly in a few steps. It need not settle from afar, so where it does not it
follows a falling sequence of l1; where it still does not (singular sets), the square root of G, a
table of d rows, goes to `nagcore.minimize`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv

from nagcore.linear_model._moments import Quadratic
from nagcore.objective import Objective
from nagcore.objective.duality import infeasibility, penalty_gap
from nagcore.penalties import Penalty
from nagcore.solvers import run

__all__ = ["Sparse", "sparse_least_squares"]

_STEPS = 30        # of Newton's method at one l1
_RATIO = 0.7       # of successive l1 on the way down
_ROUNDING = 1e-10  # of max |c|: how well the optimality conditions must hold


class Sparse(NamedTuple):
    w: np.ndarray       # (d,)
    gap: float          # a bound of F(w) − min F
    n_iter: int         # active sets tried, or passes over the square root of G
    converged: bool
    message: str        # "interrupted" after Ctrl-C


def sparse_least_squares(
    q: Quadratic,
    j: int,
    penalty: Penalty,
    w: np.ndarray | None,
    tol: float,
    max_iter: float,
    seed: int = 0,
) -> Sparse:
    """Solve for target j of the moments, starting from w or from zero."""
    c = q.c[:, j]
    H = q.G
    if penalty.l2:
        H = H.copy()
        H.flat[:: len(c) + 1] += penalty.l2
    found = None
    if penalty.l1 or penalty.positive:
        start = np.zeros_like(c) if w is None else w
        found, steps = _settle(H, c, penalty.l1, penalty.positive, start, min(_STEPS, max_iter))
        if found is None and steps < max_iter:
            found, more = _descend(H, c, penalty, max_iter - steps)
            steps += more
    else:
        _, x, info = dposv(H, c)
        found, steps = (x, 1) if info == 0 and _is_solution(H, c, x) else (None, 1)
    if found is not None:
        return Sparse(found, _gap(q, j, found, penalty), steps, True, "")
    return _by_passes(q, j, penalty, w, tol, max_iter, seed)


def _is_solution(H, c, x) -> bool:
    return bool(np.abs(c - H @ x).max() <= _ROUNDING * np.abs(c).max(initial=0.0))


def _settle(H, c, l1, positive, w, steps) -> tuple[np.ndarray | None, int]:
    """Newton's method on the active set, from w. None where it does not settle."""
    gamma = H.diagonal()
    slack = _ROUNDING * float(np.abs(c).max(initial=0.0)) + 1e-300
    with np.errstate(over="ignore", invalid="ignore"):
        g = c - H @ w
        t = gamma * w + g
        for step in range(1, int(steps) + 1):
            active = np.flatnonzero(t > l1 if positive else np.abs(t) > l1)
            sign = np.sign(t[active])
            w = np.zeros_like(c)
            if active.size:
                _, x, info = dposv(H[np.ix_(active, active)], c[active] - l1 * sign)
                if info != 0:
                    return None, step
                w[active] = x
                g = c - H[:, active] @ x
            else:
                x, g = w[:0], c.copy()
            t = gamma * w + g
            g[active] -= l1 * sign
            if not np.isfinite(t).all() or np.abs(g[active]).max(initial=0.0) > slack:
                return None, step
            free = np.ones(len(c), bool)
            free[active] = False
            outside = g[free] if positive else np.abs(g[free])
            if (x * sign >= 0).all() and outside.max(initial=-math.inf) <= l1 + slack:
                return w, step
    return None, int(steps)


def _descend(H, c, penalty: Penalty, budget) -> tuple[np.ndarray | None, int]:
    """Follow l1 from where all coefficients are zero down to the one asked for."""
    l1 = float(c.max(initial=0.0) if penalty.positive else np.abs(c).max(initial=0.0))
    w, total = np.zeros_like(c), 0
    floor = max(penalty.l1, 1e-9 * l1)
    while total < budget:
        l1 = max(l1 * _RATIO, floor)
        target = penalty.l1 if l1 == floor else l1
        found, steps = _settle(H, c, target, penalty.positive, w, min(_STEPS, budget - total))
        total += steps
        if found is None or l1 == floor:
            return found, total
        w = found
    return None, total


def _gap(q: Quadratic, j: int, w: np.ndarray, penalty: Penalty) -> float:
    """The duality gap at w, with the residuals shrunk into the dual set where l2 = 0 asks for it."""
    c, Gw = q.c[:, j], q.G @ w
    u = Gw - c
    gap = penalty_gap(w, u, penalty)
    largest = infeasibility(u, penalty)
    if penalty.l1 and largest > penalty.l1:
        scale = penalty.l1 / largest
        square = max(float(q.yy[j] - c @ w + u @ w), 0.0)
        gap = min(gap, penalty_gap(w, scale * u, penalty) + 0.5 * (1 - scale) ** 2 * square)
    return gap


def _by_passes(q: Quadratic, j, penalty, w, tol, max_iter, seed) -> Sparse:
    """The same minimum from d rows whose moments are G and c."""
    values, V = np.linalg.eigh(q.G)
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    if not kept.any():
        return Sparse(np.zeros(len(values)), 0.0, 1, True, "")
    root = np.sqrt(values[kept])
    rows = math.sqrt(np.count_nonzero(kept))
    X = np.ascontiguousarray((V[:, kept] * root).T) * rows
    z = (V[:, kept].T @ q.c[:, j]) / root * rows
    objective = Objective(X, z, loss="squared", l1=penalty.l1, l2=penalty.l2,
                          positive=penalty.positive, fit_intercept=False)
    # F₀ of these rows lacks the part of y that no w explains, which F₀ − F has not either.
    result = run(objective, w, tol=tol, max_passes=math.inf, max_iter=max_iter, seed=seed)
    return Sparse(result.coef, result.gap, result.n_iter, result.converged,
                  result.message)
