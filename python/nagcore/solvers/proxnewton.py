"""Proximal Newton on a working set of columns, for l1, elastic net and w ≥ 0.

A pass over all columns gives the gradient, hence how far each coefficient is from its optimality
condition. The working set is the support and the worst offenders; on its columns, copied, each step
minimises the quadratic model plus l1 (`quadratic_l1`), and a line search on margins guards it:

    δ = argmin ⟨∇f, δ⟩ + ½⟨δ, ∇²f δ⟩ + l1‖w + δ‖₁,   w⁺ = w + t·δ

Then the next pass over all columns looks for new offenders. With few columns the set is all of them
and every pass gives gradient and Hessian. For least squares the Hessian is computed once.

Source: Lee, Sun & Saunders 2014 (proximal Newton); Massias, Gramfort & Salmon 2018 (working sets).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nagcore.objective import Objective
from nagcore.objective.duality import dot
from nagcore.solvers.base import Iterate, Method, Oracle
from nagcore.solvers.coordinates import OwnCoordinates
from nagcore.solvers.dense import eliminate
from nagcore.solvers.linesearch import ARMIJO
from nagcore.solvers.quadratic_l1 import minimise, violation

__all__ = ["METHOD", "prox_newton"]

ALL_COLUMNS = 512   # up to here the set is all of them
_FIRST_SET = 64
_INNER = 8          # steps on a working set between two looks at all columns
_EASIER = 0.1       # how much smaller the offences in the set are to become meanwhile


def prox_newton(oracle: Oracle, x: np.ndarray, L: float = 1.0) -> Iterator[Iterate]:
    """Yield one iterate per pass over all columns. L is not used."""
    objective, d = oracle.objective, oracle.objective.shape[1]
    z = oracle.new_margins()
    if d <= ALL_COLUMNS or not objective.divisible:
        yield from _steps(oracle, x, z, 0.0)
        return
    size = _FIRST_SET
    f, g = oracle.start(x, z)
    while True:
        yield Iterate(x, f, z, x, f, z, g, L)
        offence = violation(g[:d], x[:d], objective.l1, objective.positive)
        goal = _EASIER * float(offence.max())
        support = np.flatnonzero(x[:d])
        size = min(d, max(size, 2 * len(support)))
        offence[support] = np.inf
        worst = np.sort(np.argpartition(-offence, size - 1)[:size])
        chosen = worst[offence[worst] > 0]
        part = objective.restrict(chosen)
        objective.reads.rows += len(chosen) * objective.shape[0] // d
        columns = np.append(chosen, d) if objective.fit_intercept else chosen
        narrow = oracle.problem.compute != np.float64
        inner = Oracle(part, OwnCoordinates(part), part.problem if narrow else part.wide)
        last = x[columns]
        for count, it in enumerate(_steps(inner, last, inner.new_margins(), goal)):
            if it.moved:
                last = it.x
            if count == _INNER:
                break
        objective.reads.rows += int(part.n_passes * len(chosen) * objective.shape[0]) // d
        x = x.copy()
        x[columns] = last
        f, g = oracle.gradient(x, z)


def _steps(oracle: Oracle, x: np.ndarray, z: np.ndarray, goal: float) -> Iterator[Iterate]:
    """Proximal Newton steps over all columns of the oracle, until none offends by more than `goal`."""
    objective = oracle.objective
    d, z_new, known = objective.shape[1], oracle.new_margins(), _Hessian(oracle)
    f, g, H = known.at(x, z)
    F = oracle.value(x, f)
    yield Iterate(x, f, z, x, f, z, g, 1.0)
    while True:
        offence = float(violation(g[:d], x[:d], objective.l1, objective.positive).max(initial=0.0))
        if goal and offence <= goal:
            return
        p = _direction(objective, H, g, x, max(1e-3 * offence, 1e-15 * (objective.l1 + offence)))
        least = objective.l1 * float(np.abs(x[:d] + p[:d]).sum() - np.abs(x[:d]).sum()) + dot(g, p)
        t = 1.0
        while True:
            x_new = x + t * p
            f_new, g_new, H_new = known.at(x_new, z_new)
            F_new, noise = oracle.value(x_new, f_new), oracle.rounding(f, z)
            resolved = -least * t > noise
            if F_new <= F + (ARMIJO * t * least if resolved else noise):
                break
            if not resolved:  # values say nothing any more: stay
                x_new, f_new, g_new, H_new, F_new = x, f, g, H, F
                np.copyto(z_new, z)
                break
            yield Iterate(x, f, z, x_new, f_new, z_new, g_new, 1.0, moved=False)
            t = _shorter(oracle, x, z, t * p, z_new, F, t * least) * t
        x, f, g, H, F, z, z_new = x_new, f_new, g_new, H_new, F_new, z_new, z
        yield Iterate(x, f, z, x, f, z, g, 1.0, resolved=resolved)


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


def _direction(objective: Objective, H, g, x, accuracy: float) -> np.ndarray:
    """The minimiser of the model: the intercept eliminated, and found back at the end."""
    d, fit_intercept = objective.shape[1], objective.fit_intercept
    C, centre, pivot = eliminate(H, fit_intercept)
    head = g[:d] if centre is None else g[:d] - centre * g[d]
    # A ridge at the rounding of H: a direction that it shows as flat is not run along for ever.
    C = C.copy()
    C.reshape(-1)[:: d + 1] *= 1 + 64 * float(np.finfo(objective.problem.compute).eps)
    p = np.empty_like(g)
    p[:d] = minimise(C, head, x[:d], objective.l1, accuracy, objective.positive) - x[:d]
    if centre is not None:
        p[d] = -g[d] / pivot - dot(centre, p[:d])
    return p


class _Hessian:
    """Value, gradient and Hessian in one pass; of least squares the Hessian is computed only once."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._constant: Any = None
        if oracle.objective.loss.name == "squared":
            self._constant = oracle.objective.kept_hessian.setdefault(str(oracle.problem.compute), {})

    def at(self, x: np.ndarray, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        oracle, l2 = self._oracle, self._oracle.objective.l2
        if self._constant is not None and "H" in self._constant:
            f, g = oracle.gradient(x, z)
            H = self._constant["H"].copy()
            H[np.diag_indices(len(H) - oracle.objective.fit_intercept)] += l2
            return f, g, H
        f, g, H = oracle.hessian(x, z)
        if self._constant is not None:
            self._constant["H"] = H.copy()
            self._constant["H"][np.diag_indices(len(H) - oracle.objective.fit_intercept)] -= l2
        return f, g, H


METHOD = Method("prox_newton", prox_newton, own_variables=True, second_order=True, patience=20)
