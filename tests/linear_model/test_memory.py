"""The memory of a fit beyond X: 32 MB, four vectors over the rows, three d × d matrices and the sample.

And no estimator copies a dense X.

Each fit of the first test runs in a process of its own: the peak of the resident set during the fit,
less the resident set before it, X and y there and a small fit done, so that all code is loaded. The
C library is told to hand freed blocks of a megabyte back at once; left alone it keeps up to 32 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("sklearn")
from nagcore import linear_model

measured = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc/self/clear_refs"
)

# Libraries are loaded once; each line is a fit, in a process forked before any thread was started.
_SCRIPT = """
    import ctypes, json, os, sys, traceback, warnings
    import numpy as np, scipy.sparse as sp
    from nagcore import linear_model

    warnings.simplefilter("ignore")
    ESTIMATORS = {
        "plbfgs": lambda: linear_model.LogisticRegression(solver="plbfgs", tol=1e-6),
        "newton": lambda: linear_model.LogisticRegression(solver="newton"),
        "l1": lambda: linear_model.LogisticRegression(C=0.01, l1_ratio=1.0, solver="saga"),
        "ridge": linear_model.Ridge,
        "lasso": lambda: linear_model.Lasso(alpha=0.01),
        "few": lambda: linear_model.Lasso(alpha=0.0035, tol=1e-8),  # most columns are proven zero
        "softmax": linear_model.LogisticRegression,
    }

    def data(what, layout, n, d):
        rng = np.random.default_rng(0)
        if layout == "csr":  # twenty entries a row
            X = sp.csr_matrix((rng.random(20 * n), np.tile(np.arange(20, dtype=np.int32), n),
                               np.arange(0, 20 * n + 1, 20, dtype=np.int32)), shape=(n, d))
            for i in range(0, n, 1 << 14):
                part = X.indices[20 * i : 20 * (i + (1 << 14))].reshape(-1, 20)
                part *= d // 20
                part += rng.integers(0, d // 20, part.shape, dtype=np.int32)
        else:
            X = np.empty((n, d), order=layout)
            for i in range(0, n, 1 << 14):
                X[i : i + (1 << 14)] = rng.standard_normal((len(X[i : i + (1 << 14)]), d))
        z = X @ rng.standard_normal(d) / 4 + rng.standard_normal(n)
        if what in ("ridge", "lasso", "few"):
            return X, z
        if what == "softmax":
            return X, np.digitize(z, np.quantile(z, [0.2, 0.4, 0.6, 0.8]))
        return X, (z > np.median(z)).astype(int)

    def resident(key):
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    def peak_of(what, layout, n, d):
        make = ESTIMATORS[what]
        make().fit(*data(what, layout, 2000, 40))
        X, y = data(what, layout, n, d)
        kept = X.data if layout == "csr" else X
        before = kept[:1000].copy(), kept[-1000:].copy()
        ctypes.CDLL(None).malloc_trim(0)  # what made the data is not there to be used again
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # the peak starts anew
        at_start = resident("VmRSS")
        make().fit(X, y)
        peak = resident("VmHWM") - at_start
        assert (kept[:1000] == before[0]).all() and (kept[-1000:] == before[1]).all()
        return peak

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                print(json.dumps(peak_of(*json.loads(line))), flush=True)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            print("null", flush=True)
"""


@pytest.fixture(scope="module")
def peak_of():
    """A function from a case to the bytes of its fit beyond X."""
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SCRIPT)],
        env=os.environ | path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as server:  # fmt: skip

        def ask(*case):
            server.stdin.write(json.dumps(case) + "\n")
            answer = server.stdout.readline()
            assert answer, "the process that fits has ended; its last words are in the captured stderr"
            peak = json.loads(answer)
            assert peak is not None, "the fit failed; why is in the captured stderr"
            return peak

        yield ask
        server.stdin.close()


CASES = [
    *((what, layout, 200_000, 100) for what in ("plbfgs", "newton", "ridge", "lasso", "softmax")
      for layout in "CF"),
    *((what, "csr", 700_000, 200) for what in ("plbfgs", "newton", "ridge", "lasso")),
    *((what, "csr", 700_000, 1000) for what in ("plbfgs", "ridge", "lasso", "few")),
    ("ridge", "csr", 700_000, 500),
    *((what, "C", 1_000_000, 25) for what in ("plbfgs", "newton", "l1")),
    ("l1", "csr", 700_000, 200),
    ("softmax", "csr", 800_000, 200),
    *((what, "C", 25_000, 1000) for what in ("plbfgs", "softmax")),
]  # fmt: skip


@measured
@pytest.mark.parametrize(("what", "layout", "n", "d"), CASES)
def test_a_fit_beyond_x_stays_within_its_bound(peak_of, what, layout, n, d):
    """X takes 160 to 200 MB. For softmax a vector over the rows has a number for each of five classes."""
    vectors = 4 * 8 * n * (5 if what == "softmax" else 1)
    sample = 0
    if what in ("plbfgs", "softmax"):  # rows.py: what half of 16 passes pay for, within 5p and 100p
        p = d + 1
        rows = min(n, max(5 * p, min(100 * p, 8 * 11 * n // p)))
        sample = rows * (20 * 12 if layout == "csr" else 8 * d)
    bound = 32e6 + vectors + 3 * 8 * d * d + sample
    peak = peak_of(what, layout, n, d)
    print(f"{what} {layout} {n} × {d}: {peak / 1e6:.0f} MB of {bound / 1e6:.0f}")
    assert peak <= bound
    assert layout == "csr" or bound < 0.6 * 8 * n * d  # a copy of X would be out of bounds


ESTIMATORS = {
    "LogisticRegression": linear_model.LogisticRegression(),
    "LogisticRegression plbfgs": linear_model.LogisticRegression(solver="plbfgs"),
    "LogisticRegression l1": linear_model.LogisticRegression(l1_ratio=1.0, C=0.01, solver="saga"),
    "LogisticRegression fista": linear_model.LogisticRegression(l1_ratio=1.0, C=0.01, solver="fista"),
    "LogisticRegressionCV": linear_model.LogisticRegressionCV(
        Cs=[0.01, 1.0], l1_ratios=(0.0,), cv=3, scoring="neg_log_loss", use_legacy_attributes=False),
    "Ridge": linear_model.Ridge(),
    "Ridge positive": linear_model.Ridge(positive=True),
    "RidgeCV": linear_model.RidgeCV(),
    "RidgeCV folds": linear_model.RidgeCV(cv=5),
    "RidgeClassifier": linear_model.RidgeClassifier(),
    "LinearRegression": linear_model.LinearRegression(),
    "LinearRegression positive": linear_model.LinearRegression(positive=True),
    "Lasso": linear_model.Lasso(alpha=0.01),
    "LassoCV": linear_model.LassoCV(alphas=5),
    "ElasticNet": linear_model.ElasticNet(alpha=0.01),
    "ElasticNetCV": linear_model.ElasticNetCV(alphas=5, l1_ratio=[0.5, 0.9]),
    "PoissonRegressor": linear_model.PoissonRegressor(),
}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.integers(-2, 3, (40_000, 80))
    return X, (X[:, 0] + rng.normal(size=len(X)) > 0).astype(int)


def test_every_estimator_is_asked_whether_it_copies_x():
    assert {name.split()[0] for name in ESTIMATORS} == set(linear_model.__all__)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_estimator_copies_x(name, order, dtype, table):
    """X takes 13 or 26 MB, a vector over the rows 0.3, a block of rows in float64 one."""
    X, y = np.array(table[0], dtype, order=order), table[1]
    estimator = ESTIMATORS[name]
    estimator.fit(X[:500], y[:500])  # what is imported or compiled once is not counted
    tracemalloc.start()
    try:
        estimator.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * X.nbytes
    np.testing.assert_array_equal(X, table[0])  # nor written
