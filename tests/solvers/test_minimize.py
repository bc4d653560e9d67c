"""What `minimize` promises of a run: honest counts, early ends, warm starts, clear errors, and the best so far on Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import nagcore


def data(n=2000, d=20, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.geomspace(0.01, 100, d)
    z = X / np.geomspace(0.01, 100, d) @ rng.standard_normal(d)
    return X, (z + rng.standard_normal(n) > 0).astype(int)


def objective(l2=1e-4, l1=0.0, **more):
    X, y = data()
    return nagcore.Objective(X, y, loss="logistic", l2=l2, l1=l1, **more)


@pytest.fixture(params=["fista", "acfgm"])
def solver(request):
    return request.param


@pytest.mark.parametrize("l1", [0.0, 1e-3])
def test_minimize_converges_with_a_certificate_that_bounds_the_truth(solver, l1):
    best = nagcore.minimize(objective(l1=l1), tol=1e-12, max_passes=5000).value
    result = nagcore.minimize(objective(l1=l1), solver=solver, tol=1e-6, max_passes=5000)
    assert result.converged, result.message
    assert result.gap_kind == "certificate"
    assert -1e-12 <= result.value - best <= result.gap + 1e-12
    assert result.gap <= 1e-6 * (result.null_value - result.value)


def test_minimize_counts_every_pass(solver):
    f = objective()
    before = f.n_passes
    result = nagcore.minimize(f, solver=solver)
    assert result.n_passes == f.n_passes - before
    assert result.n_iter <= result.n_passes
    assert list(result.history.n_passes) == sorted(result.history.n_passes)


def test_minimize_stops_at_max_passes(solver):
    result = nagcore.minimize(objective(l2=1e-9), solver=solver, tol=1e-14, max_passes=15)
    assert not result.converged
    assert result.n_passes <= 16
    assert "15" in result.message


def test_minimize_stops_at_max_seconds(solver):
    start = time.perf_counter()
    result = nagcore.minimize(objective(l2=0.0, l1=1e-9), solver=solver, tol=1e-15, max_passes=10**8,
                              max_seconds=0.3)
    assert time.perf_counter() - start < 5
    assert np.isfinite(result.value)


def test_callback_stops_a_run_and_sees_its_state(solver):
    seen = []

    def third(state):
        seen.append((state.n_iter, state.value, state.seconds))
        return state.n_iter >= 3

    result = nagcore.minimize(objective(l2=1e-9), solver=solver, tol=1e-14, callbacks=[third])
    assert len(seen) == result.n_iter == 3
    assert not result.converged
    assert all(np.isfinite(value) for _, value, _ in seen)


def test_warm_start_needs_fewer_passes(solver):
    cold = nagcore.minimize(objective(), solver=solver, tol=1e-8, max_passes=5000)
    warm = nagcore.minimize(objective(), cold.w, solver=solver, tol=1e-6)
    assert warm.converged
    assert warm.n_passes < cold.n_passes


def test_the_same_bits_on_any_number_of_threads(solver):
    runs = [nagcore.minimize(objective(n_threads=t), solver=solver, tol=1e-6) for t in (1, 2, 3)]
    assert all(np.array_equal(run.w, runs[0].w) for run in runs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nagcore.minimize(objective(), solver="sgd"), "fista"),
        (lambda: nagcore.minimize(objective(), tol=float("nan")), "tol"),
        (lambda: nagcore.minimize(objective(), tol=-1.0), "tol"),
        (lambda: nagcore.minimize(objective(), np.zeros(3)), "w0"),
        (lambda: nagcore.minimize(objective(), max_passes=0), "max_passes"),
        (lambda: objective(l2=-1.0), "l2"),
        (lambda: objective(l1=-1.0), "l1"),
        (
            lambda: nagcore.minimize(
                nagcore.Objective(np.eye(4), np.ones(4), loss="poisson"), solver="acfgm"
            ),
            "fista",
        ),
    ],
)
def test_bad_arguments_are_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


SCRIPT = """
import time, numpy as np, nagcore
rng = np.random.default_rng(0)
X = rng.standard_normal((200_000, 60)); y = rng.integers(0, 2, len(X))
f = nagcore.Objective(X, y, loss="logistic", l1=1e-9)
print("started", flush=True)
# Without the pause such a well-conditioned problem would be solved before the signal comes.
r = nagcore.minimize(f, tol=1e-300, max_passes=10**9, callbacks=[lambda state: time.sleep(0.2)])
print(r.message, np.isfinite(r.value), r.value <= r.null_value, len(r.w), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to a child there")
def test_ctrl_c_returns_the_best_so_far_within_a_second():
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline().strip() == "started"
        time.sleep(0.7)
        child.send_signal(signal.SIGINT)
        start = time.perf_counter()
        line = child.stdout.readline()
        assert time.perf_counter() - start < 3, "a second, and some for a busy machine"
        assert line.split() == ["interrupted", "True", "True", "61"]
        assert child.wait(timeout=30) == 0
