"""Handles of the registered losses; their formulas live in the compiled core and in docs/maths.md.

`names()` follows the registry, so a loss added there appears here without an edit. A handle can be
had by function or by attribute, and stands wherever a loss name does:

>>> from nagcore import losses
>>> losses.get("logistic").curvature_bound
0.25
>>> losses.poisson.bounded_curvature
False
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Loss", "get", "names"]


@dataclass(frozen=True)
class Loss:
    """One registered loss φ(z, y): its name and what a solver may rely on.

    Attributes
    ----------
    name : str
        The registry's name, as every `loss=` argument takes it.
    targets : str
        The domain of y: "real", "binary" ({−1,+1} or {0,1}), "class" (class numbers or (n, k)
        probabilities) or "nonnegative".
    curvature_bound : float
        An upper bound on ∂²φ/∂z²; infinity where there is none.
    section : str
        The section of docs/maths.md that holds the formula.

    Examples
    --------
    >>> import nagcore
    >>> nagcore.losses.get("logistic").curvature_bound
    0.25
    """

    name: str
    targets: str
    curvature_bound: float
    section: str

    @property
    def bounded_curvature(self) -> bool:
        """Whether ∂²φ/∂z² has a finite bound."""
        return math.isfinite(self.curvature_bound)

    def __str__(self) -> str:
        return self.name


_HANDLES: dict[str, Loss] = {}  # those that were asked for

def names() -> tuple[str, ...]:
    """Return the names of all registered losses, in the registry's order.

    >>> "squared" in names()
    True
    """
    from nagcore import _core

    return tuple(_core.loss_names())


def get(loss: str | Loss) -> Loss:
    """Return the handle of a loss named by string (a handle is returned as it is).

    Parameters
    ----------
    loss : str or Loss

    Raises
    ------
    TypeError
        `loss` is neither a string nor a Loss.
    ValueError
        No loss of that name is registered; the message lists those that are.

    >>> get("huber").targets
    'real'
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in _HANDLES:
        return _HANDLES[loss]
    if not isinstance(loss, str):
        raise TypeError(
            f"loss is {type(loss).__name__}; nagcore takes a name or a handle of nagcore.losses. "
            f'Use loss="logistic", or one of {", ".join(names())}.'
        )
    if loss not in names():
        raise ValueError(f'loss is "{loss}"; nagcore has {", ".join(names())}.')
    from nagcore import _core

    info = _core.loss_info(loss)
    _HANDLES[loss] = Loss(
        info["name"], info["targets"], float(info["curvature_bound"]), str(info.get("section", ""))
    )
    return _HANDLES[loss]


def __getattr__(name: str) -> Loss:
    if not name.startswith("_") and name in names():
        return get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *names()])
