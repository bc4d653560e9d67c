"""Small fits by Newton's method that nobody watches: null model, iteration and proof in one call of the core.

On 150 × 4 the passes take 3 µs each, and a `Run` with its oracle, coordinates and judge some 100 µs of
Python, whose code and tables other work has pushed out of the caches. Proximal Newton steps under l1 go the
same way. Where the call does not end with the gap proven, a `Run` does it all again, and decides how to go
on.
"""

from __future__ import annotations

import math
import time

from nagcore import _core
from nagcore.callbacks import History
from nagcore.objective import Objective
from nagcore.solvers.base import Result
from nagcore.solvers.newton import MOST
from nagcore.solvers.proxnewton import compiled, keeps_hessian
from nagcore.solvers.stopping import ROUNDING
from nagcore.solvers.warmstart import few_rows

__all__ = ["at_once"]

_SMALL = 1 << 22  # bytes of X beyond which beginning again would cost more than this spares


def at_once(
    objective: Objective, tol: float, max_passes: float, max_iter: float, solver: str, why: str
) -> Result | None:
    """What a `Run` of "newton" or "prox_newton" from the null model would return, or None: run it."""
    if not _serves(objective, solver):
        return None
    problem, intercept = objective.problem, objective.fit_intercept
    begun = time.perf_counter()
    steps = int(min(max_passes - intercept, max_iter, MOST))
    null_value, b, records, w, proofs = _core.fit_by_newton(
        problem.core, objective.l1, objective.l2, keeps_hessian(objective), max(1, steps), tol, ROUNDING,
        objective.loss.curvature_bound)
    objective._null.setdefault(problem.compute, (null_value, b if b.ndim else float(b)))
    if records is None or len(records) > max_iter:
        return None
    passes: float = 0
    history, step, lower, best, lowest = History(), 0, -math.inf, math.inf, math.inf
    proofs.reverse()
    for i, (value, bound, free, seconds, cost, moved) in enumerate(records, 1):
        passes += cost
        if not moved:
            continue
        step += 1
        best, lowest = min(best, value), min(lowest, value)
        if not intercept:  # bounds are proofs
            lower = max(lower, value - bound)
        if lower == -math.inf:  # else estimates are all there is
            gap = free + (best - value) if free > value - best else free
        else:
            gap = max(best - lower, 0.0)
        history.rows.append(
            {"step": step, "passes": passes, "seconds": seconds, "value": lowest, "gap": gap})
        if proofs and proofs[-1][0] == i:
            _, value, gap = proofs.pop()
            best, lower, passes = min(best, value), max(lower, value - gap), passes + intercept
    problem.count(passes)
    d = problem.d
    b = w[d] if intercept else 0.0 * w[0]
    return Result(
        w=w, coef=w[:d], intercept=float(b) if objective.k == 1 else b, value=best,
        gap=max(best - lower, 0.0), gap_kind="certificate", n_passes=passes, n_iter=step, converged=True,
        message="converged", history=history, solver=solver, why=why, null_value=null_value,
        seconds=time.perf_counter() - begun,
    )


def _serves(objective: Objective, solver: str) -> bool:
    """Whether a `Run` of this solver would be steps of the core in float64, to a proof."""
    problem = objective.problem
    core = problem.core
    if not (isinstance(core, _core.Problem) and core.compute == "float64" and problem.share == 1
            and objective.nbytes <= _SMALL and objective.bounds is None and objective._offset is None):
        return False
    if solver == "newton":
        return objective.l2 > 0 and not objective.l1 and few_rows(problem.n, objective.p * objective.k)
    return compiled(objective) and (objective.kept is None or objective.kept.one)
