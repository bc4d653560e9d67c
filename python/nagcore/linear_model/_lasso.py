"""Least squares with an l1 penalty, or both penalties."""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.utils._param_validation import Interval, StrOptions

from nagcore.linear_model._active_set import Sparse, sparse_least_squares
from nagcore.linear_model._base import (
    LinearRegressor,
    raise_if_interrupted,
    seed_of,
    warn_unconverged,
)
from nagcore.linear_model._least_squares import fits
from nagcore.linear_model._moments import as_columns, moments, origin_of, raise_if_bad
from nagcore.penalties import Penalty

__all__ = ["ElasticNet", "Lasso"]


class ElasticNet(LinearRegressor):
    """Least squares with l1 and l2 penalties.

    Minimises (1/2S)‖y − Xw − b‖²_s + α·ρ‖w‖₁ + (α(1 − ρ)/2)‖w‖² over w and b, with ρ = `l1_ratio`
    and S the sum of the weights. Up to 512 columns, and up to 2048 where X has few rows, it is
    solved exactly from one read of X; larger problems by `nagcore.minimize`.

    Parameters
    ----------
    alpha : float, default 1.0
        Strength of both penalties, ≥ 0.
    l1_ratio : float, default 0.5
        ρ in [0, 1]: 1 is the lasso, 0 ridge regression.
    fit_intercept : bool, default True
        Whether there is an intercept b; it is not penalised.
    precompute : bool or array, default False
        Accepted for compatibility: no Gram matrix is used.
    max_iter : int, default 1000
        Most passes over X, where there are many columns; active sets are not limited.
    copy_X : bool, default True
        Accepted for compatibility: X is never copied nor written.
    tol : float, default 1e-4
        Relative suboptimality to reach.
    warm_start : bool, default False
        Start from the coefficients of the last fit.
    positive : bool, default False
        Whether the coefficients must be ≥ 0.
    random_state : int, RandomState or None, default None
        Chooses the rows that are sampled to scale the columns; None is 0.
    selection : {"cyclic", "random"}, default "cyclic"
        Accepted for compatibility: all coordinates move at once.

    Attributes
    ----------
    coef_ : ndarray of shape (d,) or (n_targets, d)
    sparse_coef_ : CSR matrix of shape (1, d) or (n_targets, d)
    intercept_ : float, or ndarray of shape (n_targets,)
    n_iter_ : int, or list of int
    dual_gap_ : float, or ndarray of shape (n_targets,)
        The bound on F − min F that the fit ended with.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,), where X has column names

    Source: docs/maths.md, L1; scikit-learn's ElasticNet for names and meanings.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[-1.0, 0.1], [0.0, -0.1], [1.0, 0.1]]), np.array([-2.0, 0.0, 2.0])
    >>> ElasticNet(alpha=0.5, tol=1e-10).fit(X, y).coef_.round(4)
    array([1.1818, 0.    ])
    """

    _parameter_constraints: ClassVar[dict] = {
        "alpha": [Interval(Real, 0, None, closed="left")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "fit_intercept": ["boolean"],
        "precompute": ["boolean", "array-like"],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "copy_X": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "positive": ["boolean"],
        "random_state": ["random_state"],
        "selection": [StrOptions({"cyclic", "random"})],
    }

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        precompute: Any = False,
        max_iter: int | None = 1000,
        copy_X: bool = True,
        tol: float = 1e-4,
        warm_start: bool = False,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.precompute = precompute
        self.max_iter = max_iter
        self.copy_X = copy_X
        self.tol = tol
        self.warm_start = warm_start
        self.positive = positive
        self.random_state = random_state
        self.selection = selection

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, check_input: bool = True
    ) -> ElasticNet:
        """Fit to X of shape (n, d) and y of shape (n,) or (n, n_targets); return self.

        `check_input` is accepted for compatibility: the checks cost next to nothing.
        """
        if np.isscalar(sample_weight):
            sample_weight = None  # equal weights: the objective is a mean
        X, y, sample_weight = self._check(X, y, sample_weight)
        k = 1 if y.ndim == 1 else y.shape[1]
        alpha, ratio = float(self.alpha), float(self.l1_ratio)
        if alpha == 0:
            warnings.warn(
                "With alpha=0, this algorithm does not converge well. You are advised to use the "
                "LinearRegression estimator", stacklevel=2,
            )
        penalty = Penalty(l1=alpha * ratio, l2=alpha * (1 - ratio), positive=bool(self.positive))
        starts = self._starts(X, k)
        results: list[Any] | None = self._from_moments(X, y, sample_weight, penalty, starts)
        if results is None:
            results = self._fit_columns(
                X, y, sample_weight, [vars(penalty)] * k, max_iter=self.max_iter, starts=starts,
                random_state=self.random_state,
            )
        n_iter, gaps = [r.n_iter for r in results], np.array([r.gap for r in results])
        self.n_iter_ = n_iter[0] if k == 1 else n_iter
        self.dual_gap_ = float(gaps[0]) if k == 1 else gaps
        raise_if_interrupted(results[-1])
        return self

    def _from_moments(
        self, X: Any, y: np.ndarray, s: Any, penalty: Penalty, starts: np.ndarray | None
    ) -> list[Sparse] | None:
        """Fit all targets from one read of X; None where that is not the cheaper way."""
        if not fits(X, True):
            return None
        Y, d = as_columns(y), X.shape[1]
        coef, intercept = self._null(X, y, s)
        if starts is not None:
            coef[:], intercept[:] = starts[:, :d], starts[:, d] if self.fit_intercept else 0.0
        found: list[Sparse] = []
        with self._left_usable(X, y, s, lambda: (coef, intercept)):
            m = moments(X, Y, s, origin_of(X, Y, self.fit_intercept))
            raise_if_bad(m.xx, X)
            q = m.quadratic(self.fit_intercept)
            limit = math.inf if self.max_iter is None else self.max_iter
            for j in range(Y.shape[1]):
                w0 = None if starts is None else coef[j].copy()
                found.append(sparse_least_squares(q, j, penalty, w0, self.tol, limit,
                                                  seed_of(self.random_state)))
                coef[j] = found[-1].w
                if found[-1].message == "interrupted":
                    break
                if not found[-1].converged:
                    gap = found[-1].gap / gained if (gained := 0.5 * q.yy[j]) > 0 else math.inf
                    warn_unconverged(self, found[-1].message, gap)
            intercept[:] = q.intercepts(coef)
        self._set(X, y, coef, intercept)
        return found

    def _starts(self, X: Any, k: int) -> np.ndarray | None:
        """The last fit's coefficients and intercepts, one row per target, if they are asked for and fit."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        coef = np.atleast_2d(np.asarray(self.coef_, np.float64))
        if coef.shape != (k, X.shape[1]):
            return None
        if not self.fit_intercept:
            return coef
        return np.column_stack([coef, np.broadcast_to(self.intercept_, k)])

    @property
    def sparse_coef_(self) -> csr_matrix:
        """The coefficients as a CSR matrix."""
        return csr_matrix(self.coef_)


class Lasso(ElasticNet):
    """Least squares with an l1 penalty: minimises (1/2S)‖y − Xw − b‖²_s + α‖w‖₁ over w and b.

    Parameters
    ----------
    alpha : float, default 1.0
        Strength of the penalty, ≥ 0.
    fit_intercept, precompute, copy_X, max_iter, tol, warm_start, positive, random_state, selection
        As in `ElasticNet`.

    Attributes
    ----------
    coef_, sparse_coef_, intercept_, n_iter_, dual_gap_, n_features_in_, feature_names_in_
        As in `ElasticNet`.

    Source: docs/maths.md, L1; scikit-learn's Lasso for names and meanings.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[-1.0, 0.1], [0.0, -0.1], [1.0, 0.1]]), np.array([-2.0, 0.0, 2.0])
    >>> Lasso(alpha=0.5, tol=1e-10).fit(X, y).coef_.round(4)
    array([1.25, 0.  ])
    """

    _parameter_constraints: ClassVar[dict] = {
        name: constraint for name, constraint in ElasticNet._parameter_constraints.items()
        if name != "l1_ratio"
    }

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        precompute: Any = False,
        copy_X: bool = True,
        max_iter: int | None = 1000,
        tol: float = 1e-4,
        warm_start: bool = False,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        super().__init__(
            alpha=alpha, l1_ratio=1.0, fit_intercept=fit_intercept, precompute=precompute,
            copy_X=copy_X, max_iter=max_iter, tol=tol, warm_start=warm_start, positive=positive,
            random_state=random_state, selection=selection,
        )
