"""The regularisation path: one objective under falling strengths, each solved from the last solution.

Strengths run from the least that leaves all coefficients zero, λ_max = max_j |∂F/∂w_j| at the null
model, down to a fraction of it, evenly in their logarithm. X is checked once, the Gram matrix of
least squares is made once, and the working set of one strength is nearly that of the next.

Source: Friedman, Hastie & Tibshirani 2010.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from nagcore.objective import Objective
from nagcore.solvers.base import Result
from nagcore.solvers.grampath import GramPath
from nagcore.solvers.workingset import Kept

__all__ = ["Path", "largest_strength", "path", "shared"]

_LEAST_RATIO = 1e-3  # of l1 in the penalty, for λ_max of what is nearly ridge


@dataclass(eq=False)
class Path:
    """What `path` found, from the strongest penalty to the weakest.

    Attributes
    ----------
    strengths : ndarray of shape (m,)
        λ: l1 = l1_ratio·λ and l2 = (1 − l1_ratio)·λ.
    coefs : ndarray of shape (d, m), or (d, k, m)
    intercepts : ndarray of shape (m,), or (k, m)
    gaps : ndarray of shape (m,)
        Proven bounds (or estimates, see `results`) of what is left to gain.
    results : list of Result
    n_passes : int or float
        Passes over X of the whole path.

    Examples
    --------
    >>> import numpy as np
    >>> import nagcore
    >>> objective = nagcore.Objective(np.eye(3), np.arange(3.0), loss="squared")
    >>> nagcore.solvers.path(objective, n_strengths=5).coefs.shape
    (3, 5)
    """

    strengths: np.ndarray
    coefs: np.ndarray
    intercepts: np.ndarray
    gaps: np.ndarray
    results: list[Result]
    n_passes: float


def largest_strength(objective: Objective, l1_ratio: float = 1.0) -> float:
    """λ_max: the least strength that leaves all coefficients zero. One pass.

    >>> import numpy as np
    >>> import nagcore
    >>> objective = nagcore.Objective(np.eye(2), np.array([0.0, 2.0]), loss="squared")
    >>> largest_strength(objective)
    0.5
    """
    if objective.bounds is not None and not objective.bounds.has_zero:
        raise ValueError("w = 0 is out of bounds, so that no strength leaves all coefficients zero. Use "
                         "strengths=, a list of them, or bounds with lower ≤ 0 ≤ upper.")
    problem = objective.wide or objective.problem  # a narrow sum may fall short of what is proven zero
    _, w = objective.null_model(problem)
    _, grad = problem.value_and_grad(w)
    head = grad[: objective.shape[1]]
    largest = float(np.max(objective.penalty.reach(head)))
    return max(largest, 0.0) / max(l1_ratio, _LEAST_RATIO)


def shared(objective: Objective) -> Objective:
    """The same objective, whose `with_penalty` leave to each other what they found.

    Columns copied, the last pass, a Hessian: they go when the objective does.

    >>> import numpy as np
    >>> import nagcore
    >>> base = shared(nagcore.Objective(np.eye(3), np.arange(3.0), loss="squared"))
    >>> base.with_penalty(0.0, 0.1).kept is base.with_penalty(0.0, 0.2).kept
    True
    """
    base = objective.with_penalty(l2=objective.l2, l1=objective.l1)
    base.kept = Kept()
    return base


def _checked(strengths: Any, n_strengths: Any, eps: Any, l1_ratio: Any) -> np.ndarray | None:
    for name, number, what in (("l1_ratio", l1_ratio, "from 0 to 1"), ("eps", eps, "between 0 and 1")):
        if not (isinstance(number, numbers.Real) and 0 <= float(number) <= 1):
            raise ValueError(f"{name} is {number}; nagcore takes a number {what}. Use {name}="
                             f"{1.0 if name == 'l1_ratio' else 1e-3}.")
    if not (isinstance(n_strengths, numbers.Integral) and int(n_strengths) >= 1):
        raise ValueError(f"n_strengths is {n_strengths}; nagcore takes a whole number ≥ 1. "
                         "Use n_strengths=100.")
    if strengths is None:
        return None
    strengths = np.asarray(strengths, np.float64)
    if strengths.ndim != 1 or not strengths.size or not (np.isfinite(strengths) & (strengths >= 0)).all():
        raise ValueError("strengths must be a list of finite numbers ≥ 0, at least one. "
                         "Use strengths=None for a grid from λ_max down.")
    return np.sort(strengths)[::-1]


def path(
    objective: Objective,
    *,
    l1_ratio: float = 1.0,
    strengths: Any = None,
    n_strengths: int = 100,
    eps: float = 1e-3,
    **how: Any,
) -> Path:
    """Minimise F under each strength λ of l1 = l1_ratio·λ, l2 = (1 − l1_ratio)·λ, strongest first.

    Parameters
    ----------
    objective : nagcore.Objective
        Its own l1 and l2 are not used.
    l1_ratio : float
        Share of l1, from 0 to 1.
    strengths : array of shape (m,), optional
        λ; by default `n_strengths` of them from λ_max to eps·λ_max.
    n_strengths : int
    eps : float
    **how
        As in `nagcore.minimize`: solver, tol, max_passes, max_seconds, seed, callbacks; for each
        strength.

    Returns
    -------
    Path
        On Ctrl-C it ends with the strength that was being solved.

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came, what is accepted and the call that fixes it.

    Source: docs/solvers.md, "The path".

    Examples
    --------
    >>> import numpy as np
    >>> import nagcore
    >>> X = np.random.default_rng(0).normal(size=(50, 4))
    >>> found = path(nagcore.Objective(X, X[:, 0], loss="squared"), n_strengths=3)
    >>> found.coefs[:, 0].any(), found.coefs[0, -1].round(2)
    (np.False_, np.float64(1.0))
    """
    from nagcore.solvers import minimize

    if not isinstance(objective, Objective):
        raise TypeError(f"objective is {type(objective).__name__}; path takes a nagcore.Objective. "
                        'Use nagcore.Objective(X, y, loss="squared").')
    given, before = _checked(strengths, n_strengths, eps, l1_ratio), objective.n_passes
    if given is None:
        largest = largest_strength(objective, l1_ratio)
        given = largest * np.geomspace(1.0, max(eps, 1e-12), n_strengths)
    results: list[Result] = []
    w = None
    base = shared(objective)
    moments = GramPath(base) if GramPath.applies(base, l1_ratio, how) else None
    for strength in given:
        each = base.with_penalty(l2=(1 - l1_ratio) * float(strength), l1=l1_ratio * float(strength))
        found = None if moments is None else moments.solve(each, w, how.get("tol", 1e-6))
        results.append(minimize(each, w, **how) if found is None else found)
        w = results[-1].w
        if results[-1].message == "interrupted":
            break
    return Path(
        given[: len(results)],
        np.stack([r.coef for r in results], axis=-1),
        np.stack([np.asarray(r.intercept) for r in results], axis=-1),
        np.array([r.gap for r in results]),
        results,
        round(objective.n_passes - before, 3),
    )
