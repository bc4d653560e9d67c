"""The unknowns of wide sparse problems: one number per row (and class) of X, w = X̃ᵀa.

At the minimum of F with l2 > 0, l2·w = −(1/S) X̃ᵀ(s∘r): the solution is a combination of the rows, and
so is every step of a method that only ever adds gradients. With more columns than rows the unknowns
a are then far fewer than w, nothing in a step is of the size of w, and margins are linear in them:

    z = K a + c·β,   K = X̃ X̃ᵀ,   X̃ = X − 1mᵀ = (I − 1sᵀ/S) X,   b = c·β − mᵀw
    ∇F = X̃ᵀg,  g = s∘r/S + l2·a,       ⟨X̃ᵀg, X̃ᵀh⟩ = ⟨g, K h⟩

m holds the columns' means, and c the scale of β, where there is an intercept; else there is neither.
A product with K is one trip over a copy of X by columns (`_core.RowProducts`), which takes 12 bytes an
entry and, during a product, up to 16 vectors of the margins' size; or over X itself, where columns are
few enough for Xᵀa to lie in a core's first cache.

Source: Schölkopf, Herbrich & Smola, A Generalized Representer Theorem, 2001; Chapelle, Training a
Support Vector Machine in the Primal, 2007.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nagcore import _core
from nagcore.objective import Objective
from nagcore.objective.duality import dot, row_mean
from nagcore.solvers.base import Horizon

__all__ = ["RowCoordinates", "RowOracle"]

_SHORTER = (1.0, 0.5, 0.25, 0.0)  # parts of a start's own unknowns that are tried
# The square of β's column in parts of the rows' mean square: about that of X's main directions. On 20news and
# reuters 0.01 and 0.03 take 23 to 27 products, ten times as much or as little up to twice that.
_SHARE = 0.01


class RowCoordinates:
    """The map between the problem's w and a (with β last), the same in float32 and float64."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        n = objective.shape[0]
        core = objective.problem.core
        self.products = _core.RowProducts(core)
        s = objective.s
        self.weight: Any = 1 / n if s is None else s if objective.k == 1 else s[:, None]
        self._mean: np.ndarray | None = None
        self.scale = 0.0
        if objective.fit_intercept:
            self._mean = self._transposed(np.full(n, 1 / n) if s is None else s)
            squares = float(np.einsum("i,i->", objective.X.data, objective.X.data, dtype=np.float64)) / n
            self.scale = math.sqrt(_SHARE * max(squares - dot(self._mean, self._mean), 0.0)) or 1.0
        self._shape = n + objective.fit_intercept, *objective.w_shape[1:]
        self.by_rows = objective.k == 1 and self.products.by_rows
        objective.reads.passes += not self.by_rows  # a copy is read into
        self._on_the_way: tuple[Any, Any] = None, None  # the last x of a product in float64, and Xᵀ of it
        self.begun = False   # whether a start has been looked at
        self.memory: Any = None  # what a method leaves for its next run in other arithmetic
        # Products can be had in this arithmetic, whatever the margins are in.
        self.real = np.dtype(objective.problem.compute)

    def _transposed(self, v: np.ndarray) -> np.ndarray:
        self.objective.reads.passes += 1
        return self.products.transposed(v)

    def _balanced(self, a: np.ndarray) -> np.ndarray:
        """(I − s1ᵀ/S) a: Xᵀ of it is X̃ᵀa."""
        return a if self._mean is None else a - (self.weight * a.sum(axis=0)).astype(a.dtype)

    def product(self, x: np.ndarray) -> np.ndarray:
        """K a. One trip over X."""
        a = x[: self.objective.shape[0]]
        if not a.any():
            return np.zeros_like(a)
        self.objective.reads.passes += 1
        if self.by_rows and x.dtype == np.float64:
            Ka, u = self.products.both(self._balanced(a))
            self._on_the_way = x, u
        else:
            Ka = self.products.product(self._balanced(a))
        if self._mean is not None:
            Ka -= np.asarray(row_mean(Ka, self.objective.s)).astype(Ka.dtype)
        return Ka

    def square(self, x: np.ndarray) -> float:
        """⟨a, K a⟩ = ‖X̃ᵀa‖², as a sum of squares. One trip over X, at half the price of a product."""
        self.objective.reads.passes += 1
        return self.products.square(self._balanced(x[: self.objective.shape[0]]))

    def to_w(self, x: np.ndarray) -> np.ndarray:
        """w and b of x, in float64. One pass."""
        n = self.objective.shape[0]
        at, u = self._on_the_way
        if at is x:  # the product with it, in float64, gave that
            w = u.copy()
        else:
            w = self._transposed(self._balanced(x[:n].astype(np.float64)))
        if self._mean is not None:
            b = self.scale * x[n] - np.einsum("i,i...->...", self._mean, w)
            w = np.concatenate([w, np.asarray(b)[None]])
        return w

    def null(self, objective: Objective) -> np.ndarray:
        """x of the null model."""
        x = np.zeros(self._shape)
        if self._mean is not None:
            x[-1] = objective._null_parts(objective.problem)[1] / self.scale
        return x

    def to_v(self, w: np.ndarray) -> np.ndarray:
        """x of w = 0, or of the residuals at any other w: x = −s∘r/(S·l2), which is right at the minimum."""
        objective = self.objective
        n, d = objective.shape
        x = np.zeros(self._shape)
        if w[:d].any():
            problem = objective.wide
            z = problem.margins(np.ascontiguousarray(w, np.float64))
            r = np.empty_like(z)
            problem.loss_from_margins(z, r)
            x[:n] = -self.weight / objective.l2 * r
        if self._mean is not None:
            x[n] = (w[d] + np.einsum("i,i...->...", self._mean, w[:d])) / self.scale
        return x


