"""gram(rounded=True): Gram matrices of rows rounded to bfloat16, where processors multiply those faster."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from cases import DENSE_LAYOUTS, DTYPES, THREADS, csr, lay_out, make, thinned
from kernels.second_order import design, gram, weights_of
from nagcore import _core

needs_rounding = pytest.mark.skipif(not _core.rounded_products(), reason="none here, or NAGCORE_ISA set")
# At and round a tile of 16 columns, a panel of 32 rows, and blocks and leaves of panels.
SIZES = [
    (256, 48),
    (257, 49),
    (300, 63),
    (511, 64),
    (513, 65),
    (1100, 100),
    (5000, 130),
    (700, 320),
    (20_000, 48),
]


def to_bfloat16(x):
    """float32 numbers to the nearest bfloat16, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)).view(np.float32)


def rounded_gram(case, v, rows=None, factors=None, compute=np.float64):
    """The definition: √(s·v·factor)·x as bfloat16, its Gram matrix in float64, then scale and shift."""
    how = dict(case.how)
    scale, shift = how.pop("scale", 1.0), how.pop("shift", 0.0)
    plain = type(case)(case.X, case.y, case.w, {k: w for k, w in how.items() if k not in ("scale", "shift")})
    at = slice(None) if rows is None else rows
    X = design(plain)[at]
    if shift and not how.get("fit_intercept"):
        X = np.hstack([X, np.ones((len(X), 1))])
    c = (weights_of(case) * (1.0 if v is None else v))[at] * (1.0 if factors is None else factors)
    root = np.sqrt(c.astype(compute)).astype(np.float32)[:, None]
    Y = to_bfloat16(root * X.astype(np.float32)).astype(float)
    G = Y.T @ Y / weights_of(case).sum()
    d = case.X.shape[1]
    change = np.eye(len(G))
    change[:d, :d] *= scale
    if len(G) > d:
        change[:d, d] = shift
    return (change @ G @ change.T)[: d + bool(how.get("fit_intercept")), : d + bool(how.get("fit_intercept"))]


def check(case, X=None, v=None, rows=None, factors=None, **more):
    problem = case.problem(X, **more)
    got = problem.gram(v, rows, None, factors, True)
    np.testing.assert_array_equal(got, got.T)
    exact = problem.gram(v, rows, None, factors)
    size = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    size += np.abs(exact).max() * (case.how.get("shift", 0.0) != 0)  # which cancels
    assert (np.abs(got - exact) <= 2**-7 * size).all()
    if _core.rounded_products():
        # What is rounded to bfloat16 is itself a float32: a tie there may fall either way. Sums in float32 of
        # up to 2500 squares, which AMD's vectors cut off: 1e-8 of the sum each time.
        want = rounded_gram(case, v, rows, factors, np.dtype(problem.compute))
        assert (np.abs(got - want) <= 6e-5 * size).all()
    return got, exact


def positive(n, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 2, n).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_digits_and_the_rounding_that_is_promised(dtype):
    for n, d in SIZES:
        for extras in ((), ("intercept", "weights")):
            case = make("squared", n, d, dtype, extras=extras)
            for v in (None, positive(n)):
                check(case, v=v, n_threads=2)


@needs_rounding
def test_it_is_rounded_rows_that_are_tested():
    got, exact = check(make("squared", 300, 60, "float32"))
    assert np.abs(got - exact).max() > 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_every_layout(layout, dtype, tmp_path):
    case = make("squared", 600, 70, dtype, extras=("weights", "intercept"))
    check(case, lay_out(case.X, layout, tmp_path), positive(600))


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_csr(dtype, index):
    case = make("squared", 900, 60, dtype, extras=("weights", "intercept"))
    case.X = csr(thinned(case.X, 0.7), index)
    check(case, v=positive(900))
    check(case, v=positive(900), rows=np.arange(900)[::-2].copy())


@pytest.mark.parametrize("dtype", DTYPES)
def test_named_rows_and_their_factors(dtype):
    rng = np.random.default_rng(3)
    case = make("squared", 2000, 50, dtype, extras=("weights", "intercept"))
    rows = rng.integers(0, 2000, 1500)
    check(case, v=positive(2000), rows=rows, factors=positive(1500, 1))


