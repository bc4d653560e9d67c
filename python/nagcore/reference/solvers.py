"""The prox of l1, and the accelerated methods in their papers' letters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def prox_l1(x, t):
    """argmin_u t‖u‖₁ + ‖u − x‖²/2 = sign(x)·(|x| − t)₊; t a number, or one per element.

    >>> prox_l1(np.array([-3.0, 0.5, 2.0]), 1.0).tolist()
    [-2.0, 0.0, 1.0]
    """
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


def prox_box(x, t, lower, upper):
    """argmin_{lower ≤ u ≤ upper} t‖u‖₁ + ‖u − x‖²/2: prox_l1, and the nearest point inside.

    >>> prox_box(np.array([-3.0, 0.5, 3.0]), 1.0, 0.0, 1.5).tolist()
    [0.0, 0.0, 1.5]
    """
    return np.clip(prox_l1(x, t), lower, upper)


def fista(fg: Callable, x, *, prox: Callable = lambda x, eta: x, L=1.0, n_iter=100):
    """Nesterov 1983, FISTA 2009: x⁺ = prox(y − ∇f(y)/L, 1/L);  t⁺ = (1 + √(1 + 4t²))/2;
    y⁺ = x⁺ + ((t − 1)/t⁺)(x⁺ − x); L doubles until it majorises; t = 1 if (y − x⁺)ᵀ(x⁺ − x) > 0.

    >>> fista(lambda x: (float(x @ x), 2 * x), np.array([3.0, -4.0]), n_iter=2).tolist()
    [0.0, 0.0]
    """
    y, t = x, 1.0
    for _ in range(n_iter):
        f, g = fg(y)
        while True:
            new = prox(y - g / L, 1 / L)
            model = f + (g * (new - y)).sum() + L / 2 * ((new - y) ** 2).sum()
            if fg(new)[0] <= model + 1e-14 * abs(f) or L > 1e300:
                break
            L *= 2
        t = 1.0 if ((y - new) * (new - x)).sum() > 0 else t
        t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
        x, y, t = new, new + (t - 1) / t_new * (new - x), t_new
    return x


def acfgm(fg: Callable, x, *, prox: Callable = lambda x, eta: x, L=1.0, n_iter=100, alpha=0.1):
    """Li & Lan 2023, no line search: z = prox(y − ηg);  y ← (1−β)y + βz;  x⁺ = (z + τx)/(1+τ);
    L = ‖g⁺−g‖²/(2[f − f⁺ − ⟨g⁺, x − x⁺⟩]);  η⁺ = min(4η/3, η(τ₋+1)/τ, τ/(4L));
    τ⁺ = τ + 2(1−α)η⁺L/τ + α/2;  β = 1 − √6/3. The first step, 2/(5L), is searched with β = 0.

    >>> x = acfgm(lambda x: (float(x @ x), 2 * x), np.array([3.0, -4.0]), n_iter=200)
    >>> bool(np.abs(x).max() < 1e-3)
    True
    """
    beta, y = 1 - np.sqrt(6) / 3, x
    f, g = fg(x)
    eta, tau, before = 2 / (5 * L), 0.0, 0.0  # τ = 0 marks the first step
    for _ in range(n_iter):
        z = prox(y - eta * g, eta)
        new = (z + tau * x) / (1 + tau)
        f_new, g_new = fg(new)
        bracket = f - f_new - (g_new * (x - new)).sum()
        seen = ((g_new - g) ** 2).sum() / (2 * bracket) if bracket > 0 else 0.0
        if tau == 0:
            if seen > L:  # η₁ was too long: search on
                L = max(2 * L, seen)
                eta = 2 / (5 * L)
                continue
            eta, tau = min((1 - beta) * eta, 1 / (4 * (seen or L))), 1.0
        else:
            y = (1 - beta) * y + beta * z
            if seen > 0:  # a bracket that is not positive is rounding: η stays
                eta = min(4 * eta / 3, eta * (before + 1) / tau, tau / (4 * seen))
                before, tau = tau, tau + 2 * (1 - alpha) * eta * seen / tau + alpha / 2
        x, f, g = new, f_new, g_new
    return x
