"""Truncated Newton for wide sparse data: conjugate gradients on the Newton system, in the space of rows.

    H d ≈ −∇F(w),   w⁺ = w + t·d

The unknowns are those of `RowCoordinates`: a product with H costs one trip over X, every other vector
is of the size of the margins, and the gap's bound ‖∇F‖²/(2·l2) comes without one. The inner iteration
ends where a step adds less to the model's decrease than the steps so far did on average: there is no
test that needs another product. Margins are linear in the unknowns, so the line search needs none
either. Least squares are one linear system: then the inner iteration is never cut short, and it is the
conjugate gradients of `X̃ᵀSX̃/S + l2·I`, one trip a step.

Source: Nash, A Survey of Truncated-Newton Methods, 2000; Nash & Sofer, Assessing a Search Direction
within a Truncated-Newton Method, 1990; Nocedal & Wright, Numerical Optimization, 5.1 and 7.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method
from nagcore.solvers.linesearch import ARMIJO
from nagcore.solvers.rowspace import RowOracle

__all__ = ["METHOD", "newton_cg"]

_ENOUGH = 0.8   # of the mean decrease of the inner steps so far: a step that adds less is the last
_MOST = 50      # inner steps
_SHORTEST = 1e-8


def newton_cg(rows: RowOracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per Newton step, from x; for least squares one per conjugate gradient step."""
    x, Kx, z, r, f = rows.start(x)
    g = rows.gradient(x, r)
    Kg = rows.product(g)
    yield _iterate(rows, x, f, z, g, Kg, L)
    if rows.objective.loss.name == "squared":
        yield from _conjugate(rows, (x, Kx, z, r, f), g, Kg, L)
    while True:
        d, Kd = _direction(rows, z, g, Kg)
        slope, t = rows.inner(g, d, Kd), 1.0
        n, along = len(z), rows.total(d, Kd)
        square, cross, far = dot(x[:n], Kx), dot(d[:n], Kx), dot(d[:n], Kd)
        noise = rows.rounding(f, z)
        while True:
            t = t if t > _SHORTEST else 0.0  # no step at all: the direction was no better than rounding
            z_new = z + rows.real.type(t) * along
            r_new = np.empty_like(z)
            f_new = rows.value_at(z_new, square + t * (2 * cross + t * far), r_new)
            resolved = -slope * t > noise
            if f_new <= f + (ARMIJO * t * slope if resolved else noise) or not t:
                break
            # The minimum of the parabola through what is known, within a tenth and a half of t.
            lift = f_new - f - t * slope
            t *= min(max(-0.5 * t * slope / lift if lift > 0 else 0.5, 0.1), 0.5)
        x, Kx = x + rows.real.type(t) * d, Kx + rows.real.type(t) * Kd
        z, r, f = z_new, r_new, f_new
        g = rows.gradient(x, r)
        Kg = rows.product(g)
        yield _iterate(rows, x, f, z, g, Kg, L, resolved)


def _iterate(rows, x, f, z, g, Kg, L, resolved=True) -> Iterate:
    n = len(z)
    bound = 0.5 * dot(g[:n], Kg) / rows.objective.l2
    return Iterate(x, f, z, x, f, z, g, L, resolved=resolved, bound=max(bound, 0.0))


def _direction(rows: RowOracle, z, g, Kg) -> tuple[np.ndarray, np.ndarray]:
    """d with H d ≈ −g, and K d: conjugate gradients from zero, whose every step descends."""
    curve = rows.curvature(z)
    rho, p, Kp = -g, -g, -Kg
    size = rows.inner(g, g, Kg)
    d, Kd, gained = np.zeros_like(g), np.zeros_like(Kg), 0.0
    for j in range(1, _MOST + 1):
        Hp, bend = rows.bend(curve, p, Kp)
        if not bend > 0 or not size > 0:
            break
        alpha = size / bend
        d += rows.real.type(alpha) * p
        Kd += rows.real.type(alpha) * Kp
        gain = 0.5 * alpha * size
        gained += gain
        if j * gain <= _ENOUGH * gained:
            break
        Hp *= rows.real.type(alpha)
        rho -= Hp
        Krho = rows.product(rho)
        size, before = rows.inner(rho, rho, Krho), size
        p *= rows.real.type(size / before)
        p += rho
        Kp *= rows.real.type(size / before)
        Kp += Krho
    return d, Kd


def _conjugate(rows: RowOracle, start, g, Kg, L) -> Iterator[Iterate]:
    """Conjugate gradients on a quadratic, each residual from its own margins, so that none drifts."""
    x, Kx, z, r, f = start
    curve = rows.curvature(z)
    p, Kp, n = -g, -Kg, len(z)
    size = rows.inner(g, g, Kg)
    while True:
        _, bend = rows.bend(curve, p, Kp)
        slope = rows.inner(g, p, Kp)
        alpha = rows.real.type(-slope / bend if bend > 0 else 0.0)
        resolved = -0.5 * alpha * slope > rows.rounding(f, z)
        x, Kx = x + alpha * p, Kx + alpha * Kp
        z, r = z + alpha * rows.total(p, Kp), np.empty_like(z)
        f = rows.value_at(z, dot(x[:n], Kx), r)
        g_before, g = g, rows.gradient(x, r)
        across = rows.inner(g, g_before, Kg)
        Kg = rows.product(g)
        size, before = rows.inner(g, g, Kg), size
        beta = rows.real.type(max(0.0, (size - across) / before) if before > 0 else 0.0)
        p, Kp = beta * p - g, beta * Kp - Kg
        yield _iterate(rows, x, f, z, g, Kg, L, resolved)


METHOD = Method("newton_cg", newton_cg, own_variables=True, smooth=True, patience=20, rows=True)
