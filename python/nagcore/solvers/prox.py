"""The prox of l1 in the solvers' variables: soft thresholding, and its form for classes.

Margins that shift alike for every class leave softmax as it is, so along that direction of each
feature's k coefficients only the penalty acts, and steps as long as the loss allows would crawl.
That direction is therefore minimised out: solvers move u with Σ_c u_c = 0, under the penalty H(u) =
min_m Ω(u + m·1), and the best m is added at the end. H is convex and its prox is soft thresholding
again, from a shifted point.

Here Ω(p) = τ‖p‖₁ + (a/2)(the part of the squared norm that m adds), per feature; the l2 term of u
itself stays in the smooth part.
"""

from __future__ import annotations

import numpy as np

__all__ = ["best_shift", "box_threshold", "class_threshold", "soft_threshold"]


def soft_threshold(h: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """argmin_p τ‖p‖₁ + ‖p − h‖²/2, with exact zeros.

    >>> soft_threshold(np.array([-3.0, 0.5]), np.array([1.0, 1.0]))
    array([-2.,  0.])
    """
    return h - np.clip(h, -tau, tau)


def box_threshold(h: np.ndarray, tau: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """argmin_{lower ≤ p ≤ upper} τ‖p‖₁ + ‖p − h‖²/2: soft thresholding, then the nearest point inside.

    In one dimension a convex function within an interval is least at the point nearest to where it is
    least outside.

    >>> box_threshold(np.array([-3.0, 0.5, 3.0]), np.ones(3), np.zeros(3), np.full(3, 1.5))
    array([0. , 0. , 1.5])
    """
    return np.clip(soft_threshold(h, tau), lower, upper)


def class_threshold(h: np.ndarray, tau: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The prox of H: argmin over u with Σ_c u_c = 0 of H(u) + ‖u − h‖²/2, and the shift m that goes with it.

    With h centred, p = u + m·1 is soft thresholding of h + (1 − a)m at τ, and the mean of p is m.
    So m is the root of the increasing, piecewise linear Σ_c clip(h_c + (1 − a)m, ±τ) + a·k·m.

    Parameters
    ----------
    h : ndarray of shape (d, k)
    tau, a : ndarray of shape (d, 1)
        Step × l1 and step × l2, in the variables' units. τ > 0.

    Returns
    -------
    u : ndarray of shape (d, k)
    m : ndarray of shape (d, 1)

    >>> u, m = class_threshold(np.array([[3.0, 0.0, -0.5]]), np.array([[1.0]]), np.zeros((1, 1)))
    >>> (u + m).round(3)
    array([[1.75, 0.  , 0.  ]])
    """
    h = h - h.mean(axis=1, keepdims=True)
    m = np.zeros((len(h), 1))
    # Where nothing exceeds τ, m = 0 and all of p is zero: with l1 that is most features.
    active = np.flatnonzero((np.abs(h) > tau).any(axis=1))
    if active.size:
        m[active] = _shift_root(h[active], tau[active], a[active])
    p = soft_threshold(h + (1 - a) * m, tau)
    return p - m, m


def _shift_root(h, tau, a):
    """Newton's method inside a bracket: exact once it is on the root's linear piece."""
    k = h.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = (np.abs(h).max(axis=1, keepdims=True) + tau) / (1 - a)
        high = np.minimum(np.where(a < 1, reach, np.inf), np.where(a > 0, tau / a, np.inf))
    low, m = -high, np.zeros_like(tau)
    for _ in range(100):
        shifted = h + (1 - a) * m
        value = np.clip(shifted, -tau, tau).sum(axis=1, keepdims=True) + a * k * m
        rounding = 1e-15 * k * (tau + np.abs(m))
        if (np.abs(value) <= rounding).all():
            break
        low, high = np.where(value < 0, m, low), np.where(value > 0, m, high)
        slope = (1 - a) * (np.abs(shifted) < tau).sum(axis=1, keepdims=True) + a * k
        step = np.divide(value, slope, out=np.full_like(value, np.inf), where=slope > 0)
        newton = m - step
        inside = (newton > low) & (newton < high)
        moved = np.where(inside, newton, 0.5 * (low + high))
        moved = np.where(np.abs(value) <= rounding, m, moved)
        if (moved == m).all():
            break
        m = moved
    return m


def best_shift(u: np.ndarray, l1: np.ndarray, l2: np.ndarray) -> np.ndarray:
    """argmin_m l1‖u + m·1‖₁ + (k·l2/2)m² per row: a median of −u and of (l1/l2)(1 − 2i/k), i = 0 … k.

    >>> best_shift(np.array([[2.0, 1.0, -1.0]]), np.array([[1.0]]), np.zeros((1, 1)))
    array([[-1.]])
    """
    k = u.shape[1]
    points = -u
    if np.any(l2):
        points = np.concatenate([points, (l1 / l2) * (1 - 2 * np.arange(k + 1) / k)], axis=1)
    return np.median(points, axis=1, keepdims=True)
