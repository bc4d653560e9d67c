"""Checks of arguments that the callbacks share."""

from __future__ import annotations

import math
import numbers
from typing import Any

__all__ = ["real", "whole"]


def real(value: Any) -> float:
    """The number as a float; NaN, which no comparison accepts, for what is no number.

    >>> real(3), real("3"), real(True)
    (3.0, nan, nan)
    """
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan


def whole(value: Any, name: str, owner: str, least: int, example: int) -> int:
    """The whole number, or ValueError naming the argument, what it may be and the call that fixes it.

    >>> whole(3, "keep", "Checkpoint", 1, 5)
    3
    """
    if not (real(value) >= least and isinstance(value, numbers.Integral)):
        raise ValueError(f"{name} is {value!r}; {owner} takes a whole number ≥ {least}. "
                         f"Use {owner}(…, {name}={example}).")
    return int(value)
