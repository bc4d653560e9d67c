"""Gram matrices, Hessians and Cholesky factors beside BLAS and LAPACK, in GFLOP/s and as ratios of one run.

    python bench/second_order.py [--threads 2] [--quick]

Operations are counted for one triangle: n·d·(d + 1) for a Gram matrix, d³/3 for a Cholesky factor. Each
figure is the best of several repetitions, and every result is compared with BLAS's before it is timed. Needs
scipy and threadpoolctl.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import scipy.sparse
from scipy.linalg import blas, lapack
from threadpoolctl import threadpool_limits

from nagcore import _core


def best(work, prepare=lambda: None, seconds=0.25):
    """The shortest of the repetitions that fit into some time, at least three."""
    shortest, end, count = np.inf, time.perf_counter() + seconds, 0
    while count < 3 or time.perf_counter() < end:
        given = prepare()
        start = time.perf_counter()
        work(given)
        shortest = min(shortest, time.perf_counter() - start)
        count += 1
    return shortest


def agree(got, want, dtype, what):
    error = np.abs(np.tril(got - want)).max() / np.abs(want).max()
    assert error < 100 * np.finfo(dtype).eps, f"{what} is off by {error:.2g}"


def gram(dtype, d, threads):
    rng = np.random.default_rng(0)
    n = int(np.clip(2e9 / d**2, 4 * d if d < 1000 else 2 * d, 500_000))
    X, y, v = rng.normal(size=(n, d)).astype(dtype), rng.choice([-1.0, 1.0], n), rng.random(n)
    w, H = np.zeros(d), np.empty((d, d))
    problem = _core.Problem(X, y, n_threads=threads)
    columns = _core.Problem(np.asfortranarray(X), y, n_threads=threads)
    syrk = blas.ssyrk if dtype == "float32" else blas.dsyrk
    agree(problem.gram(), syrk(1.0 / n, X.T, lower=1), dtype, "gram")
    rival = best(lambda _: syrk(1.0, X.T, lower=1))
    time.sleep(0.3)  # BLAS's threads spin a while after their work
    ours = {
        "gram": best(lambda _: problem.gram(out=H)),
        "weighted": best(lambda _: problem.gram(v, out=H)),
        "F order": best(lambda _: columns.gram(v, out=H)),
        "Hessian": best(lambda _: problem.hessian(w, out=H)),
        "1 pass": best(lambda _: problem.value_and_grad(w)),
    }
    work = n * d * (d + 1) / 1e9
    cells = [f"{work / t:.0f} ({rival / t:.2f})" for t in list(ours.values())[:4]]
    passes = ours["Hessian"] / ours["1 pass"]
    print(f"| {dtype} | {n:,} | {d} | {work / rival:.0f} | {' | '.join(cells)} | {passes:.1f} |", flush=True)


def rounded(dtype, n, d, threads):
    """What metrics are made of: rows rounded to bfloat16, on matrix tiles where there are any."""
    rng = np.random.default_rng(0)
    X, y, v = rng.normal(size=(n, d)).astype(dtype), rng.choice([-1.0, 1.0], n), rng.random(n)
    H, problem = np.empty((d, d)), _core.Problem(X, y, n_threads=threads)
    G, root = problem.gram(v), np.sqrt(problem.gram(v).diagonal())
    error = np.abs((problem.gram(v, rounded=True) - G) / np.outer(root, root)).max()
    full = best(lambda _: problem.gram(v, out=H))
    ours = best(lambda _: problem.gram(v, out=H, rounded=True))
    cells = f"{1e3 * full:.2f} | {1e3 * ours:.2f} | {full / ours:.1f} | {error:.0e}"
    print(f"| {dtype} | {n:,} | {d} | {cells} |", flush=True)


def csr(dtype, n, d, entries, threads):
    rng = np.random.default_rng(0)
    X = scipy.sparse.random(n, d, entries / d, "csr", dtype, random_state=rng)
    X.sort_indices()
    problem = _core.Problem(X, np.ones(n), n_threads=threads)
    transposed = X.T.tocsr()
    agree(problem.gram(), (transposed @ X).toarray() / n, dtype, "gram of CSR")
    ours, rival = best(lambda _: problem.gram()), best(lambda _: transposed @ X)
    print(f"| {dtype} | {n:,} | {d} | {entries} | {1e3 * ours:.2f} | {rival / ours:.1f} |", flush=True)


def cholesky(d, threads):
    A = np.random.default_rng(0).normal(size=(d, d)).astype(np.float32)
    A = (A @ A.T / d).astype(np.float64) + np.eye(d)
    L = A.copy()
    assert _core.cholesky_(L, n_threads=threads) == -1
    agree(L, lapack.dpotrf(A, lower=1)[0], "float64", "cholesky_")
    rival = best(lambda M: lapack.dpotrf(M, lower=1, overwrite_a=1, clean=0), lambda: A.copy(order="F"))
    time.sleep(0.3)
    ours = best(lambda M: _core.cholesky_(M, n_threads=threads), A.copy)
    print(f"| {d} | {1e3 * ours:.3f} | {d**3 / 3e9 / ours:.1f} | {rival / ours:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=_core.default_threads())
    parser.add_argument("--quick", action="store_true", help="small sizes alone")
    options = parser.parse_args()
    with threadpool_limits(options.threads, "blas"):
        print(f"{options.threads} threads, {_core.active_isa()}; GFLOP/s (÷ syrk)\n")
        print(
            "| X | n | d | syrk | gram | weighted | weighted, F order | Hessian | Hessian ÷ value_and_grad |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for dtype in ("float32", "float64"):
            for d in (20, 50, 100, 200, 500) if options.quick else (20, 50, 100, 200, 500, 1000, 2000):
                gram(dtype, d, options.threads)
        print("\n| X | n | d | weighted, ms | rounded, ms | ratio | error |\n|---|---|---|---|---|---|---|")
        for dtype in ("float32", "float64"):
            for n, d in ((32_561, 124), (12_000, 301), (49_749, 301), (15_700, 785), (60_000, 785)):
                rounded(dtype, n, d, options.threads)
        print("\n| CSR | n | d | entries a row | ms | ÷ scipy |\n|---|---|---|---|---|---|")
        for n, d, entries in ((32_561, 123, 14), (49_749, 300, 12), (20_000, 2000, 20), (20_000, 200, 60)):
            csr("float32", n, d, entries, options.threads)
        print("\n| d | ms | GFLOP/s | ÷ dpotrf |\n|---|---|---|---|")
        for d in (50, 100, 200, 500, 1000) if options.quick else (50, 100, 200, 500, 1000, 2000, 4000):
            cholesky(d, options.threads)


if __name__ == "__main__":
    main()
