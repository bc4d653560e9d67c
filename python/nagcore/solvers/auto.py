"""What `solver="auto"` chooses, and the sentence that says why (docs/solvers.md has the measurements).

>>> import numpy as np
>>> import nagcore
>>> name, why = choose(nagcore.Objective(np.eye(3), np.ones(3), loss="logistic", l1=0.1))
>>> name
'prox_newton'
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nagcore.objective import Objective
from nagcore.solvers.coordinates import DENSE_LIMIT
from nagcore.solvers.proxnewton import WIDE, columns_together
from nagcore.solvers.rows import gram_speed, sample_size
from nagcore.solvers.tails import heavy_tailed

__all__ = ["choose"]

# A Hessian over all rows costs n·p² operations, a gradient reads n·d numbers. Newton's method takes
# 6 to 8 passes with a Hessian each, L-BFGS in a sampled metric 10 to 20 without: they meet here.
_FEW_COLUMNS = 32
_LITTLE_WORK = 5e7   # n·p² of a Hessian that is over before a pass's fixed costs count
_GRAM_COLUMNS = 64   # a Gram matrix over all rows then costs about five reads of X
_MOST_COLUMNS = 2048
# Least squares, in the time in which one number of a float32 X is read (0.13 ns on two cores). A Gram matrix
# of all rows is made in float64, a sample's in X's own arithmetic; `docs/solvers.md` has the times.
_READ = {1: 0.7, 2: 0.8, 4: 1.0, 8: 1.9}  # one number of X, by its bytes
_PRODUCTS = {4: 20.0, 8: 15.0}  # multiply-adds, in float32 and in float64
_EXACT_READS = 4.5   # of the normal equations beside the Gram matrix: a gradient, and the proof
_PASSES = 7.0        # of `plbfgs` to 1e-6, beside the log(1e6)/log(m/p) that m sampled rows leave
_FIXED = 1e7         # what its passes take whatever is read, all in all
_GRAMS = 1.5         # that it takes of samples of m rows
_TAILS = 2.2         # times the passes, where columns have heavy tails
_SPARSE_ROWS = 400   # of sparse X, for each column
_MOST_CLASSES = 10   # a Hessian of k classes takes k(k − 1)/2 Gram matrices
_LITTLE_CLASS_WORK = 2e7  # and a factor of its (kp)² numbers; each pass of another method some 0.3 ms
# Rows per column up to which they are the unknowns of smooth sparse problems. On reuters (7770 rows) with
# its 4000 and 2000 most frequent columns `newton_cg` takes 8 and 8 ms, `plbfgs` 18 and 16; with an
# intercept 13 and 14 against 20 and 13.
_ROWS = 2.0
# Mean squares of a column's entries, in parts of the median, up to which that holds. On reuters (27 as it
# is) with columns scaled by 10^U(−1, 1), 10^U(−2, 2), 10^U(−3, 3) `newton_cg` takes 48, 215, more than 600
# trips, `plbfgs` 29, 59, 211 passes.
_UNEVEN = 1e3
_LOOKED_AT = 1 << 13  # entries


def choose(objective: Objective) -> tuple[str, str]:
    """Return the name of the solver for an objective, and why it was chosen."""
    n, p = objective.shape[0], objective.p
    work = n * p * p
    if not objective.penalty.smooth:
        kind = _kind(objective)
        few = p <= columns_together(objective)
        few = few or (n <= WIDE * p and objective.divisible and _sparse(objective))
        if objective.problem.second_order and few:
            return "prox_newton", f"{kind}: Hessians of a working set of columns cost less than more passes"
        return "fista", f"{kind}: proximal gradient steps with momentum give exact zeros"
    if objective.problem.second_order and p <= _MOST_COLUMNS:
        if objective.loss.name == "squared":
            if not objective.l2:
                return "normal", "least squares without a penalty: exact, of minimum norm"
            if p <= _GRAM_COLUMNS or work <= _LITTLE_WORK or _gram_pays(objective):
                return "normal", "least squares: one pass gives the Gram matrix, the next confirms"
        elif p <= _FEW_COLUMNS or work <= _LITTLE_WORK:
            return "newton", f"{p} coefficients: a Hessian costs little more than reading X"
    k = objective.k
    if 1 < k <= _MOST_CLASSES and objective.problem.has_class_hessian:
        if work * k * (k - 1) / 2 + (k * p) ** 3 <= _LITTLE_CLASS_WORK:
            return "newton", f"{k * p} coefficients of {n} rows: a Hessian is done before a metric is"
    if _in_rows(objective):
        why = "sparse, few rows for the columns: the rows are the unknowns"
        return "newton_cg" if objective.loss.name == "squared" else "row_lbfgs", why
    if objective.X is not None and objective.loss.name == "squared" and p > _MOST_COLUMNS:
        return "cg", "least squares with many columns: conjugate gradients have exact steps at a pass each"
    if objective.X is None:
        return "fista", "no rows of X to look at for a preconditioner"
    if objective.loss.name == "squared":
        return "plbfgs", f"least squares: a sample's metric costs less than the Gram matrix of {p} columns"
    return "plbfgs", "smooth, and a sample of the rows gives a preconditioner"


def _gram_pays(objective: Objective) -> bool:
    """Whether a Gram matrix of all rows costs less than passes in the metric of a sample."""
    (n, d), p, X = objective.shape, objective.p, objective.X
    if d > DENSE_LIMIT:  # the metric is a diagonal then, and passes may be hundreds
        return True
    if not isinstance(X, np.ndarray):
        return n < _SPARSE_ROWS * p
    m = sample_size(n, p)
    if m == n:
        return True
    size = X.dtype.itemsize
    read, arithmetic = _READ[min(size, 8)] * n * p, 4 if objective.problem.compute == np.float32 else 8
    exact = n * p * p / _PRODUCTS[8] + _EXACT_READS * read
    passes = _PASSES - (arithmetic == 8) + math.log(1e6) / math.log(m / p)
    sampled = _GRAMS * m * p * p / (_PRODUCTS[arithmetic] * gram_speed(p)) + _FIXED
    return exact <= sampled + passes * read or (
        exact <= sampled + _TAILS * passes * read and heavy_tailed(X))


def _kind(objective: Objective) -> str:
    """What needs a prox, in a word or two."""
    if objective.bounds is None:
        return "l1"
    bounds = "w ≥ 0" if objective.bounds.nonnegative else "bounds"
    return f"l1, {bounds}" if objective.l1 and bounds == "bounds" else "l1" if objective.l1 else bounds


def _sparse(objective: Objective) -> bool:
    """Whether coefficients rest at zero: with a bound there, or with l1 where the bounds let them."""
    box = objective.bounds
    return box is None or box.rests_at_zero or (objective.l1 > 0 and box.has_zero)


def _in_rows(objective: Objective) -> bool:
    """Whether vectors of the size of w would cost more than trips over X do, and columns are of one scale."""
    n, d = objective.shape
    rows = d > DENSE_LIMIT and n <= _ROWS * d and objective.l2 and objective.has_rows
    return bool(rows and _even(objective.problem.core))


def _even(problem: Any) -> bool:
    """Whether the sizes of the columns' entries are alike: there is no metric in the space of rows."""
    spread = problem.column_spread(_LOOKED_AT)
    return bool(spread <= _UNEVEN or not math.isfinite(spread))  # of what is not finite a pass can tell more
