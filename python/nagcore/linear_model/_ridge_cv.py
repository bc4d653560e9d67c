"""Ridge regression whose alpha is chosen by leaving one row out, or by cross-validation."""

from __future__ import annotations

import inspect
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.model_selection import GridSearchCV, check_cv
from sklearn.utils import check_scalar
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils._param_validation import Interval, StrOptions

from nagcore.linear_model._base import LinearRegressor, validate_params
from nagcore.linear_model._folds import HeldOut, fold_moments, fold_weights, takes_predictions
from nagcore.linear_model._least_squares import _normal_equations as normal_equations
from nagcore.linear_model._least_squares import fits, mean_x_of, row_products
from nagcore.linear_model._moments import Moments, as_columns, blocks, moments, origin_of, raise_if_bad
from nagcore.linear_model._ridge import Ridge
from nagcore.linear_model._routing import part_of, refuse_params, route, router

__all__ = ["RidgeCV"]


def _leave_one_out(
    X: Any, Y: np.ndarray, s: np.ndarray | None, alphas: np.ndarray, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Residuals √s_i(y_i − ŷ_i) of every row by the model of all others, and the models of all rows.

    (y_i − ŷ_i)/(1 − h_i), h_i = s_i/S + Σ_j a_ij²/(λ_j + α), with A the centred, weighted rows in the
    eigenvectors of AᵀA. With more columns than rows, from the eigenvectors of AAᵀ likewise.

    Returns
    -------
    errors : (n, k, n_alphas)
    coef : (n_alphas, k, d)
    mean_x, mean_y : (d,), (k,)
    """
    (n, d), k = X.shape, Y.shape[1]
    root = np.ones((n, 1)) if s is None else np.sqrt(s)[:, None]
    if n < d:
        return _from_rows(X, Y, s, root, alphas, fit_intercept)
    m = moments(X, Y, s, origin_of(X, Y, fit_intercept))
    raise_if_bad(m.xx, X)
    q = m.quadratic(fit_intercept)
    values, V = np.linalg.eigh(q.G * q.total)
    inverse = 1 / (np.maximum(values, 0)[:, None] + alphas)
    turned = (V.T @ q.c)[:, :, None] * q.total * inverse[:, None, :]       # (d, k, n_alphas)
    errors, own = np.empty((n, k, len(alphas))), 1 / q.total if fit_intercept else 0.0
    for part, A in blocks(X):
        A -= q.mean_x
        A *= root[part]
        P = A @ V
        leverage = P**2 @ inverse + own * root[part] ** 2
        rest = ((Y[part] - q.mean_y) * root[part])[:, :, None] - np.tensordot(P, turned, 1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a row that alone decides its fit
            errors[part] = rest / (1 - leverage)[:, None, :]
    coef = np.einsum("dj,jka->akd", V, turned)
    return errors, coef, q.mean_x, q.mean_y


def _from_rows(X, Y, s, root, alphas, fit_intercept):
    n, d = X.shape
    mean_x = mean_x_of(X, s, fit_intercept)
    mean_y = np.average(Y, axis=0, weights=s) if fit_intercept else np.zeros(Y.shape[1])
    K = row_products(X, mean_x, root)
    mean_part = np.zeros(n, bool)
    if fit_intercept:
        # The direction of the mean is in the null space of K; lifted out of it, it can be left out.
        u = root[:, 0] / np.linalg.norm(root)
        K += np.outer(u, u) * (2 * np.trace(K) + 1)
    values, U = np.linalg.eigh(K)
    if fit_intercept:
        mean_part[np.argmax(np.abs(u @ U))] = True
    inverse = np.where(mean_part[:, None], 0.0, 1 / (np.maximum(values, 0)[:, None] + alphas))
    rhs = (Y - mean_y) * root
    dual = np.einsum("ij,jka->ika", U, (U.T @ rhs)[:, :, None] * inverse[:, None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = dual / (U**2 @ inverse)[:, None, :]
    coef = np.zeros((len(alphas), Y.shape[1], d))
    for part, A in blocks(X):
        A -= mean_x
        coef += np.einsum("ika,id->akd", dual[part] * root[part][:, :, None], A)
    return errors, coef, mean_x, mean_y


def _takes_weights(scorer: Any) -> bool:
    """Whether weights go to the scorer, too: where it has them, and scikit-learn's search does that."""
    if not hasattr(GridSearchCV, "_check_scorers_accept_sample_weight"):
        return False
    known = inspect.signature(getattr(scorer, "_score_func", scorer)).parameters
    if "sample_weight" in known:
        return True
    warnings.warn(f"The scoring {scorer} does not support sample_weight: folds are scored without. Use a "
                  "scorer that takes sample_weight.", stacklevel=4)
    return False


class _Paths:
    """Coefficients for the training rows of each fold and each alpha, by moments where those do."""

    def __init__(self, X: Any, y: np.ndarray, s: np.ndarray | None, fit_intercept: bool, folds: list) -> None:
        self.X, self.y, self.s, self.fit_intercept, self.folds = X, y, s, fit_intercept, folds
        self.Y = as_columns(y)
        self.trains: list[Moments] | None = None
        self.last: tuple[np.ndarray, np.ndarray] | None = None  # the coefficients found last

    def gather(self) -> None:
        """Take the moments of all folds, where they serve."""
        X = self.X
        if fits(X) and X.shape[0] >= X.shape[1]:
            origin = origin_of(X, self.Y, self.fit_intercept)
            _, self.trains = fold_moments(X, self.Y, self.s, origin, self.folds)

    def at(self, i: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """coef (k, d) and intercepts (k,) of fold i."""
        kept = fold_weights(self.folds[i][0], len(self.y), self.s)
        if self.trains is not None:
            q = self.trains[i].quadratic(self.fit_intercept)
            coef = normal_equations(self.X, self.Y, kept, q, q.c, alpha / q.total, False)
            if coef is not None:
                self.last = found = coef, q.intercepts(coef)
                return found
        return self.fitted(alpha, kept)

    def fitted(self, alpha: float, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """coef (k, d) and intercepts (k,) of a fit by these weights; after Ctrl-C `last` has its best."""
        model = Ridge(alpha=alpha, fit_intercept=self.fit_intercept)

        def found() -> tuple[np.ndarray, np.ndarray]:
            return np.atleast_2d(model.coef_), np.broadcast_to(model.intercept_, self.Y.shape[1])

        try:
            model.fit(self.X, self.y, weights)
        except KeyboardInterrupt:
            if hasattr(model, "solver_"):  # else it has the null model, or nothing
                self.last = found()
            raise
        self.last = found()
        return found()


class _Predicted(BaseEstimator):
    """Hands a scorer the predictions that it was given for X."""

    _estimator_type = "regressor"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        return tags

    def fit(self, X: Any, y: Any = None) -> _Predicted:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> Any:
        return X


class RidgeCV(LinearRegressor):
    """Ridge regression with alpha chosen from a grid, by leaving each row out in turn unless `cv` is given.

    Two reads of X serve all alphas: one for its moments, one for the residuals. With `cv`, one serves
    all folds and alphas and one each to score the rows held out. X is not copied; only a scorer that is
    not of scikit-learn's make is handed a copy of the rows held out.

    Parameters
    ----------
    alphas : float or sequence of float, default (0.1, 1.0, 10.0)
        Strengths of the penalty, > 0.
    fit_intercept : bool, default True
    scoring : str or callable, optional
        By default the mean squared error of the rows left out; R² where `cv` is given.
    cv : int, splitter or iterable, optional
        None leaves out one row at a time.
    gcv_mode : {"auto", "svd", "eigen"}, optional
        Accepted for compatibility.
    store_cv_results : bool, default False
        Whether `cv_results_` is kept; only without `cv`.
    alpha_per_target : bool, default False
        Whether each target has its own alpha; only without `cv`.

    Attributes
    ----------
    alpha_ : float, or ndarray of shape (n_targets,)
    best_score_ : float, or ndarray of shape (n_targets,)
    coef_ : ndarray of shape (d,) or (n_targets, d)
    intercept_ : float, or ndarray of shape (n_targets,)
    cv_results_ : ndarray of shape (n, n_alphas) or (n, n_targets, n_alphas)
        Squared errors (times the weights) of the rows left out, or predictions where `scoring` is given.
    n_features_in_, feature_names_in_
        As in `Ridge`.

    Source: docs/maths.md, "Least squares from moments"; scikit-learn's RidgeCV for names and meanings.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> RidgeCV(alphas=[1e-3, 1e-2, 1e-1, 1.0]).fit(X, y).alpha_
    0.01
    """

    _parameter_constraints: ClassVar[dict] = {
        "alphas": ["array-like", Interval(Real, 0, None, closed="neither")],
        "fit_intercept": ["boolean"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "cv": ["cv_object"],
        "gcv_mode": [StrOptions({"auto", "svd", "eigen"}), None],
        "store_cv_results": ["boolean"],
        "alpha_per_target": ["boolean"],
    }

    def __init__(
        self,
        alphas: Any = (0.1, 1.0, 10.0),
        *,
        fit_intercept: bool = True,
        scoring: Any = None,
        cv: Any = None,
        gcv_mode: str | None = None,
        store_cv_results: bool = False,
        alpha_per_target: bool = False,
    ) -> None:
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.scoring = scoring
        self.cv = cv
        self.gcv_mode = gcv_mode
        self.store_cv_results = store_cv_results
        self.alpha_per_target = alpha_per_target

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> RidgeCV:
        """Fit to X of shape (n, d) and y of shape (n,) or (n, n_targets); return self.

        `params` go to the scorer and the splitter, under scikit-learn's metadata routing.
        """
        refuse_params(params, self, "fit")
        validate_params(self)
        closed = "neither" if self.cv is None else "left"
        given = np.asarray(self.alphas, np.float64)
        for index, alpha in enumerate(given.ravel().tolist()):
            check_scalar(alpha, f"alphas[{index}]" if given.size > 1 else "alphas", Real, min_val=0.0,
                         include_boundaries=closed)
        alphas = given.ravel()
        if self.cv is not None:
            return self._search(X, y, sample_weight, alphas, params)
        if isinstance(sample_weight, (Integral, Real)):
            sample_weight = np.full(np.shape(X)[0], float(sample_weight))
        X, y, s = self._check(X, y, sample_weight)
        Y = as_columns(y)
        with self._left_usable(X, y, s):
            errors, coef, mean_x, mean_y = _leave_one_out(X, Y, s, alphas, bool(self.fit_intercept))
        if self.scoring is None:
            results = errors**2
            scores = -results.mean(axis=0)
        else:
            results = Y[:, :, None] - (errors if s is None else errors / np.sqrt(s)[:, None, None])
            _, score_params = route(self, "fit", s, params)
            scores = self._scored(results, Y, score_params)
        if not self.alpha_per_target or Y.shape[1] == 1:
            scores = scores.mean(axis=0, keepdims=True)
        best = scores.argmax(axis=1)                          # one for all targets, or one for each
        which = np.broadcast_to(best, Y.shape[1])
        chosen = coef[which, np.arange(Y.shape[1])]
        single = len(best) == 1
        self.alpha_ = float(alphas[best[0]]) if single else alphas[best]
        self.best_score_ = scores[0, best[0]] if single else scores[np.arange(len(best)), best]
        self._set(X, y, chosen, mean_y - chosen @ mean_x)
        if self.store_cv_results:
            self.cv_results_ = (results[:, 0] if y.ndim == 1 else results).astype(self.coef_.dtype)
        return self

    def _scored(self, predictions: np.ndarray, Y: np.ndarray, params: dict[str, Any]) -> np.ndarray:
        """Scores (1 or n_targets, n_alphas) of predictions (n, n_targets, n_alphas)."""
        scorer, model = self._get_scorer(), _Predicted()
        if self.alpha_per_target:
            return np.array([[scorer(model, predictions[:, j, a], Y[:, j], **params)
                              for a in range(predictions.shape[2])] for j in range(Y.shape[1])])
        if Y.shape[1] == 1:
            predictions, Y = predictions[:, 0], Y[:, 0]
        return np.array([[scorer(model, predictions[..., a], Y, **params)
                          for a in range(predictions.shape[-1])]])

    def _search(self, X: Any, y: Any, sample_weight: Any, alphas: np.ndarray, params: dict) -> RidgeCV:
        for name in ("store_cv_results", "alpha_per_target"):
            if getattr(self, name):
                raise ValueError(f"cv!=None and {name}=True are incompatible")
        X, y, s = self._check(X, y, sample_weight)
        split_params, score_params = route(self, "fit", s, params)
        scorer = get_scorer("r2") if self.scoring is None else self._get_scorer()
        if s is not None and not _routing_enabled() and not _takes_weights(scorer):
            score_params = {}
        n = X.shape[0]
        folds = list(check_cv(self.cv, y).split(X, y, **split_params))
        paths = _Paths(X, y, s, bool(self.fit_intercept), folds)
        with self._left_usable(X, y, s, lambda: paths.last):
            paths.gather()
            scores = np.empty((len(folds), len(alphas)))
            for i, (_, test) in enumerate(folds):
                held, params_i = HeldOut(X, test), part_of(score_params, n, test)
                for a, alpha in enumerate(alphas):
                    coef, intercept = paths.at(i, alpha)
                    if takes_predictions(scorer):
                        model, seen = _Predicted(), held.scores(coef, intercept)
                        seen = seen[:, 0] if y.ndim == 1 else seen
                    else:
                        model, seen = Ridge(alpha=alpha, fit_intercept=self.fit_intercept), held.copy()
                        model.n_features_in_ = X.shape[1]
                        model._set(X, y, coef, intercept)
                    scores[i, a] = scorer(model, seen, y[test], **params_i)
        mean = scores.mean(axis=0)
        best = int(np.nan_to_num(mean, nan=-np.inf).argmax())
        self.alpha_, self.best_score_ = alphas[best], mean[best]
        with self._left_usable(X, y, s, lambda: paths.last):
            coef, intercept = paths.fitted(alphas[best], s)
        self._set(X, y, coef, intercept)
        return self

    def _get_scorer(self) -> Any:
        if _routing_enabled() and self.scoring is None:
            return get_scorer("r2").set_score_request(sample_weight=True)
        return check_scoring(estimator=self, scoring=self.scoring, allow_none=True)

    def get_metadata_routing(self) -> Any:
        """Return scikit-learn's MetadataRouter of this object, its scorer and its splitter."""
        return router(self, self.cv, self._get_scorer())
