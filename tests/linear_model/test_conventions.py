"""Estimators inside scikit-learn's machinery: pipelines, searches, routing, data frames."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sklearn
from joblib import parallel_backend
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nagcore import linear_model as ours

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

CLASSIFIERS = [ours.LogisticRegression(), ours.RidgeClassifier(),
               ours.LogisticRegressionCV(Cs=2, cv=2, scoring="accuracy")]  # fmt: skip
REGRESSORS = [ours.Ridge(), ours.LinearRegression(), ours.Lasso(0.1), ours.ElasticNet(0.1), ours.RidgeCV(),
              ours.LassoCV(alphas=5, cv=2), ours.ElasticNetCV(alphas=5, cv=2),
              ours.PoissonRegressor()]  # fmt: skip


def data(estimator):
    X, y = load_iris(return_X_y=True) if estimator in CLASSIFIERS else load_diabetes(return_X_y=True)
    return X[::2], y[::2]


everyone = pytest.mark.parametrize("estimator", CLASSIFIERS + REGRESSORS, ids=lambda e: type(e).__name__)


@everyone
def test_pipelines_clones_and_pickles_predict_alike(estimator):
    X, y = data(estimator)
    pipeline = make_pipeline(StandardScaler(), clone(estimator)).fit(X, y)
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(pipeline.predict(X), again.predict(X))
    np.testing.assert_array_equal(clone(pipeline).fit(X, y).predict(X), pipeline.predict(X))
    assert repr(clone(estimator)) == repr(estimator)


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize(("estimator", "grid"), [
    (ours.LogisticRegression(), {"C": [0.1, 1.0]}), (ours.Ridge(), {"alpha": [0.1, 1.0]}),
    (ours.Lasso(), {"alpha": [0.1, 1.0]}),
], ids=["LogisticRegression", "Ridge", "Lasso"])  # fmt: skip
def test_searches_run_in_processes_and_in_threads(backend, estimator, grid):
    X, y = load_iris(return_X_y=True)
    want = GridSearchCV(estimator, grid, cv=3).fit(X, y)
    with parallel_backend(backend):
        got = GridSearchCV(estimator, grid, cv=3, n_jobs=2).fit(X, y)
    assert got.best_params_ == want.best_params_
    np.testing.assert_allclose(got.cv_results_["mean_test_score"], want.cv_results_["mean_test_score"])


@everyone
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_give_feature_names_and_are_checked_against_them(estimator, library):
    frames = pytest.importorskip(library)
    X, y = data(estimator)
    names = [f"x{j}" for j in range(X.shape[1])]
    frame = frames.DataFrame({name: X[:, j] for j, name in enumerate(names)})
    model = clone(estimator).fit(frame, y)
    assert list(model.feature_names_in_) == names
    np.testing.assert_allclose(model.predict(frame), clone(estimator).fit(X, y).predict(X), rtol=1e-6)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[names[::-1]])
    model.fit(X, y)
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == X.shape[1]


def test_set_output_of_a_pipeline_reaches_the_model_as_a_frame():
    frames = pytest.importorskip("pandas")
    X, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), ours.LogisticRegression()).set_output(transform="pandas")
    pipeline.fit(X, y)
    assert list(pipeline[-1].feature_names_in_) == list(X.columns)
    assert isinstance(pipeline[:-1].transform(X), frames.DataFrame)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_weights_are_routed_to_fit_and_to_scores(routing):
    X, y = load_diabetes(return_X_y=True)
    s = np.random.default_rng(0).random(len(y)) + 0.1
    model = ours.Ridge().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    found = cross_validate(model, X, y, params={"sample_weight": s}, cv=KFold(3))
    for i, (train, test) in enumerate(KFold(3).split(X)):
        alone = ours.Ridge().fit(X[train], y[train], s[train]).score(X[test], y[test], s[test])
        assert found["test_score"][i] == pytest.approx(alone)
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), clone(model))
    np.testing.assert_allclose(pipeline.fit(X, y, sample_weight=s).predict(X), ours.Ridge().fit(
        StandardScaler().fit_transform(X), y, s).predict(StandardScaler().fit_transform(X)))


@pytest.mark.parametrize("make", [
    lambda: ours.LogisticRegressionCV(Cs=[0.1, 1.0], cv=GroupKFold(3), scoring="neg_log_loss",
                                      use_legacy_attributes=False, l1_ratios=(0.0,)),
    lambda: ours.LassoCV(alphas=4, cv=GroupKFold(3)),
    lambda: ours.RidgeCV(cv=GroupKFold(3)),
], ids=["LogisticRegressionCV", "LassoCV", "RidgeCV"])  # fmt: skip
def test_groups_are_routed_to_the_splitter(routing, make):
    X, y = load_iris(return_X_y=True)
    groups = np.arange(len(y)) % 5
    model = make()
    if isinstance(model, ours.RidgeCV):
        model.cv.set_split_request(groups=True)
    model.fit(X, y, groups=groups)
    model.set_params(cv=list(GroupKFold(3).split(X, y, groups)))
    chosen = model.alpha_ if hasattr(model, "alpha_") else model.C_
    model.fit(X, y)
    assert chosen == (model.alpha_ if hasattr(model, "alpha_") else model.C_)


def test_weights_reach_the_scorer_of_logistic_regression_cv(routing):
    from sklearn.metrics import get_scorer

    X, y = load_iris(return_X_y=True)
    s = np.random.default_rng(0).random(len(y)) + 0.01
    scorer = get_scorer("neg_log_loss").set_score_request(sample_weight=True)
    how = {"Cs": [1.0], "cv": 3, "use_legacy_attributes": False, "l1_ratios": (0.0,)}
    routed = ours.LogisticRegressionCV(scoring=scorer, **how).set_fit_request(sample_weight=True)
    unrouted = ours.LogisticRegressionCV(
        scoring=get_scorer("neg_log_loss").set_score_request(sample_weight=False), **how)
    a = routed.fit(X, y, sample_weight=s).scores_
    b = unrouted.set_fit_request(sample_weight=True).fit(X, y, sample_weight=s).scores_
    assert np.abs(a - b).max() > 1e-6


def test_arguments_without_routing_are_refused():
    X, y = load_iris(return_X_y=True)
    for model in (ours.LogisticRegressionCV(), ours.LassoCV(), ours.RidgeCV()):
        with pytest.raises(ValueError, match="enable_metadata_routing=True"):
            model.fit(X, y, groups=y)


def test_one_versus_rest_and_read_only_data():
    X, y = load_iris(return_X_y=True)
    X.flags.writeable = False
    model = OneVsRestClassifier(ours.LogisticRegression(solver="liblinear")).fit(X, y)
    assert model.score(X, y) > 0.9
    for estimator in (ours.Ridge(), ours.Lasso(), ours.LinearRegression(), ours.RidgeCV()):
        estimator.fit(X, y)


def test_parameters_are_checked_anew_when_they_change():
    X, y = load_iris(return_X_y=True)
    model = ours.Ridge(alpha=1.0).fit(X, y)
    for wrong in (-1.0, "1", None):
        with pytest.raises(ValueError, match="alpha"):
            model.set_params(alpha=wrong).fit(X, y)
    model.set_params(alpha=1.0).fit(X, y)
    with pytest.raises(ValueError, match="fit_intercept"):
        model.set_params(fit_intercept=1).fit(X, y)  # equal to True, and refused all the same
