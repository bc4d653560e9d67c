"""Mean squared error by hand: gradient descent, heavy ball and Nesterov, guarded against bad data.

The loop is NumPy's own; `nagcore.nesterov_step_` takes the steps, `nagcore.schedules` gives the
acceleration and starts it again when it overshoots, `AnomalyGuard` leaves out steps whose gradient
a broken read has spoilt, and the loop stops at a gradient that is small enough.

    python examples/numpy_mse.py --out numpy_mse.png
"""

import argparse
import time
from pathlib import Path

import numpy as np

import nagcore
from nagcore import plots, schedules
from nagcore.callbacks import AnomalyGuard, History


def problem(n: int, d: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """X whose Hessian XᵀX/n has the eigenvalues 1 … 1/condition, and y = Xw + noise."""
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.standard_normal((n, d)))
    V, _ = np.linalg.qr(rng.standard_normal((d, d)))
    X = np.sqrt(n) * (U * condition ** (-0.5 * np.linspace(0, 1, d))) @ V.T
    return X, X @ rng.standard_normal(d) + 0.1 * rng.standard_normal(n)


def loss_and_gradient(X: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
    """Half the mean squared error, and its gradient."""
    r = X @ w - y
    return 0.5 * float(np.mean(r**2)), X.T @ r / len(y)


def broken_read(gradient: np.ndarray, step: int) -> np.ndarray:
    """What a bad disk makes of two of the steps: a NaN in one, a flipped bit in another."""
    damage = {60: np.nan, 120: 2.0**40}
    if step in damage:
        gradient = gradient.copy()
        gradient[3] = gradient[3] * damage[step]
    return gradient


def report(event) -> None:
    """What the guard saw and did."""
    limit = "" if np.isinf(event.limit) else f", accepted are {event.limit:.2g}"
    print(f"   step {event.step}: {event.kind} {event.value:.2g}{limit}: {event.action}")


def train(X, y, L, least, momentum, nesterov, steps, tol, history) -> AnomalyGuard:
    """Descend until ‖g‖ ≤ tol·‖g₀‖, with a step length of 1/L."""
    w, before, buffer = (np.zeros(X.shape[1]) for _ in range(3))
    guard = AnomalyGuard("skip", on_event=report)
    begun, started, first_norm = time.perf_counter(), False, None
    for t in range(1, steps + 1):
        loss, g = loss_and_gradient(X, y, w)
        g = broken_read(g, t)
        norm = float(np.linalg.norm(g))
        if guard.check(t, loss=loss, grad_norm=norm).action != "ok":
            continue
        first_norm = first_norm or norm
        if momentum.adaptive:
            momentum.observe(float(g @ (w - before)))
        mu = momentum(t)
        history.log(step=t, passes=2 * t, seconds=time.perf_counter() - begun, loss=loss,
                    gap=loss - least, grad_norm=norm, lr=1 / L, momentum=mu)  # fmt: skip
        if norm <= tol * first_norm:
            break
        before = w.copy()
        nagcore.nesterov_step_(
            w, g, buffer, lr=1 / L, momentum=mu, nesterov=nesterov, first_step=not started,
            lookahead=momentum(t + 1) if nesterov else None,
        )  # fmt: skip
        started = True
    return guard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller problem, fewer steps")
    parser.add_argument("--out", type=Path, default=Path("numpy_mse.png"), help="the picture")
    parser.add_argument("--history", type=Path, help="a folder for the runs as JSON lines")
    arguments = parser.parse_args()
    plots.check_path(arguments.out)
    n, d, condition, steps = (2_000, 20, 300, 800) if arguments.quick else (4_000, 50, 2e3, 4_000)

    X, y = problem(n, d, condition)
    L = np.linalg.norm(X, 2) ** 2 / n
    least, _ = loss_and_gradient(X, y, np.linalg.lstsq(X, y, rcond=None)[0])
    print(f"{n:,} rows, {d} columns, condition {condition:g}")
    methods = {
        "gradient descent": (schedules.Constant(0.0), False),
        "heavy ball": (schedules.Constant(0.9), False),
        "Nesterov, adaptive": (schedules.AdaptiveRestart(schedules.Nesterov()), True),
    }
    runs = {}
    for name, (momentum, nesterov) in methods.items():
        print(name)
        path = None
        if arguments.history:
            arguments.history.mkdir(parents=True, exist_ok=True)
            path = arguments.history / f"{name.split(',')[0].replace(' ', '_').lower()}.jsonl"
        with History(path, meta={"method": name}, overwrite=True) as history:
            guard = train(X, y, L, least, momentum, nesterov, steps, 1e-6, history)
        last, restarts = history.rows[-1], getattr(momentum, "restarts", 0)
        print(f"   {last['step']} steps: F − F* {last['gap']:.1e}, ‖g‖ {last['grad_norm']:.1e}; "
              f"{len(guard.events)} steps skipped, {restarts} restarts")  # fmt: skip
        runs[name] = history
    plots.report(
        runs, x="steps", y=("gap", "grad_norm", "momentum", "loss"), path=arguments.out,
        title=f"Mean squared error, condition {condition:g}: two spoilt steps skipped in each run",
    )  # fmt: skip
    print(f"picture written to {arguments.out}")
    quick, slow = len(runs["Nesterov, adaptive"].rows), len(runs["gradient descent"].rows)
    print(f"Nesterov took {quick} steps, gradient descent {slow}: speed-up {slow / quick:.1f}")


if __name__ == "__main__":
    main()
