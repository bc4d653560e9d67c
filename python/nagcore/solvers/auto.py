"""What `solver="auto"` chooses, and the sentence that says why (docs/solvers.md has the measurements).

>>> import numpy as np
>>> import nagcore
>>> name, why = choose(nagcore.Objective(np.eye(3), np.ones(3), loss="logistic", l1=0.1))
>>> name
'prox_newton'
"""

from __future__ import annotations

from nagcore.objective import Objective
from nagcore.solvers.coordinates import DENSE_LIMIT
from nagcore.solvers.proxnewton import ALL_COLUMNS

__all__ = ["choose"]

# A Hessian over all rows costs n·p² operations, a gradient reads n·d numbers. Newton's method takes
# 6 to 8 passes with a Hessian each, L-BFGS in a sampled metric 10 to 20 without: they meet here.
_FEW_COLUMNS = 32
_LITTLE_WORK = 5e7   # n·p² of a Hessian that is over before a pass's fixed costs count
_GRAM_COLUMNS = 64   # a Gram matrix over all rows then costs about five reads of X
_MOST_COLUMNS = 2048
_MOST_CLASSES = 10   # a Hessian of k classes takes k(k − 1)/2 Gram matrices
_LITTLE_CLASS_WORK = 2e7  # and a factor of its (kp)² numbers; each pass of another method some 0.3 ms
_ROWS = 1.0          # rows per column up to which they are the unknowns of smooth sparse problems
_WIDE = 4            # rows per column up to which copies of some columns are small beside X


def choose(objective: Objective) -> tuple[str, str]:
    """Return the name of the solver for an objective, and why it was chosen."""
    n, p = objective.shape[0], objective.p
    work = n * p * p
    if not objective.penalty.smooth:
        kind = "l1" if objective.l1 else "w ≥ 0"
        few = p <= ALL_COLUMNS or (n <= _WIDE * p and objective.divisible)
        if objective.problem.second_order and few:
            return "prox_newton", f"{kind}: Hessians of a working set of columns cost less than more passes"
        return "fista", f"{kind}: proximal gradient steps with momentum give exact zeros"
    if objective.problem.second_order and p <= _MOST_COLUMNS:
        if objective.loss.name == "squared":
            if not objective.l2:
                return "normal", "least squares without a penalty: exact, of minimum norm"
            if p <= _GRAM_COLUMNS or work <= _LITTLE_WORK or n < 400 * p:
                return "normal", "least squares: one pass gives the Gram matrix, the next confirms"
        elif p <= _FEW_COLUMNS or work <= _LITTLE_WORK:
            return "newton", f"{p} coefficients: a Hessian costs little more than reading X"
    k = objective.k
    if 1 < k <= _MOST_CLASSES and objective.problem.has_gram:
        if work * k * (k - 1) / 2 + (k * p) ** 3 <= _LITTLE_CLASS_WORK:
            return "newton", f"{k * p} coefficients of {n} rows: a Hessian is done before a metric is"
    if _in_rows(objective):
        return "newton_cg", "sparse, and rows are fewer than columns: they are the unknowns"
    if objective.X is not None and objective.loss.name == "squared" and p > _MOST_COLUMNS:
        return "cg", "least squares with many columns: conjugate gradients have exact steps at a pass each"
    if objective.X is None:
        return "fista", "no rows of X to look at for a preconditioner"
    return "plbfgs", "smooth, and a sample of the rows gives a preconditioner"


def _in_rows(objective: Objective) -> bool:
    """Whether vectors of the size of w would cost more than trips over X do."""
    n, d = objective.shape
    return bool(d > DENSE_LIMIT and n <= _ROWS * d and objective.l2 and objective.has_rows)
