"""Ridge where rows abound: conjugate gradients on all rows, preconditioned by the Gram matrix of some.

    p = −P⁻¹∇F(w) + β·p₋,   w⁺ = w + α·p,   α exact,   P = (1/m) Σ_sample x̃x̃ᵀ + l2·I

P⁻¹H has its eigenvalues in about 1 ± 2√(p/m), so that each read of X divides the error by √(m/p), from
the sample's own solution on. As F is quadratic, the gradient at a trial step's end gives the exact α and
the gradient at w⁺: one read a step. The first reads are in float32, where X is, and the last in float64:
the solution is that of the float64 normal equations to `accuracy`, not to the rounding of the passes.

The residual of the normal equations decides when to stop. P⁻¹∇F is the error itself, but for a factor of
1 ± 2√(p/m): what is left of it after a last step, which needs no read of its own, must be below the
rounding of the coefficients, and ½∇Fᵀ P⁻¹∇F, the gap before that step, below `tol`. Where the error falls
so slowly that the full Gram matrix would cost less than the reads that are left (a few rows of great
leverage), and where float32 sums would not do, the caller takes that matrix. What there is by then comes
back as "too slow", as it does after Ctrl-C: every step lowers F.

Source: Avron, Maymounkov & Toledo 2010 (Blendenpik: a sampled preconditioner for least squares);
Hestenes & Stiefel 1952.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nagcore.objective import Objective
from nagcore.objective.duality import dot
from nagcore.solvers.dense import EquilibratedHessian, eliminate
from nagcore.solvers.rows import Sampler

__all__ = ["Plan", "Sampled", "plan", "sampled_ridge"]

# Time is told in reads of one float32 number (0.13 ns on two cores). On 10⁶ × 100: 12.6 ms a plain read,
# 13 and 16 ms a gradient in float32 and float64 arithmetic, 58 and 98 ms the Gram matrix.
_PASS = {4: 1.2, 8: 2.2}         # of one number of X, by its bytes
_PRODUCTS = {4: 20.0, 8: 13.5}   # multiply-adds of a Gram matrix in float32 and float64
_FIXED = 2e7                     # 2.5 ms: the sample's factor, and what Python does
_WEIGHED = 200.0                 # for each row: what drawing rows by weight takes
_WORTH = 0.85                    # of the time of the full Gram matrix
_MOST_COLUMNS = 2048
_FEWEST = 8                      # rows per column of a sample
_MOST_READS = 24
_SPARE = 1.3                     # times the rows that the reads planned would just do with
# Of the largest coefficient, as it is and in units of the columns' sizes: half a unit in the last place of
# a float32 coefficient; in float64 what Cholesky's own rounding leaves at a condition of some 10³.
_ACCURACY = {4: 2.0**-24, 8: 1e-12}
_COLLINEAR = 1e-10               # least pivot of the scaled P below which nothing is promised
_FAR = 1e4                       # mean²/variance up to which float32 sums are good enough for P
_NARROW = 1e-6                   # error, times √condition, down to which float32 passes do
_TINY = 1e-30                    # squares below which float32 sums lose digits to underflow
_NOTHING = 1e-6                  # coefficients below this part of y are as good as none
_EPS = float(np.finfo(np.float64).eps)


class Plan(NamedTuple):
    """Rows to sample, reads of X then expected, and what the full Gram matrix costs, in reads."""

    rows: int
    reads: int
    instead: float


class Sampled(NamedTuple):
    """Coefficients, the reads of X that they took, and "converged", "interrupted" or "too slow"."""

    coef: np.ndarray
    intercept: float
    reads: int
    message: str


def plan(n: int, p: int, item: int, weighted: bool = False) -> Plan | None:
    """The cheapest sample for n rows of p columns of `item` bytes; None where a full Gram matrix is cheaper.

    With ρ = √(p/m), k reads leave ρᵏ⁺¹.

    >>> plan(1_000_000, 100, 4).reads
    4
    >>> plan(1_000_000, 30, 4) is None
    True
    """
    full, one = n * p * p / _PRODUCTS[8], _PASS[item] * n * p
    if p > _MOST_COLUMNS or full < _FIXED + 2 * one:
        return None
    least, found = _WORTH * full, None
    for reads in range(2, _MOST_READS):
        rows = max(int(_SPARE * p / _ACCURACY[item] ** (2 / (reads + 1))), _FEWEST * p)
        cost = rows * p * p / _PRODUCTS[item] + reads * one + _FIXED + weighted * _WEIGHED * n
        if 2 * rows <= n and cost < least:
            least, found = cost, Plan(rows, reads, full / one)
    return found


def sampled_ridge(
    X: np.ndarray,
    y: np.ndarray,
    s: np.ndarray | None,
    alpha: float,
    planned: Plan,
    *,
    fit_intercept: bool,
    tol: float,
    seed: int = 0,
) -> Sampled | None:
    """min_w ‖y − Xw − b‖²_s + alpha‖w‖² for dense X (n, d) of float32 or float64, y (n,) and alpha > 0.

    None where no sample makes a preconditioner.
    """
    total = len(y) if s is None else float(s.sum())
    objective = Objective(X, y, loss="squared", l2=alpha / total, sample_weight=s,
                          fit_intercept=fit_intercept)
    sample = _sample(objective, planned.rows, seed)
    if sample is None:
        return None
    w, reads, message = sample.w, 0, ""
    try:
        for step in _iterate(objective, sample, planned, tol):
            (w, message), reads = step, reads + 1
    except KeyboardInterrupt:
        message = "interrupted"
    d = X.shape[1]
    return Sampled(w[:d], float(w[d]) if fit_intercept else 0.0, reads, message or "too slow")


def _iterate(
    objective: Objective, sample: _Sample, planned: Plan, tol: float
) -> Iterator[tuple[np.ndarray, str]]:
    """Yield w after each read of X, and what it means: "" while there is more to do."""
    l2, d, solve = objective.l2, objective.shape[1], sample.factor.solve
    accuracy = max(_ACCURACY[objective.X.dtype.itemsize], 4 * _EPS / sample.factor.least)
    narrow = _NARROW / math.sqrt(sample.factor.least)
    promised = rate = math.sqrt(objective.p / planned.rows)
    w, expected, first, size = sample.w, rate, 1.0, 0.0
    g = p = np.zeros_like(w)
    for reads in range(1, _MOST_READS + 1):
        exact = expected <= narrow or objective.problem.compute == np.float64
        problem: Any = objective.wide if exact else objective.problem
        _, g_end = problem.value_and_grad(w + p)
        g_end[:d] += l2 * (w + p)[:d]
        step, change, g_old = 1.0, g_end - g, g
        if reads > 1:
            bend = dot(p, change)
            step = -dot(p, g) / bend if bend > 0 else 0.0
        w, g = w + step * p, g + step * change
        h = solve(g)
        beta = max(0.0, dot(g, h) - dot(g_old, h)) / max(size, 1e-300) if reads > 1 else 0.0
        size = dot(g, h)
        p = beta * p - h
        error = sample.error(h, w)
        if not math.isfinite(error):
            return
        if reads == 1:
            first = max(size, 1e-300)
        else:  # of all steps, in the norm of P: one step's, in the largest coefficient, is erratic
            rate = max((size / first) ** (0.5 / (reads - 1)), promised)
        expected = max(error * rate, 1e-300)
        if exact and expected <= accuracy and size <= tol * sample.gain(w):
            yield w + p, "converged"
            return
        yield w, ""
        if rate >= 1 or math.log(accuracy / expected) / math.log(rate) > planned.instead:
            return


@dataclass(eq=False)
class _Sample:
    """P of some rows, their own solution w, and the units in which errors are told."""

    factor: EquilibratedHessian
    centred: np.ndarray  # P without the intercept
    scale: np.ndarray    # the sizes of the columns
    y: float             # and of the targets
    w: np.ndarray

    def error(self, h: np.ndarray, w: np.ndarray) -> float:
        """The largest of h over the largest of w: as they are, and in units of the columns."""
        h, w = np.abs(h[: len(self.scale)]), np.abs(w[: len(self.scale)])
        nothing = _NOTHING * self.y
        in_units = float((h * self.scale).max()) / max(float((w * self.scale).max()), nothing, 1e-300)
        least = nothing / max(float(self.scale.max()), 1e-300)
        return max(in_units, float(h.max()) / max(float(w.max()), least, 1e-300))

    def gain(self, w: np.ndarray) -> float:
        """wᵀPw, centred: twice what a solution w gains over the null model."""
        head = w[: len(self.scale)]
        return max(dot(head, np.einsum("ij,j->i", self.centred, head)), (_NOTHING * self.y) ** 2)


def _sample(objective: Objective, m: int, seed: int) -> _Sample | None:
    """None where float32 sums would not do, or the columns are collinear."""
    sampler = Sampler(objective, seed)
    sampler.m = m
    rows, factor = sampler.draw(None, 0)
    weights, times = None, 1.0
    if isinstance(factor, np.ndarray):
        weights = np.zeros(objective.shape[0], objective.problem.compute)
        weights[rows] = factor
    else:
        times = float(factor)
    objective.reads.rows += m
    yy, c, G = objective.problem.core.moments(weights, rows)
    yy, c, G, d, l2 = yy * times, c * times, G * times, objective.shape[1], objective.l2
    squares = G.diagonal()[:d].copy()
    G.reshape(-1)[: d * len(G) : len(G) + 1] += l2
    if not (np.isfinite(G).all() and (squares[squares > 0] > _TINY).all()):
        return None
    centred, mean, weight = eliminate(G, objective.fit_intercept)
    variance = np.maximum(centred.diagonal() - l2, 0.0)
    if mean is not None:
        yy -= c[d] ** 2 / weight
        if (mean**2 > _FAR * variance).any() or c[d] ** 2 > _FAR * weight * yy:
            return None
    factored = EquilibratedHessian(G, objective.fit_intercept, 0.0, l2)
    if factored.ridge or not factored.least > _COLLINEAR:
        return None
    return _Sample(factored, centred, np.sqrt(variance), math.sqrt(max(yy, 0.0)), factored.solve(c))
