"""One run of a solver: the loop over passes, and everything that may end it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nagcore.callbacks import History, State
from nagcore.objective import Objective
from nagcore.solvers.base import Horizon, Iterate, Known, Method, Oracle, Result, eps_of
from nagcore.solvers.coordinates import ClassCoordinates, Columns, Coordinates, OwnCoordinates
from nagcore.solvers.gradients import gradient_norm
from nagcore.solvers.metric import Metric
from nagcore.solvers.pairs import Pairs
from nagcore.solvers.rowspace import RowCoordinates, RowOracle
from nagcore.solvers.screening import Screen
from nagcore.solvers.stopping import Judge
from nagcore.solvers.warmstart import from_sample, start_of_constant, start_of_sample

__all__ = ["Run"]

_UNRESOLVED = 3  # steps in a row that float32 could not judge, before float64 takes over
# Steps after which the metric is first looked at, and how this grows: within one pass of each other over
# seven data sets, among 3 to 8 and 1 to 3.
_RENEW_AFTER = 6
_RENEW_GROWTH = 2
_WORTH = 1.5  # steps that the last ones' speed leaves to go, below which they would not pay for a new metric
_SMALL = 1 << 22  # bytes of X that are as soon read in float64: methods of few passes start there
_FEW_COLUMNS = 32  # whose Hessians cost nearly as little in float64
_FEW_PASSES = 10  # allowed at most: then a narrower copy of X does not pay for itself


class Run:
    """Drives `method` on `objective` until the gap is reached or something else ends it."""

    def __init__(
        self,
        objective: Objective,
        method: Method,
        *,
        tol: float,
        max_passes: float,
        max_iter: float,
        max_seconds: float | None,
        callbacks: tuple[Callable[[State], Any], ...],
        storage: str | None = None,
    ) -> None:
        self.objective, self.method, self.tol = objective, method, tol
        self.max_passes, self.max_iter = max_passes, max_iter
        self.max_seconds = math.inf if max_seconds is None else max_seconds
        self.history = History()
        self.callbacks = callbacks
        self.begun, self._passes_before = time.perf_counter(), objective.n_passes
        self.n_iter, self.message = 0, ""
        self.judge = Judge(objective, method, tol)
        self.oracle: Any = None  # an Oracle, or a RowOracle
        self._rows: RowCoordinates | None = None
        self.storage, self.stored = storage, ""
        self.metric: Metric | None = None
        self.screen = Screen(objective) if method.screens and Screen.applies(objective) else None
        classes = objective.loss.name in ("logistic", "softmax")
        self._unbounded = classes and not objective.penalty.provable  # w, where classes are separable
        self._margins: np.ndarray | None = None
        self._last: Iterate | None = None
        self._memory = Pairs()
        self._state: State | None = None  # what the callbacks were shown last

    @property
    def n_passes(self) -> float:
        passes = self.objective.n_passes - self._passes_before
        return passes if isinstance(passes, int) else round(passes, 3)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def go(self, w0: np.ndarray | None, seed: int) -> None:
        """Run to an end; afterwards `message` says which and `judge` holds the best point."""
        judge = self.judge
        judge.start(w0)
        if self.storage is not None:
            self._store(self.storage)
        if self.method.rows and w0 is None:  # w may be far larger than all that a run needs
            self._rows = RowCoordinates(self.objective)
            judge.best_x = self._rows.null(self.objective)
        elif w0 is None:
            judge.best_w = self.objective.null_model()[1]
        objective = self.objective
        narrow = objective.problem.compute != np.float64
        columns: Columns | list[Columns] | Coordinates | None = None
        known: Known | None = None
        proposed: np.ndarray | None = None
        patience = math.inf
        if self.method.own_variables:
            seldom = objective.nbytes <= _SMALL and objective.storage is None
            seldom = seldom or objective.shape[1] > self.method.wide_beyond
            seldom = seldom or (objective.kept is not None and not objective.penalty.smooth)
            seldom = seldom and not self.method.mixes
            narrow = narrow and not (seldom and objective.wide is not None)
            if w0 is None and self.method.from_sample:
                null, judge.best_w = judge.best_w, start_of_sample(self, seed, judge.best_w)
                # Few passes are left then: one more to close in float64 is worth more than they gain without.
                late = judge.best_w is not null and objective.p <= _FEW_COLUMNS
                narrow = narrow and not (late and objective.storage is None)
        else:
            self.metric = metric = Metric(objective, seed)
            patience = _RENEW_AFTER
            start = from_sample(self, metric) if w0 is None else None
            if start is None:
                constant = start_of_constant(objective) if w0 is None else None
                if constant is not None:
                    judge.best_w, z = constant
                else:
                    z = objective.null_margins()
                columns = metric.at(objective.problem, z)
                del constant, z
            else:
                judge.best_w, known, proposed, columns = start
            del start  # it would keep a pass's margins through the run
        while True:
            self._enter(columns, narrow, known)
            if proposed is not None:
                self.oracle.proposed = self.oracle.coordinates.to_v(proposed)
            known = proposed = None
            if not narrow and self.screen is None:
                columns = None  # a matrix, or one a class, that nothing here needs again
            end = self._sweep(narrow, patience)
            if end == "stop":
                return
            if end == "widen":
                # The last passes run in float64, on the same X.
                narrow = False
                judge.widen()
                seen = self.oracle.coordinates
                if isinstance(seen, ClassCoordinates):
                    columns = seen
                elif isinstance(seen, Coordinates) and not seen.floored and objective.storage is None:
                    columns = seen
            elif end == "renew":
                self._memory.rest()
                patience *= _RENEW_GROWTH
                if metric.tells_all(self.n_passes):
                    self._memory.forget()
                known, problem, z = self.oracle.known(self._last), self.oracle.problem, self._last.z
                self._leave()
                columns = metric.at(problem, z, self.n_passes)
                del problem, z

    def _store(self, storage: str) -> None:
        """Have a narrower copy of X for all passes but the last, where that can pay."""
        if self.method.name == "normal":
            self.stored = f'no copy in {storage}: "normal" reads X as often as a copy would'
        elif self.method.rows:  # whose products are of one copy, in all arithmetic
            self.stored = f'no copy in {storage}: "{self.method.name}" has one by columns'
        elif self.max_passes < _FEW_PASSES:
            self.stored = f"no copy in {storage}: it takes more than max_passes={self.max_passes} to pay"
        else:
            self.objective, self.stored = self.objective.narrowed(storage)
            self.judge.objective = self.objective

    def _enter(
        self,
        columns: Columns | list[Columns] | Coordinates | None,
        narrow: bool,
        known: Known | None,
    ) -> None:
        """Set up the variables for what comes next, and keep the best point in the problem's own."""
        problem: Any = self.objective.problem if narrow else self.objective.wide
        if self.method.rows:  # the variables are the same in all arithmetic
            self._rows = self._rows or RowCoordinates(self.objective)
            left = self.max_passes - self._closing_passes(narrow)
            self.oracle = RowOracle(self.objective, self._rows, problem, lambda: left - self.n_passes,
                                    lambda: self.judge.target)
            self.judge.renew()
            return
        if self.oracle is not None:
            self._leave()
        screen = self.screen if self.screen is not None and self.screen.part is not None else None
        if screen is not None:
            problem = screen.problem(narrow)
            self.judge.best_w[: self.objective.shape[1]][screen.dropped] = 0.0
        coordinates: Coordinates | OwnCoordinates
        if columns is None:
            coordinates = OwnCoordinates(self.objective)
        elif isinstance(columns, Coordinates):
            coordinates = columns
        elif isinstance(columns, list):
            coordinates = ClassCoordinates(self.objective, columns, eps_of(problem.compute), problem.origin)
        else:
            coordinates = Coordinates(self.objective, columns, eps_of(problem.compute), problem.origin)
        self.oracle = Oracle(self.objective, coordinates, problem, self._memory, known)
        self.oracle.tol = self.tol
        self.oracle.dropped = None if screen is None else screen.dropped
        self.judge.renew()

    def _leave(self) -> None:
        """Let go of the variables, and their metric, before there is another: the best point stays."""
        self.judge.best_w = self._best_w()
        self.oracle = self._last = None

    def _sweep(self, narrow: bool, patience: float) -> str:
        """Run the method in one set of variables. Return why it ended: stop, widen, screen or renew."""
        judge, objective, oracle = self.judge, self.objective, self.oracle
        if self.method.rows and judge.best_w is None:
            x = judge.best_x
        else:
            x = oracle.centred_classes(oracle.coordinates.to_v(self._best_w()))
        wide = objective.wide if narrow else None
        provable = objective.gap_kind == "certificate" and not narrow
        reserve = self._closing_passes(narrow)
        begun, lowest, idle, first = self.n_iter, math.inf, 0, math.nan
        oracle.horizon = lambda: self._horizon(reserve, begun + patience)
        for it in self.method.run(oracle, x):
            if it.moved and self.n_iter - begun + len(it.trail) == 1 and self.metric is not None:
                self.metric.look(oracle.problem, it.z, oracle.spare)
            if it.trail:
                for estimate in self._passed(it, exact=not narrow):
                    idle = 0 if estimate < 0.5 * lowest and objective.storage else idle + 1
                    lowest, first = min(lowest, estimate), estimate if math.isnan(first) else first
            if it.moved:
                self.n_iter += 1
                if self._unbounded:
                    self._margins = it.z
                value = judge.look(it, oracle, exact=not narrow)
                first = judge.estimate if math.isnan(first) else first
                if self._report(value, it, oracle):
                    self.message = "stopped by a callback"
                    return "stop"
                if wide is None and self._settled(it, provable, narrow):
                    return "stop"
            if self.seconds >= self.max_seconds:
                self.message = f"max_seconds={self.max_seconds} reached"
            elif self.n_iter >= self.max_iter:
                self.message = f"max_iter={self.max_iter} reached"
                self._close(it, reserve, narrow)
            elif self.n_passes + 1 + reserve > self.max_passes:
                self.message = f"max_passes={self.max_passes} reached"
                self._close(it, reserve, narrow)
            if self.message:
                if judge.reached() and judge.kind == "certificate":
                    self.message = "converged"
                return "stop"
            if wide is not None:
                # Gradients have digits left where values have none: on a copy, a pass of which is
                # cheaper than one of the last, steps go on as long as gradients shrink.
                idle = 0 if judge.estimate < 0.5 * lowest and objective.storage else idle + it.moved
                lowest = min(lowest, judge.estimate)
                if judge.promising() or (judge.unresolved >= _UNRESOLVED and idle >= _UNRESOLVED):
                    return "widen"
            if self._screened(it, reserve, narrow):
                return "screen"
            if it.moved and self.n_iter - begun >= patience:
                if (self.n_passes + 3 + reserve <= self.max_passes
                        and not judge.unresolved  # else float64 is next
                        and self._steps_left(first, self.n_iter - begun) > self._worth()
                        and self.metric.bent(oracle.problem, it.z, self.n_passes, oracle.spare)):
                    self._last = it
                    return "renew"
                patience *= _RENEW_GROWTH
        return "stop"

    def _worth(self) -> float:
        """How many steps there must be left for a new metric to pay."""
        return _WORTH + self.metric.price(self.n_passes) if self.metric is not None else math.inf

    def _steps_left(self, first: float, steps: int) -> float:
        """How many steps lead to the target, if the gap falls as from `first` on in so many steps."""
        now, target = self.judge.estimate, self.judge.target
        if not (first > now > 0 and target > 0):
            return math.inf
        return steps * math.log(now / target) / math.log(first / now)

    def _horizon(self, reserve: int, look_at: float) -> Horizon:
        """What a method may run unseen: what nobody watches, no limit could end and no metric waits for."""
        passes = 1.0
        if self.callbacks or self.max_seconds < math.inf:
            pass
        elif self.metric is not None and not self.metric.rows.size:
            passes += self.n_iter == 0  # the known start, and the step after which `look` is due
        else:
            passes = min(self.max_passes - reserve - self.n_passes,
                         min(self.max_iter, look_at) - self.n_iter)
        return Horizon(passes, self.tol, self.judge.null_value, self.judge.floor)

    def _passed(self, it: Iterate, exact: bool) -> list[float]:
        """Take in the steps that led to an iterate; return what each made of the gap."""
        passes, n_iter, begun, tell = self.n_passes, self.n_iter, self.begun, self.history.iteration
        for step, gap in zip(it.trail, self.judge.pass_by(it.trail, it.passed, exact), strict=True):
            n_iter += 1
            tell(n_iter, round(passes - step.later, 3), step.at - begun, step.f, gap)
        self.n_iter = n_iter
        return [step.gap for step in it.trail]

    def _screened(self, it: Iterate, reserve: int, narrow: bool) -> bool:
        """Whether a look at what is proven zero was due, and made the passes shorter."""
        screen, judge = self.screen, self.judge
        if screen is None or not it.moved or self.n_passes + 5 + reserve > self.max_passes:
            return False
        if not screen.promising(self.oracle, judge.estimate, self.n_iter):
            return False
        before = screen.part
        certificate = screen.look(self.oracle, it, self.n_iter)
        if not narrow:
            judge.accept(certificate, self.n_passes)
        if screen.part is before:
            return False
        judge.shorten()
        return True

    def _settled(self, it: Iterate, provable: bool, narrow: bool) -> bool:
        """Whether the gap is reached (with a proof where one exists), or out of reach."""
        judge = self.judge

        def reached() -> bool:
            if (provable and judge.kind != "certificate") or not judge.reached():
                return False
            # What float32 alone cannot tell from zero it has not reached.
            return not narrow or judge.target >= self.oracle.rounding(it.fy, it.zy)

        done = reached()
        if provable and not done and judge.worth_proving(self.n_passes):
            judge.prove(self.oracle, it, self.n_passes)
            done = reached()
        if done:
            self.message = "converged"
        elif judge.stalled(self.n_iter):
            self.message = f"stopped at the rounding of {self.oracle.real} arithmetic"
        return bool(self.message)

    def _closing_passes(self, narrow: bool) -> int:
        """Passes that a closing proof takes: margins, if those in float64 are not known, and Xᵀ."""
        objective = self.objective
        if objective.gap_kind != "certificate":
            return 0
        averaged = self.method.averages and not objective.penalty.smooth
        extra = objective.fit_intercept or objective.bounds is not None or self.screen is not None
        return int(extra) + int(narrow or averaged) + int(self.method.rows)  # which makes w at the end

    def _close(self, it: Iterate, reserve: int, narrow: bool) -> None:
        """Spend the reserved passes on a proof for the best point."""
        if self.objective.gap_kind != "certificate" or self.judge.best_value == np.inf:
            return
        if self.n_passes + reserve > self.max_passes:
            return
        if narrow:
            certificate = self.objective.certify(self._best_w())
            self.judge.widen()
            self.judge.accept(certificate, self.n_passes)
        elif self.method.rows and it.proven and not self.objective.fit_intercept:
            pass  # each iterate came with its proof
        elif math.isfinite(it.fy) and not self.judge.reached():
            self.judge.prove(self.oracle, it, self.n_passes)

    def _best_w(self) -> np.ndarray:
        if self.judge.best_w is not None:
            return self.judge.best_w
        if self.oracle is None:  # interrupted before there was any
            return self.objective.null_model()[1]
        # A bound in the solver's variables is one of w up to its rounding.
        return self.objective.clipped(self.oracle.coordinates.to_w(self.oracle.settled(self.judge.best_x)))

    def _report(self, value: float, it: Iterate, oracle: Oracle) -> bool:
        judge = self.judge
        passes, gap = self.n_passes, judge.gap
        seconds = self.seconds if math.isnan(it.at) else it.at - self.begun
        self.history.iteration(self.n_iter, passes, seconds, value, gap)
        if not self.callbacks:
            return False
        state = State(
            self.n_iter, passes, value, gap, judge.kind, seconds, judge.null_value, self.tol,
            self.objective.nbytes,
            lambda: self.objective.clipped(oracle.coordinates.to_w(oracle.settled(it.x))),
        )
        if not self.method.rows and oracle.w.size:  # in the unknowns of rows it would cost a pass
            norm = gradient_norm(self.objective, oracle.w, oracle.u, oracle.dropped)
            state = replace(state, grad_norm=norm)
        self._state = state
        stop = False
        for callback in self.callbacks:
            stop = callback(state) is True or stop
        return stop

    def finish(self) -> None:
        """Tell the callbacks that have a `finish` where the run has ended, if it ever moved."""
        state, judge = self._state, self.judge
        if state is None:
            return

        def best() -> np.ndarray:
            judge.best_w = self._best_w()  # which a method in the unknowns of rows makes in a pass
            return judge.best_w.copy()

        state = replace(
            state, n_passes=self.n_passes, value=judge.best_value, gap=judge.gap,
            gap_kind=judge.kind, seconds=self.seconds, _w=best,
        )
        for callback in self.callbacks:
            if callable(finish := getattr(callback, "finish", None)):
                finish(state)

    def _separated(self) -> bool:
        """Whether nothing bounds w and each residual is below a half: the right side of every row."""
        if not self._unbounded or self._margins is None:
            return False
        r = np.empty_like(self._margins)
        self.oracle.problem.loss_from_margins(self._margins, r)
        return bool(np.abs(r).max() < 0.5)

    def release(self) -> None:
        """Let go of arrays at once: what refers to itself waits until Python looks for cycles."""
        if self._rows is not None:
            self._rows.memory = None
        self.oracle = self._rows = self.metric = self._last = None

    def result(self, why: str = "asked for") -> Result:
        judge, objective = self.judge, self.objective
        w = judge.best_w = self._best_w()
        d = objective.shape[1]
        if not self.method.rows and self.oracle is not None:
            self.oracle.horizon = Horizon  # nothing of this run, so that all of it goes with it
        why = "; ".join(filter(None, (why, self.stored)))
        intercept = w[d] if objective.fit_intercept else np.zeros(w.shape[1:])
        return Result(
            w=w, coef=w[:d], intercept=float(intercept) if objective.k == 1 else intercept,
            value=judge.best_value if np.isfinite(judge.best_value) else np.nan,
            gap=judge.gap, gap_kind=judge.kind, n_passes=self.n_passes, n_iter=self.n_iter,
            converged=self.message == "converged", message=self.message, history=self.history,
            solver=self.method.name, why=why, null_value=judge.null_value, seconds=self.seconds,
            separated=self._separated(),
        )
