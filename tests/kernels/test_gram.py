"""gram: X' diag(s v) X over storage × layout × instruction set × threads × awkward sizes, and its bits."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from cases import DENSE_LAYOUTS, DTYPES, ISAS, THREADS, csr, lay_out, make, thinned
from kernels.second_order import arithmetic, design, gram, weights_of
from nagcore import _core

# Below, at and above a vector and a tile, with and without the column of ones; 1, one block, several leaves.
SIZES = [
    (1, 1),
    (2, 3),
    (5, 7),
    (33, 8),
    (31, 9),
    (127, 15),
    (129, 16),
    (65, 17),
    (1025, 31),
    (2050, 33),
    (300, 64),
]


def check(close, case, X=None, v=None, rows=None, note="", isas=(None,), **more):
    problems = [case.problem(X, isa=isa, **more) for isa in isas]
    type_, wide = arithmetic(problems[0])
    want, size = gram(case, v, rows, wide)
    for isa, problem in zip(isas, problems):
        got = problem.gram(v, rows)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, got.T)
        close(got, want.astype(np.longdouble), "gram", type_, size, f"{note} {case.X.shape} {isa} {more}")


def numbers(n, seed=0):
    """Weights of both signs that float32 holds exactly."""
    return np.random.default_rng(seed).normal(size=n).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gram_is_the_weighted_sum_of_outer_products(dtype, close):
    for n, d in SIZES:
        for extras in ((), ("intercept",), ("weights",), ("weights", "intercept")):
            case = make("squared", n, d, dtype, extras=extras)
            for v in (None, numbers(n)):
                check(close, case, v=v, isas=ISAS, n_threads=2, note=str(extras))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_gram_reads_every_layout(layout, dtype, close, tmp_path):
    for n, d in ((1, 1), (70, 37), (1100, 19)):
        case = make("squared", n, d, dtype, extras=("weights", "intercept"))
        check(close, case, lay_out(case.X, layout, tmp_path), numbers(n), note=layout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extras", [(), ("intercept",)])
def test_gram_of_many_columns_shares_one_matrix(dtype, extras, close):
    """Wide enough that threads share tiles; several blocks of rows and a ragged end."""
    for d in (255, 256, 320):
        case = make("squared", 291, d, dtype, extras=extras)
        for layout in ("C", "F"):
            check(close, case, lay_out(case.X, layout), numbers(291), n_threads=3)


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keep", [0.02, 0.6])
def test_gram_of_csr(keep, dtype, index, close):
    for n, d in ((1, 1), (40, 7), (1100, 33), (80, 300)):
        for extras in ((), ("weights", "intercept")):
            case = make("squared", n, d, dtype, extras=extras)
            case.X = csr(thinned(case.X, keep), index)
            check(close, case, v=numbers(n), isas=ISAS)
            check(close, case, isas=ISAS)
            check(close, case, v=numbers(n), rows=np.arange(n)[::-2].copy(), isas=ISAS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gram_of_named_rows_counts_each_as_often_as_it_is_named(dtype, close):
    rng = np.random.default_rng(0)
    for n, d in ((50, 7), (2000, 40), (300, 260)):
        case = make("squared", n, d, dtype, extras=("weights", "intercept"))
        for rows in (
            rng.integers(0, n, n + 50),
            np.array([n - 1]),
            np.arange(n),
            rng.permutation(n).astype(np.int32),
        ):
            for layout in ("C", "F", "both reversed"):
                check(close, case, lay_out(case.X, layout), numbers(n), rows, note=layout)
    case = make("squared", 3000, 11, "float32")
    problem = case.problem()
    assert problem.gram(rows=np.arange(3000)).tobytes() == problem.gram().tobytes()


def all_bits(problem, v, rows):
    return [problem.gram(*a).tobytes() for a in ((), (v,), (None, rows), (v, rows))]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_give_the_same_bits(dtype, isa):
    for n, d in ((20011, 5), (5003, 37), (4100, 130), (1001, 300)):
        case = make("squared", n, d, dtype, extras=("weights", "intercept"))
        v, rows = numbers(n), np.random.default_rng(1).integers(0, n, 2 * n // 3)
        for layout in ("C", "F"):
            X = lay_out(case.X, layout)
            first = all_bits(case.problem(X, n_threads=1, isa=isa), v, rows)
            for n_threads in (*THREADS[1:], 5):
                assert all_bits(case.problem(X, n_threads=n_threads, isa=isa), v, rows) == first


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keep", [0.02, 0.5])
def test_threads_give_the_same_bits_on_csr(keep, dtype):
    for n, d in ((4001, 37), (700, 300)):
        case = make("squared", n, d, dtype, extras=("weights", "intercept"))
        case.X = csr(thinned(case.X, keep))
        v, rows = numbers(n), np.random.default_rng(1).integers(0, n, n // 2)
        first = all_bits(case.problem(n_threads=1), v, rows)
        for n_threads in THREADS[1:]:
            assert all_bits(case.problem(n_threads=n_threads), v, rows) == first


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_where_the_bytes_lie(dtype, tmp_path):
    case = make("squared", 1501, 45, dtype, extras=("intercept",))
    first = case.problem().gram(numbers(1501)).tobytes()
    for layout in DENSE_LAYOUTS:
        assert case.problem(lay_out(case.X, layout, tmp_path)).gram(numbers(1501)).tobytes() == first, layout


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("d", [5, 300])
def test_a_weight_of_zero_hides_what_its_row_holds(d, sparse):
    case = make("squared", 200, d, "float32")
    v = np.abs(numbers(200))
    v[[3, 77, 199]] = 0
    clean = case.problem(csr(case.X) if sparse else None).gram(v)
    X = case.X.copy()
    X[3], X[77, 1], X[199, 0] = np.nan, np.inf, -np.inf
    problem = case.problem(csr(X) if sparse else X)
    np.testing.assert_array_equal(problem.gram(v), clean)
    with pytest.raises(ValueError, match="X holds NaN or infinity, first in row 3, column 0"):
        problem.gram()


def test_gram_writes_into_out_and_nowhere_before_it_is_right():
    case = make("squared", 60, 7, "float32", extras=("intercept",))
    problem = case.problem()
    out = np.full((8, 8), 7.0)
    assert problem.gram(out=out) is out
    np.testing.assert_array_equal(out, problem.gram())
    X = case.X.copy()
    X[5, 2] = np.nan
    out[...] = 7.0
    with pytest.raises(ValueError, match="row 5, column 2"):
        case.problem(X).gram(out=out)
    assert (out == 7.0).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": np.ones(59)}, ValueError, r"weights has shape \(59,\)"),
        ({"weights": np.full(60, np.nan)}, ValueError, "weights holds NaN"),
        ({"weights": "many"}, ValueError, "weights has dtype"),
        ({"rows": np.array([0, 60])}, ValueError, "rows holds 60 at index 1"),
        ({"rows": np.array([-1])}, ValueError, "rows holds -1 at index 0"),
        ({"rows": np.array([0.0])}, ValueError, "rows has dtype float64"),
        ({"rows": np.ones(60, bool)}, ValueError, "flatnonzero"),
        ({"rows": np.array([], np.int64)}, ValueError, "rows is empty"),
        ({"rows": np.zeros((2, 2), np.int64)}, ValueError, r"shape \(2, 2\)"),
        ({"out": np.empty((7, 7))}, ValueError, r"out has dtype float64 and shape \(7, 7\)"),
        ({"out": np.empty((8, 8), np.float32)}, ValueError, "out has dtype float32"),
        ({"out": np.empty((8, 8), order="F")}, ValueError, "not C-contiguous"),
        ({"out": [[1.0]]}, TypeError, "out is a list"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, error, message):
    case = make("squared", 60, 7, "float32", extras=("intercept",))
    with pytest.raises(error, match=message):
        case.problem().gram(**arguments)


def test_out_may_overlap_nothing():
    room = np.zeros(64 * 8 + 64)
    X = np.ones((64, 8))
    v = room[:64]
    v[:] = 1
    problem = _core.Problem(X, np.zeros(64), loss="squared")
    with pytest.raises(ValueError, match="overlap"):
        problem.gram(v, out=room[:64].reshape(8, 8))
    with pytest.raises(ValueError, match="overlaps X"):
        problem.gram(out=X[:8])


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(("n", "d"), [(1_200_000, 60), (40_000, 700)])
def test_a_signal_ends_a_long_pass(n, d):
    """The handler's exception comes out of the pass, long before the pass would have ended."""

    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    X = np.ones((1, d), np.float32).repeat(2000, 0)
    rows = np.zeros(n, np.int64)
    problem = _core.Problem(
        X, np.zeros(2000), loss="squared", n_threads=2, isa="baseline" if "baseline" in ISAS else None
    )

    def keep_busy():
        for _ in range(200):
            problem.gram(rows=rows)

    old = signal.signal(signal.SIGALRM, stop)
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(Stopped):
            keep_busy()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert time.monotonic() - start < 20


