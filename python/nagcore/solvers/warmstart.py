"""A start, a first step and a first metric from small samples of the rows.

Where a sample of a hundred rows per column is still a small part of X, its solution costs about one
pass in all and is off by p/(2m) per row: several passes' worth of the way. A pass there says which
rows matter. Of those a second sample is drawn, corrected so that its gradient is that of all rows,

    F̂(w) = F_sample(w) + ⟨∇F(w₀) − ∇F_sample(w₀), w⟩,

and solved too: its minimum is where the run goes next, its Hessian there the metric to go on with. A
metric alone knows the curvature at one point; the sample knows how it changes on the way.

Source: Shamir, Srebro & Zhang 2014 (the correction); Roosta-Khorasani & Mahoney 2019 (sampled Hessians).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nagcore import _core
from nagcore.objective.intercept import best_intercept
from nagcore.solvers.base import Known
from nagcore.solvers.coordinates import Columns
from nagcore.solvers.metric import Metric
from nagcore.solvers.newton import minimum_of_sample
from nagcore.solvers.rows import Sampler, strata

if TYPE_CHECKING:
    from nagcore.objective import Objective
    from nagcore.solvers.driver import Run

__all__ = ["Start", "from_sample", "start_of_constant", "start_of_sample"]

_SHARE = 8       # n/m: the ten or so passes that the sample takes are then about one over X
_GRAM = 11.0     # a Gram matrix of m·p ≤ 11·n operations a number costs no more than a read of X
_PASSES = 30
_LEAST = 10      # passes that a run must be allowed, if one or two may be spent here
_HESSIANS = 2.0  # up to m·p of so many n, Hessians of the sample cost less than passes with Python between
_ROWS = 100      # per coefficient, for a start alone
_TELLING = 20    # per coefficient, rows of the sample that would say as much if all residuals were alike
_OFF = 0.1       # of what the solution of a sample is off by anyway
_MODEL = 1e-3    # of what the corrected sample lets F gain, to which it is solved
_FEW_ROWS, _FEW_COLUMNS = 32, 2  # that are looked at for columns of one number
_ROW = 384       # bytes of a row, from which on a column is a small part of X even in whole cache lines
_GAIN = 0.8      # of F at zero, that an intercept must leave or less
_SETTLED = 0.01  # of the mean, added to each row's weight: rows without residuals are drawn too


class Start(NamedTuple):
    """Where a run begins, what a pass there gave, where its first step goes, and the columns."""

    w: np.ndarray
    known: Known
    proposed: np.ndarray | None
    columns: Columns | list[Columns]


def from_sample(run: Run, metric: Metric) -> Start | None:
    """The start from samples, or None where they do not pay. A pass, and about one more of sampled rows."""
    objective, sampler = run.objective, metric.sampler
    n, p = objective.shape[0], objective.p
    if sampler is None or _SHARE * sampler.m > n or sampler.m * p > _GRAM * n:
        return None
    if run.max_passes < _LEAST or run.max_iter < _LEAST:
        return None
    by_hessians = objective.problem.second_order and sampler.m * p <= _HESSIANS * n
    found = _minimum(run, sampler, by_hessians)
    if found is None:
        return None
    w, columns = found
    problem = objective.problem
    z = _core.empty_rows((problem.n, *objective.w_shape[1:]), problem.compute)
    value, u = problem.value_and_grad(w, None, z)
    if not math.isfinite(value):
        return None
    known = Known(w, value, u, z)
    if columns is not None:
        return Start(w, known, None, columns)
    corrected = _corrected(objective, metric, known) if by_hessians else None
    if corrected is None:
        return Start(w, known, None, metric.at(problem, z, run.n_passes))
    return Start(w, known, *corrected)


def _minimum(
    run: Run, sampler: Sampler, by_hessians: bool
) -> tuple[np.ndarray, Columns | list[Columns] | None] | None:
    """w near the minimum of a sample, which is let go of, or None where the objective has no samples.

    For classes also the columns there: the curvature of all rows would take several (n, k) arrays.
    """
    objective = run.objective
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
        if by_hessians:
            return minimum_of_sample(small, _OFF * least, _PASSES), None
        inner = type(run)(small, run.method, tol=1e-6, max_passes=_PASSES, max_iter=np.inf,
                          max_seconds=None, callbacks=(settled,))
        inner.go(None, 0)
        w = inner.result().w
        inner.release()
        if objective.k == 1:
            return w, None
        return w, Metric(small, 0).at(small.problem, small.problem.margins(w))
    finally:
        objective.reads.rows += int(small.n_passes * m)


def _corrected(objective: Objective, metric: Metric, known: Known) -> tuple[np.ndarray, Columns] | None:
    """The minimum of a second sample with the gradient of all rows at a known point, and the columns there.

    Rows are drawn by the size of their residuals, so that of rare classes nearly all rows are in. (Of two
    classes that is the curvature, where a row is on the right side of the margin.)
    """
    w, _, u, z = known
    weight = _core.empty_rows(z.shape, z.dtype)
    objective.problem.loss_from_margins(z, weight)
    np.abs(weight, out=weight)
    mean = _core.row_mean(weight, objective.s, objective.problem.n_threads)
    if not mean > 0:
        return None
    weight += weight.dtype.type(_SETTLED * mean)
    rows, factors = metric.sampler.draw(weight, -2 % 2**31)  # type: ignore[union-attr]
    small = objective.sample(rows, factors / weight[rows])
    if small is None:
        return None
    try:
        minimum = minimum_of_sample(small, _MODEL, _PASSES, w, u - small.problem.value_and_grad(w)[1])
        return minimum, Metric(small, 0).of_all(small.problem, small.problem.margins(minimum))
    finally:
        objective.reads.rows += int(small.n_passes * len(rows))


def start_of_constant(objective: Objective) -> tuple[np.ndarray, np.ndarray] | None:
    """w of the null model with an intercept, and its margins, where X has a column of one number for it.

    Without an intercept of its own the objective's null model is w = 0, and where one class is rare half of
    the way from there is that column's. None where there is no such column, or little to gain. No pass.
    """
    X, (n, _) = objective.X, objective.shape
    if objective.fit_intercept or objective.k != 1 or not objective.penalty.smooth:
        return None
    if not isinstance(X, np.ndarray) or isinstance(X, np.memmap) or X.shape[1] * X.itemsize < _ROW:
        return None
    if objective.read_as != (1.0, 0.0, None) or objective.bounds is not None:
        return None
    few = X[:: max(1, n // _FEW_ROWS)]
    same = np.flatnonzero((few == few[0]).all(axis=0) & (few[0] != 0))
    if not same.size:
        return None
    problem, z = objective.problem, objective.null_margins()
    found = best_intercept(problem, z, objective.s, objective.loss.curvature_bound, not z.any())
    w = np.zeros(objective.w_shape)
    for j in same[:_FEW_COLUMNS]:
        w[j] = found.b / float(X[0, j])
        value = found.value + objective.penalty_value(w)
        if value > _GAIN * objective.null_model()[0]:
            return None
        if (X[:, j] == X[0, j]).all():
            return w, found.z
        w[j] = 0.0
    return None


def few_rows(n: int, p: int) -> bool:
    """Whether n rows are too few for a start from some of them to pay, of p coefficients."""
    return _SHARE * _ROWS * p > n


def start_of_sample(run: Run, seed: int, null: np.ndarray) -> np.ndarray:
    """w from a sample for a method that takes Hessians of all rows; the null model's where it does not pay.

    Newton's method takes half of its passes to come as near as a hundred rows per coefficient are. Rows
    that are nearly all of one class, or counts nearly all zero, say less: with weights all alike their
    number is (Σ|r|)²/Σr², r the residuals of the null model.
    """
    objective = run.objective
    n, p = objective.shape[0], null.size
    m = _ROWS * p
    if few_rows(n, p) or not objective.divisible or min(run.max_passes, run.max_iter) < _LEAST:
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
