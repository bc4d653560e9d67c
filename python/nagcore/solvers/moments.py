"""Means, variances and correlations of the columns, from a sample of the rows.

They shape the solvers' variables and nothing else, so a sample does. Where all rows are read after
all (small data, CSR, rare features) the objective counts a pass.
"""

from __future__ import annotations

import numpy as np

__all__ = ["sample_moments"]

_ENTRIES = 1 << 22        # entries of X that a sample may hold: some ten milliseconds
_ROWS = 512               # and the fewest rows that it may shrink to for it
_MOST_ROWS = 1 << 16
_ROWS_PER_COLUMN = 20     # rows sampled for correlations: their eigenvalues are then good to ±25 %
_BLOCK_ENTRIES = 1 << 17  # entries decoded to float64 at a time: they stay in cache
_CSR_ENTRIES = 1 << 18    # entries of CSR at a time: as float64, with weights and squares, 8 MB
_FEW = 8                  # a column with fewer entries off its usual value is read in full


def sample_moments(objective, rng, correlations, s=None):
    """Weighted means, spreads and, if asked for, correlations of the columns of X.

    The spread is the variance where the objective has an intercept, else the mean square. Columns
    that look constant in the sample (rare features) are read in full, and so is CSR, so that no
    column is given a variance far below its own.

    Returns
    -------
    mean, spread : ndarray of shape (d,)
    correlation : ndarray of shape (d, d), or None
        Positive semidefinite, its diagonal ≤ 1: a column with more spread than the sample shows is
        correlated less.
    """
    X, (n, d) = objective.X, objective.shape
    wanted = max(min(_ENTRIES // d, _MOST_ROWS), _ROWS_PER_COLUMN * d if correlations else _ROWS)
    rows = None if n <= wanted else np.unique(rng.integers(0, n, wanted))
    dense = isinstance(X, np.ndarray)
    if not (dense or correlations):
        mean, variance = _csr_moments(objective, s)
        return mean, variance if objective.fit_intercept else variance + mean**2, None
    mean, variance, off, scatter = _block_moments(objective, s, rows, None, correlations)
    if correlations and not objective.fit_intercept:
        scatter += np.outer(mean, mean)
    seen = np.diag(scatter).copy() if correlations else variance
    if not dense:
        mean, variance = _csr_moments(objective, s)
    elif rows is not None and (rare := np.flatnonzero(off < _FEW)).size:
        mean[rare], variance[rare], _, _ = _block_moments(objective, s, None, rare, False)
    spread = variance if objective.fit_intercept else variance + mean**2
    if not correlations:
        return mean, spread, None
    spread = np.maximum(spread, seen)
    inverse = np.divide(1, np.sqrt(spread), out=np.zeros(d), where=spread > 0)
    correlation = inverse[:, None] * scatter * inverse
    if rows is not None:
        # A direction that looks flat in the sample may vary in some of every len(rows) others.
        correlation *= 1 - 3 / len(rows)
    return mean, spread, correlation


def _decode(block, read_as) -> np.ndarray:
    """A block of X as the float64 numbers it stands for."""
    scale, shift, dtype = read_as
    if not isinstance(block, np.ndarray):
        return block.toarray().astype(np.float64, copy=False)
    if dtype == "bfloat16" and block.dtype == np.uint16:
        block = (block.astype(np.uint32) << 16).view(np.float32)
    block = block.astype(np.float64)
    return block if (scale, shift) == (1.0, 0.0) else block * scale + shift


def _block_moments(objective, s, rows, columns, correlations):
    """Mean, variance, how many rows differ from the first, and covariance, over some rows and columns."""
    X = objective.X
    n = len(rows) if rows is not None else objective.shape[0]
    if rows is None:
        objective.reads.passes += 1
    else:
        objective.reads.rows += len(rows)

    def read(i, j):
        block = X[i:j] if rows is None else X[rows[i:j]]
        return _decode(block if columns is None else block[:, columns], objective.read_as)

    first = read(0, 1)[0]
    width = len(first)
    total, sums, squares, off = 0.0, np.zeros(width), np.zeros(width), np.zeros(width, int)
    scatter = np.zeros((width, width)) if correlations else None
    step = max(_BLOCK_ENTRIES // width, 256 if correlations else 1)
    for i in range(0, n, step):
        j = min(i + step, n)
        # Relative to the first row: the variance of a column far from zero keeps its digits.
        block = read(i, j) - first
        off += (block != 0).sum(axis=0)
        weight = None if s is None else s[i:j] if rows is None else s[rows[i:j]]
        weighted = block if weight is None else block * weight[:, None]
        total += (j - i) if weight is None else float(weight.sum())
        sums += weighted.sum(axis=0)
        squares += np.einsum("ij,ij->j", weighted, block)
        if correlations:
            scatter += weighted.T @ block
    if total == 0:  # a sample that holds only rows of weight zero
        return first, np.ones(width), np.zeros(width, int), np.eye(width) if correlations else None
    mean = sums / total
    variance = np.maximum(squares / total - mean**2, 0.0)
    if correlations:
        scatter = scatter / total - np.outer(mean, mean)
        np.fill_diagonal(scatter, variance)
    return first + mean, variance, off, scatter


def _csr_moments(objective, s):
    X, (n, d) = objective.X, objective.shape
    objective.reads.passes += 1
    sums, squares = np.zeros(d), np.zeros(d)
    step = max(int(_CSR_ENTRIES * n / max(X.nnz, 1)), 1)
    for i in range(0, n, step):
        j = min(i + step, n)
        part = slice(int(X.indptr[i]), int(X.indptr[j]))
        data, columns = X.data[part].astype(np.float64), X.indices[part]
        weight = 1.0 / n if s is None else np.repeat(s[i:j], np.diff(X.indptr[i : j + 1]))
        sums += np.bincount(columns, data * weight, minlength=d)
        squares += np.bincount(columns, data * data * weight, minlength=d)
    return sums, np.maximum(squares - sums**2, 0.0)
