"""Checkpoints of a run: the newest few and the best, each whole or absent, that resume to the same bits."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from nagcore._files import remove_abandoned

from ._checks import number, whole
from .state import State
from .state_file import CheckpointError, Damaged, read_metadata, read_state, write_state

__all__ = ["Checkpoint", "Saved"]

_FILE = re.compile(r"checkpoint-(\d{6,})-step-(\d+)\.safetensors")

Content: TypeAlias = "Mapping[str, Any] | Callable[[], Mapping[str, Any]]"


class Saved(NamedTuple):
    """A checkpoint that was read.

    Attributes
    ----------
    step : int
    state : dict of str to ndarray
        New arrays with the bits that were saved, in the order in which they were given.
    metadata : dict
    metric : float or None
    path : pathlib.Path

    >>> Saved(3, {}, {}, 0.5, Path("checkpoint-000001-step-3.safetensors")).step
    3
    """

    step: int
    state: dict[str, np.ndarray]
    metadata: dict[str, Any]
    metric: float | None
    path: Path


class Checkpoint:
    """Writes states into a folder, keeps the newest few and the best, and finds them again.

    A file is written beside its place, synced, renamed into it, and the folder is synced: kill −9, a
    full disk or a power cut at any moment leaves the files that were there. It is written in the
    safetensors layout, with checksums and without pickle. A run resumes to the same bits when its
    state and metadata hold all that its future depends on: parameters, optimizer, generators of random
    numbers and the place in the data (`Batches`).

    As a callback of `nagcore.minimize` it saves the iterate as {"w": …} every `every` iterations, the value
    as its metric, and the best point when the run ends, be it by Ctrl-C;
    `minimize(objective, w0=checkpoint.load_best().state["w"])` goes on from there, with the
    acceleration anew.

    Parameters
    ----------
    folder : path
        One a run; it is made at the first save.
    every : int
        `update` and `minimize` save at multiples of this step.
    keep : int
        How many of the newest stay, ≥ 1. The best stays in addition.
    best : bool
        Whether `update` saves, and the folder keeps, what has the best metric.
    mode : {"min", "max"}
        Which metric is best.

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came and what is accepted.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from nagcore.callbacks import Checkpoint
    >>> checkpoint = Checkpoint(tempfile.mkdtemp(), every=2, keep=1)
    >>> w = np.zeros(3)
    >>> for step, loss in enumerate([0.9, 0.3, 0.5, 0.4], start=1):
    ...     w += step
    ...     _ = checkpoint.update(step, {"w": w}, metric=loss, metadata={"lr": 0.1})
    >>> latest, best = checkpoint.load_latest(), checkpoint.load_best()
    >>> latest.step, latest.state["w"].tolist(), latest.metadata
    (4, [10.0, 10.0, 10.0], {'lr': 0.1})
    >>> best.step, best.metric
    (2, 0.3)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int = 1000,
        keep: int = 3,
        best: bool = True,
        mode: str = "min",
    ) -> None:
        self.folder = Path(folder)
        self.every = whole(every, "every", "Checkpoint", 1, 1000)
        self.keep = whole(keep, "keep", "Checkpoint", 1, 3)
        if mode not in ("min", "max"):
            raise ValueError(f'mode is {mode!r}; Checkpoint takes "min" for losses and "max" for scores. '
                             'Use Checkpoint(folder, mode="max").')
        self.best, self.mode = bool(best), mode
        self._known: dict[Path, float | None] | None = None  # metrics of the folder's files, once looked at
        self._begun = 0  # the step that iteration 0 of this run of `minimize` is
        self._saved = -1  # the step that `minimize` was saved at last

    # Saving -------------------------------------------------------------------------------------

    def due(self, step: int) -> bool:
        """Whether step is a multiple of `every`."""
        return step % self.every == 0

    def is_best(self, metric: float | None) -> bool:
        """Whether metric is better than that of every checkpoint in the folder; NaN and None are not."""
        if metric is None or math.isnan(metric := number(metric, "metric", "Checkpoint")):
            return False
        best = self._best(self._metrics())
        return best is None or self._better(metric, best[1])

    def update(
        self,
        step: int,
        state: Content,
        *,
        metric: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Path | None:
        """`save` when the step is due or, with `best`, the metric is the best so far; else None.

        `state` may be a function that makes the state: it is called only when a file is written.
        """
        step = whole(step, "step", "Checkpoint.update", 0, 1)
        if self.due(step) or (self.best and self.is_best(metric)):
            return self.save(step, state, metric=metric, metadata=metadata)
        return None

    def save(
        self,
        step: int,
        state: Content,
        *,
        metric: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint now; return its path once it is on the disk.

        Parameters
        ----------
        step : int
            ≥ 0. The newest checkpoint is the one written last, whatever its step.
        state : mapping of str to array, or a function that returns one
        metric : float, optional
            What is to be best.
        metadata : mapping, optional
            Numbers, text, lists, tuples, dicts with text keys and small arrays, such as
            `rng.bit_generator.state`, `guard.state_dict()`, `batches.state_dict()`.

        Raises
        ------
        TypeError, ValueError
            What cannot be written without pickle, by name.
        OSError
            The disk is full, say. The checkpoints that were there still are.
        """
        step = whole(step, "step", "Checkpoint.save", 0, 1)
        metric = None if metric is None else number(metric, "metric", "Checkpoint")
        notes = {"step": step, "metric": metric, "metadata": dict(metadata or {})}
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder, "checkpoint-*.safetensors")
        earlier = self.paths
        count = 1 + max((_number(path) for path in earlier), default=0)
        path = self.folder / f"checkpoint-{count:06d}-step-{step}.safetensors"
        write_state(path, state() if callable(state) else state, notes)
        self._metrics()[path] = metric
        self._prune([*earlier, path])
        return path

    def __call__(self, state: State) -> None:
        """Save w of a `nagcore.minimize` run when it is due."""
        if state.n_iter <= 1:
            # A run that goes on from a checkpoint goes on counting, too.
            self._begun = max((_step(path) for path in self.paths), default=0)
            self._saved = -1
        # Nearly every iteration is the best so far, so that only those that are due are saved.
        if self.due(self._begun + state.n_iter):
            self._save_run(state)

    def finish(self, state: State) -> None:
        """Save the best w of a `nagcore.minimize` run that has ended, unless its last step was saved."""
        if self._begun + state.n_iter != self._saved:
            self._save_run(state)

    def _save_run(self, state: State) -> None:
        step = self._begun + state.n_iter
        self.save(step, {"w": state.w}, metric=state.value, metadata={
            "n_iter": state.n_iter, "n_passes": state.n_passes, "seconds": state.seconds,
            "gap": state.gap, "gap_kind": state.gap_kind})
        self._saved = step

    def _prune(self, paths: list[Path]) -> None:
        kept = set(paths[-self.keep:])
        known = self._metrics()
        if self.best and (best := self._best(known)) is not None:
            kept.add(best[0])
        for path in paths:
            if path not in kept:
                path.unlink(missing_ok=True)
                known.pop(path, None)

    # Finding ------------------------------------------------------------------------------------

    @property
    def paths(self) -> list[Path]:
        """The checkpoints in the folder, the one written last at the end; not yet looked into."""
        found = [p for p in self.folder.glob("checkpoint-*.safetensors") if _FILE.fullmatch(p.name)]
        return sorted(found, key=_number)

    def load_latest(self) -> Saved | None:
        """The newest whole checkpoint, or None where there are no files at all.

        A damaged one, which only a failing disk or another program leaves, is passed over with a
        RuntimeWarning. Raises CheckpointError when none is whole, or one is of another version or
        holds pickle.
        """
        return self._first_whole(self.paths[::-1])

    def load_best(self) -> Saved | None:
        """The whole checkpoint with the best metric, or None; damaged ones as in `load_latest`."""
        known = dict(self._metrics(afresh=True))
        ranked = []
        while (best := self._best(known)) is not None:
            ranked.append(best[0])
            del known[best[0]]
        return self._first_whole(ranked)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Saved:
        """Read one file; CheckpointError when it is cut off, changed, of another version or something else.

        >>> import tempfile
        >>> path = Checkpoint(tempfile.mkdtemp()).save(7, {"w": np.ones(2)}, metadata={"epoch": 3})
        >>> Checkpoint.read(path).metadata
        {'epoch': 3}
        """
        state, notes = read_state(path)
        if not {"step", "metric", "metadata"} <= set(notes):
            raise CheckpointError(f"{path} was written by write_state and not by Checkpoint.save. "
                                  "Read it with nagcore.callbacks.state_file.read_state.")
        return Saved(notes["step"], state, notes["metadata"], notes["metric"], Path(path))

    def _first_whole(self, paths: list[Path]) -> Saved | None:
        error: CheckpointError | None = None
        for path in paths:
            try:
                return self.read(path)
            except FileNotFoundError:
                continue  # another process has pruned it by now
            except Damaged as damaged:
                error = error or damaged
                warnings.warn(f"{damaged} It is passed over.", RuntimeWarning, stacklevel=3)
        if error is not None:
            raise error
        return None

    def _metrics(self, afresh: bool = False) -> dict[Path, float | None]:
        """The metric of each file in the folder; headers are read once, or `afresh`, with warnings."""
        if self._known is None or afresh:
            self._known = {}
            for path in self.paths:
                try:
                    self._known[path] = read_metadata(path).get("metric")
                except (CheckpointError, FileNotFoundError) as error:
                    if afresh:
                        warnings.warn(f"{error} It is passed over.", RuntimeWarning, stacklevel=3)
        return self._known

    def _best(self, known: Mapping[Path, float | None]) -> tuple[Path, float] | None:
        best: tuple[Path, float] | None = None
        for path, metric in known.items():  # of equals the first
            if metric is not None and not math.isnan(metric) and (
                    best is None or self._better(metric, best[1])):
                best = path, metric
        return best

    def _better(self, metric: float, other: float) -> bool:
        return metric < other if self.mode == "min" else metric > other

    def __repr__(self) -> str:
        return f"Checkpoint({os.fspath(self.folder)!r}, every={self.every}, keep={self.keep})"


def _number(path: Path) -> int:
    return int(_FILE.fullmatch(path.name)[1])  # type: ignore[index]


def _step(path: Path) -> int:
    return int(_FILE.fullmatch(path.name)[2])  # type: ignore[index]
