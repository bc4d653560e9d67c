"""The estimators that choose their own strength: the same paths, scores and choices as scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.linear_model as theirs
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, RepeatedKFold, ShuffleSplit

from nagcore import linear_model as ours
from nagcore.linear_model import _lasso_cv

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def classes(several: bool):
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    if not several:
        X, y = X[50:], y[50:]
    return X, y, np.random.default_rng(0).random(len(y)) + 0.2


def agree(mine, other, name, tolerance=1e-4):
    a, b = getattr(mine, name), getattr(other, name)
    if isinstance(b, dict):
        assert list(a) == list(b)
        for key in b:
            assert a[key].shape == b[key].shape
            np.testing.assert_allclose(a[key], b[key], rtol=tolerance, atol=tolerance)
        return
    assert np.shape(a) == np.shape(b), name
    assert np.asarray(a).dtype == np.asarray(b).dtype, name
    if np.asarray(b).dtype == object:
        assert list(a) == list(b)
    else:
        scale = np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


LOGISTIC = ["coef_", "intercept_", "C_", "l1_ratio_", "Cs_", "l1_ratios_", "coefs_paths_", "scores_"]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("how", [
    {}, {"l1_ratios": (0.0,)}, {"scoring": "neg_log_loss", "use_legacy_attributes": False},
    {"refit": False, "scoring": "roc_auc_ovr"}, {"fit_intercept": False, "class_weight": "balanced"},
    {"cv": KFold(3, shuffle=True, random_state=0), "scoring": "neg_log_loss"},
    {"class_weight": {1: 2.0, 2: 0.5}, "scoring": "accuracy"},
], ids=repr)  # fmt: skip
def test_logistic_regression_cv(several, how):
    X, y, s = classes(several)
    how = {"Cs": [0.03, 1.0], "max_iter": 5000, **how}
    mine = ours.LogisticRegressionCV(tol=1e-13, **how).fit(X, y, s)
    other = theirs.LogisticRegressionCV(tol=1e-10, solver="newton-cg", **how).fit(X, y, s)
    for name in LOGISTIC:
        agree(mine, other, name)
    assert np.shape(mine.n_iter_) == np.shape(other.n_iter_)
    assert mine.score(X, y) == pytest.approx(other.score(X, y), abs=1e-6)


def test_logistic_regression_cv_with_a_grid_of_l1_ratios():
    X, y, _ = classes(False)
    how = {"Cs": [0.1, 1.0], "l1_ratios": [0.0, 0.5, 1.0], "solver": "saga", "max_iter": 20_000,
           "scoring": "neg_log_loss", "cv": 3}  # fmt: skip
    for legacy in (False, True):
        mine = ours.LogisticRegressionCV(tol=1e-12, use_legacy_attributes=legacy, **how).fit(X, y)
        other = theirs.LogisticRegressionCV(tol=1e-9, use_legacy_attributes=legacy, **how).fit(X, y)
        for name in LOGISTIC:
            agree(mine, other, name)


def test_logistic_regression_cv_warns_of_what_will_change():
    X, y, _ = classes(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours.LogisticRegressionCV(Cs=2, cv=2).fit(X, y)
    told = [str(w.message) for w in caught if w.category is FutureWarning]
    assert len(told) == 3
    with pytest.raises(ValueError, match="l1_ratios must be an array-like of numbers between 0 and 1"):
        ours.LogisticRegressionCV(l1_ratios=[0.5, 2.0], solver="saga").fit(X, y)
    with pytest.raises(ValueError, match="only one class"):
        ours.LogisticRegressionCV().fit(X, np.zeros(len(X)))


def test_folds_of_x_are_not_copied(monkeypatch):
    """Held-out rows have weight zero: every fit reads the whole X where it lies."""
    from nagcore.linear_model import _logistic_problem

    X, y, _ = classes(False)
    seen, real = [], _logistic_problem.Objective
    monkeypatch.setattr(_logistic_problem, "Objective",
                        lambda data, *args, **how: seen.append(data) or real(data, *args, **how))
    ours.LogisticRegressionCV(Cs=[1.0], cv=3, scoring="accuracy").fit(X, y)
    assert len(seen) == 4
    assert all(data is X for data in seen)


def test_a_scorer_of_one_s_own_sees_rows_of_x():
    X, y, _ = classes(True)
    seen = []

    def score(model, rows, labels):
        seen.append((rows, labels))
        return model.score(rows, labels)

    how = {"Cs": [0.1, 1.0], "cv": KFold(3), "l1_ratios": (0.0,), "use_legacy_attributes": False}
    own = ours.LogisticRegressionCV(scoring=score, **how).fit(X, y)
    for (rows, labels), (_, test) in zip(seen[::2], KFold(3).split(X), strict=True):
        np.testing.assert_array_equal(rows, X[test])
        np.testing.assert_array_equal(labels, y[test])
    np.testing.assert_array_equal(
        own.scores_, ours.LogisticRegressionCV(scoring="accuracy", **how).fit(X, y).scores_)


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "roc_auc_ovr", None])
@pytest.mark.parametrize("several", [False, True])
def test_held_out_rows_in_blocks_score_as_a_copy_of_them(scoring, several, monkeypatch):
    from nagcore.linear_model import _folds

    X, y, _ = classes(several)
    how = {"Cs": [0.1, 1.0], "cv": 3, "scoring": scoring, "use_legacy_attributes": False}
    want = ours.LogisticRegressionCV(**how).fit(X, y).scores_
    monkeypatch.setattr(_folds, "_COPIED", 0)
    monkeypatch.setattr(_folds, "_BLOCK", 7 * X.strides[0])
    np.testing.assert_allclose(ours.LogisticRegressionCV(**how).fit(X, y).scores_, want, rtol=1e-12)


PATHS = ["coef_", "intercept_", "alpha_", "mse_path_", "alphas_"]


@pytest.mark.parametrize("how", [
    {}, {"positive": True}, {"fit_intercept": False}, {"alphas": [0.1, 1.0, 0.01]}, {"eps": 1e-2},
    {"cv": ShuffleSplit(3, random_state=0)}, {"cv": RepeatedKFold(n_splits=3, n_repeats=2, random_state=0)},
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["LassoCV", "ElasticNetCV"])
def test_lasso_and_elastic_net_cv(name, weighted, how):
    X, y = load_diabetes(return_X_y=True)
    s = np.random.default_rng(0).random(len(y)) + 0.1 if weighted else None
    how = {"alphas": 12, **how}
    if name == "ElasticNetCV":
        how["l1_ratio"] = [0.3, 0.9]
    mine = getattr(ours, name)(**how).fit(X, y, sample_weight=s)
    other = getattr(theirs, name)(tol=1e-11, max_iter=100_000, **how).fit(X, y, sample_weight=s)
    for attribute in PATHS + ["l1_ratio_"] * (name == "ElasticNetCV"):
        agree(mine, other, attribute, 1e-6)
    assert mine.dual_gap_ <= 1e-8


def test_wide_and_sparse_paths_agree():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((40, 90)) < 0.2, rng.standard_normal((40, 90)), 0)
    y = X[:, :4] @ [3.0, -2.0, 1.0, 1.0] + 0.1 * rng.standard_normal(40)
    mine = ours.LassoCV(alphas=15, cv=3).fit(sp.csr_matrix(X), y)
    other = theirs.LassoCV(alphas=15, cv=3, tol=1e-12, max_iter=10**6).fit(X, y)
    for name in PATHS:
        agree(mine, other, name, 1e-5)


def test_large_tables_take_passes_and_give_the_same(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    how = {"alphas": [1.0, 0.1], "cv": 3, "tol": 1e-11}
    want = ours.ElasticNetCV(**how).fit(X, y)
    monkeypatch.setattr(_lasso_cv, "fits", lambda *args: False)
    got = ours.ElasticNetCV(**how).fit(X, y)
    for name in PATHS:
        agree(got, want, name, 1e-4)


def test_a_perfect_fit_keeps_the_digits_of_its_error():
    """Errors at rounding of the variance come from residuals, not from differences of moments."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    y = X @ np.arange(1.0, 6.0)
    mine = ours.LassoCV(alphas=[1e-7], cv=3).fit(X, y)
    other = theirs.LassoCV(alphas=[1e-7], cv=3, tol=1e-15, max_iter=10**6).fit(X, y)
    np.testing.assert_allclose(mine.mse_path_, other.mse_path_, rtol=1e-4)
    assert mine.mse_path_.max() < 1e-10


