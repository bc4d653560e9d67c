"""nagcore.callbacks for keras's `fit`: records, progress, early stopping, checkpoints and a guard.

Thin adapters: each holds the class of the same name from nagcore.callbacks in `core`.

>>> import keras, numpy as np
>>> from nagcore.keras import callbacks
>>> history = callbacks.History()
>>> len(history.core)
0
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from nagcore import callbacks as neutral

from .model_state import random_state, set_random_state, set_state, state_of

__all__ = ["AnomalyGuard", "Checkpoint", "EarlyStopping", "History", "Progress"]

_SCORES = ("acc", "auc", "precision", "recall", "f1", "r2")


def _mode(mode: str | None, monitor: str) -> str:
    if mode is not None:
        return mode
    return "max" if any(score in monitor.lower() for score in _SCORES) else "min"


def _numbers(logs: Mapping[str, Any] | None) -> dict[str, float]:
    found = {}
    for name, value in (logs or {}).items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue  # a metric that is a table, say
    return found


class _Steps(keras.callbacks.Callback):
    """Counts the batches of `fit`; with steps_per_execution > 1 several at once."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def _advance(self, batch: int) -> int:
        """Count up to this batch of the epoch, whose number is that of the last one that ran."""
        self.step = self._epoch_began + batch + 1
        return self.step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember how many steps came before this epoch."""
        self._epoch_began = self.step

    _epoch_began = 0


class History(_Steps):
    """Records `fit` in memory and, given a path, as JSON lines that outlive a crash.

    Each `every` batches a row with step, epoch, seconds, loss and the metrics (keras's running means
    of the epoch), lr, momentum, and grad_norm where nagcore's kernel took the step; after each epoch one with
    the val_* of keras as well. `nagcore plot run.jsonl` draws it.

    Parameters
    ----------
    path : path, optional
    every : int
        Batches between two rows, ≥ 1.
    meta, fsync, overwrite
        As for nagcore.callbacks.History.

    Attributes
    ----------
    core : nagcore.callbacks.History
        Rows and columns: ``history.core["loss"]``.

    Examples
    --------
    >>> from nagcore.keras.callbacks import History
    >>> History().core.rows
    []
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        every: int = 1,
        meta: Mapping[str, Any] | None = None,
        fsync: float | None = None,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}; History takes a whole number ≥ 1. Use History(every=1).")
        self.core = neutral.History(path, meta=meta, fsync=fsync, overwrite=overwrite)
        self.every = every

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Log a row when one is due."""
        before = self.step
        if self._advance(batch) // self.every > before // self.every:
            self.core.log(**self._row(logs))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch."""
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log a row with the epoch's values, those of validation among them."""
        self.core.log(**self._row(logs))

    def _row(self, logs: Any) -> dict[str, Any]:
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
        row: dict[str, Any] = {
            "step": self.step,
            "epoch": self._epoch + 1,
            "seconds": time.perf_counter() - self._began,
            **_numbers(logs),
            "lr": float(keras.ops.convert_to_numpy(inner.learning_rate)),
        }
        if isinstance(getattr(inner, "momentum", None), float):
            row["momentum"] = inner.momentum
        step = getattr(inner, "_step", None)
        if step is not None and step.last_report is not None:
            row["momentum"], row["grad_norm"] = step.last_momentum, step.last_report.grad_norm
        return row

    def on_train_end(self, logs: Any = None) -> None:
        """Nothing: another `fit` may go on with the same file, which is whole after every row."""


