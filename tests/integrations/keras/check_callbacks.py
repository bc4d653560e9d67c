"""nagcore.keras.callbacks under `fit` on one backend."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from integrations.keras.backend_tools import BACKEND, make_data, make_model, numbers, state
from nagcore.callbacks import AnomalyError
from nagcore.callbacks import History as Lines
from nagcore.keras import SGD, callbacks

if BACKEND == "numpy":
    pytest.skip("keras has no fit on its numpy backend", allow_module_level=True)


def compiled(rate=0.1, dropout=False, metrics=()):
    model = make_model()
    if dropout:
        model = keras.Sequential([model, keras.layers.Dropout(0.2, seed=5), keras.layers.Dense(1)])
        model.build((None, 12))
    kernel = True if BACKEND == "torch" else None
    optimizer = SGD(rate, momentum=0.9, nesterov=True, use_kernel=kernel)
    model.compile(optimizer, "mse", metrics=list(metrics))
    return model


def fit(model, used, epochs=3, shuffle=False, initial_epoch=0, n=96, validation=True):
    X, y = make_data(n)
    return model.fit(
        X, y, batch_size=32, epochs=epochs, verbose=0, shuffle=shuffle, callbacks=used,
        initial_epoch=initial_epoch, validation_data=(X, y) if validation else None,
    )  # fmt: skip


def test_history_writes_a_line_for_each_batch_and_epoch(tmp_path):
    path = tmp_path / "run.jsonl"
    history = callbacks.History(path, meta={"run": "keras"})
    model = compiled(metrics=["mae"])
    found = fit(model, [history])
    fit(model, [history])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"nagcore_history": 1, "run": "keras"}
    assert [line["step"] for line in lines[1:9]] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert lines[-1]["step"] == 18
    assert {"epoch", "seconds", "loss", "mae", "lr", "momentum"} <= set(lines[1])
    assert lines[4]["val_loss"] == pytest.approx(found.history["val_loss"][0])
    assert lines[1]["lr"] == pytest.approx(0.1)
    assert ("grad_norm" in lines[1]) == (BACKEND == "torch")  # where the kernel takes the step
    assert len(Lines.read(path).rows) == len(lines) - 1


def test_history_thins_out():
    history = callbacks.History(every=2)
    fit(compiled(), [history], epochs=2)
    assert history.core["step"].tolist() == [2, 3, 4, 6, 6]
    with pytest.raises(ValueError, match="every is 0"):
        callbacks.History(every=0)


def test_progress_draws_on_a_terminal_only():
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    for stream in (Terminal(), io.StringIO()):
        fit(compiled(), [callbacks.Progress(every=0, style="plain", file=stream)], epochs=2)
        assert ("6/6" in stream.getvalue()) == isinstance(stream, Terminal)
    with pytest.raises(ValueError, match="style is"):
        callbacks.Progress(style="fancy")


def test_early_stopping_restores_the_best_weights_either_way():
    for rate, epochs in ((5.0, 30), (0.05, 3)):  # stopped, and run to its own end
        seen, model = [], compiled(rate)
        keep = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, seen=seen, model=model: seen.append(
                (logs["val_loss"], model.get_weights())
            )
        )
        stopping = callbacks.EarlyStopping("val_loss", patience=4)
        found = fit(model, [keep, stopping], epochs=epochs)
        losses = found.history["val_loss"]
        assert stopping.core.stopped == (len(losses) < epochs)
        best = min(seen, key=lambda pair: pair[0])
        assert stopping.core.best == pytest.approx(best[0])
        for a, b in zip(model.get_weights(), best[1]):
            np.testing.assert_array_equal(a, b)
    with pytest.warns(UserWarning, match="watches 'val_auc'"):
        fit(compiled(), [callbacks.EarlyStopping("val_auc")], epochs=1)


def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    shuffle = BACKEND != "tensorflow"
    keras.utils.set_random_seed(3)
    straight = compiled(dropout=True)
    keras.utils.set_random_seed(4)
    fit(straight, [callbacks.Checkpoint(tmp_path / "a", every=1000)], epochs=4, shuffle=shuffle)
    first = compiled(dropout=True)
    keras.utils.set_random_seed(4)
    fit(first, [callbacks.Checkpoint(tmp_path / "b", every=1000)], epochs=2, shuffle=shuffle)
    del first
    keras.utils.set_random_seed(99)
    again = compiled(dropout=True)
    checkpoint = callbacks.Checkpoint(tmp_path / "b", every=1000)
    begun = checkpoint.resume(again)
    assert begun == 2
    assert checkpoint.step == 6
    fit(again, [checkpoint], epochs=4, shuffle=shuffle, initial_epoch=begun)
    pairs = zip(
        state(straight.variables, straight.optimizer), state(again.variables, again.optimizer)
    )
    for a, b in pairs:
        np.testing.assert_array_equal(b, a)


def test_checkpoint_saves_every_n_batches_and_the_best(tmp_path):
    model = compiled()
    checkpoint = callbacks.Checkpoint(tmp_path, every=2, keep=50)
    found = fit(model, [checkpoint], epochs=3)
    names = [p.name.partition("-step-")[2].partition(".")[0] for p in checkpoint.core.paths]
    assert [int(n) for n in names] == [2, 3, 4, 6, 6, 8, 9]
    other = compiled(rate=0.5)
    assert checkpoint.load_best(other) == pytest.approx(min(found.history["val_loss"]))
    fewer = callbacks.Checkpoint(tmp_path / "best", at_epoch_end=False, every=1000, keep=1)
    fit(compiled(), [fewer], epochs=3)
    assert len(fewer.core.paths) >= 1
    with pytest.raises(ValueError, match="holds no checkpoint with a metric"):
        callbacks.Checkpoint(tmp_path / "none").load_best(model)


def test_a_checkpoint_of_another_model_sets_nothing(tmp_path):
    fit(compiled(), [callbacks.Checkpoint(tmp_path, every=1000)], epochs=1)
    other = keras.Sequential([keras.layers.Input((12,)), keras.layers.Dense(3)])
    other.compile(SGD(0.1), "mse")
    before = [numbers(v) for v in other.variables]
    with pytest.raises(ValueError, match="taken from another model or optimizer"):
        callbacks.Checkpoint(tmp_path).resume(other)
    for v, b in zip(other.variables, before):
        np.testing.assert_array_equal(numbers(v), b)


def test_a_checkpoint_cut_off_is_passed_over(tmp_path):
    checkpoint = callbacks.Checkpoint(tmp_path, every=1000)
    fit(compiled(), [checkpoint], epochs=2)
    newest = checkpoint.core.paths[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    again = callbacks.Checkpoint(tmp_path)
    with pytest.warns(RuntimeWarning, match="passed over"):
        assert again.resume(compiled()) == 1


def test_kill_leaves_the_last_good_checkpoint(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from integrations.keras.check_callbacks import callbacks, compiled, fit\n"
        "class Killer(callbacks.Checkpoint):\n"
        "    def on_train_batch_end(self, batch, logs=None):\n"
        "        super().on_train_batch_end(batch, logs)\n"
        "        if self.step == 5:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "fit(compiled(), [Killer(sys.argv[1], every=1)])\n"
    )
    here = str(__file__).partition("/integrations/")[0]
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r})\n{script}", str(tmp_path)],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert ended.returncode == -9, ended.stderr
    checkpoint = callbacks.Checkpoint(tmp_path)
    assert checkpoint.resume(compiled()) == 1
    assert checkpoint.step == 5


def spoiled(model, used, epochs=2):
    """A fit whose fourth batch of six is not finite."""
    X, y = make_data(192)
    y = y.copy()
    y[96:128] = np.nan
    return model.fit(X, y, batch_size=32, epochs=epochs, verbose=0, shuffle=False, callbacks=used)


def test_guard_goes_back_to_the_last_good_state():
    events = []
    guard = callbacks.AnomalyGuard("rollback", every=2, on_event=events.append)
    found = spoiled(compiled(), [guard])
    assert [e.step for e in events] == [4, 10]
    assert np.isfinite(found.history["loss"]).all()


def test_guard_raises():
    with pytest.raises(AnomalyError, match="step 4: the loss is nan"):
        spoiled(compiled(), [callbacks.AnomalyGuard("raise")])
    for action in ("skip", "clip"):
        with pytest.raises(ValueError, match=r"nagcore.keras.SGD\(guard="):
            callbacks.AnomalyGuard(action)
