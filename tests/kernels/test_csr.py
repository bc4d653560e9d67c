"""scipy CSR: both index widths, holes of every kind, and the same answers as the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import CLASSES, ISAS, LOSSES, THREADS, Case, check, csr, make, targets, thinned
from nagcore import _core, reference

sparse = pytest.importorskip("scipy.sparse")


def sparse_case(loss, n, d, dtype="float64", index="int32", extras=(), seed=0, keep=0.3):
    case = make(loss, n, d, dtype, extras=extras, seed=seed)
    case.X = csr(thinned(case.X, keep, seed), index)
    assert case.X.indices.dtype == case.X.indptr.dtype == index
    return case


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
def test_csr_matches_reference(loss, dtype, index, isa, close):
    for n, d, extras in ((120, 40, ()), (57, 300, ("weights", "offset", "intercept"))):
        check(close, sparse_case(loss, n, d, dtype, index, extras), isa=isa)


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 63, 65])
def test_csr_matches_reference_at_awkward_lengths(loss, n, close):
    for d in (1, 3, 8, 17, 33, 129):
        for keep in (0.05, 1.0):
            check(close, sparse_case(loss, n, d, "float32", keep=keep))


def test_csr_says_what_it_is():
    case = sparse_case("logistic", 30, 9)
    problem = case.problem()
    assert problem.layout == "csr"
    assert (problem.n, problem.d, problem.p) == (30, 9, 9)
    assert problem.x_dtype == "float64"
    entries = case.X.data.nbytes + case.X.indices.nbytes
    # the row pointers may be kept in 64 bits whatever they came in
    assert entries + case.X.indptr.nbytes <= problem.nbytes <= entries + 8 * 31


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_csr_without_any_entry(loss, close):
    rng = np.random.default_rng(0)
    X = sparse.csr_matrix((20, 5))
    w = rng.normal(size=(6, CLASSES) if loss == "softmax" else 6)
    case = Case(X, targets(loss, 20, rng), w, {"loss": loss, "fit_intercept": True})
    check(close, case)
    _, g = case.problem().value_and_grad(w)
    np.testing.assert_array_equal(g[:5], 0)


def test_csr_rows_that_differ_wildly_in_length(close):
    """One full row among empty ones: work cut by rows would idle; answers must not care."""
    n, d = 500, 2000
    rng = np.random.default_rng(0)
    dense = np.zeros((n, d))
    dense[3] = rng.normal(size=d)
    dense[n - 1, ::2] = rng.normal(size=d // 2)
    dense[:, 5] = rng.normal(size=n)
    case = Case(
        csr(dense), targets("logistic", n, rng), rng.normal(size=d) / 30, {"loss": "logistic"}
    )
    for n_threads in THREADS:
        check(close, case, n_threads=n_threads)


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_csr_with_millions_of_columns(loss, close):
    n, d, per_row = 40, 3_000_000, 25
    rng = np.random.default_rng(0)
    columns = np.sort(rng.choice(d, (n, per_row), replace=False), axis=1)
    columns[0, 0], columns[-1, -1] = 0, d - 1
    X = sparse.csr_matrix(
        (rng.normal(size=n * per_row), columns.ravel(), np.arange(n + 1) * per_row), shape=(n, d)
    )
    X.sort_indices()
    k = CLASSES if loss == "softmax" else 1
    w = rng.normal(size=(d, k) if loss == "softmax" else d) / 5
    case = Case(X, targets(loss, n, rng), w, {"loss": loss})
    check(close, case, n_threads=2)
    _, g = case.problem().value_and_grad(w)
    assert np.count_nonzero(g) <= n * per_row * k


def test_csr_explicit_zeros_are_entries_like_others(close):
    case = sparse_case("squared", 40, 12)
    case.X.data[::3] = 0
    check(close, case)


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array"])
def test_csr_matrix_and_csr_array_and_read_only(kind, close):
    case = sparse_case("logistic", 40, 12)
    X = getattr(sparse, kind)(case.X)
    want = case.problem().value_and_grad(case.w)
    for part in (X.data, X.indices, X.indptr):
        part.flags.writeable = False
    got = case.problem(X).value_and_grad(case.w)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])


def test_csr_is_not_copied():
    case = sparse_case("squared", 60, 8)
    problem = case.problem()
    before, _ = problem.value_and_grad(case.w)
    case.X.data *= 2
    after, _ = problem.value_and_grad(case.w)
    assert after != before
    assert after == pytest.approx(case.oracle()[0], rel=1e-12)


def test_csr_scale_applies_but_shift_would_fill_the_holes():
    case = sparse_case("squared", 30, 5)
    with pytest.raises(ValueError, match="shift"):
        _core.Problem(case.X, case.y, loss="squared", shift=1.0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
def test_csr_parts_of_the_pass(loss, dtype, close):
    case = sparse_case(loss, 90, 33, dtype, extras=("weights", "intercept"))
    arithmetic, size = dtype, case.magnitudes()
    wide = np.longdouble if dtype == "float64" else np.float64
    problem = case.problem()
    z = problem.margins(case.w)
    close(z, case.margins(wide), "margins", arithmetic, size.margins)
    v = np.random.default_rng(0).normal(size=z.shape).astype(z.dtype)
    fit = {k: case.how[k] for k in ("sample_weight", "fit_intercept")}
    absolute = sparse.csr_matrix((np.abs(case.X.data), case.X.indices, case.X.indptr), case.X.shape)
    close(
        problem.rmatvec(v),
        reference.rmatvec(case.X, v, dtype=wide, **fit),
        "rmatvec",
        arithmetic,
        reference.rmatvec(absolute, np.abs(v), **fit),
    )


def test_csr_compute_float64_on_float32_data(close):
    check(
        close, sparse_case("logistic", 100, 50, "float32", extras=("intercept",)), compute="float64"
    )


@settings(max_examples=80)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(LOSSES),
    st.sampled_from(["int32", "int64"]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(0, 3),
    st.integers(1, 8),
    st.sampled_from(ISAS),
)
def test_csr_matches_reference_for_any_pattern(
    close, n, d, loss, index, keep, seed, n_threads, isa
):
    case = sparse_case(loss, n, d, "float32", index, ("weights",), seed, keep)
    check(close, case, n_threads=n_threads, isa=isa)


def many_columns(index="int32", dtype="float64", n=1200, d=16500, per_row=190):
    """Words of texts: some columns everywhere, many in one row or a few neighbours, some in none.

    With twelve entries a column and more than 16384 columns rows are summed in parts, and later
    passes read the columns by new numbers.
    """
    rng = np.random.default_rng(3)
    columns = (d * rng.random((n, per_row)) ** 3).astype(np.int64)
    columns[:, :8] = d // 2 + np.arange(n)[:, None] // 40 * 8 + np.arange(8)  # in one part alone
    columns[::400, 9] = d - 1 - np.arange(0, n, 400)  # once
    keys = np.unique(rng.permutation(d)[columns] + d * np.arange(n)[:, None])
    pointers = np.searchsorted(keys, d * np.arange(n + 1))
    data = rng.normal(size=len(keys)).astype(dtype)
    X = sparse.csr_matrix((data, keys % d, pointers), shape=(n, d))
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    uses = np.bincount(X.indices, minlength=d)
    assert X.nnz >= 12 * d
    assert (uses == 0).any()
    assert (uses == 1).any()
    return X


@pytest.mark.parametrize(
    ("loss", "dtype", "index"),
    [
        ("logistic", "float64", "int32"),
        ("squared", "float32", "int64"),
        ("softmax", "float32", "int32"),
        ("softmax", "float64", "int64"),
    ],
)
def test_csr_rows_in_parts_match_reference_and_keep_their_bits(loss, dtype, index, close):
    X = many_columns(index, dtype)
    n, d = X.shape
    rng = np.random.default_rng(0)
    w = rng.normal(size=(d + 1, CLASSES) if loss == "softmax" else d + 1) / 9
    w = w.astype(np.float32).astype(np.float64)
    weights = rng.integers(1, 5, n) / 4
    how = {"loss": loss, "fit_intercept": True, "sample_weight": weights}
    case = Case(X, targets(loss, n, rng), w, how)
    check(close, case, n_threads=2)
    first = None
    for n_threads in THREADS:
        problem = case.problem(n_threads=n_threads)
        for _ in range(12):  # the columns get their new numbers on the way
            value, g = problem.value_and_grad(w)
            if first is None:
                first = value, g.tobytes()
            assert (value, g.tobytes()) == first
    v = rng.normal(size=(n, CLASSES) if loss == "softmax" else n).astype(dtype)
    assert problem.rmatvec(v).tobytes() == case.problem().rmatvec(v).tobytes()
    np.testing.assert_array_equal(g[:d][np.bincount(X.indices, minlength=d) == 0], 0)


def test_csr_rows_in_parts_read_data_where_they_lie_and_write_nothing_that_overflows():
    X = many_columns()
    rng = np.random.default_rng(0)
    y, w = targets("squared", X.shape[0], rng), rng.normal(size=X.shape[1])
    case = Case(X, y, w, {"loss": "squared"})
    problem = case.problem(n_threads=2)
    for _ in range(12):
        problem.value_and_grad(case.w)
    X.data *= 2
    value, g = problem.value_and_grad(case.w)
    fresh_value, fresh = case.problem(n_threads=1).value_and_grad(case.w)
    assert value == fresh_value
    assert g.tobytes() == fresh.tobytes()
    X.data[len(X.data) // 3] = np.nan
    out = np.full_like(g, 7.0)
    with pytest.raises(ValueError, match="row"):
        problem.value_and_grad(case.w, out)
    np.testing.assert_array_equal(out, 7.0)


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_spread_of_columns_is_that_of_their_mean_squares(dtype, index):
    rng = np.random.default_rng(0)
    X = np.where(rng.random((80, 40)) < 0.3, rng.normal(size=(80, 40)) * 10.0 ** rng.uniform(-1, 1, 40), 0.0)
    X[:, 5] = 0.0
    for columns in (40, 39):  # an odd and an even number of sizes
        part = X[:, :columns]
        squares, count = (part**2).sum(axis=0), (part != 0).sum(axis=0)
        sizes = squares[squares > 0] / count[squares > 0]
        got = problem_of(csr(part, index, dtype)).column_spread(1 << 20)
        assert got == pytest.approx(sizes.max() / np.median(sizes), rel=1e-5)
    assert problem_of(csr(np.ones((900, 7)), index, dtype)).column_spread(300) == 1.0
    assert problem_of(csr(np.zeros((3, 2)), index, dtype)).column_spread(10) == 1.0
    X[3, 3] = np.inf
    assert problem_of(csr(X, index, dtype)).column_spread(1 << 20) == np.inf
    with pytest.raises(ValueError, match="X is dense"):
        problem_of(np.ones((3, 2))).column_spread(10)
    with pytest.raises(ValueError, match="entries is 0"):
        problem_of(csr(X, index, dtype)).column_spread(0)


def problem_of(X, **how):
    return _core.Problem(X, np.zeros(X.shape[0]), loss="squared", **how)


def test_a_problem_like_another_takes_its_matrix_only_where_it_is_the_same():
    X = csr(np.random.default_rng(0).normal(size=(9, 5)) * (np.arange(5) % 2), dtype="float32")
    first = problem_of(X)
    w, other = np.arange(5.0), csr(np.ones((9, 5)), dtype="float32")
    for Z in (X, other, X.toarray()):
        wide = problem_of(Z, compute="float64", like=first)
        assert wide.compute == "float64"
        dense = np.asarray(Z.toarray() if hasattr(Z, "toarray") else Z, np.float64)
        np.testing.assert_allclose(wide.margins(w), dense @ w, rtol=1e-14)
    damaged = X.copy()
    damaged.indices[0] = 77
    with pytest.raises(ValueError, match="column 77"):
        problem_of(damaged, like=first)


@pytest.mark.parametrize(("n", "rows"), [(60, (0, 1, 30, 59)), (1000, (0, 333, 499, 500, 501, 999))])
def test_indices_out_of_order_are_found_in_any_row(n, rows):
    """The latter table has more entries than one thread looks at."""
    table = csr(np.where(np.random.default_rng(0).random((n, 300)) < 0.5, 1.0, 0.0))
    for row in rows:
        X = table.copy()
        at = X.indptr[row]
        X.indices[at], X.indices[at + 1] = X.indices[at + 1], X.indices[at]
        with pytest.raises(ValueError, match=f"not sorted in row {row}"):
            problem_of(X)
        X.indices[at] = X.indices[at + 1]
        with pytest.raises(ValueError, match=rf"twice \(duplicate\) in row {row}"):
            problem_of(X)
        X.indices[at] = -1
        with pytest.raises(ValueError, match=rf"column -1 in row {row}"):
            problem_of(X)


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_of_rare_columns_are_those_with_an_entry_in_one(dtype, index):
    rng = np.random.default_rng(0)
    for n, d in ((40, 6), (5000, 30)):
        X = np.where(rng.random((n, d)) < 10.0 ** -rng.uniform(0, 4, d), 1 + rng.random((n, d)), 0.0)
        rows = np.sort(rng.choice(n, n // 2, replace=False))
        rare = np.count_nonzero(X[rows], axis=0) < 4
        want = np.flatnonzero(X[:, rare].any(axis=1))
        for threads in THREADS:
            got = problem_of(csr(X, index, dtype), n_threads=threads).rows_of_rare_columns(rows, 4)
            np.testing.assert_array_equal(got, want)
        stored = csr(X, index, dtype)
        stored.data[:] = 0  # stored, but zero
        assert not problem_of(stored).rows_of_rare_columns(rows, 4).size
    assert not problem_of(csr(np.ones((9, 3)), index, dtype)).rows_of_rare_columns(np.arange(9), 9).size
    for bad in ([9], [-1]):
        with pytest.raises(ValueError, match="X has 9 rows"):
            problem_of(csr(np.ones((9, 3)), index, dtype)).rows_of_rare_columns(bad, 2)
    with pytest.raises(ValueError, match="X is dense"):
        problem_of(np.ones((3, 2))).rows_of_rare_columns([0], 2)
