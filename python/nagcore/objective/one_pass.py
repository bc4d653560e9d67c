"""Value and gradient of a smooth objective over data that come with the call: one pass, and done."""

from __future__ import annotations

from typing import Any

import numpy as np

from nagcore import losses
from nagcore.objective.checks import check_out, check_w
from nagcore.objective.intercept import dot
from nagcore.penalties import Penalty

__all__ = ["value_and_grad"]


def value_and_grad(
    X: Any,
    y: Any,
    w: Any,
    *,
    loss: str | losses.Loss = "logistic",
    l2: float = 0.0,
    sample_weight: Any = None,
    offset: Any = None,
    delta: float = 1.0,
    scale: float = 1.0,
    shift: float = 0.0,
    fit_intercept: bool = False,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    dtype: str | None = None,
) -> tuple[float, np.ndarray]:
    """Return the mean loss plus (l2/2)‖w‖² and its gradient, in one pass over X.

    f(w, b) = (1/S) Σ s_i φ(z_i, y_i) + (l2/2)‖w‖²,  z = Xw + b + offset,
    ∇_w f = (1/S) Xᵀ(s∘φ'(z, y)) + l2·w,  ∇_b f = (1/S) Σ s_i φ'(z_i, y_i).

    Parameters
    ----------
    X : ndarray or scipy.sparse CSR of shape (n, d)
        float64, float32, bfloat16 or uint8 (read as scale·x + shift), any strides; never copied.
    y : array of shape (n,), or (n, k) probabilities for softmax
        Targets in the loss's domain: {−1,+1} or {0,1} for two classes, class numbers for softmax.
    w : array of shape (p,), or (p, k) for softmax
        Coefficients; p = d + 1 with the intercept as the last row when `fit_intercept`.
    loss : str or nagcore.losses.Loss
        A name of `nagcore.losses.names()`.
    l2 : float
        Strength of the squared penalty; the intercept's row is not penalised.
    sample_weight : array of shape (n,), optional
        s_i ≥ 0, not all zero.
    offset : array of shape (n,) or (n, k), optional
        Added to the margins.
    delta : float
        Where the huber loss turns linear.
    scale, shift : float
        How stored numbers are read: scale·x + shift.
    fit_intercept : bool
        Whether the last row of w is an intercept.
    out : ndarray, optional
        Where the gradient goes: w's shape and the gradient's dtype. Written only on success.
    n_threads : int, optional
        Threads of this call; every number of them gives the same bits.
    dtype : str, optional
        "bfloat16" for X given as a uint16 view.

    Returns
    -------
    value : float
    grad : ndarray of w's shape
        float32 if w is float32, else float64.

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came, what is accepted and the call that fixes it.

    Source: docs/maths.md, "Losses".

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1])
    >>> value, grad = value_and_grad(X, y, np.zeros(2))
    >>> round(value, 6), grad
    (0.693147, array([-0.5, -0.5]))
    """
    from nagcore import _core

    penalty, loss = Penalty(l2=l2), losses.get(loss)
    n_classes = None
    if loss.targets == "class" and np.ndim(w) == 2 and np.ndim(y) == 1:
        n_classes = np.shape(w)[1]  # y need not hold every class
    problem = _core.Problem(
        X, y, loss=loss.name, sample_weight=sample_weight, offset=offset, delta=delta, scale=scale,
        shift=shift, fit_intercept=bool(fit_intercept), n_threads=n_threads, dtype=dtype,
        n_classes=n_classes,
    )
    w = check_w(w, problem)
    grad_dtype = np.dtype(np.float32 if w.dtype == np.float32 else np.float64)
    if out is not None:
        check_out(out, w, grad_dtype, (("w", w), ("X", X), ("y", y)))
    wide = np.ascontiguousarray(w, np.float64)
    value, grad = problem.value_and_grad(wide)
    if penalty.l2:
        wd = wide[: problem.d]
        value += 0.5 * penalty.l2 * dot(wd, wd)
        grad[: problem.d] += penalty.l2 * wd
    if out is None:
        return value, grad.astype(grad_dtype, copy=False)
    out[...] = grad
    return value, out
