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

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from nagcore import _core
from nagcore.objective import Objective
from nagcore.objective.duality import row_mean
from nagcore.solvers.dense import cholesky
from nagcore.solvers.moments import sample_moments

__all__ = [
    "CURVATURE_FLOOR", "DENSE_LIMIT", "ClassCoordinates", "Columns", "Coordinates", "OwnCoordinates",
    "class_curvature_rows", "curvature_rows",
]

# Columns up to which P is a full matrix: its product then costs a twentieth of a pass or less.
DENSE_LIMIT = 1024
CURVATURE_FLOOR = 0.01  # of the mean, added to each row's: rows that are flat here need not be elsewhere
_HOP = 1e-2  # in margins, for differences of residuals
_BLOCK = 1 << 16  # rows of a temporary array
_PIVOT = 1e-4  # least part of a column that is its own, of which rounded rows still tell a tenth


class Columns(NamedTuple):
    """What is known of the data at some margins: moments weighted by the loss's curvature there."""

    mean: np.ndarray
    spread: np.ndarray  # the variance, or the mean square where there is no intercept
    products: np.ndarray | None  # correlations, or of `weight` rows the Gram matrix that they come from
    curvature: float  # the mean of φ''
    weight: float = 0.0
    exact: Callable[[], Columns] | None = None  # the same of rows that are not rounded, where these were

    @classmethod
    def of_gram(cls, G: np.ndarray, d: int, curvature: float) -> Columns:
        """From (1/S) Σ s v x̃x̃ᵀ over all rows, or an estimate of it, `curvature` the mean of v."""
        weight = float(G[d, d]) if len(G) > d else curvature
        mean = G[d, :d] / weight if len(G) > d else np.zeros(d)
        spread = np.maximum(G.diagonal()[:d] / weight - mean**2, 0.0)
        return cls(mean, spread, G, weight, weight)

    @classmethod
    def of(cls, objective: Objective, seed: int, rows: np.ndarray) -> Columns:
        """Look at a sample of the rows, whose `curvature_rows` are given."""
        d, s = objective.shape[1], objective.s
        curvature = float(row_mean(rows, s))
        rows = rows + CURVATURE_FLOOR * curvature
        if s is not None:
            rows *= s
        moments: tuple[Any, Any, Any] = np.zeros(d), np.ones(d), None
        if objective.X is not None:
            full = d <= DENSE_LIMIT and objective.penalty.smooth
            rng = np.random.default_rng(seed)
            with np.errstate(invalid="ignore", over="ignore"):
                moments = sample_moments(objective, rng, full, rows / rows.sum())
            if not all(np.isfinite(part).all() for part in moments if part is not None):
                # A pass raises if X holds NaN or infinity, and names the place; finite data whose
                # squares overflow are solved in their own variables.
                objective.value_and_grad(np.zeros(objective.w_shape))
                moments = np.zeros(d), np.ones(d), None
        return cls(*moments, curvature)


def curvature_rows(
    objective: Objective, problem: Any, z: np.ndarray, spare: np.ndarray | None = None
) -> np.ndarray:
    """φ'' of each row, by a difference of residuals: O(n), no pass.

    For classes it is ⟨e, φ'' e⟩/k along one e of alternating signs, about the mean of the diagonal.
    `spare` is a buffer like z that may be written.
    """
    bound = objective.loss.curvature_bound
    if problem.second_order:
        rows = problem.curvature_from_margins(z)
        mean = _core.row_mean(rows, n_threads=problem.n_threads)
        if math.isfinite(mean) and mean > 0:  # of numbers from zero on: all of them are finite
            return rows
        return np.full(len(rows), bound if np.isfinite(bound) else 1.0)
    signs = 1.0 if z.ndim == 1 else np.where(np.arange(z.shape[1]) % 2, -1.0, 1.0)
    moved, r = np.empty_like(z) if spare is None else spare, np.empty_like(z)
    hop = (_HOP * np.asarray(signs)).astype(z.dtype)
    rows = np.zeros(len(z))
    for sign in (1.0, -1.0):
        np.add(z, sign * hop, out=moved)
        problem.loss_from_margins(moved, r)
        for i in range(0, len(z), _BLOCK):  # of each row along e
            part = r[i : i + _BLOCK]
            if z.ndim > 1:
                part = np.einsum("ij,j->i", part, signs / z.shape[1], dtype=np.float64)
            rows[i : i + _BLOCK] += sign * part.astype(np.float64, copy=False)
    rows /= 2 * _HOP
    np.clip(rows, 0, bound, out=rows)
    if np.isfinite(rows).all() and rows.any():
        return rows
    return np.full(len(rows), bound if np.isfinite(bound) else 1.0)