def test_alpha_grids_refuse_what_scikit_learn_refuses():
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(ValueError, match="not supported for l1_ratio=0"):
        ours.ElasticNetCV(l1_ratio=0.0).fit(X, y)
    with pytest.raises(ValueError, match="multi-task outputs"):
        ours.LassoCV().fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match=r"alphas\[1\]"):
        ours.LassoCV(alphas=[1.0, -1.0]).fit(X, y)


RIDGE = ["coef_", "intercept_", "alpha_", "best_score_"]


@pytest.mark.parametrize("shape", [(80, 6), (25, 40)])
@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("how", [
    {"store_cv_results": True}, {"store_cv_results": True, "fit_intercept": False},
    {"store_cv_results": True, "scoring": "neg_mean_absolute_error"}, {"alpha_per_target": True},
    {"alphas": 3.0},
], ids=repr)  # fmt: skip
def test_ridge_cv_leaves_one_out(shape, layout, weighted, how):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) * 3 + 2
    Y = X[:, :3] @ rng.standard_normal((3, 2)) + rng.standard_normal((len(X), 2))
    s = rng.random(len(X)) + 0.1 if weighted else None
    how = {"alphas": [0.01, 0.1, 1.0, 10.0, 100.0], **how}
    for target in (Y[:, 0], Y):
        mine = ours.RidgeCV(**how).fit(sp.csr_matrix(X) if layout == "csr" else X, target, s)
        other = theirs.RidgeCV(**how).fit(X, target, s)
        for name in RIDGE + ["cv_results_"] * ("store_cv_results" in how):
            agree(mine, other, name, 1e-8)


