"""Curves of training runs: loss, gap, gradient norm, lr and momentum against steps, passes, seconds.

A run is read from the JSON lines that ``nagcore.callbacks.History`` writes, from a result of
``nagcore.minimize``, or from plain rows and columns of numbers.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._extras import require
from ._style import COLOURS, DASHES, GREY, MARKERS, axes_or_new, save, tidy
from ._style import figure as new_figure

# What a quantity is called in files, and what stands at its axis.
_ALIASES = {"value": "loss", "n_passes": "passes", "n_iter": "steps", "step": "steps"}
_X_LABELS = {"steps": "steps", "passes": "passes over the data", "seconds": "time (seconds)"}
_Y_LABELS = {
    "loss": "loss",
    "gap": "gap F − F*",
    "grad_norm": "gradient norm ‖g‖",
    "lr": "learning rate",
    "momentum": "momentum µ",
}
_WIDE = 30.0  # a curve whose largest value is this many times its smallest is read on a log axis
_FEW = 30  # so many points are shown as points, too


class Run(NamedTuple):
    """One run as columns of numbers.

    Attributes
    ----------
    name : str
        What the legend calls it.
    meta : dict
        What the first line of a history file holds beside its version.
    columns : dict of str to ndarray of float64, shape (rows,)
        ``steps``, ``passes``, ``seconds``, ``loss``, ``gap``, … as far as recorded; NaN where a
        row lacks the number.

    Examples
    --------
    >>> run = read_run([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}], "small")
    >>> run.columns["loss"]
    array([0.5 , 0.25])
    """

    name: str
    meta: dict[str, Any]
    columns: dict[str, np.ndarray]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _to_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Columns of numbers; what a resumed run computed again replaces what stood there before."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(k for k, v in row.items() if _is_number(v)))
    for old, new in _ALIASES.items():
        if old in names and new in names:  # both spellings: the plain one counts
            del names[old]
    columns = {
        name: np.array([float(row[name]) if _is_number(row.get(name)) else np.nan for row in rows])
        for name in names
    }
    columns = {_ALIASES.get(name, name): values for name, values in columns.items()}
    steps = columns.get("steps")
    if steps is not None and (np.diff(steps) < 0).any():
        kept: list[int] = []
        for i, step in enumerate(steps):
            if i and step < steps[i - 1]:
                kept = [k for k in kept if not steps[k] >= step]
            kept.append(i)
        columns = {name: values[kept] for name, values in columns.items()}
    return columns


def _read_lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Give the JSON lines of a History.")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    parsed: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines) and parsed:
                warnings.warn(
                    f"{path}: the last line is cut off, and was left out; the run ended while "
                    "it was written.",
                    UserWarning,
                    stacklevel=4,
                )
                break
            raise ValueError(
                f"{path}, line {number} is no JSON ({error}). A history holds one object a line."
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is no JSON object; a history's lines are.")
        parsed.append(row)
    version = parsed[0].get("nagcore_history") if parsed else None
    if version != 1:
        said = "no version" if version is None else f"version {version!r}"
        raise ValueError(
            f"{path} begins with {said} of a history; nagcore reads JSON lines whose first is "
            '{"nagcore_history": 1}, as nagcore.callbacks.History writes them.'
        )
    meta = {key: value for key, value in parsed[0].items() if key != "nagcore_history"}
    return meta, parsed[1:]


def read_run(source: Any, name: str | None = None) -> Run:
    """Read a run from whatever holds one.

    Parameters
    ----------
    source : path, Run, result of `nagcore.minimize`, History, mapping of columns, or rows
        A path names JSON lines: first ``{"nagcore_history": 1, …}``, then one object for each
        record with any of ``step, passes, seconds, loss`` (or ``value``)``, gap, grad_norm, lr,
        momentum, val_*``. Rows are mappings with the same keys. Where steps begin again, as after
        a resumed run, later rows replace the earlier ones.
    name : str, optional
        Default the file's stem, else ``"run"``.

    Returns
    -------
    Run

    Raises
    ------
    FileNotFoundError
        No file at the path.
    ValueError
        A file that is no history, of another version, or broken before its last line; a run
        without rows. A cut last line, as a crash leaves it, is left out with a warning.
    TypeError
        Anything else.

    Examples
    --------
    >>> from pathlib import Path
    >>> text = '{"nagcore_history": 1, "lr": 0.1}\\n{"step": 1, "loss": 2.0}\\n'
    >>> _ = Path("run.jsonl").write_text(text)
    >>> run = read_run("run.jsonl")
    >>> run.name, run.meta, run.columns["steps"].tolist()
    ('run', {'lr': 0.1}, [1.0])
    """
    if isinstance(source, Run):
        return source if name is None else source._replace(name=name)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        meta, rows = _read_lines(path)
        run = Run(name or path.stem, meta, _to_columns(rows))
    else:
        columns = _columns_of(source)
        if columns is None:
            raise TypeError(
                f"A run is given as {type(source).__name__}; the path of a history, a result of "
                "nagcore.minimize, a History, rows or columns are read."
            )
        run = Run(name or "run", {}, columns)
    if not run.columns or not len(next(iter(run.columns.values()))):
        raise ValueError(f"The run {run.name!r} is empty; there is nothing to draw.")
    return run


def _columns_of(source: Any) -> dict[str, np.ndarray] | None:
    """Columns of an object that is no path; None if it holds no run."""
    if not isinstance(source, (Mapping, Sequence)):
        source = getattr(source, "history", source)  # a Result, or what keras's fit returns
        if isinstance(getattr(source, "rows", None), list):
            source = source.rows
        elif hasattr(source, "n_passes"):
            kept = ("n_passes", "seconds", "value", "gap")
            source = {name: list(getattr(source, name)) for name in kept}
            source["step"] = range(1, len(source["n_passes"]) + 1)
    if isinstance(source, Mapping):
        lengths = {len(values) for values in source.values()}
        if len(lengths) > 1:
            raise ValueError(f"The columns have {sorted(lengths)} rows; they need one length.")
        names = list(source)
        return _to_columns([dict(zip(names, row)) for row in zip(*source.values())])
    if isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        return _to_columns(source)
    return None


def _read_all(sources: Any) -> list[Run]:
    """Runs of a mapping name → source, of several sources, or of one; names are made distinct."""
    one = isinstance(sources, (str, os.PathLike, Run))
    if isinstance(sources, Mapping) and not any(_is_column(v) for v in sources.values()):
        runs = [read_run(source, name) for name, source in sources.items()]
    elif one or isinstance(sources, Mapping) or not isinstance(sources, Iterable):
        runs = [read_run(sources)]
    else:
        sources = list(sources)
        rows = bool(sources) and all(isinstance(s, Mapping) for s in sources)
        runs = [read_run(sources)] if rows else [read_run(source) for source in sources]
    if not runs:
        raise ValueError("No run is given; there is nothing to draw.")
    seen: set[str] = set()
    for i, run in enumerate(runs):
        name = run.name
        while name in seen:
            name += "′"
        seen.add(name)
        runs[i] = run._replace(name=name)
    return runs


def _is_column(value: Any) -> bool:
    return isinstance(value, (np.ndarray, list, tuple, range)) and all(
        value_i is None or _is_number(value_i) for value_i in value
    )


def _column(run: Run, name: str) -> np.ndarray:
    if name not in run.columns:
        raise ValueError(
            f"The run {run.name!r} records no {name!r}; it has "
            f"{', '.join(repr(key) for key in run.columns)}."
        )
    return run.columns[name]


def _smoothed(values: np.ndarray, beta: float) -> np.ndarray:
    """Exponential moving average without the bias of its start; NaN is passed over."""
    out, mean, weight = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        if math.isfinite(value):
            mean, weight = beta * mean + (1 - beta) * value, beta * weight + (1 - beta)
        out[i] = mean / weight if weight and math.isfinite(value) else np.nan
    return out


def curves(
    sources: Any,
    *,
    x: str = "steps",
    y: str = "loss",
    smooth: float = 0.0,
    log: bool | None = None,
    validation: bool = True,
    ax: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw one quantity of several runs over each other.

    Parameters
    ----------
    sources : mapping of name to source, sequence of sources, or one source
        As `read_run` takes them.
    x : str
        ``"steps"``, ``"passes"`` or ``"seconds"``, or another recorded column.
    y : str
        ``"loss"``, ``"gap"``, ``"grad_norm"``, ``"lr"``, ``"momentum"``, or another column.
    smooth : float in [0, 1)
        β of an exponential moving average e ← βe + (1 − β)v, divided by 1 − βᵗ; the recorded
        values stay behind it, faint. 0 draws them alone.
    log : bool, optional
        Logarithmic y. Default: for gap and gradient norm, and, learning rates apart, where all
        values are positive and the largest is more than 30 times the smallest.
    validation : bool
        Draw ``val_<y>`` of a run, where it is recorded, as points on a thin line of its colour.
    ax : matplotlib Axes, optional
        Where to draw; by default in a new figure.
    path : path, optional
        Where to write the picture.
    title : str, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        A run lacks the column (the message lists what it has), ``smooth`` out of range, no runs.

    Examples
    --------
    >>> rows = [{"step": t, "loss": 1 / t, "lr": 0.1} for t in range(1, 9)]
    >>> axes = curves({"first": rows, "second": rows[:4]}, y="loss")
    >>> axes.get_xlabel(), [line.get_label() for line in axes.lines]
    ('steps', ['first', 'second'])
    """
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth is {smooth}; it is the β of a moving average, in [0, 1).")
    x, y = _ALIASES.get(x, x), _ALIASES.get(y, y)
    runs = _read_all(sources)
    series = [(run, _column(run, x), _column(run, y)) for run in runs]
    axes = axes_or_new(ax, 4.2)
    drawn: list[np.ndarray] = []
    validated = False
    for i, (run, along, values) in enumerate(series):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        dash = dash if len(series) > 1 else "-"
        known = np.isfinite(along) & ~np.isnan(values)
        along_known, values_known = along[known], values[known]
        if smooth:
            axes.plot(along_known, values_known, color=colour, lw=0.8, alpha=0.25, zorder=1.5)
            values_known = _smoothed(values_known, smooth)
        few = len(values_known) <= _FEW
        axes.plot(along_known, values_known, color=colour, linestyle=dash, lw=1.8, label=run.name,
                  marker="o" if few else "", markersize=3.5)  # fmt: skip
        drawn.append(values_known)
        other = run.columns.get("val_" + y)
        if validation and other is not None:
            known = np.isfinite(along) & ~np.isnan(other)
            axes.plot(along[known], other[known], color=colour, linestyle=dash, lw=1.0,
                      marker=MARKERS[1:][i % 6] if known.sum() <= 4 * _FEW else "", markersize=5,
                      markerfacecolor="white", label=f"_{run.name}, validation")  # fmt: skip
            drawn.append(other[known])
            validated = True
    _scale(axes, y, drawn, log)
    axes.set_xlabel(_X_LABELS.get(x, x))
    axes.set_ylabel(_Y_LABELS.get(y, y.replace("_", " ")))
    if title:
        axes.set_title(title, fontsize=11)
    tidy(axes)
    if validated:  # one entry, in grey, for those of all runs
        axes.plot([], [], color=GREY, lw=1.0, marker="o", markersize=5, markerfacecolor="white",
                  label="validation")  # fmt: skip
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(fontsize=9, edgecolor="none", framealpha=0.85)
    return save(axes, path)


