"""Pictures of paths on a surface: still, and moving."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._extras import require
from ._style import COLOURS, DASHES, GREY, MARKERS, axes_or_new, framed, save, tidy
from ._style import figure as new_figure
from .surfaces import Surface, all_paths, surface_of

Methods = Mapping[str, Mapping[str, Any]]
_GRID = 240  # points a side at which a surface is evaluated for its contours
_LEVELS = 24
_FLOOR = 1e-16  # f − f* below this is drawn as this: float64 knows no better


def _lowest(surface: Surface, heights: np.ndarray, paths: Mapping[str, np.ndarray]) -> float:
    """f at the minimum where it is known, else the least value that was met."""
    if surface.minimum is not None:
        return float(surface.value(*map(np.float64, surface.minimum)))
    seen = [np.asarray(surface.value(*path.T), np.float64).min() for path in paths.values()]
    return float(min([np.nanmin(heights), *seen]))


def _heights(surface: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = (np.linspace(*limits, _GRID) for limits in surface.limits)
    with np.errstate(all="ignore"):
        grid = np.asarray(surface.value(*np.meshgrid(x, y)), np.float64)
    if grid.shape != (_GRID, _GRID):
        raise ValueError(
            f"The surface gives shape {grid.shape} for arrays of shape {(_GRID, _GRID)}; f(x, y) "
            "works elementwise on arrays. Use NumPy's functions, or np.vectorize(f)."
        )
    if not np.isfinite(grid).any():
        raise ValueError("The surface is finite nowhere within its limits.")
    return x, y, np.where(np.isfinite(grid), grid, np.nan)


def _descended(
    name: Surface | str, methods: Methods | None, lr: Any, steps: Any, start: Any
) -> tuple[Surface, Any, Any, float]:
    """The surface, the paths on it, its heights on a grid, and the lowest of all that was seen."""
    surface = surface_of(name)
    paths = all_paths(surface, methods, lr, steps, start)
    heights = _heights(surface)
    return surface, paths, heights, _lowest(surface, heights[2], paths)


def _draw_map(surface: Surface, axes: Any, heights: Any, lowest: float) -> None:
    """Contours of log(f − f* + c), on which both the valley's floor and its walls show."""
    x, y, grid = heights
    above = np.maximum(grid - lowest, 0)
    # c is of the size of the lower parts, so that as many contours run there as on the walls.
    above = np.log10(above + 1e-3 * np.nanmax(above) + 0.3 * np.nanquantile(above, 0.1) + 1e-300)
    levels = np.linspace(np.nanmin(above), np.nanmax(above), _LEVELS)
    if levels[0] == levels[-1]:
        raise ValueError("The surface is level within its limits; there is nothing to descend.")
    # Greys, the valley white: on them every colour of a path can be told.
    axes.contourf(x, y, above, levels=levels, cmap="Greys", vmax=2.2 * levels[-1] - 1.2 * levels[0])
    axes.contour(x, y, above, levels=levels[1::2], colors="#8a8a8a", linewidths=0.5,
                 linestyles="solid")  # fmt: skip
    axes.set_xlim(*surface.limits[0])
    axes.set_ylim(*surface.limits[1])
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    framed(axes)


