"""Objective and gap of fits against passes and seconds: what ``nagcore fit --plot`` draws."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._style import COLOURS, DASHES, save, tidy
from ._style import figure as new_figure


def convergence(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Any:
    """Draw objective and gap of one or more fits against passes over the data and seconds.

    Parameters
    ----------
    histories : mapping of str to sequence of mappings
        A name for each fit, and its history: entries with ``n_passes``, ``seconds``, ``value`` and
        ``gap`` (None or infinite where there is none yet).
    path : path, optional
        Where to write the picture; the suffix chooses the format (``.png``, ``.svg``, ``.pdf``).
    title : str, optional
        A line above the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        A history is empty, or the suffix of ``path`` is no format that matplotlib writes.
    ModuleNotFoundError
        matplotlib is not installed; the message names the extra.

    Examples
    --------
    >>> history = [dict(n_passes=i, seconds=i / 9, value=1 / i, gap=0.5**i) for i in range(1, 9)]
    >>> figure = convergence({"fista": history})
    >>> [axes.get_xlabel() for axes in figure.axes[2:]]
    ['passes over the data', 'time (seconds)']
    """
    figure = new_figure(5.0, title)
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for i, (name, history) in enumerate(histories.items()):
        if not history:
            raise ValueError(f"The history of {name!r} is empty; there is nothing to draw.")
        style = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[i % len(DASHES)] if len(histories) > 1 else "-",
            "linewidth": 1.8,
            "marker": "o" if len(history) <= 30 else "",
            "markersize": 3.5,
            "label": name,
        }
        passes, seconds, value, gap = (
            np.array([np.nan if row.get(key) is None else float(row[key]) for row in history])
            for key in ("n_passes", "seconds", "value", "gap")
        )
        gap[~(gap > 0)] = np.nan  # a gap of exactly zero has no place on a logarithmic axis
        for column, along in enumerate((passes, seconds)):
            grid[0, column].plot(along, value, **style)
            grid[1, column].plot(along, gap, **style)
    grid[0, 0].set_ylabel("objective F(w)")
    grid[1, 0].set_ylabel("gap: bound or estimate of F(w) − F*")
    grid[1, 0].set_xlabel("passes over the data")
    grid[1, 1].set_xlabel("time (seconds)")
    for axes in grid.flat:
        tidy(axes)
    if any(np.isfinite(line.get_ydata()).any() for line in grid[1, 0].lines):
        grid[1, 0].set_yscale("log")
    if len(histories) > 1:
        grid[0, 1].legend(frameon=False, fontsize=9)
    return save(figure, path)
