"""Dense X: one pass of nagcore against the read bandwidth and against NumPy's two passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import _core
from .measure import Effort, blas_threads, bytes_of, check_agreement, race

# What a run is to reach, from the table in docs/performance.md: ÷ read bandwidth and ÷ NumPy at d.
_REACH_ROOF = {50: 0.75, 100: 0.85}
_REACH_NARROW = {"bfloat16": 1.7, "uint8": 2.0}
# |error| ≤ k·eps·Σ_i(|r_i x_ij| + φ''_i |x_ij| Σ_k |x_ik w_k|), the promise of docs/numerics.md.
_ERROR_BOUND = 8.0


def _reach_numpy(d: int) -> float:
    return 5.0 if d <= 50 else 2.0 if d <= 1000 else 1.8


def make_dense(n: int, d: int, dtype: str, seed: int = 0) -> np.ndarray:
    """n×d values of variance one (uint8: 0..255); bfloat16 as its bits in uint16.

    One random block of a few MB is repeated: drawing 400 MB would take longer than measuring them.
    """
    rng = np.random.default_rng(seed)
    block: Any
    rows = min(n, max(1, (1 << 22) // d) | 1)
    if dtype == "uint8":
        block = rng.integers(0, 256, size=(rows, d), dtype=np.uint8)
    else:
        block = rng.standard_normal((rows, d), dtype=np.float32)
        if dtype == "bfloat16":
            block = (block.view(np.uint32) >> 16).astype(np.uint16)
        elif dtype == "float64":
            block = block.astype(np.float64)
    X = np.empty((n, d), dtype=block.dtype)
    for start in range(0, n, rows):
        X[start : start + rows] = block[: n - start]
    return X


def storage(dtype: str) -> dict[str, Any]:
    """How `_core.Problem` is to read such an X."""
    if dtype == "bfloat16":
        return {"dtype": "bfloat16"}
    return {"scale": 1 / 64, "shift": -2.0} if dtype == "uint8" else {}


def _decoded(block: Any, dtype: str) -> Any:
    if dtype == "bfloat16":
        return (block.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    wide = block.astype(np.float64)
    return wide / 64 - 2.0 if dtype == "uint8" else wide


def make_targets(n: int, loss: str, dtype: Any, seed: int = 1) -> np.ndarray:
    """±1 for logistic, normal for squared."""
    normal = np.random.default_rng(seed).standard_normal(n)
    return (np.where(normal > 0, 1.0, -1.0) if loss == "logistic" else normal).astype(dtype)


def numpy_two_pass(loss: str, X: Any, XT: Any, y: np.ndarray, w: np.ndarray) -> tuple[Any, Any]:
    """Value and gradient as one writes them with NumPy or scipy: X @ w, the loss, X.T @ r."""
    z = X @ w
    if loss == "squared":
        r = z - y
        value = 0.5 * np.mean(r * r)
    else:
        u = np.exp(-np.abs(z))
        value = np.mean(np.maximum(-y * z, 0) + np.log1p(u))
        s = 1 / (1 + u)
        r = -y * np.where(y * z > 0, u * s, s)  # −yσ(−yz)
    return value, (XT @ r) / len(y)


def relative_error(
    loss: str, X: Any, dtype: str, y: np.ndarray, w: np.ndarray, value: float, g: np.ndarray
) -> float:
    """The largest error of value and gradient against float64, in units of eps·magnitude.

    X is dense or CSR; a gradient entry whose column is all zeros has to be zero.
    """
    n, d = X.shape
    # Short blocks: scipy and NumPy add a block up one by one, and this is to be the exact side.
    step = 2048 if hasattr(X, "tocsr") else max(1, (1 << 21) // d)
    total, size_of_total = 0.0, 0.0
    true, size = np.zeros(d), np.zeros(d)
    for start in range(0, n, step):
        B, t = _decoded(X[start : start + step], dtype), y[start : start + step].astype(np.float64)
        A, z = np.abs(B), B @ w
        if loss == "squared":
            r, phi, curvature = z - t, 0.5 * (z - t) ** 2, np.ones(len(z))
        else:
            p = 1 / (1 + np.exp(t * z))
            r, phi, curvature = -t * p, np.logaddexp(0, -t * z), p * (1 - p)
        m = A @ np.abs(w)
        total += phi.sum()
        size_of_total += (phi + np.abs(r) * m).sum()
        true += B.T @ r
        size += A.T @ (np.abs(r) + curvature * m)
    eps = np.finfo(np.float64 if dtype == "float64" else np.float32).eps
    of_value = abs(value - total / n) / (eps * size_of_total / n)
    apart, filled = np.abs(g - true / n), size > 0
    if apart[~filled].any():
        return float("inf")
    return float(max(of_value, np.max(apart[filled] / (eps * size[filled] / n), initial=0.0)))


def run_dense(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """logistic and squared, float32 and float64, at every d: yields one row for each."""
    for dtype in ("float32", "float64"):
        for d in effort.dims:
            n = -(-effort.bytes // (d * np.dtype(dtype).itemsize))
            X = make_dense(n, d, dtype)
            for loss in ("logistic", "squared"):
                yield _dense_row(loss, X, dtype, effort, n_threads)


def run_columns(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """logistic on X in F order, as data frames hold it: float32 and float64, at d ≤ 10 000."""
    for dtype in ("float32", "float64"):
        for d in (d for d in effort.dims if d <= 10_000):
            n = -(-effort.bytes // (d * np.dtype(dtype).itemsize))
            X = np.asfortranarray(make_dense(n, d, dtype))
            row = _dense_row("logistic", X, dtype, effort, n_threads)
            asked = {"reach_roof": None, "reach_peer": None}
            yield {**row, "section": "columns", "layout": "F", **asked}


def _dense_row(
    loss: str, X: np.ndarray, dtype: str, effort: Effort, n_threads: int
) -> dict[str, Any]:
    n, d = X.shape
    memory = bytes_of(X if X.flags.c_contiguous else X.T)
    y, w = make_targets(n, loss, X.dtype), _coefficients(d)
    problem = _core.Problem(X, y, loss=loss, n_threads=n_threads)
    grad, narrow = np.empty(d), w.astype(X.dtype)
    value, _ = problem.value_and_grad(w, grad)
    error = check_agreement(
        f"{loss} {dtype} {n}×{d}", relative_error(loss, X, dtype, y, w, value, grad), _ERROR_BOUND
    )
    _check_numpy(loss, X, y, w, value, grad)
    with blas_threads(n_threads):
        times = race(
            {
                "read": lambda: _core.stream_read(memory, n_threads),
                "nagcore": lambda: problem.value_and_grad(w, grad),
                "numpy": lambda: numpy_two_pass(loss, X, X.T, y, narrow),
            },
            effort,
        )
    return {
        "section": "dense", "kernel": loss, "dtype": dtype, "layout": "C", "n": n, "d": d, "k": 1,
        "seconds": times["nagcore"], "bytes": X.nbytes, "gbps": X.nbytes / times["nagcore"] / 1e9,
        "roof": "read", "roof_gbps": X.nbytes / times["read"] / 1e9,
        "ratio_roof": times.ratio("read", "nagcore"), "reach_roof": _REACH_ROOF.get(d, 0.90),
        "peer": "NumPy", "peer_seconds": times["numpy"],
        "peer_gbps": X.nbytes / times["numpy"] / 1e9,
        "ratio_peer": times.ratio("numpy", "nagcore"), "reach_peer": _reach_numpy(d),
        "error": error,
    }  # fmt: skip


def _coefficients(d: int) -> np.ndarray:
    """Of a size that gives margins of about one."""
    return np.random.default_rng(2).standard_normal(d) / np.sqrt(d)


def _check_numpy(
    loss: str, X: np.ndarray, y: np.ndarray, w: np.ndarray, value: float, grad: np.ndarray
) -> None:
    """The rival computes the same thing: equal as far as its own sums, in X's dtype, allow."""
    rival_value, rival = numpy_two_pass(loss, X, X.T, y, w.astype(X.dtype))
    eps = float(np.finfo(X.dtype).eps)
    # A rival's error may grow with √n: 1e3·eps of the gradient's terms, which are of size ≤ 1 here.
    apart = max(abs(value - float(rival_value)), float(np.max(np.abs(grad - rival))))
    check_agreement(f"{loss} {X.dtype} against NumPy", apart, 2e3 * eps)