def test_ridge_cv_by_folds_and_its_errors():
    X, y = load_diabetes(return_X_y=True)
    mine, other = (m.RidgeCV([0.01, 0.1, 1.0], cv=4).fit(X, y) for m in (ours, theirs))
    for name in RIDGE:
        agree(mine, other, name, 1e-8)
    for wrong, message in (
        ({"alphas": [1.0, 0.0]}, r"alphas\[1\]"), ({"cv": 3, "store_cv_results": True}, "incompatible"),
        ({"cv": 3, "alpha_per_target": True}, "incompatible"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ours.RidgeCV(**wrong).fit(X, y)


@pytest.mark.parametrize("shape", [(120, 7), (30, 45)])
@pytest.mark.parametrize("layout", ["C", "F", "csr", "float32"])
@pytest.mark.parametrize("how", [
    {}, {"fit_intercept": False}, {"scoring": "neg_mean_absolute_error"}, {"cv": 4},
    {"cv": ShuffleSplit(3, random_state=0), "scoring": lambda model, X, y: -np.abs(model.predict(X) - y).max()},
], ids=range(5))  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:The scoring.*sample_weight:UserWarning")
def test_ridge_cv_by_folds(shape, layout, how, weighted):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) * 3 + 2
    Y = X[:, :3] @ rng.standard_normal((3, 2)) + rng.standard_normal((len(X), 2))
    s = rng.random(len(X)) + 0.1 if weighted else None
    how = {"alphas": [0.1, 1.0, 100.0], "cv": KFold(3, shuffle=True, random_state=0), **how}
    made = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_matrix,
            "float32": np.float32}[layout](X)  # fmt: skip
    for target in (Y[:, 0], Y):
        mine = ours.RidgeCV(**how).fit(made, target, s)
        other = theirs.RidgeCV(**how).fit(made.toarray() if layout == "csr" else X, target, s)
        for name in RIDGE:
            if layout == "float32":
                np.testing.assert_allclose(getattr(mine, name), getattr(other, name), rtol=2e-4, atol=1e-5)
            else:
                agree(mine, other, name, 1e-6)


def test_ridge_cv_by_folds_of_collinear_columns_and_of_many(monkeypatch):
    """Where moments lose digits, or columns are too many for them, each fold is fitted by weights."""
    from nagcore.linear_model import _ridge_cv

    X, y = load_diabetes(return_X_y=True)
    twice = np.hstack([X, X[:, :1] * (1 + 1e-13)])
    how = {"alphas": [1e-9, 0.1], "cv": 3}
    agree(ours.RidgeCV(**how).fit(twice, y), theirs.RidgeCV(**how).fit(twice, y), "best_score_", 1e-6)
    want = ours.RidgeCV(**how).fit(X, y)
    monkeypatch.setattr(_ridge_cv, "fits", lambda X: False)
    for name in RIDGE:
        agree(ours.RidgeCV(**how).fit(X, y), want, name, 1e-8)


def test_ctrl_c_in_a_path_leaves_the_last_coefficients(monkeypatch):
    from nagcore.linear_model import _base

    X, y, _ = classes(False)
    calls, real = [], _base.run

    def press(objective, *args, **kwargs):
        def interrupt(state):
            if len(calls) == 3:
                raise KeyboardInterrupt

        calls.append(1)
        return real(objective, *args, callbacks=[interrupt], **kwargs)

    monkeypatch.setattr(_base, "run", press)
    model = ours.LogisticRegressionCV(Cs=[0.1, 1.0], cv=3, scoring="accuracy")
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.predict(X).shape == y.shape


def test_too_few_iterations_are_warned_of():
    X, y, _ = classes(True)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 reached with a relative gap"):
        ours.LogisticRegressionCV(Cs=[1e3], cv=2, max_iter=1, tol=1e-12, scoring="accuracy").fit(X, y)
