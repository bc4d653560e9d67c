"""Least squares, plain and with an l2 penalty."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from nagcore.linear_model._base import LinearRegressor, raise_if_interrupted
from nagcore.solvers import names

__all__ = ["LinearRegression", "Ridge"]

_MAX_ITER = 1000


class Ridge(LinearRegressor):
    """Least squares with an l2 penalty: minimises ‖y − Xw − b‖²_s + α‖w‖² over w and b.

    Parameters
    ----------
    alpha : float or array of shape (n_targets,), default 1.0
        Strength of the penalty, ≥ 0; in nagcore's terms l2 = α/S, S the sum of the weights.
    fit_intercept : bool, default True
        Whether there is an intercept b; it is not penalised.
    copy_X : bool, default True
        Accepted for compatibility: X is never copied nor written.
    max_iter : int, optional
        Most iterations; by default 1000.
    tol : float, default 1e-4
        Relative suboptimality to reach.
    solver : {"auto", "fista", "acfgm"}, default "auto"
    positive : bool, default False
        Only False is implemented.
    random_state : int, RandomState or None, default None
        Chooses the rows that are sampled to scale the columns; None is 0.

    Attributes
    ----------
    coef_ : ndarray of shape (d,) or (n_targets, d)
    intercept_ : float, or ndarray of shape (n_targets,)
    n_iter_ : ndarray of shape (n_targets,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,), where X has column names

    Source: docs/maths.md, L1; scikit-learn's Ridge for names and meanings.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 2.0])
    >>> Ridge(alpha=1.0, tol=1e-12).fit(X, y).coef_.round(4)
    array([0.6667])
    """

    _parameter_constraints: ClassVar[dict] = {
        "alpha": [Interval(Real, 0, None, closed="left"), "array-like"],
        "fit_intercept": ["boolean"],
        "copy_X": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({"auto", *names()})],
        "positive": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        solver: str = "auto",
        positive: bool = False,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.positive = positive
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Ridge:
        """Fit to X of shape (n, d) and y of shape (n,) or (n, n_targets); return self."""
        X, y, sample_weight = self._check(X, y, sample_weight)
        total = X.shape[0] if sample_weight is None else sample_weight.sum()
        k = 1 if y.ndim == 1 else y.shape[1]
        alpha = np.asarray(self.alpha, np.float64).ravel()
        if alpha.size not in (1, k):
            raise ValueError(
                f"Number of targets and number of penalties do not correspond: alpha has "
                f"{alpha.size} entries and y has {k} targets. Use one alpha, or one per target."
            )
        penalties = [{"l2": float(a) / total} for a in np.broadcast_to(alpha, k)]
        results = self._fit_columns(X, y, sample_weight, penalties, solver=self.solver,
                                    max_iter=self.max_iter or _MAX_ITER,
                                    random_state=self.random_state)
        self.n_iter_ = np.array([r.n_iter for r in results], np.int32)
        self.solver_ = results[-1].solver
        raise_if_interrupted(results[-1])
        return self


class LinearRegression(LinearRegressor):
    """Ordinary least squares: minimises ‖y − Xw − b‖²_s over w and b.

    Nothing bounds the gap of an unpenalised fit, so it is estimated. Of several
    solutions (collinear columns) it gives one; all of them predict alike.

    Parameters
    ----------
    fit_intercept : bool, default True
        Whether there is an intercept b.
    copy_X : bool, default True
        Accepted for compatibility: X is never copied nor written.
    tol : float, default 1e-6
        Relative suboptimality to reach.
    n_jobs : int, optional
        Threads; by default as many as nagcore finds.
    positive : bool, default False
        Only False is implemented.

    Attributes
    ----------
    coef_ : ndarray of shape (d,) or (n_targets, d)
    intercept_ : float, or ndarray of shape (n_targets,)
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
        X, y, sample_weight = self._check(X, y, sample_weight)
        k = 1 if y.ndim == 1 else y.shape[1]
        results = self._fit_columns(X, y, sample_weight, [{}] * k, max_iter=10 * _MAX_ITER)
        raise_if_interrupted(results[-1])
        return self