def surface_paths(
    surface: Surface | str = "rosenbrock",
    *,
    methods: Methods | None = None,
    lr: float | None = None,
    steps: int | None = None,
    start: Sequence[float] | None = None,
    ax: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw the paths of gradient descent, heavy ball and Nesterov over a map of the surface.

    Parameters
    ----------
    surface : Surface or {"quadratic", "rosenbrock", "beale"}
    methods : mapping of name to mapping, optional
        Arguments of `descend` for each path. Default gradient descent, and heavy ball and Nesterov
        with momentum 0.9, everything else equal.
    lr, steps, start : optional
        For all paths; default the surface's own.
    ax, path, title
        As for `curves`.

    Returns
    -------
    matplotlib.axes.Axes
        Its lines are the paths, in the methods' order; the legend gives f − f* at their ends.

    Raises
    ------
    ValueError
        What `descend` refuses, and a function that does not work elementwise.

    Examples
    --------
    >>> axes = surface_paths("quadratic", steps=20)
    >>> [len(line.get_xdata()) for line in axes.lines[:3]]
    [21, 21, 21]
    """
    given, paths, heights, lowest = _descended(surface, methods, lr, steps, start)
    axes = axes_or_new(ax, 5.2)
    _draw_map(given, axes, heights, lowest)
    for i, (name, points) in enumerate(paths.items()):
        line, _ = _draw_path(axes, i, name, points)
        left = float(given.value(*points[-1])) - lowest
        line.set_label(f"{name}: f − f* = {left:.1e} after {len(points) - 1} steps")
    _draw_marks(given, axes, paths)
    axes.set_title(title or given.name, fontsize=11)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=9, frameon=False)
    return save(axes, path)


def _draw_path(axes: Any, i: int, name: str, points: np.ndarray) -> tuple[Any, Any]:
    colour = COLOURS[i % len(COLOURS)]
    (line,) = axes.plot(
        *points.T, color=colour, lw=1.5, marker=MARKERS[i % len(MARKERS)], markersize=3.4,
        markevery=max(1, len(points) // 60), markeredgewidth=0, label=name, zorder=3 + i,
    )  # fmt: skip
    end = axes.scatter(
        *points[-1], s=70, color=colour, edgecolor="black", linewidth=0.9, zorder=8 + i,
        marker=MARKERS[i % len(MARKERS)],
    )  # fmt: skip
    return line, end


def _draw_marks(surface: Surface, axes: Any, paths: Mapping[str, np.ndarray]) -> list[Any]:
    begun = next(iter(paths.values()))[0]
    marks = [axes.annotate(
        "start", begun, xytext=(-5, 7), textcoords="offset points", fontsize=9, zorder=20
    )]  # fmt: skip
    if surface.minimum is not None:
        marks.append(axes.scatter(
            *surface.minimum, marker="*", s=170, color="#E69F00", edgecolor="black", linewidth=0.9,
            zorder=7, label="minimum",
        ))  # fmt: skip
    return marks


def path_values(
    surface: Surface | str = "rosenbrock",
    *,
    methods: Methods | None = None,
    lr: float | None = None,
    steps: int | None = None,
    start: Sequence[float] | None = None,
    ax: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw f − f* along the paths of `surface_paths` against steps; same parameters and errors.

    Returns
    -------
    matplotlib.axes.Axes
        One line for each method.

    Examples
    --------
    >>> axes = path_values("quadratic", steps=20)
    >>> axes.get_yscale(), axes.get_xlabel()
    ('log', 'steps')
    """
    given, paths, _, lowest = _descended(surface, methods, lr, steps, start)
    axes = axes_or_new(ax, 4.2)
    for i, (name, points) in enumerate(paths.items()):
        _draw_values(axes, i, name, _above(given, points, lowest))
    _values_axes(axes)
    axes.legend(frameon=False, fontsize=9)
    if title:
        axes.set_title(title, fontsize=11)
    return save(axes, path)


def _above(surface: Surface, points: np.ndarray, lowest: float) -> np.ndarray:
    return np.maximum(np.asarray(surface.value(*points.T), np.float64) - lowest, _FLOOR)


def _draw_values(axes: Any, i: int, name: str, values: np.ndarray) -> Any:
    return axes.plot(values, color=COLOURS[i % len(COLOURS)], lw=1.8, label=name,
                     linestyle=DASHES[i % len(DASHES)])[0]  # fmt: skip


def _values_axes(axes: Any) -> None:
    axes.set_yscale("log")
    axes.set_xlabel("steps")
    axes.set_ylabel("f − f*")
    tidy(axes)


def animate_paths(
    surface: Surface | str = "rosenbrock",
    path: str | os.PathLike[str] = "paths.gif",
    *,
    methods: Methods | None = None,
    lr: float | None = None,
    steps: int | None = None,
    start: Sequence[float] | None = None,
    frames: int = 60,
    fps: int = 12,
    title: str | None = None,
) -> Any:
    """Write a GIF of the paths growing step by step: the map on the left, f − f* on the right.

    Parameters
    ----------
    surface, methods, lr, steps, start, title
        As for `surface_paths`.
    path : path ending in .gif
        Where it is written, by Pillow, which comes with matplotlib.
    frames : int
        Pictures, over which the steps are spread evenly; the last one is held for 1.5 seconds.
    fps : int
        Pictures a second.

    Returns
    -------
    matplotlib.figure.Figure
        As it looks at the end.

    Raises
    ------
    ValueError
        ``path`` does not end in .gif, fewer than 2 frames or 1 picture a second, and what
        `surface_paths` refuses.

    Examples
    --------
    >>> figure = animate_paths("beale", "beale.gif", steps=40, frames=3)
    >>> len(figure.axes), Path("beale.gif").read_bytes()[:3]
    (2, b'GIF')
    """
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"{os.fspath(path)} does not end in .gif; name it like paths.gif.")
    if frames < 2 or fps < 1:
        raise ValueError(f"frames is {frames} and fps {fps}; at least 2 frames and 1 a second.")
    given, paths, heights, lowest = _descended(surface, methods, lr, steps, start)
    figure = new_figure(3.9, title or given.name)
    figure.set_dpi(95)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_map(given, left, heights, lowest)
    growing = []
    for i, (name, points) in enumerate(paths.items()):
        line, end = _draw_path(left, i, name, points)
        values = _above(given, points, lowest)
        curve = _draw_values(right, i, name, values)
        growing.append((points, values, line, end, curve))
    marks = _draw_marks(given, left, paths)
    _values_axes(right)
    right.set_xlim(0, max(len(points) for points in paths.values()) - 1)
    right.autoscale(False)
    handles = [line for _, _, line, _, _ in growing]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False
    )
    longest = max(len(points) for points in paths.values())
    shown = np.unique(np.linspace(1, longest, frames).round().astype(int))
    pictures = _film(figure, growing, marks, shown)
    held = [round(1000 / fps)] * (len(pictures) - 1) + [1500]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=held, loop=0)
    return figure


