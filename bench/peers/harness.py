"""What contestants are judged by: the objective in float64, its minimum, times of whole fits, a read of X."""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import expit, xlogy

from nagcore import _core

from .problems import Problem

__all__ = ["GOALS", "Outcome", "bounds", "objective", "race", "read_seconds", "reference", "sweep_seconds",
           "values"]

# Relative suboptimality: (F − min F) / (F(0) − min F); of a path the worst of its fits, each over F(0), since
# its first fit gains nothing.
GOALS = (1e-3, 1e-6, 1e-9)
_BEYOND = 400_000_000  # bytes that are read from memory, and not from a cache


def _blocks(problem: Problem) -> Iterable[slice]:
    step = max(1, 64_000_000 // max(1, problem.d * 8)) if not problem.sparse else problem.n
    return (slice(i, min(problem.n, i + step)) for i in range(0, problem.n, step))


def objective(problem: Problem, w: np.ndarray) -> float:
    """F(w) in float64, by NumPy and scipy alone. w is (d,), or (k, d) for softmax."""
    w = np.asarray(w, np.float64)
    if not np.isfinite(w).all():
        return math.inf
    total = 0.0
    for rows in _blocks(problem):
        X, y = problem.X[rows].astype(np.float64), problem.y[rows]
        z = X @ w.T
        if problem.kind == "logistic":
            total += float(np.logaddexp(0, np.where(y > 0, -z, z)).sum())
        elif problem.kind == "squared":
            total += 0.5 * float(((z - y) ** 2).sum())
        else:
            top = z.max(axis=1)
            lse = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
            total += float((lse - z[np.arange(len(y)), y]).sum())
    penalty = 0.5 * problem.l2 * float((w**2).sum()) + problem.l1 * float(np.abs(w).sum())
    return total / problem.n + penalty


def values(problem: Problem, coef: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F of a fit, or of each fit of a path, whose coef is (m, d); and lower bounds of the minima.

    The bounds belong to paths, which are judged in one sweep over X: D(θ) at the residuals θ, scaled into
    ‖Xᵀθ‖_∞/n ≤ l1. For a fit they are −∞.
    """
    if not len(problem.strengths):
        return np.array([objective(problem, coef)]), np.array([-np.inf])
    W, l1 = np.asarray(coef, np.float64), problem.strengths
    if W.shape != (len(l1), problem.d) or not np.isfinite(W).all():
        return np.full(len(l1), np.inf), np.full(len(l1), -np.inf)
    Z, slope = np.empty((problem.n, len(l1))), np.zeros((problem.d, len(l1)))
    y = np.where(problem.y > 0, 1.0, -1.0)[:, None] if problem.kind == "logistic" else problem.y[:, None]
    theta = np.empty_like(Z)
    for rows in _blocks(problem):
        X = problem.X[rows].astype(np.float64)
        Z[rows] = X @ W.T
        theta[rows] = _residuals(problem.kind, Z[rows], y[rows])
        slope += X.T @ theta[rows]
    loss = np.logaddexp(0, -y * Z) if problem.kind == "logistic" else 0.5 * (Z - y) ** 2
    F = loss.mean(axis=0) + l1 * np.abs(W).sum(axis=1)
    theta *= np.minimum(1.0, l1 / np.maximum(np.abs(slope).max(axis=0) / problem.n, 1e-300))
    if problem.kind == "logistic":
        a = np.clip(-y * theta, 0.0, 1.0)
        conjugate = xlogy(a, a) + xlogy(1 - a, 1 - a)
    else:
        conjugate = 0.5 * theta**2 + theta * y
    return F, -conjugate.mean(axis=0)


def _residuals(kind: str, Z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -y * expit(-y * Z) if kind == "logistic" else Z - y


def reference(problem: Problem) -> tuple[float, np.ndarray] | None:
    """min F where plain NumPy finds it: Newton on dense logistic and ridge problems, up to 1000 columns."""
    several = problem.kind == "softmax" or len(problem.strengths) > 0
    if problem.sparse or several or problem.l1 or problem.d > 1000:
        return None
    d, n = problem.d, problem.n
    w, best = np.zeros(d), objective(problem, np.zeros(d))
    for _ in range(100):
        g, H = problem.l2 * w, problem.l2 * np.eye(d)
        for rows in _blocks(problem):
            X, y = problem.X[rows].astype(np.float64), problem.y[rows]
            z = X @ w
            if problem.kind == "logistic":
                mu = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
                r, c = mu - y, mu * (1 - mu)
            else:
                r, c = z - y, np.ones(len(y))
            g += X.T @ r / n
            H += (X.T * (c / n)) @ X
        step = np.linalg.lstsq(H, g, rcond=1e-15)[0]
        t = 1.0
        while (value := objective(problem, w - t * step)) > best - 1e-4 * t * float(g @ step) and t > 1e-6:
            t *= 0.5
        if not value < best:
            break
        done = best - value < 1e-15 * abs(best)
        w, best = w - t * step, value
        if done:
            break
    return best, w


def read_seconds(problem: Problem, n_threads: int) -> float:
    """One read: the bytes of X over the bandwidth at which memory is read, in this process."""
    return problem.nbytes / _BEYOND * _sweep([np.ones(_BEYOND // 8)], n_threads)


def sweep_seconds(problem: Problem, n_threads: int) -> float:
    """The same bytes where they lie: an X that fits a cache is swept faster than memory is read."""
    return _sweep([problem.X.data, problem.X.indices] if problem.sparse else [problem.X], n_threads)


def _sweep(parts: list[np.ndarray], n_threads: int) -> float:
    """The least of seven plain sweeps, once BLAS's threads have stopped spinning."""
    time.sleep(1.0)
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        for part in parts:
            _core.stream_read(part.reshape(-1).view(np.uint8), n_threads)
        times.append(time.perf_counter() - begin)
    return min(times)


@dataclass
class Outcome:
    """A contestant's ladder: for each of its own tolerances, seconds of the whole fit and F of its fits."""

    contestant: str
    rungs: list[tuple[float, float, np.ndarray]] = field(default_factory=list)
    lower: list[np.ndarray] = field(default_factory=list)  # bounds of the minima, proven by each rung
    note: str = ""

    def seconds_to(self, goal: float, best: np.ndarray, scale: float) -> float:
        """Seconds of the first whole fit within `goal`, or infinity."""
        for _, seconds, value in self.rungs:
            if suboptimality(value, best, scale) <= goal:
                return seconds
        return math.inf


def suboptimality(value: np.ndarray, best: np.ndarray, scale: float) -> float:
    """The worst of (F − min F)/scale over the fits."""
    return float(np.max((value - best) / scale))


def bounds(problem: Problem, outcomes: list[Outcome], best: float | None) -> tuple[np.ndarray, float]:
    """The least that is known of each minimum, and what suboptimality is relative to.

    For a fit the minimum is the reference's, or where there is none, or a contestant went lower, the least
    that anybody reached. For a path it is the highest proven bound, of each strength.
    """
    start = objective(problem, np.zeros((int(problem.y.max()) + 1, problem.d) if problem.kind == "softmax"
                                        else problem.d))  # fmt: skip
    if len(problem.strengths):
        return np.max([lower for o in outcomes for lower in o.lower], axis=0), start
    reached = [float(value[0]) for o in outcomes for *_, value in o.rungs]
    least = np.array([min(reached + ([] if best is None else [best]))])
    return least, start - float(least[0])


Fit = Callable[[Problem, float], np.ndarray]


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so long, as soon as the contestant comes by the interpreter."""

    def late(*_: object) -> None:
        raise TimeoutError(f"one fit took more than {seconds:.0f} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _few_rows(problem: Problem) -> Problem:
    """A hundred rows, and of each class its first ones."""
    rows = np.linspace(0, problem.n - 1, min(problem.n, 100)).astype(int)
    if problem.kind != "squared":
        rows = np.concatenate([rows, *(np.flatnonzero(problem.y == c)[:3] for c in np.unique(problem.y))])
    return replace(problem, X=problem.X[rows], y=problem.y[rows])


def race(
    problem: Problem, name: str, fit: Fit, ladder: Iterable[float], best: float | None, budget: float
) -> Outcome:
    """Climb a contestant's ladder to the last goal, or until the next fit would pass the budget.

    Short fits are repeated until half a second has gone (five times at most) and count with their median.
    A fit that takes three budgets is broken off. Before each rung the judge's threads come to rest: BLAS's
    go on for some 30 ms after a product, at the cost of whoever runs next. A fit of a few rows comes first:
    what it loads is not part of anybody's time.
    """
    outcome, spent, ladder = Outcome(name), 0.0, list(ladder)
    with warnings.catch_warnings(), suppress(Exception), limit(3 * budget):
        warnings.simplefilter("ignore")
        fit(_few_rows(problem), ladder[0])
    for tol in ladder:
        times: list[float] = []
        time.sleep(0.1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                while not times or (sum(times) < 0.5 and len(times) < 5):
                    begin = time.perf_counter()
                    with limit(3 * budget):
                        w = fit(problem, tol)
                    times.append(time.perf_counter() - begin)
        except Exception as error:
            outcome.note = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"
            break
        value, lower = values(problem, w)
        outcome.rungs.append((tol, sorted(times)[len(times) // 2], value))
        outcome.lower.append(lower)
        spent += sum(times)
        if best is not None or len(problem.strengths):
            least, scale = bounds(problem, [outcome], best)
            if suboptimality(value, least, scale) <= GOALS[-1]:
                break
        if spent + 2 * times[-1] > budget:
            outcome.note = f"stopped after {spent:.0f} s"
            break
    return outcome
