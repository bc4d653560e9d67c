"""Small fits by Newton's method that nobody watches: null model, iteration and proof in one call of the core.

On 150 × 4 the passes take 3 µs each, and a `Run` with its oracle, coordinates and judge some 100 µs of
Python, whose code and tables other work has pushed out of the caches. Where the call does not end with the
gap proven, a `Run` does it all again, and decides how to go on.
"""

from __future__ import annotations

import math
import time

from nagcore import _core
from nagcore.callbacks import History
from nagcore.objective import Objective
from nagcore.solvers.base import Result
from nagcore.solvers.newton import MOST
from nagcore.solvers.stopping import ROUNDING
from nagcore.solvers.warmstart import few_rows

__all__ = ["at_once"]

_SMALL = 1 << 22  # bytes of X beyond which beginning again would cost more than this spares


def at_once(objective: Objective, tol: float, max_passes: float, max_iter: float, why: str) -> Result | None:
    """What a `Run` of Newton's method from the null model would return; None where that is needed."""
    problem, l2, intercept = objective.problem, objective.l2, objective.fit_intercept
    core, d = problem.core, problem.d
    plain = isinstance(core, _core.Problem) and core.compute == "float64" and problem.share == 1
    if not (plain and objective.nbytes <= _SMALL and l2 > 0 and not objective.l1 and objective.bounds is None
            and objective._offset is None and few_rows(problem.n, objective.p * objective.k)):  # fmt: skip
        return None
    begun, cost = time.perf_counter(), problem.newton_passes
    steps = int(min(max_passes - intercept, max_iter, MOST))
    null_value, b, records, w, proofs = _core.fit_by_newton(
        core, l2, max(1, steps), tol, ROUNDING, objective.loss.curvature_bound)
    objective._null.setdefault(problem.compute, (null_value, b if b.ndim else float(b)))
    if records is None or len(records) > max_iter:
        return None
    passes: float = 0
    history, step, lower, best = History(), 0, -math.inf, math.inf
    proofs.reverse()
    for i, (_, value, _, bound, seconds, hessian, moved, _) in enumerate(records, 1):
        passes += cost if hessian else 1
        if not moved:
            continue
        step += 1
        best = min(best, value)
        if not intercept:  # bounds are proofs
            lower = max(lower, value - bound)
        elif lower == -math.inf:  # and else estimates
            bound += best - value if bound > value - best else 0.0
        gap = bound if lower == -math.inf else max(best - lower, 0.0)
        history.iteration(step, passes, seconds, value, gap)
        if proofs and proofs[-1][0] == i:
            _, value, gap = proofs.pop()
            best, lower, passes = min(best, value), max(lower, value - gap), passes + 1
    problem.count(passes)
    b = w[d] if intercept else 0.0 * w[0]
    return Result(
        w=w, coef=w[:d], intercept=float(b) if objective.k == 1 else b, value=best,
        gap=max(best - lower, 0.0), gap_kind="certificate", n_passes=passes, n_iter=step, converged=True,
        message="converged", history=history, solver="newton", why=why, null_value=null_value,
        seconds=time.perf_counter() - begun,
    )
