"""Softmax against NumPy's two matrix products, CSR against scipy's; accuracy, threads, import."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from .._extras import child_environment, require
from .dense import make_dense, make_targets, numpy_two_pass, relative_error
from .measure import Effort, Times, blas_threads, bytes_of, check_agreement, race


def numpy_softmax(X: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[Any, np.ndarray]:
    """Mean cross-entropy and gradient with two matrix products, y as class numbers."""
    z = X @ w
    z -= z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    value = np.mean(np.log(total[:, 0]) - z[rows, y])
    r = e / total
    r[rows, y] -= 1
    return value, X.T @ r / len(y)


def run_softmax(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """k = 10, d = 784, float32: the shape of MNIST."""
    d, k, dtype = 784, 10, "float32"
    n = -(-effort.bytes // (4 * d))
    X, y = make_dense(n, d, dtype), np.random.default_rng(1).integers(0, k, n)
    w = np.random.default_rng(2).standard_normal((d, k)) / np.sqrt(d)
    problem = _core.Problem(X, y, loss="softmax", n_threads=n_threads)
    value, grad = problem.value_and_grad(w)
    rival_value, rival = numpy_softmax(X, y, w.astype(X.dtype))
    apart = max(abs(value - float(rival_value)), float(np.abs(grad - rival).max()))
    eps = float(np.finfo(np.float32).eps)
    check_agreement(f"softmax {n}×{d}×{k}", apart / eps, 2e3)
    narrow = w.astype(X.dtype)
    with blas_threads(n_threads):
        times = race(
            {
                "read": lambda: _core.stream_read(bytes_of(X), n_threads),
                "nagcore": lambda: problem.value_and_grad(w, grad),
                "numpy": lambda: numpy_softmax(X, y, narrow),
            },
            effort,
        )
    yield _row(
        "softmax", "softmax", dtype, "C", X.shape, k, X.nbytes, times, "NumPy", 3.0, apart / eps
    )


def _row(
    section: str, kernel: str, dtype: str, layout: str, shape: tuple[int, ...], k: int,
    n_bytes: int, times: Times, peer: str, reach: float | None, error: float,
) -> dict[str, Any]:  # fmt: skip
    rival = times["numpy"]
    return {
        "section": section, "kernel": kernel, "dtype": dtype, "layout": layout, "n": shape[0],
        "d": shape[1], "k": k, "seconds": times["nagcore"], "bytes": n_bytes,
        "gbps": n_bytes / times["nagcore"] / 1e9, "roof": "read",
        "roof_gbps": n_bytes / times["read"] / 1e9, "ratio_roof": times.ratio("read", "nagcore"),
        "reach_roof": None, "peer": peer, "peer_seconds": rival, "peer_gbps": n_bytes / rival / 1e9,
        "ratio_peer": times.ratio("numpy", "nagcore"), "reach_peer": reach, "error": error,
    }  # fmt: skip


# ---- sparse


def make_sparse(n: int, d: int, per_row: int, *, zipf: bool, seed: int = 0) -> Any:
    """n×d CSR with about ``per_row`` entries a row: columns by Zipf's law, as words are, or evenly.

    Indices are sorted and unique in each row, int32; data are positive with rows of norm one for
    words, and ones for indicator features.
    """
    sparse = require("scipy.sparse", "bench", "the sparse benchmark")
    rng = np.random.default_rng(seed)
    counts = np.full(n, per_row)
    if zipf:  # lengths of texts: mean per_row, a few very long ones
        counts = np.clip(rng.lognormal(np.log(per_row) - 0.32, 0.8, n), 1, d).astype(np.int64)
    rows = np.repeat(np.arange(n), counts)
    if zipf:
        # The inverse of the distribution function of P(c) ∝ 1/(c + 20): common words, a long tail.
        u = rng.random(len(rows))
        columns = np.minimum(20 * ((1 + d / 20) ** u - 1), d - 1).astype(np.int64)
        columns = rng.permutation(d)[columns]  # a word's number says nothing of how common it is
    else:
        columns = rng.integers(0, d, len(rows))
    keys = np.unique(rows * d + columns)  # sorts, and drops what was drawn twice
    rows, columns = keys // d, keys % d
    indptr = np.zeros(n + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    data = rng.random(len(keys)) + 0.1 if zipf else np.ones(len(keys))
    if zipf:
        data /= np.sqrt(np.bincount(rows, data**2, minlength=n))[rows]
    return sparse.csr_matrix((data, columns.astype(np.int32), indptr), shape=(n, d))


def load_real(folder: str | Path, name: str) -> dict[str, Any]:
    """``load(name)`` of the ``load.py`` in ``folder``: a dict with X_train and y_train.

    Raises FileNotFoundError when the folder has no load.py.
    """
    path = Path(folder) / "load.py"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no load.py. --data (or NAGCORE_DATA) names a folder whose load.py "
            "defines load(name) → dict(X_train=…, y_train=…)."
        )
    spec: Any = importlib.util.spec_from_file_location("nagcore_bench_load", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(name)


_SPARSE = {"20news": (11314, 130107, 157, True), "a9a": (32561, 123, 14, False)}


def run_sparse(effort: Effort, n_threads: int, data: str | None) -> Iterator[dict[str, Any]]:
    """logistic on the shapes of 20news and a9a, or on the data themselves from ``--data``."""
    for name, (n, d, per_row, zipf) in _SPARSE.items():
        if data is None:
            wide = make_sparse(round(n * effort.sparse_rows), d, per_row, zipf=zipf)
        else:
            wide = load_real(data, name)["X_train"].tocsr()
            wide.sort_indices()
        for dtype in ("float64", "float32"):
            label = name if data is not None else f"{name}-like"
            yield _sparse_row(label, wide.astype(dtype), dtype, effort, n_threads)


def _sparse_row(name: str, X: Any, dtype: str, effort: Effort, n_threads: int) -> dict[str, Any]:
    n, d = X.shape
    y, w = make_targets(n, "logistic", dtype), np.random.default_rng(2).standard_normal(d)
    problem = _core.Problem(X, y, loss="logistic", n_threads=n_threads)
    value, grad = problem.value_and_grad(w)
    error = relative_error("logistic", X, dtype, y, w, value, grad)
    check_agreement(f"logistic CSR {name} {dtype}", error, 8.0)
    rival_value, rival = numpy_two_pass("logistic", X, X.T, y, w.astype(dtype))
    rivals = relative_error("logistic", X, dtype, y, w, float(rival_value), np.asarray(rival))
    check_agreement(f"scipy on {name} {dtype}", rivals, 2e3)
    narrow, transposed = w.astype(dtype), X.T
    # Written, so that it has pages of its own: those of np.zeros are all one page of zeros.
    probe = np.ones(problem.nbytes, dtype=np.uint8)
    times = race(
        {
            "read": lambda: _core.stream_read(probe, n_threads),
            "nagcore": lambda: problem.value_and_grad(w, grad),
            "numpy": lambda: numpy_two_pass("logistic", X, transposed, y, narrow),
        },
        effort,
    )
    kernel = f"logistic {name}"
    return _row(
        "sparse", kernel, dtype, "CSR", X.shape, 1, problem.nbytes, times, "scipy", 2.0, error
    )


# ---- what is not a time


def run_accuracy(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """Error of the float32 logistic gradient against float64, in eps·magnitude, as n grows."""
    d, n = 10, 10_000
    while n <= effort.largest_n:
        X = make_dense(n, d, "float32")
        y, w = make_targets(n, "logistic", np.float32), np.full(d, 0.3)
        problem = _core.Problem(X, y, loss="logistic", n_threads=n_threads)
        start = time.perf_counter()
        value, grad = problem.value_and_grad(w)
        seconds = time.perf_counter() - start
        error = relative_error("logistic", X, "float32", y, w, value, grad)
        yield {
            **_bare("accuracy", "logistic", "float32", n, d), "seconds": seconds,
            "error": check_agreement(f"logistic float32 n={n}", error, 8.0), "reach_error": 8.0,
        }  # fmt: skip
        n *= 10


def run_threads(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """The same bits on 1, 2, 3, 4 and 8 threads."""
    d = 100
    n = -(-effort.bytes // (8 * d * 4))
    X = make_dense(n, d, "float32")
    y, w = make_targets(n, "logistic", np.float32), np.full(d, 0.1)
    results = set()
    for threads in (1, 2, 3, 4, 8):
        value, grad = _core.Problem(X, y, loss="logistic", n_threads=threads).value_and_grad(w)
        results.add((value, grad.tobytes()))
    check_agreement("bits on 1, 2, 3, 4, 8 threads: different results", len(results) - 1, 0)
    yield {**_bare("threads", "logistic", "float32", n, d), "error": 0.0, "reach_error": 0.0}


def run_import(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """Seconds that ``import nagcore`` takes beyond ``import numpy``, in new processes, in turn."""

    def start(statement: str) -> Callable[[], float]:
        clock = "time.perf_counter()"
        code = f"import time, numpy; t = {clock}; {statement}; print({clock} - t)"
        command, environment = [sys.executable, "-c", code], child_environment()
        return lambda: float(subprocess.check_output(command, env=environment))

    beyond = start("import nagcore")
    seconds = statistics.median(beyond() for _ in range(max(3, effort.rounds)))
    yield {
        **_bare("import", "import nagcore", "", 0, 0), "seconds": seconds, "reach_seconds": 0.030,
    }  # fmt: skip


def _bare(section: str, kernel: str, dtype: str, n: int, d: int) -> dict[str, Any]:
    keys = ("seconds", "gbps", "roof", "roof_gbps", "ratio_roof", "reach_roof", "peer")
    more = ("peer_seconds", "peer_gbps", "ratio_peer", "reach_peer", "error", "bytes")
    return {
        "section": section, "kernel": kernel, "dtype": dtype, "layout": "C", "n": n, "d": d, "k": 1,
        **dict.fromkeys(keys + more),
    }  # fmt: skip
