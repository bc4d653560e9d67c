"""Coefficients equal scikit-learn's: losses × penalties × weights × intercepts × layouts, to 1e-6."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.linear_model as theirs
from sklearn.base import clone

from nagcore import linear_model as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning:sklearn")


def table(layout: str, n: int = 300, d: int = 10, seed: int = 0, spread: float = 10.0):
    """Correlated columns of unlike scale, regression targets, two and three classes, and weights."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    X = X * np.geomspace(1 / spread, spread, d) + rng.standard_normal(d)
    signal = (X - X.mean(0)) / X.std(0) @ rng.standard_normal(d)
    y = signal + 0.5 * rng.standard_normal(n)
    classes = np.digitize(signal + rng.standard_normal(n), np.quantile(signal, [1 / 3, 2 / 3]))
    if layout == "F":
        X = np.asfortranarray(X)
    elif layout == "csr":
        X = sp.csr_matrix(np.where(rng.random((n, d)) < 0.4, X, 0))
    return X, y, (signal > 0).astype(int) ^ (rng.random(n) < 0.1), classes, rng.random(n) + 0.2


layouts = pytest.mark.parametrize("layout", ["C", "F", "csr"])
both = pytest.mark.parametrize("weighted", [False, True])
intercepts = pytest.mark.parametrize("fit_intercept", [True, False])


def same(mine, other, tolerance=1e-6):
    scale = np.abs(other.coef_).max() + np.abs(other.intercept_).max()
    assert mine.coef_.shape == other.coef_.shape
    if np.any(other.intercept_):  # without one, liblinear's is a number
        assert np.shape(mine.intercept_) == np.shape(other.intercept_)
    assert np.abs(mine.coef_ - other.coef_).max() <= tolerance * scale
    assert np.abs(mine.intercept_ - other.intercept_).max() <= tolerance * scale


@layouts
@both
@intercepts
@pytest.mark.parametrize("C", [0.01, 10.0])
@pytest.mark.parametrize("several", [False, True])
def test_logistic_regression_with_l2(layout, weighted, fit_intercept, C, several):
    X, _, two, three, s = table(layout)
    y, s = (three if several else two), s if weighted else None
    keywords = {"C": C, "fit_intercept": fit_intercept, "max_iter": 20_000}
    mine = ours.LogisticRegression(tol=1e-14, **keywords).fit(X, y, sample_weight=s)
    other = theirs.LogisticRegression(tol=1e-11, solver="newton-cg", **keywords).fit(X, y, sample_weight=s)
    same(mine, other)
    assert np.array_equal(mine.predict(X), other.predict(X))
    np.testing.assert_allclose(mine.predict_proba(X), other.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(mine.predict_log_proba(X), other.predict_log_proba(X), atol=1e-4)
    assert mine.score(X, y) == other.score(X, y)


@pytest.mark.parametrize("layout", ["F", "csr"])
@both
@intercepts
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("several", [False, True])
def test_logistic_regression_with_l1(layout, weighted, fit_intercept, l1_ratio, several):
    X, _, two, three, s = table(layout, n=120, d=6, spread=1.0)
    y, s = (three if several else two), s if weighted else None
    keywords = {"C": 0.2, "l1_ratio": l1_ratio, "fit_intercept": fit_intercept, "solver": "saga"}
    mine = ours.LogisticRegression(tol=1e-13, max_iter=20_000, **keywords).fit(X, y, sample_weight=s)
    other = theirs.LogisticRegression(tol=1e-12, max_iter=100_000, **keywords).fit(X, y, sample_weight=s)
    same(mine, other)
    assert np.array_equal(mine.coef_ == 0, other.coef_ == 0)
    assert (mine.coef_ == 0).any() or l1_ratio < 1


@pytest.mark.parametrize("layout", ["C", "csr"])
@pytest.mark.parametrize("how", [
    {}, {"intercept_scaling": 10.0}, {"l1_ratio": 1.0, "C": 0.1}, {"dual": True},
    {"class_weight": "balanced"}, {"fit_intercept": False},
], ids=repr)  # fmt: skip
def test_liblinear_penalises_its_intercept(layout, how):
    X, _, two, _, s = table(layout, spread=1.0)
    mine = ours.LogisticRegression(solver="liblinear", tol=1e-14, max_iter=10_000, **how).fit(X, two, s)
    other = theirs.LogisticRegression(solver="liblinear", tol=1e-12, max_iter=10**6, **how).fit(X, two, s)
    same(mine, other)
    free = ours.LogisticRegression(solver="auto", tol=1e-14, max_iter=10_000,
                                   **{**how, "dual": False}).fit(X, two, s)
    moved = np.abs(free.intercept_ - mine.intercept_).max()
    assert moved > 1e-4 or how.get("fit_intercept") is False


@layouts
@both
@intercepts
@pytest.mark.parametrize("alpha", [0.1, 100.0, [0.1, 10.0]])
def test_ridge(layout, weighted, fit_intercept, alpha):
    X, y, _, _, s = table(layout)
    if isinstance(alpha, list):
        y = np.column_stack([y, np.sin(y)])
    s = s if weighted else None
    mine = ours.Ridge(alpha=alpha, fit_intercept=fit_intercept).fit(X, y, s)
    solver = "sparse_cg" if layout == "csr" else "cholesky"
    other = theirs.Ridge(alpha=alpha, fit_intercept=fit_intercept, tol=1e-14, solver=solver).fit(X, y, s)
    same(mine, other)
    np.testing.assert_allclose(mine.predict(X), other.predict(X), rtol=1e-6, atol=1e-6)
    passes = ours.Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="fista", tol=1e-14)
    same(passes.fit(X, y, s), other)


