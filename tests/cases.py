"""Data sets for the kernels' tests: every loss's targets, storage and layout, and the check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nagcore import _core, reference

LOSSES = tuple(_core.loss_names())
ISAS = tuple(_core.isa_names())
DTYPES = ("float64", "float32", "bfloat16", "uint8")
THREADS = (1, 2, 3, 4, 8)
CLASSES = 3

# 1, primes, and both sides of every vector and block width that a kernel may have.
LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 257)


def storage_type(name: str) -> np.dtype:
    """The NumPy dtype of a storage; bfloat16 comes from ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def targets(loss: str, n: int, rng: np.random.Generator, k: int = CLASSES) -> np.ndarray:
    """n targets from the loss's domain, float32 numbers all, every class present if n ≥ k."""
    kind = reference.LOSSES[loss].targets
    if kind == "class":
        return rng.permutation(np.arange(n) % k)
    if kind == "binary":
        return rng.choice([-1.0, 1.0], n)
    if kind == "nonnegative":
        return rng.poisson(2.0, n).astype(np.float64)
    return rng.normal(size=n).astype(np.float32).astype(np.float64)


def matrix(dtype: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """An n×d matrix of a storage: normal numbers, or every byte."""
    if dtype == "uint8":
        return rng.integers(0, 256, (n, d), dtype=np.uint8)
    return rng.normal(size=(n, d)).astype(np.float32).astype(storage_type(dtype))


@dataclass
class Case:
    """One data set and loss; ``how`` goes to Problem and to the reference alike."""

    X: Any
    y: np.ndarray
    w: np.ndarray
    how: dict[str, Any] = field(default_factory=dict)

    def problem(self, X=None, **more):
        return _core.Problem(self.X if X is None else X, self.y, **self.how, **more)

    def oracle(self, wide=np.float64):
        return reference.value_and_grad(self.X, self.y, self.w, dtype=wide, **self.how)

    def magnitudes(self, strict=False):
        return reference.magnitudes(self.X, self.y, self.w, strict=strict, **self.how)

    def margins(self, wide=np.float64):
        names = ("offset", "fit_intercept", "scale", "shift")
        return reference.margins(
            self.X, self.w, dtype=wide, **{k: v for k, v in self.how.items() if k in names}
        )

    def residuals(self, wide=np.float64):
        phi, z = reference.LOSSES[self.how["loss"]], self.margins(wide)
        return phi.residual(z, phi.encode(self.y, z.shape[-1]), self.how.get("delta", 1.0))


def make(loss="logistic", n=100, d=10, dtype="float32", *, extras=(), seed=0, k=CLASSES) -> Case:
    """A case; ``extras`` are any of "weights", "offset", "intercept".

    Every number in it is a float32 number, so that arithmetic in float32 starts from what the
    oracle starts from.
    """
    rng = np.random.default_rng([seed, n, d])
    X, y = matrix(dtype, n, d, rng), targets(loss, n, rng, k)
    k = max(k, int(y.max()) + 1) if loss == "softmax" else 1
    if loss == "softmax" and n < k:  # too few rows to show every class: say so with probabilities
        y = np.eye(k)[y]
    how: dict[str, Any] = {"loss": loss}
    if loss == "huber":
        how["delta"] = 0.75
    if dtype == "uint8":
        how.update(scale=1 / 64, shift=-2.0)
    if "weights" in extras:
        how["sample_weight"] = (rng.random(n) + 0.1).astype(np.float32).astype(np.float64)
    if "offset" in extras:
        shape = (n, k) if loss == "softmax" else n
        how["offset"] = (rng.normal(size=shape) / 2).astype(np.float32).astype(np.float64)
    if "intercept" in extras:
        how["fit_intercept"] = True
    p = d + ("intercept" in extras)
    w = rng.normal(size=(p, k) if loss == "softmax" else p) / np.sqrt(d)
    return Case(X, y, w.astype(np.float32).astype(np.float64), how)


# ------------------------------------------------------------------------------------------ layouts
def _misaligned(X, tmp):
    room = np.empty(X.nbytes + 1, np.uint8)
    out = room[1:].view(X.dtype).reshape(X.shape)
    out[...] = X
    return out


def _memmap(X, tmp):
    path = tmp / f"X{X.shape[0]}_{X.shape[1]}_{X.dtype.name}"
    X.view(np.uint8).tofile(path)
    raw = np.memmap(path, dtype=np.uint8, mode="r", shape=(X.shape[0], X.shape[1] * X.itemsize))
    return raw.view(X.dtype)


def _spaced(X, rows, columns, order="C"):
    """X inside a larger array, every rows-th row and columns-th column; negative steps run back."""
    room = np.zeros((X.shape[0] * abs(rows), X.shape[1] * abs(columns)), X.dtype, order=order)
    out = room[::rows, ::columns]
    out[...] = X
    return out


def _read_only(X, tmp):
    out = X.copy()
    out.flags.writeable = False
    return out


DENSE_LAYOUTS = {
    "C": lambda X, tmp: np.ascontiguousarray(X),
    "F": lambda X, tmp: np.asfortranarray(X),
    "C wide": lambda X, tmp: np.pad(X, ((0, 0), (2, 3)))[:, 2 : 2 + X.shape[1]],
    "F tall": lambda X, tmp: np.asfortranarray(np.pad(X, ((2, 3), (0, 0))))[2 : 2 + len(X)],
    "row-strided": lambda X, tmp: _spaced(X, 3, 1),
    "column-strided": lambda X, tmp: _spaced(X, 1, 3),
    "both-strided": lambda X, tmp: _spaced(X, 2, 2),
    "F strided": lambda X, tmp: _spaced(X, 2, 1, "F"),
    "rows reversed": lambda X, tmp: _spaced(X, -1, 1),
    "columns reversed": lambda X, tmp: _spaced(X, 1, -1),
    "both reversed": lambda X, tmp: _spaced(X, -2, -3),
    "F reversed": lambda X, tmp: _spaced(X, -1, -1, "F"),
    "misaligned": _misaligned,
    "F misaligned": lambda X, tmp: _misaligned(np.ascontiguousarray(X.T), tmp).T,
    "memmap": _memmap,
    "read-only": _read_only,
}


def lay_out(X: np.ndarray, layout: str, tmp=None) -> np.ndarray:
    """A view with X's numbers in another layout."""
    out = DENSE_LAYOUTS[layout](X, tmp)
    assert out.shape == X.shape
    assert out.dtype == X.dtype
    return out


def csr(X, index="int32", dtype=None):
    """X as scipy CSR with the given index type, sorted and free of duplicates."""
    import scipy.sparse

    out = scipy.sparse.csr_matrix(np.asarray(X, dtype))
    out.sort_indices()
    out.indices, out.indptr = out.indices.astype(index), out.indptr.astype(index)
    return out


def thinned(X, keep=0.3, seed=0):
    """X with most numbers set to zero, some rows and columns entirely."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random(X.shape) < keep, X, 0)
    X[:: max(2, len(X) // 3)] = 0
    X[:, :: max(2, X.shape[1] // 2)] = 0
    return X.astype(X.dtype)


# ------------------------------------------------------------------------------------- the check
def check(close, case: Case, *, X=None, compute=None, note="", strict=False, **more):
    """Problem's four outputs against the oracle, by the table; returns the gradient's worst ratio.

    ``X`` is the same numbers in another layout. ``more`` (isa, n_threads) goes to Problem alone.
    """
    problem = case.problem(X, compute=compute, **more)
    arithmetic = compute or ("float64" if case.X.dtype == np.float64 else "float32")
    assert problem.compute == arithmetic
    wide = np.longdouble if arithmetic == "float64" else np.float64
    z = np.full(case.margins().shape, np.nan, arithmetic)
    r = z.copy()
    value, g = problem.value_and_grad(case.w, margins=z, residuals=r)
    want, gradient = case.oracle(wide)
    size = case.magnitudes(strict)
    note = f"{note} {case.how['loss']} {case.X.dtype} {case.X.shape} {more}"
    assert isinstance(value, float)
    assert g.dtype == np.float64
    close(value, want, "value", arithmetic, size.value, note)
    close(z, case.margins(wide), "margins", arithmetic, size.margins, note)
    close(r, case.residuals(wide), "residual", arithmetic, size.residuals, note)
    return close(g, gradient, "gradient", arithmetic, size.gradient, note)
