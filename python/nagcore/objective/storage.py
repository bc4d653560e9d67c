"""A narrower copy of a float64 X, which carries the passes that need not be exact.

A copy in float32 is half as many bytes to read, in bfloat16 a quarter, in uint8 an eighth. The
problem on the copy is another one, close by; solvers go as far with it as it says, and take their
last passes, and the proof of the gap, on the float64 X itself. Its minimum is the one they return.

    x_ij = o_j + σ_j q_ij,   q the copy,   Xw + b = Q(σ∘w) + (b + ⟨o, w⟩)

Columns whose means dwarf their spread would lose their digits in a copy, so they are stored about an
origin o_j, and columns in units near the ends of float32 in units σ_j of their own. Both are powers
of two, or few of them, so that numbers of few digits keep all of them, and both are folded into
coefficients and gradients in float64.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from nagcore import _core
from nagcore.objective.counted import Counted

__all__ = [
    "STORAGES", "NarrowCopy", "ShiftedProblem", "check_storage", "narrow_copy", "narrowed", "on_copy",
]  # fmt: skip

STORAGES = ("float32", "bfloat16", "uint8")
_DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "uint8": np.uint8}
_LOOKED_AT = 1 << 20  # entries of X from which origins and units are taken: 8 MB
_ROWS = 512
_FAR = 4.0            # mean absolute deviations a mean must be from zero for an origin to pay
_LARGE = 2.0**30      # units beyond which, or below whose inverse, a column gets its own
_LEVELS = 256


class NarrowCopy(NamedTuple):
    """A copy of X, or the reason why there is none.

    `how` goes to `_core.Problem` with it. `origin` and `step` are o and σ, None for 0 and 1.
    `rows` were looked at beforehand.
    """

    X: Any
    how: dict[str, Any]
    origin: np.ndarray | None
    step: np.ndarray | None
    rows: int
    reason: str


def check_storage(storage: Any) -> None:
    """Raise ValueError unless storage is None or one of `STORAGES`."""
    if storage is not None and storage not in STORAGES:
        raise ValueError(f"storage is {storage!r}; nagcore takes "
                         + ", ".join(f'"{name}"' for name in STORAGES) + ' or None. Use "float32".')


def _none(reason: str, rows: int = 0) -> NarrowCopy:
    return NarrowCopy(None, {}, None, None, rows, reason)


def narrow_copy(X: Any, storage: str, n_threads: int | None = None) -> NarrowCopy:
    """Copy X to `storage`, on all threads, in one read of it; X is not written.

    Parameters
    ----------
    X : ndarray (C or F order, or rows of one) or scipy.sparse CSR of shape (n, d), float64
    storage : {"float32", "bfloat16", "uint8"}
        uint8 only where it is exact: where all values are o + σ·{0 … 255} to a few ulps.
    n_threads : int, optional

    Examples
    --------
    >>> narrow_copy(np.array([[1000.5, 1.0], [1001.5, 2.0]]), "float32").X
    array([[-0.5,  1. ],
           [ 0.5,  2. ]], dtype=float32)
    >>> narrow_copy(np.array([[0.1, 0.25], [0.2, 0.3]]), "uint8").X
    array([[2, 5],
           [4, 6]], dtype=uint8)
    """
    if X.dtype != np.float64:
        return _none(f"X is {X.dtype} as it is")
    threads = n_threads or 0
    if not isinstance(X, np.ndarray):
        return _sparse(X, storage, threads)
    item, (n, d) = X.itemsize, X.shape
    by_line = X.strides[1] != item and X.strides[0] == item  # F order: a line is a column
    lines = X.T if by_line else X
    if not (X.flags.aligned and (lines.strides[1] == item or lines.shape[1] == 1)
            and lines.strides[0] % item == 0):  # fmt: skip
        return _none("neither rows nor columns of X are contiguous")
    rows = min(n, _ROWS, max(_LOOKED_AT // max(d, 1), 2))
    chosen = np.sort(np.random.default_rng(0).choice(n, rows, replace=False))
    block = np.asarray(X[chosen])
    how: dict[str, Any] = {}
    if storage == "uint8":
        lattice = _lattice(block)
        if lattice is None:
            return _none("X is not 256 equally spaced numbers, which is all that uint8 holds", rows)
        origin, step = np.full(d, lattice[0]), np.full(d, lattice[1])
        how = {"scale": lattice[1], "shift": lattice[0]}
    else:
        origin, step = _origins(block)
        if not (np.isfinite(origin).all() and np.isfinite(step).all()):
            return _none("X holds numbers that are not finite or far apart by more than float64", rows)
        if storage == "bfloat16":
            how = {"dtype": "bfloat16"}
    moved = bool(origin.any() or (step != 1).any())
    out = np.empty(lines.shape, _DTYPES[storage])
    done = _core.narrow_copy(np.asarray(lines), out, origin if moved else None,
                             step if moved else None, by_line, threads)
    if not done:
        what = "equally spaced numbers" if storage == "uint8" else "finite numbers below 1e18"
        return _none(f"X does not hold {what} throughout", rows + n)
    copied = out.T if by_line else out
    if storage == "uint8" or not moved:
        return NarrowCopy(copied, how, None, None, rows, "")
    return NarrowCopy(copied, how, origin, step, rows, "")


def narrowed(objective: Any, storage: str) -> tuple[Any, str]:
    """`Objective.narrowed`."""
    check_storage(storage)

    def without(reason: str) -> tuple[Any, str]:
        return objective, f"no copy in {storage}: {reason}"

    if objective.storage is not None:
        return objective, f"early passes on the copy of X in {objective.storage}"
    if objective.rebuild is None:
        return without("the objective was not made from X itself")
    if objective.read_as != (1.0, 0.0, None):
        return without("X is read with scale, shift or dtype")
    Q, how, origin, step, rows, reason = narrow_copy(objective.X, storage, objective.n_threads)
    objective.reads.rows += rows
    if reason:
        return without(reason)
    if origin is None or step is None:
        core = objective.rebuild(None, Q, **how)
    else:
        core = ShiftedProblem(objective.rebuild(None, Q, **how, fit_intercept=True), origin, step,
                              objective.fit_intercept)
    return on_copy(objective, core, storage)


def on_copy(objective: Any, core: Any, storage: str) -> tuple[Any, str]:
    """The objective with `core`, the same problem on a copy of X, for all passes but the last."""
    share = core.nbytes / objective.nbytes
    objective.reads.passes += 1 + share
    other = copy.copy(objective)
    other.problem = Counted(core, objective.reads, share)
    other._wide = objective.wide
    other.storage, other.kept_hessian = storage, {}
    return other, f"early passes on a copy of X in {storage}, {core.nbytes / 1e6:.1f} MB"


def _sparse(X: Any, storage: str, threads: int) -> NarrowCopy:
    """CSR: its numbers in float32, beside the same indices."""
    if storage != "float32":
        return _none(f"CSR is read in float64 or float32, not {storage}")
    data = np.empty((1, len(X.data)), np.float32)
    if not _core.narrow_copy(np.ascontiguousarray(X.data)[None], data, None, None, True, threads):
        return _none("X does not hold finite numbers below 1e18 throughout", X.shape[0])
    copy = X._with_data(data[0], copy=False)
    return NarrowCopy(copy, {}, None, None, 0, "")


def _origins(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """o and σ of each column, from some rows: 0 and 1 where the numbers are in reach as they are."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = block.mean(axis=0)
        spread = np.abs(block - mean).mean(axis=0)
        # A unit is a power of two no larger than the spread; whole numbers stay whole.
        unit = np.exp2(np.floor(np.log2(spread, where=spread > 0, out=np.zeros_like(spread))))
        near = np.round(mean / unit) * unit
        constant = (block == block[0]).all(axis=0)
        far = np.abs(mean) > _FAR * spread
        origin = np.where(far, np.where(constant, block[0], near), 0.0)
        size = np.abs(block - origin).max(axis=0)
        power = np.exp2(np.round(np.log2(size, where=size > 0, out=np.zeros_like(size))))
    step = np.where((size > _LARGE) | ((size < 1 / _LARGE) & (size > 0)), power, 1.0)
    return origin, step


