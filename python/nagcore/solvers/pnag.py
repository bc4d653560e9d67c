"""Nesterov's method in the metric of P: FISTA's iteration where nothing is to be proxed.

    x⁺ = y − P⁻¹∇F(y)/L,   t⁺ = (1 + √(1 + 4t²L⁺/L))/2,   y⁺ = x⁺ + ((t − 1)/t⁺)(x⁺ − x)

The variables are those in which P is the identity, so the iteration, its test of each step on
margins, its steps taken back, its restarts and its steps that grow again are `fista`'s: they keep it
safe where P is poor. What is its own is the metric's upkeep: P is made anew as `plbfgs` does it.

Source: Nesterov 1983; docs/maths.md, "Accelerated descent".
"""

from __future__ import annotations

from nagcore.solvers.base import Method
from nagcore.solvers.fista import fista

__all__ = ["METHOD"]

METHOD = Method("pnag", fista, smooth=True)
