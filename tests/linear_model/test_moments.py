"""Second moments: the same from blocks, from the kernels, and from parts; least squares from each."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from nagcore.linear_model import _active_set, _moments
from nagcore.linear_model._least_squares import fits, least_squares
from nagcore.penalties import Penalty


def table(n=900, d=6, far=3.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.geomspace(0.1, 10, d) + far
    return X, rng.standard_normal((n, 2)) + 5, rng.random(n) + 0.1


def naive(X, Y, s, fit_intercept):
    w = np.ones(len(X)) if s is None else s
    mx = np.average(X, axis=0, weights=w) * fit_intercept
    my = np.average(Y, axis=0, weights=w) * fit_intercept
    A, B, S = X - mx, Y - my, w.sum()
    return mx, my, (A * w[:, None]).T @ A / S, (A * w[:, None]).T @ B / S, (w[:, None] * B * B).sum(0) / S


@pytest.mark.parametrize("layout", ["C", "F", "float32", "csr", "thin csr"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_moments_equal_sums_by_hand(layout, weighted, fit_intercept, large, monkeypatch):
    monkeypatch.setattr(_moments, "_LARGE", 1 if large else 1 << 60)
    X, Y, s = table()
    s = s if weighted else None
    if layout == "thin csr":
        X[np.random.default_rng(1).random(X.shape) > 0.03] = 0
    if layout == "float32":
        X = X.astype(np.float32)
    ways = {"F": np.asfortranarray, "csr": sp.csr_matrix, "thin csr": sp.csr_matrix}
    given = ways.get(layout, np.asarray)(X)
    origin = _moments.origin_of(given, Y, fit_intercept)
    q = _moments.moments(given, Y, s, origin).quadratic(fit_intercept)
    for got, want in zip((q.mean_x, q.mean_y, q.G, q.c, q.yy), naive(X.astype(float), Y, s, fit_intercept)):
        assert_allclose(got, want, rtol=1e-10, atol=1e-10 * np.abs(want).max())


def test_moments_of_parts_add_up():
    X, Y, s = table()
    origin = _moments.origin_of(X, Y, True)
    rows = np.random.default_rng(0).permutation(len(X))
    parts = [_moments.moments(X, Y, s, origin, part) for part in (rows[:300], rows[300:310], rows[310:])]
    whole, added = _moments.moments(X, Y, s, origin), sum(parts[1:], parts[0])
    for name in ("total", "x", "y", "xx", "xy", "yy"):
        assert_allclose(getattr(added, name), getattr(whole, name), rtol=1e-11, atol=1e-9)
    block = _moments.moments(X, Y, s, origin, np.arange(100, 400))
    assert_allclose(block.xx, _moments.moments(X[100:400], Y[100:400], s[100:400], origin).xx)


def test_columns_far_from_zero_do_not_go_to_the_kernels(monkeypatch):
    monkeypatch.setattr(_moments, "_LARGE", 1)
    X, Y, _ = table(far=1e7)
    q = _moments.moments(X, Y, None, _moments.origin_of(X, Y, True)).quadratic(True)
    assert_allclose(q.G, np.cov(X.T, bias=True), rtol=1e-6, atol=1e-6)


def test_which_shapes_are_factorised():
    for shape, expected in (
        ((10**6, 100), True), ((100, 10**5), True), ((10**6, 600), False), ((5000, 1500), True),
    ):  # fmt: skip
        X = np.lib.stride_tricks.as_strided(np.zeros(1), shape, (0, 0))
        assert fits(X) is expected
    assert not fits(np.zeros((100, 3000)), positive=True)


@pytest.mark.parametrize("positive", [False, True])
def test_ill_conditioned_least_squares_satisfies_its_normal_equations(positive):
    X, Y, s = table()
    X = np.column_stack([X, X[:, 0] + 1e-7 * np.sin(np.arange(len(X)))])
    found = least_squares(X, Y, s, np.zeros(2), fit_intercept=True, positive=positive)
    r = (Y - X @ found.coef.T - found.intercept) * s[:, None]
    slope = (X - np.average(X, axis=0, weights=s)).T @ r
    free = found.coef.T > 0 if positive else np.ones_like(slope, bool)
    assert np.abs(slope[free]).max() <= 1e-5
    assert (slope[~free] <= 1e-5).all()


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_active_sets_end_at_the_optimum_of_hard_problems(positive, l2):
    rng = np.random.default_rng(3)
    for _ in range(40):
        d, n = int(rng.integers(2, 50)), int(rng.integers(3, 60))
        X = rng.standard_normal((n, d)) @ (np.eye(d) + 2 * rng.standard_normal((d, d)))
        y = X @ (rng.standard_normal(d) * (rng.random(d) < 0.3)) + rng.standard_normal(n)
        q = _moments.moments(X, y[:, None], None, _moments.origin_of(X, y[:, None], True)).quadratic(True)
        largest = np.abs(q.c).max()
        penalty = Penalty(l2=l2 * largest, l1=largest * 10 ** rng.uniform(-4, -0.1), positive=positive)
        found = _active_set.sparse_least_squares(q, 0, penalty, None, 1e-10, 1e5)
        assert found.converged
        assert 0 <= found.gap <= 1e-8 * q.yy[0]
        g = q.c[:, 0] - q.G @ found.w - penalty.l2 * found.w
        active = found.w != 0
        assert_allclose(g[active], penalty.l1 * np.sign(found.w[active]), atol=1e-8 * largest)
        assert ((g if positive else np.abs(g))[~active] <= penalty.l1 + 1e-8 * largest).all()


def test_where_active_sets_fail_passes_over_the_root_of_g_arrive(monkeypatch):
    X, Y, _ = table()
    q = _moments.moments(X, Y, None, _moments.origin_of(X, Y, True)).quadratic(True)
    penalty = Penalty(l1=0.02, l2=0.01)
    want = _active_set.sparse_least_squares(q, 1, penalty, None, 1e-10, 1e5)
    monkeypatch.setattr(_active_set, "_settle", lambda *args: (None, 1))
    monkeypatch.setattr(_active_set, "_walk", lambda *args: (None, 1))
    got = _active_set.sparse_least_squares(q, 1, penalty, None, 1e-10, 1e5)
    assert_allclose(got.w, want.w, atol=1e-4 * np.abs(want.w).max() + 1e-6)
