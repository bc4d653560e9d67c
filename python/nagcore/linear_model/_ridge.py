"""Least squares with an l2 penalty, for numbers and for classes."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, column_or_1d

from nagcore.linear_model._base import (
    LinearRegressor,
    check_data,
    check_weights,
    raise_if_interrupted,
    seed_of,
    validate_params,
)
from nagcore.linear_model._classify import LinearClassifier
from nagcore.linear_model._labels import checked, signs
from nagcore.linear_model._least_squares import fits, least_squares
from nagcore.linear_model._sampled import plan, sampled_ridge
from nagcore.solvers import names
from nagcore.solvers.tails import heavy_tailed

__all__ = ["Ridge", "RidgeClassifier"]

_MAX_ITER = 1000
# scikit-learn's names of methods; every one of them means the same minimum, so nagcore chooses.
_THEIRS = ("auto", "cholesky", "lbfgs", "lsqr", "sag", "saga", "sparse_cg", "svd")


class RidgeBase(LinearRegressor):
    """The fit that `Ridge` and `RidgeClassifier` share."""

    def _fit(self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None) -> None:
        if self.solver in _THEIRS:
            self._check_positive()
        total = X.shape[0] if sample_weight is None else sample_weight.sum()
        k = 1 if y.ndim == 1 else y.shape[1]
        alpha = np.asarray(self.alpha, np.float64).ravel()
        if alpha.size not in (1, k):
            raise ValueError(
                "Number of targets and number of penalties do not correspond: alpha has "
                f"{alpha.size} entries and y has {k} targets. Use one alpha, or one per target."
            )
        alpha = np.broadcast_to(alpha, k)
        self.n_iter_ = None
        so_far, done = self._by_sample(X, y, sample_weight, alpha)
        if done:
            return
        if self.solver in _THEIRS and fits(X, self.positive):
            with self._left_usable(X, y, sample_weight, lambda: so_far):
                found = least_squares(X, y, sample_weight, alpha, fit_intercept=self.fit_intercept,
                                      positive=self.positive)
            self._set(X, y, found.coef, found.intercept)
            self.solver_ = "cholesky"
            return
        constraint = {"positive": True} if self.positive else {}
        penalties = [{"l2": float(a) / total, **constraint} for a in alpha]
        solver = "auto" if self.solver in _THEIRS else self.solver
        results = self._fit_columns(X, y, sample_weight, penalties, solver=solver,
                                    max_iter=self.max_iter or _MAX_ITER,
                                    random_state=self.random_state)
        self.n_iter_ = np.array([r.n_iter for r in results], np.int32)
        self.solver_ = results[-1].solver
        raise_if_interrupted(results[-1])

    def _by_sample(
        self, X: Any, y: np.ndarray, s: np.ndarray | None, alpha: np.ndarray
    ) -> tuple[Any, bool]:
        """Fit in a few reads of X where those cost less than its Gram matrix.

        Returns coefficients (1, d) and an intercept (1,), or None, and whether they are the solution.
        """
        # Gradients of rows that do not lie together cost as much as their products.
        plain = isinstance(X, np.ndarray) and X.dtype.kind == "f" and X.itemsize in X.strides
        if not (self.solver == "auto" and plain and len(alpha) == 1 and alpha[0] > 0) or self.positive:
            return None, False
        planned = plan(X.shape[0], X.shape[1] + self.fit_intercept, X.itemsize, s is not None)
        if planned is None or heavy_tailed(X):
            return None, False
        with self._left_usable(X, y, s):
            found = sampled_ridge(X, np.ascontiguousarray(y.reshape(-1)), s, float(alpha[0]), planned,
                                  fit_intercept=self.fit_intercept, tol=self.tol,
                                  seed=seed_of(self.random_state))
        if found is None:
            return None, False
        coef, intercept = found.coef[None], np.array([found.intercept])
        if found.message == "too slow":
            return (coef, intercept), False
        self._set(X, y, coef, intercept)
        self.n_iter_, self.solver_ = np.array([found.reads], np.int32), "cg"
        raise_if_interrupted(found)
        return (coef, intercept), True

    def _check_positive(self) -> None:
        if self.positive and self.solver not in ("auto", "lbfgs"):
            raise ValueError(
                f"solver='{self.solver}' does not support positive fitting. Please set the solver "
                "to 'auto' or 'lbfgs', or set `positive=False`"
            )
        if self.solver == "lbfgs" and not self.positive:
            raise ValueError(
                "'lbfgs' solver can be used only when positive=True. Please use another solver."
            )


_CONSTRAINTS: dict[str, list[Any]] = {
    "alpha": [Interval(Real, 0, None, closed="left"), "array-like"],
    "fit_intercept": ["boolean"],
    "copy_X": ["boolean"],
    "max_iter": [Interval(Integral, 1, None, closed="left"), None],
    "tol": [Interval(Real, 0, None, closed="left")],
    "solver": [StrOptions({*_THEIRS, *names()})],
    "positive": ["boolean"],
    "random_state": ["random_state"],
}


class Ridge(RidgeBase):
    """Least squares with an l2 penalty: minimises ‖y − Xw − b‖²_s + α‖w‖² over w and b.

    Up to 512 columns, and up to 2048 where X has few rows, it is solved exactly, all targets at
    once, from one read of X. Where there are so many rows that a few reads cost less than the
    products of that one, and one target, dense X and alpha > 0, a sample of the rows preconditions
    conjugate gradients on all of them: coefficients are right to float32's rounding, in float64 to
    1e-12 of the largest. Larger problems are solved by `nagcore.minimize`.

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
        Relative suboptimality to reach, where the solution is not exact. A sample's metric reaches
        its accuracy of the coefficients at any tol.
    solver : str, default "auto"
        scikit-learn's names all mean nagcore's choice, which gives what they give, but for the
        sample's metric, which is for "auto" alone; "lbfgs" asks for positive=True, as there. A name
        of `nagcore.solvers.names()` runs that method.
    positive : bool, default False
        Whether the coefficients must be ≥ 0.
    random_state : int, RandomState or None, default None
        Chooses the rows that are sampled; None is 0.

    Attributes
    ----------
    coef_ : ndarray of shape (d,) or (n_targets, d)
    intercept_ : float, or ndarray of shape (n_targets,)
    n_iter_ : ndarray of shape (n_targets,), or None where the solution is exact
    solver_ : str
        "cholesky", "cg" in a sample's metric, or the method of `nagcore.minimize` that ran.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,), where X has column names

    Source: docs/maths.md, L1; scikit-learn's Ridge for names and meanings.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 2.0])
    >>> Ridge(alpha=1.0).fit(X, y).coef_.round(4)
    array([0.6667])
    """

    _parameter_constraints: ClassVar[dict] = _CONSTRAINTS

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
        self._fit(X, y, sample_weight)
        return self


class RidgeClassifier(LinearClassifier, ClassifierMixin, BaseEstimator):
    """Classification by least squares on targets −1 and +1, one column for each of several classes.

    Minimises ‖Y − XW − b‖²_s + α‖W‖² as `Ridge` does; the class of the largest margin is predicted.

    Parameters
    ----------
    alpha, fit_intercept, copy_X, max_iter, tol, solver, positive, random_state
        As in `Ridge`.
    class_weight : dict or "balanced", optional
        Weights of the classes, multiplied with sample_weight.

    Attributes
    ----------
    coef_ : ndarray of shape (d,) for two classes, else (n_classes, d)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    classes_ : ndarray of shape (n_classes,)
    n_iter_, solver_, n_features_in_, feature_names_in_
        As in `Ridge`.

    Source: docs/maths.md, L1; scikit-learn's RidgeClassifier for names and meanings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> RidgeClassifier().fit(X, y).predict(X[:2])
    array([0, 0])
    """

    _parameter_constraints: ClassVar[dict] = {
        **_CONSTRAINTS, "class_weight": [dict, StrOptions({"balanced"}), None],
    }  # fmt: skip

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        class_weight: Any = None,
        solver: str = "auto",
        positive: bool = False,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight
        self.solver = solver
        self.positive = positive
        self.random_state = random_state

    _keeps_rows = False
    _label_binarizer: Any  # of several labels a row, or of text; else None
    _fit = RidgeBase._fit
    _set = RidgeBase._set
    _null = RidgeBase._null
    _left_usable = RidgeBase._left_usable
    _fit_columns = RidgeBase._fit_columns
    _check_positive = RidgeBase._check_positive
    _by_sample = RidgeBase._by_sample

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RidgeClassifier:
        """Fit to X of shape (n, d) and labels y of shape (n,), or (n, n_labels) of 0 and 1."""
        validate_params(self)
        X, Y, sample_weight = self._binarize(X, y, sample_weight)
        self._fit(X, Y, sample_weight)
        return self

    def _binarize(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, Any]:
        """Checked X, targets −1 and +1 of shape (n, 1) or (n, n_classes), and weights."""
        X, y = check_data(self, X, y, classes=True, multi_output=True)
        self._label_binarizer = None
        if y.ndim == 1 and y.dtype.kind in "iubf":
            self.classes_, codes = checked(y)
            Y = signs(codes, len(self.classes_))
        else:
            self._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1)
            Y = self._label_binarizer.fit_transform(y).astype(np.float64)
            self.classes_ = self._label_binarizer.classes_
            if not self._several_labels():
                y = column_or_1d(y, warn=True)
        weights = check_weights(sample_weight, X)
        if self.class_weight:
            share = compute_sample_weight(self.class_weight, y)
            weights = share if weights is None else weights * share
        return X, Y, weights

    def _several_labels(self) -> bool:
        binarizer = self._label_binarizer
        return binarizer is not None and binarizer.y_type_.startswith("multilabel")

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row, shape (n,), or the labels of each, (n, n_labels)."""
        check_is_fitted(self)
        if not self._several_labels():
            return super().predict(X)
        return self._label_binarizer.inverse_transform(2.0 * (self.decision_function(X) > 0) - 1.0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
