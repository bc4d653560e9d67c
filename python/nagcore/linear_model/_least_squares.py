"""Least squares by factorisation: exact, from one read of X unless the columns are nearly collinear.

For d ≤ n the normal equations (G + λI)w = c of `_moments`, with columns scaled to unit length. Their
Cholesky factor shows how collinear the columns are: 1/min_j L_jj² is about the condition number.
Where that says that digits were lost, a second read corrects the solution by its true residual;
where too many were, R of a QR factorisation of [X − m, y − ȳ], block by block, takes G's place: it
has the condition number of X, not its square. For d > n the n × n matrix of the rows' products
serves. A singular problem gives the solution of least norm, as numpy.linalg.lstsq does.

Non-negative coefficients: min ‖Rw − z‖ over w ≥ 0, by Lawson and Hanson's (1974) active sets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lstsq, qr, svdvals
from scipy.optimize import nnls
from scipy.sparse import issparse

from nagcore import _core
from nagcore.linear_model._moments import (
    Quadratic,
    as_columns,
    blocks,
    moments,
    origin_of,
    raise_if_bad,
)

__all__ = ["Solution", "fits", "least_squares", "mean_x_of", "row_products"]

_WIDTH = 512            # d up to which G costs less than the passes of an iterative method
_MOST_WIDTH = 2048      # and up to which it does where X has few rows
_FLOPS = 2e10
# min L_jj² below which the residual is looked at again: Cholesky's rounding is then more than 1e-12 of a
# coefficient. Coefficients that end as float32 hold seven digits.
_REFINE = (1e-4, 1e-7)  # of X in float64, in float32
_COLLINEAR = 1e-10      # and below which G is not trusted
_COPIED = 1 << 22       # entries of a wide X that are copied, where only its own factorisation serves
_EPS = float(np.finfo(np.float64).eps)


class Solution(NamedTuple):
    """Least-squares coefficients of k targets."""

    coef: np.ndarray                # (k, d)
    intercept: np.ndarray           # (k,)
    singular: np.ndarray | None     # singular values of the centred, weighted X, where asked for


def fits(X: Any, positive: bool = False) -> bool:
    """Whether a factorisation is the cheaper way for X of this shape."""
    n, d = X.shape
    small, large = (d, n) if positive else (min(n, d), max(n, d))
    return (small <= _WIDTH and d <= _WIDTH) or (small <= _MOST_WIDTH and small**2 * large <= _FLOPS)


def least_squares(
    X: Any,
    y: np.ndarray,
    s: np.ndarray | None,
    alpha: np.ndarray,
    *,
    fit_intercept: bool,
    positive: bool = False,
    spectrum: bool = False,
) -> Solution:
    """min_w ‖y_j − Xw − b‖²_s + alpha_j‖w‖² for every target j.

    Parameters
    ----------
    X : (n, d) dense or CSR
    y : (n,) or (n, k)
    s : (n,) or None
    alpha : (k,)
    positive : bool
        w ≥ 0.
    spectrum : bool
        Whether the singular values are wanted.
    """
    if not (positive or spectrum) and len(alpha) == 1:
        solution = _in_one_call(X, y, s, float(alpha[0]), fit_intercept)
        if solution is not None:
            return solution
    Y, (n, d) = as_columns(y), X.shape
    if n < d and not positive:
        return _wide(X, Y, s, alpha, fit_intercept, spectrum)
    m = moments(X, Y, s, origin_of(X, Y, fit_intercept))
    raise_if_bad(m.xx, X)
    q = m.quadratic(fit_intercept)
    lam = np.broadcast_to(alpha / q.total, Y.shape[1])
    strengths = set(lam.tolist())
    singular = np.linalg.eigvalsh(q.G)[::-1] if spectrum else None
    precise = singular is None or singular[-1] > 1e-7 * singular[0]
    coef = np.zeros((Y.shape[1], d))
    for value in strengths:
        which: Any = np.flatnonzero(lam == value) if len(strengths) > 1 else slice(None)
        problem = m.problem if Y.shape[1] == 1 else None
        found = (_normal_equations(X, Y[:, which], s, q, q.c[:, which], value, positive, problem)
                 if precise else None)
        if found is None:
            R, Z = _triangle(X, Y, s, q, value)
            coef[which] = _from_triangle(R, Z[:, which], positive, max(n, d))
        else:
            coef[which] = found
    if singular is not None:
        singular = (np.sqrt(np.maximum(singular, 0)) if precise else
                    svdvals(_triangle(X, Y, s, q, 0.0)[0])) * np.sqrt(q.total)
    return Solution(coef, q.intercepts(coef), singular)


def _in_one_call(
    X: Any, y: np.ndarray, s: np.ndarray | None, alpha: float, fit_intercept: bool
) -> Solution | None:
    """One target of dense X by the compiled normal equations; None where those do not do."""
    n, d = X.shape
    if n < d or not isinstance(X, np.ndarray):
        return None
    problem = _core.Problem(X, np.ascontiguousarray(y.reshape(-1)), loss="squared", sample_weight=s,
                            fit_intercept=fit_intercept, compute="float64")
    narrow = X.dtype.type is np.float32  # and so are the coefficients in the end
    w = problem.least_squares(alpha / problem.sum_weights, _REFINE[narrow], narrow)
    if w is None:
        return None
    return Solution(w[None, :d], w[d:] if fit_intercept else np.zeros(1), None)


def _normal_equations(
    X, Y, s, q: Quadratic, c, lam: float, positive: bool, problem: Any = None
) -> np.ndarray | None:
    """(k, d) from the Cholesky factor of the scaled G + λI; None where that is not to be trusted."""
    diagonal = q.G.diagonal() + lam
    # A column that is constant to rounding has no length of its own.
    if not (diagonal > 1e-14 * (q.mean_x**2 + diagonal)).all():
        return None
    D = 1 / np.sqrt(diagonal)
    L = q.G * D
    L *= D[:, None]
    L.reshape(-1)[:: len(D) + 1] = 1.0
    if _core.cholesky_(L) >= 0:
        return None
    least = float(L.diagonal().min()) ** 2
    if not least > _COLLINEAR:
        return None
    rhs = c * D[:, None]
    if positive:
        z = _core.solve_triangular(L, rhs, False)
        return np.stack([_nonnegative(L.T, column) for column in z.T]) * D
    W = _solve(L, rhs).T * D
    if least < _REFINE[X.dtype == np.float32]:
        g = _gradient(X, Y, s, q, W, lam, problem)
        W = W - _solve(L, g.T * D[:, None]).T * D
    return W


def _solve(L: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _core.solve_triangular(L, _core.solve_triangular(L, b, False), True)


def _gradient(X, Y, s, q: Quadratic, W, lam, problem: Any = None) -> np.ndarray:
    """The gradient at W (k, d), from the residuals themselves. One read of X.

    By `problem`, where the sums of one target are its own.
    """
    g = lam * W
    if problem is not None:
        _, u = problem.value_and_grad(np.append(W[0], q.intercepts(W)))
        return g + (u[:-1] - q.mean_x * u[-1])
    for part, A in blocks(X):
        A -= q.mean_x
        r = A @ W.T - (Y[part] - q.mean_y)
        if s is not None:
            r *= s[part][:, None]
        g += (r.T @ A) / q.total
    return g


def _triangle(X, Y, s, q: Quadratic, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """R (d, d) and Z (d, k) with ‖Rw − z‖² = (1/S)‖X − m)w − (y − ȳ)‖²_s + λ‖w‖² + constant."""
    d, k = X.shape[1], Y.shape[1]
    R = np.zeros((d + k, d + k))
    R[range(d), range(d)] = np.sqrt(lam)
    for part, A in blocks(X):
        A -= q.mean_x
        B = np.hstack([A, Y[part] - q.mean_y])
        B *= (np.sqrt(1 / q.total) if s is None else np.sqrt(s[part] / q.total)[:, None])
        R = qr(np.vstack([R, B]), mode="r", overwrite_a=True, check_finite=False)[0][: d + k]
    constant = q.G.diagonal() <= 64 * _EPS**2 * q.mean_x**2  # what is left of it is rounding
    R[:, :d][:, constant] = 0.0
    return R[:d, :d], R[:d, d:]


def _from_triangle(R, Z, positive: bool, n: int) -> np.ndarray:
    if positive:
        scale = np.linalg.norm(R, axis=0)
        D = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        return np.stack([_nonnegative(R * D, column) for column in Z.T]) * D
    return lstsq(R, Z, cond=n * _EPS, check_finite=False)[0].T


def _nonnegative(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return nnls(A, b, maxiter=30 * max(A.shape[1], 10))[0]


# More columns than rows -------------------------------------------------------------------------


def mean_x_of(X: Any, s: np.ndarray | None, fit_intercept: bool) -> np.ndarray:
    """The weighted means of the columns, or zeros without an intercept."""
    if not fit_intercept:
        return np.zeros(X.shape[1])
    w = np.full(X.shape[0], 1 / X.shape[0]) if s is None else s / s.sum()
    if issparse(X) or X.dtype == np.float64:
        return np.asarray(X.T @ w, np.float64).reshape(-1)
    total = np.zeros(X.shape[1])
    for part, A in blocks(X):
        total += w[part] @ A
    return total


def row_products(X: Any, mean_x: np.ndarray, root: np.ndarray) -> np.ndarray:
    """K = AAᵀ (n, n) of the centred rows, each times its root (n, 1), by blocks of columns. One read."""
    n, d = X.shape
    K = np.zeros((n, n))
    step = max((1 << 17) // n, 64)
    columns = X.tocsc() if issparse(X) else X
    for j in range(0, d, step):
        A = columns[:, j : j + step]
        A = (A.toarray() if issparse(A) else A).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            A -= mean_x[j : j + step]
            A *= root
            K += A @ A.T
    raise_if_bad(K, X)
    return K


def _wide(X, Y, s, alpha, fit_intercept, spectrum) -> Solution:
    n, d = X.shape
    alpha = np.broadcast_to(alpha, Y.shape[1])
    mean_x = mean_x_of(X, s, fit_intercept)
    mean_y = np.average(Y, axis=0, weights=s) if fit_intercept else np.zeros(Y.shape[1])
    root = np.ones((n, 1)) if s is None else np.sqrt(s)[:, None]
    rhs = (Y - mean_y) * root
    K = row_products(X, mean_x, root)
    if not alpha.all() and n * d <= _COPIED:
        A = np.vstack([block for _, block in blocks(X)])
        A -= mean_x
        A *= root
        constant = np.einsum("ij,ij->j", A, A) <= 64 * n * (_EPS * mean_x) ** 2
        A[:, constant] = 0.0
        coef, _, _, singular = lstsq(A, rhs, cond=d * _EPS, check_finite=False, overwrite_a=True)
        coef = coef.T
        return Solution(coef, mean_y - coef @ mean_x, singular)
    values, U = np.linalg.eigh(K)
    values = np.maximum(values, 0)
    # The rounding of K hides singular values below √(n·eps) of the largest.
    kept = values > n * _EPS * values[-1]
    shrink = values[:, None] + alpha
    inverse = np.divide(1, shrink, out=np.zeros_like(shrink), where=kept[:, None] | (alpha > 0))
    dual = (U @ ((U.T @ rhs) * inverse)) * root
    coef = np.zeros((Y.shape[1], d))
    for part, A in blocks(X):
        A -= mean_x
        coef += dual[part].T @ A
    return Solution(coef, mean_y - coef @ mean_x, np.sqrt(values[::-1]) if spectrum else None)
