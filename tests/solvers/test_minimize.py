"""Runs and their ends: limits kept to the pass, callbacks, starts, Ctrl-C, float32 and its limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import scipy.sparse as sp

import nagcore
from nagcore import Objective, minimize
from nagcore.callbacks import History, Progress
from solvers.numpy_problem import NumpyProblem
from solvers.problems import fit_case, minimum, value

EPS = 2.0**-52


@pytest.mark.parametrize("solver", ["fista", "acfgm", "newton", "plbfgs"])
@pytest.mark.parametrize("penalty", ["none", "l2", "l1", "elasticnet"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_max_passes_is_never_exceeded(solver, penalty, fit_intercept, dtype):
    """Every pass counts: the reading of rows, steps taken back, float64 passes, the closing proof."""
    if solver in ("newton", "plbfgs") and penalty in ("l1", "elasticnet"):
        return
    case = fit_case("logistic", "correlated", "l2" if penalty == "none" else penalty, fit_intercept)
    case |= {"X": case["X"].astype(dtype)} | ({"l2": 0.0} if penalty == "none" else {})
    for limit in (2, 3, 4, 5, 6, 7, 9, 12, 20):
        objective = Objective(**case)
        found = minimize(objective, tol=1e-14, max_passes=limit, solver=solver)
        assert objective.n_passes == found.n_passes <= limit
        assert found.message in (f"max_passes={limit} reached", "converged")
        assert found.history.n_passes[-1] <= limit
        if penalty != "none" and limit >= 6:
            assert found.gap_kind == "certificate"


def test_passes_are_counted_by_the_problem_too():
    case = fit_case("logistic", penalty="l1")
    problem = NumpyProblem(case["X"], case["y"], fit_intercept=True)
    objective = Objective.from_problem(problem, l1=case["l1"])
    found = minimize(objective, tol=1e-8)
    assert found.converged
    assert problem.passes == objective.n_passes == found.n_passes
    again = minimize(objective, found.w, tol=1e-8)
    assert again.n_passes == problem.passes - found.n_passes


def test_rows_come_from_where_from_problem_is_told():
    """The same variables, and so the same number of passes, as with an Objective of the data."""
    case = fit_case("logistic", "scales")
    problem = NumpyProblem(case["X"], case["y"], fit_intercept=True)
    seen = Objective.from_problem(problem, l2=case["l2"], X=case["X"])
    blind = Objective.from_problem(problem, l2=case["l2"])
    of_data = minimize(Objective(**case), tol=1e-6, solver="fista").n_passes
    assert abs(minimize(seen, tol=1e-6, solver="fista").n_passes - of_data) <= 1
    assert minimize(blind, tol=1e-6, max_passes=200, solver="fista").n_passes > 4 * of_data


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax", "poisson"])
@pytest.mark.parametrize("storage", ["float32", "csr32", "uint8"])
def test_narrow_data_get_a_proof_in_float64(storage, loss):
    """The proof is of F in exact arithmetic on the narrow numbers, beyond what float32 resolves."""
    case = fit_case(loss, "plain", "l2", weights=True)
    data, how = case["X"].astype(np.float32), {}
    if storage == "uint8":
        data, how = (case["X"] * 20 + 128).astype(np.uint8), {"scale": 0.05, "shift": -6.4}
        case["X"] = data * 0.05 - 6.4
    else:
        case["X"] = data.astype(np.float64)
    X = sp.csr_matrix(data) if storage == "csr32" else data
    for tol in (1e-4, 1e-10):
        objective = Objective(**case | {"X": X} | how)
        found = minimize(objective, tol=tol)
        assert objective.problem.compute == np.float32
        assert objective.wide.compute == np.float64
        assert found.converged
        assert found.gap_kind == "certificate"
        rounding = 100 * EPS * abs(found.null_value)
        assert found.value == pytest.approx(value(case, found.w), rel=1e-12)
        gained = found.null_value - found.value
        assert found.value - minimum(case) <= tol * gained + rounding


def test_float32_alone_stops_where_it_cannot_see_further():
    case = fit_case("logistic", "plain", "l2")
    problem = NumpyProblem(case["X"].astype(np.float32), case["y"], fit_intercept=True)
    objective = Objective.from_problem(problem, l2=0.05, X=case["X"])
    assert minimize(objective, tol=1e-4).converged
    found = minimize(objective, tol=1e-15, max_passes=3000)
    assert found.gap_kind == "estimate"
    assert not found.converged
    assert found.message == "stopped at the rounding of float32 arithmetic"
    assert found.n_passes < 1000


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "poisson", "squared_hinge"])
def test_without_a_penalty_the_gap_is_called_an_estimate(loss):
    case = fit_case(loss, "correlated") | {"l2": 0.0}
    found = minimize(Objective(**case), tol=1e-6)
    assert found.gap_kind == "estimate"
    assert found.converged
    assert found.value - minimum(case) <= 1e-5 * (found.null_value - found.value)


def test_unknown_names_get_the_choices():
    with pytest.raises(ValueError, match='"auto", "fista", "acfgm"'):
        minimize(Objective(**fit_case("logistic")), solver="lbfgs")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"tol": np.nan}, "tol is nan"), ({"tol": -1e-3}, "tol is -0.001"), ({"tol": "1"}, "tol is 1"),
        ({"max_passes": 0}, "max_passes is 0"), ({"max_passes": 1.5}, "max_passes is 1.5"),
        ({"max_seconds": 0}, "max_seconds is 0"), ({"max_seconds": -1}, "max_seconds is -1"),
        ({"w0": np.zeros(6)}, "w0 has shape \\(6,\\); .*np.zeros"),
        ({"w0": np.full(7, np.nan)}, "w0 holds NaN"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_clear_error(how, words):
    objective = Objective(**fit_case("logistic"))
    with pytest.raises(ValueError, match=words):
        minimize(objective, **how)
    assert objective.n_passes == 0


def test_only_an_objective_is_minimised():
    with pytest.raises(TypeError, match=r"nagcore\.Objective"):
        minimize(lambda w: 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_x_is_named_by_its_place(bad):
    for layout in (np.asarray, sp.csr_matrix):
        case = fit_case("logistic")
        case["X"][5, 3] = bad
        with pytest.raises(ValueError, match="row 5, column 3"):
            minimize(Objective(**case | {"X": layout(case["X"])}))


def test_a_warm_start_is_left_alone_and_pays():
    case = fit_case("logistic", "correlated", "elasticnet")
    cold = minimize(Objective(**case), tol=1e-9, solver="fista")
    w0 = cold.w.copy()
    warm = minimize(Objective(**case), w0, tol=1e-8, solver="fista")
    assert warm.converged
    assert warm.n_passes <= 6 < cold.n_passes
    np.testing.assert_array_equal(w0, cold.w)
    assert warm.w is not w0
    lists = minimize(Objective(**case), cold.w.astype(np.float32).tolist(), tol=1e-8)
    assert lists.converged


def test_the_result_is_one_consistent_account():
    case = fit_case("softmax", penalty="elasticnet")
    objective = Objective(**case)
    found = minimize(objective, tol=1e-7)
    assert found.w.shape == (7, 3)
    np.testing.assert_array_equal(found.coef, found.w[:6])
    np.testing.assert_array_equal(found.intercept, found.w[6])
    assert found.value == pytest.approx(objective.value(found.w), rel=1e-13)
    assert found.null_value == pytest.approx(objective.null_value, rel=1e-13)
    history = found.history
    assert len(history) == found.n_iter
    assert history.value == sorted(history.value, reverse=True)
    assert history.n_passes == sorted(set(history.n_passes))
    assert history.seconds == sorted(history.seconds)
    assert history.seconds[-1] <= found.seconds
    bare = minimize(Objective(**case | {"fit_intercept": False}), tol=1e-3)
    np.testing.assert_array_equal(bare.intercept, 0.0)
    assert isinstance(minimize(Objective(**fit_case("squared")), tol=1e-3).intercept, float)


def test_callbacks_see_the_state_and_stop_the_run():
    case, seen = fit_case("logistic", "correlated", "l1"), []

    def stop(state):
        seen.append(state)
        return state.n_iter == 7

    history = History()
    found = minimize(Objective(**case), tol=1e-12, callbacks=(stop, history), solver="fista")
    assert found.message == "stopped by a callback"
    assert not found.converged
    assert [s.n_iter for s in seen] == list(range(1, 8))
    assert history.n_passes == found.history.n_passes
    last = seen[-1]
    assert last.w.shape == (7,)
    assert last.value == pytest.approx(value(case, last.w), rel=1e-12)
    assert last.null_value == pytest.approx(found.null_value)
    assert last.relative_gap == pytest.approx(last.gap / (last.null_value - last.value))
    assert last.nbytes == case["X"].nbytes
    assert last.gap_kind in ("estimate", "certificate")
    assert found.value <= min(s.value for s in seen)


def test_only_true_stops():
    found = minimize(Objective(**fit_case("logistic")), callbacks=[lambda state: 1])
    assert found.converged


def test_an_error_in_a_callback_is_the_callers():
    def fail(state):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        minimize(Objective(**fit_case("logistic")), callbacks=[fail])


def test_progress_reports_in_its_rhythm():
    reports = []
    bar = Progress(reports.append, every=1000.0)
    for _ in range(2):
        minimize(Objective(**fit_case("logistic", "correlated")), callbacks=[bar])
    assert len(reports) == 2  # once per run: none lasts a thousand seconds
    every = []
    minimize(Objective(**fit_case("logistic", "correlated")), callbacks=[Progress(every.append, 0.0)])
    assert len(every) > 3


def test_max_seconds_ends_the_run():
    case = fit_case("logistic", "correlated")
    begun = time.perf_counter()
    found = minimize(Objective(**case), tol=0, max_passes=10**9, max_seconds=0.05,
                     callbacks=[lambda state: time.sleep(0.01)])
    assert found.message == "max_seconds=0.05 reached"
    assert 0.05 <= time.perf_counter() - begun < 5.0
    assert found.n_iter < 20


@pytest.mark.parametrize("solver", ["fista", "acfgm", "newton", "plbfgs"])
def test_ctrl_c_returns_the_best_so_far(solver):
    case = fit_case("logistic", "correlated", "l1" if solver in ("fista", "acfgm") else "l2")

    def press(state):
        if state.n_iter == 4:
            os.kill(os.getpid(), signal.SIGINT)

    objective = Objective(**case)
    found = minimize(objective, tol=1e-12, solver=solver, callbacks=[press])
    assert found.message == "interrupted"
    assert not found.converged
    assert found.value == pytest.approx(value(case, found.w), rel=1e-12)
    assert found.value < found.null_value
    assert found.n_passes == objective.n_passes <= 12


def test_ctrl_c_before_the_first_pass_returns_the_null_model(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(nagcore.solvers.driver.Metric, "at", interrupted)
    objective = Objective(**fit_case("logistic"))
    found = minimize(objective, solver="fista")
    assert found.message == "interrupted"
    np.testing.assert_array_equal(found.w, objective.null_model()[1])


def test_ctrl_c_in_a_long_pass_stops_within_a_second():
    script = """
        import time, numpy as np, nagcore
        rng = np.random.default_rng(0)
        X = rng.standard_normal((300_000, 100)).cumsum(axis=1)  # neighbours are alike: many passes
        y = (X[:, 0] + rng.standard_normal(len(X)) > 0).astype(float)
        objective = nagcore.Objective(X, y, loss="logistic", l1=1e-9)
        def running(state):
            if state.n_iter == 3:
                print("running", flush=True)
        found = nagcore.minimize(objective, solver="fista", tol=0, max_passes=10**9, callbacks=[running])
        print(found.message, found.value < found.null_value, flush=True)
    """
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], text=True,
                             stdout=subprocess.PIPE, env=os.environ | path)
    try:
        assert child.stdout.readline() == "running\n"
        time.sleep(0.2)
        pressed = time.perf_counter()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted True\n"
        assert time.perf_counter() - pressed < 1.0
    finally:
        child.kill()
        child.wait()


def test_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 20)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=3000) > 0).astype(float)
    for penalty in ({"l2": 1e-3}, {"l1": 1e-3}):
        found = [minimize(Objective(X, y, loss="logistic", n_threads=n, **penalty), tol=1e-8).w
                 for n in (1, 2, 3, 4)]
        for w in found[1:]:
            np.testing.assert_array_equal(w, found[0])
