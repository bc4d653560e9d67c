"""L-BFGS in the metric of a preconditioner, one pass per iteration, line search on margins.

    p = −H_k ∇f(x),   x⁺ = x + t·p,   H₀ = γ·P⁻¹,   γ = ⟨s, y⟩/⟨y, y⟩ in the metric of P

The variables are those of `Coordinates`, in which P is the identity, so that the two loops are the
textbook's. The full step is tried by the next pass; where f does not fall enough there, the margins
of both ends give f on the whole segment, at O(n) a point, and the next pass goes to its minimum.
Pairs (s, y) outlive their variables: a new metric, or float64 in place of float32, takes them over.

For one margin a row the iteration is compiled (`_core.Lbfgs`): Python between two passes costs half of what a
pass over 16 MB does. It runs on while steps are plain ones that nobody watches and the gap is not yet within
reach; those steps are told along with the next.

Source: Liu & Nocedal 1989; Nocedal & Wright, Numerical Optimization, algorithm 7.4.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np

from nagcore import _core
from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle, Step
from nagcore.solvers.coordinates import Coordinates
from nagcore.solvers.linesearch import ARMIJO, best_step

__all__ = ["METHOD", "plbfgs"]

_MOST = 1 << 30  # steps of a call that nothing limits


def plbfgs(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield an iterate after each call or pass, from x, with H₀ = P⁻¹/L until a pair is known."""
    compiled = isinstance(oracle.problem.core, _core.Problem) and isinstance(oracle.coordinates, Coordinates)
    if compiled and x.ndim == 1 and L == 1.0 and oracle.dropped is None:
        return _compiled(oracle, x)
    return _by_passes(oracle, x, L)


def _compiled(oracle: Oracle, x: np.ndarray) -> Iterator[Iterate]:
    """The iteration in the core, for one margin a row."""
    objective, problem, coordinates = oracle.objective, oracle.problem, oracle.coordinates
    assert isinstance(coordinates, Coordinates)
    margins, known = (oracle.first_margins(), oracle.new_margins()), oracle.take_known()
    loop = _core.Lbfgs(problem.core, x, *margins, *coordinates.parts, coordinates.rms, objective.l2,
                       problem.origin)
    if known is not None:
        loop.know(known.data_value, known.w, known.u)
    for s, y in oracle.pairs():
        loop.remember(s, y)
    if oracle.proposed is not None:
        loop.propose(oracle.proposed - x)
    oracle.lend_pairs(lambda: loop.pairs)
    f = 0.0
    while True:
        most, tol, null_value, floor = oracle.horizon()
        begun = time.perf_counter()
        steps = max(1, int(min(most, _MOST))) if objective.l2 else 1
        records, points, gradients, ws, us = loop.run(steps, tol, null_value, floor)
        current, last = loop.current, len(records) - 1
        z, oracle.spare = margins[current], margins[1 - current]
        passed = problem.share * sum(record[4] for record in records)
        problem.count(passed)
        trail: list[Step] = []
        for i in range(last):
            passed -= problem.share * records[i][4]
            _, f_i, gap, ended, _, _, _ = records[i]
            trail.append(Step(f_i, gap, gap, begun + ended, passed))
        data_value, f_y, bound, seconds, _, moved, resolved = records[last]
        y = points[last]
        oracle.w, oracle.data_value, oracle.u = ws[last], data_value, us[last]
        if trail:
            x, f = points[last - 1], trail[-1].f
        before = x
        if moved:
            x, f = y, f_y
        yield Iterate(x, f, z, y, f_y, z if moved else oracle.spare, gradients[last], 1.0, moved, resolved,
                      bound=bound, at=begun + seconds, trail=trail, passed=before)


def _by_passes(oracle: Oracle, x: np.ndarray, L: float) -> Iterator[Iterate]:
    """The iteration in NumPy, for classes and for problems that are not the core's; one iterate a pass."""
    z, z_new = oracle.first_margins(), oracle.new_margins()
    pairs = oracle.pairs()
    f, g = oracle.start(x, z)
    oracle.spare = z_new
    yield Iterate(x, f, z, x, f, z, g, L)
    while True:
        p = -two_loops(pairs, g, L)
        slope, t = dot(g, p), 1.0
        if not slope < 0:
            pairs.clear()
            p, slope = -g / L, -dot(g, g) / L
        while True:
            x_new = x + t * p
            f_new, g_new = oracle.gradient(x_new, z_new)
            noise = oracle.rounding(f, z)
            resolved = -slope * t > noise
            if f_new <= f + (ARMIJO * t * slope if resolved else noise):
                break
            yield Iterate(x, f, z, x_new, f_new, z_new, g_new, L, moved=False)
            t = min(t * best_step(oracle, x, z, t * p, z_new, t * slope), 0.9 * t)
        s, y = x_new - x, g_new - g
        if dot(s, y) > 1e-10 * dot(y, y) > 0:
            pairs.append((s, y))
        x, f, g, z, z_new = x_new, f_new, g_new, z_new, z
        oracle.spare = z_new
        yield Iterate(x, f, z, x, f, z, g, L, resolved=resolved)


def two_loops(pairs: deque, g: np.ndarray, L: float) -> np.ndarray:
    """H_k g from the pairs (s, y), oldest first."""
    return _core.two_loops(pairs, g) if pairs else g / L


METHOD = Method("plbfgs", plbfgs, smooth=True, patience=20)
