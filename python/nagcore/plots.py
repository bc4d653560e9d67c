"""Pictures of a fit and of a benchmark: matplotlib, imported when the first one is drawn.

Figures are made without pyplot, so nothing global changes and no window opens. The colours are
Okabe and Ito's, which people with any colour vision tell apart; line styles repeat the distinction.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._extras import require

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_GREY = "#555555"
# 8.6 inches at 110 dpi are the 950 pixels that a README shows without scaling.
_WIDTH, _DPI = 8.6, 110


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
    figure = _figure(5.0, title)
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for i, (name, history) in enumerate(histories.items()):
        if not history:
            raise ValueError(f"The history of {name!r} is empty; there is nothing to draw.")
        style = {
            "color": _COLOURS[i % len(_COLOURS)],
            "linestyle": _DASHES[i % len(_DASHES)] if len(histories) > 1 else "-",
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
        _tidy(axes)
    if any(np.isfinite(line.get_ydata()).any() for line in grid[1, 0].lines):
        grid[1, 0].set_yscale("log")
    if len(histories) > 1:
        grid[0, 1].legend(frameon=False, fontsize=9)
    return _finish(figure, path)


def bandwidth(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Any:
    """Draw what ``nagcore bench`` measured for dense data: GB/s against the number of features.

    One panel for each dtype; nagcore and NumPy's two-pass code for one loss, and the machine's read
    bandwidth, all of one run.

    Parameters
    ----------
    rows : sequence of mappings
        The ``rows`` of ``nagcore bench --json FILE``.
    path, title
        As for `convergence`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        The rows hold no dense logistic result.

    Examples
    --------
    >>> row = dict(kernel="logistic", dtype="float32", d=200, n=10**6, gbps=20.0, roof_gbps=21.0,
    ...            peer="numpy", peer_gbps=8.0, layout="C")
    >>> bandwidth([row, row | dict(d=1000)]).axes[0].get_ylabel()
    'GB/s of X'
    """
    dense = [
        row for row in rows
        if row["kernel"] == "logistic" and row["layout"] == "C" and row.get("roof_gbps")
        and row.get("peer_gbps")  # the accuracy section times the same kernel with no rival
    ]  # fmt: skip
    dtypes = [t for t in ("float32", "float64") if any(row["dtype"] == t for row in dense)]
    if not dtypes:
        raise ValueError("The rows hold no dense logistic float32 or float64 result to draw.")
    figure = _figure(3.4, title)
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes):
        part = sorted((row for row in dense if row["dtype"] == dtype), key=lambda row: row["d"])
        x, labels = np.arange(len(part)), [f"{row['d']:,}" for row in part]
        series = (("gbps", "nagcore, one pass"), ("peer_gbps", "NumPy, X @ w and X.T @ r"))
        for i, (key, label) in enumerate(series):
            heights = [row[key] for row in part]
            bars = axes.bar(
                x + (i - 0.5) * 0.4, heights, 0.38, color=_COLOURS[i], label=label,
                hatch="" if i == 0 else "///", edgecolor="white", linewidth=0.5,
            )  # fmt: skip
            # The tall bars' numbers stand inside, clear of the bandwidth line above them.
            where: dict[str, Any] = {"padding": -12, "color": "white"} if i == 0 else {"padding": 1}
            axes.bar_label(bars, fmt="%.0f" if max(heights) >= 10 else "%.1f", fontsize=8, **where)
        for i, row in enumerate(part):
            roof = "read bandwidth, same run" if i == 0 else None
            axes.hlines(row["roof_gbps"], i - 0.45, i + 0.45, color="black", lw=1.6, label=roof)
        axes.set_xticks(x, labels)
        axes.set_xlabel("number of features d")
        axes.set_title(f"logistic, {dtype}", fontsize=10)
        _tidy(axes)
        axes.grid(False, axis="x")
        axes.margins(y=0.12)
    panels[0].set_ylabel("GB/s of X")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _finish(figure, path)


def _figure(height: float, title: str | None) -> Any:
    figure = require("matplotlib.figure", "plots", "drawing").Figure(
        figsize=(_WIDTH, height), dpi=_DPI, layout="constrained"
    )
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _tidy(axes: Any) -> None:
    axes.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, color=_GREY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


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


def _finish(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    if path is not None:
        check_path(path)
        figure.savefig(path, facecolor="white")
    return figure