class Progress(_Steps):
    """One line for the whole `fit` instead of keras's bars: use with ``verbose=0``.

    Drawn where nagcore.callbacks.Progress draws: in a terminal or a notebook, and nowhere else.

    Parameters
    ----------
    every : float
        Seconds between two drawings.
    label, style, file
        As for nagcore.callbacks.Progress.

    Examples
    --------
    >>> from nagcore.keras.callbacks import Progress
    >>> Progress(label="train").core is None     # made when fit says how many steps there are
    True
    """

    def __init__(
        self, every: float = 0.1, *, label: str = "", style: str = "auto", file: Any = None
    ) -> None:
        super().__init__()
        neutral.Progress(every=every, label=label, style=style, file=file)  # judges the arguments now
        self._settings = {"every": every, "label": label, "style": style, "file": file}
        self.core: neutral.Progress | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Learn how many steps are to come."""
        self.step = 0
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        self.core = neutral.Progress(total=epochs * steps if epochs and steps else None, **self._settings)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count earlier epochs of a run that goes on as done."""
        self.step = max(self.step, epoch * (self.params.get("steps") or 0))
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the line."""
        assert self.core is not None
        self.core.update(self._advance(batch), **_numbers(logs))

    def on_train_end(self, logs: Any = None) -> None:
        """End the line."""
        if self.core is not None:
            self.core.close()


class EarlyStopping(keras.callbacks.Callback):
    """Stops `fit` when a metric no longer gets better, and restores the best weights however it ends.

    keras restores them only when it stopped the run itself; this does whenever `fit` ends.

    Parameters
    ----------
    monitor : str
        A key of keras's logs.
    patience, min_delta
        As for nagcore.callbacks.EarlyStopping, in epochs.
    mode : {"min", "max"}, optional
        By default "max" for scores (accuracy, AUC, precision, recall, F1, R²), else "min".

    Examples
    --------
    >>> from nagcore.keras.callbacks import EarlyStopping
    >>> EarlyStopping("val_accuracy", patience=3).core.mode
    'max'
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        *,
        min_delta: float = 0.0,
        mode: str | None = None,
    ) -> None:
        super().__init__()
        self.monitor = str(monitor)
        self.core = neutral.EarlyStopping(patience, min_delta=min_delta, mode=_mode(mode, self.monitor))

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget an earlier run."""
        self.core.reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Take in the epoch's metric."""
        metric = _monitored(logs, self.monitor, "EarlyStopping")
        if metric is not None and self.core.update(metric, weights=lambda: self.model.get_weights()):
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Restore the best weights."""
        if self.core.best_weights is not None:
            self.model.set_weights(self.core.best_weights)


def _monitored(logs: Any, monitor: str, who: str) -> float | None:
    found = _numbers(logs)
    if monitor in found:
        return found[monitor]
    warnings.warn(
        f"{who} watches {monitor!r}, which this fit does not report; it has {', '.join(found)}.",
        stacklevel=3,
    )
    return None


class Checkpoint(_Steps):
    """Saves model, optimizer and random numbers every `every` batches and at each epoch's end.

    Files are those of nagcore.callbacks.Checkpoint: whole or absent whatever happens to the process,
    the newest `keep` and the best by `monitor`. A run goes on with ::

        checkpoint = Checkpoint("run", every=500)
        model.fit(..., initial_epoch=checkpoint.resume(model), callbacks=[checkpoint])

    From the end of an epoch it goes on to the same bits, data order included, on the torch and jax
    backends (tensorflow shuffles with generators of its own; use shuffle=False there). From the middle of
    an epoch the weights are those of the checkpoint, and that epoch's data begin again.

    Parameters
    ----------
    folder : path
    every : int
        Batches.
    keep : int
    monitor : str, optional
        Metric of the best, taken at the end of an epoch; None keeps no best.
    mode : {"min", "max"}, optional
        By default "max" for scores (accuracy, AUC, precision, recall, F1, R²), else "min".
    at_epoch_end : bool
        False saves at an epoch's end only what is the best so far.

    Attributes
    ----------
    core : nagcore.callbacks.Checkpoint

    Examples
    --------
    >>> import tempfile
    >>> from nagcore.keras.callbacks import Checkpoint
    >>> checkpoint = Checkpoint(tempfile.mkdtemp(), every=100, monitor="val_loss")
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    >>> checkpoint.resume(model)     # an empty folder: begin with epoch 0
    0
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int = 1000,
        keep: int = 3,
        monitor: str | None = "val_loss",
        mode: str | None = None,
        at_epoch_end: bool = True,
    ) -> None:
        super().__init__()
        self.monitor, self.at_epoch_end = monitor, bool(at_epoch_end)
        self.core = neutral.Checkpoint(
            folder, every=every, keep=keep, best=monitor is not None, mode=_mode(mode, monitor or "")
        )
        self._epochs_done = 0
        self._random_state: Any = None

    def resume(self, model: Any) -> int:
        """Set the compiled model to the newest checkpoint; return the epochs that it has done.

        Raises
        ------
        ValueError
            The checkpoint belongs to another model or optimizer, or no file is whole; nothing is set.
        """
        saved = self.core.load_latest()
        if saved is None:
            return 0
        set_state(model, saved.state)
        self.step, self._epochs_done = saved.step, int(saved.metadata["epochs"])
        self._random_state = saved.metadata["random"]
        return self._epochs_done

    def load_best(self, model: Any) -> float:
        """Set the model to the best checkpoint and return its metric; ValueError where there is none."""
        saved = self.core.load_best()
        if saved is None or saved.metric is None:
            raise ValueError(
                f"{self.core.folder} holds no checkpoint with a metric. Train with "
                'Checkpoint(folder, monitor="val_loss") and validation data.'
            )
        set_state(model, saved.state)
        return saved.metric

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go on with the random numbers of the checkpoint, once."""
        super().on_epoch_begin(epoch, logs)
        self._epochs_done = epoch
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save when a step is due."""
        before = self.step
        if self._advance(batch) // self.core.every > before // self.core.every:
            self._save(None)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save, with the metric."""
        self._epochs_done = epoch + 1
        metric = None if self.monitor is None else _monitored(logs, self.monitor, "Checkpoint")
        if self.at_epoch_end or self.core.is_best(metric):
            self._save(metric)

    def _save(self, metric: float | None) -> None:
        notes = {"epochs": self._epochs_done, "random": random_state()}
        self.core.save(self.step, lambda: state_of(self.model), metric=metric, metadata=notes)


class AnomalyGuard(keras.callbacks.Callback):
    """Watches the loss of `fit`, after the update: raises, or goes back to the last good state.

    For a verdict before the update, on the gradients, and for "skip" and "clip", give a
    nagcore.callbacks.AnomalyGuard to ``nagcore.keras.SGD(guard=...)``.

    Parameters
    ----------
    action : {"rollback", "raise"}
    every : int
        Batches between two copies of the state, which "rollback" needs; each costs a copy of model and
        optimizer.
    on_event : callable, optional
        Takes the AnomalyEvent in place of a warning.

    Attributes
    ----------
    core : nagcore.callbacks.AnomalyGuard
        `events` and `counts`.

    Examples
    --------
    >>> from nagcore.keras.callbacks import AnomalyGuard
    >>> AnomalyGuard("raise").core
    AnomalyGuard('raise', no events)
    """

    def __init__(
        self, action: str = "rollback", *, every: int = 100, patience: int = 50, on_event: Any = None
    ) -> None:
        super().__init__()
        if action not in ("rollback", "raise"):
            raise ValueError(
                f'action is {action!r}; after an update there is "rollback" and "raise". For '
                f"{action!r} use nagcore.keras.SGD(guard=nagcore.callbacks.AnomalyGuard({action!r}))."
            )
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}; AnomalyGuard takes a whole number ≥ 1. Use every=100.")
        self.core = neutral.AnomalyGuard(action, patience=patience, on_event=on_event)
        self.every, self._step = every, 0
        self._candidate: Any = None  # a state whose own loss is not known yet

    def on_train_begin(self, logs: Any = None) -> None:
        """Copy the state that training begins with."""
        if self.core.action == "rollback":
            self.core.remember(state_of(self.model))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Judge the loss that the batch left."""
        self._step += 1
        loss = _numbers(logs).get("loss", math.nan)
        verdict = self.core.check(self._step, loss=loss)
        if self.core.action != "rollback":
            return
        if verdict.action == "rollback":
            self._candidate, model = None, self.model
            set_state(model, self.core.last_good)
            model.reset_metrics()  # keras's loss is a mean over the epoch, which would stay NaN
            return
        # The loss is that of the weights before this batch's update: a copy is good once the next one is.
        if self._candidate is not None:
            self.core.remember(self._candidate)
            self._candidate = None
        if self._step % self.every == 0:
            self._candidate = state_of(self.model)
