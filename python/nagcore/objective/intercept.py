"""The best intercept for given margins: evaluations O(n) on the margins, none a pass.

`s` below is the vector of weights divided by their sum, or None for equal weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Intercept", "best_intercept", "dot", "largest", "link_of", "mean_size", "row_mean"]

_BLOCK_ROWS = 1 << 14
_LONG = 64  # rows per class from which arrays of rows and classes are worked through by class


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """⟨a, b⟩ in float64. Not BLAS: its bits depend on how many threads BLAS has, these do not."""
    return float(np.add.reduce(np.multiply(a, b, dtype=np.float64), axis=None))


def row_mean(a: np.ndarray, s: np.ndarray | None) -> np.ndarray | float:
    """(1/S) Σ s_i a_i over rows, in float64."""
    if a.ndim == 2 and a.shape[1] * _LONG <= len(a):  # NumPy adds such rows one by one
        return np.array([row_mean(column, s) for column in a.T])
    if s is None:
        return np.add.reduce(a, axis=0, dtype=np.float64) / len(a)
    return np.einsum("i,i...->...", s, a, dtype=np.float64)


def largest(a: np.ndarray | float) -> float:
    """max |a|, of one number or of an array."""
    return abs(float(a)) if isinstance(a, float) else float(np.abs(a).max())


def mean_size(r: np.ndarray, s: np.ndarray | None) -> float:
    """(1/S) Σ s_i |r_i|, the largest over classes: in blocks of rows, so that nothing of r's size is made."""
    if len(r) <= _BLOCK_ROWS:
        return largest(row_mean(np.abs(r), s))
    total: np.ndarray | float = 0.0
    for i in range(0, len(r), _BLOCK_ROWS):
        block = np.abs(r[i : i + _BLOCK_ROWS])
        share = len(block) / len(r) if s is None else 1.0
        total = total + share * row_mean(block, None if s is None else s[i : i + _BLOCK_ROWS])
    return largest(total)


def link_of(loss: str) -> Callable[[Any], Any] | None:
    """The best intercept of rows whose margins are all zero, from their mean residual; None for no such rule.

    A mean residual of h at zero says that the targets' mean is μ(0) − h, μ the inverse of the link. It is
    where a search begins, and not taken on trust.

    >>> round(link_of("poisson")(-1.0), 6)  # counts of mean 2
    0.693147
    """
    def logistic(h: Any) -> float:
        return math.log((0.5 - h) / (0.5 + h)) if abs(h) < 0.5 else math.nan

    def softmax(h: Any) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            b = np.log(1 / len(h) - h)
        return b - b.mean()

    return {
        "squared": lambda h: -h, "poisson": lambda h: math.log(1 - h) if h < 1 else math.nan,
        "logistic": logistic, "softmax": softmax,
    }.get(loss)


class Intercept(NamedTuple):
    """The best shift of the margins: `b` (a number, or one per class) and what holds there."""

    b: np.ndarray | float
    value: float
    z: np.ndarray
    r: np.ndarray
    given_value: float  # the mean loss at the margins as they were given
    mean: np.ndarray | float  # of the residuals: zero but for rounding
    size: float               # their mean size, the largest over classes


class _Shifted:
    """The mean loss and its slope at margins that are shifted by b, and how large residuals are there."""

    def __init__(
        self, problem: Any, z: np.ndarray, s: np.ndarray | None, spare: np.ndarray | None
    ) -> None:
        self.problem, self.start, self.s = problem, z, s
        self._moved, self.r = np.empty_like(z) if spare is None else spare, np.empty_like(z)
        self._eps = 2 * float(np.finfo(z.dtype).eps)
        self._in_core = getattr(problem, "shifted_loss", None)
        self.b: Any = None
        self.z, self.value, self.mean, self.size = z, math.nan, math.nan, math.nan

    def at(self, b: Any) -> Any:
        """The mean residual at b, one number or one per class; at None, where the margins are."""
        self.b, self.z = b, self.start if b is None else self._moved
        if self._in_core is not None:
            self.value, self.mean, self.size = self._in_core(
                self.start, b, None if b is None else self._moved, self.r)
            return self.mean
        if np.ndim(b) and len(b) * _LONG <= len(self.z):
            for shift, column, moved in zip(b, self.start.T, self._moved.T, strict=True):
                np.add(column, shift, out=moved, casting="same_kind")
        elif b is not None:
            np.add(self.start, b, out=self._moved, casting="same_kind")
        self.value = self.problem.loss_from_margins(self.z, self.r)
        self.mean, self.size = row_mean(self.r, self.s), mean_size(self.r, self.s)
        return self.mean

    def bend(self) -> float:
        """The mean curvature where the margins are, before any shift: it lies where shifted ones will."""
        return float(row_mean(self.problem.curvature_from_margins(self.start, self._moved), self.s))

    def rounding(self) -> float:
        """What the mean of n rounded residuals cannot be told from zero below."""
        return self._eps * self.size


