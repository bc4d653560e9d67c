"""Whether columns have such tails that a sample of the rows knows too little of them.

A metric that comes from a sample is good where the sample's second moments are near those of all rows.
With tails as heavy as those of Student's t of 2.5 degrees of freedom a few rows hold much of a column's
sum of squares, and two halves of some thousands disagree on it. That costs a millisecond to see.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nagcore.solvers.rows import strata

__all__ = ["heavy_tailed"]

_ROWS = 1 << 13       # and at most half of all
_RUN = 16             # of the first and of the last columns: neighbours share cache lines
# The median over columns of |a − b|/(a + b), a and b the halves' sums of squares. Over 60 000 rows normal
# numbers have 0.01, t(3) 0.04, a lognormal's of σ = 1 0.055: those cost no more passes, or few. t(2.5) has
# 0.07, a lognormal's of σ = 1.5 0.15: those cost two to three times the passes.
_DISAGREE = 0.062
_AGREE = 0.05         # after two blocks: normal numbers have 0.03, t(4) 0.06, t(2.5) 0.11 or more
_UNEVEN = 3.0         # mean square over squared mean of the rows' sizes: whole rows times t(2.5) have 5
_BLOCK = 512          # rows at a time: they stay in cache
_USUAL = 0.9          # columns that hold one value in so many rows are looked after elsewhere (`Sampler`)


def heavy_tailed(X: Any, seed: int = 0) -> bool:
    """Whether halves of a sample disagree on the columns' variances. False for what is no array.

    >>> rng = np.random.default_rng(0)
    >>> heavy_tailed(rng.standard_normal((5000, 8))), heavy_tailed(rng.standard_t(2.1, (5000, 8)))
    (False, True)
    """
    if not isinstance(X, np.ndarray) or X.dtype.kind != "f" or len(X) < 2 * _BLOCK:
        return False
    n, d = X.shape
    rows = strata(np.random.default_rng(seed), min(_ROWS, n // 2), n)
    starts = {0, max(d - _RUN, 0)}

    def read(i: int, j: int) -> np.ndarray:
        return np.concatenate([X[rows[i:j], k : k + _RUN] for k in starts], axis=1, dtype=np.float64)

    head = read(0, _BLOCK)
    centre, usual = head.mean(axis=0), np.sort(head[:9], axis=0)[4]
    varied = np.count_nonzero(head != usual, axis=0) > (1 - _USUAL) * len(head)
    if not varied.any():
        return False
    one, other = np.zeros(len(centre)), np.zeros(len(centre))
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(0, len(rows), _BLOCK):
            A = head if i == 0 else read(i, i + _BLOCK)
            A -= centre
            one += np.einsum("ij,ij->j", A[::2], A[::2])
            other += np.einsum("ij,ij->j", A[1::2], A[1::2])
            differ = float(np.median((np.abs(one - other) / (one + other))[varied]))
            if i == _BLOCK:
                A *= A
                sizes = np.einsum("ij,j->i", A[:, varied], 1 / A[:, varied].sum(axis=0))
                if len(A) * np.einsum("i,i->", sizes, sizes) > _UNEVEN * sizes.sum() ** 2:
                    return True
                if differ <= _AGREE:
                    return False
    return differ > _DISAGREE
