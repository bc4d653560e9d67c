"""The second moments of X and y, from one read of X: all that least squares asks of the data.

    G = (1/S) Σ s_i (x_i − m)(x_i − m)ᵀ,   c = (1/S) Σ s_i (x_i − m)(y_i − ȳ),   m, ȳ the means

(m = ȳ = 0 without an intercept). The objective is then ½wᵀGw − cᵀw + penalties, whatever n is, and
moments of parts of the rows add up, so that every fold of a cross-validation comes from that one
read. X is read in blocks of float64 and never copied. Sums are taken about an origin near the
mean, so that columns far from zero keep their digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse

from nagcore import _core
from nagcore.objective import value_and_grad

__all__ = ["Moments", "Quadratic", "as_columns", "blocks", "moments", "origin_of", "raise_if_bad"]

_ENTRIES = 1 << 17   # float64 entries of a block: it stays in cache
_LARGE = 1 << 16     # entries of X from which the compiled Gram kernel pays
_FAR = 1e4           # mean²/variance up to which sums about zero keep twelve digits
_PRODUCTS = 1 << 18  # entries of sparser CSR at a time: with what their products take, some 10 MB
_DENSE = 0.05        # CSR of this density or more is multiplied as dense blocks


@dataclass(eq=False)
class Quadratic:
    """The centred moments: ½wᵀGw − c_jᵀw + ½yy_j is the mean squared error over two of target j."""

    total: float         # S
    mean_x: np.ndarray   # (d,)
    mean_y: np.ndarray   # (k,)
    G: np.ndarray        # (d, d)
    c: np.ndarray        # (d, k)
    yy: np.ndarray       # (k,)

    def intercepts(self, coef: np.ndarray) -> np.ndarray:
        """The best intercept for each row of coef, shape (k,)."""
        return self.mean_y - coef @ self.mean_x


@dataclass(eq=False)
class Moments:
    """Sums over some rows, about an origin that all parts of one table share."""

    origin: tuple[np.ndarray, np.ndarray]
    total: float
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray
    problem: Any = None  # the compiled one whose sums these are, of the first target

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.origin, self.total + other.total, self.x + other.x, self.y + other.y,
                       self.xx + other.xx, self.xy + other.xy, self.yy + other.yy)

    def quadratic(self, fit_intercept: bool) -> Quadratic:
        """Means over the rows, about their mean where there is an intercept, else about zero."""
        S, (ox, oy) = self.total, self.origin
        x, y = self.x / S, self.y / S
        G, c, yy = self.xx / S, self.xy / S, self.yy / S
        if fit_intercept:
            G -= np.outer(x, x)
            c -= np.outer(x, y)
            yy = np.maximum(yy - y * y, 0.0)
            return Quadratic(S, ox + x, oy + y, G, c, yy)
        return Quadratic(S, np.zeros_like(x), np.zeros_like(y), G, c, yy)


def as_columns(y: np.ndarray) -> np.ndarray:
    """y as a float64 matrix of one column for each target."""
    return np.asarray(y, np.float64).reshape(len(y), -1)


def blocks(X: Any, rows: np.ndarray | None = None) -> Iterator[tuple[Any, np.ndarray]]:
    """Pairs (which rows, X there as a dense float64 array that may be written)."""
    n, d = (X.shape[0] if rows is None else len(rows)), X.shape[1]
    step = max(_ENTRIES // d, 64)
    for i in range(0, n, step):
        part = slice(i, min(i + step, n)) if rows is None else rows[i : i + step]
        block = X[part]
        if issparse(block):
            block = block.toarray()
        yield part, block.astype(np.float64)


def origin_of(X: Any, Y: np.ndarray, fit_intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    """A point near the means of X and Y: those of the first rows. Zero without an intercept."""
    d, k = X.shape[1], Y.shape[1]
    if not fit_intercept:
        return np.zeros(d), np.zeros(k)
    rows = max(_ENTRIES // d, 64)
    head = np.zeros(d) if _by_products(X) else np.asarray(X[:rows].mean(axis=0, dtype=np.float64))
    return head.reshape(d), Y[:rows].mean(axis=0)


def _by_products(X: Any) -> bool:
    return issparse(X) and X.nnz < _DENSE * X.shape[0] * X.shape[1]


def moments(
    X: Any,
    Y: np.ndarray,
    s: np.ndarray | None,
    origin: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray | None = None,
) -> Moments:
    """The moments of X (n, d) and Y (n, k) over all rows or some, weighted by s.

    One read of X in blocks; where X is large and dense, one read by the compiled kernels and one
    more for each target after the first, with the same bits for every number of threads.
    """
    if rows is not None and len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        part: Any = slice(int(rows[0]), int(rows[-1]) + 1)
        X, Y, s, rows = X[part], Y[part], None if s is None else s[part], None
    if rows is None and X.shape[0] * X.shape[1] >= _LARGE and not issparse(X):
        found = _by_kernels(X, Y, s, origin)
        if found is not None:
            return found
    d, k = X.shape[1], Y.shape[1]
    ox, oy = origin
    m = Moments(origin, 0.0, np.zeros(d), np.zeros(k), np.zeros((d, d)), np.zeros((d, k)), np.zeros(k))
    if _by_products(X):
        n = X.shape[0] if rows is None else len(rows)
        step = max(_PRODUCTS * X.shape[0] // max(X.nnz, 1), 1)
        for i in range(0, n, step):
            part = slice(i, min(i + step, n)) if rows is None else rows[i : i + step]
            A = X if step >= n and rows is None else X[part]
            A = A.astype(np.float64, copy=False)
            r, w = Y[part] - oy, np.ones(A.shape[0]) if s is None else s[part]
            weighted = A.T.multiply(w).tocsr()
            m.total += float(w.sum())
            m.x += np.asarray(weighted.sum(axis=1)).reshape(d)
            m.y += w @ r
            m.xx += (weighted @ A).toarray()
            m.xy += weighted @ r
            m.yy += w @ (r * r)
        return m
    with np.errstate(invalid="ignore", over="ignore"):  # `raise_if_bad` looks at the sums
        for part, A in blocks(X, rows):
            A -= ox
            r = Y[part] - oy
            if s is None:
                m.total += len(A)
                m.x += A.sum(axis=0)
                m.y += r.sum(axis=0)
            else:
                w = s[part]
                m.total += float(w.sum())
                m.x += w @ A
                m.y += w @ r
                root = np.sqrt(w)[:, None]
                A *= root
                r *= root
            m.xx += A.T @ A
            m.xy += A.T @ r
            m.yy += np.einsum("ij,ij->j", r, r)
    return m


def _by_kernels(X, Y, s, origin) -> Moments | None:
    """The same from `_core.Problem`; None where columns far from zero would lose their digits."""
    if s is not None and not s.any():
        return None
    d, (ox, oy) = X.shape[1], origin
    problem = _core.Problem(X, np.ascontiguousarray(Y[:, 0]), loss="squared", sample_weight=s,
                            fit_intercept=True, compute="float64")
    yy, c, raw = problem.moments(origin=float(oy[0]))
    mean, raw = raw[d, :d], raw[:d, :d]
    with np.errstate(invalid="ignore", over="ignore"):
        if ox.any() and not (mean**2 <= _FAR * (raw.diagonal() - mean**2)).all():
            return None
    S = problem.sum_weights
    columns, squares = [c], [yy]
    for j in range(1, Y.shape[1]):
        r = Y[:, j] - oy[j]
        columns.append(problem.rmatvec(r))
        squares.append(float(np.einsum("i,i->", r if s is None else r * s, r)) / S)
    xy = S * np.stack(columns, axis=1)
    y, xx = xy[d], S * raw
    xy = xy[:d]
    if ox.any():
        cross = np.outer(mean, ox)
        xx += S * (np.outer(ox, ox) - cross - cross.T)
        xy -= np.outer(ox, y)
    return Moments(origin, S, S * (mean - ox), y, xx, xy, S * np.array(squares), problem)


def raise_if_bad(sums: np.ndarray, X: Any) -> None:
    """Raise if sums of squares show X to hold NaN, infinity (naming its place) or what overflows."""
    if np.isfinite(sums).all():
        return
    value_and_grad(X, np.zeros(X.shape[0]), np.zeros(X.shape[1]), loss="squared")
    raise ValueError(
        "X holds numbers whose squares overflow float64, which ends at 1.8e308. Use columns of a "
        "smaller unit: X / np.abs(X).max(axis=0)."
    )
