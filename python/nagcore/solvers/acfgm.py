"""AC-FGM: an accelerated method that needs neither a line search nor the Lipschitz constant.

Source: Li & Lan 2023, "A simple uniformly optimal method without line search for convex
optimization". In the paper's symbols, with g = ∇f(x), β = 1 − √6/3 and α = 0.1:

    z = prox_η(y − ηg),  y ← (1 − β)y + βz,  x⁺ = (z + τx)/(1 + τ)
    L = ‖g⁺ − g‖²/(2[f(x) − f(x⁺) − ⟨g⁺, x − x⁺⟩])
    η⁺ = min(4η/3, η(τ₋ + 1)/τ, τ/(4L)),  τ⁺ = τ + 2(1 − α)η⁺L/τ + α/2

The bracket comes from margins (`Oracle.divergence`), so that it keeps its digits near the solution.
One that is not positive is rounding, and keeps η. Every pass counts: none is ever taken back after
the first step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle

__all__ = ["METHOD", "acfgm"]

_BETA = 1 - math.sqrt(6) / 3
_ALPHA = 0.1


def acfgm(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass, from x; 2/(5L) is the first step tried."""
    z, r, z_new, r_new = (oracle.new_margins() for _ in range(4))
    y, eta, tau, tau_old = x, 0.4 / L, 0.0, 0.0  # τ = 0 marks the first step, with β₁ = 0
    f, g = oracle.gradient(x, z, r)
    yield Iterate(x, f, z, x, f, z, g, L)
    while True:
        p = oracle.prox(y - eta * g, eta)
        x_new = (p + tau * x) / (1 + tau)
        f_new, g_new = oracle.gradient(x_new, z_new, r_new)
        bracket = oracle.divergence(x, z, r, x_new, z_new, r_new)
        change = g_new - g
        seen = dot(change, change) / (2 * bracket) if bracket > 0 else 0.0
        if tau == 0:
            if seen > L or not math.isfinite(f_new):
                # η₁ = 2/(5L₁) was too long: search on.
                L = max(2 * L, seen) if seen < math.inf else 2 * L
                eta = 0.4 / L
                yield Iterate(x, f, z, x_new, f_new, z_new, g_new, L, moved=False)
                continue
            eta, tau = min((1 - _BETA) * eta, 1 / (4 * (seen or L))), 1.0
        else:
            y = (1 - _BETA) * y + _BETA * p
            if seen > 0:
                L = seen
                eta = min(4 / 3 * eta, eta * (tau_old + 1) / tau, tau / (4 * L))
                tau, tau_old = tau + 2 * (1 - _ALPHA) * eta * L / tau + _ALPHA / 2, tau
        x, f, g, z, z_new, r, r_new = x_new, f_new, g_new, z_new, z, r_new, r
        yield Iterate(x, f, z, x, f, z, g, L)


METHOD = Method("acfgm", acfgm, bounded_curvature=True, averages=True)