def class_curvature_rows(problem: Any, z: np.ndarray) -> Iterator[np.ndarray]:
    """p_c(1 − p_c) of each row, class by class: |r_c|(1 − |r_c|) for class numbers. O(nk), no pass."""
    r = np.empty_like(z)
    problem.loss_from_margins(z, r)
    for column in r.T:
        p = np.abs(column)
        yield p * (1 - p)


class Coordinates:
    """The affine map between the problem's w (with b last) and the solver's v.

    `eps` is the rounding of the arithmetic in which margins are computed: what it hides of a
    column, a narrow mean far from zero say, is not scaled up. `floored` says that it hid something,
    and that finer arithmetic would see more. `origin` is the point that X is stored about (None for
    zero).
    """

    def __init__(
        self, objective: Objective, columns: Columns, eps: float, origin: np.ndarray | None = None,
        one_class: bool = False,
    ) -> None:
        d = self._d = objective.shape[1]
        mean, spread, products, curvature, weight, exact = columns
        centre = mean if origin is None else mean - origin
        self.rms = np.sqrt(spread + centre**2 * objective.fit_intercept)
        floor = 64 * eps * self.rms**2
        self.floored = bool((spread < floor).any())
        P = curvature * np.maximum(spread, floor) + objective.l2
        P[P == 0] = 1.0  # an all-zero column without l2: its gradient is zero too
        self._L: np.ndarray | list[np.ndarray] | None = None
        if products is not None:
            scale = np.sqrt(curvature * spread / P)  # of the data in P's diagonal
            if weight:
                scale = np.divide(scale, np.sqrt(spread), out=np.zeros(d), where=spread > 0)
            # A little towards the identity: directions that the sample shows as collinear are not
            # stretched without limit.
            scale *= math.sqrt(1 - max(64 * eps, 1e-7))
            centred = mean if weight and objective.fit_intercept else None

            def scaled() -> np.ndarray:
                K = _core.empty_rows((d, d), np.float64)
                _core.equilibrate(products, 1 / weight if weight else 1.0, centred, scale, K,
                                  objective.problem.n_threads)
                return K

            self._L = scaled()
            if _core.cholesky_(self._L) >= 0:  # which has written on it
                K = scaled()
                self._L, _ = cholesky(K, 0.0)
            if exact is not None and float(self._L.diagonal().min()) ** 2 < _PIVOT:
                self.__init__(objective, exact(), eps, origin, one_class)  # type: ignore[misc]
                return
        shape = (d,) if one_class or objective.k == 1 else (d, 1)
        self.scale = (1 / np.sqrt(P)).reshape(shape)
        self._mean = mean.reshape(shape) if objective.fit_intercept else None
        self._scale_b: np.ndarray | float = 1 / np.sqrt(curvature)
        self.thresholds = objective.l1 * self.scale

    @property
    def joined(self) -> Coordinates | None:
        """The same map of many vectors at a time, shape (p, m); None where there are classes."""
        if self.scale.ndim > 1:
            return None
        other = copy.copy(self)
        other.scale = self.scale[:, None]
        other._mean = None if self._mean is None else self._mean[:, None]
        return other

    @property
    def parts(self) -> tuple[Any, Any, Any, Any]:
        """(L, scale, mean, scale_b) of w = scale∘(L⁻ᵀv), b = scale_b·v_b − meanᵀw."""
        return self._L, self.scale, self._mean, self._scale_b

    def to_w(self, v: np.ndarray) -> np.ndarray:
        """w and b, as the problem takes them."""
        d, w = self._d, np.empty_like(v)
        np.multiply(self._solved(v[:d], True), self.scale, out=w[:d])
        w[d:] = v[d:] * self._scale_b
        if self._mean is not None:
            w[d] -= np.einsum("i...,i...->...", self._mean, w[:d])
        return w

    def to_v(self, w: np.ndarray) -> np.ndarray:
        """The inverse of `to_w`."""
        d, v = self._d, np.empty_like(w)
        v[:d] = self._multiplied(w[:d] / self.scale, True)
        v[d:] = w[d:]
        if self._mean is not None:
            v[d] += np.einsum("i...,i...->...", self._mean, w[:d])
        v[d:] /= self._scale_b
        return v

    def centred(self, u: np.ndarray) -> np.ndarray:
        """The part ∂/∂w of a gradient when mᵀw + b is held, not b: shape (d,) or (d, k)."""
        if self._mean is None:
            return u[: self._d]
        return u[: self._d] - self._mean * u[self._d]

    def pull_back(self, u: np.ndarray, l2: float, w: np.ndarray) -> np.ndarray:
        """The gradient in v of data term + (l2/2)‖w‖², from the data gradient u in w."""
        d, g = self._d, np.empty_like(u)
        head = self.centred(u)
        if l2:
            head = head + l2 * w[:d]
        g[:d] = self._solved(head * self.scale, False)
        g[d:] = u[d:] * self._scale_b
        return g

    def push(self, g: np.ndarray) -> np.ndarray:
        """The gradient in w whose `pull_back` is g."""
        d, u = self._d, np.empty_like(g)
        u[d:] = g[d:] / self._scale_b
        u[:d] = self._multiplied(g[:d], False) / self.scale
        if self._mean is not None:
            u[:d] += self._mean * u[d]
        return u

    def _solved(self, b: np.ndarray, trans: bool) -> np.ndarray:
        return b if self._L is None else _core.solve_triangular(self._L, b, trans)

    def _multiplied(self, b: np.ndarray, trans: bool) -> np.ndarray:
        # Not BLAS: its bits depend on how many threads it has.
        return b if self._L is None else _core.multiply_triangular(self._L, b, trans)


