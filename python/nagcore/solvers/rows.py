"""Which rows to sample for a Gram matrix, and what each then stands for.

Rows are drawn with probabilities that follow their curvature, which the margins give for free:
π_i = 0.9·s_i D_ii / Σ s D + 0.1/n (docs/maths.md, "Accelerated descent"). Columns that hardly ever
leave their usual value would still be missed, and a preconditioner that misses a column takes steps
along it that are far too long. So rows in which such a column has something to say are a stratum of
their own, which is found in one pass: the margins of a w that is zero everywhere else, or of CSR
in memory a sweep over its indices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nagcore import _core
from nagcore.objective import Objective

__all__ = ["Sampler", "gram_speed", "rounds", "sample_size", "strata"]

_READS = 2.5          # what a Gram matrix of the sample may cost, in reads of X
_WHATEVER = 1.0       # passes that a metric costs whatever its rows, where that is so
_OPERATIONS = 11.0    # operations of a Gram matrix in the time in which one number of X is read
_CLASS = 4.0          # operations of a pass on a number of X, a class
_ROUNDED = 48         # columns from which on rows are rounded where the processor multiplies those faster


class _Rounding(NamedTuple):
    """What processors that multiply rounded rows do there, and how a run spends it where X is large."""

    per_column: float  # times as many operations in the time of a read, for each column
    most: float        # and at most
    large: int         # bytes of X, from which on a pass is long beside a metric of few rows
    first: float       # reads for the first metric then: the loss bends most on the way from the null model
    later: float       # reads for the others


_ROUNDING = {
    "amx": _Rounding(1 / 60, 6.0, 1 << 25, 1.5, 2.5),
    "bf16": _Rounding(1 / 60, 2.0, 3 << 22, 1.0, 1.5),
}
_ENTRY, _PAIRS = 3.4, 0.8  # of CSR: an entry in a pass in that time, and pairs in the time of an entry
_FEWEST, _MOST = 5, 100  # rows per column: eigenvalues are then good to a factor of 2, or 10 %
_LOOKED_AT = 2048     # rows in which usual values are looked for
_APART = 8           # of those, in which entries' sizes are looked at: each so many-th
_ENOUGH = 10         # rows per column, below which the metric is poor enough as it is
_LONG = 40.0         # how far too long steps along a column may be, before its rows are looked for
_FEW = 8              # a column with fewer entries off its usual value among them is rare


def rounds(p: int) -> bool:
    """Whether Gram matrices of p columns that need two digits alone are made of rounded rows."""
    return p >= _ROUNDED and _core.rounded_products() is not None


def gram_speed(p: int) -> float:
    """How many times as fast as others those are."""
    if not rounds(p):
        return 1.0
    kind = _ROUNDING[_core.rounded_products()]  # type: ignore[index]
    return max(1.0, min(kind.per_column * p, kind.most))


def sample_size(
    n: int, p: int, passes: float = 0.0, matrices: int = 1, entries: float = 0.0, reads: float = _READS,
    speed: float | None = None,
) -> int:
    """Rows, of n, for a Gram matrix of p columns that half the passes so far, or so many reads, pay for.

    Of CSR with so many `entries` a row a read is shorter, and the Gram matrix is made from pairs of a row's
    entries, or as a dense one. `speed` is that of the product, `gram_speed` where it is not said.

    >>> sample_size(100_000, 100), sample_size(900, 100), sample_size(20_000, 100, entries=10)
    (10000, 900, 4000)
    """
    operations = _OPERATIONS * (gram_speed(p) if speed is None else speed)
    affordable = operations / p
    if entries:
        affordable = min(affordable, max(_PAIRS / entries, operations * _ENTRY * entries / p**2))
    affordable = int(max(reads, 0.5 * passes) * affordable * n / matrices)
    m = max(_FEWEST * p, min(affordable, _MOST * p))
    return m if 2 * m <= n else n


class Sampler:
    """Draws rows of one objective's X, again and again as the curvature changes.

    Parameters
    ----------
    objective : Objective
        Its `problem` has `gram`, and its X can be indexed by rows.
    seed : int

    Attributes
    ----------
    m : int
        Rows that a draw aims at; n where all of them are wanted.
    soon : bool
        Whether passes are long beside what a Gram matrix costs: the first one is then made from fewer
        rows, and a later one as soon as the steps that it saves are worth its `price`.
    """

    def __init__(self, objective: Objective, seed: int) -> None:
        self.objective, self.seed = objective, seed
        X = objective.X
        self._entries = 0.0  # of a row of CSR
        if not isinstance(X, np.ndarray):
            self._entries = getattr(X, "nnz", 0) / objective.shape[0]
        self.speed = gram_speed(objective.p)
        self.soon, self._first, self._later = False, _READS, _READS
        if rounds(objective.p):
            kind = _ROUNDING[_core.rounded_products()]  # type: ignore[index]
            if objective.nbytes >= kind.large:
                self.soon, self._first, self._later = True, kind.first, kind.later
        self.m = self.rows_for(0.0)
        self._rare: np.ndarray | None = None  # rows of the stratum, once they were looked for

    def rows_for(self, passes: float, matrices: int = 1) -> int:
        """How many rows to draw after so many passes: what half of them, or a few reads, pay for.

        Where classes have a Gram matrix each, they share that.
        """
        (n, _), p = self.objective.shape, self.objective.p
        if not self.soon:
            return sample_size(n, p, passes, matrices, self._entries, speed=self.speed)
        reads = self._later if passes else self._first
        return sample_size(n, p, 0.5 * passes, matrices, self._entries, reads, self.speed)

    def in_full(self) -> None:
        """Count rows at the price of products of full numbers from now on."""
        self.speed, self.soon = 1.0, False

    def price(self, passes: float, matrices: int = 1) -> float:
        """What a metric costs after so many passes, in passes; 0 where it follows what half of those cost."""
        if not self.soon:
            return 0.0
        n, p = self.objective.shape[0], self.objective.p
        reads = self.rows_for(passes, matrices) * matrices * p / (_OPERATIONS * self.speed * n)
        return _WHATEVER + reads / max(1.0, _CLASS * self.objective.k / _OPERATIONS)

    def draw(
        self, curvature: np.ndarray | None, turn: int, lift: float = 0.0
    ) -> tuple[np.ndarray | None, Any]:
        """Rows (None for all), and what each of them stands for: v_i over how often it is drawn.

        Parameters
        ----------
        curvature : ndarray of shape (n,) or None
            φ'' of each row, or what shall weigh it; None where all are equal.
        turn : int
            How many draws there were: each takes other rows.
        lift : float
            v_i = curvature_i + lift·(the mean of the curvature), or 1 without it.
        """
        n, m = self.objective.shape[0], self.m
        if m == n:
            return None, 1.0
        if self._rare is None:
            self._rare = self._look_for_rare()
        rng = np.random.default_rng([self.seed, turn])
        rare, s = self._rare, self.objective.s
        if curvature is None and not rare.size and s is None:
            return strata(rng, m, n), n / m
        if len(rare) > m // 2:
            rare = rare[strata(rng, m // 2, len(rare))]
        rows, factors, mean = _core.draw_rows(
            n, m - len(rare), rng.random(), curvature, s, self._rare, lift, self.objective.problem.n_threads)
        if not rare.size:
            return rows, factors
        share = np.full(len(rare), len(self._rare) / len(rare))
        if curvature is not None:
            share *= curvature[rare] + lift * mean
        return np.concatenate([rare, rows]), np.concatenate([share, factors])

    def _held(self, X: np.ndarray) -> bool:
        """Whether l2 alone holds steps along columns that a sample misses, by the entries of some rows.

        Of a column that three or more rows of a sample stand for in the mean, one is mostly drawn. What is
        missed has curvature of at most 3κx²/m then, beside l2, and steps along it are too long by
        1 + 3κx²/(m·l2).
        """
        objective = self.objective
        bound, l2 = objective.loss.curvature_bound, objective.l2
        plain = objective.read_as == (1.0, 0.0, None)
        if not (plain and np.isfinite(bound) and l2) or self.m < _ENOUGH * objective.p:
            return False
        size = float(np.abs(X).max(initial=0))
        return 3 * bound * size * size <= _LONG * self.m * l2

    def _look_for_rare(self) -> np.ndarray:
        """Rows in which some rare column leaves its usual value. At most one pass."""
        objective = self.objective
        X, (n, d) = objective.X, objective.shape
        rows = strata(np.random.default_rng(self.seed), min(n, _LOOKED_AT), n)
        objective.reads.rows += len(rows)
        if isinstance(X, np.ndarray) and self._held(X[rows[::_APART]]):
            return np.zeros(0, np.int64)
        threads = objective.problem.n_threads
        if isinstance(X, np.ndarray):
            off, usual = _core.off_usual(X, rows, threads)
            # A constant column other than zero is seen by every sample: as all that there is to
            # see, unless an intercept takes the constant away.
            if not objective.fit_intercept:
                off[(off == 0) & (usual != 0)] = _FEW
        elif objective.has_rows:
            objective.reads.passes += 1
            return objective.problem.core.rows_of_rare_columns(rows, _FEW)
        else:
            off = np.bincount(X[rows].indices, minlength=d)
        rare = np.flatnonzero(off < _FEW)
        if not rare.size:
            return rare
        probe = np.zeros(objective.w_shape)
        probe[rare] = np.random.default_rng(self.seed).uniform(1, 2, (len(rare), *probe.shape[1:]))
        z = objective.problem.margins(probe)
        z = z if z.ndim == 1 else np.ascontiguousarray(z[:, 0])
        return _core.rows_unlike(z, float(np.sort(z[rows])[len(rows) // 2]), threads)


def strata(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    """m rows in ascending order, one from each of m equal parts of n rows."""
    return ((np.arange(m) + rng.random(m)) * (n / m)).astype(np.int64)