def best_intercept(
    problem: Any,
    z: np.ndarray,
    s: np.ndarray | None,
    curvature: float,
    link: Callable[[Any], Any] | None = None,
    spare: np.ndarray | None = None,
) -> Intercept:
    """Minimise (1/S) Σ s_i φ(z_i + b) over b.

    Parameters
    ----------
    problem : _core.Problem
        Used for `loss_from_margins`, and for `curvature_from_margins` where it has that.
    z : ndarray of shape (n,) or (n, k)
        Margins in the problem's compute dtype; left as they are, and returned where b is zero.
    s : ndarray of shape (n,) or None
        Weights that sum to one.
    curvature : float
        A bound on φ'': 1/curvature times the mean residual never steps too far. May be infinite.
    link : callable, optional
        Where to begin, given the mean residual at z.
    spare : ndarray like z, optional
        A buffer for the shifted margins, which are then returned in it.

    Returns
    -------
    Intercept
        The shift, the mean loss there, the shifted margins and their residuals.
    """
    loss = _Shifted(problem, z, s, spare)
    h = loss.at(None)
    given_value, b = loss.value, None
    noise = loss.rounding()
    if not largest(h) <= noise:
        b = (_root if z.ndim == 1 else _bfgs)(loss, h, noise, curvature, link)
        if b is not loss.b:
            loss.at(b)
    if b is None:
        b = 0.0 if z.ndim == 1 else np.zeros(z.shape[1])
    return Intercept(b, loss.value, loss.z, loss.r, given_value, loss.mean, loss.size)


def _first_step(loss: _Shifted, h: float, curvature: float, link: Any) -> float:
    """By the link, or by the curvature here where that says that the way is short."""
    step = math.nan
    if link is not None:
        step = link(h)
    elif getattr(loss.problem, "second_order", False):
        bend = loss.bend()
        if abs(h) < bend < math.inf:
            step = -h / bend
    if math.isfinite(step):
        return step
    return -h / curvature if math.isfinite(curvature) else -math.copysign(1.0, h)


def _root(loss: _Shifted, h: float, noise: float, curvature: float, link: Any) -> float | None:
    """The zero of an increasing function: secant steps, kept inside a bracket that halves."""
    b, low, high = 0.0, -math.inf, math.inf
    least, best, step = abs(h), None, _first_step(loss, h, curvature, link)
    for i in range(100):
        if abs(h) <= noise:
            noise = loss.rounding()  # residuals may be smaller here than at the start
        if abs(h) <= noise or step == 0 or b + step == b:
            break
        low, high = (b, high) if h < 0 else (low, b)
        last_b, last_h = b, h
        b += step
        h = loss.at(b)
        if abs(h) < least:
            least, best = abs(h), b
        secant = -h * (b - last_b) / (h - last_h) if math.isfinite(h) and h != last_h else math.nan
        low, high = (b, high) if h < 0 else (low, b)
        if math.isfinite(low) and math.isfinite(high):
            # Every third step bisects, so that a kink or an exponential cannot stall the secant.
            inside = low < b + secant < high and i % 3 != 2
            step = secant if inside else 0.5 * (low + high) - b
        else:
            most = 4 * abs(step)
            step = secant if math.isfinite(secant) and secant * step > 0 else math.copysign(most, step)
            step = min(max(step, -most), most)
    return best


def _class_curvature(loss: _Shifted, curvature: float) -> np.ndarray:
    """The inverse of the mean of diag(p) − ppᵀ on shifts that sum to zero, or a safe multiple of 1."""
    n, k = loss.r.shape
    mean, square = np.zeros(k), np.zeros((k, k))
    for i in range(0, n, _BLOCK_ROWS):
        r = loss.r[i : i + _BLOCK_ROWS]
        negative = r < 0
        if np.count_nonzero(negative) != len(r):
            break
        p = (r + negative).astype(np.float64, copy=False)  # class numbers: r is p, less one at the class
        weighted = p / n if loss.s is None else p * loss.s[i : i + _BLOCK_ROWS, None]
        mean += weighted.sum(axis=0)
        square += np.einsum("ia,ib->ab", weighted, p)
    else:
        if (mean > 1e-300).all():
            # Shifting all classes alike changes nothing; 1/k makes that direction definite.
            return np.linalg.inv(np.diag(mean * (1 + 1e-9)) - square + mean.max() / k)
    return np.eye(k) / (curvature if math.isfinite(curvature) else 1.0)


def _bfgs(loss: _Shifted, h: np.ndarray, noise: float, curvature: float, link: Any) -> np.ndarray:
    """The best intercept of each class: a Newton step to begin with, then BFGS."""
    b, value = np.zeros(len(h)), loss.value
    eps = float(np.finfo(np.float64).eps)
    if link is not None:
        start = link(h)
        if np.isfinite(start).all():
            h_start = loss.at(start)
            if loss.value <= value:
                b, h, value = start, h_start, loss.value
    H = None
    for _ in range(200):
        if np.abs(h).max() <= noise:
            noise = loss.rounding()
            if np.abs(h).max() <= noise:
                break
        if H is None:
            H = _class_curvature(loss, curvature)
        p, t = -H @ h, 1.0
        descent = float(h @ p)
        flat = abs(descent) <= 4 * eps * abs(value)  # too little for a value to tell
        while True:
            b_new = b + t * p
            h_new, value_new = loss.at(b_new), loss.value
            enough = value_new <= value + 1e-4 * t * descent or h_new @ h_new < 0.25 * (h @ h)
            if enough or flat or t < 1e-3:
                break
            t *= 0.5
        if h_new @ h_new >= h @ h and (flat or value_new >= value):
            break  # rounding: neither the value nor the slope improves any more
        step, change = t * p, h_new - h
        curved = float(step @ change)
        if curved > 0:
            V = np.eye(len(h)) - np.outer(step, change) / curved
            H = V @ H @ V.T + np.outer(step, step) / curved
        b, value, h = b_new, value_new, h_new
    return b