class ClassCoordinates(Coordinates):
    """A metric for each class, w_c = T_c v_c less the mean over classes, for smooth objectives.

    Rows weigh in the metric of class c by p_c(1 − p_c), the diagonal blocks of the Hessian. Margins
    that shift alike for all classes leave the loss as it is and l2 wants their mean to be zero, so
    the mean is taken out: gradients have none, and steps must not bring one in.

    `columns` is emptied: a class's correlations are let go as soon as they are factored.
    """

    def __init__(
        self, objective: Objective, columns: list[Columns], eps: float, origin: np.ndarray | None = None
    ) -> None:
        parts = []
        while columns:  # each matrix goes as its factor comes
            parts.append(Coordinates(objective, columns.pop(0), eps, origin, one_class=True))
        self._d = objective.shape[1]
        self.rms = np.max([part.rms for part in parts], axis=0)
        self.floored = any(part.floored for part in parts)
        self.scale = np.stack([part.scale for part in parts], axis=1)
        self._scale_b = np.array([part._scale_b for part in parts])
        means = [part._mean for part in parts if part._mean is not None]
        self._mean = np.stack(means, axis=1) if means else None
        factors = [part._L for part in parts if isinstance(part._L, np.ndarray)]
        self._L = factors or None
        self.thresholds = np.zeros_like(self.scale)

    def to_w(self, v: np.ndarray) -> np.ndarray:
        """w and b, as the problem takes them."""
        w = super().to_w(v)
        return w - w.mean(axis=1, keepdims=True)

    def to_v(self, w: np.ndarray) -> np.ndarray:
        """Some v whose `to_w` is w, less its mean over classes."""
        return super().to_v(w - w.mean(axis=1, keepdims=True))


class OwnCoordinates:
    """The problem's own variables, v = w, for methods that have a Hessian to step by."""

    joined = None  # as `Coordinates.joined`

    def __init__(self, objective: Objective) -> None:
        d = self._d = objective.shape[1]
        self.rms = np.ones(d)
        self._centre: np.ndarray | None = None
        self.scale = self.rms if objective.k == 1 else self.rms[:, None]
        self.thresholds = objective.l1 * self.scale

    def look(self, H: np.ndarray) -> None:
        """Learn the columns' sizes and weighted means from a Hessian of the data term."""
        d = self._d
        weight = float(H[d, d]) if len(H) > d else 1.0
        self._centre = H[d, :d] / weight if len(H) > d and weight > 0 else None
        self.rms = np.sqrt(H.diagonal()[:d] / (weight or 1.0))

    def to_w(self, v: np.ndarray) -> np.ndarray:
        """v as it is."""
        return v

    def to_v(self, w: np.ndarray) -> np.ndarray:
        """w as it is."""
        return w

    def centred(self, u: np.ndarray) -> np.ndarray:
        """As `Coordinates.centred`, with means weighted by the curvature: those the intercept follows."""
        if self._centre is None:
            return u[: self._d]
        return u[: self._d] - self._centre * u[self._d]

    def push(self, g: np.ndarray) -> np.ndarray:
        """g as it is."""
        return g

    def pull_back(self, u: np.ndarray, l2: float, w: np.ndarray) -> np.ndarray:
        """The gradient of data term + (l2/2)‖w‖²."""
        if not l2:
            return u
        g = u.copy()
        g[: self._d] += l2 * w[: self._d]
        return g
