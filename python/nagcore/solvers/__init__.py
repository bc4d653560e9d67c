"""The registry of solvers and `minimize`, which drives one until its gap is small enough.

>>> names()
('fista', 'acfgm')
"""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nagcore.callbacks import History, State
from nagcore.objective import Objective, _check_w
from nagcore.solvers import acfgm, fista
from nagcore.solvers.base import Iterate, Method, Oracle, Result
from nagcore.solvers.coordinates import Coordinates
from nagcore.solvers.stopping import Judge

__all__ = ["Method", "Result", "get", "minimize", "names"]

_REGISTRY = {module.METHOD.name: module.METHOD for module in (fista, acfgm)}


def names() -> tuple[str, ...]:
    """Return the names of the registered solvers."""
    return tuple(_REGISTRY)


def get(solver: str, objective: Objective) -> Method:
    """Return the solver of that name if the objective has what it needs ("auto" always has one).

    Raises
    ------
    ValueError
        Unknown name (the message lists the choices), or an objective that the solver cannot take (the
        message names both sides and the solver that can).
    """
    if solver == "auto":
        solver = "fista"
    if solver not in _REGISTRY:
        raise ValueError(f'solver is "{solver}"; nagcore has "auto", '
                         + ", ".join(f'"{name}"' for name in _REGISTRY) + ".")
    _REGISTRY[solver].check(objective)
    return _REGISTRY[solver]


def _check_limits(tol: Any, max_passes: Any, max_seconds: Any) -> None:
    if not (isinstance(tol, numbers.Real) and tol >= 0):
        raise ValueError(f"tol is {tol}; nagcore takes a number ≥ 0, the relative suboptimality to "
                         "reach. Use tol=1e-6.")
    if not (isinstance(max_passes, numbers.Integral) and max_passes >= 1):
        raise ValueError(f"max_passes is {max_passes}; nagcore takes a whole number ≥ 1. "
                         "Use max_passes=1000.")
    if max_seconds is not None and not (isinstance(max_seconds, numbers.Real) and max_seconds > 0):
        raise ValueError(f"max_seconds is {max_seconds}; nagcore takes a positive number, or None "
                         "for no limit. Use max_seconds=None.")


class _Run:
    """One call of `minimize`: the loop over passes, and everything that may end it."""

    def __init__(self, objective, method, tol, max_passes, max_seconds, callbacks, max_iter) -> None:
        self.objective, self.method = objective, method
        self.tol, self.max_passes, self.max_iter = tol, max_passes, max_iter
        self.max_seconds = math.inf if max_seconds is None else max_seconds
        self.history = History()
        self.callbacks: tuple[Callable[[State], Any], ...] = (self.history, *callbacks)
        self.begun, self._passes_before = time.perf_counter(), objective.n_passes
        self.n_iter, self.message = 0, ""
        self.judge: Judge | None = None
        self.oracle: Oracle | None = None

    @property
    def n_passes(self) -> int:
        return self.objective.n_passes - self._passes_before

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def go(self, w0: np.ndarray | None, seed: int) -> None:
        """Run to an end; afterwards `message` says which and `judge` holds the best point."""
        objective = self.objective
        self.judge = Judge(objective, self.method, self.tol)
        if w0 is not None:
            self.judge.best_w = w0
        coordinates = Coordinates(objective, seed)
        narrow = objective.problem.compute != np.float64
        self.oracle = Oracle(objective, coordinates, objective.problem)
        x, L = coordinates.to_v(self.judge.best_w), 1.0
        if objective.k > 1 and objective.penalty.name != "none":
            x = self.oracle.settle_classes(x)
        while True:
            again = self._sweep(x, L, narrow)
            if again is None:
                return
            # The last passes run in float64, on the same X.
            narrow = False
            x, L = again
            self.oracle = Oracle(objective, coordinates, objective.wide)
            self.judge.widen()

    def _sweep(self, x, L, narrow) -> tuple[np.ndarray, float] | None:
        """Run the method in one arithmetic. Return where to go on in float64, or None at the end."""
        judge, objective, oracle = self.judge, self.objective, self.oracle
        provable = objective.gap_kind == "certificate"
        wide = None if not narrow else objective.wide
        # Passes that the closing proof takes: margins in float64 if they are not known, then Xᵀ.
        averaged = self.method.averages and objective.l1 > 0
        reserve = (objective.fit_intercept + (bool(wide) or averaged)) if provable else 0
        it: Iterate
        for it in self.method.run(oracle, x, L):
            if it.moved:
                self.n_iter += 1
                value = judge.look(it, oracle, exact=not narrow)
                if self._report(value, it, oracle):
                    self.message = "stopped by a callback"
                    return None
            if narrow and wide is not None and (judge.promising() or judge.unresolved >= 3):
                return self._best_x(), it.L
            if it.moved and self._settled(it, provable and not narrow):
                return None
            if self.seconds >= self.max_seconds:
                self.message = f"max_seconds={self.max_seconds} reached"
            elif self.n_iter >= self.max_iter:
                self.message = f"max_iter={self.max_iter} reached"
            elif self.n_passes + 1 + reserve > self.max_passes:
                self.message = f"max_passes={self.max_passes} reached"
                self._close(it, reserve, narrow)
            else:
                continue
            if judge.reached():
                self.message = "converged"
            return None

    def _settled(self, it: Iterate, provable: bool) -> bool:
        """Whether the gap is reached (with a proof where one exists), or out of reach."""
        judge = self.judge
        if provable and judge.kind != "certificate" or not judge.reached():
            if provable and judge.worth_proving(self.n_passes):
                judge.prove(self.oracle, it, self.n_passes)
        if judge.reached() and (judge.kind == "certificate" or not provable):
            self.message = "converged"
        elif judge.stalled(self.n_iter):
            self.message = f"stopped at the rounding of {self.oracle.real} arithmetic"
        return bool(self.message)

    def _close(self, it: Iterate, reserve: int, narrow: bool) -> None:
        """Spend the reserved passes on a proof for the best point."""
        if reserve and self.n_passes + reserve <= self.max_passes:
            if narrow:
                certificate = self.objective.certify(self._best_w())
                self.judge.widen()
                self.judge.accept(certificate, self.n_passes)
            elif not self.judge.reached():
                self.judge.prove(self.oracle, it, self.n_passes)

    def _best_w(self) -> np.ndarray:
        if self.judge.best_w is not None:
            return self.judge.best_w
        return self.oracle.coordinates.to_w(self.judge.best_x)

    def _best_x(self) -> np.ndarray:
        if self.judge.best_w is not None:
            return self.oracle.coordinates.to_v(self.judge.best_w)
        return self.judge.best_x

    def _report(self, value: float, it: Iterate, oracle: Oracle) -> bool:
        judge = self.judge
        state = State(
            self.n_iter, self.n_passes, value, judge.gap, judge.kind, self.seconds,
            judge.null_value, self.tol, self.objective.nbytes,
            lambda x=it.x: oracle.coordinates.to_w(x),
        )
        stop = False
        for callback in self.callbacks:
            stop = callback(state) is True or stop
        return stop

    def result(self) -> Result:
        judge, objective = self.judge, self.objective
        w, d = self._best_w(), objective.shape[1]
        intercept = w[d] if objective.fit_intercept else np.zeros(w.shape[1:])
        value = judge.best_value if np.isfinite(judge.best_value) else np.nan
        return Result(
            w=w, coef=w[:d], intercept=float(intercept) if objective.k == 1 else intercept,
            value=value, gap=judge.gap, gap_kind=judge.kind, n_passes=self.n_passes,
            n_iter=self.n_iter, converged=self.message == "converged", message=self.message,
            history=self.history, solver=self.method.name, null_value=judge.null_value,
            seconds=self.seconds,
        )


