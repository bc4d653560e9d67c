"""L-BFGS for wide sparse data, in the space of rows.

    w⁺ = w − t·H∇F(w)

The unknowns are those of `RowCoordinates`, and a step costs one trip over X: the product with the new
gradient. Steps and gradients are kept with their products, so directions, their margins and all inner
products come without another: the two-loop recursion runs on the coefficients of a direction in what
is kept, by the matrix of its inner products. Margins are linear in the unknowns, so that the line
search costs no trip. Where X is float32, float64 is for the margins and the proof at the end: what a
step needs of a product is its leading digits.

Steps in one arithmetic are compiled (`_core.RowLbfgs`): beside products of a fifth of a millisecond
Python would take as long as they do. Of one margin a row they go Newton's way in the span of what is
kept, since margins of all of it are known: its Hessian there costs O(n) and no trip.

Source: Nocedal & Wright, Numerical Optimization, 7.2; Chen, Wang & Zhou, Large-scale L-BFGS using
MapReduce, 2014 (the recursion on coefficients); Narkiss & Zibulevsky, Sequential subspace optimization
method for large-scale unconstrained problems, 2005 (the span).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from nagcore import _core
from nagcore.solvers.base import Iterate, Method, Step
from nagcore.solvers.linesearch import ARMIJO
from nagcore.solvers.rowspace import RowOracle

__all__ = ["METHOD", "row_lbfgs"]

# Steps kept. On 20news and reuters 3, 5 and 30 take the same products within one.
_PAIRS = 4
_FLAT = 0.3     # of the slope at the start: a step's end with less is near enough to the minimum along it
_TRIALS = 20
_LARGE = 1e-3   # of F: steps that promise more are far from any rounding
_MOST = 1 << 30  # steps of a call that nothing limits


class _Kept:
    """The latest steps and gradients, their products with K, and the inner products of them all."""

    def __init__(self, rows: RowOracle) -> None:
        self._rows, count = rows, 2 * _PAIRS + 1
        self._plain: list = [None] * count   # steps, then gradients
        self._lifted: list = [None] * count
        self._inner = np.zeros((count, count))
        self._length = np.zeros(_PAIRS)
        self.steps = 0
        self.x: np.ndarray | None = None     # where the latest gradient is

    def enter(self, rows: RowOracle) -> None:
        """Go on in other arithmetic, where the latest gradient is about to be added once more."""
        self._rows = rows

    @classmethod
    def of(cls, loop: Any, x: np.ndarray, rows: RowOracle) -> _Kept:
        """What the compiled loop has kept, at x."""
        self = cls(rows)
        self._plain, self._lifted = loop.plain, loop.lifted
        self._inner, self._length, self.steps, self.x = loop.inner, loop.lengths, loop.steps, x
        return self

    @staticmethod
    def _place(gradient: int) -> int:
        return _PAIRS + gradient % (_PAIRS + 1)

    def add(self, x: np.ndarray, g: np.ndarray, lifted: np.ndarray) -> float:
        """Take in the gradient after the latest step; return ⟨g, g⟩."""
        at = self._place(self.steps)
        self._plain[at], self._lifted[at], self.x = g, lifted, x
        live = [i for i, kept in enumerate(self._lifted) if kept is not None]
        found = self._rows.products([self._lifted[i] for i in live], g)
        self._inner[at, live] = self._inner[live, at] = found
        return float(self._inner[at, at])

    def direction(self) -> tuple[np.ndarray, np.ndarray, float, float]:
        """d = −H g, kept as the next step, its lifted product, ⟨g, d⟩ and ⟨d, d⟩."""
        M, c = self._inner, np.zeros(len(self._inner))
        c[self._place(self.steps)] = -1.0
        pairs = []
        for i in range(self.steps - 1, max(self.steps - 1 - _PAIRS, -1), -1):
            s, new, old = i % _PAIRS, self._place(i + 1), self._place(i)
            bend = self._length[s] * (M[s, new] - M[s, old])
            if bend > 0:
                pairs.append((s, new, old, bend))
        taken = []
        for s, new, old, bend in pairs:
            alpha = self._length[s] * (M[s] @ c) / bend
            c[new] -= alpha
            c[old] += alpha
            taken.append(alpha)
        if pairs:
            _, new, old, bend = pairs[0]
            change = M[new, new] - 2 * M[new, old] + M[old, old]
            if change > 0:
                c *= bend / change
        for (s, new, old, bend), alpha in zip(reversed(pairs), reversed(taken), strict=True):
            c[s] += self._length[s] * (alpha - (M[new] @ c - M[old] @ c) / bend)
        live = [i for i, kept in enumerate(self._plain) if kept is not None and c[i]]
        coefficients = [float(c[i]) for i in live]
        at, along = self.steps % _PAIRS, M @ c
        found = []
        for kept in (self._plain, self._lifted):
            found.append(self._rows.combine([kept[i] for i in live], coefficients,
                                            np.empty_like(kept[live[0]])))
        self._plain[at], self._lifted[at] = found
        size = c @ along
        M[at] = M[:, at] = along
        M[at, at] = size
        return found[0], found[1], float(along[self._place(self.steps)]), float(size)

    def took(self, t: float) -> None:
        """The step along the latest direction was of this length."""
        self._length[self.steps % _PAIRS] = t
        self.steps += 1


def row_lbfgs(rows: RowOracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per step, from x."""
    kept = rows.coordinates.memory
    if _compiled(rows):
        yield from _compiled_steps(rows, x, L)
        return
    known = rows.mixed and kept is not None and kept.x is x  # the gradient here, to leading digits
    if not known:
        kept = rows.coordinates.memory = _Kept(rows)
    kept.enter(rows)
    low, mixed, l2 = rows.coordinates.real, rows.mixed, rows.objective.l2
    x, Kx, z, r, f = rows.start(x)
    n, followed, resolved = len(z), False, True
    square = rows.products([Kx], x[:n])[0]
    while True:
        g = rows.gradient(x, r)
        bound, proven = 0.0, not mixed
        if not known:
            small = g.astype(low, copy=False)
            size = kept.add(x, small, rows.lifted(small, rows.product(small)))
            bound = 0.5 * max(size - rows.apart(small, small), 0.0) / l2
        if mixed and (known or (bound <= rows.target() and rows.left() > 3)):
            if followed:  # margins by products in float32: now by one in float64
                Kx, followed = rows.product(x), False
                z, r, square = rows.margins(x, Kx), np.empty_like(z), rows.products([Kx], x[:n])[0]
                f = rows.value_at(z, square, r)
                g = rows.gradient(x, r)
            bound, proven, known, kept.x = 0.5 * rows.coordinates.square(g) / l2, True, False, x
        yield Iterate(x, f, z, x, f, z, g, L, resolved=resolved, bound=bound, proven=proven)
        d, Kd, slope, far = kept.direction()
        far -= rows.apart(d, d)
        Kd = Kd[:n]
        h = rows.total(d, Kd).astype(rows.real, copy=False)
        cross = rows.products([Kx], d[:n])[0]
        t = 1.0 if kept.steps else _length(rows, z, d, Kd, h, slope, far)
        noise = rows.rounding(f, z) if -slope < _LARGE * abs(f) else 0.0
        t, found = _search(rows, (z, f, square), (h, slope, cross, far), t, noise)
        if found is not None:
            z, r, f = found
            x = rows.combine([x, d], [1.0, t], np.empty_like(x))
            Kx = z if rows.margins_are_products else rows.combine([Kx, Kd], [1.0, t], np.empty_like(Kx))
            square, followed = square + t * (2 * cross + t * far), mixed
        resolved = found is not None and -slope * t > noise
        kept.took(t)


