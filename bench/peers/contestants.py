"""nagcore and its peers: how each is asked for the same fit, and the ladder of tolerances that it climbs.

A contestant is a function fit(problem, tol) → w that times nothing itself (paths.py has those of paths).
Peers that are not installed are left out. Each scales its objective in its own way; the comments say what
makes them the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import numpy as np

from .harness import Fit
from .paths import nagcore_path, path_peers
from .problems import Problem

__all__ = ["contestants"]

TIGHTEN = tuple(10.0**-e for e in range(1, 13))
ROUNDS = 10_000
# Epochs of the stochastic solvers, whose last rungs would otherwise take minutes.
EPOCHS = 1_000
# glum's Newton steps: in float32 its line search goes on for minutes once nothing is left to gain.
NEWTON_STEPS = 100


def _have(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True


def _nagcore(problem: Problem, tol: float) -> np.ndarray:
    from nagcore import linear_model as lm

    if problem.kind == "squared":
        if problem.l1:
            return (
                lm.Lasso(alpha=problem.l1, fit_intercept=False, tol=tol, max_iter=ROUNDS)
                .fit(problem.X, problem.y)
                .coef_
            )
        return (
            lm.Ridge(alpha=problem.l2 * problem.n, fit_intercept=False, tol=tol)
            .fit(problem.X, problem.y)
            .coef_
        )
    C = 1 / (problem.l2 * problem.n)
    model = lm.LogisticRegression(C=C, fit_intercept=False, tol=tol, max_iter=1000, n_jobs=2)
    coef = model.fit(problem.X, problem.y).coef_
    return coef if problem.kind == "softmax" else coef[0]


def _sklearn_logistic(solver: str) -> Fit:
    def fit(problem: Problem, tol: float) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        # scikit-learn minimises C·Σ loss + ‖w‖²/2.
        model = LogisticRegression(
            C=1 / (problem.l2 * problem.n), fit_intercept=False, tol=tol, solver=solver,
            max_iter=EPOCHS if solver in ("saga", "sag") else ROUNDS,
        )
        coef = model.fit(problem.X, problem.y).coef_
        return coef if problem.kind == "softmax" else coef[0]

    return fit


def _sklearn_ridge(solver: str) -> Fit:
    def fit(problem: Problem, tol: float) -> np.ndarray:
        from sklearn.linear_model import Ridge

        model = Ridge(
            alpha=problem.l2 * problem.n, fit_intercept=False, tol=tol, solver=solver,
            max_iter=EPOCHS if solver in ("saga", "sag") else ROUNDS,
        )
        return model.fit(problem.X, problem.y).coef_

    return fit


def _sklearn_lasso(problem: Problem, tol: float) -> np.ndarray:
    from sklearn.linear_model import Lasso

    return (
        Lasso(alpha=problem.l1, fit_intercept=False, tol=tol, max_iter=ROUNDS).fit(problem.X, problem.y).coef_
    )


def _cyanure(problem: Problem, tol: float) -> np.ndarray:
    from cyanure.estimators import Classifier

    # The mean loss and lambda_1/2 ‖w‖²; tol is a relative duality gap.
    loss = "multiclass-logistic" if problem.kind == "softmax" else "logistic"
    model = Classifier(
        loss=loss,
        penalty="l2",
        lambda_1=problem.l2,
        fit_intercept=False,
        tol=tol,
        max_iter=2000,
        duality_gap_interval=5,
        verbose=False,
        n_threads=2,
    )
    labels = problem.y.astype(np.int64) if problem.kind == "softmax" else np.where(problem.y > 0, 1.0, -1.0)
    w = np.asarray(model.fit(problem.X, labels).get_weights())
    if problem.kind == "softmax":
        return w.T if w.shape[0] == problem.d else w
    return w.reshape(-1)


def _glum(problem: Problem, tol: float) -> np.ndarray:
    from glum import GeneralizedLinearRegressor

    # Half the mean deviance, which is the mean log loss, and alpha/2 ‖w‖².
    model = GeneralizedLinearRegressor(
        family="binomial",
        alpha=problem.l2,
        l1_ratio=0,
        fit_intercept=False,
        gradient_tol=tol,
        max_iter=NEWTON_STEPS,
    )
    return model.fit(problem.X, problem.y).coef_


def _intelex(problem: Problem, tol: float) -> np.ndarray:
    from sklearnex.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (problem.l2 * problem.n), fit_intercept=False, tol=tol, max_iter=ROUNDS)
    coef = model.fit(problem.X, problem.y).coef_
    return coef if problem.kind == "softmax" else coef[0]


def _snapml(problem: Problem, tol: float) -> np.ndarray:
    from snapml import LogisticRegression

    # Σ loss + regularizer/2 ‖w‖².
    model = LogisticRegression(
        regularizer=problem.l2 * problem.n,
        fit_intercept=False,
        normalize=False,
        tol=tol,
        max_iter=ROUNDS,
        n_jobs=2,
    )
    return np.asarray(model.fit(problem.X, np.where(problem.y > 0, 1.0, -1.0)).coef_).reshape(-1)


def _celer(problem: Problem, tol: float) -> np.ndarray:
    from celer import Lasso

    return Lasso(alpha=problem.l1, fit_intercept=False, tol=tol, max_iter=200).fit(problem.X, problem.y).coef_


def _skglm(problem: Problem, tol: float) -> np.ndarray:
    from skglm import Lasso

    return Lasso(alpha=problem.l1, fit_intercept=False, tol=tol, max_iter=200).fit(problem.X, problem.y).coef_


def contestants(
    problem: Problem,
) -> Iterator[tuple[str, Callable[[Problem, float], np.ndarray], tuple[float, ...]]]:
    """Yield (name, fit, ladder) for nagcore and for every installed peer that takes this problem."""
    if len(problem.strengths):
        yield "nagcore", nagcore_path, TIGHTEN
        for module, name, fit in path_peers(problem):
            if _have(module):
                yield name, fit, TIGHTEN
        return
    yield "nagcore", _nagcore, TIGHTEN
    if problem.kind == "squared":
        if problem.l1:
            yield "scikit-learn", _sklearn_lasso, TIGHTEN
            for name, fit in (("celer", _celer), ("skglm", _skglm)):
                if _have(name):
                    yield name, fit, TIGHTEN
            return
        for solver in ("cholesky", "sparse_cg", "lsqr", "sag") + (() if problem.sparse else ("svd",)):
            direct = solver in ("cholesky", "svd")
            yield f"scikit-learn {solver}", _sklearn_ridge(solver), (1e-4,) if direct else TIGHTEN
        return
    solvers = ["lbfgs", "newton-cg"]
    if problem.d <= 1000:
        solvers.append("newton-cholesky")
    if problem.kind == "logistic":
        solvers.append("liblinear")
    for solver in (*solvers, "saga"):
        yield f"scikit-learn {solver}", _sklearn_logistic(solver), TIGHTEN
    if _have("cyanure"):
        yield "cyanure", _cyanure, TIGHTEN
    if _have("sklearnex") and not problem.sparse:
        yield "scikit-learn-intelex", _intelex, TIGHTEN
    if problem.kind == "logistic":
        if _have("glum"):
            yield "glum", _glum, TIGHTEN
        if _have("snapml"):
            yield "snapml", _snapml, TIGHTEN