def minimize(
    objective: Objective,
    w0: Any = None,
    *,
    solver: str = "auto",
    tol: float = 1e-6,
    max_passes: int = 1000,
    max_seconds: float | None = None,
    seed: int = 0,
    callbacks: Iterable[Callable[[State], Any]] = (),
) -> Result:
    """Minimise F(w, b) = (1/S) Σ s_i φ(z_i, y_i) + (l2/2)‖w‖² + l1‖w‖₁ to a relative suboptimality.

    Stops when gap ≤ tol·(F₀ − F(w)), where F₀ is the null model and gap bounds F(w) − min F. With a penalty
    the bound is a duality gap, computed in float64; without one it is an estimate, and
    `gap_kind` says so.

    Parameters
    ----------
    objective : nagcore.Objective
    w0 : array of shape (p,) or (p, k), optional
        Where to start; by default at the null model.
    solver : {"auto", "fista", "acfgm"}
        "fista" takes every loss and penalty. "acfgm" searches no step length, and needs a loss of
        bounded curvature. "auto" is "fista".
    tol : float
        Relative suboptimality to reach.
    max_passes : int
        Passes over X, all counted. The last ones are kept for the proof of the gap.
    max_seconds : float, optional
        Wall-clock limit, looked at after each pass.
    seed : int
        Which rows are sampled to scale the columns.
    callbacks : sequence of callables
        Called with a `nagcore.callbacks.State` after each iteration; returning True stops the run.

    Returns
    -------
    Result
        `w, coef, intercept, value, gap, gap_kind, n_passes, n_iter, converged, message, history`. On
        Ctrl-C it holds the best point so far, with message "interrupted".

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came, what is accepted and the call that fixes it.

    Source: docs/maths.md, "Accelerated descent" and "When to stop"; docs/solvers.md.

    Examples
    --------
    >>> import numpy as np
    >>> from nagcore.objective import Objective
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> result = minimize(Objective(X, y, loss="logistic", l2=0.1))
    >>> result.converged, result.gap_kind
    (True, 'certificate')
    """
    return run(objective, w0, solver=solver, tol=tol, max_passes=max_passes,
               max_seconds=max_seconds, seed=seed, callbacks=callbacks)


def run(objective, w0=None, *, solver="auto", tol=1e-6, max_passes=1000, max_seconds=None, seed=0,
        callbacks=(), max_iter=math.inf) -> Result:
    """`minimize` with a limit on iterations, which scikit-learn's `max_iter` counts."""
    if not isinstance(objective, Objective):
        raise TypeError(f"objective is {type(objective).__name__}; minimize takes a nagcore.Objective. "
                        'Use nagcore.Objective(X, y, loss="logistic").')
    method = get(solver, objective)
    _check_limits(tol, max_passes, max_seconds)
    if w0 is not None:
        w0 = np.array(_check_w(w0, objective.problem, "w0"), np.float64, order="C")
    this = _Run(objective, method, tol, max_passes, max_seconds, tuple(callbacks), max_iter)
    try:
        this.go(w0, seed)
    except KeyboardInterrupt:
        if this.judge is None or this.oracle is None:
            raise  # nothing has begun: there is no best so far
        this.message = "interrupted"
    return this.result()
