"""A million rows in about ten reads: a logistic fit against scikit-learn's, in seconds and in reads of X.

Every fit is whole, from the arrays to coefficients, at tighter and tighter tolerances; each is judged by the
objective that NumPy computes from its coefficients in float64. One read is the time in which this machine
reads X once.

    python examples/ten_reads.py --out ten_reads.png
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression as TheirLogisticRegression

from nagcore import _core
from nagcore.linear_model import LogisticRegression

GOAL = 1e-6
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")  # Okabe and Ito's
MARKS = ("o-", "s--", "^-.", "D:")


def table(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 rows, eigenvalues 1 … 1/1000 in a rotated basis, a last column of ones; labels 0 and 1."""
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((d - 1, d - 1)))
    root = ((Q * 1000 ** (-0.5 * np.linspace(0, 1, d - 1))) @ Q.T).astype(np.float32)
    X = np.ones((n, d), np.float32)
    for i in range(0, n, 100_000):
        X[i : i + 100_000, :-1] = rng.standard_normal((min(100_000, n - i), d - 1), dtype=np.float32) @ root
    z = X[:, :-1] @ rng.standard_normal(d - 1).astype(np.float32)
    return X, (rng.random(n) < 1 / (1 + np.exp(-2 * z / z.std()))).astype(int)


def objective(X: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> float:
    """Mean log loss + l2/2 ‖w‖² in float64, a block of rows at a time."""
    total = 0.0
    for i in range(0, len(y), 100_000):
        z = X[i : i + 100_000].astype(float) @ w
        total += float(np.logaddexp(0, np.where(y[i : i + 100_000] == 1, -z, z)).sum())
    return total / len(y) + 0.5 * l2 * float(w @ w)


def climb(fit: Callable[[float], np.ndarray], judge, tolerances: list[float], budget: float) -> list[tuple]:
    """(seconds, objective) of a whole fit for each tolerance, until the next would pass the budget."""
    rungs = []
    for tol in tolerances:
        begun = time.perf_counter()
        w = fit(tol)
        rungs.append((time.perf_counter() - begun, judge(w)))
        if sum(seconds for seconds, _ in rungs) + 2 * rungs[-1][0] > budget:
            break
    return rungs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="ten_reads.png", help="the picture")
    parser.add_argument("--quick", action="store_true", help="50,000 rows")
    options = parser.parse_args()
    n, d, budget = (50_000, 51, 2.0) if options.quick else (1_000_000, 101, 30.0)
    X, y = table(n, d)
    l2 = 1 / n

    def judge(w: np.ndarray) -> float:
        return objective(X, y, np.asarray(w, float).ravel(), l2)

    def ours(tol: float) -> np.ndarray:
        model = LogisticRegression(C=1.0, fit_intercept=False, tol=tol, max_iter=1000)
        return model.fit(X, y).coef_

    def theirs(solver: str) -> Callable[[float], np.ndarray]:
        def fit(tol: float) -> np.ndarray:
            model = TheirLogisticRegression(
                C=1.0, fit_intercept=False, tol=tol, solver=solver, max_iter=10_000
            )
            return model.fit(X, y).coef_

        return fit

    reads = []
    for _ in range(5):
        begun = time.perf_counter()
        _core.stream_read(X.reshape(-1).view(np.uint8), 2)
        reads.append(time.perf_counter() - begun)
    read = sorted(reads)[2]
    tolerances = [10.0**-e for e in range(1, 10)]
    ours(1e-2)  # the first call also loads libraries
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rungs = {"nagcore": climb(ours, judge, tolerances, budget)}
        for solver in ("newton-cholesky", "lbfgs", "newton-cg"):
            rungs[f"scikit-learn {solver}"] = climb(theirs(solver), judge, tolerances, budget)
    least = min(value for fits in rungs.values() for _, value in fits)
    start = judge(np.zeros(d))
    print(f"{n:,} × {d} float32, one read {1e3 * read:.3g} ms; fits to a relative suboptimality of {GOAL:g}:")
    seconds_to = {}
    for name, fits in rungs.items():
        near = [s for s, value in fits if value - least <= GOAL * (start - least)]
        seconds = min(near, default=float("inf"))
        seconds_to[name] = seconds
        print(f"  {name:30s} {seconds:8.3f} s  {seconds / read:8.0f} reads")
    own = seconds_to.pop("nagcore")
    print(f"nagcore arrives after {own / read:.1f} reads; the best of the others takes "
          f"{min(seconds_to.values()) / own:.1f} times as long")

    figure = Figure(figsize=(7.2, 3.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"Logistic regression, {n:,} × {d} float32, λ = 1/n", fontsize=11)
    for i, (name, fits) in enumerate(rungs.items()):
        gaps = [max((value - least) / (start - least), 1e-12) for _, value in fits]
        axes.plot([s / read for s, _ in fits], gaps, MARKS[i], label=name, linewidth=2.4 if i == 0 else 1.4,
                  color=COLOURS[i])
    axes.axvline(10, color="#555555", linestyle=":", linewidth=1)
    axes.annotate("ten reads", (10, 0.4), xytext=(3, 0), textcoords="offset points", fontsize=9)
    axes.set(xscale="log", yscale="log", xlabel="time of the whole fit, in reads of X",
             ylabel="relative suboptimality")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    figure.savefig(options.out)


if __name__ == "__main__":
    main()
