"""The preconditioner of a run: made at the null model, and again where the loss has bent since.

It comes from Gram matrices of sampled rows where the problem gives them, else from moments that
NumPy takes (`Columns.of`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nagcore import _core
from nagcore.objective import Objective
from nagcore.solvers.coordinates import (
    CURVATURE_FLOOR,
    DENSE_LIMIT,
    Columns,
    class_curvature_rows,
    curvature_rows,
)
from nagcore.solvers.rows import Sampler, rounds

__all__ = ["Metric"]

_BENT = 0.05        # mean change of curvature, in parts of its mean, that is worth a new metric
_ALIKE = 2.0        # classes whose curvatures are within this factor share a metric
_CLASS_ENTRIES = 1 << 23  # of the metrics of all classes together
_OFFSET = 1e4       # mean squares beyond this many variances leave float32 too few digits
_ROUNDED_OFFSET = 1e2  # and bfloat16
_TELLING = 20       # rows per column, from which on a metric knows more than steps in an earlier one


class Metric:
    """Makes the `Columns` of one run, and knows when they are out of date.

    Parameters
    ----------
    objective : Objective
    seed : int
    """

    def __init__(self, objective: Objective, seed: int) -> None:
        self.objective, self.seed, self._turn = objective, seed, 0
        problem, d = objective.problem, objective.shape[1]
        self.sampler: Sampler | None = None
        if problem.has_gram and objective.X is not None and objective.penalty.smooth and d <= DENSE_LIMIT:
            self.sampler = Sampler(objective, seed)
        self.rounds = self.sampler is not None and rounds(objective.p)
        self.soon = self.sampler is not None and self.sampler.soon
        self.rows = np.zeros(0)
        self._bent: tuple[Any, Any] = None, None  # margins that `bent` looked at last, and what it saw
        self.by_class = objective.k > 1 and objective.k * d * d <= _CLASS_ENTRIES
        self.n_metrics = objective.k if self.by_class else 1

    def at(self, problem: Any, z: np.ndarray, passes: float = 0.0) -> Columns | list[Columns]:
        """The columns with the curvature that the loss has at margins z; for each class if `by_class`.

        The more passes there were, the more rows are sampled: a metric that was not good enough
        becomes a better one.
        """
        if self.sampler is not None:
            self.sampler.m = self.sampler.rows_for(passes, self.n_metrics)
        (seen, rows), self._bent = self._bent, (None, None)
        self.rows = rows if seen is z else curvature_rows(self.objective, problem, z)
        if self.sampler is not None:
            if self.by_class:
                rows = class_curvature_rows(problem, z)
                levels = [float(column.max()) for column in class_curvature_rows(problem, z)]
                if all(np.ptp(column) <= _BENT * level for column, level in zip(rows, levels, strict=True)):
                    # At the null model one matrix serves all classes but for a factor.
                    columns = self._of_gram(self.sampler, self.rows)
                    if columns is None or max(levels) <= _ALIKE * min(levels):
                        return columns or Columns.of(self.objective, self.seed, self.rows)
                    return [columns._replace(curvature=(1 + CURVATURE_FLOOR) * c) for c in levels]
                each = [self._of_gram(self.sampler, column) for column in class_curvature_rows(problem, z)]
                if None not in each:
                    return each
            columns = self._of_gram(self.sampler, self.rows)
            if columns is not None:
                return columns
        return Columns.of(self.objective, self.seed, self.rows)

    def of_all(self, problem: Any, z: np.ndarray) -> Columns:
        """The columns with the curvature at margins z, of all rows: for an objective of one margin a row."""
        self.rows, columns = curvature_rows(self.objective, problem, z), None
        if self.sampler is not None:
            self.sampler.m = self.objective.shape[0]
            columns = self._of_gram(self.sampler, self.rows)
        return columns or Columns.of(self.objective, self.seed, self.rows)

    def tells_all(self, passes: float) -> bool:
        """Whether a metric made after so many passes leaves nothing to what earlier steps have shown."""
        if not self.soon:
            return False
        rows = self.sampler.rows_for(passes, self.n_metrics)  # type: ignore[union-attr]
        return rows >= _TELLING * self.objective.p

    def price(self, passes: float) -> float:
        """What a new metric would cost after so many passes, in passes, where that is to be weighed."""
        return 0.0 if self.sampler is None else self.sampler.price(passes, self.n_metrics)

    def look(self, problem: Any, z: np.ndarray, spare: np.ndarray | None = None) -> None:
        """Take the curvature at z as that which the columns, made elsewhere, are for."""
        if not self.rows.size:
            self.rows = curvature_rows(self.objective, problem, z, spare)

    def bent(
        self, problem: Any, z: np.ndarray, passes: float = 0.0, spare: np.ndarray | None = None
    ) -> bool:
        """Whether the curvature at margins z is no longer what the columns were made for.

        Or whether twice as many rows could be sampled for them by now.
        """
        objective = self.objective
        if objective.X is None:
            return False
        if self.sampler is not None and self.sampler.rows_for(passes, self.n_metrics) >= 2 * self.sampler.m:
            return True
        rows, threads = curvature_rows(objective, problem, z, spare), objective.problem.n_threads
        if rows.dtype != self.rows.dtype:
            change = float(np.abs(rows - self.rows).mean())
        else:
            change = _core.mean_size(rows, minus=self.rows, n_threads=threads)
        if change <= _BENT * _core.row_mean(self.rows, n_threads=threads):
            return False
        self._bent = z, rows
        return True

    def _of_gram(self, sampler: Sampler, curvature: np.ndarray) -> Columns | None:
        objective, d = self.objective, self.objective.shape[1]
        curvature = np.ascontiguousarray(curvature)
        mean = _core.row_mean(curvature, objective.s, objective.problem.n_threads)
        rows, factors = sampler.draw(curvature, self._turn, CURVATURE_FLOOR)
        self._turn += 1
        weights = curvature + curvature.dtype.type(CURVATURE_FLOOR * mean) if rows is None else None

        def columns_of(problem: Any, rounded: bool) -> Columns | None:
            room = _core.empty_rows((problem.p, problem.p), np.float64)  # memory of a fit before this one
            if rows is None:
                G = problem.gram(weights.astype(problem.compute, copy=False), rounded=rounded, out=room)
            else:
                G = problem.gram(None, rows, factors, rounded, room)
            # What overflows does so on the diagonal first, by Cauchy and Schwarz.
            diagonal = G.diagonal()
            if not (np.isfinite(diagonal).all() and diagonal.any()):
                return None
            return Columns.of_gram(G, d, (1 + CURVATURE_FLOOR) * mean)

        def exact() -> Columns | None:
            columns = None
            for problem in (objective.problem, objective.wide):
                if problem is None:
                    break
                columns = columns_of(problem, False)
                if columns is None or problem.compute == np.float64 or not _far_off(columns, _OFFSET):
                    break
            return columns

        def hidden() -> Columns | None:
            """As `exact`, where rounding has hidden something, as it would again in this run."""
            self.rounds = self.soon = False
            sampler.in_full()
            return exact()

        if not self.rounds:
            return exact()
        columns = columns_of(objective.problem, True)
        if columns is None or _far_off(columns, _ROUNDED_OFFSET):
            return hidden()
        return columns._replace(exact=lambda: hidden() or columns)


def _far_off(columns: Columns, offset: float) -> bool:
    """Whether a column's mean is too far from zero for what it varies by."""
    return bool((columns.mean**2 > offset * columns.spread).any())
