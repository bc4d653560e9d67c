"""Ctrl-C leaves the best coefficients so far, on every route of every estimator, and comes back.

KeyboardInterrupt is raised from within, at calls of functions picked from all those that a fit makes.
"""

from __future__ import annotations

import inspect
import itertools
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")
from nagcore import linear_model as ours
from nagcore.linear_model import _lasso, _lasso_cv, _linear, _ridge, _ridge_cv, _sampled
from nagcore.objective.counted import Counted

# Functions within which there are coefficients to leave.
_SOLVING = {"go", "at_once", "least_squares", "moments", "sampled_ridge", "sparse_least_squares",
            "_leave_one_out", "errors", "gather", "fitted"}


class Press:
    """Counts the calls within `_SOLVING`, and presses Ctrl-C at one of them."""

    def __init__(self, at=None):
        self.at, self.calls, self.inside = at, 0, 0

    def __call__(self, frame, event, arg):
        code = frame.f_code
        ours = "nagcore" in code.co_filename
        if ours and code.co_name in _SOLVING:
            self.inside += {"call": 1, "return": -1}.get(event, 0)
        # Python ignores what is raised while it lets go of a generator: there `prox_newton` calls `keep`.
        closing = code.co_flags & inspect.CO_GENERATOR or code.co_name == "keep"
        if event == "call" and self.inside and ours and not closing:
            self.calls += 1
            if self.calls == self.at:
                sys.setprofile(None)
                raise KeyboardInterrupt

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


def table(targets="one"):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 6)) + 0.3
    z = X @ rng.standard_normal(6) + rng.standard_normal(400) + 2
    return X, {"one": z, "two": np.column_stack([z, z**2]), "class": (z > 2).astype(int),
               "classes": np.digitize(z, [0, 2, 4]), "counts": np.exp(z / 8)}[targets]  # fmt: skip


CV = {"cv": 3, "scoring": "neg_log_loss", "use_legacy_attributes": False, "l1_ratios": (0.0,)}
CASES = {
    "Ridge": (ours.Ridge(), "one"),
    "Ridge two": (ours.Ridge(), "two"),
    "Ridge sampled": (ours.Ridge(), "one"),
    "Ridge passes": (ours.Ridge(solver="cg"), "two"),
    "Ridge positive": (ours.Ridge(positive=True), "one"),
    "RidgeClassifier": (ours.RidgeClassifier(), "classes"),
    "RidgeClassifier sampled": (ours.RidgeClassifier(), "class"),
    "RidgeCV": (ours.RidgeCV(), "two"),
    "RidgeCV folds": (ours.RidgeCV(cv=3), "one"),
    "RidgeCV folds passes": (ours.RidgeCV(cv=3), "one"),
    "LinearRegression": (ours.LinearRegression(), "two"),
    "LinearRegression passes": (ours.LinearRegression(), "two"),
    "LinearRegression positive": (ours.LinearRegression(positive=True), "one"),
    "Lasso": (ours.Lasso(0.01), "two"),
    "Lasso passes": (ours.Lasso(0.01), "two"),
    "Lasso no intercept": (ours.Lasso(0.01, fit_intercept=False), "two"),
    "ElasticNet": (ours.ElasticNet(0.01), "one"),
    "LassoCV": (ours.LassoCV(alphas=5, cv=3), "one"),
    "LassoCV passes": (ours.LassoCV(alphas=5, cv=3), "one"),
    "ElasticNetCV": (ours.ElasticNetCV(alphas=5, cv=3, l1_ratio=[0.5, 0.9]), "one"),
    "LogisticRegression": (ours.LogisticRegression(), "class"),
    "LogisticRegression plbfgs": (ours.LogisticRegression(solver="plbfgs"), "class"),
    "LogisticRegression l1": (ours.LogisticRegression(solver="saga", l1_ratio=1.0), "class"),
    "LogisticRegression classes": (ours.LogisticRegression(), "classes"),
    "LogisticRegressionCV": (ours.LogisticRegressionCV(Cs=3, **CV), "class"),
    "LogisticRegressionCV classes": (ours.LogisticRegressionCV(Cs=2, **CV), "classes"),
    "PoissonRegressor": (ours.PoissonRegressor(), "counts"),
}  # fmt: skip


