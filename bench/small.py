"""Small data: whole fits of nagcore and scikit-learn at the same accuracy, and their fixed costs.

    OPENBLAS_NUM_THREADS=1 python -m bench.small [--only softmax] [--sizes 150x4 5000x50] [--dtype float32]

Each contestant goes down a ladder of its own tolerances, to the first whose fit is within 10⁻⁶ of the
minimum: relative suboptimality (F − min F)/(F₀ − min F), F in float64 by NumPy alone, F₀ the null model's,
min F the least that anyone met. Fits at that tolerance are then timed in turns, and the median counts.
`fixed` is the time of a fit of nagcore on the first size less that of its passes, each as long as a bare
call of the kernel; it is what no kernel can make faster. It is given twice: in those turns, where each fit
finds the caches full of another library's work, and of the same fit again and again.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn import linear_model as theirs
from sklearn.exceptions import ConvergenceWarning

from nagcore import Objective
from nagcore import linear_model as ours

SIZES = ("150x4", "1000x10", "5000x50", "50000x23")
GOAL = 1e-6
LADDER = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)
SECONDS = 0.15    # of repeated fits for each contestant
SLOW = 2.0        # a fit longer than this is not repeated, nor is its ladder gone down further


Make = Callable[[float], Any]  # an estimator from its tolerance


class Kind(NamedTuple):
    """A model: ours, scikit-learn's with each of its solvers that serves, and what both minimise."""

    loss: str                       # "logistic", "softmax", "squared" or "poisson"
    ours: Make
    theirs: Mapping[str, Make]
    penalty: Callable[[int], tuple[float, float]]  # (l1, l2) from n
    coded: bool = False             # labels as −1 and +1 for the squared loss


def _logistic(name: str, **options: Any) -> tuple[Make, Make]:
    return (lambda tol: ours.LogisticRegression(tol=tol, **options),
            lambda tol: theirs.LogisticRegression(tol=tol, solver=name, max_iter=100_000, **options))


def _both(name: str, **options: Any) -> tuple[Make, Make]:
    return (lambda tol: getattr(ours, name)(tol=tol, **options),
            lambda tol: getattr(theirs, name)(tol=tol, **options))


def kinds() -> dict[str, Kind]:
    """The models of the table."""
    smooth: dict[str, Make] = {name: _logistic(name)[1] for name in ("lbfgs", "newton-cholesky")}
    sparse: dict[str, Any] = {"l1_ratio": 1.0, "C": 0.5, "fit_intercept": False}
    mine = ours.LogisticRegression
    lasso, net = _both("Lasso", alpha=0.05), _both("ElasticNet", alpha=0.05)
    ridge, sign = _both("Ridge"), _both("RidgeClassifier")
    return {
        "LogisticRegression": Kind("logistic", lambda tol: mine(tol=tol), smooth, lambda n: (0, 1 / n)),
        "softmax": Kind("softmax", lambda tol: mine(tol=tol), smooth, lambda n: (0, 1 / n)),
        "l1-logistic": Kind(
            "logistic", lambda tol: mine(tol=tol, solver="auto", **sparse),
            {name: _logistic(name, **sparse)[1] for name in ("saga", "liblinear")},
            lambda n: (2 / n, 0),
        ),
        "PoissonRegressor": Kind(
            "poisson", lambda tol: ours.PoissonRegressor(alpha=1e-3, tol=tol),
            {name: _poisson(name) for name in ("lbfgs", "newton-cholesky")},
            lambda n: (0, 1e-3),
        ),
        "Ridge": Kind("squared", ridge[0], {"auto": ridge[1]}, lambda n: (0, 1 / n)),
        "RidgeClassifier": Kind("squared", sign[0], {"auto": sign[1]}, lambda n: (0, 1 / n), True),
        "LinearRegression": Kind("squared", lambda tol: ours.LinearRegression(),
                                 {"lstsq": lambda tol: theirs.LinearRegression()}, lambda n: (0, 0)),
        "Lasso": Kind("squared", lasso[0], {"cd": lasso[1]}, lambda n: (0.05, 0)),
        "ElasticNet": Kind("squared", net[0], {"cd": net[1]}, lambda n: (0.025, 0.025)),
    }


def _poisson(name: str) -> Make:
    return lambda tol: theirs.PoissonRegressor(alpha=1e-3, tol=tol, solver=name, max_iter=10_000)