class RowOracle:
    """F and its derivatives in the unknowns of `RowCoordinates`, from margins alone.

    It has what the driver asks of an `Oracle`; `w` and `u`, which cost a pass each, are made on demand.
    """

    dropped = None  # no column is left out of its passes
    spare = None    # no margins that could be written

    def __init__(
        self,
        objective: Objective,
        coordinates: RowCoordinates,
        problem: Any,
        left: Callable[[], float] = lambda: math.inf,
        target: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.left = left  # how many trips over X may still be made
        self.target = target  # the gap to reach
        self.n_threads = objective.n_threads
        self.objective, self.coordinates, self.problem = objective, coordinates, problem
        self.real = np.dtype(problem.compute)
        self.mixed = self.real != coordinates.real  # products can be had in narrower arithmetic
        self.margins_are_products = not coordinates.scale and objective._offset is None
        self._n, self._l2, self._c = objective.shape[0], objective.l2, coordinates.scale
        self._weight: Any = coordinates.weight
        self.equal = isinstance(self._weight, float)  # all rows weigh alike
        if not self.equal:
            self._weight = self._weight.astype(self.real)
        self._offset = objective._zero_margins(problem)
        self._at: tuple[np.ndarray, np.ndarray] = np.zeros(0), np.zeros(0)  # the last gradient's x and r
        self.data_value = math.nan
        self.horizon: Callable[[], Horizon] = Horizon  # how far a method may run unseen

    # In the unknowns ----------------------------------------------------------------------------

    def product(self, x: np.ndarray) -> np.ndarray:
        """K a: the margins that w = X̃ᵀa gives, shape (n,) or (n, k). One trip over X."""
        return self.coordinates.product(x)

    def inner(self, x: np.ndarray, y: np.ndarray, Ky: np.ndarray) -> float:
        """⟨x, y⟩ in the metric of w: ⟨a_x, K a_y⟩, and the product of the β's."""
        n = self._n
        return dot(x[:n], Ky) + (dot(x[n], y[n]) if self._c else 0.0)

    def apart(self, x: np.ndarray, y: np.ndarray) -> float:
        """The part of ⟨x, y⟩ that is not of w: the product of the β's."""
        return dot(x[self._n], y[self._n]) if self._c else 0.0

    def total(self, x: np.ndarray, Kx: np.ndarray) -> np.ndarray:
        """K a + c·β; K a itself where there is no intercept."""
        return Kx + self.real.type(self._c) * x[self._n] if self._c else Kx

    def margins(self, x: np.ndarray, Kx: np.ndarray) -> np.ndarray:
        """z, with the offset, a new array."""
        return self.total(x, Kx) + self._offset

    def value_at(self, z: np.ndarray, square: float, r: np.ndarray) -> float:
        """f from margins and ‖w‖² = ⟨a, K a⟩; residuals are written."""
        return self.problem.loss_from_margins(z, r) + 0.5 * self._l2 * square

    def gradient(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        """g, with its part in β last."""
        n, g = self._n, np.empty_like(x)
        if self.equal:
            self.combine([r, x[:n]], [self._weight, self._l2], g[:n])
        else:
            weighted = r * self._weight
            np.multiply(x[:n], self.real.type(self._l2), out=g[:n])
            g[:n] += weighted
        if self._c:
            g[n] = self._c * row_mean(r, self.objective.s)
        self._at = x, r
        return g

    def combine(self, arrays: list[np.ndarray], coefficients: list[float], out: np.ndarray) -> np.ndarray:
        """out = Σ_j c_j a_j, in out's arithmetic; out may be one of the arrays."""
        if self.mixed:
            arrays = [a.astype(out.dtype, copy=False) for a in arrays]
        _core.combine(arrays, coefficients, out, self.n_threads)
        return out

    def products(self, arrays: list[np.ndarray], v: np.ndarray) -> list[float]:
        """⟨a_j, v⟩ for each array, not in the metric of w."""
        if self.mixed and any(a.dtype != v.dtype for a in arrays):
            arrays, v = [a.astype(np.float64, copy=False) for a in arrays], v.astype(np.float64, copy=False)
        return _core.inner_products(arrays, v, self.n_threads)

    def slope(self, r: np.ndarray, h: np.ndarray) -> float:
        """(1/S) Σ s_i ⟨r_i, h_i⟩: the mean loss's slope along margins h."""
        if self.equal:
            return self._weight * self.products([h], r)[0]
        return dot(r * self._weight, h)

    def lifted(self, x: np.ndarray, Kx: np.ndarray) -> np.ndarray:
        """K a with β last, so that ⟨x, y⟩ in the metric of w is a plain inner product with y's."""
        return np.concatenate([Kx, x[self._n :]]) if self._c else Kx

    def curvature(self, z: np.ndarray) -> np.ndarray:
        """What `bend` multiplies by: s∘φ''/S, or the probabilities of classes."""
        if self.problem.k == 1:
            return self.problem.curvature_from_margins(z) * self._weight
        P = np.exp(z - z.max(axis=1, keepdims=True))
        P /= np.einsum("ic->i", P)[:, None]
        return P

    def bend(self, curve: np.ndarray, x: np.ndarray, Kx: np.ndarray) -> tuple[np.ndarray, float]:
        """The Hessian's product with x, and ⟨x, H x⟩. No trip over X."""
        n, h = self._n, self.total(x, Kx)
        q = curve * h
        if h.ndim == 2:
            q -= curve * np.einsum("ic->i", q)[:, None]
            q *= self._weight
        square = dot(h, q) + self._l2 * dot(x[:n], Kx)
        out = np.empty_like(x)
        np.multiply(x[:n], self.real.type(self._l2), out=out[:n])
        out[:n] += q
        if self._c:
            out[n] = self._c * q.sum(axis=0, dtype=np.float64)
        return out, square

    def start(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """x in this arithmetic, or shorter, or the null model: which is best. And K a, z, r and f there."""
        x = x.astype(self.real)
        Kx, n = self.product(x), self._n
        square, best = dot(x[:n], Kx), None
        seen, self.coordinates.begun = self.coordinates.begun, True
        if seen or not square:
            z = self.margins(x, Kx)
            r = np.empty_like(z)
            f = self.value_at(z, square, r)
            if math.isfinite(f):
                return x, Kx, z, r, f
        for t in _SHORTER if square else (1.0,):
            y = x.copy()
            y[:n] *= t
            Ky = Kx * self.real.type(t)
            if self._c and not t:
                y[n] = self.objective._null_parts(self.problem)[1] / self._c
            z = self.margins(y, Ky)
            r = np.empty_like(z)
            f = self.value_at(z, t * t * square, r)
            if math.isfinite(f) and (best is None or f < best[-1]):
                best = y, Ky, z, r, f
        if best is None:
            raise ValueError("the objective is infinite at the starting point; start elsewhere, or "
                             "use w0=None to start at the null model.")
        return best

    # What the driver asks for -------------------------------------------------------------------

    @property
    def w(self) -> np.ndarray:
        """The coefficients of the last gradient's point."""
        return self.coordinates.to_w(self._at[0])

    @property
    def u(self) -> np.ndarray:
        """The data gradient in w there."""
        return self.problem.rmatvec(np.ascontiguousarray(self._at[1]))

    def at(self, x: np.ndarray, r: np.ndarray) -> None:
        """A gradient was taken at x, where the residuals are r."""
        self._at = x, r

    def value(self, x: np.ndarray, smooth: float) -> float:
        """F, which is smooth here."""
        return smooth

    def centred_classes(self, x: np.ndarray) -> np.ndarray:
        """x as it is: gradients, of which it is made, sum to zero over the classes."""
        return x

    def settled(self, x: np.ndarray) -> np.ndarray:
        """x as it is: there is no l1."""
        return x

    def rounding(self, f: float, z: np.ndarray) -> float:
        """How far a value of f can be off: rounded margins."""
        r = self._at[1] if self._at[1].size else np.zeros_like(z)
        if self.equal:
            residual = math.sqrt(self._weight * self.products([r], r)[0])  # no less than any class's mean
        else:
            residual = float(np.max(row_mean(np.abs(r), self.objective.s)))
        most = max(float(z.max()), -float(z.min()))
        return 4 * float(np.finfo(self.real).eps) * (abs(f) + residual * most)
