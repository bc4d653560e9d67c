"""Hessians of the size of the coefficients: equilibrated, factored, and never trusted blindly."""

from __future__ import annotations

import numpy as np

from nagcore import _core

__all__ = ["EquilibratedHessian", "MinimumNorm", "cholesky", "cholesky_solve", "eliminate"]

_EPS = float(np.finfo(np.float64).eps)
_MOST = 1e8  # times the diagonal: beyond this ridge a step is one of steepest descent


def cholesky(K: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """L with L Lᵀ = K + τ·I, and the least τ ≥ ridge (in powers of 100) for which there is one.

    K has a unit diagonal, so that τ is relative.
    """
    while True:
        L = K.copy()
        if ridge:
            L.reshape(-1)[:: len(L) + 1] += ridge
        if _core.cholesky_(L) < 0:
            return L, ridge
        ridge = max(100 * ridge, 1e-16)
        if not ridge < _MOST:
            raise ValueError("the Hessian holds NaN or infinity: numbers of X are too large to "
                             "square. Scale the columns of X.")


def cholesky_solve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A⁻¹b for a symmetric A of positive diagonal, with a ridge where it is not definite."""
    scale = 1 / np.sqrt(A.diagonal())
    K = A * scale
    K *= scale[:, None]
    K.reshape(-1)[:: len(K) + 1] = 1.0
    L, _ = cholesky(K, 0.0)
    half = _core.solve_triangular(L, b * scale, False)
    return _core.solve_triangular(L, half, True) * scale


def eliminate(H: np.ndarray, fit_intercept: bool) -> tuple[np.ndarray, np.ndarray | None, float]:
    """C, the means m and the pivot h of H = [[C + h·mmᵀ, h·m], [h·mᵀ, h]]: the intercept eliminated."""
    d = len(H) - fit_intercept
    if not fit_intercept:
        return H, None, 1.0
    pivot = float(H[d, d]) or 1.0
    centre = H[d, :d] / pivot
    return H[:d, :d] - centre[:, None] * H[d, :d], centre, pivot


class _Equilibrated:
    """S⁻¹(L Lᵀ)S⁻¹ ≈ C: a unit diagonal, then Cholesky. C is written.

    `before` is the diagonal that C had before anything was eliminated from it.
    """

    def __init__(self, C: np.ndarray, before: np.ndarray, ridge: float, l2: float) -> None:
        diagonal = C.diagonal()
        # A column that is constant up to rounding has no curvature of its own.
        constant = diagonal <= 64 * _EPS * before
        some = bool(constant.any())
        self.scale = 1 / np.sqrt(np.where(constant, 1.0, diagonal))
        K = C * self.scale
        K *= self.scale[:, None]
        if some:
            K[constant] = K[:, constant] = 0.0
            self.scale[constant] = 1 / np.sqrt(l2) if l2 else 0.0
        K.reshape(-1)[:: len(K) + 1] = 1.0
        self._L, self.ridge = cholesky(K, ridge)
        self.least = float(self._L.diagonal().min()) ** 2

    def half(self, head: np.ndarray) -> np.ndarray:
        """L⁻¹S·head, whose square is headᵀC⁻¹head."""
        return _core.solve_triangular(self._L, head * self.scale, False)

    def whole(self, half: np.ndarray) -> np.ndarray:
        """C⁻¹·head from its half."""
        return _core.solve_triangular(self._L, half, True) * self.scale


class EquilibratedHessian:
    """S⁻¹(L Lᵀ)S⁻¹ ≈ H, where S makes the diagonal one and the intercept is eliminated first.

    Parameters
    ----------
    H : ndarray of shape (p, p)
        Symmetric positive semidefinite, l2 included.
    fit_intercept : bool
        Whether the last row and column are an intercept's.
    ridge : float
        Added to the unit diagonal; raised where a pivot is bad.
    l2 : float
        What of H's diagonal is the penalty's.

    Attributes
    ----------
    ridge : float
        What was added in the end.
    least : float
        The least pivot: about the reciprocal condition of the scaled matrix.
    centre : ndarray of shape (d,) or None
        The columns' means, weighted by curvature: eliminating the intercept subtracts them.
    """

    def __init__(self, H: np.ndarray, fit_intercept: bool, ridge: float, l2: float) -> None:
        d = self._d = len(H) - fit_intercept
        C, self.centre, self._pivot = eliminate(H, fit_intercept)
        self._part = _Equilibrated(C, H.diagonal()[:d], ridge, l2)
        self.ridge, self.least = self._part.ridge, self._part.least

    def _half(self, g: np.ndarray) -> np.ndarray:
        d = self._d
        return self._part.half(g[:d] if self.centre is None else g[:d] - self.centre * g[d])

    def solve(self, g: np.ndarray) -> np.ndarray:
        """H⁻¹g, shape (p,)."""
        out, d = np.empty_like(g), self._d
        out[:d] = self._part.whole(self._half(g))
        if self.centre is not None:
            out[d] = g[d] / self._pivot - np.einsum("i,i->", self.centre, out[:d])
        return out

    def norm(self, g: np.ndarray) -> float:
        """√(gᵀH⁻¹g): the length of a gradient in the metric of H."""
        half = self._half(g)
        square = float(np.einsum("i,i->", half, half))
        if self.centre is not None:
            square += float(g[self._d]) ** 2 / self._pivot
        return square**0.5


class MinimumNorm:
    """The solution of least norm of H p = g for a Gram matrix H of deficient rank, or not.

    Columns are centred and scaled first, so that rank does not depend on their units: directions
    whose eigenvalue is rounding (of `eps` arithmetic) hold nothing. Their part is then taken out of
    the solution in the columns' own units. The intercept has no part in the norm.
    """

    def __init__(self, H: np.ndarray, fit_intercept: bool, eps: float) -> None:
        d = self._d = len(H) - fit_intercept
        C, self._centre, self._pivot = eliminate(H, fit_intercept)
        diagonal = C.diagonal()
        constant = diagonal <= 64 * eps * H.diagonal()[:d]
        self._scale = np.where(constant, 0.0, 1 / np.sqrt(np.where(constant, 1.0, diagonal)))
        values, Q = np.linalg.eigh(C * self._scale * self._scale[:, None])
        kept = values > 16 * max(d, 16) * eps
        self._inverse, self._Q = 1 / values[kept], Q[:, kept]
        # The null space of C: scaled eigenvectors, and the constant columns themselves.
        empty = self._scale[:, None] * Q[:, ~kept]
        empty = np.concatenate([empty, np.eye(d)[:, constant]], axis=1)
        empty = empty[:, np.linalg.norm(empty, axis=0) > 0]
        values, U = np.linalg.eigh(_unit_gram(empty))
        seen = values > 1e-12 * max(1, len(values))
        empty = empty / np.linalg.norm(empty, axis=0)
        self._null = empty @ (U[:, seen] / np.sqrt(values[seen]))

    def project(self, w: np.ndarray) -> np.ndarray:
        """w without its part in the null space; mᵀw + b is kept."""
        if not self._null.shape[1]:
            return w
        w, d = w.copy(), self._d
        gone = self._null @ (self._null.T @ w[:d])
        w[:d] -= gone
        if self._centre is not None:
            w[d] += self._centre @ gone
        return w

    def solve(self, g: np.ndarray) -> np.ndarray:
        """H⁺g, shape (p,)."""
        out, d = np.empty_like(g), self._d
        head = g[:d] if self._centre is None else g[:d] - self._centre * g[d]
        out[:d] = self._scale * (self._Q @ (self._inverse * (self._Q.T @ (self._scale * head))))
        if self._centre is not None:
            out[d] = g[d] / self._pivot - self._centre @ out[:d]
        return self.project(out)


def _unit_gram(A: np.ndarray) -> np.ndarray:
    """AᵀA of the columns of A scaled to length one."""
    A = A / np.linalg.norm(A, axis=0)
    return A.T @ A
