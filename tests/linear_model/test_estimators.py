"""scikit-learn's conventions: what is converted, what is copied, what is warned of, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.linear_model as theirs
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning

import nagcore.linear_model as ours
from nagcore.linear_model import _base, _lasso, _linear

ESTIMATORS = [
    ours.LogisticRegression(), ours.LogisticRegression(l1_ratio=0.5, solver="auto"), ours.Ridge(),
    ours.LinearRegression(), ours.Lasso(), ours.ElasticNet(), ours.RidgeClassifier(),
    ours.Ridge(positive=True), ours.Lasso(positive=True),
]  # fmt: skip


def test_importing_nagcore_leaves_scikit_learn_alone():
    code = "import sys, nagcore, nagcore.solvers, nagcore.objective; print('sklearn' in sys.modules)"
    path = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": path})
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("data", [load_breast_cancer, load_iris])
def test_logistic_penalties_reach_sagas_objective(data, l1_ratio):
    X, y = data(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    how = {"C": 0.3, "l1_ratio": l1_ratio, "max_iter": 5000}
    mine = ours.LogisticRegression(tol=1e-9, solver="saga", **how).fit(X, y)
    other = theirs.LogisticRegression(tol=1e-6, solver="saga", **how).fit(X, y)

    def objective(model):
        picked = model.predict_log_proba(X)[np.arange(len(y)), y]
        penalty = l1_ratio * np.abs(model.coef_).sum() + (1 - l1_ratio) / 2 * (model.coef_**2).sum()
        return -0.3 * picked.sum() + penalty

    assert -1e-4 <= objective(mine) / objective(other) - 1 <= 1e-8


def test_class_weights_are_sample_weights():
    X, y = load_breast_cancer(return_X_y=True)
    given = np.random.default_rng(0).random(len(y)) + 0.5
    weights = np.where(y == 1, 2.0, 0.5)
    how = {"tol": 1e-10, "max_iter": 2000}
    one = ours.LogisticRegression(class_weight={0: 0.5, 1: 2.0}, **how).fit(X, y, given)
    two = ours.LogisticRegression(**how).fit(X, y, given * weights)
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=1e-9)
    balanced = ours.LogisticRegression(class_weight="balanced", **how).fit(X, y)
    other = theirs.LogisticRegression(class_weight="balanced", tol=1e-10, solver="newton-cholesky")
    other.fit(X, y)
    np.testing.assert_allclose(balanced.coef_, other.coef_, rtol=2e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("old", "new"),
    [({"penalty": "l2"}, {}), ({"penalty": "l1"}, {"l1_ratio": 1.0}),
     ({"penalty": "elasticnet", "l1_ratio": 0.3}, {"l1_ratio": 0.3}), ({"penalty": None}, {"C": np.inf})],
)  # fmt: skip
def test_the_deprecated_penalty_means_what_it_did(old, new):
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.warns(FutureWarning, match="'penalty' was deprecated"):
        one = ours.LogisticRegression(solver="auto", **old).fit(X, y)
    two = ours.LogisticRegression(solver="auto", **new).fit(X, y)
    np.testing.assert_array_equal(one.coef_, two.coef_)


def test_contradictory_penalties_are_told():
    X, y = load_iris(return_X_y=True)
    with pytest.warns(UserWarning, match="Inconsistent values"), pytest.warns(FutureWarning):
        ours.LogisticRegression(penalty="l2", l1_ratio=0.5).fit(X, y)
    missing = ours.LogisticRegression(penalty="elasticnet", l1_ratio=None, solver="saga")
    with pytest.raises(ValueError, match="must be specified"), pytest.warns(FutureWarning):
        missing.fit(X, y)
    with pytest.raises(ValueError, match="supports only dual=False"):
        ours.LogisticRegression(dual=True).fit(X, y)


FORMS = ["list", "frame", "int64", "uint8", "float16", "bool", "coo", "csc", "csr_array", "int_csr"]


@pytest.mark.parametrize("form", FORMS)
def test_any_input_gives_the_same_fit(form):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2 if form == "bool" else 9, (60, 4))
    y = X @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=60)
    make = {
        "list": X.tolist, "int64": lambda: X, "uint8": lambda: X.astype(np.uint8),
        "float16": lambda: X.astype(np.float16), "bool": lambda: X.astype(bool),
        "frame": lambda: pytest.importorskip("pandas").DataFrame(X, columns=list("abcd")),
        "coo": lambda: sp.coo_matrix(X), "csc": lambda: sp.csc_matrix(X),
        "csr_array": lambda: sp.csr_array(X.astype(float)), "int_csr": lambda: sp.csr_matrix(X),
    }  # fmt: skip
    given = make[form]()
    want = ours.Ridge(tol=1e-12).fit(X.astype(float), y)
    got = ours.Ridge(tol=1e-12).fit(given, y)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.predict(given), want.predict(X.astype(float)), rtol=1e-5, atol=1e-5)
    if form == "frame":
        assert list(got.feature_names_in_) == list("abcd")


def test_csr_out_of_order_is_put_in_order_in_a_copy():
    rng = np.random.default_rng(0)
    X = sp.csr_matrix(rng.integers(0, 3, (60, 4)).astype(float))
    y = rng.normal(size=60)
    mixed = X.copy()
    for start, end in zip(mixed.indptr, mixed.indptr[1:]):
        mixed.indices[start:end] = mixed.indices[start:end][::-1].copy()
        mixed.data[start:end] = mixed.data[start:end][::-1].copy()
    mixed.has_sorted_indices = mixed.has_canonical_format = False
    before = mixed.indices.copy()
    np.testing.assert_array_equal(ours.Ridge().fit(mixed, y).coef_, ours.Ridge().fit(X, y).coef_)
    np.testing.assert_array_equal(mixed.indices, before)


def peak_of(call):
    """The most memory that a call holds at a time, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [ours.LogisticRegression(), ours.Ridge(), ours.LinearRegression(),
                                       ours.Lasso(positive=True)], ids=repr)  # fmt: skip
