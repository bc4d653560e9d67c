"""Checks of the coefficients that come in, and of the array that a gradient goes to."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["check_out", "check_w", "w_shape"]


def w_shape(problem: Any) -> tuple[int, ...]:
    """The shape of w: (p,), or (p, k) for k classes, the intercept last."""
    return (problem.p,) if problem.k == 1 else (problem.p, problem.k)


def check_w(w: Any, problem: Any, name: str = "w") -> np.ndarray:
    """Return w as a float array of the problem's shape, or raise naming what came and what fits."""
    w = np.asarray(w)
    if w.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {w.dtype}; nagcore takes float64 or float32. "
                        f"Use np.asarray({name}, dtype=np.float64).")
    shape = w_shape(problem)
    if w.shape != shape:
        rows = f"{problem.d} features" + (" and the intercept last" if problem.p > problem.d else "")
        classes = "" if problem.k == 1 else f", one column for each of {problem.k} classes"
        raise ValueError(f"{name} has shape {w.shape}; this data takes {shape}: {rows}{classes}. "
                         f"Use np.zeros({shape}) to start.")
    if not np.isfinite(w).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(w))[0])
        raise ValueError(f"{name} holds NaN or infinity, first at {where}; nagcore takes finite "
                         f"numbers. Use np.nan_to_num({name}) or find where it came from.")
    return w


def check_out(out: Any, w: np.ndarray, dtype: np.dtype, held: tuple) -> None:
    """Raise unless `out` can take w's gradient without harm to what is `held`: pairs of name and array."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is {type(out).__name__}; nagcore writes to a NumPy array. "
                        f"Use np.empty({w.shape}, np.{dtype}).")
    if out.shape != w.shape or out.dtype != dtype:
        raise ValueError(f"out has shape {out.shape} and dtype {out.dtype}; the gradient has shape "
                         f"{w.shape} and dtype {dtype}. Use np.empty({w.shape}, np.{dtype}).")
    if not out.flags.writeable:
        raise ValueError("out is read-only; nagcore writes the gradient there. Use out.copy().")
    for name, other in held:
        if isinstance(other, np.ndarray) and np.may_share_memory(out, other):
            raise ValueError(f"out overlaps {name}; the gradient would overwrite it. "
                             f"Use np.empty({w.shape}, np.{dtype}).")
