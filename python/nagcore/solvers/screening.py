"""Gap-safe sphere screening: columns whose coefficients are proven zero leave the passes.

Let θ be dual feasible, u = Xᵀ(s∘θ)/S, and gap = F(w) − D(θ). φ'' ≤ κ makes D strongly concave, so the
best dual point θ* lies in a sphere about θ, and the solution has w_j = 0 wherever even the sphere stays
within l1:

    (1/S) Σ s_i (θ_i − θ*_i)² ≤ 2κ·gap,    |u_j| + √(2κ·gap)·‖x_j‖ < l1  ⟹  w*_j = 0

with ‖x_j‖² = (1/S) Σ s_i x_ij², about the mean where there is an intercept (θ and θ* then both sum to zero).
It holds for l2 ≥ 0. What is left is copied where that is small beside X; the minimum is that of all columns,
and so is the certificate that a run ends with.

Source: Ndiaye, Fercoq, Gramfort & Salmon 2017.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nagcore.objective import Objective
from nagcore.solvers.base import Iterate, Oracle
from nagcore.solvers.moments import _block_moments, _csr_moments

__all__ = ["FewerColumns", "Screen"]

_FIRST, _GROWTH = 12, 1.3  # iterations before the first look, and from one to the next
_SHRINK = 0.5            # the share of columns that must be left, or less, for a copy to pay
_MOST_SHARE = 0.25       # of X's columns that may be left, and
_MOST_BYTES = 1 << 23    # of X that they may hold: a fit's memory beyond X does not grow with X
_SMALL = 1 << 18         # bytes of X that are read faster than this is thought about
_DOUBT = 4.0             # proven gaps are larger than estimated ones
_ENTRIES = 1 << 18       # counted at a time
_SLACK = 1e-6            # of the norms and of l1, for rounding


class Screen:
    """What one run knows of columns that are zero in the solution.

    Attributes
    ----------
    dropped : ndarray of shape (d,), bool
    part : Objective or None
        The objective over the others, copied.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.dropped = np.zeros(objective.shape[1], bool)
        self.part: Objective | None = None
        self.columns = np.arange(objective.shape[1])
        self._norms: np.ndarray | None = None
        self._bytes: np.ndarray | None = None  # of each column
        self._next: float = _FIRST

    @staticmethod
    def applies(objective: Objective) -> bool:
        """Whether columns can be proven zero, and dropped, here."""
        return bool(objective.l1 and objective.k == 1 and objective.loss.bounded_curvature
                    and objective.divisible and objective.nbytes >= _SMALL and objective.storage is None
                    and objective.gap_kind == "certificate")

    def promising(self, oracle: Oracle, estimate: float, n_iter: int) -> bool:
        """Whether the estimated gap and a sample's norms say that a look, which costs passes, would pay."""
        if n_iter < self._next or not estimate < math.inf:
            return False
        u = oracle.coordinates.centred(oracle.u)
        out = self._outside(u, oracle.coordinates.rms, _DOUBT * estimate)
        return self._pays(out | self.dropped)

    def look(self, oracle: Oracle, it: Iterate, n_iter: int) -> Any:
        """Prove what can be; return the certificate, of all columns, that did it. One or two passes."""
        self._next = _GROWTH * n_iter
        objective = self.objective
        known = {}
        if objective.fit_intercept and it.z.dtype == np.float64 and objective.bounds is None:
            known = {"z": it.z, "spare": oracle.spare}
        certificate = objective.certify(objective.clipped(oracle.coordinates.to_w(it.x)), **known)
        if certificate.slope is not None and math.isfinite(certificate.gap):
            if self._norms is None:
                self._norms = _norms(objective)
            out = self._outside(certificate.slope, self._norms, certificate.gap) | self.dropped
            if self._pays(out):
                self._drop(out)
        return certificate

    def _outside(self, u: np.ndarray, norms: np.ndarray, gap: float) -> np.ndarray:
        objective = self.objective
        radius = math.sqrt(2 * objective.loss.curvature_bound * max(gap, 0.0))
        reach = objective.penalty.reach(u) + radius * norms * (1 + _SLACK)
        return reach < objective.l1 * (1 - _SLACK)

    def _pays(self, out: np.ndarray) -> bool:
        left = len(out) - int(np.count_nonzero(out))
        if not (0 < left <= _SHRINK * len(self.columns) and left <= _MOST_SHARE * len(out)):
            return False
        if self._bytes is None:
            self._bytes = _bytes_of_columns(self.objective)
        return float(self._bytes[~out].sum()) <= _MOST_BYTES

    def _drop(self, out: np.ndarray) -> None:
        objective = self.objective
        self.dropped, self.columns = out, np.flatnonzero(~out)
        objective.reads.rows += objective.shape[0] * len(self.columns) // len(out)
        self.part = objective.restrict(self.columns)

    def problem(self, narrow: bool) -> FewerColumns:
        """The problem over the columns that are left, in float64 unless `narrow`."""
        assert self.part is not None
        return FewerColumns(self.objective, self.part.problem if narrow else self.part.wide, self.columns)


def _bytes_of_columns(objective: Objective) -> np.ndarray:
    """What a copy of each column takes, shape (d,)."""
    X, d = objective.X, objective.shape[1]
    if isinstance(X, np.ndarray):
        return np.full(d, objective.nbytes / d)
    entries = np.zeros(d)
    for i in range(0, len(X.indices), _ENTRIES):  # bincount makes eight bytes of each index
        entries += np.bincount(X.indices[i : i + _ENTRIES], minlength=d)
    return entries * (X.data.itemsize + X.indices.itemsize)


def _norms(objective: Objective) -> np.ndarray:
    """‖x_j‖ in the weights' mean, about the columns' means where there is an intercept. One pass."""
    if isinstance(objective.X, np.ndarray):
        mean, variance, _, _ = _block_moments(objective, objective.s, None, None, False)
    else:
        mean, variance = _csr_moments(objective, objective.s)
    return np.sqrt(variance if objective.fit_intercept else variance + mean**2)


class FewerColumns:
    """A problem whose passes read a copy of some columns: w is zero in the others, and not asked for.

    Gradients have zeros there. A pass counts as those columns' share of one.
    """

    origin = None  # columns are copied as they are

    def __init__(self, objective: Objective, part: Any, columns: np.ndarray) -> None:
        self._reads, self._part = objective.reads, part
        self.n, self.d = objective.shape
        self.p, self.k, self.compute = objective.p, 1, part.compute
        self._index = np.append(columns, self.d) if objective.fit_intercept else columns
        self._rows = self.n * len(columns) // self.d
        self.loss_from_margins, self.n_threads = part.loss_from_margins, part.n_threads
        self.slope_along = getattr(part, "slope_along", None)
        self.residual_size = getattr(part, "residual_size", None)
        self.n_threads = getattr(part, "n_threads", None)
        self.second_order, self.has_gram = part.second_order, False
        if part.second_order:
            self.curvature_from_margins = part.curvature_from_margins

    def value_and_grad(self, w, grad=None, margins=None, residuals=None):
        """As `Counted.value_and_grad`."""
        self._reads.rows += self._rows
        value, few = self._part.value_and_grad(w[self._index], None, margins, residuals)
        grad = np.empty(self.p) if grad is None else grad
        grad[...] = 0.0
        grad[self._index] = few
        return value, grad

    def margins(self, w, out=None):
        """As `Counted.margins`."""
        self._reads.rows += self._rows
        return self._part.margins(w[self._index], out)
