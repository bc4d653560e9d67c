"""The registry of solvers and `minimize`, which drives one until its gap is small enough.

>>> names()
('fista', 'acfgm', 'cg', 'newton', 'newton_cg', 'normal', 'plbfgs', 'pnag', 'prox_newton', 'row_lbfgs')
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nagcore.callbacks import State
from nagcore.callbacks.state import in_use
from nagcore.objective import Objective, check_w
from nagcore.objective.storage import check_storage
from nagcore.solvers import acfgm, cg, fista, newton, newton_cg, normal, plbfgs, pnag, proxnewton, rowlbfgs
from nagcore.solvers.at_once import at_once
from nagcore.solvers.auto import choose
from nagcore.solvers.base import Method, Result
from nagcore.solvers.driver import Run
from nagcore.solvers.paths import Path, largest_strength, path

__all__ = ["Method", "Path", "Result", "get", "largest_strength", "minimize", "names", "path"]

_MODULES = (fista, acfgm, cg, newton, newton_cg, normal, plbfgs, pnag, proxnewton, rowlbfgs)
_REGISTRY = {module.METHOD.name: module.METHOD for module in _MODULES}


def names() -> tuple[str, ...]:
    """Return the names of the registered solvers.

    Examples
    --------
    >>> names()
    ('fista', 'acfgm', 'cg', 'newton', 'newton_cg', 'normal', 'plbfgs', 'pnag', 'prox_newton', 'row_lbfgs')
    """
    return tuple(_REGISTRY)


def get(solver: str, objective: Objective) -> Method:
    """Return the solver of that name if the objective has what it needs ("auto" always has one).

    Raises
    ------
    ValueError
        Unknown name (the message lists the choices), or an objective that the solver cannot take
        (the message names both sides and the solver that can).

    Examples
    --------
    >>> import numpy as np
    >>> import nagcore
    >>> get("auto", nagcore.Objective(np.eye(3), np.ones(3), loss="squared", l1=0.1)).name
    'prox_newton'
    """
    if solver == "auto":
        solver, _ = choose(objective)
    if solver not in _REGISTRY:
        raise ValueError(f'solver is "{solver}"; nagcore has "auto", '
                         + ", ".join(f'"{name}"' for name in _REGISTRY) + ".")
    _REGISTRY[solver].check(objective)
    return _REGISTRY[solver]


def _check_limits(tol: Any, max_passes: Any, max_seconds: Any) -> None:
    if not ((type(tol) is float or isinstance(tol, numbers.Real)) and float(tol) >= 0):
        raise ValueError(f"tol is {tol}; nagcore takes a number ≥ 0, the relative suboptimality to "
                         "reach. Use tol=1e-6.")
    if not ((max_passes == math.inf or isinstance(max_passes, numbers.Integral)) and max_passes >= 1):
        raise ValueError(f"max_passes is {max_passes}; nagcore takes a whole number ≥ 1. "
                         "Use max_passes=1000.")
    if max_seconds is not None and not (isinstance(max_seconds, numbers.Real) and float(max_seconds) > 0):
        raise ValueError(f"max_seconds is {max_seconds}; nagcore takes a positive number, or None "
                         "for no limit. Use max_seconds=None.")


def minimize(
    objective: Objective,
    w0: Any = None,
    *,
    solver: str = "auto",
    tol: float = 1e-6,
    max_passes: int = 1000,
    max_seconds: float | None = None,
    seed: int = 0,
    storage: str | None = None,
    callbacks: Iterable[Callable[[State], Any]] = (),
) -> Result:
    """Minimise F(w, b) = (1/S) Σ s_i φ(z_i, y_i) + (l2/2)‖w‖² + l1‖w‖₁ to a relative suboptimality.

    Stops when gap ≤ tol·(F₀ − F(w)), where F₀ is the null model and gap bounds F(w) − min F. With a
    penalty, or bounds that are all finite, gap is a duality gap, computed in float64; without it is
    an estimate, and `gap_kind` says so. w stays within the objective's bounds.

    Parameters
    ----------
    objective : nagcore.Objective
    w0 : array of shape (p,) or (p, k), optional
        Where to start; by default at the null model.
    solver : str
        "auto", "fista", "acfgm", "cg", "newton", "newton_cg", "normal", "plbfgs", "pnag", "prox_newton"
        or "row_lbfgs".
        "auto" chooses, and the result says which and why. Smooth objectives: "newton" (Hessians),
        "normal" (least squares, exact), "cg" (least squares), "row_lbfgs" and "newton_cg" (sparse data with
        more columns than rows), "plbfgs" and "pnag" (L-BFGS and Nesterov in a sampled
        metric). With l1: "prox_newton" (Hessians of a working set). "fista" takes every loss and
        penalty; "acfgm" searches no step length, and needs a loss of bounded curvature.
    tol : float
        Relative suboptimality to reach.
    max_passes : int
        Passes over X, all counted; m sampled rows count as m/n of one. The last ones are kept for
        the proof of the gap.
    max_seconds : float, optional
        Wall-clock limit, looked at after each pass.
    seed : int
        Which rows are sampled to scale the columns.
    storage : {None, "float32", "bfloat16", "uint8"}
        A narrower copy of a float64 X to carry all passes but the last, which run on X itself, in
        float64, as the proof of the gap does. It takes a half, a quarter, an eighth of X's memory
        and, in passes, 1.5, 1.25, 1.125 to make; a pass over it counts as a half, a quarter, an
        eighth. uint8 is taken only where it holds X exactly, up to origin and unit. Where there
        can be no such copy, or it cannot pay, the run goes on without, and `why` says so.
        `Objective.narrowed` makes the copy once for many runs. docs/solvers.md has measurements.
    callbacks : sequence of callables
        Called with a `nagcore.callbacks.State` after each iteration; returning True stops the run.
        One with a method `finish(state)` is told once where the run has ended, however it did.

    Returns
    -------
    Result
        `w, coef, intercept, value, gap, gap_kind, n_passes, n_iter, converged, message, history,
        solver, why`.
        On Ctrl-C it holds the best point so far, with message "interrupted".

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
    result = run(objective, w0, solver=solver, tol=tol, max_passes=max_passes,
                 max_seconds=max_seconds, seed=seed, storage=storage, callbacks=callbacks)
    if result.separated:
        warnings.warn(
            "w separates the classes: without a penalty F has no minimum, and w would grow without "
            "end. What is returned is finite and right on every row. Use l2=1e-6, or more.",
            RuntimeWarning, stacklevel=2,
        )
    return result


