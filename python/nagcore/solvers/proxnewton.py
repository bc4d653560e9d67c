"""Proximal Newton for l1, elastic net and bounds on w: Hessians of few columns, working sets of many.

Each step minimises the quadratic model plus l1 (`quadratic_l1`), and a line search on margins guards it:

    δ = argmin ⟨∇f, δ⟩ + ½⟨δ, ∇²f δ⟩ + l1‖w + δ‖₁,   w⁺ = w + t·δ

Every pass gives gradient and Hessian. For least squares the Hessian is computed once; from some columns on,
and along a path, it is kept, and follows what gradients say of it. Where the columns are many, `workingset`
takes over.

Source: Lee, Sun & Saunders 2014.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from nagcore import _core
from nagcore.objective import Objective
from nagcore.objective.duality import dot, row_mean
from nagcore.solvers.base import Iterate, Known, Method, Oracle, Step
from nagcore.solvers.dense import eliminate
from nagcore.solvers.linesearch import ARMIJO
from nagcore.solvers.newton import MOST
from nagcore.solvers.quadratic_l1 import FEW, minimise, violation
from nagcore.solvers.workingset import working_sets

__all__ = ["METHOD", "WIDE", "columns_together", "compiled", "direction", "keeps_hessian", "moved",
           "prox_newton"]

WIDE = 4            # rows per column up to which copies of some columns are small beside X
ALL_COLUMNS = 512   # up to here Hessians are of all of them,
PATH_COLUMNS = 1024  # and where rows are more, up to here along a path: one serves many strengths
_SHORT = 2          # rows per column up to which, along a path, the columns in the support are few
_READS = 16         # columns per gradient that a Hessian costs beyond the first
_LEFT = 1e-3
_KEPT_FROM = 32     # columns, and rows a column, from which a Hessian's cost has it kept in a single fit, too
_EPS = float(np.finfo(np.float64).eps)


def prox_newton(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass over all columns. L is not used."""
    objective = oracle.objective
    if compiled(objective):
        yield from _loop(oracle, x)
    elif objective.shape[1] <= columns_together(objective) or not objective.divisible:
        yield from _steps(oracle, x, oracle.new_margins())
    else:
        yield from working_sets(oracle, x)


def columns_together(objective: Objective) -> int:
    """Columns up to which Hessians are of all of them, and working sets not needed."""
    n, d = objective.shape
    if objective.kept is None:
        return ALL_COLUMNS
    if n > WIDE * d:
        return PATH_COLUMNS
    short = n <= _SHORT * d and objective.l1 > 0 and objective.bounds is None and objective.divisible
    return FEW if short and objective.loss.name != "squared" else ALL_COLUMNS


def compiled(objective: Objective) -> bool:
    """Whether the core runs the steps: few columns, no bounds, and no one Hessian that serves for all."""
    if objective.bounds is not None or not objective.l1 or objective.shape[1] > FEW:
        return False
    return objective.loss.name != "squared" and objective.problem.slope_along is not None


def keeps_hessian(objective: Objective) -> bool:
    """Whether a Hessian is to serve for several steps. Estimates of the gap take one at each."""
    if objective.kept is not None:
        return True
    p = objective.p
    return p > _KEPT_FROM and objective.shape[0] > _KEPT_FROM * p and objective.penalty.provable


