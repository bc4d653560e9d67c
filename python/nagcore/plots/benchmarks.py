"""What ``nagcore bench`` measured, as bars beneath the machine's bandwidth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._style import COLOURS, save, tidy
from ._style import figure as new_figure


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
    figure = new_figure(3.4, title)
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes):
        part = sorted((row for row in dense if row["dtype"] == dtype), key=lambda row: row["d"])
        x, labels = np.arange(len(part)), [f"{row['d']:,}" for row in part]
        series = (("gbps", "nagcore, one pass"), ("peer_gbps", "NumPy, X @ w and X.T @ r"))
        for i, (key, label) in enumerate(series):
            heights = [row[key] for row in part]
            bars = axes.bar(
                x + (i - 0.5) * 0.4, heights, 0.38, color=COLOURS[i], label=label,
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
        tidy(axes)
        axes.grid(False, axis="x")
        axes.margins(y=0.12)
    panels[0].set_ylabel("GB/s of X")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save(figure, path)