def _compiled(rows: RowOracle) -> bool:
    """Whether steps can be had that are compiled: margins and products in one arithmetic, all rows alike."""
    objective = rows.objective
    return (not rows.mixed and rows.equal and objective._offset is None
            and math.isfinite(objective.loss.curvature_bound))


def _compiled_steps(rows: RowOracle, x: np.ndarray, L: float) -> Iterator[Iterate]:
    """The same steps in the core (csrc/engine/row_lbfgs.cc), as many at a time as nobody watches."""
    objective, coordinates = rows.objective, rows.coordinates
    x, Kx, z, r, f = rows.start(x)
    loop = _core.RowLbfgs(
        rows.problem.core, coordinates.products, x, Kx, z, r, f, rows.products([Kx], x[: len(z)])[0],
        objective.l2, coordinates.scale, objective.loss.curvature_bound, _PAIRS,
    )
    while True:
        most, tol, null_value, floor = rows.horizon()
        begun = time.perf_counter()
        records, made = loop.run(int(max(1, min(most, _MOST))), tol, null_value, floor)
        objective.reads.passes += made
        x, z, g = loop.x, loop.margins, loop.gradient
        rows.at(x, loop.residuals)
        coordinates.memory = _Kept.of(loop, x, rows)
        before = loop.before if len(records) > 1 else x
        # What is best of the steps but the last is the point before that: no other is ever asked for.
        trail = [Step(f_i, bound_i, bound_i, begun + at, len(records) - 1 - i)
                 for i, (f_i, bound_i, at, _) in enumerate(records[:-1])]
        f, bound, at, resolved = records[-1]
        yield Iterate(x, f, z, x, f, z, g, L, resolved=resolved, bound=bound, at=begun + at, trail=trail,
                      passed=before)


