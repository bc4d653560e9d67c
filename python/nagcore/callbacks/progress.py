"""How far a run is, while it runs: for a terminal or a notebook, and silent where no one watches."""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from ._checks import number, real, whole
from .state import State

__all__ = ["Progress"]

_STYLES = ("auto", "rich", "tqdm", "plain")
_WIDTH = 24  # characters of the bar


class Progress:
    """A line that shows how far a run is, drawn by rich or tqdm, or as plain text where neither is there.

    It draws where someone can see it: in a terminal, with rich, else tqdm, else plain text, and in a
    notebook, with tqdm's widget, else plain text. Elsewhere (a pipe, a log file, a scheduler) it writes
    nothing at all. With `report` it draws nothing and calls that instead, wherever it runs.

    As a callback of `nagcore.minimize` the bar is the way of the relative gap from 1 to tol on a logarithmic
    scale, on which a linear rate looks linear.

    Parameters
    ----------
    report : callable, optional
        Takes a State of `nagcore.minimize`, say to move a bar of your own; what it returns is ignored.
    every : float
        Seconds between two drawings, ≥ 0.
    total : int, optional
        Steps of a loop of your own.
    label : str
        In front of the line.
    style : {"auto", "rich", "tqdm", "plain"}
    file : text stream
        Where to, `sys.stderr` by default; only a terminal is written to.

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came and what is accepted.
    ModuleNotFoundError
        A style was asked for by name and its library is not installed.

    Examples
    --------
    >>> from nagcore.callbacks import Progress
    >>> with Progress(total=100, label="train") as progress:
    ...     for step in range(1, 101):
    ...         progress.update(step, loss=1 / step)
    >>> Progress(lambda state: print(state.value), every=0.5)
    Progress(every=0.5)
    """

    def __init__(
        self,
        report: Callable[[State], object] | None = None,
        every: float = 0.1,
        *,
        total: int | None = None,
        label: str = "",
        style: str = "auto",
        file: TextIO | None = None,
    ) -> None:
        if report is not None and not callable(report):
            raise TypeError(f"report is {type(report).__name__}; Progress takes a callable or None. "
                            "Use Progress(report=print), or Progress() for a bar.")
        if not 0 <= real(every) < math.inf:
            raise ValueError(f"every is {every!r}; Progress takes seconds ≥ 0. Use Progress(every=0.1).")
        if style not in _STYLES:
            raise ValueError(f"style is {style!r}; Progress takes {', '.join(_STYLES)}. "
                             'Use Progress(style="auto").')
        self.total = None if total is None else whole(total, "total", "Progress", 1, 1000)
        self.every, self.label, self.style = float(every), str(label), style
        self._report, self._next = report, -math.inf
        self._file = sys.stderr if file is None else file
        self._line: _Line | None = None
        self._last: Callable[[], tuple[float | None, str]] | None = None  # what is not drawn yet
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._done = 0.0
        if style in ("rich", "tqdm"):
            _require(style)  # the error comes here and not in the first step

    def update(self, step: int, **values: float) -> None:
        """Show the step of a loop of your own, and numbers by name: `progress.update(step, loss=loss)`."""
        if type(self._line) is _Silent:
            return
        now = time.monotonic()
        if now < self._next:
            self._last = lambda: self._step(step, values)
        else:
            self._next = now + self.every
            self._draw(*self._step(step, values))

    def __call__(self, state: State) -> None:
        """Show an iteration of `nagcore.minimize`."""
        if state.n_iter <= 1:
            self.close()
            self._next, self._done = -math.inf, 0.0
        if state.seconds < self._next:
            self._last = lambda: self._of(state)
            return
        self._next = state.seconds + self.every
        if self._report is not None:
            self._report(state)
        else:
            self._draw(*self._of(state))

    def finish(self, state: State) -> None:
        """End the line of a `nagcore.minimize` run."""
        self.close()

    def close(self) -> None:
        """Draw the last step and end the line; the next step would begin another."""
        if self._line is not None and self._last is not None:
            self._draw(*self._last())
        self._last = None
        if self._finalizer is not None:
            self._finalizer()
        self._line, self._finalizer = None, None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _step(self, step: int, values: dict[str, float]) -> tuple[float | None, str]:
        numbers = [f"{name} {number(value, name, 'Progress.update'):.4g}" for name, value in values.items()]
        if self.total is None:
            return None, " · ".join([f"{step}", *numbers])
        return min(step / self.total, 1.0), " · ".join([f"{step}/{self.total}", *numbers])

    def _of(self, state: State) -> tuple[float, str]:
        if 0 < state.relative_gap < 1:
            tol = min(max(state.tol, 1e-16), 0.5)
            self._done = max(self._done, min(math.log(state.relative_gap) / math.log(tol), 1.0))
        elif state.relative_gap == 0:
            self._done = 1.0
        gap = "–" if math.isnan(state.gap) else f"{state.gap:.3g}"
        rate = state.nbytes * state.n_passes / max(state.seconds, 1e-9) / 1e9
        return self._done, f"{state.n_passes:.4g} passes · F {state.value:.6g} · gap {gap} · {rate:.1f} GB/s"

    def _draw(self, part: float | None, text: str) -> None:
        if self._line is None:
            self._line = _line(self.style, self._file)
            # A line that is still open when the process ends would leave the terminal without a cursor.
            self._finalizer = weakref.finalize(self, _end, self._line)
        self._last = None
        try:
            self._line.show(part, f"{self.label} {text}".strip())
        except (OSError, ValueError):  # the terminal is gone: no reason to lose the run
            self._line = _Silent()

    def __repr__(self) -> str:
        return f"Progress(every={self.every})"


