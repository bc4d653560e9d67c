"""Newton's method: gradient and Hessian in one fused pass, Cholesky, line search on margins.

    p = −(H + l2·I + τ·diag H)⁻¹ ∇f(w),   w⁺ = w + t·p

The full step t = 1 is tried by the next pass. Where f does not fall enough there, the margins of
both ends are known, and with them f on the whole segment at O(n) a point: the pass after that goes
to its minimum. The intercept is eliminated first, which centres the columns; they are then scaled to
a unit diagonal, so that neither units nor offsets of columns cost digits. A bad pivot (collinear
columns), or a step that had to be cut short, raises the ridge τ (Levenberg 1944, Marquardt 1963).

For classes the Hessian is that of all their coefficients together, from a Gram matrix for each pair of
them: for few classes and columns.

Source: Boyd & Vandenberghe, Convex Optimization, 9.5; Nocedal & Wright, Numerical Optimization, 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle
from nagcore.solvers.dense import ClassHessian, EquilibratedHessian
from nagcore.solvers.linesearch import ARMIJO, best_step

__all__ = ["METHOD", "newton"]

_SHORT = 0.1  # a step cut below this says that the model is poor: the ridge grows


def newton(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass, from x. L is not used: Newton's step has a length of its own."""
    objective, z, z_new = oracle.objective, oracle.new_margins(), oracle.new_margins()
    least = ridge = 64 * float(np.finfo(oracle.real).eps)
    f, g, H = oracle.hessian(x, z)
    if not math.isfinite(f):
        raise ValueError("the objective is infinite at the starting point; start elsewhere, or use "
                         "w0=None to start at the null model.")
    factorise = EquilibratedHessian if x.ndim == 1 else ClassHessian
    factor = factorise(H, objective.fit_intercept, ridge, objective.l2)
    h = factor.solve(g)
    size = dot(g, h)
    yield Iterate(x, f, z, x, f, z, g, L, decrement=0.5 * size)
    while True:
        ridge, p = factor.ridge, -h
        slope, t = -size, 1.0
        while True:
            x_new = x + p if t == 1 else x + t * p
            f_new, g_new, H_new = oracle.hessian(x_new, z_new)
            noise = oracle.rounding(f, z)
            resolved = -slope * t > noise
            if f_new <= f + ARMIJO * t * slope + (0.0 if resolved else noise):
                break
            if not resolved:
                # Values say nothing any more; what the gradient says must not grow either.
                if factor.norm(g_new) <= factor.norm(g):
                    break
                f_new, g_new, H_new, x_new = f, g, H, x
                np.copyto(z_new, z)
                break
            yield Iterate(x, f, z, x_new, f_new, z_new, g_new, L, moved=False)
            t = min(best_step(oracle, x, z, t * p, z_new, t * slope) * t, 0.9 * t)
        ridge = min(100 * ridge, 1.0) if t < _SHORT else max(ridge / 10, least)
        x, f, g, H, z, z_new = x_new, f_new, g_new, H_new, z_new, z
        factor = factorise(H, objective.fit_intercept, ridge, objective.l2)
        h = factor.solve(g)
        size = dot(g, h)
        yield Iterate(x, f, z, x, f, z, g, L, resolved=resolved, decrement=0.5 * size)


METHOD = Method("newton", newton, own_variables=True, smooth=True, patience=20, second_order=True,
                class_hessians=True)