def _film(figure: Any, growing: Sequence[Any], marks: Sequence[Any], shown: Any) -> list[Any]:
    """One picture for each count of steps: the map is drawn once, what moves is drawn over it.

    All pictures share one palette and are not dithered, which keeps still parts still, and the file
    small: the colours that the last one needs most, and those of the lines exactly.
    """
    canvas = require("matplotlib.backends.backend_agg", "plots", "drawing").FigureCanvasAgg(figure)
    image = require("PIL.Image", "plots", "writing a GIF")
    moving = [artist for *_, line, end, curve in growing for artist in (line, end, curve)]
    for artist in moving:
        artist.set_visible(False)
    canvas.draw()
    figure.set_layout_engine("none")  # one layout serves all frames
    still = canvas.copy_from_bbox(figure.bbox)
    for artist in moving:
        artist.set_visible(True)
    pictures = []
    for count in shown:
        canvas.restore_region(still)
        for points, values, line, end, curve in growing:
            line.set_data(*points[:count].T)
            end.set_offsets(points[min(count, len(points)) - 1][None])
            curve.set_data(np.arange(len(values[:count])), values[:count])
        for artist in sorted((*moving, *marks), key=lambda artist: artist.get_zorder()):
            artist.axes.draw_artist(artist)
        pictures.append(image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    exact = [*COLOURS, "#ffffff", "#dddddd", GREY]
    common = pictures[-1].quantize(96, dither=image.Dither.NONE).getpalette()[: 3 * 96]
    palette = image.new("P", (1, 1))
    palette.putpalette([*common, *(b for colour in exact for b in bytes.fromhex(colour[1:]))])
    return [picture.quantize(palette=palette, dither=image.Dither.NONE) for picture in pictures]
