"""What the estimators share: checked input, one solve, and linear predictions.

Checks cost what the fit of a small table costs, so plain arrays take a short way through them and
whatever is unusual goes to scikit-learn's own functions, with its errors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import numpy as np
from scipy.sparse import csr_array, csr_matrix, issparse
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from nagcore.objective import Objective
from nagcore.solvers import Result, run

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # before scikit-learn 1.6

    def validate_data(estimator: Any, X: Any, y: Any = "no_validation", **options: Any) -> Any:
        options["force_all_finite"] = options.pop("ensure_all_finite")
        return estimator._validate_data(X, y, **options)


_DTYPES = [np.float64, np.float32, np.uint8]  # dense X of these is read where it lies
_BLOCK_ROWS = 4096
_MOST_REMEMBERED = 1024

_accepted: set[Any] = set()
_getters: dict[type, Callable[[Any], tuple[Any, ...]]] = {}


def validate_params(estimator: BaseEstimator) -> None:
    """scikit-learn's check of the parameters, once for each set of values that can be hashed."""
    kind = type(estimator)
    values_of = _getters.get(kind)
    if values_of is None:
        names = estimator.get_params(deep=False)  # it inspects a signature
        values_of = _getters[kind] = attrgetter("__class__", *names)
    values = values_of(estimator)
    key = (*map(type, values), *values)
    try:
        if key in _accepted:
            return
    except TypeError:  # an array or a list
        estimator._validate_params()
        return
    estimator._validate_params()
    if len(_accepted) >= _MOST_REMEMBERED:
        _accepted.clear()
    _accepted.add(key)


def _is_plain(X: Any) -> bool:
    return (type(X) is np.ndarray and X.ndim == 2 and X.size > 0
            and X.dtype.type in _DTYPES and X.dtype.isnative)  # fmt: skip


def _is_plain_csr(X: Any) -> bool:
    """Whether X is CSR as the core reads it. What it holds, and where, the core looks at itself."""
    return (type(X) in (csr_matrix, csr_array) and X.ndim == 2 and X.shape[0] > 0 and X.shape[1] > 0
            and X.dtype.type in (np.float64, np.float32) and X.dtype.isnative
            and X.indices.dtype == np.int32 and X.has_canonical_format)  # fmt: skip


def _is_plain_target(y: Any, n: int, classes: bool) -> bool:
    if not (type(y) is np.ndarray and y.shape == (n,) and y.dtype.kind in ("iubf" if classes else "f")):
        return False
    # What holds classes is looked at for what is no number, too, when they are encoded (_labels.py).
    return classes or bool(np.isfinite(y).all())


def check_data(
    estimator: BaseEstimator, X: Any, y: Any, *, classes: bool = False, **options: Any
) -> tuple[Any, np.ndarray]:
    """Convert X and y as scikit-learn does; leave out its search for NaN, which reads X twice.

    Integers become float64 (uint8 stays, when dense), other sparse formats CSR with sorted indices.
    """
    if (_is_plain(X) or _is_plain_csr(X)) and _is_plain_target(y, X.shape[0], classes):
        estimator.n_features_in_ = X.shape[1]
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        return X, y
    X, y = validate_data(estimator, X, y, accept_sparse="csr", dtype=_DTYPES,
                         ensure_all_finite=False, **options)
    return _canonical(X), y


