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
from nagcore.solvers.newton import minimum_of_sample
from nagcore.solvers.rows import strata

if TYPE_CHECKING:
    from nagcore.solvers.driver import Run

__all__ = ["from_sample", "start_of_sample"]

_SHARE = 8       # n/m: the ten or so passes that the sample takes are then about one over X
_GRAM = 11.0     # a Gram matrix of m·p ≤ 11·n operations a number costs no more than a read of X
_PASSES = 30
_LEAST = 10      # passes that a run must be allowed, if one or two may be spent here
_HESSIANS = 2.0  # up to m·p of so many n, Hessians of the sample cost less than passes with Python between
_ROWS = 100      # per coefficient, for a start alone
_TELLING = 20    # per coefficient, rows of the sample that would say as much if all residuals were alike
_OFF = 0.1       # of what the solution of a sample is off by anyway


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
        return gained <= _OFF * least * (state.null_value - state.value)

    try:
        if small.problem.second_order and m * objective.p <= _HESSIANS * n:
            w = minimum_of_sample(small, _OFF * least, _PASSES)
        else:
            inner = type(run)(small, run.method, tol=1e-6, max_passes=_PASSES, max_iter=np.inf,
                              max_seconds=None, callbacks=(settled,))
            inner.go(None, 0)
            w = inner.result().w
        z = small.problem.margins(w)
        return w, Metric(small, 0).at(small.problem, z)
    finally:
        objective.reads.rows += int(small.n_passes * m)


def start_of_sample(run: Run, seed: int, null: np.ndarray) -> np.ndarray:
    """w from a sample for a method that takes Hessians of all rows; the null model's where it does not pay.

    Newton's method takes half of its passes to come as near as a hundred rows per coefficient are. Rows
    that are nearly all of one class, or counts nearly all zero, say less: with weights all alike their
    number is (Σ|r|)²/Σr², r the residuals of the null model.
    """
    objective = run.objective
    n, p = objective.shape[0], null.size
    m = _ROWS * p
    if _SHARE * m > n or not objective.divisible or min(run.max_passes, run.max_iter) < _LEAST:
        return null
    rows = strata(np.random.default_rng(seed), m, n)
    if objective.s is not None and not objective.s[rows].any():
        return null
    small = objective.sample(rows)
    if small is None:
        return null
    z = small.null_margins()
    size = np.empty_like(z)
    small.problem.loss_from_margins(z, size)
    np.abs(size, out=size)
    if small.s is not None:
        size = (size.T * small.s).T
    if float(size.sum()) ** 2 < _TELLING * p * float(np.square(size).sum()):
        return null
    try:
        return minimum_of_sample(small, _OFF / _ROWS, _PASSES)
    except ValueError:  # what is wrong with X is told by a pass over X itself, which names the place
        return null
    finally:
        objective.reads.rows += int(small.n_passes * m)