def _length(rows: RowOracle, z, d, Kd, h, slope: float, far: float) -> float:
    """The length of the first step: by the bound of the curvature, or without one by what it is here."""
    most = rows.objective.loss.curvature_bound
    if math.isfinite(most):
        bend = most * rows.slope(h, h) + rows.objective.l2 * far
    else:
        d, Kd = d.astype(rows.real, copy=False), Kd.astype(rows.real, copy=False)
        _, bend = rows.bend(rows.curvature(z), d, Kd)
    return -slope / bend if bend > 0 else 1.0


def _search(
    rows: RowOracle, here: tuple, way: tuple, t: float, noise: float
) -> tuple[float, tuple[np.ndarray, np.ndarray, float] | None]:
    """A length near the minimum along the way, and margins, residuals and F there; none where none is lower.

    F is convex: its slope along the way increases, and its root is found by secants in a bracket.
    """
    z, f, square = here
    h, slope, cross, far = way
    l2 = rows.objective.l2
    low, at_low, high, at_high = 0.0, slope, math.inf, math.nan
    best, length = None, 0.0
    for i in range(_TRIALS):
        z_t, r_t = rows.combine([z, h], [1.0, t], np.empty_like(z)), np.empty_like(z)
        f_t = rows.value_at(z_t, square + t * (2 * cross + t * far), r_t)
        s_t = rows.slope(r_t, h) + l2 * (cross + t * far) if math.isfinite(f_t) else math.inf
        resolved = -slope * t > noise
        if f_t <= f + (ARMIJO * t * slope if resolved else noise) and (best is None or f_t <= best[2]):
            best, length = (z_t, r_t, f_t), t
            if abs(s_t) <= _FLAT * abs(slope):
                break
        if not s_t > 0:
            secant = t - s_t * (t - low) / (s_t - at_low) if s_t > at_low else math.inf
            low, at_low = t, s_t
            if high == math.inf:
                t = min(max(secant, 1.2 * t), 10 * t)
                continue
        else:
            high, at_high = t, s_t
        secant = low - at_low * (high - low) / (at_high - at_low) if math.isfinite(at_high) else math.nan
        inside = low + 0.01 * (high - low) < secant < high - 0.01 * (high - low) and i % 3 != 2
        t = secant if inside else low + (0.5 if math.isfinite(at_high) else 0.1) * (high - low)
        if high - low <= 1e-8 * high:
            break
    return length, best


METHOD = Method("row_lbfgs", row_lbfgs, own_variables=True, smooth=True, patience=20, rows=True, mixes=True)
