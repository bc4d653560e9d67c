"""The oracle of the second-order passes: plain NumPy in wide arithmetic, and what their terms sum to."""

from __future__ import annotations

import numpy as np

from nagcore import reference


def design(case, wide=np.float64, *, magnitude=False):
    """X as the model sees it, with its column of ones; |scale·x| + |shift| for magnitudes."""
    X = reference.decode(case.X.toarray() if hasattr(case.X, "toarray") else case.X).astype(wide)
    scale, shift = case.how.get("scale", 1.0), case.how.get("shift", 0.0)
    X = np.abs(scale * X) + abs(shift) if magnitude else scale * X + shift
    if case.how.get("fit_intercept"):
        X = np.hstack([X, np.ones((len(X), 1), wide)])
    return X


def weights_of(case):
    s = case.how.get("sample_weight")
    return np.ones(case.X.shape[0]) if s is None else np.asarray(s)


def gram(case, v=None, rows=None, wide=np.float64):
    """((1/S) Σ s v x xᵀ, the same with every term's absolute value)."""
    s = weights_of(case).astype(wide)
    c = s if v is None else s * np.asarray(v).astype(wide)
    at = slice(None) if rows is None else rows
    X, A = design(case, wide)[at], design(case, magnitude=True)[at]
    c = c[at]
    size = (A * np.abs(c).astype(np.float64)[:, None]).T @ A / float(s.sum())
    # Along contiguous rows: NumPy's plain loops over long double take thrice as long down columns.
    return np.inner((X * c[:, None]).T.copy(), X.T.copy()) / s.sum(), size


def hessian_vector(case, v, weights, wide=np.float64):
    s = weights_of(case).astype(wide)
    c = (s * np.asarray(weights).astype(wide))[:, None]
    X, A = design(case, wide), design(case, magnitude=True)
    V = np.asarray(v, wide).reshape(X.shape[1], -1)
    out = X.T @ (c * (X @ V)) / s.sum()
    size = A.T @ (np.abs(c).astype(np.float64) * (A @ np.abs(V).astype(np.float64)))
    return out.reshape(np.shape(v)), (size / float(s.sum())).reshape(np.shape(v))


def arithmetic(problem):
    return problem.compute, np.longdouble if problem.compute == "float64" else np.float64
