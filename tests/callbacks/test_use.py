"""Callbacks round code that has no place for them: estimators, pipelines, searches."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import warnings

import numpy as np
import pytest

import nagcore
from nagcore.callbacks import AnomalyGuard, Checkpoint, EarlyStopping, History, Progress, use

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)) * np.logspace(0, 1, 6)
Y = (X[:, 0] + RNG.normal(size=400) > 0).astype(int)


def test_estimators_are_served(tmp_path):
    linear_model = pytest.importorskip("nagcore.linear_model")
    history, checkpoint = History(tmp_path / "run.jsonl"), Checkpoint(tmp_path / "saved", every=1, keep=1)
    with use(history, checkpoint, AnomalyGuard("raise"), Progress(every=0.0)):
        model = linear_model.LogisticRegression(tol=1e-10).fit(X, Y)
    history.close()
    assert len(History.read(tmp_path / "run.jsonl")) > 3
    saved = checkpoint.load_latest()
    np.testing.assert_allclose(saved.state["w"][:6], np.ravel(model.coef_), rtol=1e-3)
    rows = len(history)
    linear_model.LogisticRegression().fit(X, Y)
    assert len(history) == rows  # the block is over


def test_a_stop_ends_an_estimators_fit():
    linear_model = pytest.importorskip("nagcore.linear_model")
    seen = []
    with use(lambda state: seen.append(state.n_iter), lambda state: state.n_iter == 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged, which is so
            linear_model.LogisticRegression(tol=1e-12).fit(X, Y)
    assert seen == [1, 2]


def test_blocks_nest_and_end_with_an_error():
    objective, seen = nagcore.Objective(X, Y, loss="logistic", l2=1e-3), []
    with use(lambda state: seen.append("outer")):
        with pytest.raises(ZeroDivisionError), use(lambda state: seen.append("inner"), lambda state: 1 / 0):
            nagcore.minimize(objective, callbacks=[lambda state: seen.append("own")])
        assert seen == ["own", "outer", "inner"]
        nagcore.minimize(objective, callbacks=[lambda state: True])
        assert seen == ["own", "outer", "inner", "outer"]
    nagcore.minimize(objective)
    assert len(seen) == 4
    with pytest.raises(TypeError, match="callables"), use(3):
        pass


def test_other_threads_are_left_alone():
    objective, seen = nagcore.Objective(X, Y, loss="logistic", l2=1e-3), []
    with use(seen.append):
        thread = threading.Thread(target=nagcore.minimize, args=(objective,))
        thread.start()
        thread.join()
        assert not seen
        nagcore.minimize(objective)
    assert seen


def test_one_callback_serves_many_runs():
    objective = nagcore.Objective(X, Y, loss="logistic", l2=1e-3)
    stopper, history = EarlyStopping(2, min_delta=1e-4), History()
    with use(stopper, history):
        first = nagcore.minimize(objective, tol=1e-14)
        second = nagcore.minimize(objective, tol=1e-14)
    np.testing.assert_array_equal(first.w, second.w)
    assert len(history) == first.n_iter + second.n_iter
    steps = history["step"]
    assert steps.tolist() == [*range(1, first.n_iter + 1), *range(1, second.n_iter + 1)]
    half = first.n_iter
    np.testing.assert_array_equal(history["value"][:half], history["value"][half:])


def test_numpy_is_all_that_callbacks_import(tmp_path):
    """rich and tqdm are looked for at the first drawing, and frameworks never."""
    script = """
        import sys
        import nagcore.callbacks, nagcore.schedules
        from nagcore.callbacks import Checkpoint, Progress
        Progress().update(1, loss=0.5)
        Checkpoint(sys.argv[1]).save(1, {})
        found = {name.partition(".")[0] for name in sys.modules}
        known = {"rich", "tqdm", "torch", "keras", "jax", "scipy", "sklearn", "pandas", "safetensors"}
        print(sorted(found & known))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path], text=True,
                          env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
                          capture_output=True, timeout=60)  # fmt: skip
    assert done.stdout == "[]\n", done.stderr
