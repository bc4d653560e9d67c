"""What the arguments of an optimizer may be, said before anything is made."""

from __future__ import annotations

import math
from typing import Any

import torch

__all__ = ["check_options", "check_rule"]


def check_rule(lr: Any, momentum: Any, dampening: Any, weight_decay: Any) -> None:
    """Refuse what torch refuses, and numbers that are not finite.

    >>> check_rule(0.1, -0.9, 0.0, 0.0)
    Traceback (most recent call last):
        ...
    ValueError: Invalid momentum value: -0.9; momentum is a finite number ≥ 0, such as momentum=0.1.
    """
    if isinstance(lr, torch.Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element; it has shape {tuple(lr.shape)}.")
    for name, words, value in (
        ("lr", "learning rate", lr),
        ("momentum", "momentum value", momentum),
        ("weight_decay", "weight_decay value", weight_decay),
        ("dampening", "dampening value", dampening),
    ):
        number = float(value.detach() if isinstance(value, torch.Tensor) else value)
        if not math.isfinite(number) or (number < 0 and name != "dampening"):
            kind = "a finite number" if name == "dampening" else "a finite number ≥ 0"
            raise ValueError(f"Invalid {words}: {value}; {name} is {kind}, such as {name}=0.1.")


def check_options(
    max_norm: Any, ema_decay: Any, state_dtype: Any, n_threads: Any, guard: Any, acceleration: Any
) -> None:
    """Refuse options that torch's own optimizer does not have and that make no sense here.

    >>> check_options(None, 1.5, None, None, None, None)
    Traceback (most recent call last):
        ...
    ValueError: ema_decay is 1.5; it lies in [0, 1], such as ema_decay=0.999.
    """
    if max_norm is not None and not float(max_norm) > 0:
        raise ValueError(f"max_norm is {max_norm}; it must be positive, or None not to clip.")
    if ema_decay is not None and not 0 <= float(ema_decay) <= 1:
        raise ValueError(f"ema_decay is {ema_decay}; it lies in [0, 1], such as ema_decay=0.999.")
    if state_dtype not in (None, torch.float32, torch.bfloat16):
        raise ValueError(
            f"state_dtype is {state_dtype}; it is torch.float32, torch.bfloat16 or None."
        )
    if n_threads is not None and (
        isinstance(n_threads, bool) or not isinstance(n_threads, int) or n_threads < 1
    ):
        raise ValueError(f"n_threads is {n_threads!r}; it is a whole number ≥ 1, or None.")
    if guard is not None and not callable(getattr(guard, "check", None)):
        raise TypeError(
            f"guard is {type(guard).__name__}; pass nagcore.callbacks.AnomalyGuard()."
        )
    if acceleration is not None and not (
        callable(acceleration) and hasattr(acceleration, "adaptive")
    ):
        raise TypeError(
            f"acceleration is {type(acceleration).__name__}; pass a schedule, such as "
            "nagcore.schedules.Nesterov()."
        )
