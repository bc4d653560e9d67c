"""‖∇F‖ of a pass, for the callbacks of a run: from what the pass left behind, without another one."""

from __future__ import annotations

from typing import Any

import numpy as np

from nagcore.objective import Objective

__all__ = ["gradient_norm"]


def gradient_norm(objective: Objective, w: np.ndarray, u: np.ndarray, dropped: Any = None) -> float:
    """The norm of the least subgradient of F at w, whose data part has the gradient u; 0 at a minimum.

    With l1 > 0 that is u_j + l2·w_j + l1·sign(w_j) where w_j ≠ 0, and u_j moved towards zero by l1 where
    w_j = 0; under w ≥ 0 only what lies below zero counts where w_j ≤ 0. The intercept has no penalty.

    Parameters
    ----------
    objective : Objective
    w, u : ndarray of shape (p,) or (p, k)
    dropped : index of columns, optional
        Features that are proven zero in the solution, and which u leaves out.

    >>> objective = Objective(np.eye(2), np.ones(2), loss="squared", l2=0.5)
    >>> gradient_norm(objective, np.array([1.0, 0.0]), np.array([0.5, 2.0]))
    2.23606797749979
    """
    d, l1 = objective.shape[1], objective.l1
    g = np.array(u, np.float64)
    head, wd = g[:d], w[:d]
    head += objective.l2 * wd
    if objective.positive:
        head += l1
        head[(wd <= 0) & (head > 0)] = 0.0
    elif l1:
        still = np.sign(head) * np.maximum(np.abs(head) - l1, 0.0)
        head[...] = np.where(wd != 0, head + l1 * np.sign(wd), still)
    if dropped is not None:
        head[dropped] = 0.0
    return float(np.linalg.norm(g))
