"""Logistic regression: the logistic loss for two classes, softmax for more."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import compute_class_weight
from sklearn.utils._param_validation import Hidden, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from nagcore.linear_model._base import (
    check_data,
    check_new_data,
    check_weights,
    coef_dtype,
    linear_scores,
    raise_if_interrupted,
    solve,
    threads_of,
)
from nagcore.objective import Objective
from nagcore.solvers import names

__all__ = ["LogisticRegression"]


class LogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression for two classes, and multinomial (softmax) regression for more.

    Minimises C Σ s_i φ(z_i, y_i) + ρ‖w‖₁ + ((1 − ρ)/2)‖w‖² over w and b, with ρ = `l1_ratio`: in
    nagcore's terms l1 = ρ/(C·S) and l2 = (1 − ρ)/(C·S), S the sum of the weights.

    Parameters
    ----------
    penalty : {"l1", "l2", "elasticnet", None}, deprecated
        As in scikit-learn from 1.8 on: use `l1_ratio` and `C` instead.
    C : float, default 1.0
        Inverse strength of the penalty, > 0; infinity for none.
    l1_ratio : float, default 0.0
        ρ in [0, 1]: 0 is the l2 penalty, 1 the l1 penalty.
    dual : bool, default False
        Only False is implemented.
    tol : float, default 1e-4
        Relative suboptimality to reach.
    fit_intercept : bool, default True
        Whether there is an intercept b; it is not penalised.
    intercept_scaling : float, default 1
        Accepted for compatibility: it matters to liblinear alone.
    class_weight : dict or "balanced", optional
        Weights of the classes, multiplied with sample_weight.
    random_state : int, RandomState or None, default None
        Chooses the rows that are sampled to scale the columns; None is 0.
    solver : {"auto", "fista", "acfgm"}, default "auto"
    max_iter : int, default 100
        Most iterations, of one pass over X each.
    verbose : int, default 0
        Accepted for compatibility.
    warm_start : bool, default False
        Start from the coefficients of the last fit.
    n_jobs : int, optional
        Threads; by default as many as nagcore finds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1, d) or (n_classes, d)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    n_iter_ : ndarray of shape (1,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,), where X has column names

    Source: docs/maths.md, L2 and L3; scikit-learn's LogisticRegression for names and meanings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression().fit(X, y)
    >>> model.predict_proba(X[:1]).round(2)
    array([[0.98, 0.02, 0.  ]])
    """

    _parameter_constraints: ClassVar[dict] = {
        "penalty": [StrOptions({"l1", "l2", "elasticnet"}), None, Hidden(StrOptions({"deprecated"}))],
        "C": [Interval(Real, 0, None, closed="right")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both"), None],
        "dual": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "fit_intercept": ["boolean"],
        "intercept_scaling": [Interval(Real, 0, None, closed="neither")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "random_state": ["random_state"],
        "solver": [StrOptions({"auto", *names()})],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "n_jobs": [None, Integral],
    }

    def __init__(
        self,
        penalty: str | None = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float | None = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "auto",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs

    def _penalty(self) -> tuple[float, float]:
        """Return 1/C and ρ, with scikit-learn 1.8's reading of the deprecated `penalty`."""
        ratio = 0.0 if self.l1_ratio is None else float(self.l1_ratio)
        if self.penalty == "deprecated":
            if self.l1_ratio is None:
                warnings.warn("l1_ratio=None is deprecated; use 0 <= l1_ratio <= 1, 0 for the l2 "
                              "penalty.", FutureWarning, stacklevel=3)
            return 1 / float(self.C), ratio
        warnings.warn(
            "penalty is deprecated: leave it out, and use l1_ratio=0 for 'l2', l1_ratio=1 for 'l1', "
            "l1_ratio between them for 'elasticnet', and C=np.inf for None.",
            FutureWarning, stacklevel=3,
        )
        if self.penalty is None:
            if self.C != 1.0:
                warnings.warn("penalty=None ignores C and l1_ratio.", stacklevel=3)
            return 0.0, 0.0
        if self.penalty == "elasticnet":
            if self.l1_ratio is None:
                raise ValueError("l1_ratio must be specified when penalty is elasticnet.")
            return 1 / float(self.C), ratio
        meant = float(self.penalty == "l1")
        if ratio not in (0.0, meant):
            warnings.warn(f"Inconsistent values: penalty={self.penalty} with l1_ratio={ratio}. "
                          "The penalty's name decides; use l1_ratio only.", stacklevel=3)
        return 1 / float(self.C), meant

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LogisticRegression:
        """Fit to X of shape (n, d) and class labels y of shape (n,); return self."""
        self._validate_params()
        strength, ratio = self._penalty()
        if self.dual:
            raise ValueError("dual=True is not implemented by nagcore's LogisticRegression; "
                             "use dual=False.")
        X, y = check_data(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        k = len(self.classes_)
        if k < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains "
                f"only one class: {self.classes_[0]!r}"
            )
        sample_weight = self._weights(sample_weight, X, y, codes)
        total = X.shape[0] if sample_weight is None else sample_weight.sum()
        classes = {"loss": "logistic"} if k == 2 else {"loss": "softmax", "n_classes": k}
        objective = Objective(
            X, codes.astype(np.float64), sample_weight=sample_weight,
            l1=strength * ratio / total, l2=strength * (1 - ratio) / total,
            fit_intercept=self.fit_intercept, n_threads=threads_of(self), **classes,
        )
        result = solve(self, objective, self._start(k, X.shape[1]), solver=self.solver,
                       max_iter=self.max_iter, random_state=self.random_state)
        dtype = coef_dtype(X)
        self.coef_ = np.ascontiguousarray(np.atleast_2d(result.coef.T), dtype)
        self.intercept_ = np.atleast_1d(np.asarray(result.intercept, dtype))
        self.n_iter_ = np.array([result.n_iter], np.int32)
        raise_if_interrupted(result)
        return self

    def _weights(self, sample_weight: Any, X: Any, y: np.ndarray, codes: np.ndarray) -> Any:
        weights = check_weights(sample_weight, X)
        if self.class_weight is None:
            return weights
        given = np.ones(X.shape[0]) if weights is None else weights
        per_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y,
                                         sample_weight=given)
        return given * per_class[codes]

    def _start(self, k: int, d: int) -> np.ndarray | None:
        """The last fit's coefficients, if they are asked for and fit."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        rows = 1 if k == 2 else k
        if self.coef_.shape != (rows, d):
            return None
        w = np.asarray(self.coef_.T, np.float64)
        if self.fit_intercept:
            w = np.vstack([w, self.intercept_[None, :]])
        return w[:, 0] if k == 2 else w

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the margins, shape (n,) for two classes, else (n, n_classes)."""
        check_is_fitted(self)
        scores = linear_scores(check_new_data(self, X), self.coef_, self.intercept_)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, shape (n,)."""
        scores = self.decision_function(X)
        index = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[index]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, shape (n, n_classes), in the order of `classes_`."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        return softmax(scores, axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`, exact also where a probability underflows."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        return log_softmax(scores, axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