# ------------------------------------------------------------------------------------------ with the targets


def moments(case, v, rows, origin, wide):
    """The oracle: (1/S) Σ s v t², (1/S) Σ s v t x, and the second with every term's absolute value."""
    s = weights_of(case).astype(wide)
    at = slice(None) if rows is None else rows
    c = (s if v is None else s * np.asarray(v).astype(wide))[at] / s.sum()
    t = case.y[at].astype(wide) - wide(origin)
    X, A = design(case, wide)[at], design(case, magnitude=True)[at]
    size = A.T @ np.abs(c * t).astype(np.float64)
    return (c * t) @ t, X.T @ (c * t), size


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_are_those_of_rows_and_targets(dtype, isa, close):
    for n, d in (*SIZES, (291, 255), (300, 256)):
        for extras in ((), ("intercept",), ("weights",), ("weights", "intercept")):
            case = make("squared", n, d, dtype, extras=extras)
            rows = np.random.default_rng(2).integers(0, n, n + 5)
            for v, at in ((None, None), (numbers(n), None), (None, rows), (numbers(n), rows)):
                problem = case.problem(isa=isa, n_threads=2)
                type_, wide = arithmetic(problem)
                squares, want, size = moments(case, v, at, 0.25, wide)
                value, c, G = problem.moments(v, at, 0.25)
                close(c, want.astype(np.longdouble), "gram", type_, size, f"{n} {d} {extras}")
                t = case.y[slice(None) if at is None else at] - 0.25
                assert abs(value - float(squares)) <= 1e-6 * (t @ t) * (1 if v is None else np.abs(v).max())
                scale = np.abs(G).max() if G.any() else 1.0
                np.testing.assert_allclose(G, problem.gram(v, at), atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_moments_of_csr_threads_and_zero_weights(dtype, close):
    case = make("squared", 1100, 33, dtype, extras=("weights", "intercept"))
    case.X = csr(thinned(case.X, 0.05))
    problem = case.problem(n_threads=1)
    type_, wide = arithmetic(problem)
    _, want, size = moments(case, numbers(1100), None, 0.0, wide)
    first = problem.moments(numbers(1100))
    close(first[1], want.astype(np.longdouble), "gram", type_, size)
    dense = make("squared", 5003, 37, dtype, extras=("intercept",))
    for layout in ("C", "F"):
        X = lay_out(dense.X, layout)
        bits = [[np.asarray(a).tobytes() for a in dense.problem(X, n_threads=t).moments()] for t in (1, 2, 5)]
        assert bits[0] == bits[1] == bits[2]
    v = np.abs(numbers(5003))
    v[[3, 4000]] = 0
    clean = dense.problem().moments(v)
    X = dense.X.copy()
    X[3], X[4000, 1] = np.nan, np.inf
    for got, expected in zip(dense.problem(X).moments(v), clean, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_moments_refuse_what_they_cannot_take():
    case = make("squared", 60, 7, "float32")
    with pytest.raises(ValueError, match="origin is nan"):
        case.problem().moments(origin=np.nan)
    with pytest.raises(ValueError, match="rows holds 60 at index 1"):
        case.problem().moments(rows=np.array([0, 60]))
    with pytest.raises(ValueError, match="moments is for losses of one margin"):
        make("softmax", 60, 7, "float32").problem().moments()
