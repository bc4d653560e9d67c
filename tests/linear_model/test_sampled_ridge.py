"""Ridge by conjugate gradients on all rows, with the Gram matrix of some as preconditioner."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from nagcore.linear_model import Ridge, RidgeClassifier, _ridge, _sampled


def table(n=30_000, d=30, dtype=np.float64, condition=1e2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.geomspace(1, condition**-0.5, d)
    X = X @ np.linalg.qr(rng.standard_normal((d, d)))[0] + 0.5
    y = X @ rng.standard_normal(d) + 0.7 * rng.standard_normal(n) + 2
    return X.astype(dtype), y


def solution(X, y, alpha, s=None, fit_intercept=True):
    """The normal equations of centred columns in float64, refined once."""
    X, w = X.astype(np.float64), np.ones(len(y)) if s is None else s
    mx = np.average(X, axis=0, weights=w) * fit_intercept
    my = np.average(y, weights=w) * fit_intercept
    A, r = (X - mx) * np.sqrt(w)[:, None], (y - my) * np.sqrt(w)
    D = 1 / np.sqrt((A * A).sum(0) + alpha)
    H = (A.T @ A + alpha * np.eye(len(D))) * D * D[:, None]
    coef = D * np.linalg.solve(H, D * (A.T @ r))
    coef = coef + D * np.linalg.solve(H, D * (A.T @ (r - A @ coef) - alpha * coef))
    return coef, my - coef @ mx


@pytest.fixture
def always(monkeypatch):
    """Every table is worth sampling, whatever its tails."""
    monkeypatch.setattr(_ridge, "plan", lambda n, p, *_: _sampled.Plan(min(60 * p, n // 2), 6, 40.0))
    monkeypatch.setattr(_ridge, "heavy_tailed", lambda X: False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_equals_the_normal_equations(dtype, fit_intercept, weighted, layout, alpha, always):
    X, y = table(dtype=dtype)
    s = np.random.default_rng(1).exponential(size=len(y)) if weighted else None
    model = Ridge(alpha=alpha, fit_intercept=fit_intercept).fit(np.asarray(X, order=layout), y, s)
    assert model.solver_ == "cg"
    coef, intercept = solution(X, y, alpha, s, fit_intercept)
    size = np.abs(coef * X.std(0)).max() / X.std(0)
    allowed = 3e-7 if dtype == np.float32 else 3e-11
    assert (np.abs(model.coef_ - coef) <= allowed * size).all()
    assert abs(model.intercept_ - intercept) <= allowed * (abs(intercept) + np.abs(coef).sum())
    assert model.coef_.dtype == dtype
    assert 2 <= model.n_iter_[0] <= 12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_at_least_as_exact_as_cholesky_in_the_same_dtype(dtype, always):
    from sklearn.linear_model import Ridge as Theirs

    X, y = table(dtype=dtype, condition=1e4)
    coef, _ = solution(X, y, 1.0)
    ours, theirs = Ridge().fit(X, y), Theirs(solver="cholesky").fit(X, y)
    assert ours.solver_ == "cg"
    rounding = np.finfo(dtype).eps if dtype == np.float32 else 1e-11
    error = np.abs(ours.coef_ - coef).max()
    assert error <= max(np.abs(theirs.coef_ - coef).max(), rounding * np.abs(coef).max())


def test_the_gap_that_is_left_is_below_tol(always):
    """Before its last step, which needs no read, the fit has a gap below tol; after it one far below."""
    X, y = table(n=20_000)
    coef, intercept = solution(X, y, 1.0)

    def value(w, b):
        r = X @ w + b - y
        return r @ r + w @ w

    best, null = value(coef, intercept), np.sum((y - y.mean()) ** 2)
    for tol in (1e-1, 1e-4, 1e-9):
        model = Ridge(tol=tol).fit(X, y)
        assert model.solver_ == "cg"
        # tol adds to what the coefficients' own accuracy asks for, and takes nothing from it.
        assert value(model.coef_, model.intercept_) - best <= 1e-13 * (null - best)
    A = X - X.mean(0)
    g = A.T @ (A @ model.coef_ - (y - y.mean())) + model.coef_
    assert np.abs(g).max() <= 1e-10 * np.abs(A.T @ (y - y.mean())).max()


def test_float32_coefficients_are_right_to_their_rounding_at_any_tol(always):
    X, y = table(n=60_000, dtype=np.float32, condition=1e3)
    coef, _ = solution(X, y, 1.0)
    for tol in (1e-1, 1e-12):
        model = Ridge(tol=tol).fit(X, y)
        assert model.solver_ == "cg"
        assert np.abs(model.coef_ - coef).max() <= 2e-7 * np.abs(coef).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_of_any_unit_and_weights_spanning_1e12(dtype, always):
    rng = np.random.default_rng(3)
    X, y = table(n=60_000, d=12)
    X = ((X - 0.5) * np.geomspace(1e-4, 1e4, 12)).astype(dtype)
    s = 10.0 ** rng.uniform(-12, 0, len(y))
    for weights in (None, s):
        model = Ridge(alpha=1e-6).fit(X, y, weights)
        coef, _ = solution(X, y, 1e-6, weights)
        scale = X.astype(np.float64).std(0)
        assert (np.abs(model.coef_ - coef) * scale).max() <= 1e-6 * (np.abs(coef) * scale).max()


def hard(kind):
    rng = np.random.default_rng(4)
    X, y = table(n=8_000, d=12, dtype=np.float32)
    if kind == "duplicate":
        X[:, 3] = X[:, 4]
    elif kind == "nearly collinear":
        X = X.astype(np.float64)
        X[:, 3] = X[:, 4] + 1e-7 * rng.standard_normal(len(X))
    elif kind == "far":
        X = X + np.float32(3000)
    elif kind == "target far":
        y = y + 1e6
    elif kind == "constant":
        X[:, 2] = 7
    elif kind == "leverage":
        X[rng.choice(len(X), 20, replace=False)] *= np.float32(1e4)
    elif kind == "tiny":
        X *= np.float32(1e-18)
    else:
        assert kind == "huge"
        X *= np.float32(1e20)
    return X, y


@pytest.mark.parametrize(
    "kind",
    ["duplicate", "nearly collinear", "far", "target far", "constant", "leverage", "tiny", "huge"],
)
def test_hard_tables_are_solved_as_cholesky_solves_them(kind, always):
    X, y = hard(kind)
    alpha = {"tiny": 1e-36, "huge": 1e36, "nearly collinear": 1e-10}.get(kind, 1e-6)
    model, other = Ridge(alpha=alpha).fit(X, y), Ridge(alpha=alpha, solver="cholesky").fit(X, y)
    assert other.solver_ == "cholesky"
    if kind in ("nearly collinear", "far", "target far", "constant", "tiny", "huge"):
        assert model.solver_ == "cholesky"
    scale = X.astype(np.float64).std(0)
    if kind != "nearly collinear":
        difference = (np.abs(model.coef_.astype(np.float64) - other.coef_) * scale).max()
        assert difference <= 1e-6 * (np.abs(other.coef_.astype(np.float64)) * scale).max()
    np.testing.assert_allclose(model.predict(X[:50]), other.predict(X[:50]), rtol=1e-3, atol=1e-3 * y.std())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_that_X_does_not_explain(dtype, always):
    """Coefficients of no size have no digits to be right in: the fit ends nonetheless."""
    X, y = table(n=20_000, dtype=dtype)
    for target in (np.zeros(len(y)), np.full(len(y), 3.0), np.random.default_rng(0).standard_normal(len(y))):
        model = Ridge().fit(X, target)
        coef, _ = solution(X, target, 1.0)
        allowed = 1e-10 if dtype == np.float64 else 2e-7
        assert np.abs(model.coef_ - coef).max() <= 1e-12 + allowed * np.abs(coef).max()


def test_rare_columns_are_in_the_sample(always):
    rng = np.random.default_rng(5)
    X, y = table(n=30_000, d=10)
    rare = np.zeros((len(y), 3))
    rare[rng.choice(len(y), 9, replace=False), np.repeat([0, 1, 2], 3)] = 1
    X = np.hstack([X, rare])
    model = Ridge(alpha=0.1).fit(X, y)
    assert model.solver_ == "cg"
    np.testing.assert_allclose(model.coef_, solution(X, y, 0.1)[0], rtol=1e-9, atol=1e-9)


def test_the_plan_weighs_reads_against_products():
    assert _sampled.plan(1_000_000, 100, 4).reads == 4
    assert _sampled.plan(1_000_000, 1000, 8) is not None
    for n, p, item in ((1_000_000, 30, 4), (17_379, 62, 4), (1_000_000, 100, 8), (5_000, 500, 4)):
        assert _sampled.plan(n, p, item) is None
    assert _sampled.plan(1_000_000, 100, 4, True) is None  # drawing by weight costs what it would save
    assert _sampled.plan(1_000_000, 200, 4, True) is not None
    assert _sampled.plan(10**7, 3000, 4) is None  # a matrix of the columns is too large to have
    wide, narrow = _sampled.plan(1_000_000, 500, 4), _sampled.plan(1_000_000, 100, 4)
    assert wide.reads > narrow.reads
    assert wide.rows < 300 * 500
    assert wide.instead > 5 * narrow.instead / 1.01


def test_a_large_table_is_fitted_so_and_others_are_not():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100_000, 400), dtype=np.float32)
    y = X[:, :5].sum(1) + rng.standard_normal(len(X))
    chosen = Ridge().fit(X, y)
    assert chosen.solver_ == "cg"
    assert chosen.n_iter_[0] <= 9
    exact = Ridge(solver="cholesky").fit(X, y)
    assert (exact.solver_, exact.n_iter_) == ("cholesky", None)
    assert np.abs(chosen.coef_ - exact.coef_).max() <= 2e-7
    assert RidgeClassifier().fit(X, y > 0).solver_ == "cg"
    again = Ridge().fit(X, y)
    np.testing.assert_array_equal(again.coef_, chosen.coef_)


def test_what_is_not_sampled(always):
    X, y = table(n=4_000, d=10)
    for model, data, target in (
        (Ridge(alpha=0.0), X, y),
        (Ridge(positive=True), X, y),
        (Ridge(solver="svd"), X, y),
        (Ridge(), X, np.column_stack([y, y])),
        (Ridge(), sp.csr_matrix(X), y),
        (Ridge(), np.repeat(X, 2, axis=1)[:, ::2], y),
        (Ridge(), np.abs(X * 20).astype(np.uint8), y),
    ):
        assert model.fit(data, target).solver_ == "cholesky"
    with pytest.raises(ValueError, match="X holds NaN or infinity"):
        Ridge().fit(np.where(X > 1, np.nan, X), y)


def test_heavy_tails_are_seen_before_a_read_is_spent(monkeypatch):
    monkeypatch.setattr(_ridge, "plan", lambda n, p, *_: _sampled.Plan(min(60 * p, n // 2), 6, 40.0))

    def never(*args, **kwargs):
        raise AssertionError("sampled")

    rng = np.random.default_rng(0)
    X, y = rng.standard_t(2.1, (40_000, 30)).astype(np.float32), rng.standard_normal(40_000)
    monkeypatch.setattr(_ridge, "sampled_ridge", never)
    assert Ridge().fit(X, y).solver_ == "cholesky"
    with pytest.raises(AssertionError, match="sampled"):
        Ridge().fit(rng.standard_normal(X.shape), y)
