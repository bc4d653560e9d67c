"""l1-penalised least squares on the moments G and c: exact, by active sets.

    min_w ½wᵀGw − cᵀw + (l2/2)‖w‖² + l1‖w‖₁        (w ≥ 0 if asked for)

On a given active set with given signs the solution is a linear system. Which set it is, the
primal-dual active set method finds (Hintermüller, Ito & Kunisch 2003: Newton's method on the
optimality conditions), mostly in a few steps. It may cycle, so where it does not settle the set is
searched feature by feature (Lee, Battle, Raina & Ng 2006), with F falling all the way. Where even
that fails, the square root of G, a table of d rows, goes to `nagcore.minimize`.
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

_STEPS = 10        # of Newton's method: where it settles, it has by then
_SINGULAR = 1e-13  # least pivot, of a matrix scaled to unit diagonal, that is not rounding
_FAR = 1e100
_ROUNDING = 1e-10  # of max |c|: how well the optimality conditions must hold


class Sparse(NamedTuple):
    """A minimiser of ½wᵀGw − cᵀw + l1‖w‖₁ + (l2/2)‖w‖², and how sure it is."""

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
    """Solve for target j of the moments, starting from w or from zero. Only passes are limited."""
    c = q.c[:, j]
    H = q.G
    if penalty.l2:
        H = H.copy()
        H.flat[:: len(c) + 1] += penalty.l2
    found = None
    if penalty.l1 or penalty.positive:
        start = np.zeros_like(c) if w is None else w
        found, steps = _settle(H, c, penalty.l1, penalty.positive, start)
        if found is None:
            found, more = _walk(H, c, penalty.l1, penalty.positive, start)
            steps += more
    else:
        _, x, info = dposv(H, c)
        found, steps = (x, 1) if info == 0 and _is_solution(H, c, x) else (None, 1)
    if found is not None:
        return Sparse(found, _gap(q, j, found, penalty), steps, True, "")
    return _by_passes(q, j, penalty, w, tol, max_iter, seed)


def _is_solution(H, c, x) -> bool:
    return bool(np.abs(c - H @ x).max() <= _ROUNDING * np.abs(c).max(initial=0.0))


def _settle(H, c, l1, positive, w) -> tuple[np.ndarray | None, int]:
    """Newton's method on the active set, from w. None where it does not settle."""
    gamma = H.diagonal()
    slack = _ROUNDING * float(np.abs(c).max(initial=0.0)) + 1e-300
    with np.errstate(over="ignore", invalid="ignore"):
        g = c - H @ w
        t = gamma * w + g
        for step in range(1, _STEPS + 1):
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
    return None, _STEPS


def _walk(H, c, l1, positive, w) -> tuple[np.ndarray | None, int]:
    """Feature by feature, F falling with every step: slower than Newton's method, and sure to arrive.

    On the active set the step goes to the solution with its signs, or as far as the first coefficient
    that would change its sign, which then leaves. At that solution the coordinate that breaks its
    condition most enters. None where the matrix of the active set is singular.
    """
    w = w.copy()
    active = [int(j) for j in np.flatnonzero(w)]
    sign = [float(s) for s in np.sign(w[active])]
    slack = _ROUNDING * float(np.abs(c).max(initial=0.0)) + 1e-300
    most = 20 * len(c) + 100
    for step in range(1, most + 1):
        if active:
            index, signs = np.array(active), np.array(sign)
            now = w[index]
            L, x, info = dposv(H[np.ix_(index, index)], c[index] - l1 * signs)
            pivots = L.diagonal() ** 2 / H.diagonal()[index]
            if info != 0 or not pivots.min() > _SINGULAR:
                away = _null_direction(H, index, signs)
                if away is None:
                    return None, step
                x = now + away
            crosses = x * signs < 0
            if crosses.any():
                # A coefficient that has just entered is at zero, and moves to its own side.
                reach = np.where(crosses, now / np.where(crosses, now - x, 1.0), np.inf)
                first = int(np.argmin(reach))
                w[index] = now + reach[first] * (x - now)
                w[index[first]] = 0.0
                del active[first], sign[first]
                continue
            w[index] = x
        g = c - H @ w
        broken = (g if positive else np.abs(g)) - l1
        if active:
            if np.abs(g[active] - l1 * np.array(sign)).max() > slack:
                return None, step
            broken[active] = -math.inf
        enters = int(np.argmax(broken))
        if broken[enters] <= slack:
            return w, step
        active.append(enters)
        sign.append(float(np.sign(g[enters])))
    return None, most


def _null_direction(H, index, signs) -> np.ndarray | None:
    """Where the last to enter depends on the others: the way, into its sign, that changes no margin.

    It is long enough for a coefficient to reach zero; None if none does, or more depend on each other.
    """
    if len(index) < 2:
        return None
    rest, last = index[:-1], index[-1]
    L, x, info = dposv(H[np.ix_(rest, rest)], H[rest, last])
    if info != 0 or not (L.diagonal() ** 2 / H.diagonal()[rest]).min() > _SINGULAR:
        return None
    away = np.append(-x, 1.0) * signs[-1]
    if not (away * signs < 0).any():
        return None
    return away * _FAR


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
