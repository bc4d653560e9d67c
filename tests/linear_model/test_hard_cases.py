"""What goes wrong in practice: separation, collinearity, wild scales, nothing to learn from, NaN."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

from nagcore import linear_model as ours

REGRESSORS = [ours.Ridge(), ours.LinearRegression(), ours.Lasso(0.01), ours.ElasticNet(0.01), ours.RidgeCV(),
              ours.Ridge(positive=True), ours.Lasso(0.01, positive=True), ours.PoissonRegressor(),
              ours.LinearRegression(positive=True), ours.Ridge(solver="fista")]  # fmt: skip
CLASSIFIERS = [ours.LogisticRegression(), ours.LogisticRegression(solver="liblinear"), ours.RidgeClassifier(),
               ours.LogisticRegression(solver="saga", l1_ratio=1.0)]  # fmt: skip
everyone = pytest.mark.parametrize("model", REGRESSORS + CLASSIFIERS, ids=repr)
layouts = pytest.mark.parametrize("layout", [np.asarray, np.asfortranarray, sp.csr_matrix],
                                  ids=["C", "F", "csr"])  # fmt: skip


def table(n=80, d=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, X @ np.arange(1.0, d + 1) + rng.standard_normal(n), rng


def target(model, y):
    """y as numbers, as two classes, or as counts."""
    if model in CLASSIFIERS:
        return (y > np.median(y)).astype(int)
    return np.exp(y / np.abs(y).max()) if isinstance(model, ours.PoissonRegressor) else y


@pytest.mark.parametrize("several", [False, True])
def test_separated_classes_without_a_penalty_are_told_and_finite(several):
    X, _, _ = table()
    y = np.digitize(X[:, 0], [-0.5, 0.5] if several else [0.0])
    with pytest.warns(ConvergenceWarning, match="separated by a plane and C is infinite"):
        model = ours.LogisticRegression(C=np.inf, tol=1e-10).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1.0
    assert np.isfinite(model.predict_log_proba(X)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.LogisticRegression(C=1.0).fit(X, y)
        noisy = y.copy()
        noisy[:20] = noisy[:20][::-1]
        ours.LogisticRegression(C=np.inf).fit(X, noisy)


@everyone
@layouts
def test_constant_and_duplicate_columns_and_rows_of_zeros(model, layout):
    if layout is sp.csr_matrix and isinstance(model, ours.LinearRegression) and model.positive:
        pytest.skip("refuses sparse data, as scikit-learn's")
    X, y, _ = table()
    wide = np.column_stack([X, X[:, 0], np.full(len(X), 7.0), np.zeros(len(X))])
    wide[::9] = 0.0
    got = model.fit(layout(wide), target(model, y))
    assert np.isfinite(got.coef_).all()
    coef = np.ravel(got.coef_)
    assert coef[-1] == 0 or abs(coef[-1]) < 1e-12 * np.abs(coef).max()
    # Under l2 alone, or none, duplicates share; l1 and w ≥ 0 leave it open how.
    if not any(word in repr(model) for word in ("Lasso", "Elastic", "positive", "l1_ratio")):
        np.testing.assert_allclose(coef[0], coef[5], atol=1e-2 * np.abs(coef).max())
    assert np.isfinite(got.predict(layout(wide))).all()


@layouts
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(60, 8), (8, 30)])
def test_least_squares_of_deficient_rank_has_least_norm(layout, weighted, shape):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((shape[0], 4)) @ rng.standard_normal((4, shape[1])) + 5
    y, s = rng.standard_normal(shape[0]), rng.random(shape[0]) + 0.1 if weighted else None
    model = ours.LinearRegression().fit(layout(X), y, s)
    w = np.ones(len(y)) if s is None else s
    A, b = X - np.average(X, axis=0, weights=w), y - np.average(y, weights=w)
    want = np.linalg.lstsq(A * np.sqrt(w)[:, None], b * np.sqrt(w), rcond=1e-10)[0]
    np.testing.assert_allclose(model.coef_, want, atol=1e-9 * np.abs(want).max())
    if layout is not sp.csr_matrix:
        assert model.rank_ == 4


@everyone
def test_one_row_gives_its_own_target(model):
    X, y = np.array([[1.0, 2.0]]), np.array([3])
    if isinstance(model, ours.LogisticRegression):
        with pytest.raises(ValueError, match="only one class"):
            model.fit(X, y)
        return
    model.fit(X, y)
    np.testing.assert_allclose(model.predict(X), [3.0], rtol=1e-6)
    np.testing.assert_allclose(model.coef_, 0.0, atol=1e-12)


@everyone
def test_data_of_zeros_predict_the_mean(model):
    X, y, _ = table()
    y = target(model, y)
    model.fit(np.zeros_like(X), y)
    assert not np.any(model.coef_)
    if model not in CLASSIFIERS:
        np.testing.assert_allclose(model.predict(np.zeros((1, 5))), y.mean(), rtol=1e-4)


@pytest.mark.parametrize("model", [ours.LinearRegression(), ours.Ridge(1e-6), ours.Lasso(1e-9),
                                   ours.LogisticRegression(tol=1e-12, max_iter=5000)], ids=repr)  # fmt: skip
def test_weights_that_span_twelve_orders(model):
    X, y, rng = table()
    y = (y > 0).astype(int) if isinstance(model, ours.LogisticRegression) else y
    if isinstance(model, ours.LogisticRegression):
        y[::7] = 1 - y[::7]
    s = np.geomspace(1e-6, 1e6, len(y))[rng.permutation(len(y))]
    got = model.fit(X, y, s)
    if isinstance(model, ours.LogisticRegression):
        p = model.predict_proba(X)[:, 1]
        slope = X.T @ (s * (p - y)) + np.ravel(model.coef_)
        assert np.abs(slope).max() <= 1e-4 * np.abs(X.T @ (s * y)).max()
        return
    root = np.sqrt(s)
    A = (X - np.average(X, axis=0, weights=s)) * root[:, None]
    want = np.linalg.lstsq(A, (y - np.average(y, weights=s)) * root, rcond=None)[0]
    np.testing.assert_allclose(got.coef_, want, rtol=1e-5)


@layouts
def test_columns_that_span_eight_orders_are_solved(layout):
    X, y, _ = table()
    scale = np.geomspace(1e-4, 1e4, 5)
    want = ours.LinearRegression().fit(X, y)
    got = ours.LinearRegression().fit(layout(X * scale), y)
    np.testing.assert_allclose(got.coef_ * scale, want.coef_, rtol=1e-9)
    far = ours.LinearRegression().fit(layout(X * scale + 1e3), y)
    np.testing.assert_allclose(far.coef_[2:] * scale[2:], want.coef_[2:], rtol=1e-3)
    classes = (y > 0).astype(int)
    classes[::7] = 1 - classes[::7]
    one = ours.LogisticRegression(C=np.inf, tol=1e-12, max_iter=2000).fit(layout(X * scale), classes)
    two = ours.LogisticRegression(C=np.inf, tol=1e-12, max_iter=2000).fit(X, classes)
    np.testing.assert_allclose(one.coef_ * scale, two.coef_, rtol=1e-4)
    lasso = ours.Lasso(1e-12).fit(layout(X * scale), y)
    np.testing.assert_allclose(lasso.coef_ * scale, want.coef_, rtol=1e-3)


def test_columns_far_from_zero_keep_their_digits():
    X, y, _ = table()
    want = ours.Ridge(0.1).fit(X, y)
    got = ours.Ridge(0.1).fit(X + 1e7, y)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-6)


def test_nearly_collinear_columns_keep_the_digits_that_exist():
    """With a condition number of 1e9, normal equations have none; R of a QR factorisation has seven."""
    X, y, rng = table(200, 4)
    X = np.column_stack([X, X[:, 0] + 1e-9 * rng.standard_normal(200)])
    want = np.linalg.lstsq(X - X.mean(0), y - y.mean(), rcond=None)[0]
    np.testing.assert_allclose(ours.LinearRegression().fit(X, y).coef_, want, rtol=1e-4)


@pytest.mark.parametrize("model", [
    ours.LogisticRegression(max_iter=3, tol=1e-14), ours.PoissonRegressor(max_iter=3, tol=1e-14),
    ours.Ridge(max_iter=3, tol=1e-14, solver="fista"),
    ours.LogisticRegression(solver="saga", l1_ratio=1.0, max_iter=3, tol=1e-14),
], ids=repr)  # fmt: skip
def test_too_few_iterations_are_warned_of_with_the_gap_reached(model):
    X, y, _ = table()
    y = np.exp(y / 10) if isinstance(model, ours.PoissonRegressor) else y
    y = (y > 0).astype(int) if isinstance(model, ours.LogisticRegression) else y
    with pytest.warns(ConvergenceWarning, match=r"max_iter=3 reached with a relative gap of \d"):
        model.fit(X, y)
    assert np.isfinite(model.coef_).all()


@everyone
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_every_route(model, bad):
    X, y, _ = table()
    good = target(model, y)
    broken = X.copy()
    broken[7, 2] = bad
    ways = [np.asarray, np.asfortranarray, sp.csr_matrix, list, lambda a: a.astype(np.float32)]
    if isinstance(model, ours.LinearRegression) and model.positive:
        ways.remove(sp.csr_matrix)
    for layout in ways:
        with pytest.raises(ValueError, match=r"NaN|[Ii]nf"):
            model.fit(layout(broken), good)
    fitted = model.fit(X, good)
    for layout in ways:
        with pytest.raises(ValueError, match=r"NaN|[Ii]nf"):
            fitted.predict(layout(broken))
    weights = np.ones(len(y))
    weights[3] = bad
    with pytest.raises(ValueError, match=r"NaN|[Ii]nf|[Nn]egative"):
        model.fit(X, good, weights)
    numbers = good.astype(float)
    numbers[3] = bad
    with pytest.raises(ValueError, match=r"NaN|[Ii]nf"):
        model.fit(X, numbers)


@everyone
def test_bad_weights_are_refused(model):
    X, y, _ = table()
    y = target(model, y)
    for weights, message in ((-np.ones(len(y)), "[Nn]egative"), (np.zeros(len(y)), "non-zero"),
                             (np.ones(3), "shape|inconsistent")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            model.fit(X, y, weights)


@pytest.mark.parametrize("model", [ours.LogisticRegression(), ours.LogisticRegressionCV()], ids=repr)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_one_class_is_refused(model):
    X, _, _ = table()
    with pytest.raises(ValueError, match="only one class"):
        model.fit(X, np.ones(len(X)))


@pytest.mark.parametrize("shape", [(80, 5), (10, 40)])
def test_numbers_whose_squares_overflow_are_one_clear_error(shape):
    X, y, _ = table(*shape)
    for model in (ours.Ridge(), ours.RidgeCV(), ours.LinearRegression(), ours.Lasso(), ours.LassoCV(cv=2)):
        with pytest.raises(ValueError, match=r"squares overflow float64.*X / np.abs\(X\)"):
            model.fit(X * 1e160, y)
