"""hessian_vector: (1/S) X'(s weights (X v)) in one pass: dense, wide, CSR, one or more right-hand sides."""

from __future__ import annotations

import numpy as np
import pytest

from cases import DTYPES, ISAS, THREADS, csr, lay_out, make, thinned
from kernels.second_order import arithmetic, hessian_vector, weights_of
from nagcore import _core, reference


def check(close, case, X=None, columns=None, **more):
    problem = case.problem(X, **more)
    type_, wide = arithmetic(problem)
    rng = np.random.default_rng(0)
    shape = problem.p if columns is None else (problem.p, columns)
    v = rng.normal(size=shape).astype(np.float32).astype(np.float64)
    weights = rng.normal(size=problem.n).astype(np.float32).astype(np.float64)
    got = problem.hessian_vector(v, weights)
    want, size = hessian_vector(case, v, weights, wide)
    assert got.dtype == np.float64
    close(got, want, "hessian_vector", type_, size, f"{case.X.shape} {columns} {more}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [None, 1, 2, 11])
def test_hessian_vector_is_two_products(columns, dtype, isa, close):
    for n, d in ((1, 1), (7, 3), (65, 16), (1030, 33), (40, 1100)):
        for extras in ((), ("weights", "offset", "intercept")):
            check(close, make("logistic", n, d, dtype, extras=extras), columns=columns, isa=isa, n_threads=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["F", "both-strided", "rows reversed", "misaligned"])
def test_hessian_vector_reads_every_layout(layout, dtype, close):
    for n, d in ((90, 37), (30, 700)):
        case = make("poisson", n, d, dtype, extras=("weights", "intercept"))
        for columns in (None, 3):
            check(close, case, lay_out(case.X, layout), columns)


def test_hessian_vector_of_wide_rows(close):
    """Rows of 160 KiB and more: the threads share the columns."""
    case = make("logistic", 9, 45_000, "float32", extras=("weights", "intercept"))
    for columns in (None, 2):
        check(close, case, columns=columns, n_threads=2)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_hessian_vector_of_csr(index, dtype, close):
    for n, d in ((1, 1), (300, 40), (200, 20_011)):
        case = make("logistic", n, d, dtype, extras=("weights", "intercept"))
        dense = thinned(case.X, 0.1)
        case.X = dense
        for columns in (None, 2, 5):
            check(close, case, csr(dense, index), columns, n_threads=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_give_the_same_bits(dtype):
    rng = np.random.default_rng(0)
    for n, d in ((5003, 37), (301, 1100)):
        case = make("logistic", n, d, dtype, extras=("weights", "intercept"))
        weights = rng.random(n)
        for v in (rng.normal(size=d + 1), rng.normal(size=(d + 1, 3))):
            got = {case.problem(n_threads=t).hessian_vector(v, weights).tobytes() for t in THREADS}
            assert len(got) == 1


def test_curvature_as_weights_gives_the_hessians_product(close):
    case = make("logistic", 500, 21, "float64", extras=("weights", "offset", "intercept"))
    problem = case.problem()
    c = problem.curvature_from_margins(problem.margins(case.w))
    H = problem.hessian(case.w)[2]
    V = np.random.default_rng(0).normal(size=(22, 4))
    np.testing.assert_allclose(problem.hessian_vector(V, c), H @ V, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_probabilities_as_weights_couple_the_classes(dtype, sparse, close):
    case = make("softmax", 400, 9, dtype, extras=("weights", "offset", "intercept"), k=4)
    problem = case.problem(csr(case.X) if sparse else None, n_threads=2)
    z = problem.margins(case.w).astype(np.float64)
    P = reference.LOSSES["softmax"].p(z).astype(dtype).astype(np.float64)
    V = np.random.default_rng(0).normal(size=case.w.shape).astype(np.float32).astype(np.float64)
    X = np.hstack([case.X.astype(np.float64), np.ones((400, 1))])
    s = weights_of(case)[:, None]
    U = P * (X @ V)
    want = X.T @ (s * (U - P * U.sum(axis=1, keepdims=True))) / s.sum()
    A = np.abs(X @ np.abs(V)) + np.abs(X) @ np.abs(V)
    size = np.abs(X).T @ (s * P * (A + (P * A).sum(axis=1, keepdims=True))) / s.sum()
    close(problem.hessian_vector(V, P), want, "hessian_vector", dtype, size)
    # One number a sample is each column's own product, as for the other losses.
    weights = np.random.default_rng(1).random(400).astype(np.float32).astype(np.float64)
    want, size = hessian_vector(case, V, weights)
    close(problem.hessian_vector(V, weights), want, "hessian_vector", dtype, size)


@pytest.mark.parametrize(
    ("v", "weights", "message"),
    [
        (np.zeros(4), np.ones(30), r"v has shape \(4,\); \(5,\) or \(5, m\)"),
        (np.zeros((5, 0)), np.ones(30), "v has shape"),
        (np.zeros(5), np.ones(29), r"weights has shape \(29,\)"),
        (np.zeros(5), np.full(30, np.inf), "weights holds NaN or infinity"),
        (np.full(5, np.nan), np.ones(30), "v holds NaN"),
        (np.zeros((5, 2)), np.ones((30, 2)), r"weights has shape \(30, 2\)"),
    ],
)
def test_bad_input_is_one_clear_error(v, weights, message):
    case = make("logistic", 30, 4, "float64", extras=("intercept",))
    with pytest.raises(ValueError, match=message):
        case.problem().hessian_vector(v, weights)


def test_nan_in_x_is_named():
    case = make("logistic", 30, 4, "float64")
    case.X[11, 3] = np.nan
    with pytest.raises(ValueError, match="row 11, column 3"):
        _core.Problem(case.X, case.y).hessian_vector(np.ones(4), np.ones(30))
