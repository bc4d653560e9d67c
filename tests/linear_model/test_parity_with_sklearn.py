"""The estimators reach scikit-learn's solutions: losses × penalties × weights × intercepts × layouts."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.linear_model as theirs
from sklearn.base import clone

from nagcore import linear_model as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning:sklearn")


def table(layout: str, n: int = 400, d: int = 12, seed: int = 0):
    """Correlated columns of unlike scale, regression targets, two and three classes, and weights."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    X = X * np.geomspace(0.1, 10, d) + rng.standard_normal(d)
    signal = (X - X.mean(0)) / X.std(0) @ rng.standard_normal(d)
    y = signal + 0.5 * rng.standard_normal(n)
    classes = np.digitize(signal + rng.standard_normal(n), np.quantile(signal, [1 / 3, 2 / 3]))
    if layout == "F":
        X = np.asfortranarray(X)
    elif layout == "csr":
        X = sp.csr_matrix(np.where(rng.random((n, d)) < 0.4, X, 0))
    return X, y, (signal > 0).astype(int) ^ (rng.random(n) < 0.1), classes, rng.random(n) + 0.2


LAYOUTS = ["C", "F", "csr"]
both = pytest.mark.parametrize("weighted", [False, True])
intercepts = pytest.mark.parametrize("fit_intercept", [True, False])


def same(mine, other, tolerance=1e-6):
    scale = np.abs(other.coef_).max() + np.abs(other.intercept_).max()
    assert np.abs(mine.coef_ - other.coef_).max() <= tolerance * scale
    assert np.abs(mine.intercept_ - other.intercept_).max() <= 10 * tolerance * scale
    assert mine.coef_.shape == other.coef_.shape


@pytest.mark.parametrize("layout", LAYOUTS)
@both
@intercepts
@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("several", [False, True])
def test_logistic_regression_equals_sklearns(layout, weighted, fit_intercept, C, several):
    X, _, two, three, s = table(layout)
    y, s = (three if several else two), s if weighted else None
    keywords = {"C": C, "fit_intercept": fit_intercept, "max_iter": 20_000}
    mine = ours.LogisticRegression(tol=1e-13, **keywords).fit(X, y, sample_weight=s)
    other = theirs.LogisticRegression(tol=1e-10, solver="newton-cg", **keywords).fit(X, y, sample_weight=s)
    same(mine, other, 2e-6)
    assert np.array_equal(mine.predict(X), other.predict(X))
    np.testing.assert_allclose(mine.predict_proba(X), other.predict_proba(X), atol=1e-5)
    assert mine.score(X, y) == other.score(X, y)


@pytest.mark.parametrize("layout", LAYOUTS)
@both
@intercepts
@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_ridge_equals_sklearns(layout, weighted, fit_intercept, alpha):
    X, y, _, _, s = table(layout)
    s = s if weighted else None
    mine = ours.Ridge(alpha=alpha, fit_intercept=fit_intercept, tol=1e-14, max_iter=20_000).fit(X, y, s)
    solver = "sparse_cg" if layout == "csr" else "cholesky"
    other = theirs.Ridge(alpha=alpha, fit_intercept=fit_intercept, tol=1e-14, solver=solver).fit(X, y, s)
    same(mine, other)


@pytest.mark.parametrize("layout", ["C", "F"])
@both
@intercepts
def test_linear_regression_equals_sklearns(layout, weighted, fit_intercept):
    X, y, _, _, s = table(layout)
    s = s if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing certifies l2 = 0; the coefficients are what counts here
        mine = ours.LinearRegression(fit_intercept=fit_intercept, tol=1e-14).fit(X, y, s)
    same(mine, theirs.LinearRegression(fit_intercept=fit_intercept).fit(X, y, s), 2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@both
@intercepts
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_lasso_and_elastic_net_equal_sklearns(layout, weighted, fit_intercept, l1_ratio):
    X, y, _, _, s = table(layout)
    s = s if weighted else None
    keywords = {"alpha": 0.05, "fit_intercept": fit_intercept, "max_iter": 100_000}
    if l1_ratio == 1.0:
        pair = ours.Lasso(tol=1e-13, **keywords), theirs.Lasso(tol=1e-13, **keywords)
    else:
        keywords["l1_ratio"] = l1_ratio
        pair = ours.ElasticNet(tol=1e-13, **keywords), theirs.ElasticNet(tol=1e-13, **keywords)
    mine, other = (model.fit(X, y, sample_weight=s) for model in pair)
    same(mine, other, 5e-6)
    assert np.array_equal(mine.coef_ == 0, other.coef_ == 0)


def test_float32_is_fitted_as_it_lies_and_comes_back_as_float32():
    X, y, two, _, _ = table("C")
    X = X.astype(np.float32)
    before = X.copy()
    for model, target in ((ours.Ridge(), y), (ours.LogisticRegression(), two)):
        model.fit(X, target)
        assert model.coef_.dtype == np.float32
    assert np.array_equal(X, before)


def test_text_labels_integers_clone_and_pickle():
    X, _, two, _, _ = table("C")
    names = np.array(["no", "yes"])[two]
    model = clone(ours.LogisticRegression(C=0.5)).fit((X * 10).astype(int), names)
    assert list(model.classes_) == ["no", "yes"]
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(X), model.predict(X))
    assert model.get_params()["C"] == 0.5


@pytest.mark.parametrize(
    ("model", "X", "y", "message"),
    [
        (ours.Ridge(), [[1.0], [np.nan]], [0.0, 1.0], "NaN"),
        (ours.Ridge(alpha=-1), [[1.0], [2.0]], [0.0, 1.0], "alpha"),
        (ours.LogisticRegression(), [[1.0], [2.0]], [0, 0], "class"),
        (ours.LogisticRegression(C=0), [[1.0], [2.0]], [0, 1], "C"),
        (ours.Lasso(), [[1.0], [2.0]], [0.0, np.inf], "infinity|inf"),
    ],
)
def test_bad_input_is_one_clear_error(model, X, y, message):
    with pytest.raises(ValueError, match=message):
        model.fit(np.array(X), np.array(y))
