"""The penalties l1‖w‖₁ + (l2/2)‖w‖², with w ≥ 0 or without, as a checked handle with a name.

The intercept is neither penalised nor constrained.

>>> Penalty(l2=0.1).name
'l2'
>>> Penalty(l1=0.1, l2=0.1).name
'elasticnet'
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

__all__ = ["Penalty", "names"]

_REMEDY = "Use 0.0 for no penalty, or a positive number for a stronger one."


def names() -> tuple[str, ...]:
    """Return the names that `Penalty.name` can have.

    >>> names()
    ('none', 'l1', 'l2', 'elasticnet')
    """
    return ("none", "l1", "l2", "elasticnet")


def _strength(name: str, value: float) -> float:
    if type(value) is float and 0.0 <= value < math.inf:
        return value  # an abstract class is slow to ask
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {type(value).__name__}; nagcore takes one number. {_REMEDY}")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value}; nagcore takes finite numbers ≥ 0. {_REMEDY}")
    return float(value)


@dataclass(frozen=True)
class Penalty:
    """The pair of strengths in F = data term + (l2/2)‖w‖² + l1‖w‖₁.

    Parameters
    ----------
    l2, l1 : float
        Finite and not negative.
    positive : bool
        Whether w ≥ 0 is asked for: Ω is infinite elsewhere.

    Raises
    ------
    TypeError, ValueError
        A strength that is not a number, negative, NaN or infinite; `positive` that is not a bool.

    >>> Penalty(l2=-1.0)
    Traceback (most recent call last):
        ...
    ValueError: l2 is -1.0; nagcore takes finite numbers ≥ 0. Use 0.0 for no penalty, or a positive
    \
number for a stronger one.
    """

    l2: float = 0.0
    l1: float = 0.0
    positive: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.positive, bool):
            raise TypeError(f"positive is {self.positive!r}; nagcore takes True or False. "
                            "Use positive=True for coefficients ≥ 0.")
        object.__setattr__(self, "l2", _strength("l2", self.l2))
        object.__setattr__(self, "l1", _strength("l1", self.l1))

    @property
    def name(self) -> str:
        """One of `names()`: which of the two strengths are positive."""
        return names()[(self.l1 > 0) + 2 * (self.l2 > 0)]

    @property
    def smooth(self) -> bool:
        """Whether there is nothing that needs a prox: neither l1 nor a constraint."""
        return self.l1 == 0 and not self.positive