def check_new_data(estimator: BaseEstimator, X: Any) -> Any:
    """X for a prediction, converted likewise."""
    if (_is_plain(X) and X.shape[1] == estimator.n_features_in_
            and not hasattr(estimator, "feature_names_in_")):  # fmt: skip
        return X
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
    """sample_weight as a float64 vector of numbers ≥ 0, None for equal weights."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    least = weights.min()
    if least < 0:
        raise ValueError(
            f"Negative values in data passed to `sample_weight`: {least:g} in row "
            f"{int(weights.argmin())}. Use weights ≥ 0; 0 leaves a row out."
        )
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


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


def threads_of(estimator: Any) -> int | None:
    """`n_jobs` as a number of threads: None and negative numbers leave it to nagcore."""
    n_jobs = getattr(estimator, "n_jobs", None)
    return int(n_jobs) if n_jobs is not None and n_jobs > 0 else None


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
    quiet: bool = False,
) -> Result:
    """Minimise, and warn as scikit-learn does where `tol` is not reached.

    An interrupted run is returned like any other: the estimator sets its coefficients and then
    calls `raise_if_interrupted`.
    """
    result = run(objective, w0, solver=solver, tol=estimator.tol, max_passes=math.inf,
                 seed=seed_of(random_state),
                 max_iter=math.inf if max_iter is None else max(max_iter, 1))
    if not (quiet or result.converged or result.message == "interrupted"):
        gained = result.null_value - result.value
        gap = result.gap / gained if gained > 0 else math.inf
        warn_unconverged(estimator, result.message, gap, result.gap_kind)
    return result


def warn_unconverged(
    estimator: Any, message: str, gap: float, kind: str = "certificate", level: int = 4
) -> None:
    """Warn that `tol` was not reached, with the relative gap that was."""
    known = "" if math.isnan(gap) else f" with a relative gap of {gap:.2g} ({kind})"
    warnings.warn(
        f"{type(estimator).__name__} did not reach tol={estimator.tol:g}: {message}"
        f"{known}. Raise max_iter, or tol if that gap is small enough.",
        ConvergenceWarning, stacklevel=level,
    )


def raise_if_interrupted(result: Any) -> None:
    """Raise the KeyboardInterrupt that the solver caught, now that the estimator is usable."""
    if result.message == "interrupted":
        raise KeyboardInterrupt


class SparseInput:
    """Tells scikit-learn that sparse X is taken."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.sparse = True
        return tags



class LinearRegressor(SparseInput, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Squared loss with penalties, for one target or several."""

    _keeps_rows = False  # whether coef_ has a row for the one column of y of shape (n, 1)

    def _check(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, Any]:
        validate_params(self)
        X, y = check_data(self, X, y, multi_output=True, y_numeric=True)
        if y.dtype != np.float64:
            y = y.astype(np.float64)
        return X, y, check_weights(sample_weight, X)

    def _set(self, X: Any, y: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> None:
        """coef_ and intercept_ from (k, d) and (k,), in X's dtype and of scikit-learn's shapes."""
        dtype = coef_dtype(X)
        flat = y.ndim == 1 or (y.shape[1] == 1 and not self._keeps_rows)
        self.coef_ = (coef[0] if flat else coef).astype(dtype)
        self.intercept_ = (intercept[0] if y.ndim == 1 else intercept).astype(dtype)
        if not self.fit_intercept:
            self.intercept_ = 0.0

    @contextmanager
    def _left_usable(
        self, X: Any, y: np.ndarray, s: np.ndarray | None, best: Callable[[], Any] = lambda: None
    ) -> Iterator[None]:
        """Ctrl-C within leaves `best`, coefficients (k, d) and intercepts (k,), or the null model."""
        try:
            yield
        except KeyboardInterrupt:
            self._set(X, y, *(best() or self._null(X, y, s)))
            raise

    def _null(self, X: Any, y: np.ndarray, s: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of zero for each target, and the targets' means."""
        Y = y.reshape(len(y), -1)
        k = Y.shape[1]
        mean = np.average(Y, axis=0, weights=s) if self.fit_intercept else np.zeros(k)
        return np.zeros((k, X.shape[1])), mean

    def _fit_columns(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        penalties: list[dict[str, Any]],
        *,
        max_iter: float | None,
        starts: np.ndarray | None = None,
        **options: Any,
    ) -> list[Result]:
        """Fit each column of y with its penalties by `nagcore.minimize`; set coef_ and intercept_."""
        columns, d = y.reshape(len(y), -1), X.shape[1]
        coef, intercept = self._null(X, y, sample_weight)
        if starts is not None:
            coef[:], intercept[:] = starts[:, :d], starts[:, d] if self.fit_intercept else 0.0
        results: list[Result] = []
        with self._left_usable(X, y, sample_weight, lambda: (coef, intercept)):
            for j in range(len(coef)):
                objective = Objective(
                    X, np.ascontiguousarray(columns[:, j]), loss="squared", sample_weight=sample_weight,
                    fit_intercept=self.fit_intercept, n_threads=threads_of(self), **penalties[j],
                )
                w0 = None if starts is None else starts[j]
                results.append(solve(self, objective, w0, max_iter=max_iter, **options))
                coef[j], intercept[j] = results[-1].coef, results[-1].intercept
                if results[-1].message == "interrupted":
                    break
        self._set(X, y, coef, intercept)
        return results

    def predict(self, X: Any) -> np.ndarray:
        """Return X @ coef_.T + intercept_, shape (n,), or (n, n_targets) for several targets."""
        check_is_fitted(self)
        return linear_scores(check_new_data(self, X), self.coef_, self.intercept_)
