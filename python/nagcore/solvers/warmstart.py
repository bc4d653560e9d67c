"""A start, and a first metric, from the solution on a small sample of the rows.

Where a sample of a hundred rows per column is still a small part of X, its solution costs about one
pass in all and is off by p/(2m) per row: several passes' worth of the way. Its Gram matrix, with
the curvature that the loss has there, is the metric to go on with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nagcore.solvers.coordinates import Columns
from nagcore.solvers.metric import Metric

if TYPE_CHECKING:
    from nagcore.solvers.driver import Run

__all__ = ["from_sample"]

_SHARE = 8       # n/m: the ten or so passes that the sample takes are then about one over X
_GRAM = 11.0     # a Gram matrix of m·p ≤ 11·n operations a number costs no more than a read of X
_PASSES = 30
_LEAST = 10      # passes that a run must be allowed, if one or two may be spent here


def from_sample(run: Run, metric: Metric) -> tuple[np.ndarray, Columns | list[Columns]] | None:
    """w and the columns there, or None where a sample does not pay."""
    objective, sampler = run.objective, metric.sampler
    n = objective.shape[0]
    if sampler is None or _SHARE * sampler.m > n or sampler.m * objective.p > _GRAM * n:
        return None
    if run.max_passes < _LEAST or run.max_iter < _LEAST:
        return None
    rows, factor = sampler.draw(None, -1 % 2**31)
    small = objective.sample(rows, factor if np.ndim(factor) else None)
    if small is None:
        return None
    m, least, last = len(rows), objective.p / len(rows), [np.inf]

    def settled(state) -> bool:
        """Whether a step gained less than the sample's solution is off anyway."""
        gained, last[0] = last[0] - state.value, state.value
        return gained <= 0.1 * least * (state.null_value - state.value)

    inner = type(run)(small, run.method, tol=1e-6, max_passes=_PASSES, max_iter=np.inf,
                      max_seconds=None, callbacks=(settled,))
    try:
        inner.go(None, 0)
        w = inner.result().w
        z = small.problem.margins(w)
        return w, Metric(small, 0).at(small.problem, z)
    finally:
        objective.reads.rows += int(small.n_passes * m)
