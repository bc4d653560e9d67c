"""Least squares with many columns: conjugate gradients in the metric of a diagonal preconditioner.

    p = −∇f(x) + β·p₋,   x⁺ = x + α·p,   α exact

The variables are those of `Coordinates`, in which P is the identity. One pass a step: f is quadratic, so
the gradient at a trial step's end gives the curvature along it, hence α, and the gradient at x⁺ as well.
The trial has the length of the step before, so that passes stay near the points they speak of.

Source: Hestenes & Stiefel 1952; Björck, Numerical Methods for Least Squares Problems, 7.4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle

__all__ = ["METHOD", "cg"]


def cg(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass, from x; the first trial step is −∇f/L."""
    z, z_end = oracle.new_margins(), oracle.new_margins()
    f, g = oracle.start(x, z)
    u = oracle.u
    yield Iterate(x, f, z, x, f, z, g, L)
    p, size, trial = -g, dot(g, g), 1 / L
    while True:
        x_end = x + trial * p
        _, g_end = oracle.gradient(x_end, z_end)
        change, slope = g_end - g, dot(p, g)
        bend = dot(p, change) / trial
        alpha = -slope / bend if bend > 0 else trial
        share = alpha / trial
        x = x + alpha * p
        z_end -= z
        z_end *= oracle.real.type(share)
        z += z_end
        # What the pass would have found at x: everything is linear in the step but the value.
        u = u + share * (oracle.u - u)
        oracle.w, oracle.u = oracle.coordinates.to_w(x), u
        oracle.data_value = oracle.problem.loss_from_margins(z)
        f, g_new = oracle.with_penalty(oracle.w)
        resolved = 0.5 * alpha * abs(slope) > oracle.rounding(f, z)
        size_new = dot(g_new, g_new)
        beta = max(0.0, size_new - dot(g_new, g)) / size if size > 0 else 0.0
        g, size = g_new, size_new
        yield Iterate(x, f, z, x, f, z, g, L, resolved=resolved)
        p, trial = beta * p - g, alpha


METHOD = Method("cg", cg, smooth=True, patience=20, losses=("squared",))
