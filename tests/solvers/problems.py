"""Fits with awkward data, and their minima found by other means than nagcore's."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize as scipy_minimize

from cases import targets
from nagcore import reference

KINDS = ("plain", "collinear", "scales", "correlated")
PENALTIES = {"l2": (0.0, 0.05), "l1": (0.02, 0.0), "elasticnet": (0.02, 0.02)}


def design(kind, n=120, d=6, seed=0):
    """A float64 matrix: well behaved, with constant and duplicate columns, in odd units, or nearly
    of rank one."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    if kind == "collinear":
        X[:, 1], X[:, 2] = 3.0, X[:, 0] - 2 * X[:, 3]
    elif kind == "scales":
        X = X * 10.0 ** np.linspace(-3, 3, d) + 10.0 ** np.linspace(3, -3, d)
    elif kind == "correlated":
        X = X + 5 * rng.normal(size=(n, 1))
    return X


def fit_case(loss, kind="plain", penalty="l2", fit_intercept=True, weights=False, seed=0, n=120):
    """Keyword arguments of Objective (X and y too) for one fit with something to learn."""
    X = design(kind, n=n, seed=seed)
    rng = np.random.default_rng(seed + 1)
    signal = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9)
    signal = signal @ rng.normal(size=X.shape[1]) / 2
    if loss == "squared":
        y = signal + rng.normal(size=n) + 3
    elif loss == "huber":
        y = signal + rng.standard_t(2, size=n)
    elif loss == "poisson":
        y = rng.poisson(np.exp(np.clip(signal + 0.5, -3, 3))).astype(float)
    elif loss == "softmax":
        y = (np.digitize(signal + rng.normal(size=n), [-0.5, 0.7])).astype(float)
    elif loss in ("logistic", "squared_hinge"):
        y = (signal + rng.logistic(size=n) > 0.5).astype(float)
    else:
        y = targets(loss, n, rng)
    l1, l2 = PENALTIES[penalty]
    scale = float(np.std(y)) if loss in ("squared", "huber", "poisson") else 1.0
    case = {"X": X, "y": y, "loss": loss, "l1": l1 * scale, "l2": l2, "fit_intercept": fit_intercept}
    if weights:
        case["sample_weight"] = rng.integers(0, 4, n).astype(float)
    return case


def value(case, w):
    """F(w) by the reference, in float64."""
    how = {k: v for k, v in case.items() if k not in ("X", "y", "l1")}
    d = case["X"].shape[1]
    return (reference.value_and_grad(case["X"], case["y"], w, **how)[0]
            + case["l1"] * np.abs(w[:d]).sum())


def minimum(case):
    """min F: L-BFGS-B on w = a − b with a, b ≥ 0 where there is l1, in columns of unit scale.

    What comes back is F at some point, so at least min F: `F(w) − minimum` is never too large.
    """
    how = {k: v for k, v in case.items() if k not in ("X", "y", "l1")}
    X, y, l1 = case["X"], case["y"], case["l1"]
    d = X.shape[1]
    k = int(y.max()) + 1 if case["loss"] == "softmax" else 1
    centre = X.mean(axis=0) if case["fit_intercept"] else np.zeros(d)
    unit = np.sqrt((((X - centre) ** 2).mean(axis=0)) + case["l2"])
    unit[unit == 0] = 1.0
    rows = d + case["fit_intercept"]
    shape = (rows,) if k == 1 else (rows, k)
    last = rows * k - d * k

    def w_of(v):
        w = np.zeros((rows, k))
        w[:d] = (v[: d * k] - v[d * k : 2 * d * k]).reshape(d, k) / unit[:, None]
        if last:
            w[d] = v[2 * d * k :] - centre @ w[:d]
        return w.reshape(shape)

    def fg(v):
        f, g = reference.value_and_grad(X, y, w_of(v), **how)
        g = g.reshape(rows, k)
        head = g[:d] - (np.outer(centre, g[d]) if last else 0)
        head = (head / unit[:, None]).ravel()
        pull = np.repeat(l1 / unit, k)
        extra = l1 * (np.abs(v[: 2 * d * k]).reshape(2, d, k) / unit[:, None]).sum()
        return f + extra, np.concatenate([head + pull, -head + pull, g[d:].ravel()])

    v = np.zeros(2 * d * k + last)
    bounds = [(0, None)] * (2 * d * k) + [(None, None)] * last
    if not l1:
        bounds = None
    for _ in range(3):
        v = scipy_minimize(fg, v, jac=True, method="L-BFGS-B", bounds=bounds,
                           options={"maxiter": 3000, "maxfun": 5000, "ftol": 1e-16, "gtol": 1e-11}).x
    return value(case, w_of(v))
