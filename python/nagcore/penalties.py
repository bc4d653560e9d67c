"""The penalties l1‖w‖₁ + (l2/2)‖w‖², within bounds or without, as a checked handle with a name.

The intercept is neither penalised nor constrained.

>>> Penalty(l2=0.1).name
'l2'
>>> Penalty(l1=0.1, l2=0.1).name
'elasticnet'
>>> Penalty(positive=True).bounds == Penalty(bounds=(0, float("inf"))).bounds
True
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Box", "Penalty", "names"]

_REMEDY = "Use 0.0 for no penalty, or a positive number for a stronger one."
_BOUNDS = "Use bounds=(lower, upper), each one number or one per coefficient, -np.inf and np.inf for none."
_FEASIBLE = 4e-16  # of l1: what a slope at l1 may exceed it by, for rounding
_SNAP = 2.0 * float(np.finfo(np.float64).eps)
_HUGE = 1e300


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


def _side(name: str, given: Any) -> np.ndarray:
    """One side of the box: a number, or one per coefficient, without NaN."""
    try:
        side = np.array(given, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"the {name} bound is {given!r}; nagcore takes numbers. {_BOUNDS}") from None
    if side.ndim > 1:
        raise ValueError(f"the {name} bound has shape {side.shape}; nagcore takes one number, or an "
                         f"array of shape (d,). {_BOUNDS}")
    if np.isnan(side).any():
        raise ValueError(f"the {name} bound holds NaN; nagcore takes numbers, -np.inf and np.inf. {_BOUNDS}")
    return side


class Box:
    """The set l_j ≤ w_j ≤ u_j, and what solvers and certificates ask of it.

    Parameters
    ----------
    lower, upper : float or array of shape (d,)
        −∞ and ∞ for no bound; l_j = u_j fixes a coefficient.

    Attributes
    ----------
    lower, upper : ndarray of shape (1,) or (d,), float64
    nearest_zero : ndarray of shape (1,) or (d,)
        The point of the box with the least |w_j|.
    has_zero, finite, nonnegative : bool
        Whether w = 0 lies in the box; whether every side of it is finite; whether it is w ≥ 0.

    Raises
    ------
    TypeError, ValueError
        NaN, shapes that do not go together, l_j > u_j, l_j = ∞ or u_j = −∞.

    >>> box = Box([-1.0, 2.0], np.inf)
    >>> box.nearest_zero, box.has_zero
    (array([0., 2.]), False)
    """

    def __init__(self, lower: Any, upper: Any) -> None:
        lower, upper = _side("lower", lower), _side("upper", upper)
        if 1 not in (lower.size, upper.size) and lower.shape != upper.shape:
            raise ValueError(f"the lower bound has {lower.size} numbers and the upper bound {upper.size}; "
                             f"nagcore takes as many of both. {_BOUNDS}")
        lower, upper = (np.array(side) for side in np.broadcast_arrays(*np.atleast_1d(lower, upper)))
        wrong = np.flatnonzero(~((lower <= upper) & (lower < np.inf) & (upper > -np.inf)))
        if wrong.size:
            j = int(wrong[0])
            raise ValueError(f"the bounds of coefficient {j} are {lower[j]} and {upper[j]}, and no number "
                             "lies within; nagcore takes lower ≤ upper, lower < ∞ and upper > −∞. "
                             f"{_BOUNDS}")
        self._know(lower, upper)

    def _know(self, lower: np.ndarray, upper: np.ndarray) -> None:
        self.lower, self.upper = lower, upper
        self.nearest_zero = np.minimum(np.maximum(lower, 0.0), upper)
        self.has_zero = not self.nearest_zero.any()
        self._open_below, self._open_above = lower == -np.inf, upper == np.inf
        self._below, self._above = self._open_below.nonzero()[0], self._open_above.nonzero()[0]
        self.finite = not (self._below.size or self._above.size)
        self.nonnegative = self._above.size == upper.size and not lower.any()
        # An infinite side has no rounding: nothing is near it.
        sizes = [np.minimum(np.abs(side), _HUGE) for side in (lower, upper)]
        self._sides = [(lower, sizes[0], 1.0)] if self._below.size < lower.size else []
        self._sides += [(upper, sizes[1], -1.0)] if self._above.size < upper.size else []
        lower.flags.writeable = upper.flags.writeable = False

    @classmethod
    def _known(cls, lower: np.ndarray, upper: np.ndarray) -> Box:
        """Of bounds that are those of another box."""
        box = cls.__new__(cls)
        box._know(lower, upper)
        return box

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Box) and np.array_equal(self.lower, other.lower)
                and np.array_equal(self.upper, other.upper))

    def __hash__(self) -> int:
        return hash((self.lower.tobytes(), self.upper.tobytes()))

    def __repr__(self) -> str:
        return f"Box({self.lower.tolist()}, {self.upper.tolist()})"

    @classmethod
    def of(cls, bounds: Any) -> Box:
        """From a pair, from another Box, or from an object with lb and ub, as scipy.optimize.Bounds.

        >>> Box.of((0, [1.0, 2.0]))
        Box([0.0, 0.0], [1.0, 2.0])
        """
        if isinstance(bounds, Box):
            return bounds
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            return cls(bounds.lb, bounds.ub)
        if not isinstance(bounds, (tuple, list, np.ndarray)):
            raise TypeError(f"bounds is {type(bounds).__name__}; nagcore takes a pair, or an object with "
                            f".lb and .ub. {_BOUNDS}")
        if len(bounds) != 2:
            raise ValueError(f"bounds holds {len(bounds)} items; nagcore takes two, all lower bounds and "
                             f"all upper bounds. {_BOUNDS}")
        return cls(*bounds)

    @property
    def free(self) -> bool:
        """Whether it bounds nothing."""
        return self._below.size == self._above.size == self.lower.size

    @property
    def rests_at_zero(self) -> bool:
        """Whether zero is an end of every side: w_j = 0 is then where coefficients stop."""
        return bool(((self.lower == 0) | (self.upper == 0)).all())

    def both(self, other: Box) -> Box:
        """The intersection.

        >>> Box(-1.0, 1.0).both(Box(0.0, np.inf))
        Box([0.0], [1.0])
        """
        return Box(np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper))

    def of_columns(self, d: int) -> Box:
        """The same box with d numbers on either side.

        Raises
        ------
        ValueError
            It is of another number of coefficients.
        """
        if self.lower.shape == (d,):
            return self
        if self.lower.size != 1:
            raise ValueError(f"bounds has {len(self.lower)} numbers a side and X {d} columns; nagcore takes "
                             f"one number, or one for each column. {_BOUNDS}")
        return Box._known(np.full(d, self.lower), np.full(d, self.upper))

    def at(self, index: np.ndarray) -> Box:
        """The sides of some coefficients, by their numbers."""
        return Box._known(self.lower[index], self.upper[index])

    def contains(self, w: np.ndarray) -> bool:
        """Whether w, of shape (d,), lies inside."""
        return bool(((w >= self.lower) & (w <= self.upper)).all())

    def clip(self, w: np.ndarray) -> np.ndarray:
        """The nearest point of the box."""
        return np.clip(w, self.lower, self.upper)

    def snap(self, w: np.ndarray, size: np.ndarray) -> np.ndarray:
        """`clip`, where what is within the rounding of numbers like `size` of a bound is put on it."""
        near = np.abs(size)
        for side, size_of_side, sign in self._sides:
            w = np.where(sign * (w - side) <= _SNAP * (near + size_of_side), side, w)
        return w

    def reach(self, g: np.ndarray) -> np.ndarray:
        """What must be ≤ l1 for w_j = 0 to be best under the slope g_j: |g_j|, −g_j, g_j; ∞ off the box.

        >>> Box([-1.0, 0.0, 1.0], 2.0).reach(np.array([3.0, 3.0, 3.0]))
        array([ 3., -3., inf])
        """
        down = np.where(self.lower < 0, g, -np.inf)
        up = np.where(self.upper > 0, -g, -np.inf)
        return np.where(self.nearest_zero == 0, np.maximum(down, up), np.inf)

    def excess(self, u: np.ndarray) -> float:
        """What must be within l1 for Ω*(−u) to be finite at l2 = 0: the slope towards an infinite side."""
        one = self.lower.size == 1  # for all coefficients
        down = float((u if one else u[self._below]).max(initial=0.0)) if self._below.size else 0.0
        up = -float((u if one else u[self._above]).min(initial=0.0)) if self._above.size else 0.0
        return max(down, up)

    def fenchel(self, w: np.ndarray, u: np.ndarray, l1: float, l2: float) -> float:
        """Σ_j Ω_j(w_j) + Ω_j*(−u_j) + w_j u_j, Ω_j = (l2/2)w² + l1|w| in the box and ∞ elsewhere.

        Ω_j*(c) = max over the box of cw − (l2/2)w² − l1|w|, at ŵ = clip(soft(c, l1)/l2, l, u), or, at l2 =
        0, at the end that c points to, or where |c| ≤ l1 at the point nearest to zero. With σ ∈ l1·∂|ŵ| and
        q = c − l2·ŵ − σ, which is ≤ 0 at the lower bound, ≥ 0 at the upper and 0 between them, it is

            Σ_j (l2/2)(w_j − ŵ_j)² − q_j(w_j − ŵ_j) + l1|w_j| − σ_j w_j

        a sum of terms ≥ 0. It stands there for Ω without its indicator, so that F less this is the
        dual value at points outside the box, too. Infinite where ŵ is.

        >>> Box(-1.0, 1.0).fenchel(np.array([0.5, 1.0]), np.array([-2.0, -2.0]), 0.0, 0.0)
        1.0
        """
        if self.nonnegative:  # the same for the box that is met most, in a third of the operations
            q = -u - l1
            kept = float(np.sum(w * np.maximum(-q, 0.0) + l1 * (np.abs(w) - w)))
            if l2 == 0:
                return kept if float(q.max(initial=0.0)) <= _FEASIBLE * l1 else math.inf
            miss = l2 * w - np.maximum(q, 0.0)
            return kept + float(np.sum(miss * miss)) / (2 * l2)
        c = -u
        if l2 == 0:  # a slope of l1 up to rounding is one of l1
            c = np.where(self._open_above & (c <= l1 * (1 + _FEASIBLE)), np.minimum(c, l1), c)
            c = np.where(self._open_below & (-c <= l1 * (1 + _FEASIBLE)), np.maximum(c, -l1), c)
        held = np.minimum(np.maximum(c, -l1), l1)
        soft = c - held
        if l2:
            with np.errstate(over="ignore"):
                best = np.minimum(np.maximum(soft / l2, self.lower), self.upper)
        else:
            best = np.where(soft > 0, self.upper, np.where(soft < 0, self.lower, self.nearest_zero))
        if not (self.finite or np.isfinite(best).all()):
            return math.inf
        sigma = np.where(best == 0, held, np.copysign(l1, best))
        inside = (best > self.lower) & (best < self.upper) & (best != 0)
        normal = np.where(inside, 0.0, c - l2 * best - sigma)
        off = w - best
        return float(np.sum(off * (0.5 * l2 * off - normal) + (l1 * np.abs(w) - sigma * w)))


_NONNEGATIVE = Box(0.0, np.inf)


@dataclass(frozen=True)
class Penalty:
    """The pair of strengths in F = data term + (l2/2)‖w‖² + l1‖w‖₁, and what bounds w.

    Parameters
    ----------
    l2, l1 : float
        Finite and not negative.
    positive : bool
        Whether w ≥ 0 is asked for: Ω is infinite elsewhere. With `bounds`, their intersection.
    bounds : Box, (lower, upper) or an object with lb and ub, optional
        l_j ≤ w_j ≤ u_j, each one number or an array of shape (d,). It is a `Box` afterwards, that of
        `positive` included, or None where nothing is bounded.

    Raises
    ------
    TypeError, ValueError
        A strength that is not a number, negative, NaN or infinite; `positive` that is not a bool; bounds
        that are none.

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
    bounds: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.positive, bool):
            raise TypeError(f"positive is {self.positive!r}; nagcore takes True or False. "
                            "Use positive=True for coefficients ≥ 0.")
        object.__setattr__(self, "l2", _strength("l2", self.l2))
        object.__setattr__(self, "l1", _strength("l1", self.l1))
        if self.bounds is None and not self.positive:
            return
        box = _NONNEGATIVE if self.bounds is None else Box.of(self.bounds)
        if self.positive and not (box.lower >= 0).all():
            below = np.flatnonzero(box.upper < 0)
            if below.size:
                j = int(below[0])
                raise ValueError(f"positive is True and the upper bound of coefficient {j} is "
                                 f"{box.upper[j]}; nagcore takes both where a number lies within "
                                 "both. Use positive=False, or upper bounds ≥ 0.")
            box = box.both(_NONNEGATIVE)
        object.__setattr__(self, "bounds", None if box.free else box)

    def of_columns(self, d: int, k: int) -> Penalty:
        """The same with d numbers on either side of the bounds, for a loss of k margins a row.

        Raises
        ------
        ValueError
            Bounds of another number of coefficients, or for several classes.
        """
        if self.bounds is None:
            return self
        if k > 1:
            raise ValueError(f"bounds are given and the loss has {k} classes; nagcore takes them for losses "
                             'of one margin. Use bounds=None, or loss="logistic", a class against the rest.')
        return replace(self, bounds=self.bounds.of_columns(d))

    @property
    def name(self) -> str:
        """One of `names()`: which of the two strengths are positive."""
        return names()[(self.l1 > 0) + 2 * (self.l2 > 0)]

    @property
    def smooth(self) -> bool:
        """Whether there is nothing that needs a prox: neither l1 nor a constraint."""
        return self.l1 == 0 and self.bounds is None

    @property
    def provable(self) -> bool:
        """Whether a dual point bounds min F from below: there is a strength, or every side is finite.

        >>> Penalty(bounds=(-1, 1)).provable, Penalty(positive=True).provable
        (True, False)
        """
        return self.l1 > 0 or self.l2 > 0 or (self.bounds is not None and self.bounds.finite)

    def reach(self, g: np.ndarray) -> np.ndarray:
        """What must be ≤ l1 for w_j = 0 to be best under the slope g_j of all else: |g_j| without bounds.

        >>> Penalty(positive=True).reach(np.array([1.0, -2.0]))
        array([-1.,  2.])
        """
        return np.abs(g) if self.bounds is None else self.bounds.reach(g)
