"""A NumPy stand-in for nagcore._core.Problem: the seam that Objective needs, and nothing compiled.

It serves two purposes: the solvers are tested on an arithmetic that shares no code with the
kernels, and it shows which interface `Objective.from_problem` accepts. It counts its own passes.
"""

from __future__ import annotations

import numpy as np

CURVATURE = {
    "squared": 1.0, "logistic": 0.25, "softmax": 0.5, "huber": 1.0,
    "poisson": np.inf, "squared_hinge": 1.0,
}


def _loss(name, z, y, delta):
    """Value and residual of every row; z and y are (n,), or (n, k) for softmax."""
    if name == "squared":
        r = z - y
        return 0.5 * r * r, r
    if name == "logistic":
        e = np.exp(-np.abs(z))
        sigma = np.where(y * z > 0, e, 1) / (1 + e)
        return np.maximum(-y * z, 0) + np.log1p(e), -y * sigma
    if name == "huber":
        r = np.clip(z - y, -delta, delta)
        return r * (z - y) - 0.5 * r * r, r
    if name == "poisson":
        with np.errstate(over="ignore"):
            mu = np.exp(z)
        return mu - y * z, mu - y
    if name == "squared_hinge":
        gap = np.maximum(1 - y * z, 0)
        return 0.5 * gap * gap, -y * gap
    top = z.max(axis=1, keepdims=True)
    e = np.exp(z - top)
    total = e.sum(axis=1, keepdims=True)
    return (np.log(total) + top)[:, 0] - (y * z).sum(axis=1), e / total - y


class NumpyProblem:
    """The mean loss of `z = X w + b + offset` over the rows of X, with the interface of _core.Problem."""

    def __init__(self, X, y, *, loss="logistic", sample_weight=None, offset=None, delta=1.0,
                 scale=1.0, shift=0.0, fit_intercept=False, compute=None, n_threads=None,
                 isa=None, dtype=None):
        self.X, self.loss, self.delta, self.fit_intercept = X, loss, delta, fit_intercept
        self.n, self.d = X.shape
        self.x_dtype = str(X.dtype)
        self.compute = compute or ("float64" if X.dtype == np.float64 else "float32")
        self._real = np.dtype(self.compute)
        self._data = X.astype(self._real)
        if scale != 1.0 or shift != 0.0:
            self._data = self._data * self._real.type(scale) + self._real.type(shift)
        sparse = not isinstance(X, np.ndarray)
        self.layout = "csr" if sparse else "C" if X.flags.c_contiguous else "strided"
        self.nbytes = (X.data.nbytes + X.indices.nbytes + X.indptr.nbytes) if sparse else X.nbytes
        y = np.asarray(y)
        self.k = 1
        if loss == "softmax":
            if y.ndim == 1:
                y = np.eye(int(y.max()) + 1)[y.astype(int)]
            self.k = y.shape[1]
        elif loss in ("logistic", "squared_hinge"):
            y = np.where(y > 0, 1.0, -1.0)
        self.y = y.astype(self._real)
        self.p = self.d + bool(fit_intercept)
        weight = np.ones(self.n) if sample_weight is None else np.asarray(sample_weight, float)
        self.sum_weights = float(weight.sum())
        self._s = weight / self.sum_weights
        self._offset = None if offset is None else np.asarray(offset, self._real)
        self.passes = 0

    def margins(self, w, out=None):
        self.passes += 1
        return self._margins(w, out)

    def _margins(self, w, out=None):
        z = self._data @ w[: self.d].astype(self._real)
        if self.fit_intercept:
            z = z + w[self.d].astype(self._real)
        if self._offset is not None:
            z = z + (self._offset if z.ndim == self._offset.ndim else self._offset[:, None])
        if out is None:
            return z
        out[...] = z
        return out

    def loss_from_margins(self, z, residuals=None):
        value, r = _loss(self.loss, z, self.y, self._real.type(self.delta))
        if residuals is not None:
            residuals[...] = r
        return float(self._s @ value.astype(np.float64))

    def rmatvec(self, v):
        self.passes += 1
        return self._rmatvec(v)

    def _rmatvec(self, v):
        s = self._s if v.ndim == 1 else self._s[:, None]
        sv = (s * v).astype(self._real)
        g = np.empty((self.p, *v.shape[1:]))
        g[: self.d] = self._data.T @ sv
        if self.fit_intercept:
            g[self.d] = (s * v).sum(axis=0)
        return g

    def value_and_grad(self, w, grad=None, margins=None, residuals=None):
        self.passes += 1
        z = self._margins(w, margins)
        r = np.empty_like(z) if residuals is None else residuals
        value = self.loss_from_margins(z, r)
        g = self._rmatvec(r)
        if not (np.isfinite(value) and np.isfinite(g).all()):
            data = self.X if isinstance(self.X, np.ndarray) else self.X.toarray()
            bad = np.argwhere(~np.isfinite(data.astype(float)))
            if len(bad):
                raise ValueError(f"X[{bad[0][0]}, {bad[0][1]}] is NaN or infinity.")
        if grad is None:
            return value, g
        grad[...] = g
        return value, grad
