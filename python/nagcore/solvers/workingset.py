"""Working sets for l1 and bounds where there are many columns: few passes over X, the rest on a few columns.

A pass over all columns gives the gradient, hence how far each coefficient is from its optimality
condition. The working set takes in the worst offenders; on its columns (`ColumnStore`) proximal
Newton steps need nothing but margins, φ' and φ'' of the rows:

    δ = argmin ⟨∇f, δ⟩ + ½⟨δ, ∇²f δ⟩ + l1‖w + δ‖₁,   w⁺ = w + t·δ,   z⁺ = z + t·Aδ

with coordinate descent on the columns for δ, and a line search on margins for t. Then the next pass
over all columns looks for new offenders, and proves the gap.

Along a path the columns stay, the last pass serves the next strength too, and the set starts with
the columns that the sequential strong rule expects: |∂f/∂w_j| > 2·l1 − (the last l1). Its first step
starts where the last three solutions lead to, if F is lower there.

Source: Massias, Gramfort & Salmon 2018 (working sets); Tibshirani et al. 2012 (the strong rule).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nagcore.solvers.base import Iterate, Known, Oracle
from nagcore.solvers.columnstore import ColumnStore
from nagcore.solvers.linesearch import ARMIJO
from nagcore.solvers.quadratic_l1 import violation

__all__ = ["Kept", "working_sets"]

_FIRST_SET = 64
_SHARE = 32            # a set may hold one column in so many, before it is known how many matter
_MOST_BYTES = 1 << 26  # of copies, on the same condition
_STEPS = 50            # of Newton's method between two passes
_CERTAIN = 0.2         # the share of the gap to reach that violations within the set may be worth
_FLAT = 1e-6           # of the mean curvature: rows that are flat here need not be so a step away


@dataclass
class Kept:
    """What one strength of a path leaves to the next: columns, a Hessian, the last pass over all columns."""

    store: ColumnStore | None = None
    last: Known | None = None
    l1: float = 0.0
    hessian: dict[str, np.ndarray] = field(default_factory=dict)
    trail: list[tuple[float, np.ndarray]] = field(default_factory=list)  # l1 and w, the last first
    one: bool = False  # whether there is but one strength: its steps share a Hessian, and nobody comes after

    def ahead(self, l1: float) -> np.ndarray | None:
        """Where the last solutions lead to at l1 < the last l1, or None where there are no two of them.

        By the parabola through three in log l1 (the line through two of them, where the third is zero or
        there is none), which keeps zeros and ends at zero where it would change sign.
        """
        if len(self.trail) < 2 or not 0 < l1 < self.trail[0][0]:
            return None
        (l1_0, w0), (l1_1, w1) = self.trail[:2]
        on, out = np.flatnonzero(w0), np.zeros_like(w0)
        t, t0, t1 = math.log(l1), math.log(l1_0), math.log(l1_1)
        slope = (w0[on] - w1[on]) / (t0 - t1)
        w = w0[on] + (t - t0) * slope
        if len(self.trail) > 2:
            l1_2, w2 = self.trail[2]
            t2 = math.log(l1_2)
            bend = (slope - (w1[on] - w2[on]) / (t1 - t2)) / (t0 - t2)
            w = np.where(w2[on] != 0, w + (t - t0) * (t - t1) * bend, w)
        out[on] = np.where(w * w0[on] > 0, w, 0.0)
        return out

    def add(self, l1: float, w: np.ndarray) -> None:
        """Remember the solution of one more strength."""
        if self.trail and not l1 < self.trail[0][0]:  # another path
            self.trail.clear()
        self.trail = [(l1, w), *self.trail[:2]]


def working_sets(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass over all columns. L is not used."""
    objective, d = oracle.objective, oracle.objective.shape[1]
    kept = objective.kept if objective.kept is not None else Kept()
    z, last = oracle.new_margins(), kept.last
    ahead = None
    if last is not None and last.z.dtype == z.dtype and np.array_equal(last.w[:d], x[:d]):
        oracle.resume(last)
        x = last.w
        if objective.bounds is None and kept.l1 > 0:
            kept.add(kept.l1, x)
            ahead = kept.ahead(objective.l1)
    f, g = oracle.start(x, z)
    store = kept.store or ColumnStore(objective)
    low = min(objective.l1, max(2 * objective.l1 - kept.l1, 0.0)) if kept.last is not None else objective.l1
    share = 1.0
    while True:
        kept.store, kept.last, kept.l1 = store, Known(x, oracle.data_value, oracle.u, z.copy()), objective.l1
        yield Iterate(x, f, z, x, f, z, g, 1.0)
        entering = _entering(objective, g, x, store, low)
        low = objective.l1
        store.add(np.union1d(entering, np.flatnonzero(x[:d])))
        x, ahead = _on_columns(oracle, store, x, z, _goal(oracle, x, f) * share, ahead), None
        if not entering.size:
            share *= 0.1
        f, g = oracle.gradient(x, z)


