"""Checks of arguments that the callbacks share."""

from __future__ import annotations

import math
import numbers
from typing import Any

__all__ = ["number", "real", "whole"]


def real(value: Any) -> float:
    """The number as a float; NaN, which no comparison accepts, for what is no number.

    >>> real(3), real("3"), real(True)
    (3.0, nan, nan)
    """
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan


def number(value: Any, name: str, owner: str) -> float:
    """The number as a float, of a 0-d array or tensor as well; TypeError for what is none.

    >>> number(1, "metric", "EarlyStopping")
    1.0
    """
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {type(value).__name__}; {owner} takes a number. "
                        f"Use {name}=float(value).") from None


def whole(value: Any, name: str, owner: str, least: int, example: int) -> int:
    """The whole number, or ValueError naming the argument, what it may be and the call that fixes it.

    >>> whole(3, "keep", "Checkpoint", 1, 5)
    3
    """
    if not (real(value) >= least and isinstance(value, numbers.Integral)):
        raise ValueError(f"{name} is {value!r}; {owner} takes a whole number ≥ {least}. "
                         f"Use {owner}(…, {name}={example}).")
    return int(value)
