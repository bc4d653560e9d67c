"""FISTA with backtracking at one pass per iteration, adaptive restart and steps that grow again.

Source: Beck & Teboulle 2009; restart of O'Donoghue & Candès 2015; growing steps of Scheinberg,
Goldfarb & Bai 2014. In the paper's symbols:

    x⁺ = prox_{1/L}(y − ∇f(y)/L),  t⁺ = (1 + √(1 + 4t²L⁺/L))/2,  y⁺ = x⁺ + ((t − 1)/t⁺)(x⁺ − x)

Textbook backtracking evaluates f(x⁺), a pass of its own. Margins are linear, so here the pass at y⁺
gives the margins of x⁺ as well, z(x⁺) = (z(y⁺) + β z(x))/(1 + β) (the weights add up to one:
rounding does not grow), and f(x⁺) is O(n). The test of a step thus comes one pass later, and a step
that fails it is taken back with a larger L: a pass is lost only then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle

__all__ = ["METHOD", "fista"]

_GROWTH = 0.9   # L shrinks by this at most once per _PATIENCE steps that pass the test
_PATIENCE = 5
_TINY = 1e-300
_SLACK = 1.001  # an L that is exact (least squares, all rows sampled) must pass in spite of rounding


def fista(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass, from x, with 1/L as the first step."""
    zy, zx, z_old = oracle.new_margins(), oracle.new_margins(), oracle.new_margins()
    y, x_old = x, x
    t, beta, passed = 1.0, 0.0, 0
    met = 0.0  # half the curvature along a step that was taken back
    origin: Any = None  # (y, f(y), ∇f(y)) that x was stepped from
    while True:
        f, g = oracle.gradient(y, zy)
        if beta:
            np.multiply(z_old, beta, out=zx)
            zx += zy
            zx /= 1 + beta
            fx = oracle.smooth(x, zx)
        else:
            np.copyto(zx, zy)
            fx = f
        resolved = True
        if origin is not None:
            y0, f0, g0 = origin
            step = x - y0
            size = dot(step, step)
            rise, model = fx - f0 - dot(g0, step), 0.5 * L * size
            if not (rise <= _SLACK * model and model > 1e-6 * abs(f0)):
                noise = oracle.rounding(f0, zy) if math.isfinite(fx) else 0.0
                resolved = model > noise
                # A curvature that grows as the step shrinks is rounding too.
                noisy = 0 < met < math.inf and rise > 16 * met * size
                if not (rise <= _SLACK * model + noise or noisy or size == 0):
                    # The curvature met along the step says how much L must grow, within reason.
                    met = rise / size
                    L *= min(max(2.0, rise / max(model, _TINY)), 64.0) if rise < math.inf else 16.0
                    x = oracle.prox(y0 - g0 / L, 1 / L)
                    y, passed = x + beta * (x - x_old), 0
                    yield Iterate(x_old, math.nan, z_old, y, f, zy, g, L, moved=False)
                    continue
            met = 0.0
        if not math.isfinite(f):
            if not beta:
                raise ValueError("the objective is infinite at the starting point; start elsewhere, "
                                 "or use w0=None to start at the null model.")
            # x is sound and the extrapolation beyond it overflows (an exponential loss): stop there.
            y, t, beta = x, 1.0, 0.0
            x_old, z_old, zx, origin = x, zx, z_old, None
            oracle.spare = zx
            yield Iterate(x, fx, z_old, y, f, zy, g, L, moved=False)
            continue
        oracle.spare = z_old
        yield Iterate(x, fx, zx, y, f, zy, g, L, resolved=resolved)
        if resolved:
            passed += 1
        else:
            # Values say nothing any more, but gradients do: curvature between two passes bounds L below.
            hop = y - y0
            L, passed = max(L, dot(g - g0, hop) / max(dot(hop, hop), _TINY)), 0
        origin, z_old, zx = (y, f, g), zx, z_old
        L_new = L
        if passed >= _PATIENCE:
            L_new, passed = L * _GROWTH, 0
        x_new = oracle.prox(y - g / L_new, 1 / L_new)
        if dot(y - x_new, x_new - x) > 0:
            t, beta = 1.0, 0.0
        else:
            t_new = 0.5 * (1 + math.sqrt(1 + 4 * t * t * L_new / L))
            beta, t = (t - 1) / t_new, t_new
        x_old, x, L = x, x_new, L_new
        y = x + beta * (x - x_old) if beta else x


METHOD = Method("fista", fista, screens=True)
