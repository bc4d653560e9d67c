"""scikit-learn's own checks, on instances as it makes them for its own estimators."""

from __future__ import annotations

import inspect

import pytest
import sklearn.linear_model as theirs
from sklearn.utils.estimator_checks import parametrize_with_checks

import nagcore.linear_model as ours

pytestmark = pytest.mark.filterwarnings("ignore")

# As scikit-learn makes its own for these checks: few iterations, few folds.
QUICK = {
    "ElasticNet": {"max_iter": 5}, "ElasticNetCV": {"max_iter": 5, "cv": 3}, "Lasso": {"max_iter": 5},
    "LassoCV": {"max_iter": 5, "cv": 3}, "LogisticRegression": {"max_iter": 5},
    "LogisticRegressionCV": {"max_iter": 5, "cv": 3, "use_legacy_attributes": False, "Cs": 3,
                             "scoring": "neg_log_loss", "l1_ratios": (0.0,)},
    "PoissonRegressor": {"max_iter": 5},
}  # fmt: skip
VARIANTS = [
    ours.Ridge(positive=True), ours.Ridge(solver="fista"), ours.Lasso(positive=True),
    ours.LogisticRegression(solver="liblinear"), ours.LinearRegression(positive=True),
    ours.LogisticRegression(solver="saga", l1_ratio=0.5, max_iter=5),
]  # fmt: skip
# scikit-learn lists these for its own classes of the same name (n_iter_ is None after an exact fit).
N_ITER = {"check_non_transformer_estimators_n_iter": "n_iter_ cannot be easily accessed."}


@parametrize_with_checks(
    [getattr(ours, name)(**QUICK.get(name, {})) for name in ours.__all__] + VARIANTS,
    expected_failed_checks=lambda estimator: N_ITER if getattr(estimator, "solver", "") == "auto" else {},
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# The settings under which scikit-learn repeats some checks for its own classes.
SETTINGS = {
    "LogisticRegression": [{"solver": "newton-cg"}, {"solver": "newton-cholesky", "class_weight": "balanced"},
                           {"solver": "liblinear"}],
    "Ridge": [{"solver": "svd"}, {"solver": "sparse_cg"}, {"solver": "lbfgs", "positive": True}],
    "RidgeClassifier": [{"solver": "lsqr"}],
    "LinearRegression": [{"positive": False}, {"positive": True}],
    "PoissonRegressor": [{"solver": "newton-cholesky"}],
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_equal_repeated_rows_under_every_setting(name):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    if not hasattr(checks, "check_sample_weight_equivalence_on_dense_data"):
        pytest.skip("scikit-learn has this check from 1.6 on")
    for how in SETTINGS[name]:
        tight = {"tol": 1e-12, "max_iter": 1000} if name in ("LogisticRegression", "PoissonRegressor") else {}
        estimator = getattr(ours, name)(**how, **tight)
        checks.check_sample_weight_equivalence_on_dense_data(name, estimator)


@pytest.mark.parametrize("name", ours.__all__)
def test_parameters_have_scikit_learns_names_and_defaults(name):
    mine = inspect.signature(getattr(ours, name)).parameters
    other = inspect.signature(getattr(theirs, name)).parameters
    assert {p: mine[p].default for p in mine} == {p: other[p].default for p in other}
    kinds = {p: q.kind for p, q in other.items()}
    assert {p: q.kind for p, q in mine.items()} == kinds
    fit = inspect.signature(getattr(theirs, name).fit).parameters
    assert list(inspect.signature(getattr(ours, name).fit).parameters) == list(fit)