@pytest.mark.parametrize("form", ["C float64", "F float64", "F float32"])
def test_x_is_not_copied(estimator, form):
    rng = np.random.default_rng(0)
    layout, dtype = form.split()
    n, d = 15_000, 80
    X = rng.integers(0, 5, (n, d)).astype(dtype)
    if layout == "F":
        X = np.asfortranarray(X)
    y = (X[:, 0] + rng.normal(size=n) > 2).astype(float)
    if hasattr(estimator, "max_iter"):
        estimator = clone(estimator).set_params(max_iter=3)
    estimator.fit(X[:100], y[:100])  # what is imported or compiled once is not counted
    assert peak_of(lambda: estimator.fit(X, y)) < 0.7 * 8 * n * d  # of a float64 copy


def test_x_is_not_searched_for_nan(monkeypatch):
    """The kernels and the moments find it for nothing; scikit-learn's search would read X twice."""
    X, y = load_iris(return_X_y=True)
    searched = []
    monkeypatch.setattr("sklearn.utils.validation._assert_all_finite",
                        lambda a, *args, **kwargs: searched.append(np.shape(a)))
    for estimator in ESTIMATORS:
        estimator.fit(X, y).predict(X)
        estimator.fit(sp.csr_matrix(X), y).predict(sp.csr_matrix(X))
    assert X.shape not in searched
    assert (sp.csr_matrix(X).nnz,) not in searched


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_nan_is_named_in_fit_and_in_predict(estimator):
    for bad in (np.nan, np.inf):
        X, y = load_iris(return_X_y=True)
        model = estimator.fit(X, y)
        X[7, 2] = bad
        for given in (X, sp.csr_matrix(X)):
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                model.predict(given)
            with pytest.raises(ValueError, match="row 7, column 2"):
                estimator.fit(given, y)


def test_several_targets_are_fitted_each_by_itself():
    X, y = load_diabetes(return_X_y=True)
    Y = np.column_stack([y, y**2 / 100, -y])
    for make in (lambda **how: ours.Ridge(alpha=0.1, **how), ours.LinearRegression,
                 lambda **how: ours.Lasso(alpha=0.5, **how)):  # fmt: skip
        model = make(tol=1e-9).fit(X, Y)
        assert model.coef_.shape == (3, 10)
        assert model.predict(X).shape == Y.shape
        for j in range(3):
            alone = make(tol=1e-9).fit(X, Y[:, j])
            np.testing.assert_allclose(model.coef_[j], alone.coef_, rtol=1e-9)
            np.testing.assert_allclose(model.intercept_[j], alone.intercept_, rtol=1e-9)
    assert len(model.n_iter_) == len(model.dual_gap_) == 3
    mixed = ours.Ridge(alpha=[1.0, 10.0, 100.0], tol=1e-10).fit(X, Y)
    other = theirs.Ridge(alpha=[1.0, 10.0, 100.0]).fit(X, Y)
    np.testing.assert_allclose(mixed.coef_, other.coef_, rtol=1e-4)
    passes = ours.Ridge(alpha=[1.0, 10.0, 100.0], solver="fista", tol=1e-12).fit(X, Y)
    assert passes.n_iter_.shape == (3,)
    np.testing.assert_allclose(passes.coef_, mixed.coef_, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="alpha has 2 entries and y has 3 targets"):
        ours.Ridge(alpha=[1.0, 2.0]).fit(X, Y)


def test_tol_is_relative_suboptimality():
    """The one deviation from scikit-learn, on data with a known minimum."""
    X, y = load_diabetes(return_X_y=True)
    best = theirs.Lasso(alpha=0.1, tol=1e-12, max_iter=10**5).fit(X, y)

    def objective(model):
        return 0.5 * ((y - model.predict(X)) ** 2).mean() + 0.1 * np.abs(model.coef_).sum()

    null = 0.5 * y.var()
    for tol in (1e-1, 1e-2, 1e-4, 1e-6):
        model = ours.Lasso(alpha=0.1, tol=tol).fit(X, y)
        assert objective(model) - objective(best) <= tol * (null - objective(best))
        assert model.dual_gap_ <= tol * (null - objective(model))


