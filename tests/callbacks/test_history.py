"""History: lines that survive the process, readers that survive a torn line."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nagcore
from nagcore.callbacks import History

VALUES = st.one_of(st.floats(), st.integers(-(2**60), 2**60), st.booleans(), st.text(max_size=20))
ROWS = st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=5), max_size=6)
CHILD = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))


def same(a, b):
    """Equal rows, where NaN equals NaN."""
    return repr(a) == repr(b)


def written(path, rows, **more):
    with History(path, **more) as history:
        for row in rows:
            history.log(**row)
    return history


def test_every_kind_of_number_comes_back(tmp_path_factory):
    @given(ROWS)
    def check(rows):
        rows = [{k: v for k, v in row.items() if k not in ("self", "nagcore_history")} for row in rows]
        path = tmp_path_factory.mktemp("h") / "run.jsonl"
        history = written(path, rows, meta={"run": "a", "lr": 0.1})
        found = History.read(path)
        assert same(found.rows, rows)
        assert same(history.rows, rows)
        assert found.meta == {"run": "a", "lr": 0.1}

    check()


def test_lines_are_strict_json(tmp_path):
    path = tmp_path / "run.jsonl"
    written(path, [{"step": 1, "loss": math.nan, "gap": math.inf, "low": -math.inf, "note": "ö\n{"}])
    first, line = path.read_bytes().splitlines()
    assert json.loads(first) == {"nagcore_history": 1}

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    row = json.loads(line, parse_constant=refuse)
    assert row == {"step": 1, "loss": None, "gap": math.inf, "low": -math.inf, "note": "ö\n{"}
    found = History.read(path)
    assert math.isnan(found["loss"][0])
    assert found["gap"].tolist() == [math.inf]


def test_a_file_torn_at_any_byte_gives_all_whole_lines(tmp_path):
    path, torn = tmp_path / "run.jsonl", tmp_path / "torn.jsonl"
    rows = [{"step": i, "loss": 1 / i, "note": "é"} for i in range(1, 6)]
    written(path, rows, meta={"run": "x"})
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        torn.write_bytes(data[:cut])
        whole = max(data[:cut].count(b"\n") - 1, 0)
        assert History.read(torn).rows == rows[:whole]
        # Going on writes after the last whole line, not behind the torn one.
        with History(torn, meta={"run": "x"}) as history:
            history.log(step=99)
        found = History.read(torn)
        assert found.rows == [*rows[:whole], {"step": 99}]
        assert found.meta == {"run": "x"}


def test_zeros_behind_the_last_line_are_torn_too(tmp_path):
    """What a power cut leaves where the length of a file was written before its content."""
    path = tmp_path / "run.jsonl"
    written(path, [{"step": 1}])
    with open(path, "ab") as stream:
        stream.write(bytes(512))
    assert History.read(path).rows == [{"step": 1}]


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_what_was_logged_survives_the_process(tmp_path, how):
    path = tmp_path / "run.jsonl"
    script = f"""
        import os, signal
        from nagcore.callbacks import History
        history = History({os.fspath(path)!r})
        for step in range(1, 1001):
            history.log(step=step, loss=1.0 / step)
        os.kill(os.getpid(), signal.SIGKILL) if {how!r} == "kill" else os._exit(1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=CHILD, timeout=60)
    assert done.returncode == (-signal.SIGKILL if how == "kill" else 1)
    assert [row["step"] for row in History.read(path).rows] == list(range(1, 1001))


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """The limit on a file's size cuts a line in its middle; the file keeps none of it."""
    path = tmp_path / "run.jsonl"
    script = f"""
        import resource, signal
        from nagcore.callbacks import History
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        history, failed = History({os.fspath(path)!r}), 0
        for step in range(1, 101):
            try:
                history.log(step=step, loss=1.0 / 3)
            except OSError:
                failed += 1
        assert failed and len(history) == 100 - failed
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        history.log(step=1000)      # room again
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=CHILD, timeout=60, check=True)
    steps = [row["step"] for row in History.read(path).rows]
    assert steps == [*range(1, len(steps)), 1000]
    assert 900 < path.stat().st_size <= 1100
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_fsync_is_called_as_often_as_asked(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    with History(tmp_path / "a.jsonl", fsync=0) as history:
        begun = len(calls)
        for step in range(5):
            history.log(step=step)
        assert len(calls) - begun == 5
    calls.clear()
    with History(tmp_path / "b.jsonl") as history:
        history.log(step=1)
    assert not calls
    with History(tmp_path / "c.jsonl", fsync=3600) as history:
        begun = len(calls)
        history.log(step=1)
        assert len(calls) == begun
    assert len(calls) == begun + 1  # close syncs


@pytest.mark.parametrize(("content", "match"), [
    (b"step,loss\n1,2\n", "no nagcore history"), (b'{"step": 1}\n', "no nagcore history"),
    (b"[1]\n", "no nagcore history"), (b"\x80\x04K\x01.", "no nagcore history"),
    (b'{"nagcore_history": 2}\n', "format 2"), (b'{"nagcore_history": 1}\nrubbish\n{"step": 1}\n', "Line 2"),
])  # fmt: skip
def test_other_files_are_refused_and_not_touched(tmp_path, content, match):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        History.read(path)
    with pytest.raises(ValueError, match=match):
        History(path)
    assert path.read_bytes() == content


def test_overwrite_begins_anew(tmp_path):
    path = tmp_path / "run.jsonl"
    written(path, [{"step": 1}], meta={"run": "a"})
    written(path, [{"step": 2}], meta={"run": "b"}, overwrite=True)
    found = History.read(path)
    assert (found.rows, found.meta) == ([{"step": 2}], {"run": "b"})


@pytest.mark.parametrize("value", [[1.0], np.zeros(2), {"a": 1}, b"x", 1j, object()])
def test_what_is_no_number_is_refused_before_anything_is_written(tmp_path, value):
    with History(tmp_path / "run.jsonl") as history:
        with pytest.raises(TypeError, match=r"Use float\(value\)"):
            history.log(step=1, loss=value)
        assert len(history) == 0
    assert len(History.read(tmp_path / "run.jsonl")) == 0
    with pytest.raises(ValueError, match="fsync"):
        History(tmp_path / "run.jsonl", fsync=-1)


def test_scalars_of_arrays_are_their_number():
    history = History()
    history.log(step=np.int64(3), loss=np.float32(0.5), gap=np.array(0.25), done=np.True_, none=None)
    assert history.rows == [{"step": 3, "loss": 0.5, "gap": 0.25, "done": True}]
    assert [type(v) for v in history.rows[0].values()] == [int, float, float, bool]
    torch = pytest.importorskip("torch")
    history.log(loss=torch.tensor(2.0, requires_grad=True))
    assert history["loss"].tolist() == [0.5, 2.0]


def test_columns():
    history = History()
    history.log(step=1, loss=0.5)
    history.log(step=2, val_loss=0.75, note="x")
    np.testing.assert_array_equal(history["val_loss"], [math.nan, 0.75])
    assert history.column("note")[1] == "x"
    with pytest.raises(KeyError, match="step, val_loss"):
        history["acuracy"]


def test_minimize_writes_what_its_result_holds(tmp_path):
    path = tmp_path / "run.jsonl"
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)) * [1, 10, 1, 1, 0.1]
    objective = nagcore.Objective(X, X[:, 0] + X[:, 1] + rng.normal(size=200), loss="squared", l2=1e-3)
    with History(path, meta={"solver": "fista"}) as history:
        result = nagcore.minimize(objective, callbacks=[history])
    found = History.read(path)
    assert len(found) == result.n_iter
    for name in ("n_passes", "seconds", "value", "gap"):
        mine, theirs = getattr(found, name), getattr(result.history, name)
        if name != "seconds":
            np.testing.assert_array_equal(mine, theirs)
        assert len(mine) == len(theirs)
    assert found["grad_norm"][-1] < 1e-2 * found["grad_norm"][0]
    assert found.value == sorted(found.value, reverse=True)
    assert found["step"].tolist() == list(range(1, result.n_iter + 1))
    assert "iterations" in repr(found)