def run(
    objective: Objective,
    w0: Any = None,
    *,
    solver: str = "auto",
    tol: float = 1e-6,
    max_passes: float = 1000,
    max_seconds: float | None = None,
    seed: int = 0,
    storage: str | None = None,
    callbacks: Iterable[Callable[[State], Any]] = (),
    max_iter: float = math.inf,
) -> Result:
    """`minimize` with a limit on iterations, which is what scikit-learn's `max_iter` counts."""
    if not isinstance(objective, Objective):
        raise TypeError(f"objective is {type(objective).__name__}; minimize takes a "
                        'nagcore.Objective. Use nagcore.Objective(X, y, loss="logistic").')
    solver, why = choose(objective) if solver == "auto" else (solver, "asked for")
    method = get(solver, objective)
    _check_limits(tol, max_passes, max_seconds)
    check_storage(storage)
    if w0 is not None:
        w0 = np.array(check_w(w0, objective.problem, "w0"), np.float64, order="C")
        w0 = objective.clipped(w0)
    watchers = (*callbacks, *in_use())
    short = (solver in ("newton", "prox_newton") and w0 is None and max_seconds is None and storage is None
             and not watchers)
    try:
        found = at_once(objective, tol, max_passes, max_iter, solver, why) if short else None
        interrupted = False
    except KeyboardInterrupt:
        found, interrupted = None, True
    if found is not None:
        return found
    this = Run(objective, method, tol=tol, max_passes=max_passes, max_iter=max_iter,
               max_seconds=max_seconds, callbacks=watchers, storage=storage)
    try:
        if interrupted:
            raise KeyboardInterrupt
        this.go(w0, seed)
    except KeyboardInterrupt:
        this.message = "interrupted"
    finally:
        this.finish()
    result = this.result(why)
    this.release()
    return result
