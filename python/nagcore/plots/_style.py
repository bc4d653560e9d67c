"""What all pictures share: colours, sizes, the way to a file. matplotlib is imported when used.

Figures are made without pyplot, so nothing global changes and no window opens. The colours are
Okabe and Ito's, which people with any colour vision tell apart; line styles repeat the distinction.
"""

from __future__ import annotations

import os
from typing import Any

from .._extras import require

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#555555"
# 8.6 inches at 110 dpi are the 950 pixels that a README shows without scaling; one panel, or a
# square one, is read at 7.2.
WIDTH, NARROW, DPI = 8.6, 7.2, 110


def figure(height: float, title: str | None = None, *, width: float = WIDTH) -> Any:
    """An empty matplotlib Figure, its layout constrained, ``width`` × ``height`` inches."""
    made = require("matplotlib.figure", "plots", "drawing").Figure(
        figsize=(width, height), dpi=DPI, layout="constrained"
    )
    if title:
        made.suptitle(title, fontsize=11)
    return made


def axes_or_new(ax: Any, height: float, *, width: float = NARROW) -> Any:
    """``ax`` itself, or the only axes of a new figure."""
    if ax is None:
        return figure(height, width=width).subplots()
    require("matplotlib.axes", "plots", "drawing")
    if not hasattr(ax, "plot") or not hasattr(ax, "figure"):
        raise TypeError(
            f"ax is {type(ax).__name__}; a matplotlib Axes is drawn on, and ax=None makes one."
        )
    return ax


def tidy(axes: Any) -> None:
    """Grid behind, no frame above and right, numbers at 9 points."""
    axes.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, color=GREY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def framed(axes: Any) -> None:
    """Numbers at 9 points and a thin frame: for images and surfaces, which need no grid."""
    axes.tick_params(labelsize=9, color=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
        spine.set_linewidth(0.7)


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise ValueError when the suffix of ``path`` is no picture format, before any work is done.

    >>> check_path("fit.png")
    """
    backend = require("matplotlib.backend_bases", "plots", "drawing").FigureCanvasBase
    kinds = backend.get_supported_filetypes()
    suffix = os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
    if suffix not in kinds:
        raise ValueError(
            f"{os.fspath(path)} ends in {suffix!r}; matplotlib writes {', '.join(sorted(kinds))}. "
            "Name the picture like fit.png."
        )


def save(figure_or_axes: Any, path: str | os.PathLike[str] | None) -> Any:
    """Write the picture where ``path`` names a file, and hand back what came in."""
    if path is not None:
        check_path(path)
        whole = figure_or_axes
        if not hasattr(whole, "savefig"):
            whole = whole.get_figure()
            while not hasattr(whole, "savefig"):  # axes of a subfigure: the picture is the whole
                whole = whole.figure
        whole.savefig(path, facecolor="white")
    return figure_or_axes
