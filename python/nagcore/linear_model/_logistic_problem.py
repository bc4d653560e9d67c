"""The problem behind logistic regression: which penalty is meant, which weights, and one solve of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack, issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight

from nagcore import _core
from nagcore.linear_model._base import linear_scores, solve, threads_of
from nagcore.objective import Objective
from nagcore.solvers import Result
from nagcore.solvers.paths import Kept, shared

__all__ = [
    "THEIRS", "LogisticProblem", "check_solver", "class_weighted", "warn_if_separated",
]  # fmt: skip

# scikit-learn's names of methods; each means nagcore's choice, which gives what they give.
THEIRS = ("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga")
_HUGE = 1e30


def check_solver(solver: str, penalty: str | None, dual: bool) -> None:
    """scikit-learn's rules for which of its solvers takes which penalty; nagcore's take all."""
    if dual and solver != "liblinear":
        raise ValueError(f"Solver {solver} supports only dual=False, got dual={dual}. The primal has "
                         "the same solution: use dual=False.")
    if solver not in THEIRS:
        return
    if solver not in ("liblinear", "saga") and penalty not in ("l2", None):
        raise ValueError(f"Solver {solver} supports only 'l2' or None penalties, got {penalty} penalty. "
                         "Use solver='auto' or 'saga'.")
    if penalty == "elasticnet" and solver != "saga":
        raise ValueError(f"Only 'saga' solver supports elasticnet penalty, got solver={solver}. "
                         "Use solver='auto' or 'saga'.")
    if solver == "liblinear" and penalty is None:
        raise ValueError("C=np.inf as well as penalty=None is not supported for the liblinear solver. "
                         "Use solver='auto' or 'lbfgs'.")
    if dual and penalty == "l1":
        raise ValueError("Unsupported set of arguments: dual=True with the l1 penalty. Use dual=False.")


def class_weighted(
    class_weight: Any, weights: np.ndarray | None, classes: np.ndarray, y: Any, codes: np.ndarray
) -> np.ndarray | None:
    """The weights of the rows times those of their classes."""
    if class_weight is None:
        return weights
    given = np.ones(len(codes)) if weights is None else weights
    try:
        share = compute_class_weight(class_weight, classes=classes, y=y, sample_weight=given)
    except TypeError:  # before scikit-learn 1.6 "balanced" did not count weights
        share = compute_class_weight(class_weight, classes=classes, y=y)
    return given * share[codes]


class LogisticProblem:
    """X and class numbers with all but the penalty: what a path over C solves again and again, or once.

    liblinear penalises the intercept, as the coefficient of one more column that holds
    `intercept_scaling` throughout. X is copied for that column, as liblinear itself does.
    """

    def __init__(self, estimator: Any, X: Any, codes: np.ndarray, k: int, path: bool = True) -> None:
        self.estimator, self.k, self.d = estimator, k, X.shape[1]
        self.codes = codes  # the core makes its own copy
        self.fit_intercept = bool(estimator.fit_intercept)
        self.scaling = 0.0
        self._path = path  # whether there are more strengths to come
        self._last: tuple[np.ndarray | None, Objective] | None = None
        if estimator.solver == "liblinear":
            if k > 2:
                raise ValueError(
                    "Only binary classification is supported. The 'liblinear' solver does not support "
                    "multiclass classification (n_classes >= 3). Either use another solver or wrap the "
                    "estimator in a OneVsRestClassifier to keep applying a one-versus-rest scheme."
                )
            if _HUGE < X.max() < np.inf:
                raise ValueError(
                    "Using the 'liblinear' solver while X contains a maximum value > 1e30 results in a "
                    "frozen fit. Please choose another solver or rescale the input X."
                )
            if self.fit_intercept:
                self.scaling = float(estimator.intercept_scaling)
                X, self.fit_intercept = _with_constant(X, self.scaling), False
        self.X = X

    def solve(
        self,
        strength: float,
        ratio: float,
        weights: np.ndarray | None,
        start: np.ndarray | None = None,
        *,
        dtype: Any = np.float64,
        **options: Any,
    ) -> tuple[Result, np.ndarray, np.ndarray]:
        """Minimise Σ s_i φ_i + strength·(ρ‖w‖₁ + (1 − ρ)‖w‖²/2) from coefficients (rows, d [+ 1]).

        Returns the result, coefficients (rows, d) of `dtype` and intercepts (rows,); rows is 1 for two
        classes.
        """
        estimator = self.estimator
        total = self.X.shape[0] if weights is None else weights.sum()
        penalty = {"l2": strength * (1 - ratio) / total, "l1": strength * ratio / total}
        if self._path:
            objective = self._weighted(weights).with_penalty(**penalty)
        else:
            objective = self._objective(weights, **penalty)
            if ratio:  # one strength of l1 profits, too: its steps share Hessians
                objective.kept = Kept(one=True)
        w0 = None
        if start is not None:
            w0 = start.T if not self.scaling else start.T / np.append(np.ones(self.d), self.scaling)[:, None]
            w0 = np.ascontiguousarray(w0[:, 0] if self.k == 2 else w0)
        result = solve(
            estimator, objective, w0, max_iter=estimator.max_iter, random_state=estimator.random_state,
            solver="auto" if estimator.solver in THEIRS else estimator.solver, **options,
        )
        intercept = np.array(result.intercept, np.float64, ndmin=1)
        if self.k > 2:
            # Shifted alike for every class, intercepts predict alike; unpenalised coefficients too.
            intercept -= np.add.reduce(intercept) / self.k
        w = result.coef
        if self.k > 2 and strength == 0:
            w = w - w.mean(axis=1, keepdims=True)
        if self.scaling:
            w, intercept = w[:-1], w[-1:] * self.scaling
        # One trip from w to coef_: several times over, on text of many classes, took as long as ten passes.
        coef = _core.transposed_copy(w, np.dtype(dtype) == np.float32, threads_of(estimator))
        return result, coef, intercept

    def _weighted(self, weights: np.ndarray | None) -> Objective:
        """The objective of these weights: of the same ones again, it keeps what its strengths share."""
        if self._last is None or self._last[0] is not weights:
            self._last = weights, shared(self._objective(weights))
        return self._last[1]

    def _objective(self, weights: np.ndarray | None, **penalty: Any) -> Objective:
        two = self.k == 2
        return Objective(
            self.X, self.codes, loss="logistic" if two else "softmax", n_classes=None if two else self.k,
            sample_weight=weights, fit_intercept=self.fit_intercept, n_threads=threads_of(self.estimator),
            **penalty,
        )


def _with_constant(X: Any, value: float) -> Any:
    dtype = X.dtype if X.dtype != np.uint8 else np.float64
    column = np.full((X.shape[0], 1), value, dtype)
    if issparse(X):
        return hstack([X, csr_matrix(column)], format="csr", dtype=dtype)
    return np.hstack([X, column])


def warn_if_separated(estimator: Any, X: Any, codes: np.ndarray, weights: np.ndarray | None) -> bool:
    """Warn if the unpenalised model at hand separates the classes: then no finite one is best."""
    scores = linear_scores(X, estimator.coef_, estimator.intercept_)
    if scores.shape[1] == 1:
        margin = np.where(codes > 0, scores[:, 0], -scores[:, 0])
    else:
        rows = np.arange(len(codes))
        own = scores[rows, codes].copy()
        scores[rows, codes] = -np.inf
        margin = own - scores.max(axis=1)
    if weights is not None:
        margin = margin[weights > 0]
    if not margin.min() > 0:
        return False
    warnings.warn(
        "The classes are separated by a plane and C is infinite: the likelihood grows with the size of the "
        "coefficients for ever, and those given are where the fit stopped (every row is classified, by a "
        f"margin of at least {margin.min():.2g}). Use a finite C for coefficients that mean something.",
        ConvergenceWarning, stacklevel=3,
    )
    return True
