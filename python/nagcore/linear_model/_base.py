"""What the estimators share: checked input, one solve, and linear predictions."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from nagcore.objective import Objective
from nagcore.solvers import Result, run

_DTYPES = [np.float64, np.float32, np.uint8]  # dense X of these is read where it lies
_BLOCK_ROWS = 4096


def check_data(estimator: BaseEstimator, X: Any, y: Any, **options: Any) -> tuple[Any, np.ndarray]:
    """Convert X and y as scikit-learn does; leave out its search for NaN, which reads X twice.

    Integers become float64 (uint8 stays, when dense), other sparse formats CSR with sorted indices.
    """
    X, y = validate_data(estimator, X, y, accept_sparse="csr", dtype=_DTYPES,
                         ensure_all_finite=False, **options)
    return _canonical(X), y


def check_new_data(estimator: BaseEstimator, X: Any) -> Any:
    """X for a prediction, converted likewise."""
    X = validate_data(estimator, X, accept_sparse="csr", dtype=_DTYPES, reset=False,
                      ensure_all_finite=False)
    return _canonical(X)


def _canonical(X: Any) -> Any:
    if issparse(X):
        if X.dtype == np.uint8:
            X = X.astype(np.float64)
        if not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
    return X


def check_weights(sample_weight: Any, X: Any) -> np.ndarray | None:
    """sample_weight as a float64 vector, None for equal weights."""
    if sample_weight is None:
        return None
    return _check_sample_weight(sample_weight, X, dtype=np.float64)


def coef_dtype(X: Any) -> np.dtype:
    """float32 for float32 X, else float64."""
    return np.dtype(np.float32 if X.dtype == np.float32 else np.float64)


def seed_of(random_state: Any) -> int:
    """A seed from scikit-learn's random_state; None is 0: nothing here needs chance."""
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state)


def linear_scores(X: Any, coef: np.ndarray, intercept: np.ndarray | float) -> np.ndarray:
    """X @ coef.T + intercept for any X that was fitted; NaN or infinity in X is an error."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is looked for below
        if X.dtype == np.uint8:
            scores = np.concatenate([
                X[i : i + _BLOCK_ROWS].astype(coef.dtype) @ coef.T
                for i in range(0, X.shape[0], _BLOCK_ROWS)
            ])
        else:
            scores = X @ coef.T.astype(X.dtype, copy=False)
    scores = scores + intercept
    if not np.isfinite(scores).all():
        assert_all_finite(X.data if issparse(X) else X, input_name="X")
    return scores


def solve(
    estimator: Any,
    objective: Objective,
    w0: np.ndarray | None = None,
    *,
    solver: str = "auto",
    max_iter: float | None = None,
    random_state: Any = None,
) -> Result:
    """Minimise, and warn as scikit-learn does where `tol` is not reached.

    An interrupted run is returned like any other: the estimator sets its coefficients and then
    calls `raise_if_interrupted`.
    """
    result = run(objective, w0, solver=solver, tol=estimator.tol, max_passes=math.inf,
                 seed=seed_of(random_state),
                 max_iter=math.inf if max_iter is None else max(max_iter, 1))
    if not (result.converged or result.message == "interrupted"):
        gained = result.null_value - result.value
        gap = result.gap / gained if gained > 0 else math.inf
        known = "" if math.isnan(gap) else f" with a relative gap of {gap:.2g} ({result.gap_kind})"
        warnings.warn(
            f"{type(estimator).__name__} did not reach tol={estimator.tol:g}: {result.message}"
            f"{known}. Raise max_iter, or tol if that gap is small enough.",
            ConvergenceWarning, stacklevel=3,
        )
    return result


def raise_if_interrupted(result: Result) -> None:
    """Raise the KeyboardInterrupt that the solver caught, now that the estimator is usable."""
    if result.message == "interrupted":
        raise KeyboardInterrupt


class LinearRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Squared loss with penalties, one column of y at a time."""

    def _check(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, Any]:
        self._validate_params()
        if getattr(self, "positive", False):
            raise ValueError(
                f"positive=True is not implemented by nagcore's {type(self).__name__}; "
                f"use positive=False, or sklearn.linear_model.{type(self).__name__}."
            )
        X, y = check_data(self, X, y, multi_output=True, y_numeric=True)
        return X, np.asarray(y, np.float64), check_weights(sample_weight, X)

    def _fit_columns(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        penalties: list[dict[str, float]],
        *,
        max_iter: float | None,
        starts: np.ndarray | None = None,
        **options: Any,
    ) -> list[Result]:
        """Fit each column of y with its penalties, and set coef_ and intercept_."""
        columns = y.reshape(len(y), -1)
        d, k, dtype = X.shape[1], columns.shape[1], coef_dtype(X)
        coef, intercept = np.zeros((k, d), dtype), np.zeros(k, dtype)
        results: list[Result] = []
        for j in range(k):
            objective = Objective(
                X, np.ascontiguousarray(columns[:, j]), loss="squared", sample_weight=sample_weight,
                fit_intercept=self.fit_intercept, n_threads=threads_of(self), **penalties[j],
            )
            w0 = None if starts is None else starts[j]
            results.append(solve(self, objective, w0, max_iter=max_iter, **options))
            coef[j], intercept[j] = results[-1].coef, results[-1].intercept
            if results[-1].message == "interrupted":
                break
        single = y.ndim == 1
        self.coef_ = coef[0] if single else coef
        self.intercept_ = intercept[0] if single else intercept
        if not self.fit_intercept:
            self.intercept_ = 0.0
        return results

    def predict(self, X: Any) -> np.ndarray:
        """Return X @ coef_.T + intercept_, shape (n,), or (n, n_targets) for several targets."""
        check_is_fitted(self)
        return linear_scores(check_new_data(self, X), self.coef_, self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def threads_of(estimator: Any) -> int | None:
    """`n_jobs` as a number of threads: None and negative numbers leave it to nagcore."""
    n_jobs = getattr(estimator, "n_jobs", None)
    return int(n_jobs) if n_jobs is not None and n_jobs > 0 else None
