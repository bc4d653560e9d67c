"""What a run was like, in memory and as JSON lines that a crash does not take away."""

from __future__ import annotations

import json
import math
import numbers
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from nagcore._files import sync_folder

from ._checks import real
from .state import State

__all__ = ["History"]

VERSION = 1


class History:
    """Records a run in memory and, given a path, as JSON lines that outlive a crash of the process.

    The first line of the file is `{"nagcore_history": 1, …meta}`; every further one is a JSON object with
    the numbers of one step. Keys that `nagcore plot` knows are step, passes, seconds, loss or value, gap,
    grad_norm, lr, momentum and val_*; any other is kept as well. NaN is written as null and infinity
    as 1e999, which every JSON reader takes. A line is handed to the system when it is logged, so what
    a killed process has logged is in the file; only a power cut needs `fsync`.

    As a callback of `nagcore.minimize` it logs step, passes, seconds, value (the lowest so far), gap and,
    where the method has it, grad_norm; `minimize` returns one, without grad_norm, as `result.history`.

    Parameters
    ----------
    path : path, optional
        The file, by convention `*.jsonl`; its folder is made where there is none. One that is there
        and is a history is continued: a last line that was cut off is removed first.
    meta : mapping, optional
        JSON values for the first line of a new file, say the name of the run.
    fsync : float, optional
        Seconds between two calls of fsync; 0 is one a line. None, the default, leaves it to the system.
    overwrite : bool
        Begin a new file in place of one that is there.

    Attributes
    ----------
    rows : list of dict
        What was logged by this object, in order.
    meta : dict

    Raises
    ------
    ValueError
        The file that is there is no history, or of another version; it is not touched.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "run.jsonl")
    >>> with History(path, meta={"run": "first"}) as history:
    ...     for step in (1, 2, 3):
    ...         history.log(step=step, loss=1 / step)
    >>> found = History.read(path)
    >>> found.meta["run"], found["loss"].round(2).tolist()
    ('first', [1.0, 0.5, 0.33])
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        fsync: float | None = None,
        overwrite: bool = False,
    ) -> None:
        if fsync is not None and not real(fsync) >= 0:
            raise ValueError(f"fsync is {fsync!r}; History takes seconds ≥ 0 between two calls, or None "
                             "for none. Use History(path, fsync=1.0).")
        self.path = None if path is None else Path(path)
        self.meta: dict[str, Any] = dict(meta or {})
        self.rows: list[dict[str, Any]] = []
        self._fsync, self._synced = fsync, time.monotonic()
        self._stream: FileIO | None = None
        if self.path is not None:
            self._open(overwrite)

    def _open(self, overwrite: bool) -> None:
        first = _line({"nagcore_history": VERSION, **self.meta})  # fails before anything is written
        path, end = self.path, 0
        assert path is not None
        if not overwrite and path.exists():
            earlier, end = _parse(path)
            if end:
                self.meta = earlier.meta
        path.parent.mkdir(parents=True, exist_ok=True)
        # No buffer: a line is one write to the end of the file, and then it is the system's.
        self._stream = open(path, "ab", buffering=0)
        self._stream.truncate(end)
        if end == 0:
            self._write(first)
            if self._fsync is not None:
                self._sync()
                sync_folder(path.parent)

    def log(self, **values: Any) -> None:
        """Record one step; values are numbers, text, booleans, or None, which leaves the key out.

        Raises TypeError for any other value, and nothing is recorded.

        >>> history = History()
        >>> history.log(step=1, loss=0.5, val_accuracy=0.9)
        >>> history.rows
        [{'step': 1, 'loss': 0.5, 'val_accuracy': 0.9}]
        """
        self._record({key: _plain(key, value) for key, value in values.items() if value is not None})

    def _record(self, row: dict[str, Any]) -> None:
        if self._stream is not None:
            self._write(_line(row))
            if self._fsync is not None and time.monotonic() - self._synced >= self._fsync:
                self._sync()
        self.rows.append(row)

    def __call__(self, state: State) -> None:
        """Record one iteration of `nagcore.minimize`."""
        self.iteration(state.n_iter, state.n_passes, state.seconds, state.value, state.gap,
                       state.grad_norm)

    def iteration(self, n_iter: int, n_passes: float, seconds: float, value: float, gap: float,
                  grad_norm: float | None = None) -> None:
        """Record one iteration of `nagcore.minimize`, from the numbers themselves."""
        if self.rows and n_iter > 1:
            value = min(value, self.rows[-1].get("value", math.inf))
        row = {"step": n_iter, "passes": n_passes, "seconds": seconds, "value": value, "gap": gap}
        self._record(row if grad_norm is None else {**row, "grad_norm": grad_norm})

    def _write(self, line: str) -> None:
        stream = self._stream
        assert stream is not None
        begun, rest = os.fstat(stream.fileno()).st_size, memoryview(line.encode("ascii"))
        try:
            while rest:
                rest = rest[stream.write(rest):]
        except BaseException:
            # Half a line, as a full disk leaves it, would spoil the next one.
            with suppress(OSError):
                stream.truncate(begun)
            raise

    def _sync(self) -> None:
        assert self._stream is not None
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file, with an fsync if there were to be any; `log` then records in memory alone."""
        if self._stream is not None:
            if self._fsync is not None:
                self._sync()
            self._stream.close()
            self._stream = None

    def __enter__(self) -> History:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> History:
        """Read a file; a last line that a crash has cut off is left out.

        Raises ValueError when it is no history, of another version, or damaged before its last line.
        """
        return _parse(Path(path))[0]

    def __getitem__(self, key: str) -> np.ndarray:
        """One quantity over the rows, float64, NaN where a row has none."""
        if not any(key in row for row in self.rows):
            known = sorted({name for row in self.rows for name in row})
            raise KeyError(f"{key}: this history has {', '.join(known) or 'no rows'}")
        return np.array([row.get(key, math.nan) for row in self.rows], dtype=np.float64)

    def column(self, key: str) -> list[Any]:
        """One quantity over the rows as a list, NaN where a row has none; of any kind, known or not."""
        return [row.get(key, math.nan) for row in self.rows]

    @property
    def n_passes(self) -> list[float]:
        """Passes over X after each iteration."""
        return self.column("passes")

    @property
    def seconds(self) -> list[float]:
        """Wall-clock time after each row."""
        return self.column("seconds")

    @property
    def value(self) -> list[float]:
        """The lowest F so far, after each iteration of `minimize`."""
        return self.column("value")

    @property
    def gap(self) -> list[float]:
        """Bound or estimate of F(best) − min F after each iteration; NaN before there is one."""
        return self.column("gap")

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return "History(empty)"
        last = self.rows[-1]
        if "passes" in last and "value" in last:
            return (f"History({len(self)} iterations, {last['passes']} passes, {last['seconds']:.3g} s, "
                    f"value {last['value']:.6g}, gap {last.get('gap', math.nan):.3g})")
        shown = ", ".join(f"{key} {value:.6g}" for key, value in last.items() if isinstance(value, float))
        return f"History({len(self)} rows{': ' if shown else ''}{shown})"


