"""Ordinary least squares."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.utils._param_validation import Interval

from nagcore.linear_model._base import LinearRegressor, raise_if_interrupted
from nagcore.linear_model._least_squares import fits, least_squares

__all__ = ["LinearRegression"]

_MAX_ITER = 10_000
_EPS = float(np.finfo(np.float64).eps)


class LinearRegression(LinearRegressor):
    """Ordinary least squares: minimises ‖y − Xw − b‖²_s over w and b.

    Up to 512 columns, and up to 2048 where X has few rows, it is solved exactly, all targets at
    once; of several solutions (collinear columns) it gives the one of least norm. Larger problems
    go to `nagcore.minimize`; nothing bounds the gap of an unpenalised fit there, so it is estimated.

    Parameters
    ----------
    fit_intercept : bool, default True
        Whether there is an intercept b.
    copy_X : bool, default True
        Accepted for compatibility: X is never copied nor written.
    tol : float, default 1e-6
        Relative suboptimality to reach, where the solution is not exact.
    n_jobs : int, optional
        Threads; by default as many as nagcore finds.
    positive : bool, default False
        Whether the coefficients must be ≥ 0; X must then be dense, as in scikit-learn.

    Attributes
    ----------
    coef_ : ndarray of shape (d,) or (n_targets, d)
    intercept_ : float, or ndarray of shape (n_targets,)
    rank_ : int
        Of the centred, weighted X, where that is dense and the solution exact.
    singular_ : ndarray of shape (min(n, d),)
        Its singular values, likewise. Those at rounding of the largest count as zero.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,), where X has column names

    Source: docs/maths.md, L1; scikit-learn's LinearRegression for names and meanings.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0])
    >>> LinearRegression().fit(X, y).predict(np.array([[3.0]])).round(4)
    array([7.])
    """

    _parameter_constraints: ClassVar[dict] = {
        "fit_intercept": ["boolean"],
        "copy_X": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_jobs": [None, Integral],
        "positive": ["boolean"],
    }

    _keeps_rows = True

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        tol: float = 1e-6,
        n_jobs: int | None = None,
        positive: bool = False,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.tol = tol
        self.n_jobs = n_jobs
        self.positive = positive

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearRegression:
        """Fit to X of shape (n, d) and y of shape (n,) or (n, n_targets); return self."""
        if self.positive and issparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense data is required: positive=True takes "
                "arrays. Use X.toarray(), or Ridge(alpha=0.0, positive=True)."
            )
        X, y, sample_weight = self._check(X, y, sample_weight)
        k = 1 if y.ndim == 1 else y.shape[1]
        if fits(X, self.positive):
            dense = not (issparse(X) or self.positive)
            with self._left_usable(X, y, sample_weight):
                found = least_squares(X, y, sample_weight, np.zeros(k), positive=self.positive,
                                      fit_intercept=self.fit_intercept, spectrum=dense)
            self._set(X, y, found.coef, found.intercept)
            if found.singular is not None:
                self.singular_ = found.singular[: min(X.shape)]
                least = max(X.shape) * _EPS * found.singular[0]
                self.rank_ = int(np.count_nonzero(found.singular > least))
            return self
        penalty = {"positive": True} if self.positive else {}
        results = self._fit_columns(X, y, sample_weight, [penalty] * k, max_iter=_MAX_ITER)
        raise_if_interrupted(results[-1])
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not self.positive
        return tags
