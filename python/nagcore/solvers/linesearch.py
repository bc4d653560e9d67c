"""The best step along a segment whose two ends have known margins. Every trial is O(n), none a pass."""

from __future__ import annotations

import math

import numpy as np

from nagcore.objective.duality import dot, row_mean
from nagcore.solvers.base import Oracle

__all__ = ["ARMIJO", "best_step"]

ARMIJO = 1e-4
_TRIALS = 12


def best_step(oracle: Oracle, x, z, p, z_end, slope: float) -> float:
    """A t in (0, 1) near the minimum of f(x + t·p), from the margins z at t = 0 and z_end at t = 1.

    The slope in t is (1/S) Σ s_i φ'(z_i + t·h_i) h_i + l2⟨w + t·δ, δ⟩ with h = z_end − z: its root by
    the secant rule inside a bracket that shrinks. `slope` is its value at t = 0, negative. `z_end` may be
    written: where the problem has no `slope_along`, h takes its place.
    """
    objective, problem = oracle.objective, oracle.problem
    d, l2 = objective.shape[1], objective.l2
    slope_along = problem.slope_along or _Slopes(oracle, z, z_end)
    w = oracle.coordinates.to_w(x)[:d]
    delta = oracle.coordinates.to_w(x + p)[:d] - w
    linear, square = (l2 * dot(w, delta), l2 * dot(delta, delta)) if l2 else (0.0, 0.0)

    def slope_at(t: float) -> float:
        value = slope_along(z, z_end, t) + linear + t * square
        return value if not math.isnan(value) else math.inf

    low, high, at_low, at_high = 0.0, 1.0, slope, slope_at(1.0)
    t = 1.0
    for i in range(_TRIALS):
        secant = low - at_low * (high - low) / (at_high - at_low) if math.isfinite(at_high) else -1.0
        # Every third step bisects: an exponential cannot stall the secant.
        inside = low + 1e-3 * (high - low) < secant < high - 1e-3 * (high - low)
        t = secant if inside and i % 3 != 2 else 0.5 * (low + high)
        here = slope_at(t)
        if abs(here) <= 0.1 * abs(slope) or high - low < 1e-10:
            break
        if here < 0:
            low, at_low = t, here
        else:
            high, at_high = t, here
    return t


class _Slopes:
    """`slope_along` of a problem that has residuals alone."""

    def __init__(self, oracle: Oracle, z: np.ndarray, z_end: np.ndarray) -> None:
        self._oracle, self._r = oracle, np.empty_like(z)
        self._h = np.subtract(z_end, z, out=z_end)

    def __call__(self, z: np.ndarray, z_end: np.ndarray, t: float) -> float:
        trial = self._h * self._oracle.real.type(t)
        trial += z
        self._oracle.problem.loss_from_margins(trial, self._r)
        self._r *= self._h
        return float(np.sum(row_mean(self._r, self._oracle.objective.s)))
