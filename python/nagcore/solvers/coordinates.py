"""The change of variables that solvers work in: columns centred, scaled and, where it pays, decorrelated.

    w = T v_w,   b = v_b / √κ − mᵀw,   P = (T Tᵀ)⁻¹ ≈ κ·Cov(X) + l2·I

m and Cov are the columns' means and covariances, κ the mean curvature of the loss at the null
model. A solver in v is the preconditioned solver in w (docs/maths.md, "Accelerated descent"). It is
a change of variables and no more: F(v) = F(w(v)) exactly, whatever m and P are, so they come from a
sample of the rows, and X itself is never touched. Centring makes the intercept nearly orthogonal to
the rest; P makes the Hessian close to the identity, so that columns of any units need no scaling by
the user.

Under l1 or w ≥ 0, or with many columns, P is diagonal: then the prox stays soft thresholding or
clipping, with one threshold per coordinate. Otherwise T comes from a Cholesky factor, at O(d²) per pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nagcore.objective import Objective
from nagcore.objective.duality import row_mean
from nagcore.solvers.moments import sample_moments

__all__ = ["Columns", "Coordinates", "curvature_rows"]

# Columns up to which P is a full matrix: its product then costs a twentieth of a pass or less.
_DENSE_LIMIT = 1024
_CURVATURE_FLOOR = 0.01  # of the mean, added to each row's: rows that are flat here need not be elsewhere
_HOP = 1e-2  # in margins, for differences of residuals


class Columns(NamedTuple):
    """What is known of the data at some margins: moments weighted by the loss's curvature there."""

    mean: np.ndarray
    spread: np.ndarray  # the variance, or the mean square where there is no intercept
    correlation: np.ndarray | None
    curvature: float  # the mean of φ''

    @classmethod
    def of(cls, objective: Objective, seed: int, rows: np.ndarray) -> Columns:
        """Look at a sample of the rows, whose `curvature_rows` are given."""
        d, s = objective.shape[1], objective.s
        curvature = float(row_mean(rows, s))
        rows = rows + _CURVATURE_FLOOR * curvature
        if s is not None:
            rows *= s
        moments = np.zeros(d), np.ones(d), None
        if objective.X is not None:
            full = d <= _DENSE_LIMIT and objective.penalty.smooth
            rng = np.random.default_rng(seed)
            with np.errstate(invalid="ignore", over="ignore"):
                moments = sample_moments(objective, rng, full, rows / rows.sum())
            if not all(np.isfinite(part).all() for part in moments if part is not None):
                # A pass raises if X holds NaN or infinity, and names the place; finite data whose
                # squares overflow are solved in their own variables.
                objective.value_and_grad(np.zeros(objective.w_shape))
                moments = np.zeros(d), np.ones(d), None
        return cls(*moments, curvature)


def curvature_rows(objective: Objective, problem: Any, z: np.ndarray) -> np.ndarray:
    """φ'' of each row, by a difference of residuals: O(n), no pass.

    For classes it is ⟨e, φ'' e⟩/k along one e of alternating signs, about the mean of the diagonal.
    """
    signs = 1.0 if z.ndim == 1 else np.where(np.arange(z.shape[1]) % 2, -1.0, 1.0)
    ahead, behind = np.empty_like(z), np.empty_like(z)
    problem.loss_from_margins((z + _HOP * signs).astype(z.dtype), ahead)
    problem.loss_from_margins((z - _HOP * signs).astype(z.dtype), behind)
    ahead -= behind
    rows = ahead if z.ndim == 1 else (ahead * signs).mean(axis=1)
    bound = objective.loss.curvature_bound
    rows = np.clip(rows.astype(np.float64) / (2 * _HOP), 0, bound)
    if np.isfinite(rows).all() and rows.any():
        return rows
    return np.full(len(rows), bound if np.isfinite(bound) else 1.0)


class Coordinates:
    """The affine map between the problem's w (with b last) and the solver's v.

    `eps` is the rounding of the arithmetic in which margins are computed: what it hides of a
    column, a narrow mean far from zero say, is not scaled up.
    """

    def __init__(self, objective: Objective, columns: Columns, eps: float) -> None:
        self._d = objective.shape[1]
        mean, spread, correlation, curvature = columns
        self.rms = np.sqrt(spread + mean**2 * objective.fit_intercept)
        self._mean = mean if objective.fit_intercept else None
        P = curvature * np.maximum(spread, 64 * eps * self.rms**2) + objective.l2
        P[P == 0] = 1.0  # an all-zero column without l2: its gradient is zero too
        scale = 1 / np.sqrt(P)
        self._T = None
        if correlation is not None:
            data_share = np.sqrt(curvature * spread / P)
            R = _decorrelate(correlation * np.outer(data_share, data_share), eps)
            self._T = scale[:, None] * R
        self.scale = scale if objective.k == 1 else scale[:, None]
        self._scale_b = 1 / np.sqrt(curvature)
        self.thresholds = objective.l1 * self.scale

    def to_w(self, v: np.ndarray) -> np.ndarray:
        """w and b, as the problem takes them."""
        d, w = self._d, np.empty_like(v)
        w[:d] = v[:d] * self.scale if self._T is None else _product(self._T, v[:d])
        w[d:] = v[d:] * self._scale_b
        if self._mean is not None:
            w[d] -= np.einsum("i,i...->...", self._mean, w[:d])
        return w

    def to_v(self, w: np.ndarray) -> np.ndarray:
        """The inverse of `to_w`."""
        d, v = self._d, np.empty_like(w)
        v[:d] = w[:d] / self.scale if self._T is None else np.linalg.solve(self._T, w[:d])
        v[d:] = w[d:]
        if self._mean is not None:
            v[d] += np.einsum("i,i...->...", self._mean, w[:d])
        v[d:] /= self._scale_b
        return v

    def centred(self, u: np.ndarray) -> np.ndarray:
        """The part ∂/∂w of a gradient when mᵀw + b is held, not b: shape (d,) or (d, k)."""
        if self._mean is None:
            return u[: self._d]
        return u[: self._d] - (self._mean if u.ndim == 1 else self._mean[:, None]) * u[self._d]

    def pull_back(self, u: np.ndarray, l2: float, w: np.ndarray) -> np.ndarray:
        """The gradient in v of data term + (l2/2)‖w‖², from the data gradient u in w."""
        d, g = self._d, np.empty_like(u)
        head = self.centred(u)
        if l2:
            head = head + l2 * w[:d]
        g[:d] = head * self.scale if self._T is None else _product(self._T.T, head)
        g[d:] = u[d:] * self._scale_b
        return g


def _product(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A @ x without BLAS: its threads would contend with those of the kernels between passes."""
    if x.ndim == 1:
        return np.einsum("ij,j->i", A, x)
    return np.stack([np.einsum("ij,j->i", A, column) for column in x.T.copy()], axis=1)


def _decorrelate(K: np.ndarray, eps: float) -> np.ndarray:
    """R⁻ᵀ for the Cholesky factor R Rᵀ of K with ones on its diagonal, K a little towards the identity.

    That keeps directions which the sample shows as collinear from being stretched without limit.
    """
    K = K * (1 - max(64 * eps, 1e-7))
    np.fill_diagonal(K, 1.0)
    return np.linalg.inv(np.linalg.cholesky(K)).T
