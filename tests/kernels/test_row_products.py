"""RowProducts: X Xᵀv and Xᵀv from a copy of CSR by columns, or its own rows, against plain products."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cases import ISAS, THREADS, csr, thinned
from nagcore import _core

pytest.importorskip("scipy.sparse")


def sparse_rows(n, d, dtype="float64", index="int32", keep=0.3, seed=0):
    X = thinned(np.random.default_rng(seed).normal(size=(n, d)), keep, seed)
    return csr(X, index, dtype)


def products(X, copy=True, **how):
    return _core.RowProducts(_core.Problem(X, np.zeros(X.shape[0]), loss="squared", **how), copy)


def check(close, X, v, **how):
    for copy in (True, False):
        check_one(close, X, v, products(X, copy, **how))


def check_one(close, X, v, got):
    arithmetic = "float32" if v.dtype == X.dtype == np.float32 else "float64"
    wide = np.longdouble if arithmetic == "float64" else np.float64
    dense, size = X.toarray().astype(wide), np.abs(X.toarray()).astype(np.float64)
    V, A = v.astype(wide), np.abs(v).astype(np.float64)
    out = got.product(v)
    assert out.dtype == arithmetic
    assert out.shape == v.shape
    close(out, dense @ (dense.T @ V), "row_product", arithmetic, size @ (size.T @ A), f"{X.shape} {v.shape}")
    out = got.transposed(v)
    assert out.dtype == np.float64
    close(out, dense.T @ V, "rmatvec", arithmetic, size.T @ A, f"{X.shape} {v.shape}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_row_products_match_plain_ones(dtype, index, isa, close):
    rng = np.random.default_rng(1)
    for n, d in ((1, 1), (40, 170), (170, 40)):
        X = sparse_rows(n, d, dtype, index)
        for shape in ((n,), (n, 1), (n, 2), (n, 7), (n, 16), (n, 20), (n, 33), (n, 70)):
            check(close, X, rng.normal(size=shape).astype(dtype), isa=isa)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_row_products_of_long_columns(dtype, close):
    """Columns longer than a chain of sums in the compute type, on several threads."""
    X = sparse_rows(3000, 30, dtype, keep=0.9)
    rng = np.random.default_rng(0)
    for shape in ((3000,), (3000, 5)):
        check(close, X, 1 + rng.random(shape).astype(dtype), n_threads=2)


def test_row_products_take_a_float64_vector_on_float32_data(close):
    X = sparse_rows(60, 90, "float32")
    check(close, X, np.random.default_rng(0).normal(size=(60, 3)))


def test_row_products_without_any_entry():
    X = csr(np.zeros((5, 4)))
    np.testing.assert_array_equal(products(X).product(np.ones(5)), 0)
    np.testing.assert_array_equal(products(X).transposed(np.ones((5, 2))), np.zeros((4, 2)))
    assert products(X).square(np.ones((5, 2))) == 0


def test_a_slice_of_rows_is_its_own_matrix(close):
    """indptr that does not begin at zero."""
    X = sparse_rows(50, 80)
    part = X[10:37]
    check(close, part, np.random.default_rng(0).normal(size=27))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_threads_give_the_same_bits(dtype):
    X = sparse_rows(900, 2000, dtype, keep=0.5)  # four groups of columns
    assert X.nnz > 1 << 19
    rng = np.random.default_rng(0)
    for shape, copy in itertools.product(((900,), (900, 6)), (True, False)):
        v = rng.normal(size=shape).astype(dtype)
        each = [products(X, copy, n_threads=t) for t in THREADS]
        assert len({p.product(v).tobytes() for p in each}) == 1
        assert len({p.transposed(v).tobytes() for p in each}) == 1
        assert len({p.square(v) for p in each}) == 1


def test_row_products_say_what_they_hold():
    X = sparse_rows(30, 50, "float32")
    copy = X.nnz * 8 + 8 * 51 + 4 * 50 + 8 * 30
    assert products(X).nbytes == copy
    assert not products(X).by_rows
    rows = products(X, False)
    assert rows.by_rows
    assert rows.nbytes < 100
    rows.product(np.ones((30, 2)))  # which needs the copy
    assert copy <= rows.nbytes < copy + 100


def test_rows_are_taken_where_columns_are_few():
    assert products(sparse_rows(400, 30), None).by_rows
    assert not products(sparse_rows(10, 3000), None).by_rows


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_products_come_from_one_trip(dtype):
    X = sparse_rows(70, 40, dtype)
    v, dense = np.random.default_rng(0).normal(size=70), X.toarray().astype(float)
    Kv, u = products(X, False).both(v)
    np.testing.assert_allclose(u, dense.T @ v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(Kv, dense @ (dense.T @ v), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"a copy by columns.*use product and transposed"):
        products(X).both(v)


def test_row_products_refuse_what_they_cannot_take():
    with pytest.raises(ValueError, match=r"X is dense.*X @ \(X.T @ v\)"):
        products(np.ones((3, 2)))
    for copy in (True, False):
        refuses(products(sparse_rows(6, 9), copy))


def refuses(got):
    for v in (np.ones(5), np.ones((9, 2)), np.ones((6, 0)), np.ones((6, 1, 1))):
        with pytest.raises(ValueError, match=r"v has shape .*\(6,\) or \(6, m\) is needed"):
            got.product(v)
    for method in (got.product, got.transposed, got.square):
        with pytest.raises(ValueError, match="v holds NaN"):
            method(np.array([1.0, np.nan, 0, 0, 0, 0]))


def test_not_a_number_in_x_is_named():
    X = sparse_rows(6, 9, keep=1.0)
    X.data[3] = np.nan
    row = int(np.searchsorted(X.indptr, 3, side="right") - 1)
    for copy, name in itertools.product((True, False), ("product", "transposed", "square")):
        method = getattr(products(X, copy), name)
        with pytest.raises(ValueError, match=f"X holds NaN or infinity, first in row {row}, column"):
            method(np.ones(6))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_square_is_that_of_the_transposed_product(dtype):
    X = sparse_rows(80, 130, dtype)
    v = np.random.default_rng(0).normal(size=(80, 6)).astype(dtype)
    u = X.toarray().T.astype(np.float64) @ v.astype(np.float64)
    rel = 1e-13 if dtype == "float64" else 1e-5
    assert products(X).square(v) == pytest.approx((u**2).sum(), rel=rel)
    assert products(X, False).square(v[:, 0].copy()) == pytest.approx((u[:, 0] ** 2).sum(), rel=rel)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_columns_of_one_entry_are_a_diagonal(dtype, close):
    """Beside columns of none and of several, and rows that have several of them."""
    dense = np.zeros((7, 20))
    dense[np.arange(14) % 5, np.arange(14)] = np.arange(1, 15) / 4  # one entry each
    dense[:, 17] = 1.5
    X = csr(dense, dtype=dtype)
    for shape in ((7,), (7, 1), (7, 5), (7, 20)):
        check(close, X, np.random.default_rng(0).normal(size=shape).astype(dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_vectors_are_combined_and_multiplied(dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(300, 4)).astype(dtype) for _ in range(3)]
    want = 0.5 * arrays[0] - 2 * arrays[1] + arrays[2]
    out = np.empty_like(arrays[0])
    _core.combine(arrays, [0.5, -2.0, 1.0], out)
    rtol = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(out, want, rtol=rtol, atol=rtol)
    found = _core.inner_products(arrays, out)
    np.testing.assert_allclose(found, [float((a.astype(float) * out).sum()) for a in arrays], rtol=rtol)
    _core.combine([arrays[0], out], [1.0, 1.0], arrays[0])
    first = 2 * (want + 2 * arrays[1] - arrays[2])
    np.testing.assert_allclose(arrays[0], first + want, rtol=rtol, atol=10 * rtol)
    wide = rng.normal(size=(70, 3))
    np.testing.assert_array_equal(_core.transposed_copy(wide), wide.T)
    np.testing.assert_array_equal(_core.transposed_copy(wide, True), wide.T.astype(np.float32))
    assert _core.transposed_copy(wide[:, 0].copy()).shape == (1, 70)


def test_vectors_that_do_not_match_are_refused():
    out, other = np.ones((3, 2)), np.ones((3, 2), np.float32)
    for a in (other, np.ones(5), np.ones((2, 3)).T, np.ones(6)[::2]):
        with pytest.raises(ValueError, match=r"an array has dtype .*C-contiguous arrays of dtype float64"):
            _core.combine([a], [1.0], out)
        with pytest.raises(ValueError, match=r"an array has dtype .*C-contiguous arrays of dtype float64"):
            _core.inner_products([a], out)
    with pytest.raises(ValueError, match="1 arrays come with 2 coefficients"):
        _core.combine([out], [1.0, 2.0], out)
    with pytest.raises(ValueError, match="float32 or float64 is needed"):
        _core.inner_products([out], np.ones((3, 2), np.int64))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        _core.combine([other.astype(float)], [1.0], out)
    np.testing.assert_array_equal(out, 1)