def run_narrow(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """bfloat16 and uint8 X: rows a second against those of float32 X, at every d."""
    for d in effort.dims:
        # The narrowest X is to be of the full size, and rows/s does not depend on how many.
        rows = {t: -(-effort.bytes // (d * size)) for t, size in _SIZES.items()}
        X = {dtype: make_dense(n, d, dtype) for dtype, n in rows.items()}
        w = _coefficients(d)
        for loss in ("logistic", "squared"):
            yield from _narrow_rows(loss, X, w, effort, n_threads)


_SIZES = {"float32": 4, "bfloat16": 2, "uint8": 1}


def _narrow_rows(
    loss: str, X: dict[str, np.ndarray], w: np.ndarray, effort: Effort, n_threads: int
) -> Iterator[dict[str, Any]]:
    d = len(w)
    calls: dict[str, Callable[[], Any]] = {}
    errors = {}
    for dtype, A in X.items():
        y = make_targets(len(A), loss, np.float32)
        problem = _core.Problem(A, y, loss=loss, n_threads=n_threads, **storage(dtype))
        value, grad = problem.value_and_grad(w)
        errors[dtype] = check_agreement(
            f"{loss} {dtype} {len(A)}×{d}", relative_error(loss, A, dtype, y, w, value, grad),
            _ERROR_BOUND,
        )  # fmt: skip
        calls[dtype] = _caller(problem, w, grad)
    wide = bytes_of(X["float32"])
    times = race({"read": lambda: _core.stream_read(wide, n_threads), **calls}, effort)
    roof = wide.nbytes / times["read"] / 1e9
    for dtype in ("bfloat16", "uint8"):
        A = X[dtype]
        gbps, rows = A.nbytes / times[dtype] / 1e9, len(A) / len(X["float32"])
        yield {
            "section": "narrow", "kernel": loss, "dtype": dtype, "layout": "C", "n": len(A), "d": d,
            "k": 1, "seconds": times[dtype], "bytes": A.nbytes, "gbps": gbps,
            "roof": "read", "roof_gbps": roof,
            "ratio_roof": times.ratio("read", dtype) * A.nbytes / wide.nbytes, "reach_roof": None,
            "peer": "rows/s of float32", "peer_seconds": times["float32"] * rows,
            "peer_gbps": X["float32"].nbytes / times["float32"] / 1e9,
            "ratio_peer": times.ratio("float32", dtype) * rows,
            "reach_peer": _REACH_NARROW[dtype] if d >= 1000 else 1.0,
            "error": errors[dtype],
        }  # fmt: skip


def _caller(problem: Any, w: np.ndarray, grad: np.ndarray) -> Callable[[], Any]:
    return lambda: problem.value_and_grad(w, grad)
