"""Newton's method: gradient and Hessian in one fused pass, Cholesky, line search on margins.

    p = −(H + l2·I + τ·diag H)⁻¹ ∇f(w),   w⁺ = w + t·p

The full step t = 1 is tried by the next pass. Where f does not fall enough there, the margins of
both ends are known, and with them f on the whole segment at O(n) a point: the pass after that goes
to its minimum. A step that promises to be the last takes the gradient alone. The intercept is
eliminated first, which centres the columns; they are then scaled to a unit diagonal, so that neither
units nor offsets of columns cost digits. A bad pivot (collinear columns), or a step that had to be
cut short, raises the ridge τ (Levenberg 1944, Marquardt 1963).

For classes the Hessian is that of all their coefficients together, from a Gram matrix for each pair of
them: for few classes and columns.

The iteration is compiled (`_core.Newton`): on small tables Python between two passes would cost what
many passes do. It runs on while steps are plain ones that nobody watches and the gap is not yet within
reach; those steps are told along with the next.

Source: Boyd & Vandenberghe, Convex Optimization, 9.5; Nocedal & Wright, Numerical Optimization, 3.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from nagcore import _core
from nagcore.objective import Objective
from nagcore.solvers.base import Iterate, Method, Oracle, Step

__all__ = ["METHOD", "MOST", "minimum_of_sample", "newton"]

MOST = 1 << 30  # passes of a call that nothing limits


def newton(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield an iterate after each call, from x. L is not used: Newton's step has a length of its own."""
    objective, problem = oracle.objective, oracle.problem
    margins = oracle.new_margins(), oracle.new_margins()
    loop = _core.Newton(problem.core, x, *margins, objective.l2, problem.origin)
    cost = problem.newton_passes
    share, gap = problem.share, 3 if objective.l2 else 2
    f, passed = 0.0, None
    while True:
        most, tol, null_value, floor = oracle.horizon()
        begun = time.perf_counter()
        records, points, gradients, data_gradients = loop.run(
            max(1, int(min(most // cost, MOST))), tol, null_value, floor)
        current = loop.current
        z, z_other = margins[current], margins[1 - current]
        oracle.coordinates.rms = loop.sizes
        data_value, f_y, decrement, bound, seconds, hessian, moved, resolved = records.pop()
        later, trail = cost if hessian else share, []
        for record in reversed(records):
            trail.append(Step(record[1], record[gap], record[gap], begun + record[4], later))
            later += cost if record[5] else share
        trail.reverse()
        problem.count(later)
        y = points[-1]
        oracle.w, oracle.data_value, oracle.u = y, data_value, data_gradients[-1]
        if trail:
            x, f = points[-2], trail[-1].f
            passed = x
        if moved:
            x, f = y, f_y
        yield Iterate(x, f, z, y, f_y, z if moved else z_other, gradients[-1], L, moved, resolved,
                      decrement, bound, begun + seconds, trail=trail, passed=passed)


def minimum_of_sample(
    objective: Objective, tol: float, passes: int = 30, w: np.ndarray | None = None,
    linear: np.ndarray | None = None,
) -> np.ndarray:
    """w near the minimum of a smooth objective of few rows: within tol·(F₀ − F), if the model is right.

    F₀ is the value at the w given, or else at the null model; with `linear` F has linearᵀw as a term of
    its own.

    >>> import numpy as np
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> minimum_of_sample(Objective(X, y, loss="logistic", l2=0.1), 1e-9).round(4)
    array([ 1.5077, -2.2615])
    """
    problem = objective.problem
    first = math.nan
    if w is None:
        first, w = objective.null_model()
    shape = (problem.n, *w.shape[1:])
    margins = np.empty(shape, problem.compute), np.empty(shape, problem.compute)
    loop = _core.Newton(problem.core, w, *margins, objective.l2, problem.origin, linear)
    for _ in range(passes):
        [(_, f, decrement, _, _, _, moved, resolved)], points, _, _ = loop.run()
        problem.count(problem.newton_passes)
        if moved:
            w = points[0]
            first = f if math.isnan(first) else first
            if not resolved or decrement <= tol * (first - f):
                break
    return w


METHOD = Method("newton", newton, own_variables=True, smooth=True, patience=20, second_order=True,
                class_hessians=True, from_sample=True)