class _Line:
    """Something that shows one line over and over; `part` in [0, 1] is how far, None is not known."""

    def show(self, part: float | None, text: str) -> None:
        raise TypeError

    def close(self) -> None:
        raise TypeError


class _Silent(_Line):
    def show(self, part: float | None, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class _Plain(_Line):
    """Text over the same line by a carriage return, cut to the width of the terminal."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._shown, self._begun = file, 0, time.monotonic()

    def show(self, part: float | None, text: str) -> None:
        if part is not None:
            filled = round(part * _WIDTH)
            text = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {text}"
        text = f"{text} · {time.monotonic() - self._begun:.0f} s"[: _columns(self._file) - 1]
        text = text.encode(self._file.encoding or "ascii", "replace").decode(self._file.encoding or "ascii")
        self._file.write("\r" + text.ljust(self._shown))
        self._file.flush()
        self._shown = len(text)

    def close(self) -> None:
        if self._shown:
            self._shown = 0
            self._file.write("\n")
            self._file.flush()


class _Rich(_Line):
    """rich's bar, refreshed by nobody but us: no thread of its own."""

    def __init__(self, file: TextIO) -> None:
        progress, console = _require("rich"), importlib.import_module("rich.console")
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=_WIDTH), progress.TextColumn("{task.description}", markup=False),
            progress.TimeElapsedColumn(), console=console.Console(file=file), auto_refresh=False)  # fmt: skip
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def show(self, part: float | None, text: str) -> None:
        known = {} if part is None else {"total": 1.0, "completed": part}
        self._bar.update(self._task, description=text, **known)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.stop()


class _Tqdm(_Line):
    def __init__(self, file: TextIO, notebook: bool = False) -> None:
        module = importlib.import_module("tqdm.notebook") if notebook else _require("tqdm")
        where = {} if notebook else {"file": file, "ncols": _columns(file), "nrows": 24}
        self._bar = module.tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}", miniters=0, **where)

    def show(self, part: float | None, text: str) -> None:
        self._bar.n = self._bar.n if part is None else part
        self._bar.set_description_str(text, refresh=True)

    def close(self) -> None:
        self._bar.close()


def _end(line: _Line) -> None:
    with suppress(OSError, ValueError):  # the terminal is gone
        line.close()


def _line(style: str, file: TextIO) -> _Line:
    """The drawer for where we are."""
    notebook = _in_notebook()
    try:
        watched = notebook or file.isatty()
    except (AttributeError, ValueError):  # no stream, or a closed one
        watched = False
    if not watched:
        return _Silent()
    wanted = (style,) if style != "auto" else ("tqdm", "plain") if notebook else ("rich", "tqdm", "plain")
    if style == "auto" and not notebook and os.environ.get("TERM") == "dumb":
        wanted = ("plain",)
    for name in wanted:
        try:
            if name == "rich":
                return _Rich(file)
            if name == "tqdm":
                return _Tqdm(file, notebook)
        except ImportError:  # not installed, or no widgets for it
            continue
    return _Plain(file)


def _in_notebook() -> bool:
    """Whether an IPython kernel runs us, which nothing imports if it is not there."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return hasattr(shell, "kernel")


def _require(style: str) -> Any:
    try:
        return importlib.import_module("rich.progress" if style == "rich" else "tqdm")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != style:
            raise
        raise ModuleNotFoundError(f'Progress(style="{style}") needs {style}; pip install {style}, or use '
                                  'style="auto".', name=style) from None


def _columns(file: TextIO) -> int:
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80
