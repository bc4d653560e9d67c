"""L-BFGS in the metric of a preconditioner, one pass per iteration, line search on margins.

    p = −H_k ∇f(x),   x⁺ = x + t·p,   H₀ = γ·P⁻¹,   γ = ⟨s, y⟩/⟨y, y⟩ in the metric of P

The variables are those of `Coordinates`, in which P is the identity, so that the two loops are the
textbook's. The full step is tried by the next pass; where f does not fall enough there, the margins
of both ends give f on the whole segment, at O(n) a point, and the next pass goes to its minimum.
Pairs (s, y) outlive their variables: a new metric, or float64 in place of float32, takes them over.

Source: Liu & Nocedal 1989; Nocedal & Wright, Numerical Optimization, algorithm 7.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from nagcore import _core
from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle
from nagcore.solvers.linesearch import ARMIJO, best_step

__all__ = ["METHOD", "plbfgs"]

def plbfgs(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass, from x, with H₀ = P⁻¹/L until a pair is known."""
    z, z_new = oracle.new_margins(), oracle.new_margins()
    pairs = oracle.pairs()
    f, g = oracle.start(x, z)
    oracle.spare = z_new
    yield Iterate(x, f, z, x, f, z, g, L)
    while True:
        p = -two_loops(pairs, g, L)
        slope, t = dot(g, p), 1.0
        if not slope < 0:
            pairs.clear()
            p, slope = -g / L, -dot(g, g) / L
        while True:
            x_new = x + t * p
            f_new, g_new = oracle.gradient(x_new, z_new)
            noise = oracle.rounding(f, z)
            resolved = -slope * t > noise
            if f_new <= f + (ARMIJO * t * slope if resolved else noise):
                break
            yield Iterate(x, f, z, x_new, f_new, z_new, g_new, L, moved=False)
            t = min(t * best_step(oracle, x, z, t * p, z_new, t * slope), 0.9 * t)
        s, y = x_new - x, g_new - g
        if dot(s, y) > 1e-10 * dot(y, y) > 0:
            pairs.append((s, y))
        x, f, g, z, z_new = x_new, f_new, g_new, z_new, z
        oracle.spare = z_new
        yield Iterate(x, f, z, x, f, z, g, L, resolved=resolved)


def two_loops(pairs: deque, g: np.ndarray, L: float) -> np.ndarray:
    """H_k g from the pairs (s, y), oldest first."""
    return _core.two_loops(pairs, g) if pairs else g / L


METHOD = Method("plbfgs", plbfgs, smooth=True, patience=20)
