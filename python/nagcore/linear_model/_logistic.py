"""Logistic regression: the logistic loss for two classes, softmax for more."""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import Hidden, Interval, StrOptions

from nagcore.linear_model._base import (
    check_data,
    check_weights,
    coef_dtype,
    raise_if_interrupted,
    threads_of,
    validate_params,
    warn_unconverged,
)
from nagcore.linear_model._classify import LinearClassifier
from nagcore.linear_model._labels import checked
from nagcore.linear_model._logistic_problem import (
    THEIRS,
    LogisticProblem,
    check_solver,
    class_weighted,
    warn_if_separated,
)
from nagcore.solvers import names

__all__ = ["LogisticRegression"]


class LogisticRegression(LinearClassifier, ClassifierMixin, BaseEstimator):
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
        liblinear alone takes True, which has the same solution.
    tol : float, default 1e-4
        Relative suboptimality to reach.
    fit_intercept : bool, default True
        Whether there is an intercept b; it is not penalised.
    intercept_scaling : float, default 1
        With solver="liblinear" the intercept is this times the coefficient of a constant column, and
        that coefficient is penalised.
    class_weight : dict or "balanced", optional
        Weights of the classes, multiplied with sample_weight.
    random_state : int, RandomState or None, default None
        Chooses the rows that are sampled to scale the columns; None is 0.
    solver : str, default "lbfgs"
        scikit-learn's names all mean nagcore's choice, which gives what they give; which penalties
        each takes is as there ("saga" takes all), and "liblinear" penalises the intercept. "auto"
        takes everything. A name of `nagcore.solvers.names()` runs that method.
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
        "solver": [StrOptions({"auto", *THEIRS, *names()})],
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
        solver: str = "lbfgs",
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
        ratio = self.l1_ratio
        if self.penalty == "deprecated":
            if ratio is None:
                warnings.warn("'l1_ratio=None' was deprecated in version 1.8 and will trigger an error in "
                              "1.10. Use 0<=l1_ratio<=1 instead.", FutureWarning, stacklevel=3)
            penalty: str | None = "l2" if not ratio else "l1" if ratio == 1 else "elasticnet"
            if self.C == math.inf:
                penalty = None
        else:
            penalty = self.penalty
            warnings.warn(
                "'penalty' was deprecated in version 1.8 and will be removed in 1.10. Leave it out, and "
                "use l1_ratio=0 instead of penalty='l2', l1_ratio=1 instead of 'l1', l1_ratio between "
                "them instead of 'elasticnet', and C=np.inf instead of None.",
                FutureWarning, stacklevel=3,
            )
        check_solver(self.solver, penalty, self.dual)
        if penalty != "elasticnet" and ratio is not None and 0 < ratio < 1:
            warnings.warn(f"l1_ratio parameter is only used when penalty is 'elasticnet'. Got "
                          f"(penalty={penalty})", stacklevel=3)
        if (self.penalty == "l2" and ratio != 0) or (self.penalty == "l1" and ratio != 1):
            warnings.warn(f"Inconsistent values: penalty={self.penalty} with l1_ratio={ratio}. penalty is "
                          "deprecated. Please use l1_ratio only.", stacklevel=3)
        if penalty == "elasticnet" and ratio is None:
            raise ValueError("l1_ratio must be specified when penalty is elasticnet.")
        if self.penalty is None and self.C != 1.0:
            warnings.warn("Setting penalty=None will ignore the C and l1_ratio parameters", stacklevel=3)
        if penalty is None:
            return 0.0, 0.0
        return 1 / float(self.C), {"l2": 0.0, "l1": 1.0}.get(penalty, float(ratio or 0.0))

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LogisticRegression:
        """Fit to X of shape (n, d) and labels y of shape (n,); return self."""
        validate_params(self)
        strength, ratio = self._penalty()
        X, y = check_data(self, X, y, classes=True)
        self.classes_, codes = checked(y, threads_of(self))
        k = len(self.classes_)
        if k < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains "
                f"only one class: {self.classes_[0]!r}"
            )
        weights = class_weighted(self.class_weight, check_weights(sample_weight, X), self.classes_, y, codes)
        problem = LogisticProblem(self, X, codes, k, path=False)
        dtype = coef_dtype(X)
        result, self.coef_, intercept = problem.solve(strength, ratio, weights, self._start(k, X.shape[1]),
                                                      quiet=True, dtype=dtype)
        self.intercept_ = intercept.astype(dtype)
        self.n_iter_ = np.array([result.n_iter], np.int32)
        raise_if_interrupted(result)
        separated = strength == 0 and warn_if_separated(self, X, codes, weights)
        if not (result.converged or separated):
            gained = result.null_value - result.value
            warn_unconverged(self, result.message, result.gap / gained if gained > 0 else math.inf,
                             result.gap_kind, level=3)
        return self

    def _start(self, k: int, d: int) -> np.ndarray | None:
        """The last fit's coefficients, if they are asked for and fit."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        if self.coef_.shape != (1 if k == 2 else k, d):
            return None
        w = np.asarray(self.coef_, np.float64)
        return np.column_stack([w, self.intercept_]) if self.fit_intercept else w

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
        if self.solver == "liblinear":
            tags.classifier_tags.multi_class = False
        return tags
