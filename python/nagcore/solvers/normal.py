"""Least squares by the normal equations: the Gram matrix in one pass, Cholesky, refinement.

    w⁺ = w + α·p,   p = −H⁻¹∇F(w) + β·p₋,   H = X̃ᵀSX̃/S + l2·I,   α exact

The first pass gives ∇F and H, the second confirms the solution. What rounding leaves (H is rounded,
and in float32 its blocks are) is refined by conjugate gradients with H⁻¹ as preconditioner, a pass
each: on a quadratic the gradient at the end of a step gives the curvature along it, so the step has
its exact length and the gradient there is known too. At l2 = 0 and deficient rank the solution is
that of minimum norm, as `numpy.linalg.lstsq` gives, of columns centred where there is an intercept.

Source: Björck, Numerical Methods for Least Squares Problems, 2.3 and 7.4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle
from nagcore.solvers.dense import EquilibratedHessian, MinimumNorm

__all__ = ["METHOD", "normal"]

_EXACT = 0.1  # a step that is right to this is taken whole: its margins are those of a pass


def normal(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass, from x. L is not used: the step has a length of its own."""
    objective = oracle.objective
    z, z_new = oracle.new_margins(), oracle.new_margins()
    f, g, H = oracle.hessian(x, z)
    factor: EquilibratedHessian | MinimumNorm
    if objective.l2:
        factor = EquilibratedHessian(H, objective.fit_intercept, 0.0, objective.l2)
    else:
        factor = MinimumNorm(H, objective.fit_intercept, float(np.finfo(oracle.real).eps))
        x_inside = factor.project(x)
        if not np.array_equal(x_inside, x):  # a start with a part that X does not see
            x = x_inside
            f, g = oracle.gradient(x, z)
    h = factor.solve(g)
    size = dot(g, h)
    yield Iterate(x, f, z, x, f, z, g, L, decrement=0.5 * size)
    p = -h
    while True:
        x_end = x + p
        f_end, g_end = oracle.gradient(x_end, z_new)
        change = g_end - g
        bend, slope = dot(p, change), dot(p, g)
        alpha = -slope / bend if bend > 0 else 1.0
        if abs(alpha - 1) <= _EXACT:
            x, f, g_new, z, z_new = x_end, f_end, g_end, z_new, z
        else:
            x, g_new = x + alpha * p, g + alpha * change
            z += oracle.real.type(alpha) * (z_new - z)
            f = oracle.smooth(x, z)
        h = factor.solve(g_new)
        size_new = dot(g_new, h)
        beta = max(0.0, size_new - dot(g, h)) / size if size > 0 else 0.0
        resolved = abs(slope) > oracle.rounding(f, z)
        g, size = g_new, size_new
        yield Iterate(x, f, z, x, f, z, g, L, resolved=resolved, decrement=0.5 * size)
        p = -h + beta * p


# In float64 from the start: a Gram matrix in float32 would be followed by one in float64.
METHOD = Method("normal", normal, own_variables=True, smooth=True, patience=20, second_order=True,
                losses=("squared",), wide_beyond=0)