def _loop(oracle: Oracle, x: np.ndarray) -> Iterator[Iterate]:
    """Steps by the core, each call as many as nobody has to look at."""
    objective, problem, kept = oracle.objective, oracle.problem, oracle.objective.kept
    margins = oracle.new_margins(), oracle.new_margins()
    hessian, known = None if kept is None else kept.hessian.get("H"), None
    if hessian is not None and kept.last is not None and kept.last.z.dtype == margins[0].dtype:
        d, last = objective.shape[1], kept.last
        if np.array_equal(last.w[:d], x[:d]):  # the last strength ended here, but for the intercept
            x, known, margins[0][...] = last.w, (last.data_value, last.u), last.z
    loop = _core.ProxNewton(problem.core, x, *margins, objective.l1, objective.l2, problem.origin,
                            keeps_hessian(objective), hessian, known)
    f, share, passed = 0.0, problem.share, None
    try:
        while True:
            most, tol, null_value, floor = oracle.horizon()
            begun = time.perf_counter()
            records, points, gradients, data_gradients = loop.run(
                max(1, int(min(most // share, MOST))), tol, null_value, floor)
            current = loop.current
            oracle.coordinates.rms = loop.sizes
            data_value, f_y, value, bound, free, seconds, passes, _, moved, resolved = records.pop()
            later, trail = share * passes, []
            for _, _, whole, proven, gap, ended, passes, _, _, _ in reversed(records):
                trail.append(Step(whole, gap, proven, begun + ended, later))
                later += share * passes
            trail.reverse()
            problem.count(later)
            y = points[-1]
            oracle.w, oracle.data_value, oracle.u = y, data_value, data_gradients[-1]
            if trail:
                x, f = points[-2], records[-1][1]
                passed = x
            if moved:
                x, f = y, f_y
            z, z_other = margins[current], margins[1 - current]
            oracle.spare = z_other if moved else None
            yield Iterate(x, f, z, y, f_y, z if moved else z_other, gradients[-1], 1.0, moved, resolved,
                          bound=bound, at=begun + seconds, trail=trail, passed=passed, free=free,
                          value=value if moved else math.nan)
    finally:
        if kept is not None and loop.hessian is not None:  # for the next strength of a path
            kept.hessian["H"] = loop.hessian
            if oracle.w is x:
                kept.last = Known(x, oracle.data_value, oracle.u, margins[loop.current])


def _steps(oracle: Oracle, x: np.ndarray, z: np.ndarray) -> Iterator[Iterate]:
    """Proximal Newton steps over all columns of the oracle."""
    objective = oracle.objective
    d, z_new, hessians = objective.shape[1], oracle.new_margins(), _Hessians(oracle)
    x, f, g = hessians.start(x, z)
    H = hessians.here()
    F = oracle.value(x, f)
    if not math.isfinite(F):
        raise ValueError("the objective is infinite at the starting point; start elsewhere, or use "
                         "w0=None to start at the null model, or bounds nearer to zero.")
    offence = _offence(objective, g, x)

    def ahead() -> tuple[np.ndarray, float]:
        p = direction(objective, H, g, x, max(1e-3 * offence, 1e-15 * (objective.l1 + offence)),
                      float(np.finfo(oracle.real).eps))
        return p, objective.l1 * float(np.abs(x[:d] + p[:d]).sum() - np.abs(x[:d]).sum()) + dot(g, p)

    def iterate(resolved: bool) -> Iterate:
        it = Iterate(x, f, z, x, f, z, g, 1.0, resolved=resolved)
        # Where nothing is proven, what the model has left to gain is the estimate of the gap.
        return it if step is None else it._replace(decrement=max(-step[1] - 0.5 * _bend(H, step[0]), 0.0))

    step = None if objective.penalty.provable else ahead()
    oracle.spare = z_new
    try:
        yield iterate(True)
        while True:
            p, least = step or ahead()
            t, before = 1.0, offence
            while True:
                x_new = moved(objective, x, t * p)
                f_new, g_new = hessians.at(x_new, z_new)
                F_new, noise = oracle.value(x_new, f_new), oracle.rounding(f, z)
                resolved = -least * t > noise
                if F_new <= F + (ARMIJO * t * least if resolved else noise):
                    break
                if not resolved:  # values say nothing any more: stay
                    x_new, f_new, g_new, F_new = x, f, g, F
                    np.copyto(z_new, z)
                    break
                yield Iterate(x, f, z, x_new, f_new, z_new, g_new, 1.0, moved=False)
                t = _shorter(oracle, x, z, t * p, z_new, F, t * least) * t
            if x_new is not x:
                hessians.learn(z_new, resolved)
            x, f, g, F, z, z_new = x_new, f_new, g_new, F_new, z_new, z
            H, offence = hessians.here(), _offence(objective, g, x)
            hessians.judge(1.0 if t < 1 else offence / before if before else 0.0)
            oracle.spare = z_new
            step = None if objective.penalty.provable else ahead()
            yield iterate(resolved)
    finally:
        hessians.keep(x, z)


def _bend(H: np.ndarray, p: np.ndarray) -> float:
    return float(np.einsum("i,ij,j->", p, H, p))


def _offence(objective: Objective, g: np.ndarray, x: np.ndarray) -> float:
    d = objective.shape[1]
    largest = violation(g[:d], x[:d], objective.l1, objective.bounds).max(initial=0.0)
    return max(float(largest), float(np.abs(g[d:]).max(initial=0.0)))


def moved(objective: Objective, x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """x + p, on the bounds where they are meant: x_j + (u_j − x_j) may miss u_j by its rounding."""
    x_new = x + p
    if objective.bounds is not None:
        d = objective.shape[1]
        x_new[:d] = objective.bounds.snap(x_new[:d], x[:d])
    return x_new


def _shorter(oracle: Oracle, x, z, p, z_end, F: float, least: float) -> float:
    """A shorter step that lowers F enough, by halves, from the margins of both ends."""
    t, trial = 0.5, np.empty_like(z)
    while t > 1e-10:
        np.multiply(z_end - z, oracle.real.type(t), out=trial)
        trial += z
        point = x + t * p
        if oracle.value(point, oracle.smooth(point, trial)) <= F + ARMIJO * t * least:
            break
        t *= 0.5
    return t


def direction(objective: Objective, H, g, x, accuracy: float, eps: float = _EPS) -> np.ndarray:
    """To the minimiser of the model: the intercept eliminated, and found back at the end."""
    d, fit_intercept = objective.shape[1], objective.fit_intercept
    C, centre, pivot = eliminate(H, fit_intercept)
    head = g[:d] if centre is None else g[:d] - centre * g[d]
    # A ridge at the rounding of H: a direction that it shows as flat is not run along for ever.
    C = C.copy()
    C.reshape(-1)[:: d + 1] *= 1 + 64 * eps
    p = np.empty_like(g)
    p[:d] = minimise(C, head, x[:d], objective.l1, accuracy, objective.bounds) - x[:d]
    if centre is not None:
        p[d] = -g[d] / pivot - dot(centre, p[:d])
    return p


class _Hessians:
    """Value, gradient and Hessian in one pass, or with a Hessian of before, in a cheaper one.

    Of least squares there is but one Hessian. Else the last one may go on serving: after each step it
    is multiplied by what the mean curvature of the rows changed by, most of the change, and then made to
    agree with that of the gradient along the step (BFGS). A new one is taken where steps by it no longer
    pay: c gradients cost what it does, and a thousandth of the violation is to be left after them.
    """

    def __init__(self, oracle: Oracle) -> None:
        objective = oracle.objective
        self._oracle, self._kept = oracle, objective.kept
        self._penalised = objective.shape[1]
        self._cost = 1.0 + objective.p / _READS
        self._wanted = False
        self._one = objective.loss.name == "squared"
        self._matrices: dict[str, np.ndarray] = {}  # of the data term
        if self._one:
            self._matrices = objective.kept_hessian.setdefault(str(oracle.problem.compute), {})
        elif self._kept is not None:
            self._matrices = self._kept.hessian
        self._follows = not self._one and keeps_hessian(objective)
        self._mean = 0.0  # of the curvature, where the Hessian is of
        self._seen: tuple[np.ndarray, np.ndarray] | None = None  # the last step's end, and the gradient there
        self._taken: np.ndarray | None = None  # the last pass's own Hessian, where it took one
        self._row_curvature: np.ndarray | None = None

    def start(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """The point to start from, which is x but for the intercept, and what `at` gives there."""
        last = None if self._kept is None else self._kept.last
        d = self._penalised
        same = last is not None and last.z.dtype == z.dtype and np.array_equal(last.w[:d], x[:d])
        if same and self._matrices:
            self._oracle.resume(last)
            x = last.w
            f, g = self._oracle.start(x, z)
        else:
            f, g = self.at(x, z)
        if math.isfinite(f):
            self.learn(z, False)
        return x, f, g

    def at(self, x: np.ndarray, z: np.ndarray) -> tuple[float, np.ndarray]:
        """f and its gradient at x, whose margins are written. One pass."""
        oracle = self._oracle
        self._taken = None
        if self._matrices and not self._wanted and (self._one or self._follows):
            return oracle.gradient(x, z)
        f, g, self._taken = oracle.hessian(x, z)
        self._diagonal(self._taken)[...] -= oracle.objective.l2
        self._wanted = False
        return f, g

    def learn(self, z: np.ndarray, resolved: bool) -> None:
        """A step was taken to where the last pass was, with margins z: what it tells of the Hessian there."""
        oracle, H = self._oracle, self._matrices.get("H")
        if self._taken is not None:
            self._matrices["H"], self._taken = self._taken, None
        if not self._follows:
            return
        mean, seen = self._mean_curvature(z), self._seen
        if self._matrices["H"] is H and seen is not None and mean > 0 and self._mean > 0:
            H *= mean / self._mean
            change = oracle.u - seen[1]
            if resolved and np.isfinite(change).all():
                _core.secant_(H, oracle.w - seen[0], change)
        self._mean, self._seen = mean, (oracle.w, oracle.u)

    def _mean_curvature(self, z: np.ndarray) -> float:
        problem = self._oracle.problem
        self._row_curvature = problem.curvature_from_margins(z, self._row_curvature)
        return float(row_mean(self._row_curvature, self._oracle.objective.s))

    def judge(self, left: float) -> None:
        """Take a new Hessian in the next pass, if steps by this one leave too much of the violation."""
        if not self._one:
            self._wanted = left**self._cost > _LEFT

    def keep(self, x: np.ndarray, z: np.ndarray) -> None:
        """Leave the last pass, and its margins, to the next strength of a path."""
        if self._kept is not None and self._oracle.w is x:
            self._kept.last = Known(x, self._oracle.data_value, self._oracle.u, z)

    def here(self) -> np.ndarray:
        """The Hessian, or what stands for it, with the penalty's part."""
        H = self._matrices["H"].copy()
        self._diagonal(H)[...] += self._oracle.objective.l2
        return H

    def _diagonal(self, H: np.ndarray) -> np.ndarray:
        return H.reshape(-1)[: self._penalised * len(H) : len(H) + 1]


METHOD = Method("prox_newton", prox_newton, own_variables=True, second_order=True, patience=20,
                wide_beyond=ALL_COLUMNS)