def _scale(axes: Any, y: str, drawn: Sequence[np.ndarray], log: bool | None) -> None:
    """Make y logarithmic where that is asked for, or reads better; masks what has no logarithm."""
    values = np.concatenate(drawn)
    positive = values[(values > 0) & np.isfinite(values)]
    if log is None:
        wide = bool(len(positive)) and positive.max() > _WIDE * positive.min()
        log = y in ("gap", "grad_norm") or (wide and y != "lr" and not (values <= 0).any())
    if log and len(positive):
        axes.set_yscale("log", nonpositive="mask")
        ticker = require("matplotlib.ticker", "plots", "drawing")
        if positive.max() < 200 * positive.min():  # too few powers of ten to read it by
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        else:
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def report(
    sources: Any,
    *,
    x: str | None = None,
    y: Sequence[str] | None = None,
    smooth: float = 0.0,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw several quantities of several runs, one panel for each: ``nagcore plot run.jsonl``.

    Parameters
    ----------
    sources
        As for `curves`.
    x : str, optional
        Default the first of steps, passes and seconds that all runs record.
    y : sequence of str, optional
        Default those of loss, gap, grad_norm, lr and momentum that all runs record.
    smooth, path, title
        As for `curves`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        As for `curves`; and runs that share no column to draw.

    Examples
    --------
    >>> rows = [{"step": t, "loss": 1 / t, "lr": 0.1} for t in range(1, 9)]
    >>> [axes.get_ylabel() for axes in report({"run": rows}).axes]
    ['loss', 'learning rate']
    """
    runs = _read_all(sources)

    def shared(names: Iterable[str]) -> list[str]:
        return [n for n in names if all(np.isfinite(r.columns.get(n, [])).any() for r in runs)]

    along = [x] if x is not None else shared(_X_LABELS)
    panels = list(y) if y is not None else shared(_Y_LABELS)
    if not along or not panels:
        lists = "; ".join(f"{run.name} has {', '.join(run.columns)}" for run in runs)
        raise ValueError(f"The runs share no column to draw: {lists}. Name them with x and y.")
    for name in (along[0], *panels):  # before a figure is made
        for run in runs:
            _column(run, _ALIASES.get(name, name))
    columns = 1 if len(panels) == 1 else 2
    n_rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.2 if n_rows == 1 and columns == 1 else 2.9 * n_rows, title)
    grid = figure.subplots(n_rows, columns, squeeze=False)
    for axes, name in zip(grid.flat, panels):
        noisy = name not in ("lr", "momentum")
        curves(runs, x=along[0], y=name, smooth=smooth if noisy else 0.0, ax=axes)
        if axes.get_legend() is not None:
            axes.get_legend().remove()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5),
                      frameon=False, fontsize=9)  # fmt: skip
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    return save(figure, path)