def table(kind: Kind, n: int, d: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns of mixed scales, and targets that follow the model."""
    rng = np.random.default_rng(n + d)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.5 * rng.standard_normal((d, d)) / np.sqrt(d))
    X = X * rng.uniform(0.3, 3, d) + rng.uniform(-1, 1, d)
    true = rng.standard_normal((d, 3)) / np.sqrt(d)
    z = X @ true
    if kind.loss == "softmax":
        y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    elif kind.loss == "logistic" or kind.coded:
        y = (z[:, 0] + rng.logistic(size=n) > 0).astype(int)
    elif kind.loss == "poisson":
        y = rng.poisson(np.exp(np.clip(0.5 * z[:, 0], -5, 3))).astype(float)
    else:
        y = z[:, 0] + rng.standard_normal(n)
    return np.ascontiguousarray(X, np.dtype(dtype)), y


def value(kind: Kind, X: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: Any) -> float:
    """F in float64."""
    coef = np.atleast_2d(np.asarray(coef, np.float64))
    z = X.astype(np.float64) @ coef.T + intercept
    l1, l2 = kind.penalty(len(y))
    extra = l1 * np.abs(coef).sum() + 0.5 * l2 * (coef**2).sum()
    if kind.loss == "softmax":
        z = z - z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]).mean() + extra)
    z = z[:, 0]
    if kind.loss == "logistic":
        return float(np.logaddexp(0, np.where(y > 0, -z, z)).mean() + extra)
    if kind.loss == "poisson":
        return float((np.exp(z) - y * z).mean() + extra)
    return float(0.5 * ((z - (2 * y - 1 if kind.coded else y)) ** 2).mean() + extra)


def null_value(kind: Kind, X: np.ndarray, y: np.ndarray) -> float:
    """F₀: no coefficients and, where there is an intercept, the best one."""
    zero = np.zeros((3 if kind.loss == "softmax" else 1, X.shape[1]))
    mean = float((2 * y - 1 if kind.coded else y).mean())
    if kind.loss == "softmax":
        return value(kind, X, y, zero, np.log(np.bincount(y, minlength=3) / len(y)))
    if kind.loss == "logistic":
        return value(kind, X, y, zero, 0.0 if kind.penalty(len(y))[0] else np.log(mean / (1 - mean)))
    return value(kind, X, y, zero, np.log(mean) if kind.loss == "poisson" else mean)


def race(kind: Kind, X: np.ndarray, y: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """For each contestant the tolerance that reaches the goal, its suboptimality, and seconds of a fit."""
    contestants = {"nagcore": kind.ours, **kind.theirs}
    values: dict[str, dict[float, float]] = {name: {} for name in contestants}
    for name, make in contestants.items():
        for tol in LADDER:
            begun = time.perf_counter()
            model = make(tol).fit(X, y)
            values[name][tol] = value(kind, X, y, model.coef_, model.intercept_)
            if time.perf_counter() - begun > SLOW:
                break
    least = min(v for ladder in values.values() for v in ladder.values())
    scale = null_value(kind, X, y) - least
    reached: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    for name, ladder in values.items():
        good = [tol for tol, v in ladder.items() if v - least <= GOAL * scale]
        if good:
            reached[name], seconds[name] = max(good), []
    end = time.perf_counter() + SECONDS * len(reached)
    while time.perf_counter() < end or min(map(len, seconds.values())) < 5:
        for name, tol in reached.items():
            begun = time.perf_counter()
            contestants[name](tol).fit(X, y)
            seconds[name].append(time.perf_counter() - begun)
    return {name: (tol, (values[name][tol] - least) / scale, statistics.median(seconds[name]))
            for name, tol in reached.items()}


def passes_of(kind: Kind, X: np.ndarray, y: np.ndarray, n_iter: int) -> float:
    """Seconds of that many passes with gradient and Hessian, the last of them without a Hessian."""
    l1, l2 = kind.penalty(len(y))
    objective = Objective(X, y, loss=kind.loss, l1=l1, l2=l2, fit_intercept=True)
    w, core = np.zeros(objective.w_shape), objective.problem.core
    if core.k > 1:
        hessian = functools.partial(core.class_hessian, w, np.empty((core.n, core.k)))
    else:
        hessian = functools.partial(core.hessian, w)
    return (n_iter - 1) * _median(hessian) + _median(functools.partial(core.value_and_grad, w))


def _median(work: Callable[[], Any]) -> float:
    """Seconds of a call, of two hundred in a row."""
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    parser.add_argument("--only", nargs="*", default=tuple(kinds()), choices=tuple(kinds()))
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("| estimator | n × d | nagcore, ms | scikit-learn's solvers, ms | best ÷ nagcore "
          "| fixed, ms: in turns, again and again |")
    print("|---|---|---|---|---|---|")
    for name in given.only:
        kind = kinds()[name]
        for size in given.sizes:
            n, d = map(int, size.split("x"))
            X, y = table(kind, n, d, given.dtype)
            found = race(kind, X, y)
            mine = found.pop("nagcore", (0.0, 0.0, float("nan")))
            shown = ", ".join(f"{solver} {1e3 * t:.3g}" for solver, (_, _, t) in found.items())
            ratio = min((t for _, _, t in found.values()), default=float("nan")) / mine[2]
            fixed = ""
            if size == given.sizes[0]:
                n_iter = np.max(getattr(kind.ours(mine[0]).fit(X, y), "n_iter_", None) or 1)
                passes = passes_of(kind, X, y, int(n_iter))
                again = _median(functools.partial(kind.ours(mine[0]).fit, X, y))
                fixed = f"{1e3 * (mine[2] - passes):.2f}, {1e3 * (again - passes):.2f}"
            bold = f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"
            print(f"| {name} | {n} × {d} | {1e3 * mine[2]:.3g} | {shown} | {bold} | {fixed} |", flush=True)


if __name__ == "__main__":
    main()
