"""What nagcore computes, in plain NumPy: every test's oracle, every formula's documentation.

Nothing here knows of the compiled kernels. Sums run in float64 (or in ``dtype=np.longdouble``, the
oracle of the float64 kernels), speed does not matter, and the letters are those of docs/maths.md:
``X`` (n×d), targets ``y``, sample weights ``s`` with sum ``S``, coefficients ``w`` (the intercept
is the last row), margins ``z = Xw + b + offset``, loss ``φ(z, y)``, residual ``r = ∂φ/∂z``.

It is a package that imports NumPy and itself: losses (one class each), objective (value, gradient,
error bound, duality gap), update (the Nesterov step), solvers.

>>> import numpy as np
>>> X, y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), np.array([0.0, 1.0, 1.0])
>>> value, gradient = value_and_grad(X, y, np.zeros(2), loss="logistic")
>>> round(value, 6), gradient.tolist()
(0.693147, [-1.1666666666666667, -1.5])
"""

from __future__ import annotations

from .losses import LOSSES, Loss
from .objective import (
    Magnitudes,
    conjugate,
    decode,
    duality_gap,
    magnitudes,
    margins,
    rmatvec,
    value_and_grad,
    weights,
)
from .solvers import acfgm, fista, prox_box, prox_l1
from .update import Step, ema_update, fma, nesterov_step, stochastic_neighbours

__all__ = [
    "LOSSES",
    "Loss",
    "Magnitudes",
    "Step",
    "acfgm",
    "conjugate",
    "decode",
    "duality_gap",
    "ema_update",
    "fista",
    "fma",
    "magnitudes",
    "margins",
    "nesterov_step",
    "prox_box",
    "prox_l1",
    "rmatvec",
    "stochastic_neighbours",
    "value_and_grad",
    "weights",
]