def every_table_is_sampled(monkeypatch):
    monkeypatch.setattr(_ridge, "plan", lambda n, p, *_: _sampled.Plan(min(20 * p, n // 2), 8, 40.0))
    monkeypatch.setattr(_ridge, "heavy_tailed", lambda X: False)


@pytest.fixture
def routed(request, monkeypatch):
    """An estimator and its data, with the route that the case's name asks for."""
    estimator, targets = CASES[request.param]
    if request.param.endswith("passes"):  # as with too many columns for a factorisation
        for module in (_lasso, _lasso_cv, _linear, _ridge, _ridge_cv):
            monkeypatch.setattr(module, "fits", lambda *_: False)
    if request.param.endswith("sampled"):
        every_table_is_sampled(monkeypatch)
    return estimator, *table(targets)


def test_every_estimator_is_interrupted():
    assert {name.split()[0] for name in CASES} == set(ours.__all__)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("routed", CASES, indirect=True)
def test_ctrl_c_anywhere_in_a_fit_leaves_a_usable_model_and_comes_back(routed):
    estimator, X, y = routed
    whole = type(estimator)(**estimator.get_params()).fit(X, y)  # what is done once is not counted
    with Press() as press:
        type(estimator)(**estimator.get_params()).fit(X, y)
    assert press.calls > 0
    for at in np.unique(np.linspace(1, press.calls, 25).astype(int)):
        model = type(estimator)(**estimator.get_params())
        with Press(at), pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
        assert np.isfinite(model.coef_).all()
        assert model.coef_.shape == whole.coef_.shape
        assert np.shape(model.intercept_) == np.shape(whole.intercept_)
        assert model.predict(X).shape == y.shape


def objective(X, y, model):
    r = X @ model.coef_ + model.intercept_ - y
    return r @ r + model.coef_ @ model.coef_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ridge_by_a_sample_leaves_what_its_reads_have_found(dtype, monkeypatch):
    every_table_is_sampled(monkeypatch)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 30)).astype(dtype)
    y = X @ rng.standard_normal(30) + rng.standard_normal(len(X))
    whole = sampled(X, y)
    best, null, reads = objective(X, y, whole), np.sum((y - y.mean()) ** 2), whole.n_iter_[0]
    real, values = Counted.value_and_grad, []
    for at in range(1, reads + 1):
        count = iter(range(1, reads + 1))

        def press(*args, count=count, at=at, **kwargs):
            if next(count) == at:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(Counted, "value_and_grad", press)
        model = ours.Ridge()
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
        assert (model.solver_, list(model.n_iter_)) == ("cg", [at - 1])
        values.append(objective(X.astype(np.float64), y, model) - best)
    assert values[0] < 0.2 * null
    assert values[-1] <= 1e-6 * null
    assert all(b <= a + 1e-9 * null for a, b in itertools.pairwise(values))


def sampled(X, y):
    model = ours.Ridge().fit(X, y)
    assert model.solver_ == "cg"
    return model


def test_what_a_poor_sample_found_is_kept_until_the_exact_solution(monkeypatch):
    """Rows of great leverage: the sample's metric is given up, and the Gram matrix is interrupted."""
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((8_000, 12)), rng.standard_normal(8_000)
    X[rng.choice(len(X), 20, replace=False)] *= 1e4
    every_table_is_sampled(monkeypatch)

    def press(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_ridge, "least_squares", press)
    model = ours.Ridge()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.coef_.any()


@pytest.mark.parametrize("estimator", [ours.Lasso(0.01), ours.Ridge(solver="cg"), ours.LinearRegression()])
def test_targets_that_are_done_stay_and_others_are_null(estimator, monkeypatch):
    X, y = table("two")
    monkeypatch.setattr(_linear, "fits", lambda *_: False)
    whole = type(estimator)(**estimator.get_params()).fit(X, y)
    starts = iter([False, True])
    name, module = ("sparse_least_squares", _lasso) if isinstance(estimator, ours.Lasso) else (
        "solve", sys.modules["nagcore.linear_model._base"])  # fmt: skip
    real = getattr(module, name)

    def press(*args, **kwargs):
        if next(starts):
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, press)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, y)
    np.testing.assert_array_equal(estimator.coef_[0], whole.coef_[0])
    np.testing.assert_array_equal(estimator.coef_[1], 0.0)
    np.testing.assert_allclose(estimator.intercept_[1], y[:, 1].mean())


def test_a_warm_start_stays_where_nothing_better_was_found(monkeypatch):
    X, y = table()
    model = ours.Lasso(0.01, warm_start=True).fit(X, y)
    before, intercept = model.coef_.copy(), model.intercept_

    def press(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_lasso, "moments", press)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y + 1)
    np.testing.assert_array_equal(model.coef_, before)
    assert model.intercept_ == intercept
