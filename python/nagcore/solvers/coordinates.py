"""The change of variables that solvers work in: columns centred, scaled and, where it pays, decorrelated.

    w = T v_w,   b = v_b / √κ − mᵀw,   P = (T Tᵀ)⁻¹ ≈ κ·Cov(X) + l2·I

m and Cov are the columns' means and covariances, κ the mean curvature of the loss at the null model. A
solver in v is the preconditioned solver in w (docs/maths.md, "Accelerated descent"). It is a change of
variables and no more: F(v) = F(w(v)) exactly, whatever m and P are, so they come from a sample of the
rows, and X itself is never touched. Centring makes the intercept nearly orthogonal to the rest; P makes
the Hessian close to the identity, so that columns of any units need no scaling by the user.

Under l1, or with many columns, P is diagonal: then the prox of l1 stays soft thresholding, with one
threshold per coordinate. Otherwise T comes from a Cholesky factor, at O(d²) per pass.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nagcore.objective import Objective
from nagcore.objective.duality import row_mean
from nagcore.solvers.moments import sample_moments

__all__ = ["Columns", "Coordinates"]

_DENSE_LIMIT = 1024  # columns up to which P is a full matrix: its product then costs 1/20 of a pass or less


class Columns(NamedTuple):
    """What is known of the data before the first pass."""

    mean: np.ndarray
    spread: np.ndarray  # the variance, or the mean square where there is no intercept
    correlation: np.ndarray | None
    curvature: float  # the mean of φ'' at the null model

    @classmethod
    def of(cls, objective: Objective, seed: int) -> Columns:
        """Look at the null model and at a sample of the rows."""
        d = objective.shape[1]
        moments = np.zeros(d), np.ones(d), None
        if objective.X is not None:
            full = d <= _DENSE_LIMIT and not objective.l1
            with np.errstate(invalid="ignore", over="ignore"):
                moments = sample_moments(objective, np.random.default_rng(seed), full)
            if not all(np.isfinite(part).all() for part in moments if part is not None):
                # A pass raises if X holds NaN or infinity, and names the place; finite data whose
                # squares overflow are solved in their own variables.
                objective.margins(np.zeros(objective.w_shape))
                moments = np.zeros(d), np.ones(d), None
        return cls(*moments, _null_curvature(objective))


class Coordinates:
    """The affine map between the problem's w (with b last) and the solver's v.

    `eps` is the rounding of the arithmetic in which margins are computed: what it hides of a column,
    a narrow mean far from zero say, is not scaled up.
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


def _null_curvature(objective: Objective) -> float:
    """The mean of φ'' at the null model, by a difference of mean residuals: O(n), no pass."""
    problem, s = objective.problem, objective.s
    z = objective.null_margins()
    signs = 1.0 if z.ndim == 1 else np.where(np.arange(z.shape[1]) % 2, -1.0, 1.0)
    r, slope, h = np.empty_like(z), 0.0, 1e-2
    for side in (h, -h):
        problem.loss_from_margins((z + side * signs).astype(z.dtype), r)
        slope += float(np.sum(row_mean(r, s) * signs)) / (2 * side)
    slope /= 1 if z.ndim == 1 else z.shape[1]
    bound = objective.loss.curvature_bound
    if not (np.isfinite(slope) and slope > 0):
        return bound if np.isfinite(bound) else 1.0
    return min(slope, bound)
