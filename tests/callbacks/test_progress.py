"""Progress: seen in a terminal, in whatever style is there, and silent everywhere else."""

from __future__ import annotations

import fcntl
import gc
import importlib
import io
import os
import struct
import sys
import termios
import types

import numpy as np
import pytest

import nagcore
from nagcore.callbacks import Progress


class Terminal:
    """A pseudo terminal of a width, and what was written to it."""

    def __init__(self, columns=100, rows=24):
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.file = open(slave, "w", encoding="utf-8")

    def text(self):
        self.file.flush()
        os.set_blocking(self._master, False)
        found = b""
        try:
            while part := os.read(self._master, 1 << 16):
                found += part
        except (BlockingIOError, OSError):
            pass
        return found.decode()

    def close(self):
        if not self.file.closed:
            self.file.close()
        os.close(self._master)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def objective():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 8)) * np.logspace(0, 2, 8)
    return nagcore.Objective(X, (X[:, 0] + rng.normal(size=300) > 0).astype(float), loss="logistic", l2=1e-6)


STYLES = ["plain", "rich", "tqdm"]


def loop(progress, steps=20):
    for step in range(1, steps + 1):
        progress.update(step, loss=1 / step)


@pytest.mark.parametrize("style", STYLES)
def test_a_terminal_sees_the_line_and_the_last_step(terminal, style):
    if style != "plain":
        pytest.importorskip(style)
    with Progress(every=1000.0, total=20, label="train", style=style, file=terminal.file) as progress:
        loop(progress)
        before = terminal.text()
        assert "1/20" in before
        assert "20/20" not in before  # within a thousand seconds of the first drawing
    assert "train 20/20 · loss 0.05" in terminal.text()


@pytest.mark.parametrize("style", STYLES)
def test_a_terminal_that_tells_no_size_is_written_to(style, monkeypatch):
    """As containers and remote shells have it: no columns, no rows."""
    if style != "plain":
        pytest.importorskip(style)
    terminal = Terminal(columns=0, rows=0)
    monkeypatch.setattr(sys, "stderr", terminal.file)
    with Progress(every=0.0, total=20, style=style) as progress:
        loop(progress)
    text = terminal.text()
    assert all(f"{step}/20" in text for step in range(1, 21))
    terminal.close()


@pytest.mark.parametrize("style", ["auto", *STYLES])
@pytest.mark.parametrize("kind", ["pipe", "text", "closed", "none"])
def test_nothing_is_written_where_no_one_watches(style, kind, objective, capfd):
    if style in ("rich", "tqdm"):
        pytest.importorskip(style)
    read, write = os.pipe()
    stream = {"pipe": lambda: open(write, "w"), "text": io.StringIO, "closed": io.StringIO,
              "none": lambda: types.SimpleNamespace()}[kind]()
    if kind == "closed":
        stream.close()
    with Progress(every=0.0, total=20, style=style, file=stream) as progress:
        loop(progress)
        nagcore.minimize(objective, callbacks=[progress])
    if kind == "text":
        assert stream.getvalue() == ""
    if kind == "pipe":
        stream.close()
        assert os.read(read, 100) == b""
    else:
        os.close(write)
    os.close(read)
    assert capfd.readouterr() == ("", "")


def test_the_default_stream_is_stderr_and_quiet_here(capfd):
    loop(Progress(every=0.0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("missing", "mark"), [
    ((), "\x1b[?25l"), (("rich",), "|"), (("rich", "tqdm"), "\r["),
])  # fmt: skip
def test_auto_takes_rich_then_tqdm_then_text(terminal, monkeypatch, missing, mark):
    pytest.importorskip("rich")
    pytest.importorskip("tqdm")
    real = importlib.import_module

    def importing(name, *args):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name, name=name.partition(".")[0])
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", importing)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(every=0.0, total=20, file=terminal.file) as progress:
        loop(progress)
    assert mark in terminal.text()
    for style in missing:
        with pytest.raises(ModuleNotFoundError, match=f"pip install {style}"):
            Progress(style=style)


def test_a_dumb_terminal_gets_text(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Progress(every=0.0, total=20, file=terminal.file) as progress:
        loop(progress)
    assert "\x1b" not in terminal.text()


def test_plain_text_keeps_to_one_line_of_the_terminal():
    terminal = Terminal(columns=40)
    label = "a rather long label"
    with Progress(every=0.0, total=20, style="plain", label=label, file=terminal.file) as progress:
        loop(progress)
    text = terminal.text()
    terminal.close()
    assert text.count("\n") == 1
    assert max(len(part) for part in text.replace("\r\n", "").split("\r")) == 39


@pytest.mark.parametrize("style", STYLES)
def test_minimize_shows_passes_and_the_gap(terminal, objective, style):
    if style != "plain":
        pytest.importorskip(style)
    with Progress(every=0.0, style=style, file=terminal.file) as progress:
        result = nagcore.minimize(objective, callbacks=[progress])
    text = terminal.text()
    assert "passes · F " in text
    assert f"F {result.history.value[-1]:.6g} · gap" in text
    assert "GB/s" in text


def test_a_notebook_gets_text_or_a_widget(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    stream, made = io.StringIO(), []
    with Progress(every=0.0, total=20, file=stream, style="plain") as progress:
        loop(progress)
    assert "20/20" in stream.getvalue()

    class Widget:
        def __init__(self, **kwargs):
            made.append(self)
            self.n = 0

        def set_description_str(self, text, refresh):
            self.text = text

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.notebook", types.SimpleNamespace(tqdm=Widget))
    with Progress(every=0.0, total=20, file=stream) as progress:
        loop(progress)
    assert [(w.text, w.n, w.closed) for w in made] == [("20/20 · loss 0.05", 1.0, True)]


def test_a_terminal_that_goes_away_does_not_end_the_run(terminal):
    progress = Progress(every=0.0, style="plain", file=terminal.file)
    loop(progress, 3)
    terminal.file.close()
    loop(progress, 3)
    progress.close()


@pytest.mark.parametrize("style", ["plain", "rich"])
def test_a_forgotten_line_is_ended(terminal, style):
    """rich hides the cursor; it must come back however the run ends."""
    if style == "rich":
        pytest.importorskip("rich")
    progress = Progress(every=0.0, style=style, file=terminal.file)
    loop(progress, 3)
    terminal.text()
    del progress
    gc.collect()
    assert "\n" in (text := terminal.text())
    assert style != "rich" or "\x1b[?25h" in text


@pytest.mark.parametrize("bad", [
    lambda: Progress(every=-1), lambda: Progress(every="fast"), lambda: Progress(style="ascii"),
    lambda: Progress(total=0),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(bad):
    with pytest.raises(ValueError, match="Use Progress"):
        bad()
    with pytest.raises(TypeError, match="Use Progress"):
        Progress(report=3)