def _lattice(block: np.ndarray) -> tuple[float, float] | None:
    """(o, σ) such that some rows of X are o + σ·{0 … 255}; None where they are not."""
    values = np.unique(block)
    if not np.isfinite(values).all() or len(values) > _LEVELS:
        return None
    if len(values) == 1:
        return float(values[0]), 1.0
    step = float(np.diff(values).min())
    span = float(values[-1] - values[0])
    steps = round(span / step) if np.isfinite(span / step) else _LEVELS
    if steps >= _LEVELS:
        return None
    step, low = span / steps, float(values[0])
    # Where zero lies on the lattice it is the likelier end: the sample may lack it.
    first = round(low / step)
    if 0 <= first <= _LEVELS - 1 - steps and abs(low - first * step) <= 1e-9 * step:
        step = float(values[-1]) / (first + steps)
        low = 0.0
    return low, step


class ShiftedProblem:
    """`_core.Problem` on a copy Q with X = o + Q·diag(σ), in the coefficients of X.

    Parameters
    ----------
    core : nagcore._core.Problem
        On Q, with an intercept, which takes ⟨o, w⟩ up.
    origin, step : ndarray of shape (d,)
    fit_intercept : bool
        Whether w has an intercept of its own.
    """

    def __init__(
        self, core: Any, origin: np.ndarray, step: np.ndarray, fit_intercept: bool
    ) -> None:
        self.core, self.origin, self.step = core, origin, step
        self.n, self.d, self.k = core.n, core.d, core.k
        self.p = core.d + bool(fit_intercept)
        self.compute, self.nbytes, self.loss = core.compute, core.nbytes, core.loss
        self.loss_from_margins = core.loss_from_margins
        self.shifted_loss = core.shifted_loss
        self.curvature_from_margins = core.curvature_from_margins
        self.slope_along, self.residual_size = core.slope_along, core.residual_size
        self.n_threads = core.n_threads

    def _to_copy(self, w: np.ndarray) -> np.ndarray:
        v = np.empty((self.d + 1, *w.shape[1:]))
        head = w[: self.d]
        v[: self.d] = (head.T * self.step).T
        v[self.d] = np.einsum("i,i...->...", self.origin, head)
        if self.p > self.d:
            v[self.d] += w[self.d]
        return v

    def _pull_back(self, g: np.ndarray) -> np.ndarray:
        out = g[: self.p].copy()
        out[: self.d] = (g[: self.d].T * self.step).T
        out[: self.d] += np.multiply.outer(self.origin, g[self.d])
        return out

    def _pull_back_twice(self, G: np.ndarray) -> np.ndarray:
        d = self.d
        out = G[: self.p, : self.p].copy()
        border = self.step * G[d, :d]
        cross = np.outer(self.origin, border + 0.5 * G[d, d] * self.origin)
        out[:d, :d] *= np.outer(self.step, self.step)
        out[:d, :d] += cross + cross.T
        if self.p > d:
            out[d, :d] = out[:d, d] = border + G[d, d] * self.origin
        return out

    def value_and_grad(self, w, grad=None, margins=None, residuals=None):
        """The data term and its gradient by w. One pass over the copy."""
        value, g = self.core.value_and_grad(self._to_copy(w), None, margins, residuals)
        g = self._pull_back(g)
        if grad is None:
            return value, g
        grad[...] = g
        return value, grad

    def margins(self, w, out=None):
        """The margins at w. One pass over the copy."""
        return self.core.margins(self._to_copy(w), out)

    def rmatvec(self, v):
        """(1/S) X̃ᵀ(s∘v). One pass over the copy."""
        return self._pull_back(self.core.rmatvec(v))

    def gram(self, weights=None, rows=None, out=None, factors=None, rounded=False):
        """(1/S) Σ s_i v_i x̃_i x̃_iᵀ over all rows, a pass over the copy, or over `rows`; no `out`."""
        return self._pull_back_twice(self.core.gram(weights, rows, None, factors, rounded))

    def hessian(self, w, out=None, grad=None, margins=None, residuals=None):
        """`value_and_grad` and the Hessian. One pass over the copy; `out` and `grad` are not used."""
        value, g, H = self.core.hessian(self._to_copy(w), None, None, margins, residuals)
        return value, self._pull_back(g), self._pull_back_twice(H)

    def class_hessian(self, w, margins):
        """`value_and_grad` and the Hessian of softmax, (k, p, k, p), as `_core.Problem.class_hessian`."""
        value, g, H = self.core.class_hessian(self._to_copy(w), margins)
        blocks = [[self._pull_back_twice(H[a, :, b]) for b in range(self.k)] for a in range(self.k)]
        return value, self._pull_back(g), np.array(blocks).transpose(0, 2, 1, 3)

    def hessian_vector(self, v, weights):
        """(1/S) X̃ᵀ(s∘weights∘(X̃v)). One pass over the copy."""
        return self._pull_back(self.core.hessian_vector(self._to_copy(v), weights))
