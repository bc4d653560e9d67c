"""Value, gradient, their error bound and the duality gap, on dense or CSR data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .losses import LOSSES


def decode(X, scale=1.0, shift=0.0, storage=None, dtype=np.float64):
    """The numbers X stands for: scale·X + shift; storage="bfloat16" reads uint16 as bits of it.

    >>> decode(np.array([[0, 255]], np.uint8), scale=2.0, shift=1.0).tolist()
    [[1.0, 511.0]]
    """
    if storage == "bfloat16" and X.dtype == np.uint16:
        X = (X.astype(np.uint32) << 16).view(np.float32)
    return X.astype(dtype) * scale + shift


def _matvec(X, v, transposed=False, **how):
    """Xv or Xᵀv, v of one or k columns; X dense, or CSR: anything with indptr, indices and data.

    >>> _matvec(np.array([[1.0, 2.0]]), np.array([3.0]), transposed=True).tolist()
    [3.0, 6.0]
    """
    if not hasattr(X, "indptr"):
        X = decode(X, **how)
        return (X.T if transposed else X) @ v
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    source, target = (rows, X.indices) if transposed else (X.indices, rows)
    out = np.zeros((X.shape[transposed], *v.shape[1:]), v.dtype)
    np.add.at(out, target, (decode(X.data, **how) * v[source].T).T)
    return out


def weights(sample_weight, n: int):
    """s, ones where None is given, and its sum S > 0.

    >>> weights(None, 3)
    (array([1., 1., 1.]), 3.0)
    """
    s = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if s.shape != (n,) or not np.isfinite(s).all() or (s < 0).any() or s.sum() <= 0:
        raise ValueError(f"sample_weight must be {n} finite numbers >= 0, not all zero")
    return s, float(s.sum())


def margins(X, w, *, offset=None, fit_intercept=False, dtype=np.float64, **how):
    """z = Xw + b + offset; b is the last row of w when fit_intercept.

    >>> margins(np.array([[1.0, 2.0]]), np.array([1.0, 1.0, 10.0]), fit_intercept=True).tolist()
    [13.0]
    """
    w = np.asarray(w).astype(dtype)
    z = _matvec(X, w[: X.shape[1]], dtype=dtype, **how) + (w[-1] if fit_intercept else 0)
    return z if offset is None else z + np.asarray(offset, dtype=dtype)


def rmatvec(X, v, *, sample_weight=None, fit_intercept=False, dtype=np.float64, **how):
    """(1/S) Xᵀ(s∘v), with (1/S) Σ s_i v_i as one more row when fit_intercept.

    >>> rmatvec(np.array([[1.0], [3.0]]), np.array([2.0, 4.0]), fit_intercept=True).tolist()
    [7.0, 3.0]
    """
    s, S = weights(sample_weight, X.shape[0])
    sv = (s.astype(dtype) * np.asarray(v, dtype=dtype).T).T
    g = _matvec(X, sv, transposed=True, dtype=dtype, **how)
    return (np.concatenate([g, sv.sum(axis=0)[None]]) if fit_intercept else g) / S


def value_and_grad(X, y, w, *, loss="logistic", l2=0.0, sample_weight=None, delta=1.0, **how):
    """F(w) = (1/S) Σ s_i φ(z_i, y_i) + (l2/2)‖w‖² and ∇F = (1/S) Xᵀ(s∘r) + l2·w.

    X is dense, of any storage and strides, or CSR. ``**how`` is offset, fit_intercept (the
    intercept is not penalised), dtype, and scale, shift, storage as in :func:`decode`.

    >>> value_and_grad(np.eye(2), [1.0, 2.0], np.zeros(2), loss="squared")
    (1.25, array([-0.5, -1. ]))
    """
    phi, z, (s, S) = LOSSES[loss], margins(X, w, **how), weights(sample_weight, X.shape[0])
    y, penalised = phi.encode(y, z.shape[-1]), np.asarray(w)[: X.shape[1]].astype(z.dtype)
    how.pop("offset", None)
    g = rmatvec(X, phi.residual(z, y, delta), sample_weight=s, **how)
    g[: X.shape[1]] += l2 * penalised
    value = (s * phi.value(z, y, delta)).sum() / S + l2 / 2 * (penalised**2).sum()
    return (float(value) if z.dtype == np.float64 else value), g


class Magnitudes(NamedTuple):
    """What k·eps multiplies in the error bounds of the four things a pass computes.

    >>> magnitudes(np.array([[-2.0]]), [1.0], np.array([3.0]), loss="squared").margins
    array([6.])
    """

    value: float
    gradient: np.ndarray
    margins: np.ndarray
    residuals: np.ndarray


def magnitudes(X, y, w, *, loss="logistic", l2=0.0, sample_weight=None, offset=None, delta=1.0,
               fit_intercept=False, scale=1.0, shift=0.0, storage=None, strict=False):  # fmt: skip
    """The sums of absolute values of the terms that value, gradient, margins and residuals add up.

    margins: m_i = Σ_k |x_ik w_k| + |b| + |offset_i|.  residuals: e_i = |r_i| + φ''_i m_i + operands
    of r_i.  gradient: (1/S) Σ_i s_i |x_ij| e_i + l2|w_j|.  value: (1/S) Σ_i s_i (|φ_i| + |r_i| m_i
    + operands of φ_i) + l2‖w‖²/2.  ``strict`` leaves the operands out. |x| stands for |scale·X| +
    |shift|, since scale and shift are folded into w and g.

    >>> magnitudes(np.array([[-2.0]]), [1.0], np.array([3.0]), loss="squared")[:2]
    (66.5, array([26.]))
    """
    phi, d, w, (s, S) = LOSSES[loss], X.shape[1], np.asarray(w), weights(sample_weight, X.shape[0])
    fit = {"fit_intercept": fit_intercept}
    z = margins(X, w, offset=offset, scale=scale, shift=shift, storage=storage, **fit)
    y = phi.encode(y, z.shape[-1])
    if hasattr(X, "indptr"):
        A = type(X)((np.abs(decode(X.data, storage=storage)), X.indices, X.indptr), shape=X.shape)
    else:
        A = np.abs(scale * decode(X, storage=storage)) + abs(shift)
    m = margins(A, np.abs(w), offset=None if offset is None else np.abs(offset), **fit)
    r, c = np.abs(phi.residual(z, y, delta)), np.abs(phi.curvature(z, y, delta))
    of_value, of_residual = (0.0, 0.0) if strict else phi.operands(z, y)
    e = r + (np.einsum("ncj,nj->nc", c, m) if c.ndim == 3 else c * m) + of_residual
    g = rmatvec(A, e, sample_weight=s, **fit)
    g[:d] += l2 * np.abs(w[:d])
    per_row = np.abs(phi.value(z, y, delta)) + (r * m).reshape(len(s), -1).sum(axis=1) + of_value
    return Magnitudes(float((s * per_row).sum() / S + l2 / 2 * (w[:d] ** 2).sum()), g, m, e)


def _centre(phi, z, y, s, delta):
    """The change c of the intercept that gives Σ s_i r(z_i + c, y_i) = 0: bisection, or, for the
    k intercepts of softmax, Newton's method with halving steps.

    >>> float(_centre(LOSSES["squared"], np.array([1.0, 3.0]), np.zeros(2), np.ones(2), 1.0))
    -2.0
    """
    slope = lambda c: s @ phi.residual(z + c, y, delta)  # noqa: E731
    if z.ndim == 1:
        lo, hi = -1.0, 1.0
        while slope(lo) > 0 and lo > -1e9:
            lo *= 2
        while slope(hi) < 0 and hi < 1e9:
            hi *= 2
        for _ in range(200):
            mid = (lo + hi) / 2
            lo, hi = (mid, hi) if slope(mid) < 0 else (lo, mid)
        return min(lo, hi, key=lambda c: abs(slope(c)))
    value, c = lambda c: s @ phi.value(z + c, y), np.zeros(z.shape[1])
    for _ in range(100):
        H, t = np.einsum("n,ncj->cj", s, phi.curvature(z + c, y)), 1.0
        step = np.linalg.pinv(H) @ slope(c)
        while value(c - t * step) > value(c) and t > 1e-9:
            t /= 2
        c = c - t * step
    return c


def conjugate(c, l1, l2, lower=-np.inf, upper=np.inf):
    """Ω*(c) = max over lower ≤ w ≤ upper of cw − l1|w| − (l2/2)w², element by element: at an end, at
    zero, or where the slope vanishes, whichever is largest.

    >>> conjugate(np.array([2.0, -3.0]), 1.0, 1.0, -1.0, np.inf).tolist()
    [0.5, 1.5]
    >>> conjugate(np.array([2.0, -3.0]), 1.0, 0.0, -1.0, np.inf).tolist()
    [inf, 2.0]
    """
    c, lower, upper = np.broadcast_arrays(np.asarray(c, np.float64), lower, upper)
    points = [np.clip(0.0, lower, upper), np.where(np.isfinite(lower), lower, 0.0),
              np.where(np.isfinite(upper), upper, 0.0)]  # fmt: skip
    if l2 > 0:
        points += [np.clip((c - l1) / l2, lower, upper), np.clip((c + l1) / l2, lower, upper)]
    points = [np.clip(w, lower, upper) for w in points]
    best = np.max([c * w - l1 * np.abs(w) - l2 / 2 * w**2 for w in points], axis=0)
    if l2 > 0:
        return best
    grows = (np.isposinf(upper) & (c > l1)) | (np.isneginf(lower) & (-c > l1))
    return np.where(grows, np.inf, best)


def _open(l1, lower, upper):
    """What slopes scaled to l1 may be where a side is infinite: their rounding is not infeasible.

    >>> _open(1.0, -np.inf, 2.0)
    (array(-1.), array(inf))
    """
    return np.where(np.isneginf(lower), -l1, -np.inf), np.where(np.isposinf(upper), l1, np.inf)


def duality_gap(X, y, w, *, loss="logistic", l2=0.0, l1=0.0, sample_weight=None, offset=None,
                delta=1.0, fit_intercept=False, bounds=(-np.inf, np.inf), **how):  # fmt: skip
    """F(w) − D(θ) ≥ F(w) − F*, with F including l1‖w‖₁: a bound on how far w is from optimal.

    D(θ) = −(1/S) Σ s_i (φ*(θ_i) − θ_i·offset_i) − ‖(|Xᵀ(s∘θ)|/S − l1)₊‖²/(2·l2). An intercept wants
    Σ s_i θ_i = 0, so θ is the residual at the best intercept for these coefficients. At l2 = 0, θ
    is shrunk into ‖Xᵀ(s∘θ)‖_∞/S ≤ l1 and the last term vanishes. With bounds (lower, upper) on the
    coefficients the last term is Ω*(−u) of :func:`conjugate`, and only infinite sides shrink θ.

    >>> X, y = np.array([[1.0], [-1.0]]), np.array([1.0, -1.0])
    >>> duality_gap(X, y, np.array([0.5]), loss="squared", l2=1.0)
    0.0
    """
    phi, w, (s, S) = LOSSES[loss], np.asarray(w), weights(sample_weight, X.shape[0])
    z, u = margins(X, w, offset=offset, fit_intercept=fit_intercept, **how), w[: X.shape[1]]
    y = phi.encode(y, z.shape[-1])
    penalty = l2 / 2 * (u**2).sum() + l1 * np.abs(u).sum()
    c = _centre(phi, z, y, s, delta) if fit_intercept else 0.0
    theta = phi.residual(z + c, y, delta)
    if fit_intercept and np.abs(s @ theta).max() > 1e-9 * S:  # not found: nothing is certified
        return float("inf")
    c, (lower, upper) = -rmatvec(X, theta, sample_weight=s, **how), bounds
    most = np.max([np.where(np.isposinf(upper), c, 0).max(), np.where(np.isneginf(lower), -c, 0).max()])
    if l2 == 0 and most > l1:
        theta, c = theta * (l1 / most), np.clip(c * (l1 / most), *_open(l1, lower, upper))
    tail = conjugate(c, l1, l2, lower, upper).sum()
    linear = 0.0 if offset is None else (theta * offset).reshape(len(s), -1).sum(axis=1)
    each = phi.value(z, y, delta) + phi.conjugate(theta, y, delta) - linear
    return float((s * each).sum() / S + penalty + tail)