def _plain(key: str, value: Any) -> Any:
    """A number, text or boolean as JSON has it; 0-d arrays and tensors are their number."""
    if type(value) in (bool, str, int, float):
        return value
    try:
        if isinstance(value, numbers.Integral):
            return int(value)
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, numbers.Real):
            return float(value)
        if tuple(value.shape) == ():
            return _plain(key, value.item()) if hasattr(value, "item") else float(value)
    except (AttributeError, TypeError, ValueError):
        pass  # neither a number nor a tensor that holds one
    raise TypeError(f"{key} is {type(value).__name__}; History takes numbers, text and booleans. "
                    "Use float(value).")


def _line(row: Mapping[str, Any]) -> str:
    """One JSON object and a newline, in ASCII; strict JSON, which has no NaN and no infinity."""
    try:
        return json.dumps(row, allow_nan=False) + "\n"
    except ValueError:
        # Only floats can be at fault. null and 1e999 are what JSON has for them.
        parts = (f"{json.dumps(str(key))}: {_number(value)}" for key, value in row.items())
        return "{" + ", ".join(parts) + "}\n"


def _number(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else f"{'-' if value < 0 else ''}1e999"
    return json.dumps(value, allow_nan=False)


def _parse(path: Path) -> tuple[History, int]:
    """The history in a file, and how many of its bytes are whole lines."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    # What stands behind the last newline is a line that was being written when the process ended.
    lines = data[:whole].split(b"\n")[:-1]
    found = History()
    if not lines and data[:1] not in (b"", b"{"):
        raise _no_history(path)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except ValueError:
            if number == 1:
                raise _no_history(path) from None
            raise ValueError(f"Line {number} of {path} is no JSON object, and it is not the last: the "
                             "file was changed after it was written. Take the line out.") from None
        if number == 1:
            if "nagcore_history" not in row:
                raise _no_history(path)
            version = row.pop("nagcore_history")
            if version != VERSION:
                raise ValueError(f"{path} has history format {version}; this nagcore reads {VERSION}. "
                                 "Read it with the version of nagcore that wrote it.")
            found.meta = row
        elif "nagcore_history" not in row:  # two files put together are one
            found.rows.append({key: math.nan if value is None else value for key, value in row.items()})
    return found, whole


def _no_history(path: Path) -> ValueError:
    return ValueError(f"{path} is no nagcore history: its first line is not "
                      '{"nagcore_history": 1, …}. Name a new file, or one that nagcore.callbacks.History '
                      "wrote.")