@pytest.mark.parametrize("solver", ["auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga"])
def test_every_ridge_solver_gives_the_same(solver):
    X, y, _, _, _ = table("C", spread=1.0)
    mine = ours.Ridge(solver=solver).fit(X, y)
    same(mine, theirs.Ridge(solver=solver, tol=1e-12, max_iter=100_000, random_state=0).fit(X, y))


@pytest.mark.parametrize("name", ["Ridge", "RidgeCV", "LinearRegression", "Lasso", "ElasticNet"])
@intercepts
def test_shapes_for_one_target_and_for_several(name, fit_intercept):
    X, y, _, _, _ = table("C")
    for target in (y, y[:, None], np.column_stack([y, -y])):
        mine, other = (getattr(module, name)(fit_intercept=fit_intercept).fit(X, target)
                       for module in (ours, theirs))  # fmt: skip
        assert mine.coef_.shape == other.coef_.shape
        assert np.shape(mine.intercept_) == np.shape(other.intercept_)
        assert type(mine.intercept_) is type(other.intercept_)
        assert mine.predict(X).shape == other.predict(X).shape


@layouts
@both
@intercepts
def test_linear_regression(layout, weighted, fit_intercept):
    X, y, _, _, s = table(layout)
    y, s = np.column_stack([y, np.cos(y)]), s if weighted else None
    mine = ours.LinearRegression(fit_intercept=fit_intercept).fit(X, y, s)
    other = theirs.LinearRegression(fit_intercept=fit_intercept, tol=1e-14).fit(X, y, s)
    same(mine, other)
    if layout != "csr":
        assert mine.rank_ == other.rank_ == 10
        np.testing.assert_allclose(mine.singular_, other.singular_, rtol=1e-8)


@pytest.mark.parametrize("layout", ["C", "F"])
@both
@intercepts
def test_positive_least_squares(layout, weighted, fit_intercept):
    X, y, _, _, s = table(layout)
    s = s if weighted else None
    how = {"fit_intercept": fit_intercept, "positive": True}
    mine = ours.LinearRegression(**how).fit(X, y, s)
    same(mine, theirs.LinearRegression(**how).fit(X, y, s))
    assert (mine.coef_ >= 0).all()
    assert (mine.coef_ == 0).any()
    same(ours.Ridge(alpha=3.0, **how).fit(X, y, s), theirs.Ridge(alpha=3.0, tol=1e-14, **how).fit(X, y, s))


@layouts
@both
@intercepts
@pytest.mark.parametrize("how", [{"l1_ratio": 1.0}, {"l1_ratio": 0.5}, {"l1_ratio": 1.0, "positive": True},
                                 {"l1_ratio": 0.5, "positive": True}], ids=repr)  # fmt: skip