def test_what_was_not_reached_is_warned_of_with_its_gap():
    X, y = load_breast_cancer(return_X_y=True)
    words = r"tol=1e-12: max_iter=5 reached with a relative gap of .* \(certificate\)"
    with pytest.warns(ConvergenceWarning, match=words):
        model = ours.LogisticRegression(tol=1e-12, max_iter=5).fit(X, y)
    assert model.n_iter_ == [5]


@pytest.mark.parametrize("data", [load_breast_cancer, load_iris])
def test_defaults_converge_on_unscaled_data(data):
    X, y = data(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ours.LogisticRegression().fit(X, y).n_iter_ < 100
        for model in (ours.Ridge(), ours.LinearRegression(), ours.Lasso(alpha=0.1), ours.ElasticNet()):
            model.fit(X, y)


@pytest.mark.parametrize("estimator", [
    ours.LogisticRegression(), ours.Ridge(solver="fista"), ours.LinearRegression(), ours.Lasso(),
    ours.ElasticNet(positive=True), ours.RidgeClassifier(solver="fista"),
], ids=repr)  # fmt: skip
def test_ctrl_c_leaves_a_usable_model_and_comes_back(estimator, monkeypatch):
    X, y = load_iris(return_X_y=True)
    real = _base.run

    def press(objective, *args, **kwargs):
        def interrupt(state):
            if state.n_iter == 2:
                raise KeyboardInterrupt

        return real(objective, *args, callbacks=[interrupt], **kwargs | {"tol": 0.0})

    monkeypatch.setattr(_base, "run", press)
    for module in (_lasso, _linear):  # large X, where a factorisation is not the cheaper way
        monkeypatch.setattr(module, "fits", lambda *args: False)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, y)
    assert np.isfinite(estimator.coef_).all()
    assert estimator.coef_.any()
    assert estimator.predict(X).shape == (150,)


@pytest.mark.parametrize("make", [
    lambda: ours.LogisticRegression(warm_start=True), lambda: ours.Lasso(0.01, warm_start=True),
    lambda: ours.LogisticRegression(warm_start=True, fit_intercept=False),
    lambda: ours.ElasticNet(0.01, warm_start=True, fit_intercept=False),
])  # fmt: skip
def test_warm_start_goes_on_where_the_last_fit_ended(make):
    X, y = load_iris(return_X_y=True)
    for target in (y, (y > 0).astype(int)):
        model = make().set_params(tol=1e-8, max_iter=3000).fit(X, target)
        first, before = np.max(model.n_iter_), model.coef_.copy()
        model.fit(X, target)
        assert np.max(model.n_iter_) <= max(3, first // 2)
        np.testing.assert_allclose(model.coef_, before, atol=1e-3)


def test_warm_start_ignores_a_fit_of_another_shape():
    X, y = load_iris(return_X_y=True)
    model = ours.LogisticRegression(warm_start=True).fit(X, y)
    assert model.fit(X[:, :2], y > 0).coef_.shape == (1, 2)
    line = ours.Lasso(warm_start=True).fit(X, y)
    assert line.fit(X[:, :2], y).coef_.shape == (2,)


def test_probabilities_survive_extreme_margins():
    X, y = load_iris(return_X_y=True)
    model = ours.LogisticRegression().fit(X[:100, :1], y[:100])
    model.coef_, model.intercept_ = np.array([[2.0]]), np.zeros(1)
    far = np.array([[-800.0], [800.0]])
    np.testing.assert_allclose(model.predict_log_proba(far), [[0.0, -1600.0], [-1600.0, 0.0]])
    np.testing.assert_allclose(model.predict_proba(far), [[1.0, 0.0], [0.0, 1.0]])


def test_text_labels_and_several_classes():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = ours.LogisticRegression().fit(X, names)
    assert list(model.classes_) == ["setosa", "versicolor", "virginica"]
    assert model.coef_.shape == (3, 4)
    assert model.score(X, names) > 0.95
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert model.decision_function(X).shape == (150, 3)
    two = ours.LogisticRegression().fit(X[:100], names[:100])
    assert two.coef_.shape == (1, 4)
    assert two.decision_function(X).shape == (150,)
    assert set(two.predict(X)) == {"setosa", "versicolor"}


def test_sparse_coefficients_and_scalar_weights():
    X, y = load_diabetes(return_X_y=True)
    model = ours.Lasso(alpha=1.0).fit(X, y, sample_weight=2.0)
    np.testing.assert_array_equal(model.coef_, ours.Lasso(alpha=1.0).fit(X, y).coef_)
    assert sp.issparse(model.sparse_coef_)
    np.testing.assert_array_equal(model.sparse_coef_.toarray()[0], model.coef_)
    assert 0 < np.count_nonzero(model.coef_) < 10
