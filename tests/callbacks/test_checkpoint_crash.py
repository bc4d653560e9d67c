"""Checkpoints and what ends a process: kill −9 at every moment, full disks, and runs taken up again."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import numpy as np
import pytest

from callbacks.crashes import forked
from nagcore.callbacks import Checkpoint

CHILD = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))


def content(step, n=300):
    return {"w": np.full(n, float(step)), "b": np.full((2, 3), step, np.float32), "step": np.int64(step)}


def check(saved):
    """The checkpoint is whole and of one moment."""
    for name, a in content(saved.step).items():
        np.testing.assert_array_equal(saved.state[name], a)
    assert saved.metadata == {"step": saved.step}


@pytest.mark.parametrize("keep", [1, 2])
def test_kill_at_every_moment_leaves_a_whole_checkpoint(tmp_path, keep):
    """Saves 1 and 2 are done; the process dies in save 3, at each call that it makes into the system."""
    moments, seen = 0, set()
    while True:
        moments += 1
        folder = tmp_path / str(moments)
        checkpoint = Checkpoint(folder, keep=keep)
        for step in (1, 2):
            checkpoint.save(step, content(step), metric=1 / step, metadata={"step": step})
        save = partial(checkpoint.save, 3, content(3), metric=1 / 3, metadata={"step": 3})
        end = forked(save, calls=moments)
        latest = Checkpoint(folder).load_latest()
        check(latest)
        check(Checkpoint(folder).load_best())
        for path in checkpoint.paths:
            check(Checkpoint.read(path))
        seen.add(latest.step)
        if end == 0:
            break
        assert end == -signal.SIGKILL
        # The next save clears away what was left, and only that.
        Checkpoint(folder, keep=keep).save(4, content(4), metadata={"step": 4})
        assert sorted(os.listdir(folder)) == sorted(path.name for path in checkpoint.paths)
        shutil.rmtree(folder)
    assert latest.step == 3
    assert seen == {2, 3}  # died before the rename, and after it
    assert moments > 30


def test_kill_at_random_moments_of_a_long_run(tmp_path):
    """Process after process saves as fast as it can and is killed; what it has reported is never lost."""
    rng, done = random.Random(0), 0
    folder = tmp_path / "run"

    def run(report):
        checkpoint = Checkpoint(folder, keep=2)
        saved = checkpoint.load_latest()
        step = saved.step if saved else 0
        while True:
            step += 1
            checkpoint.save(step, content(step, 40_000), metric=-step, metadata={"step": step})
            os.write(report, step.to_bytes(8, "little"))

    for death in range(1000):
        if death >= 60 and done > 10:
            break
        read, report = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run(report)
            finally:
                os._exit(1)
        os.close(report)
        time.sleep(rng.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with open(read, "rb") as stream:
            reported = stream.read()
        if reported:
            done = int.from_bytes(reported[-8:], "little")
        latest = Checkpoint(folder).load_latest()
        if latest is None:
            assert done == 0
            continue
        assert latest.step in (done, done + 1)  # the last one may have been written and not yet reported
        np.testing.assert_array_equal(latest.state["w"], np.full(40_000, float(latest.step)))
        done = latest.step
    assert done > 10
    checkpoint = Checkpoint(folder, keep=2)
    checkpoint.save(done + 1, content(done + 1), metric=-done - 1)  # clears away what the dead have left
    assert len(checkpoint.paths) == 2
    assert sorted(os.listdir(folder)) == [path.name for path in checkpoint.paths]


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_others_go(tmp_path, monkeypatch):
    """What a power cut could take apart: content synced, renamed, folder synced, then old files deleted."""
    checkpoint, order = Checkpoint(tmp_path, keep=1), []
    checkpoint.save(1, content(1))

    def spy(module, name):
        real = getattr(module, name)

        def call(*args, **kwargs):
            if name == "fsync":
                kind = "folder" if os.path.isdir(f"/proc/self/fd/{args[0]}") else "file"
                assert kind == "folder" or os.fstat(args[0]).st_size > 2400  # all of it
                order.append(f"sync {kind}")
            else:
                order.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    spy(os, "fsync")
    spy(os, "replace")
    spy(type(tmp_path), "unlink")
    checkpoint.save(2, content(2))
    assert order == ["sync file", "replace", "sync folder", "unlink"]


@pytest.mark.parametrize("limit", [0, 500, 2000])
def test_a_file_that_may_not_grow_leaves_the_old_checkpoint(tmp_path, limit):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(1, content(1), metadata={"step": 1})
    before = sorted(os.listdir(tmp_path))

    def work():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoint.save(2, content(2), metadata={"step": 2})
        assert caught.value.errno == errno.EFBIG

    assert forked(work) == 0
    assert sorted(os.listdir(tmp_path)) == before
    check(checkpoint.load_latest())


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """A file system of 300 KiB, in a name space of its own."""
    script = f"""
        import errno, os, sys
        import numpy as np
        from nagcore.callbacks import Checkpoint
        folder = {os.fspath(tmp_path)!r}
        checkpoint = Checkpoint(folder, keep=5)
        for step in range(1, 10):
            try:
                checkpoint.save(step, {{"w": np.full(10_000, float(step))}})
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                break
        assert step == 4, step      # 80 kB each
        assert len(os.listdir(folder)) == 3
        saved = Checkpoint(folder).load_latest()
        assert saved.step == 3 and (saved.state["w"] == 3.0).all()
        os.unlink(checkpoint.paths[0])
        checkpoint.save(5, {{"w": np.full(10_000, 5.0)}})      # room again
        assert Checkpoint(folder).load_latest().step == 5
        print("done")
    """
    mount = f'mount -t tmpfs -o size=300k none "{tmp_path}" && exec "$0" -c "$1"'
    probe = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs none "{tmp_path}"']
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount, sys.executable, textwrap.dedent(script)],
                          env=CHILD, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.stdout == "done\n", done.stderr


RUN = """
    import os, random, signal, sys
    import numpy as np
    import nagcore
    from nagcore import schedules
    from nagcore.callbacks import AnomalyGuard, Batches, Checkpoint, EarlyStopping

    folder, steps, dies = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    data = np.random.default_rng(0)
    X, w_true = data.normal(size=(500, 6)), data.normal(size=6)
    y = X @ w_true + 0.1 * data.normal(size=500)

    w, b = np.zeros(6), np.zeros(6)
    rng, batches = np.random.Generator(np.random.MT19937(5)), Batches(500, 32, seed=9)
    random.seed(4)
    mu = schedules.AdaptiveRestart(schedules.Nesterov())
    guard = AnomalyGuard("clip", warmup=5, threshold=1.0, on_event=lambda event: None)
    stopper = EarlyStopping(patience=10**6)
    checkpoint = Checkpoint(folder, every=7, keep=2)
    parts = {"batches": batches, "mu": mu, "guard": guard, "stopper": stopper}

    step, before = 0, w.copy()
    if saved := checkpoint.load_latest():
        step = saved.step
        w[:], b[:], before[:] = saved.state["w"], saved.state["b"], saved.state["before"]
        rng.bit_generator.state = saved.metadata["rng"]
        random.setstate(saved.metadata["random"])
        for name, part in parts.items():
            part.load_state_dict(saved.metadata[name])

    def all_state():
        return {"w": w, "b": b, "before": before}

    while step < steps:
        for rows in batches:
            step += 1
            noise = 0.01 * rng.normal(size=6) + 0.01 * random.gauss(0, 1)
            g = X[rows].T @ (X[rows] @ w - y[rows]) / len(rows) + noise
            g *= 20.0 if step % 11 == 0 else 1.0
            norm = float(np.linalg.norm(g))
            verdict = guard.check(step, grad_norm=norm)
            if verdict.action == "clip":
                g *= verdict.max_norm / norm
            mu.observe(float(g @ (w - before)))
            before[:] = w
            m = mu(step)
            nagcore.nesterov_step_([w], [g], [b], lr=0.05, momentum=m, nesterov=m > 0)
            loss = float(np.mean((X @ w - y) ** 2))
            stopper.update(loss)
            notes = {"rng": rng.bit_generator.state, "random": random.getstate()}
            notes |= {name: part.state_dict() for name, part in parts.items()}
            checkpoint.update(step, all_state, metric=loss, metadata=notes)
            if step == dies:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == steps:
                break
    print(w.tobytes().hex(), b.tobytes().hex(), mu.restarts, guard.counts, batches, stopper.best)
"""


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    """Parameters, momentum, schedule, guard, two generators and the order of the data: all go on."""

    def run(folder, steps, dies):
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(RUN), tmp_path / folder, str(steps), str(dies)],
            env=CHILD, capture_output=True, text=True, timeout=120)  # fmt: skip

    whole = run("whole", 60, -1)
    assert whole.returncode == 0, whole.stderr
    for dies in (10, 16, 17, 45):  # in the middle of epochs, at their ends, between checkpoints
        assert run("parts", 60, dies).returncode == -signal.SIGKILL
    parts = run("parts", 60, -1)
    assert parts.stdout == whole.stdout, parts.stderr
    assert "'spike': 0" not in whole.stdout
    assert whole.stdout.split()[2] != "0"  # restarts
