"""Paths of l1 strengths: how nagcore and each peer are asked for the same one, warm starts and all.

A contestant is a function fit(problem, tol) → W of shape (m, d). What a peer wants of X beforehand (columns
in one piece, CSC) is made inside the fit, once for the path: it is part of what the path costs.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from .problems import Problem

__all__ = ["nagcore_path", "path_peers"]

_ROUNDS = 10_000
_EPOCHS = 300  # of saga, whose last rungs would otherwise take minutes


def nagcore_path(problem: Problem, tol: float) -> np.ndarray:
    """One objective, its strengths one after the other."""
    import nagcore

    objective = nagcore.Objective(problem.X, problem.y, loss=problem.kind, fit_intercept=False)
    return nagcore.solvers.path(objective, strengths=problem.strengths, tol=tol).coefs.T


def _by_columns(X):
    return sparse.csc_matrix(X) if sparse.issparse(X) else np.asfortranarray(X)


def _signs(problem: Problem) -> np.ndarray:
    return np.where(problem.y > 0, 1.0, -1.0).astype(problem.X.dtype)


def _sklearn_lasso_path(problem: Problem, tol: float) -> np.ndarray:
    from sklearn.linear_model import lasso_path

    X, y = _by_columns(problem.X), problem.y.astype(problem.X.dtype)
    return lasso_path(X, y, alphas=problem.strengths, tol=tol, max_iter=_ROUNDS)[1].T


def _sklearn_logistic_path(solver: str):
    def fit(problem: Problem, tol: float) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        # C·Σ loss + ‖w‖₁. liblinear has no warm start.
        model = LogisticRegression(
            l1_ratio=1.0, solver=solver, fit_intercept=False, tol=tol, warm_start=solver == "saga",
            max_iter=_EPOCHS if solver == "saga" else _ROUNDS, random_state=0,
        )  # fmt: skip
        W = []
        for l1 in problem.strengths:
            model.set_params(C=1 / (l1 * problem.n))
            W.append(model.fit(problem.X, problem.y).coef_[0].copy())
        return np.array(W)

    return fit


def _celer_path(problem: Problem, tol: float) -> np.ndarray:
    from celer import celer_path

    X = _by_columns(problem.X)
    if problem.kind == "squared":
        y = problem.y.astype(X.dtype)
        return celer_path(X, y, "lasso", alphas=problem.strengths.astype(X.dtype), tol=tol, max_iter=200)[1].T
    # Σ loss + alpha ‖w‖₁.
    alphas = (problem.strengths * problem.n).astype(X.dtype)
    return celer_path(X, _signs(problem), "logreg", alphas=alphas, tol=tol, max_iter=200)[1].T


def _skglm_lasso_path(problem: Problem, tol: float) -> np.ndarray:
    from skglm import Lasso

    X, y = _by_columns(problem.X), problem.y.astype(problem.X.dtype)
    model = Lasso(fit_intercept=False, tol=tol, max_iter=200)
    return model.path(X, y, problem.strengths.astype(X.dtype))[1].T


def _skglm_logistic_path(problem: Problem, tol: float) -> np.ndarray:
    from skglm import SparseLogisticRegression

    X, y = _by_columns(problem.X), _signs(problem)
    model = SparseLogisticRegression(fit_intercept=False, tol=tol, warm_start=True, max_iter=200)
    W = []
    for l1 in problem.strengths:
        model.alpha = l1
        W.append(np.ravel(model.fit(X, y).coef_).copy())
    return np.array(W)


def path_peers(problem: Problem) -> list[tuple[str, str, object]]:
    """(module it needs, name, fit) of every peer that has such a path."""
    if problem.kind == "squared":
        return [
            ("sklearn", "scikit-learn lasso_path", _sklearn_lasso_path),
            ("celer", "celer_path", _celer_path),
            ("skglm", "skglm path", _skglm_lasso_path),
        ]
    return [
        ("celer", "celer_path", _celer_path),
        ("skglm", "skglm warm starts", _skglm_logistic_path),
        ("sklearn", "scikit-learn liblinear", _sklearn_logistic_path("liblinear")),
        ("sklearn", "scikit-learn saga warm starts", _sklearn_logistic_path("saga")),
    ]
