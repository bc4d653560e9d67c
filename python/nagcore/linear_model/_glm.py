"""Generalised linear models with a log link."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.special import xlogy
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted

from nagcore.linear_model._base import (
    SparseInput,
    check_data,
    check_new_data,
    check_weights,
    coef_dtype,
    linear_scores,
    raise_if_interrupted,
    solve,
    validate_params,
)
from nagcore.objective import Objective
from nagcore.solvers import names

__all__ = ["PoissonRegressor"]

_THEIRS = ("lbfgs", "newton-cholesky")


class PoissonRegressor(SparseInput, RegressorMixin, BaseEstimator):
    """Poisson regression: minimises (1/S) Σ s_i (e^{z_i} − y_i z_i) + (α/2)‖w‖² over w and b, z = Xw + b.

    Parameters
    ----------
    alpha : float, default 1.0
        Strength of the penalty, ≥ 0.
    fit_intercept : bool, default True
        Whether there is an intercept b; it is not penalised.
    solver : str, default "lbfgs"
        scikit-learn's names "lbfgs" and "newton-cholesky" mean nagcore's choice, as "auto" does. A name
        of `nagcore.solvers.names()` runs that method.
    max_iter : int, default 100
        Most iterations.
    tol : float, default 1e-4
        Relative suboptimality to reach.
    warm_start : bool, default False
        Start from the coefficients of the last fit.
    verbose : int, default 0
        Accepted for compatibility.

    Attributes
    ----------
    coef_ : ndarray of shape (d,)
    intercept_ : float
    n_iter_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,), where X has column names

    Source: docs/maths.md, L5; scikit-learn's PoissonRegressor for names and meanings.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[1, 2], [2, 3], [3, 4], [4, 3]]), np.array([12, 17, 22, 21])
    >>> PoissonRegressor(tol=1e-9).fit(X, y).coef_.round(3)
    array([0.121, 0.158])
    """

    _parameter_constraints: ClassVar[dict] = {
        "alpha": [Interval(Real, 0.0, None, closed="left")],
        "fit_intercept": ["boolean"],
        "solver": [StrOptions({"auto", *_THEIRS, *names()})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="neither")],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    coef_: np.ndarray
    intercept_: Any

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        fit_intercept: bool = True,
        solver: str = "lbfgs",
        max_iter: int = 100,
        tol: float = 1e-4,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PoissonRegressor:
        """Fit to X of shape (n, d) and y ≥ 0 of shape (n,); return self."""
        validate_params(self)
        X, y = check_data(self, X, y, y_numeric=True)
        y = _counts(y)
        weights = check_weights(sample_weight, X)
        objective = Objective(X, y, loss="poisson", l2=float(self.alpha), sample_weight=weights,
                              fit_intercept=bool(self.fit_intercept))
        start = None
        if self.warm_start and hasattr(self, "coef_") and self.coef_.shape == (X.shape[1],):
            start = np.asarray(self.coef_, np.float64)
            start = np.append(start, self.intercept_) if self.fit_intercept else start
        result = solve(self, objective, start, max_iter=self.max_iter,
                       solver="auto" if self.solver in _THEIRS else self.solver)
        dtype = coef_dtype(X)
        self.coef_ = result.coef.astype(dtype)
        self.intercept_ = dtype.type(result.intercept) if self.fit_intercept else 0.0
        self.n_iter_ = max(result.n_iter, 1)
        raise_if_interrupted(result)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the expected counts e^{Xw + b}, shape (n,)."""
        check_is_fitted(self)
        return np.exp(linear_scores(check_new_data(self, X), self.coef_, self.intercept_))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return D² = 1 − deviance/(deviance of the mean), at most 1."""
        check_is_fitted(self)
        X = check_new_data(self, X)
        z = linear_scores(X, self.coef_, self.intercept_).astype(np.float64)
        y = _counts(check_array(y, dtype=np.float64, ensure_2d=False))
        weights = check_weights(sample_weight, X)
        best = np.average(xlogy(y, y) - y, weights=weights)
        mean = np.average(y, weights=weights)
        loss = np.average(y * z - np.exp(z), weights=weights)
        return float(1 - (best - loss) / (best - (xlogy(mean, mean) - mean)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags


def _counts(y: Any) -> np.ndarray:
    y = np.asarray(y, np.float64)
    if not (y >= 0).all():
        raise ValueError("Some value(s) of y are out of the valid range of the loss 'HalfPoissonLoss': "
                         f"the least is {y.min():g}. Use counts, or rates, ≥ 0.")
    return y
