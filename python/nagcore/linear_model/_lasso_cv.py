"""The lasso and the elastic net with strengths chosen by cross-validation, all folds from one read of X."""

from __future__ import annotations

import math
from numbers import Integral, Number, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.model_selection import check_cv
from sklearn.utils import check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import column_or_1d

from nagcore.linear_model._active_set import sparse_least_squares
from nagcore.linear_model._base import (
    LinearRegressor,
    check_data,
    check_weights,
    raise_if_interrupted,
    seed_of,
    solve,
    threads_of,
    validate_params,
    warn_unconverged,
)
from nagcore.linear_model._folds import HeldOut, fold_moments, fold_weights
from nagcore.linear_model._lasso import ElasticNet, Lasso
from nagcore.linear_model._least_squares import fits, mean_x_of
from nagcore.linear_model._moments import Moments, as_columns, blocks, origin_of
from nagcore.linear_model._routing import refuse_params, route, router
from nagcore.objective import Objective
from nagcore.penalties import Penalty
from nagcore.solvers.paths import shared

__all__ = ["ElasticNetCV", "LassoCV"]

_CANCELLED = 1e-8  # of the targets' variance: a squared error below it is summed from residuals


class _Path:
    """Fits along a path of strengths, for the training rows of each fold.

    Moments of the test rows of all folds come from one read of X; those of a fold's training rows
    are the others' sum. Where X has too many columns for that, `nagcore.minimize` runs on all rows,
    with weight zero for those held out.
    """

    def __init__(self, estimator: Any, X: Any, y: np.ndarray, s: np.ndarray | None, folds: list) -> None:
        self.estimator, self.X, self.y, self.s, self.folds = estimator, X, y, s, folds
        self.Y = as_columns(y)
        self.limit = math.inf if estimator.max_iter is None else estimator.max_iter
        self.last: tuple[np.ndarray, np.ndarray] | None = None  # the coefficients found last
        self.tests: list[Moments] | None = None
        self.trains: list[Moments] = []

    def gather(self) -> None:
        """Take the moments of all folds, where they serve."""
        if fits(self.X, True):
            origin = origin_of(self.X, self.Y, self.estimator.fit_intercept)
            self.tests, self.trains = fold_moments(self.X, self.Y, self.s, origin, self.folds)

    def errors(self, i: int, l1_ratio: float, alphas: np.ndarray) -> np.ndarray:
        """The mean squared error on fold i's test rows, for each alpha."""
        coef, intercept = np.zeros((len(alphas), self.X.shape[1])), np.zeros(len(alphas))
        w, seed = None, seed_of(self.estimator.random_state)
        q: Any = None if self.tests is None else self.trains[i].quadratic(self.estimator.fit_intercept)
        objective = self._objective(i) if q is None else None
        for a, alpha in enumerate(alphas):
            penalty = Penalty(l1=alpha * l1_ratio, l2=alpha * (1 - l1_ratio),
                              positive=bool(self.estimator.positive))
            if objective is not None:
                each = objective.with_penalty(l2=penalty.l2, l1=penalty.l1)
                w, intercept[a] = self._by_passes(each, w, intercept[a - 1])
            else:
                found = sparse_least_squares(q, 0, penalty, w, self.estimator.tol, self.limit, seed)
                w = found.w
                intercept[a] = float(q.intercepts(w[None])[0])
                self._hold(w, intercept[a])
                raise_if_interrupted(found)
                if not found.converged:
                    gained = 0.5 * float(q.yy[0])
                    gap = found.gap / gained if gained > 0 else math.inf
                    warn_unconverged(self.estimator, found.message, gap)
            coef[a] = w
        return self._errors(i, coef, intercept)

    def _objective(self, i: int) -> Objective:
        """All rows, those that fold i holds out with weight zero; its strengths share what they find."""
        estimator = self.estimator
        return shared(Objective(
            self.X, self.y, loss="squared", fit_intercept=estimator.fit_intercept,
            positive=bool(estimator.positive), n_threads=threads_of(estimator),
            sample_weight=fold_weights(self.folds[i][0], self.X.shape[0], self.s)))

    def _by_passes(self, objective: Objective, w, b) -> tuple[np.ndarray, float]:
        estimator = self.estimator
        start = None
        if w is not None:
            start = np.append(w, b) if estimator.fit_intercept else w
        result = solve(estimator, objective, start, max_iter=estimator.max_iter,
                       random_state=estimator.random_state)
        self._hold(result.coef, result.intercept)
        raise_if_interrupted(result)
        return result.coef, float(result.intercept)

    def _hold(self, coef: np.ndarray, intercept: Any) -> None:
        self.last = coef[None], np.array([intercept])

    def _errors(self, i: int, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        test = np.arange(self.X.shape[0])[self.folds[i][1]]
        if self.tests is not None:
            m = self.tests[i]
            ox, oy = m.origin
            shift = coef @ ox + intercept - oy[0]
            error = (m.yy[0] + np.einsum("aj,jk,ak->a", coef, m.xx, coef) - 2 * coef @ m.xy[:, 0]
                     + 2 * shift * (coef @ m.x - m.y[0]) + m.total * shift**2) / m.total
            spread = m.yy[0] / m.total
            if (error > _CANCELLED * spread).all():
                return error
        scores = HeldOut(self.X, test).scores(coef, intercept)
        weights = None if self.s is None else self.s[test]
        return np.average((scores - self.Y[test]) ** 2, axis=0, weights=weights)


def _alpha_grid(X, y, s, l1_ratio, estimator) -> np.ndarray:
    """`alphas` strengths, from the least at which all coefficients are zero down to `eps` times it."""
    if l1_ratio == 0:
        raise ValueError(
            "Automatic alpha grid generation is not supported for l1_ratio=0. Please supply a grid by "
            "providing your estimator with the appropriate `alphas=` argument."
        )
    w = np.full(len(y), 1 / len(y)) if s is None else s / s.sum()
    mean_x = mean_x_of(X, s, estimator.fit_intercept)
    r = (y - w @ y if estimator.fit_intercept else y) * w
    slope = np.zeros(X.shape[1])
    for part, A in blocks(X):
        A -= mean_x
        slope += r[part] @ A
    largest = float(max(slope.max(), 0.0) if estimator.positive else np.abs(slope).max()) / l1_ratio
    tiny = float(np.finfo(np.float64).resolution)
    if largest <= tiny:
        return np.full(estimator.alphas, tiny)
    return np.geomspace(largest, largest * estimator.eps, num=estimator.alphas)


class _LinearModelCV(LinearRegressor):
    """The search that `LassoCV` and `ElasticNetCV` share, and their parameters."""

    def __init__(
        self, *, eps, alphas, fit_intercept, precompute, max_iter, tol, cv, copy_X, verbose, n_jobs,
        positive, random_state, selection,
    ) -> None:  # fmt: skip
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.precompute = precompute
        self.max_iter = max_iter
        self.tol = tol
        self.cv = cv
        self.copy_X = copy_X
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.positive = positive
        self.random_state = random_state
        self.selection = selection

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        """Fit to X of shape (n, d) and y of shape (n,); return self.

        `params` go to the splitter, under scikit-learn's metadata routing.
        """
        refuse_params(params, self, "fit")
        validate_params(self)
        if isinstance(sample_weight, Number):
            sample_weight = None  # equal weights: the objective is a mean
        X, y = check_data(self, X, y, multi_output=True, y_numeric=True)
        if y.ndim > 1 and y.shape[1] > 1:
            raise ValueError(f"For multi-task outputs, use MultiTask{type(self).__name__}")
        y = np.asarray(column_or_1d(y, warn=True), np.float64)
        s = check_weights(sample_weight, X)
        ratios = [float(r) for r in np.atleast_1d(getattr(self, "l1_ratio", 1.0))]
        if isinstance(self.alphas, Integral):
            with self._left_usable(X, y, s):
                grids = [_alpha_grid(X, y, s, ratio, self) for ratio in ratios]
        else:
            for index, alpha in enumerate(self.alphas):
                check_scalar(alpha, f"alphas[{index}]", Real, min_val=0.0, include_boundaries="left")
            grids = [np.sort(np.asarray(self.alphas, np.float64))[::-1]] * len(ratios)
        split_params, _ = route(self, "fit", s, params)
        folds = list(check_cv(self.cv).split(X, y, **split_params))
        path = _Path(self, X, y, s, folds)
        with self._left_usable(X, y, s, lambda: path.last):
            path.gather()
            errors = np.array([[path.errors(i, ratio, grid) for i in range(len(folds))]
                               for ratio, grid in zip(ratios, grids)])
        mean = errors.mean(axis=1)
        self.mse_path_ = np.squeeze(np.moveaxis(errors, 2, 1))
        r, a = np.unravel_index(np.argmin(mean), mean.shape)
        self.alpha_ = grids[r][a]
        if hasattr(self, "l1_ratio"):
            self.l1_ratio_ = ratios[r]
        several = isinstance(self.alphas, Integral) and len(ratios) > 1
        self.alphas_ = np.asarray(grids if several else grids[0])
        model = self._model(self.alpha_, ratios[r])

        def best() -> Any:
            if not hasattr(model, "n_iter_"):  # interrupted before it had more than the null model
                return path.last
            return model.coef_[None], np.array([model.intercept_])

        with self._left_usable(X, y, s, best):
            model.fit(X, y, sample_weight=s)
        self.coef_, self.intercept_ = model.coef_, model.intercept_
        self.dual_gap_, self.n_iter_ = model.dual_gap_, model.n_iter_
        return self

    def _model(self, alpha: float, l1_ratio: float) -> ElasticNet:
        shared = {name: getattr(self, name) for name in (
            "fit_intercept", "max_iter", "tol", "positive", "random_state", "selection")}  # fmt: skip
        if isinstance(self, LassoCV):
            return Lasso(alpha=alpha, **shared)
        return ElasticNet(alpha=alpha, l1_ratio=l1_ratio, **shared)

    def get_metadata_routing(self) -> Any:
        """Return scikit-learn's MetadataRouter of this object and its splitter."""
        return router(self, check_cv(self.cv))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        return tags


_CONSTRAINTS: dict[str, list[Any]] = {
    "eps": [Interval(Real, 0, None, closed="neither")],
    "alphas": [Interval(Integral, 1, None, closed="left"), "array-like"],
    "fit_intercept": ["boolean"],
    "precompute": [StrOptions({"auto"}), "array-like", "boolean"],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "copy_X": ["boolean"],
    "cv": ["cv_object"],
    "verbose": ["verbose"],
    "n_jobs": [Integral, None],
    "positive": ["boolean"],
    "random_state": ["random_state"],
    "selection": [StrOptions({"cyclic", "random"})],
}


class ElasticNetCV(_LinearModelCV, RegressorMixin):
    """`ElasticNet` with alpha and l1_ratio chosen by cross-validation, along paths with warm starts.

    Up to 512 columns, and up to 2048 where X has few rows, all folds come from one read of X.

    Parameters
    ----------
    l1_ratio : float or sequence of float in [0, 1], default 0.5
    eps : float, default 1e-3
        The least strength over the greatest, where `alphas` is a number.
    alphas : int or sequence of float, default 100
        How many strengths, from the one at which all coefficients are zero; or the strengths.
    fit_intercept, max_iter, tol, copy_X, positive, random_state, selection
        As in `ElasticNet`.
    precompute : "auto", bool or array, default "auto"
        Accepted for compatibility.
    cv : int, splitter or iterable, optional
        By default five folds.
    verbose : int, default 0
        Accepted for compatibility.
    n_jobs : int, optional
        Threads; by default as many as nagcore finds.

    Attributes
    ----------
    alpha_, l1_ratio_ : float
    coef_ : ndarray of shape (d,)
    intercept_ : float
    mse_path_ : ndarray of shape (n_l1_ratios, n_alphas, n_folds), without dimensions of one
    alphas_ : ndarray of shape (n_alphas,) or (n_l1_ratios, n_alphas)
    dual_gap_, n_iter_, n_features_in_, feature_names_in_
        As in `ElasticNet`.

    Source: docs/maths.md, "Least squares from moments"; scikit-learn's ElasticNetCV for names.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ElasticNetCV(l1_ratio=[0.5, 1.0], alphas=20).fit(X, y)
    >>> model.l1_ratio_, model.mse_path_.shape
    (1.0, (2, 20, 5))
    """

    _parameter_constraints: ClassVar[dict] = {
        **_CONSTRAINTS, "l1_ratio": [Interval(Real, 0, 1, closed="both"), "array-like"],
    }  # fmt: skip

    def __init__(
        self,
        *,
        l1_ratio: Any = 0.5,
        eps: float = 1e-3,
        alphas: Any = 100,
        fit_intercept: bool = True,
        precompute: Any = "auto",
        max_iter: int = 1000,
        tol: float = 1e-4,
        cv: Any = None,
        copy_X: bool = True,
        verbose: int = 0,
        n_jobs: int | None = None,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        self.l1_ratio = l1_ratio
        super().__init__(
            eps=eps, alphas=alphas, fit_intercept=fit_intercept, precompute=precompute,
            max_iter=max_iter, tol=tol, cv=cv, copy_X=copy_X, verbose=verbose, n_jobs=n_jobs,
            positive=positive, random_state=random_state, selection=selection,
        )


class LassoCV(_LinearModelCV, RegressorMixin):
    """`Lasso` with alpha chosen by cross-validation, along a path with warm starts.

    Up to 512 columns, and up to 2048 where X has few rows, all folds come from one read of X.

    Parameters
    ----------
    eps, alphas, fit_intercept, precompute, max_iter, tol, copy_X, cv, verbose, n_jobs, positive,
    random_state, selection
        As in `ElasticNetCV`.

    Attributes
    ----------
    alpha_ : float
    mse_path_ : ndarray of shape (n_alphas, n_folds)
    alphas_ : ndarray of shape (n_alphas,)
    coef_, intercept_, dual_gap_, n_iter_, n_features_in_, feature_names_in_
        As in `Lasso`.

    Source: docs/maths.md, "Least squares from moments"; scikit-learn's LassoCV for names.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> LassoCV(alphas=20).fit(X, y).mse_path_.shape
    (20, 5)
    """

    _parameter_constraints: ClassVar[dict] = _CONSTRAINTS

    def __init__(
        self,
        *,
        eps: float = 1e-3,
        alphas: Any = 100,
        fit_intercept: bool = True,
        precompute: Any = "auto",
        max_iter: int = 1000,
        tol: float = 1e-4,
        copy_X: bool = True,
        cv: Any = None,
        verbose: Any = False,
        n_jobs: int | None = None,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        super().__init__(
            eps=eps, alphas=alphas, fit_intercept=fit_intercept, precompute=precompute,
            max_iter=max_iter, tol=tol, cv=cv, copy_X=copy_X, verbose=verbose, n_jobs=n_jobs,
            positive=positive, random_state=random_state, selection=selection,
        )
