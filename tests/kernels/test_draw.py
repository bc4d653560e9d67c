"""Draws of rows, means over rows and slopes along margins, against NumPy's; the same bits on any threads."""

import numpy as np
import pytest

from nagcore import _core


def reference(n, m, start, weights, shares, apart, lift):
    """Systematic sampling from the sums of all probabilities, in float64."""
    s = np.ones(n) if shares is None else shares
    weights = np.ones(n) if weights is None else weights.astype(np.float64)
    mean = (s * weights).sum() / s.sum()
    v = weights + lift * mean
    p = 0.9 * s * v / (s * v).sum() + 0.1 / n
    p[s == 0] = 0.0
    p[apart] = 0.0
    sums = np.cumsum(p)
    points = (np.arange(m) + start) * (sums[-1] / m)
    return p, sums, points, v, mean


@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000, 8192, 30_001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, None])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_drawn_by_their_probabilities(n, dtype, weighted):
    rng = np.random.default_rng(n)
    weights = None if dtype is None else (rng.random(n) ** 6).astype(dtype)
    shares = rng.random(n) ** 3 * (rng.random(n) < 0.8) if weighted else None
    if weighted:
        shares[0] = 1.0
    apart = np.flatnonzero(rng.random(n) < 0.05)
    apart = apart[apart > 0]
    for m in {1, max(1, n // 3), n, 2 * n}:
        start = rng.random()
        rows, factors, mean = _core.draw_rows(n, m, start, weights, shares, apart, 0.01)
        p, sums, points, v, true_mean = reference(n, m, start, weights, shares, apart, 0.01)
        assert mean == pytest.approx(true_mean, rel=1e-12)
        assert len(rows) == len(factors) == m
        assert (np.diff(rows) >= 0).all()
        assert (p[rows] > 0).all()
        # Each point lies in its row's share of the sums, up to rounding.
        slack = 1e-12 * sums[-1]
        assert (points <= sums[rows] + slack).all()
        assert (points >= sums[rows] - p[rows] - slack).all()
        np.testing.assert_allclose(factors, v[rows] * sums[-1] / (m * p[rows]), rtol=1e-9)


def test_draws_estimate_sums_without_bias():
    """Over all starts a row is drawn by its probability, so the estimate's mean is the sum itself."""
    rng = np.random.default_rng(0)
    n, m = 500, 40
    weights, shares, x = rng.random(n) ** 4, rng.random(n), rng.normal(size=n)
    starts = (np.arange(4000) + 0.5) / 4000
    total = 0.0
    for start in starts:
        rows, factors, _ = _core.draw_rows(n, m, start, weights, shares)
        total += (shares[rows] * factors * x[rows]).sum()
    assert total / len(starts) == pytest.approx((shares * weights * x).sum(), abs=2e-2 * shares.sum() / 10)


def test_nothing_is_drawn_where_nothing_is_left():
    rows, factors, mean = _core.draw_rows(40, 8, 0.5, np.ones(40), None, np.arange(40))
    assert len(rows) == len(factors) == 0
    assert mean == 1.0
    rows, factors, _ = _core.draw_rows(40, 8, 0.5, np.zeros(40, np.float32))
    assert len(rows) == 8
    assert not factors.any()
    shares = np.zeros(40)
    shares[7] = 2.0
    rows, _, mean = _core.draw_rows(40, 3, 0.5, np.arange(40.0), shares)
    assert (rows == 7).all()
    assert mean == 7.0
    assert len(_core.draw_rows(40, 3, 0.5, np.ones(40), None, np.zeros(0, np.int64))[0]) == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_no_bit(dtype):
    rng = np.random.default_rng(0)
    n = 50_001
    weights, shares = rng.random(n).astype(dtype), rng.random(n)
    z = rng.normal(size=(2, n)).astype(dtype)
    X, y = rng.normal(size=(n, 3)).astype(dtype), rng.integers(0, 2, n).astype(float)

    def all_of(threads):
        problem = _core.Problem(X, y, loss="logistic", sample_weight=shares, n_threads=threads)
        return (
            *_core.draw_rows(n, 4000, 0.25, weights, shares, np.arange(0, n, 7), 0.01, threads),
            _core.row_mean(weights, shares, threads), _core.mean_size(z[0], None, z[1], threads),
            _core.rows_unlike(weights, float(weights[3]), threads),
            *_core.off_usual(X, np.arange(0, n, 20), threads),
            problem.slope_along(z[0], z[1], 0.3), problem.residual_size(z[0]),
        )

    first = all_of(1)
    for threads in (2, 3, 5):
        for a, b in zip(first, all_of(threads), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 9, 8192, 20_000])
def test_means_over_rows(dtype, n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, n)).astype(dtype)
    s = rng.random(n)
    wide = x.astype(np.float64)
    assert _core.row_mean(x) == pytest.approx(wide.mean(), rel=1e-12, abs=1e-14)
    assert _core.row_mean(x, s) == pytest.approx((s * wide).sum(), rel=1e-12, abs=1e-12)
    assert _core.mean_size(x) == pytest.approx(np.abs(wide).mean(), rel=1e-12)
    assert _core.mean_size(x, s, y) == pytest.approx((s * np.abs(wide - y)).sum(), rel=1e-12)
    assert np.isnan(_core.row_mean(np.r_[x, np.nan].astype(dtype)))
    z = np.where(rng.random(n) < 0.1, x, dtype(2.5))
    np.testing.assert_array_equal(_core.rows_unlike(z, 2.5), np.flatnonzero(z != 2.5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_columns_off_their_usual_number(dtype, layout):
    rng = np.random.default_rng(0)
    X = (rng.integers(0, 3, (900, 10)) * (rng.random((900, 10)) < 0.1) + 1).astype(dtype)
    if layout == "F":
        X = np.asfortranarray(X)
    elif layout == "strided":
        X = np.repeat(X, 2, axis=1)[:, ::2]
    rows = np.sort(rng.choice(900, 600, replace=False))
    off, usual = _core.off_usual(X, rows)
    want = np.sort(X[rows[:3]], axis=0)[1]
    np.testing.assert_array_equal(usual, want)
    np.testing.assert_array_equal(off, (X[rows] != want).sum(axis=0))
    np.testing.assert_array_equal(_core.off_usual(X, rows[:1])[0], np.zeros(10))


@pytest.mark.parametrize("loss", ["logistic", "squared", "huber", "poisson", "squared_hinge", "softmax"])
@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_slopes_along_a_segment_and_sizes_of_residuals(loss, compute):
    rng = np.random.default_rng(0)
    n, k = 5003, 3 if loss == "softmax" else 1
    X = rng.normal(size=(n, 4)).astype(compute)
    y = rng.integers(0, k if k > 1 else 2, n).astype(float)
    s = rng.random(n)
    problem = _core.Problem(X, y, loss=loss, sample_weight=s, offset=None)
    shape = (n, k) if k > 1 else (n,)
    z, z_end = rng.normal(size=(2, *shape)).astype(compute)
    r, h = np.empty_like(z), z_end.astype(float) - z
    for t in (0.0, 0.3, 1.0):
        problem.loss_from_margins(z + z.dtype.type(t) * (z_end - z), r)
        terms = (r * h).reshape(n, -1).sum(axis=1) * s / s.sum()
        assert problem.slope_along(z, z_end, t) == pytest.approx(terms.sum(), rel=1e-5, abs=1e-7)
    if k == 1:
        problem.loss_from_margins(z, r)
        assert problem.residual_size(z) == pytest.approx((np.abs(r) * s).sum() / s.sum(), rel=1e-5)
    else:
        with pytest.raises(ValueError, match="one margin a sample"):
            problem.residual_size(z)


def test_factors_multiply_what_drawn_rows_count():
    rng = np.random.default_rng(0)
    from scipy import sparse

    n, d = 3000, 6
    X, y, s, v = rng.normal(size=(n, d)), rng.integers(0, 2, n).astype(float), rng.random(n), rng.random(n)
    X *= rng.random((n, d)) < 0.3
    rows = np.sort(rng.integers(0, n, 700))
    factors = rng.random(700)
    for data in (X, sparse.csr_matrix(X), X.astype(np.float32)):
        problem = _core.Problem(data, y, loss="logistic", sample_weight=s, fit_intercept=True)
        Z = np.c_[X, np.ones(n)][rows]
        for weights, each in ((None, 1.0), (v, v[rows])):
            want = (Z.T * (factors * each * s[rows])) @ Z / s.sum()
            got = problem.gram(weights, rows, None, factors)
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="factors are one for each of rows"):
        problem.gram(None, None, None, factors)
    with pytest.raises(ValueError, match="factors has shape"):
        problem.gram(None, rows, None, factors[:-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_for_rows_is_used_again(dtype):
    n = 1 << 18
    a = _core.empty_rows((n,), dtype)
    a.fill(1)
    place = a.ctypes.data
    assert (a.shape, a.dtype, a.flags.writeable) == ((n,), np.dtype(dtype), True)
    b = _core.empty_rows((n,), dtype)
    assert not np.shares_memory(a, b)
    del a
    c = _core.empty_rows((n // 2, 2), dtype)
    assert c.ctypes.data == place
    assert c.shape == (n // 2, 2)
    assert _core.empty_rows((3,), dtype).shape == (3,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (300, 7), (66, 16), (5000, 130)])
def test_rows_are_taken(dtype, shape):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 200, shape).astype(dtype)
    for rows in (np.arange(shape[0]), rng.integers(0, shape[0], 3 * shape[0]), np.array([shape[0] - 1])):
        apart = np.repeat(X, 2, axis=1)[:, ::2]
        for given in (X, X[::-1], np.c_[X, X][:, : shape[1]], np.asfortranarray(X), apart):
            got = _core.take_rows(given, rows, 2)
            np.testing.assert_array_equal(got, given[rows])
            assert got.dtype == dtype
            assert got.flags.c_contiguous


@pytest.mark.parametrize(("call", "words"), [
    (lambda: _core.take_rows(np.ones(4), np.arange(2)), "a 2-D array of numbers is needed"),
    (lambda: _core.take_rows(np.ones((4, 4)), np.array([4])), "numbers from 0 to 3"),
    (lambda: _core.take_rows(np.ones((4, 4)), np.zeros(0, int)), "at least one row number"),
    (lambda: _core.draw_rows(0, 1, 0.5), "both must be at least 1"),
    (lambda: _core.draw_rows(5, 1, 1.0), "start is 1"),
    (lambda: _core.draw_rows(5, 1, 0.5, np.ones(4)), "weights has dtype float64 and shape"),
    (lambda: _core.draw_rows(5, 1, 0.5, np.ones(5), np.ones(5, np.float32)), "shares has dtype float32"),
    (lambda: _core.draw_rows(5, 1, 0.5, np.ones(5), None, [3, 2]), "ascending order"),
    (lambda: _core.draw_rows(5, 1, 0.5, np.ones(5), None, [5]), "row numbers below 5"),
    (lambda: _core.row_mean(np.ones(0)), "x is empty"),
    (lambda: _core.row_mean(np.ones(4)[::2]), "contiguous vector"),
    (lambda: _core.mean_size(np.ones(4), None, np.ones(4, np.float32)), "different dtypes"),
    (lambda: _core.off_usual(np.ones((3, 2), int), np.arange(2)), "X has dtype int64"),
    (lambda: _core.off_usual(np.ones((3, 2)), np.array([3])), "rows holds 3"),
])
def test_what_cannot_be_taken_is_one_clear_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
