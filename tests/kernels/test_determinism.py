"""The same bits for every thread count, every repetition and every way the same bytes may lie."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import DTYPES, ISAS, LOSSES, THREADS, csr, lay_out, make, thinned
from nagcore import _core


def bits(problem, w):
    """Every number of a pass, as bytes."""
    compute = np.dtype(problem.compute)
    shape = (problem.n,) if w.ndim == 1 else (problem.n, w.shape[1])
    z, r = np.empty(shape, compute), np.empty(shape, compute)
    value, g = problem.value_and_grad(w, margins=z, residuals=r)
    parts = [np.float64(value), g, z, r, problem.margins(w), problem.rmatvec(r)]
    return b"".join(p.tobytes() for p in parts)


def same_on_all_threads(case, X=None, **more):
    first = None
    for n_threads in (*THREADS, 5, 16):
        got = bits(case.problem(X, n_threads=n_threads, **more), case.w)
        first = first or got
        assert got == first, f"{n_threads} threads differ: {case.how['loss']} {case.X.shape} {more}"
    return first


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_threads_give_the_same_bits(loss, dtype, isa):
    """Rows enough for several leaves a thread at every d, and a ragged end."""
    for n, d in ((5003, 37), (20011, 3)):
        same_on_all_threads(make(loss, n, d, dtype, extras=("weights", "intercept")), isa=isa)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "d"), [(1, 1), (7, 3), (301, 4097), (33, 30001), (100003, 2), (2049, 1025)]
)
def test_threads_give_the_same_bits_at_extreme_shapes(n, d, dtype):
    for loss in ("logistic", "softmax") if n * d < 2_000_000 else ("logistic",):
        case = make(loss, n, d, dtype)
        for layout in ("C", "F"):
            same_on_all_threads(case, lay_out(case.X, layout))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "layout", ["F", "row-strided", "column-strided", "both reversed", "misaligned"]
)
def test_threads_give_the_same_bits_in_every_layout(layout, dtype):
    for loss in ("squared", "softmax"):
        case = make(loss, 4001, 29, dtype, extras=("weights", "offset", "intercept"))
        same_on_all_threads(case, lay_out(case.X, layout))


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", ["logistic", "softmax", "huber"])
def test_threads_give_the_same_bits_on_csr(loss, dtype, index):
    for n, d in ((3001, 101), (200, 20011)):
        case = make(loss, n, d, dtype, extras=("weights", "intercept"))
        case.X = csr(thinned(case.X, 0.1), index)
        for isa in ISAS:
            same_on_all_threads(case, isa=isa)


@settings(max_examples=40)
@given(
    st.integers(1, 3000),
    st.integers(1, 60),
    st.sampled_from(LOSSES),
    st.sampled_from(DTYPES),
    st.sampled_from(["C", "F", "both-strided"]),
    st.integers(2, 40),
)
def test_any_number_of_threads_gives_the_same_bits(n, d, loss, dtype, layout, n_threads):
    case = make(loss, n, d, dtype)
    X = lay_out(case.X, layout)
    one, many = (bits(case.problem(X, n_threads=t), case.w) for t in (1, n_threads))
    assert one == many


@pytest.mark.parametrize("dtype", DTYPES)
def test_repetition_and_company_change_nothing(dtype):
    """No state is left behind: another problem in between, a fresh Problem, n_threads left out."""
    case, other = make("logistic", 3001, 41, dtype), make("softmax", 800, 90, dtype)
    problem = case.problem(n_threads=2)
    first = bits(problem, case.w)
    for n_threads in (None, 1, 3):
        bits(other.problem(n_threads=n_threads), other.w)
        assert bits(problem, case.w) == first
        assert bits(case.problem(n_threads=n_threads), case.w) == first


@pytest.mark.parametrize("d", [45, 600])  # short rows and long ones
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_where_the_bytes_lie(dtype, d, tmp_path):
    """Alignment, memmap, read-only and row padding leave C order's bits as they are."""
    case = make("logistic", 1501, d, dtype)
    first = bits(case.problem(), case.w)
    for layout in ("misaligned", "memmap", "read-only", "C wide", "row-strided", "both reversed"):
        assert bits(case.problem(lay_out(case.X, layout, tmp_path)), case.w) == first, layout


@pytest.mark.parametrize("d", [45, 600])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_of_f_order_do_not_depend_on_where_the_bytes_lie(dtype, d):
    case = make("logistic", 1501, d, dtype)
    first = bits(case.problem(lay_out(case.X, "F")), case.w)
    for layout in ("F tall", "F misaligned"):
        assert bits(case.problem(lay_out(case.X, layout)), case.w) == first, layout


def test_asking_for_margins_changes_no_bit_of_the_gradient():
    for dtype in DTYPES:
        case = make("logistic", 3001, 41, dtype)
        problem = case.problem()
        value, g = problem.value_and_grad(case.w)
        z, r = np.empty((2, 3001), problem.compute)
        for kwargs in ({"margins": z}, {"residuals": r}, {"margins": z, "residuals": r}):
            again, h = problem.value_and_grad(case.w, **kwargs)
            assert again == value
            assert h.tobytes() == g.tobytes()
        assert problem.margins(case.w).tobytes() == z.tobytes()


PRINT = """
import sys, numpy as np
from nagcore import _core
rng = np.random.default_rng(0)
X, w = rng.normal(size=(4001, 33)).astype("f4"), rng.normal(size=33)
y = rng.choice([-1.0, 1.0], 4001)
value, g = _core.Problem(X, y, loss="logistic").value_and_grad(w)
print(_core.active_isa(), value.hex(), g.tobytes().hex())
"""


def run(code, **env):
    clean = {k: v for k, v in os.environ.items() if k not in ("NAGCORE_ISA", "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_environment_picks_the_instruction_set():
    for isa in ISAS:
        done = run(PRINT, NAGCORE_ISA=isa)
        assert done.returncode == 0, done.stderr
        name, value, g = done.stdout.split()
        assert name == isa
        rng = np.random.default_rng(0)
        X, w = rng.normal(size=(4001, 33)).astype("f4"), rng.normal(size=33)
        y = rng.choice([-1.0, 1.0], 4001)
        want, h = _core.Problem(X, y, loss="logistic", isa=isa).value_and_grad(w)
        assert (value, g) == (want.hex(), h.tobytes().hex())


def test_unknown_instruction_set_names_the_choices():
    done = run("import nagcore._core", NAGCORE_ISA="avx1024")
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "avx1024" in done.stderr
    for isa in ISAS:
        assert isa in done.stderr


def test_omp_num_threads_changes_no_bit():
    outputs = {run(PRINT, OMP_NUM_THREADS=t).stdout for t in ("1", "2", "7")}
    assert len(outputs) == 1
    assert outputs.pop().strip()