def test_lasso_and_elastic_net(layout, weighted, fit_intercept, how):
    X, y, _, _, s = table(layout)
    s, how = s if weighted else None, dict(how)
    keywords = {"alpha": 0.05, "fit_intercept": fit_intercept, "max_iter": 100_000, **how}
    kinds = ours.ElasticNet, theirs.ElasticNet
    if how["l1_ratio"] == 1.0:
        kinds = ours.Lasso, theirs.Lasso
        del keywords["l1_ratio"]
    mine, other = (kind(tol=1e-14, **keywords).fit(X, y, sample_weight=s) for kind in kinds)
    same(mine, other)
    assert np.array_equal(mine.coef_ == 0, other.coef_ == 0)
    assert mine.dual_gap_ <= 1e-10


@layouts
@both
@intercepts
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_poisson_regression(layout, weighted, fit_intercept, alpha):
    X, y, _, _, s = table(layout, spread=1.0)
    y = np.random.default_rng(1).poisson(np.exp(0.3 * y))
    s = s if weighted else None
    how = {"alpha": alpha, "fit_intercept": fit_intercept}
    mine = ours.PoissonRegressor(tol=1e-14, max_iter=5000, **how).fit(X, y, s)
    other = theirs.PoissonRegressor(tol=1e-12, max_iter=5000, solver="newton-cholesky", **how).fit(X, y, s)
    same(mine, other)
    np.testing.assert_allclose(mine.predict(X), other.predict(X), rtol=1e-5)
    assert abs(mine.score(X, y, s) - other.score(X, y, s)) < 1e-8


@layouts
@both
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
def test_ridge_classifier(layout, weighted, several, class_weight):
    X, _, two, three, s = table(layout)
    y, s = (three if several else two), s if weighted else None
    mine = ours.RidgeClassifier(class_weight=class_weight).fit(X, y, s)
    other = theirs.RidgeClassifier(class_weight=class_weight, tol=1e-14).fit(X, y, s)
    same(mine, other)
    assert np.array_equal(mine.predict(X), other.predict(X))
    np.testing.assert_allclose(mine.decision_function(X), other.decision_function(X), atol=1e-6)


def test_ridge_classifier_takes_several_labels_for_each_row():
    X, _, two, three, _ = table("C")
    Y = np.column_stack([two, three == 1])
    mine, other = ours.RidgeClassifier().fit(X, Y), theirs.RidgeClassifier().fit(X, Y)
    same(mine, other)
    assert np.array_equal(mine.predict(X), other.predict(X))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 1: 0.5}])
def test_class_weights(several, class_weight):
    X, _, two, three, s = table("C")
    how = {"class_weight": class_weight, "max_iter": 20_000}
    y = three if several else two
    mine = ours.LogisticRegression(tol=1e-14, **how).fit(X, y, s)
    same(mine, theirs.LogisticRegression(tol=1e-11, solver="newton-cg", **how).fit(X, y, s))


def test_float32_is_fitted_as_it_lies_and_comes_back_as_float32():
    X, y, two, _, _ = table("C")
    X = X.astype(np.float32)
    before = X.copy()
    for model, target in ((ours.Ridge(), y), (ours.LogisticRegression(), two), (ours.Lasso(0.1), y),
                          (ours.PoissonRegressor(), y**2), (ours.LinearRegression(), y)):  # fmt: skip
        model.fit(X, target)
        assert model.coef_.dtype == np.float32
    assert np.array_equal(X, before)
    same(ours.Ridge().fit(X, y), theirs.Ridge().fit(X.astype(float), y))


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
        (ours.PoissonRegressor(), [[1.0], [2.0]], [0.0, -1.0], "out of the valid range"),
        (ours.Ridge(solver="lbfgs"), [[1.0], [2.0]], [0.0, 1.0], "only when positive=True"),
        (ours.Ridge(solver="svd", positive=True), [[1.0], [2.0]], [0.0, 1.0], "does not support positive"),
        (ours.LogisticRegression(l1_ratio=1.0), [[1.0], [2.0]], [0, 1], "Solver lbfgs supports only"),
        (ours.LogisticRegression(solver="liblinear", l1_ratio=0.5), [[1.0], [2.0]], [0, 1], "Only 'saga'"),
        (ours.LogisticRegression(solver="liblinear", C=np.inf), [[1.0], [2.0]], [0, 1], "not supported"),
    ],
)
def test_bad_input_is_one_clear_error(model, X, y, message):
    with pytest.raises(ValueError, match=message):
        model.fit(np.array(X), np.array(y))
