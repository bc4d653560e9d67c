"""Least squares under many l1 strengths from one pass: the Gram matrix says all that the path needs.

With f₀, u₀ and H = (1/S) X̃ᵀsX̃ at the null model w₀, any w = w₀ + δ has

    f(w) = f₀ + ⟨u₀, δ⟩ + ½⟨δ, Hδ⟩,   ∇f(w) = u₀ + Hδ,

so values, gradients and duality gaps take p² operations and no look at X. What the cancellation in these
sums can hide is added to the gap; where that is more than `tol` allows, a strength is solved by passes.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from nagcore.callbacks import History
from nagcore.objective import Objective
from nagcore.objective.duality import dot, infeasibility, penalty_gap
from nagcore.solvers.base import Result
from nagcore.solvers.proxnewton import columns_together, direction, moved
from nagcore.solvers.quadratic_l1 import violation

__all__ = ["GramPath"]

_STEPS = 8
_EPS = float(np.finfo(np.float64).eps)
WHY = "least squares: the Gram matrix of one pass serves all strengths"


class GramPath:
    """The moments of one objective, in float64, and minima from them.

    Parameters
    ----------
    objective : Objective
        As `applies` wants it. One pass.
    """

    def __init__(self, objective: Objective) -> None:
        problem, self._d = objective.wide, objective.shape[1]
        self._w0 = objective.null_model(problem)[1]
        self._f0, self._u0, self._H = problem.hessian(self._w0)
        self._sizes = np.abs(self._H)
        objective.kept_hessian.setdefault("float64", {})["H"] = self._H  # for strengths left to passes

    @staticmethod
    def applies(objective: Objective, l1_ratio: float, how: dict[str, Any]) -> bool:
        """Whether the objective and what is asked for can be served so."""
        wide = objective.wide
        few = objective.shape[1] <= columns_together(objective) and objective.loss.name == "squared"
        plain = set(how) <= {"tol", "solver", "max_passes", "seed"}
        asked = how.get("solver", "auto") in ("auto", "prox_newton")
        sparse = l1_ratio > 0 or objective.bounds is not None
        return few and plain and asked and sparse and wide is not None and wide.second_order

    def solve(self, objective: Objective, w: np.ndarray | None, tol: float) -> Result | None:
        """The minimum under the objective's penalty, from w; None where rounding hides whether it is."""
        begun, d = time.perf_counter(), objective.shape[1]
        penalty, H = objective.penalty, self._H.copy()
        null_value = objective.null_model(objective.wide)[0]
        H.reshape(-1)[: d * len(H) : len(H) + 1] += penalty.l2
        w = (self._w0 if w is None else w).copy()
        step = 0
        while step < _STEPS:
            step += 1
            value, u = self._at(w)
            if objective.fit_intercept and u[d]:  # the dual point's residuals must sum to zero
                w[d] -= u[d] / self._H[d, d]
                value, u = self._at(w)
            g = u.copy()
            g[:d] += penalty.l2 * w[:d]
            gap = self._gap(w, value, u, penalty)
            value += objective.penalty_value(w[:d])
            target = tol * max(null_value - value, 0.0)
            if gap <= target:
                break
            wrong = float(violation(g[:d], w[:d], penalty.l1, penalty.bounds).max(initial=0.0))
            accuracy = max(min(1e-3 * wrong, 0.1 * target / max(float(np.abs(w[:d]).sum()), 1e-300)),
                           1e-15 * (penalty.l1 + wrong))
            w = moved(objective, w, direction(objective, H, g, w, accuracy))
        else:
            return None
        return Result(
            w=w, coef=w[:d], intercept=float(w[d]) if objective.fit_intercept else 0.0, value=value,
            gap=gap, gap_kind="certificate", n_passes=0, n_iter=step, converged=True,
            message="converged", history=History(), solver="prox_newton", why=WHY,
            null_value=null_value, seconds=time.perf_counter() - begun,
        )

    def _at(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        delta = w - self._w0
        bend = np.einsum("ij,j->i", self._H, delta)
        return self._f0 + dot(self._u0, delta) + 0.5 * dot(delta, bend), self._u0 + bend

    def _gap(self, w: np.ndarray, value: float, u: np.ndarray, penalty: Any) -> float:
        """The duality gap at w's residuals, or at the multiple of them that is feasible, and its rounding."""
        d, delta = self._d, np.abs(w - self._w0)
        rounding = abs(self._f0) + dot(np.abs(self._u0), delta)
        rounding += dot(delta, np.einsum("ij,j->i", self._sizes, delta))
        rounding += penalty.l1 * float(np.abs(w[:d]).sum())
        wd, ud = w[:d], u[:d]
        gap, largest = penalty_gap(wd, ud, penalty), infeasibility(ud, penalty)
        if penalty.l1 and largest > penalty.l1:
            scale = penalty.l1 / largest
            gap = min(gap, penalty_gap(wd, scale * ud, penalty) + (1 - scale) ** 2 * max(value, 0.0))
        return gap + 16 * _EPS * rounding
