"""When to stop: relative suboptimality, proven where a proof exists (docs/maths.md, "When to stop").

`tol` is compared with gap/(F₀ − F(w)), F₀ the null model. A pass gives an estimate of the gap at no
cost; once that is small enough, a proof is attempted, in float64 arithmetic. `Judge` keeps the best
point, the highest proven lower bound of min F, and decides when an attempt is worth a pass.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from nagcore.objective import Objective
from nagcore.objective.duality import dot, infeasibility, penalty_gap
from nagcore.solvers.base import Iterate, Method, Oracle, Step

__all__ = ["ROUNDING", "Judge"]

ROUNDING = 4 * float(np.finfo(np.float64).eps)  # of F, in parts of the null model's
_FEASIBLE = 1 + 1e-12  # times l1: what is beyond has no finite gap at l2 = 0
_WINDOW = 30  # steps over which curvature is remembered, and gaps must improve


class Judge:
    """The state of one run that decides its end."""

    def __init__(self, objective: Objective, method: Method, tol: float) -> None:
        self.objective, self.averages, self.tol = objective, method.averages, tol
        self._patience = method.patience
        self.penalised = objective.penalty.provable
        self.null_value = math.nan
        self.best_w: np.ndarray | None = None
        self.best_x: np.ndarray | None = None  # the best point is best_w, or where that is None this
        self.best_value = math.inf
        self._stale = True        # best_value is not of the arithmetic in use
        self.lower = -math.inf      # a proven lower bound of min F
        self.estimate = math.nan    # of F(best) − min F, where nothing better is proven
        self.unresolved = 0       # steps in a row that the arithmetic could not judge
        self._demand, self._next_attempt = 1.0, 0.0
        self._short = False       # passes read a few columns, and only proofs read all
        self._slopes: deque[float] = deque(maxlen=_WINDOW)
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._start: np.ndarray | None = None
        self._record = (math.inf, 0)

    # What is known ------------------------------------------------------------------------------

    @property
    def gap(self) -> float:
        """F(best) − min F: a bound if proven, else an estimate, else NaN."""
        if self.kind == "certificate":
            return max(self.best_value - self.lower, 0.0)
        return self.estimate

    @property
    def kind(self) -> str:
        if self.lower > -math.inf and self.best_value < math.inf:
            return "certificate"
        return "none" if math.isnan(self.estimate) else "estimate"

    @property
    def target(self) -> float:
        """The gap to reach; not below the rounding of F, so that 0/0 is converged."""
        gained = max(self.null_value - self.best_value, 0.0)
        return max(self.tol * gained, self.floor)

    @property
    def floor(self) -> float:
        """The rounding of F."""
        return ROUNDING * abs(self.null_value)

    def start(self, w0: np.ndarray | None) -> None:
        """Know the null model's value, and take w0, if that is given, as what is best so far."""
        self.null_value = self.objective.null_value
        self.best_w = w0

    def widen(self) -> None:
        """Distrust the narrow arithmetic's values: float64 has its own null model and best point."""
        self.null_value = self.objective._null_parts(self.objective.wide)[0]
        self._stale, self._record = True, (math.inf, 0)

    def shorten(self) -> None:
        """Passes have become short: steps say more of when to try a proof than passes do."""
        self._short, self._next_attempt, self._demand = True, 0.0, 1.0

    def renew(self) -> None:
        """Forget what was seen in other variables."""
        self.unresolved, self._last, self._start = 0, None, None
        self._slopes.clear()

    # What a pass tells --------------------------------------------------------------------------

    def look(self, it: Iterate, oracle: Oracle, exact: bool) -> float:
        """Take in one iterate at no pass; return F there. `exact` says that the arithmetic is float64."""
        known = not math.isnan(it.value)
        value = it.value if known else oracle.value(it.x, it.f)
        self.unresolved = 0 if it.resolved else self.unresolved + 1
        if value < self.best_value or self._stale:
            self.best_value, self.best_x, self.best_w = value, it.x, None
            self._stale = False
        value_y = value if known else it.fy
        if self.objective.l1 and not known:
            # y may lie out of bounds, and F(y) − bound is the dual value all the same.
            value_y += self.objective.l1 * float(np.abs(oracle.w[: self.objective.shape[1]]).sum())
        if self.penalised:
            if math.isnan(it.bound):
                bound, free = self._penalised_gap(oracle)
            else:
                bound, free = it.bound, it.bound if math.isnan(it.free) else it.free
            if exact and it.proven and not self.objective.fit_intercept and oracle.dropped is None:
                self.lower = max(self.lower, value_y - bound)
        else:
            free = it.decrement if it.decrement >= 0 else self._curvature_gap(it, oracle)
        # F(y) − free is about min F; where that contradicts the best value, y was far off.
        ahead = self.best_value - value_y
        self.estimate = free + ahead if self.penalised and free + ahead > 0 else free + max(ahead, 0)
        return value

    def pass_by(self, steps: Sequence[Step], last: np.ndarray | None, exact: bool) -> list[float]:
        """Take in steps that lowered F, the last of them to `last`; return the gap that each left known."""
        gaps, lower, proven = [], self.lower, exact and self.penalised and not self.objective.fit_intercept
        for f, gap, bound, _, _ in steps:
            if proven:
                lower = max(lower, f - bound)
            gaps.append(max(f - lower, 0.0) if lower > -math.inf else gap)
        self.unresolved, self._stale, self.lower = 0, False, lower
        self.best_value, self.best_x, self.best_w = f, last, None
        self.estimate = gap
        return gaps

    def _penalised_gap(self, oracle: Oracle) -> tuple[float, float]:
        """The duality gap at y: as a bound (infinite at l2 = 0) and as an estimate.

        With an intercept its part in the gradient is taken as solved, so both are estimates. The
        second shrinks the residuals into ‖u‖_∞ ≤ l1 at a cost that is exact for squares only.
        """
        d, penalty = self.objective.shape[1], self.objective.penalty
        w, u = oracle.w[:d], oracle.coordinates.centred(oracle.u)
        largest = infeasibility(u, penalty) if penalty.l1 else 0.0
        bound = penalty_gap(w, u, penalty) if penalty.l2 or largest <= penalty.l1 * _FEASIBLE else math.inf
        if largest <= penalty.l1:
            return bound, bound
        scale = penalty.l1 / largest
        shrunk = (1 - scale) ** 2 * abs(oracle.data_value)
        return bound, min(bound, penalty_gap(w, scale * u, penalty) + shrunk)

    def _curvature_gap(self, it: Iterate, oracle: Oracle) -> float:
        """‖∇f‖²/(2μ), μ the least curvature of late steps: an estimate, not a bound.

        Steps turn to the directions of least curvature, which hold what is left of the gap. Where
        those do not show, ‖∇f‖·(distance travelled) says more.
        """
        g = it.g
        if self.objective.bounds is not None:  # what a step changes: zero at the solution, where ∇f is not
            g = it.L * (it.y - oracle.prox(it.y - it.g / it.L, 1 / it.L))
        slope = dot(g, g)
        if self._start is None:
            self._start = it.y
        if self._last is not None:
            step, change = it.y - self._last[0], it.g - self._last[1]
            size = dot(step, step)
            curvature = dot(step, change) / size if size else math.nan
            if curvature > 0:
                self._slopes.append(curvature)
        self._last = it.y, it.g
        if not self._slopes:
            return slope if slope == 0 else math.nan
        travelled = it.y - self._start
        by_distance = math.sqrt(slope * dot(travelled, travelled))
        by_curvature = slope / (2 * min(self._slopes))
        return min(by_curvature, by_distance) if by_distance > 0 else by_curvature

    # Decisions ----------------------------------------------------------------------------------

    def reached(self) -> bool:
        """Whether the gap, as far as it is known, is within the target."""
        return self.gap <= self.target

    def promising(self) -> bool:
        """Whether the estimate is within the target."""
        return self.estimate <= self.target

    def worth_proving(self, n_passes: float) -> bool:
        """Whether a proof, which may cost passes, is likely enough to succeed."""
        if n_passes < self._next_attempt:
            return False
        return self.estimate <= self._demand * self.target or (
            self.promising() and n_passes >= 2 * self._next_attempt)

    def stalled(self, n_iter: int) -> bool:
        """Whether the arithmetic can tell steps no longer and the gap has stopped shrinking."""
        if self.estimate < 0.9 * self._record[0]:
            self._record = (self.estimate, n_iter)
        still = n_iter - self._record[1]
        return self.unresolved > min(_WINDOW, self._patience) and still > max(self._patience, n_iter // 2)

    def prove(self, oracle: Oracle, it: Iterate, n_passes: float) -> None:
        """Try to prove the gap at an iterate; `oracle` is in float64.

        It costs one pass with an intercept and none without, and one more for an averaged iterate
        under l1, which is replaced by the prox step from it: that has the exact zeros.
        """
        objective, problem = self.objective, oracle.problem
        x, known = it.x, {"z": it.z}
        if self.averages and not objective.penalty.smooth:
            x = oracle.prox(it.y - it.g / it.L, 1 / it.L)
            known = {"z": problem.margins(oracle.coordinates.to_w(x))}
            value = oracle.value(x, oracle.smooth(x, known["z"]))
            if value - self.best_value <= 0.5 * self.target:
                self.best_value, self.best_x, self.best_w = value, x, None
        if objective.bounds is not None and not objective.fit_intercept:
            # y may lie out of bounds.
            certificate = objective.certify(objective.clipped(oracle.coordinates.to_w(x)))
        elif oracle.dropped is not None and not objective.fit_intercept:
            certificate = objective.certify(oracle.w)  # the proof is of all columns
        elif objective.fit_intercept:
            w = objective.clipped(oracle.coordinates.to_w(oracle.settled(x)))
            certificate = objective.certify(w, **known, spare=oracle.spare)
        else:
            known = {"z": it.zy, "u": oracle.u}
            if objective.l1:
                known["r"] = np.empty_like(it.zy)
                problem.loss_from_margins(it.zy, known["r"])
            certificate = objective.certify(oracle.w, **known)
        self.accept(certificate, n_passes)

    def accept(self, certificate, n_passes: float) -> None:
        """Take in a certificate: its bound, and its point if that is the best so far."""
        self.lower = max(self.lower, certificate.value - certificate.gap)
        if certificate.value <= self.best_value or self._stale:
            self.best_value, self.best_w = certificate.value, certificate.w
            self._stale = False
        self._demand = min(1.0, 0.5 * self.estimate / self.target) if self.target else 1.0
        # Methods of few steps gain digits with each; others should not spend a pass in five on proofs.
        wait = 4 if self._patience > _WINDOW else 1
        self._next_attempt = n_passes + (0 if self._short else wait + n_passes // 20)