@pytest.mark.parametrize("size", [(700, 90), (9000, 64), (2500, 330), (70_000, 50)])
def test_the_same_bits_for_every_number_of_threads(size):
    case = make("squared", *size, "float32", extras=("weights",))
    v = positive(size[0])
    first = case.problem(n_threads=1).gram(v, None, None, None, True).tobytes()
    for n_threads in THREADS[1:]:
        assert case.problem(n_threads=n_threads).gram(v, None, None, None, True).tobytes() == first, n_threads


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("factor", [1e-19, 1e19])
def test_squares_that_float32_cannot_hold_are_made_in_full(dtype, factor):
    """One column whose squares vanish, or all overflow: the same bits as without rounding."""
    case = make("squared", 400, 50, dtype)
    X = case.X.astype(np.float64)
    X[:, 7] *= factor
    problem = case.problem(X.astype(dtype), compute="float64")
    np.testing.assert_array_equal(problem.gram(None, None, None, None, True), problem.gram())


def test_weights_of_both_signs_are_made_in_full():
    case = make("squared", 400, 50, "float64")
    v = np.random.default_rng(0).normal(size=400)
    problem = case.problem()
    np.testing.assert_array_equal(problem.gram(v, None, None, None, True), problem.gram(v))


def test_a_column_of_zeros_stays_one():
    case = make("squared", 400, 50, "float32")
    case.X[:, 11] = 0
    got, _ = check(case)
    assert not got[11].any()


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_that_do_not_count_may_hold_anything_and_others_are_named(sparse):
    case = make("squared", 600, 60, "float64", extras=("weights",))
    case.how["sample_weight"] = np.array(case.how["sample_weight"])
    case.how["sample_weight"][100] = 0.0
    clean = case.problem(csr(case.X) if sparse else None).gram(None, None, None, None, True)
    X = case.X.copy()
    X[100, 3] = np.nan
    got = case.problem(csr(X) if sparse else X).gram(None, None, None, None, True)
    np.testing.assert_allclose(got, clean, rtol=1e-6, atol=1e-6)
    X[50, 5] = np.inf
    with pytest.raises(ValueError, match="row 50, column 5"):
        case.problem(csr(X) if sparse else X).gram(None, None, None, None, True)


def test_the_oracle_of_this_file_is_the_gram_matrix_but_for_rounding():
    case = make("squared", 300, 50, "uint8", extras=("intercept", "weights"))
    want = gram(case, positive(300))[0]
    got = rounded_gram(case, positive(300))
    assert np.abs(got - want).max() <= 2**-7 * np.abs(want).max()


def said(code, **more):
    """What a process of its own prints, in words, or how it fails."""
    here = {k: v for k, v in os.environ.items() if k != "NAGCORE_ISA"}
    done = subprocess.run([sys.executable, "-c", code], env={**here, **more}, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else done.stderr


def test_an_instruction_set_of_ones_choice_rounds_nothing():
    code = "from nagcore import _core; print(_core.rounded_products(), _core.active_isa())"
    chosen, isa = said(code)
    assert said(code, NAGCORE_ISA=isa) == ["None", isa]
    for name in ("amx", "bf16"):
        answer = said(code, NAGCORE_ISA=name)
        if isinstance(answer, list):
            assert answer in ([name, isa], ["None", isa])  # the system may refuse tiles
        else:
            assert f"NAGCORE_ISA is '{name}'" in answer
            assert chosen != name


def test_pairs_in_vectors_and_tiles_tell_the_same():
    """Where a processor has both: NAGCORE_ISA=bf16 and amx, of rows that bfloat16 holds, exact sums."""
    code = """if True:
        import numpy as np
        from nagcore import _core
        X = np.random.default_rng(0).integers(-8, 9, (700, 75)).astype(np.float32)
        G = _core.Problem(X, np.ones(700)).gram(np.full(700, 4.0), None, None, None, True)
        want = 4 * X.astype(float).T @ X / 700
        print(_core.rounded_products(), np.abs(G - want).max() <= 1e-12 * np.abs(want).max())
    """
    for name in ("amx", "bf16"):
        answer = said(code, NAGCORE_ISA=name)
        if isinstance(answer, list):
            assert answer in ([name, "True"], ["None", "True"])
        else:
            assert f"NAGCORE_ISA is '{name}'" in answer
