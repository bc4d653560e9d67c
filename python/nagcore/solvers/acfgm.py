"""AC-FGM: an accelerated method that needs neither a line search nor the Lipschitz constant.

Source: Li & Lan 2023, "A simple uniformly optimal method without line search for convex optimization".
In the paper's symbols, with g = ∇f(x), β = 1 − √6/3 and α = 0.1:

    z = prox_η(y − ηg),  y ← (1 − β)y + βz,  x⁺ = (z + τx)/(1 + τ)
    L = ‖g⁺ − g‖²/(2[f(x) − f(x⁺) − ⟨g⁺, x − x⁺⟩])
    η⁺ = min(4η/3, η(τ₋ + 1)/τ, τ/(4L)),  τ⁺ = τ + 2(1 − α)η⁺L/τ + α/2

The bracket comes from margins (`Oracle.divergence`), so that it keeps its digits near the solution. One
that is not positive keeps η. Every pass counts: none is ever taken back after the first step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle

__all__ = ["METHOD", "acfgm"]

_BETA = 1 - np.sqrt(6) / 3
_ALPHA = 0.1


def acfgm(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass, from x; 2/(5L) is the first step tried."""
    z, r, z_new, r_new = (oracle.new_margins() for _ in range(4))
    y = x
    f, g = oracle.gradient(x, z, r)
    yield Iterate(x, f, z, x, f, z, g, L)

    # η₁ = 2/(5L₁), where L₁ depends on the step: a search, with β₁ = 0.
    for _ in range(20):
        eta = 0.4 / L
        x_new = oracle.prox(y - eta * g, eta)
        step = x_new - x
        size = dot(step, step)
        if size == 0:
            break
        f_new, g_new = oracle.gradient(x_new, z_new, r_new)
        change = g_new - g
        tried, L = L, np.sqrt(dot(change, change) / size)
        kept = L <= 2 * tried  # η₁ ≤ 4/(5L₁): near enough, as η₂ takes the new L₁
        if kept and f_new + oracle.l1_norm(x_new) <= f + oracle.l1_norm(x):
            break
        L = max(L, 2 * tried)
        yield Iterate(x, f, z, x_new, f_new, z_new, g_new, L, moved=False)
    if size == 0:
        x_new, f_new, g_new, z_new, r_new = x, f, g, z, r
    L = max(L, np.finfo(float).tiny)
    eta, tau, tau_old = min((1 - _BETA) * eta, 0.25 / L), 1.0, 0.0

    while True:
        x, f, g = x_new, f_new, g_new
        z, z_new, r, r_new = z_new, z, r_new, r
        yield Iterate(x, f, z, x, f, z, g, L)
        p = oracle.prox(y - eta * g, eta)
        y = (1 - _BETA) * y + _BETA * p
        x_new = (p + tau * x) / (1 + tau)
        f_new, g_new = oracle.gradient(x_new, z_new, r_new)
        change = g_new - g
        bracket = oracle.divergence(x, z, r, x_new, z_new, r_new)
        eta_new = min(4 / 3 * eta, eta * (tau_old + 1) / tau)
        if bracket > 0:
            L = dot(change, change) / (2 * bracket)
            eta_new = min(eta_new, tau / (4 * L)) if L > 0 else eta_new
            tau, tau_old = tau + 2 * (1 - _ALPHA) * eta_new * L / tau + _ALPHA / 2, tau
        else:
            eta_new = eta
            tau, tau_old = tau + _ALPHA / 2, tau
        eta = eta_new


METHOD = Method("acfgm", acfgm, bounded_curvature=True, averages=True)
