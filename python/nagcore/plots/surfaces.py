"""Paths of gradient descent, heavy ball and Nesterov on a surface over the plane.

The paths are taken by `nagcore.nesterov_step_` itself, in float64, not by a drawing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..update import nesterov_step_

Plane: TypeAlias = Callable[[Any, Any], Any]

# momentum and nesterov of each method's nesterov_step_.
METHODS: dict[str, dict[str, Any]] = {
    "gradient descent": {"momentum": 0.0, "nesterov": False},
    "heavy ball": {"momentum": 0.9, "nesterov": False},
    "Nesterov": {"momentum": 0.9, "nesterov": True},
}


@dataclass(frozen=True)
class Surface:
    """A function of two variables, and how it is best looked at.

    Parameters
    ----------
    value : callable(x, y)
        f, elementwise on arrays.
    gradient : callable(x, y) -> (∂f/∂x, ∂f/∂y), optional
        Default central differences, (f(x + h) − f(x − h))/2h with h = ε^⅓·max(1, |x|), ε = 2⁻⁵².
    start : (x, y)
        Where paths begin.
    limits : ((x0, x1), (y0, y1))
        What part of the plane is drawn.
    minimum : (x, y), optional
        Marked where it is known, and f there is what values are measured from.
    lr : float
        A step length that suits it.
    steps : int
        Steps that show the difference.
    name : str

    Raises
    ------
    ValueError
        Limits that are no intervals, or a start that is not two finite numbers.

    Examples
    --------
    >>> bowl = Surface(lambda x, y: x**2 + 3 * y**2, start=(1, 1), limits=((-2, 2), (-2, 2)))
    >>> bool(np.allclose(bowl.slope(1.0, 1.0), [2, 6]))
    True
    """

    value: Plane
    gradient: Plane | None = None
    start: tuple[float, float] = (0.0, 0.0)
    limits: tuple[tuple[float, float], tuple[float, float]] = ((-1.0, 1.0), (-1.0, 1.0))
    minimum: tuple[float, float] | None = None
    lr: float = 0.01
    steps: int = 60
    name: str = "f"

    def __post_init__(self) -> None:
        if not callable(self.value):
            raise TypeError(
                f"value is {type(self.value).__name__}; a surface is a callable f(x, y)."
            )
        limits = np.array(self.limits, np.float64)
        if limits.shape != (2, 2) or not np.isfinite(limits).all() or (np.diff(limits) <= 0).any():
            raise ValueError(
                f"limits are {self.limits}; they are two intervals, as in ((-2, 2), (-1, 3))."
            )
        _point(self.start, "start")

    def slope(self, x: float, y: float) -> np.ndarray:
        """∇f at a point, shape (2,), float64."""
        if self.gradient is not None:
            return np.array(self.gradient(x, y), np.float64).reshape(2)
        out = np.empty(2)
        for i in range(2):
            h = np.finfo(np.float64).eps ** (1 / 3) * max(1.0, abs((x, y)[i]))
            dx, dy = (h, 0.0) if i == 0 else (0.0, h)
            out[i] = (self.value(x + dx, y + dy) - self.value(x - dx, y - dy)) / (2 * h)
        return out


def _point(point: Any, name: str) -> np.ndarray:
    found = np.array(point, np.float64)
    if found.shape != (2,) or not np.isfinite(found).all():
        raise ValueError(f"{name} is {point}; it is two finite numbers (x, y).")
    return found


def quadratic(condition: float = 25.0) -> Surface:
    """f = (x² + κy²)/2: a valley whose walls are κ times as steep as its floor.

    Parameters
    ----------
    condition : float ≥ 1
        κ, the ratio of curvatures.

    Examples
    --------
    >>> quadratic(10).slope(2.0, 1.0)
    array([ 2., 10.])
    """
    if not (math.isfinite(condition) and condition >= 1):
        raise ValueError(f"condition is {condition}; it is κ ≥ 1, the ratio of curvatures.")
    return Surface(
        lambda x, y: 0.5 * (x**2 + condition * y**2),
        lambda x, y: (x, condition * y),
        start=(-9.0, 1.6), limits=((-10.0, 6.5), (-4.2, 4.2)), minimum=(0.0, 0.0),
        lr=0.6 / condition, steps=60, name=f"quadratic, condition {condition:g}",
    )  # fmt: skip


def rosenbrock() -> Surface:
    """f = (1 − x)² + 100(y − x²)²: a bent valley with an almost level floor (Rosenbrock 1960).

    >>> rosenbrock().slope(0.0, 0.0).tolist()
    [-2.0, 0.0]
    """
    return Surface(
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        lambda x, y: (-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)),
        start=(-1.2, 1.0), limits=((-1.7, 1.7), (-0.7, 2.2)), minimum=(1.0, 1.0),
        lr=4e-4, steps=600, name="Rosenbrock",
    )  # fmt: skip


def beale() -> Surface:
    """f = (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)², minimum 0 at (3, ½).

    Source: Beale (1958), "On an iterative method for finding a local minimum of a function of more
    than one variable".

    >>> bool(abs(beale().slope(3.0, 0.5)).max() < 1e-12)
    True
    """
    constants = (1.5, 2.25, 2.625)

    def value(x: Any, y: Any) -> Any:
        return sum((c - x + x * y**k) ** 2 for k, c in enumerate(constants, 1))

    def gradient(x: Any, y: Any) -> Any:
        terms = [(c - x + x * y**k, k) for k, c in enumerate(constants, 1)]
        return (
            sum(2 * t * (y**k - 1) for t, k in terms),
            sum(2 * t * k * x * y ** (k - 1) for t, k in terms),
        )

    return Surface(
        value, gradient, start=(0.6, 1.6), limits=((-0.4, 4.2), (-1.0, 2.0)), minimum=(3.0, 0.5),
        lr=3e-3, steps=300, name="Beale",
    )  # fmt: skip


SURFACES: dict[str, Callable[[], Surface]] = {
    "quadratic": quadratic,
    "rosenbrock": rosenbrock,
    "beale": beale,
}


def surface_of(surface: Surface | str) -> Surface:
    """A surface by its name, or itself."""
    if isinstance(surface, Surface):
        return surface
    if not isinstance(surface, str) or surface not in SURFACES:
        raise ValueError(
            f"surface is {surface!r}; there are {', '.join(map(repr, SURFACES))}. Your own is "
            "nagcore.plots.Surface(lambda x, y: …, start=…, limits=…)."
        )
    return SURFACES[surface]()


def descend(
    surface: Surface | str,
    *,
    lr: float | None = None,
    momentum: float = 0.9,
    nesterov: bool = True,
    steps: int | None = None,
    start: Sequence[float] | None = None,
) -> np.ndarray:
    """Walk down a surface with `nagcore.nesterov_step_`.

    θ ← θ − lr·(g + µb) or, with ``nesterov=False``, θ ← θ − lr·b, where b ← µb + g; ``momentum=0``
    is gradient descent. θ is the point at which gradients are taken, as in torch and keras.

    Parameters
    ----------
    surface : Surface or {"quadratic", "rosenbrock", "beale"}
    lr, steps, start : optional
        Default the surface's own.
    momentum : float
    nesterov : bool

    Returns
    -------
    ndarray of shape (steps + 1, 2), float64
        The start and the points after each step; shorter where the walk left the finite numbers.

    Raises
    ------
    ValueError
        An unknown surface, a start that is not finite, ``steps`` below 1, and what
        `nagcore.nesterov_step_` refuses.

    Examples
    --------
    >>> path = descend("quadratic", momentum=0.0, nesterov=False, lr=0.02, steps=2)
    >>> path.round(4).tolist()
    [[-9.0, 1.6], [-8.82, 0.8], [-8.6436, 0.4]]
    """
    surface = surface_of(surface)
    steps = surface.steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps is {steps}; a path has at least one.")
    theta = _point(surface.start if start is None else start, "start")
    buffer = np.zeros(2) if momentum else None
    path = [theta.copy()]
    with np.errstate(all="ignore"):
        for t in range(steps):
            nesterov_step_(
                theta, surface.slope(*theta), buffer, lr=surface.lr if lr is None else lr,
                momentum=momentum, nesterov=nesterov, first_step=t == 0, n_threads=1,
            )  # fmt: skip
            if not (np.isfinite(theta).all() and np.isfinite(surface.value(*theta))):
                break
            path.append(theta.copy())
    return np.array(path)


def all_paths(
    surface: Surface,
    methods: Mapping[str, Mapping[str, Any]] | None,
    lr: float | None,
    steps: int | None,
    start: Sequence[float] | None,
) -> dict[str, np.ndarray]:
    """The path of each method, everything else equal; a method may bring its own lr."""
    methods = METHODS if methods is None else methods
    if not methods:
        raise ValueError("methods is empty; there is no path to draw.")
    common = {"lr": lr, "steps": steps, "start": start}
    return {name: descend(surface, **{**common, **how}) for name, how in methods.items()}
