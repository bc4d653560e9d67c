"""cholesky_ and solve_triangular: backward errors, bits, failures, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from cases import ISAS, THREADS
from nagcore import _core

SIZES = (1, 2, 3, 7, 8, 9, 31, 33, 63, 64, 65, 129, 200, 259)


def positive_definite(d, condition=1e3, seed=0):
    rng = np.random.default_rng([seed, d])
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    A = (Q * np.geomspace(1, 1 / condition, d)) @ Q.T
    return (A + A.T) / 2


def check_factor(close, A, L, note=""):
    np.testing.assert_array_equal(L, np.tril(L))
    at = np.unique(np.linspace(0, len(A) - 1, 40).astype(int))  # long double is slow: some rows
    wide = L[at].astype(np.longdouble) @ L.astype(np.longdouble).T
    close(np.float64(wide), A[at], "cholesky", "float64", np.abs(L[at]) @ np.abs(L).T, note)


@pytest.mark.parametrize("isa", ISAS)
def test_cholesky_gives_a_back(isa, close):
    for d in SIZES:
        A = positive_definite(d)
        L = A.copy()
        L[np.triu_indices(d, 1)] = np.nan  # only the lower triangle is read
        assert _core.cholesky_(L, n_threads=2, isa=isa) == -1
        check_factor(close, A, L, f"d = {d}")
        np.testing.assert_allclose(L, np.linalg.cholesky(A), rtol=0, atol=1e-10)


def test_cholesky_of_a_wide_strip(close):
    d = 1090
    X = np.random.default_rng(0).normal(size=(2 * d, d)).astype(np.float32).astype(np.float64)
    A = X.T @ X / d
    L = A.copy()
    assert _core.cholesky_(L) == -1
    check_factor(close, A, L)


@pytest.mark.parametrize("isa", ISAS)
def test_threads_give_the_same_bits(isa):
    rng = np.random.default_rng(0)
    for d in (65, 300, 517):
        A = positive_definite(d)
        b, B = rng.normal(size=d), rng.normal(size=(d, 37))
        seen = set()
        for n_threads in THREADS:
            L = A.copy()
            assert _core.cholesky_(L, n_threads=n_threads, isa=isa) == -1
            parts = [L] + [
                _core.solve_triangular(L, x, trans=trans, n_threads=n_threads, isa=isa)
                for x in (b, B)
                for trans in (False, True)
            ]
            seen.add(b"".join(p.tobytes() for p in parts))
        assert len(seen) == 1


@pytest.mark.parametrize("d", [1, 5, 64, 100, 300])
def test_the_first_bad_pivot_is_named(d):
    for at in {0, d // 2, d - 1}:
        for bad in (-1.0, 0.0, np.nan, np.inf, -np.inf):
            A = np.eye(d)
            A[at, at] = bad
            assert _core.cholesky_(A, n_threads=2) == at
    A = positive_definite(d)
    A[d - 1, d - 1] -= 2
    assert _core.cholesky_(A) == d - 1


def test_rank_deficient_matrices_stop_where_the_rank_ends():
    X = np.arange(12.0).reshape(4, 3)
    A = np.zeros((5, 5))
    A[:3, :3] = X.T @ X + np.eye(3)
    A[3, :3] = A[:3, 3] = A[0, :3]
    A[3, 3] = A[0, 0] - 1e-3  # less than what its row needs
    A[4, 4] = 1
    assert _core.cholesky_(A) == 3


def check_solution(close, L, x, b, note=""):
    residual = L.astype(np.longdouble) @ x.astype(np.longdouble)
    close(np.float64(residual), b, "triangular", "float64", np.abs(L) @ np.abs(x), note)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("columns", [None, 1, 2, 16, 17, 40])
def test_solve_triangular_solves(columns, isa, close):
    rng = np.random.default_rng(0)
    for d in SIZES:
        L = np.tril(rng.normal(size=(d, d)) / np.sqrt(d)) + 2 * np.eye(d)
        dirty = L + np.triu(np.full((d, d), np.nan), 1)
        b = rng.normal(size=d if columns is None else (d, columns))
        kept = b.copy()
        x = _core.solve_triangular(dirty, b, isa=isa, n_threads=2)
        check_solution(close, L, x, b, f"d = {d}")
        x = _core.solve_triangular(dirty, b, trans=True, isa=isa, n_threads=2)
        check_solution(close, L.T, x, b, f"d = {d}, transposed")
        np.testing.assert_array_equal(b, kept)


@pytest.mark.parametrize("trans", [False, True])
@pytest.mark.parametrize("d", [1, 5, 33, 130])
def test_multiply_triangular_undoes_solve_triangular(d, trans):
    """One matrix for all columns, and one for each; the strict upper triangle is never read."""
    rng = np.random.default_rng(d)
    each = [np.tril(rng.normal(size=(d, d)) / np.sqrt(d)) + 2 * np.eye(d) for _ in range(3)]
    dirty = [L + np.triu(np.full((d, d), np.nan), 1) for L in each]
    b = rng.normal(size=(d, 3))
    expected = np.stack([(L.T if trans else L) @ b[:, c] for c, L in enumerate(each)], axis=1)
    product = _core.multiply_triangular(dirty, b, trans)
    np.testing.assert_allclose(product, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(_core.solve_triangular(dirty, product, trans), b, rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(product[:, 1], _core.multiply_triangular(dirty[1], b[:, 1], trans))
    one = _core.multiply_triangular(dirty[0], b, trans)
    np.testing.assert_allclose(one, (each[0].T if trans else each[0]) @ b, rtol=1e-12, atol=1e-12)
    for n_threads in (1, 2, 3, 8):
        again = _core.multiply_triangular(dirty, b, trans, n_threads=n_threads)
        np.testing.assert_array_equal(again, product)


def test_a_matrix_for_each_column_must_fit():
    L = np.eye(3)
    with pytest.raises(ValueError, match=r"\(3, 2\) is needed: a column for each matrix"):
        _core.solve_triangular([L, L], np.ones((3, 3)))
    with pytest.raises(ValueError, match="one size is needed"):
        _core.solve_triangular([L, np.eye(2)], np.ones((3, 2)))
    with pytest.raises(ValueError, match="L is empty"):
        _core.solve_triangular([], np.ones((3, 2)))


def test_solve_triangular_takes_lists_and_no_columns():
    L = np.array([[2.0, 0.0], [1.0, 4.0]])
    np.testing.assert_array_equal(_core.solve_triangular(L, [2.0, 9.0]), [1.0, 2.0])
    assert _core.solve_triangular(L, np.empty((2, 0))).shape == (2, 0)


def test_bad_input_is_one_clear_error():
    L = np.eye(4)
    for wrong, message in (
        (np.eye(4, dtype=np.float32), "dtype float32"),
        (np.ones((4, 3)), "square"),
        (np.ones(4), "square"),
        (np.asfortranarray(np.ones((4, 4))), "not C-contiguous"),
        (np.eye(8)[::2, ::2], "not C-contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.cholesky_(wrong)
        with pytest.raises(ValueError, match=message):
            _core.solve_triangular(wrong, np.ones(4))
    with pytest.raises(TypeError, match="no NumPy array"):
        _core.cholesky_([[1.0]])
    frozen = np.eye(4)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        _core.cholesky_(frozen)
    _core.solve_triangular(frozen, np.ones(4))
    with pytest.raises(ValueError, match=r"b has shape \(3,\)"):
        _core.solve_triangular(L, np.ones(3))
    with pytest.raises(ValueError, match="b holds NaN"):
        _core.solve_triangular(L, [1.0, np.nan, 0.0, 0.0])
    with pytest.raises(ValueError, match="n_threads is 0"):
        _core.cholesky_(L.copy(), n_threads=0)
    with pytest.raises(ValueError, match="isa is 'avx1024'"):
        _core.cholesky_(L.copy(), isa="avx1024")
    L[2, 2] = 0
    with pytest.raises(ValueError, match="diagonal at index 2"):
        _core.solve_triangular(L, np.ones(4))