def _entering(objective, g, x, store: ColumnStore, low: float) -> np.ndarray:
    """The columns whose gradient exceeds `low`, the worst of them where they are too many."""
    n, d = objective.shape
    reach = objective.penalty.reach(g[:d])
    over = np.flatnonzero((reach > low) & (x[:d] == 0) & ~store.held)
    size = max(_FIRST_SET, 2 * np.count_nonzero(x[:d]), min(d // _SHARE, _MOST_BYTES // (8 * n)))
    if len(over) > size:
        over = over[np.argpartition(-reach[over], size - 1)[:size]]
    return np.sort(over)


def _goal(oracle: Oracle, x: np.ndarray, f: float) -> float:
    """How small violations must become: coefficients w of violation e are worth about ‖w‖₁·e."""
    objective = oracle.objective
    d, l1 = objective.shape[1], objective.l1
    size = float(np.abs(x[:d]).sum())
    gained = max(objective.null_model(oracle.problem)[0] - oracle.value(x, f), 0.0)
    scale = float(np.abs(oracle.u[:d]).max(initial=0.0)) if l1 == 0 else l1
    wanted = _CERTAIN * oracle.tol * gained / size if size and gained else 0.01 * scale
    return min(max(wanted, 1e-13 * scale), 0.1 * scale)


def _on_columns(
    oracle: Oracle, store: ColumnStore, x, z, goal: float, ahead: np.ndarray | None
) -> np.ndarray:
    """Proximal Newton on the columns held, from x with margins z, until no violation exceeds `goal`.

    From `ahead` instead, where that is given and F is lower.
    """
    objective, problem = oracle.objective, oracle.problem
    s = objective.s if objective.s is not None else 1.0 / objective.shape[0]
    d, l1, l2 = objective.shape[1], objective.l1, objective.l2
    b, slope_b = (float(x[d]), 0.0) if objective.fit_intercept else (0.0, None)
    box = None if objective.bounds is None else objective.bounds.at(store.index)
    w, z, r = x[store.index], z.copy(), np.empty_like(z)
    f = problem.loss_from_margins(z, r)
    if ahead is not None:
        point, trial, trial_r = ahead[store.index], z.copy(), np.empty_like(z)
        store.add_margins(point - w, trial)
        if objective.fit_intercept:
            trial += ahead[d] - b
        f_new = problem.loss_from_margins(trial, trial_r)
        if f_new + objective.penalty_value(point) < f + objective.penalty_value(w):
            w, z, r, f = point, trial, trial_r, f_new
            b = float(ahead[d]) if objective.fit_intercept else 0.0
    for _ in range(_STEPS):
        weighted = r * s
        g = store.products(weighted) + l2 * w
        wrong = float(violation(g, w, l1, box).max(initial=0.0))
        if objective.fit_intercept:
            slope_b = float(weighted.sum())
            wrong = max(wrong, abs(slope_b))
        if wrong <= goal:
            break
        if objective.loss.name == "squared":
            v, accuracy = np.full(len(z), 1.0) * s, 0.5 * goal
        else:
            v = problem.curvature_from_margins(z).astype(np.float64)
            v = np.maximum(v, _FLAT * max(float(v.mean()), 1e-300)) * s
            accuracy = max(0.3 * goal, 0.05 * wrong)
        moved, change, t = store.minimise(v, g, slope_b, w, objective, box, accuracy)
        step = moved - w
        least = float(np.sum(g * step)) + l1 * float(np.abs(moved).sum() - np.abs(w).sum())
        least += change * (slope_b or 0.0)
        F, length = f + objective.penalty_value(w), 1.0
        noise = 1e-14 * abs(F)
        while length > 1e-10:
            trial, trial_r, point = z + length * t, np.empty_like(r), w + length * step
            if box is not None:
                point = box.snap(point, w)
            f_new = problem.loss_from_margins(trial, trial_r)
            if f_new + objective.penalty_value(point) <= F + ARMIJO * length * least + noise:
                break
            length *= 0.5
        else:
            break
        w, b, z, r, f = point, b + length * change, trial, trial_r, f_new
        if -least <= noise:
            break
    x = x.copy()
    x[store.index] = w
    x[d:] = b
    return x
