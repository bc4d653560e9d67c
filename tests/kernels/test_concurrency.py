"""Several Python threads at once, fork after use, and Ctrl-C in the middle of a long pass."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cases import DTYPES, csr, make, thinned
from nagcore import _core

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX")


def answer(problem, w):
    value, g = problem.value_and_grad(w)
    return np.float64(value).tobytes() + g.tobytes() + problem.margins(w).tobytes()


def together(work, workers=6, timeout=120):
    """work(0), work(1), … at the same moment; their results in order."""
    barrier = threading.Barrier(workers)

    def start(i):
        barrier.wait(timeout)
        return work(i)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(start, range(workers), timeout=timeout))


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_threads_share_one_problem(n_threads):
    """A Problem is not written by its passes: six threads with six w get what each gets alone."""
    case = make("logistic", 6001, 43, "float32", extras=("weights", "intercept"))
    problem = case.problem(n_threads=n_threads)
    ws = [case.w * (i + 1) for i in range(6)]
    alone = [answer(problem, w) for w in ws]
    for results in together(lambda i: [answer(problem, ws[i]) for _ in range(20)]):
        assert len(set(results)) == 1
        assert results[0] in alone
    assert [answer(problem, w) for w in ws] == alone


def test_threads_use_problems_of_their_own():
    """Dense, CSR, softmax, every storage: all at once, constructors included."""
    cases = [make(loss, 3001, 31, dtype) for dtype in DTYPES for loss in ("squared", "softmax")]
    sparse = make("logistic", 2000, 300, "float64")
    sparse.X = csr(thinned(sparse.X, 0.1))
    cases += [sparse, make("softmax", 900, 7, "float32", k=12)]
    alone = [answer(c.problem(n_threads=2), c.w) for c in cases]
    got = together(
        lambda i: [answer(cases[i].problem(n_threads=2), cases[i].w) for _ in range(10)], len(cases)
    )
    for one, many in zip(alone, got):
        assert set(many) == {one}


def test_errors_stay_in_their_thread():
    """One thread's bad data raises there, with its own row; the others finish."""
    cases = [make("logistic", 4000, 11, "float32", seed=i) for i in range(6)]
    for i in (1, 4):
        cases[i].X[100 * i, i] = np.nan

    def work(i):
        try:
            return answer(cases[i].problem(n_threads=2), cases[i].w)
        except ValueError as error:
            return str(error)

    got = together(work)
    for i, result in enumerate(got):
        if i in (1, 4):
            assert f"row {100 * i}" in result
            assert f"column {i}" in result
        else:
            assert result == answer(cases[i].problem(), cases[i].w)


def virtual(n=2_000_000, d=20_000):
    """A pass of many seconds over no memory: zero strides, so that the array is one number."""
    return np.broadcast_to(np.float32(1e-9), (n, d)), np.ones(n, np.float32)


LONG = """
import signal, sys, time
import numpy as np
from nagcore import _core
n, d = 2_000_000, 20_000
X = np.broadcast_to(np.full({shape}, 1e-9, np.float32), (n, d))
y = np.arange(n) % 3 if "{loss}" == "softmax" else np.ones(n, np.float32)
problem = _core.Problem(X, y, loss="{loss}", n_threads=2)
print("start", flush=True)
try:
    {call}
    print("finished", flush=True)
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
small = _core.Problem(np.eye(3), np.ones(3), loss="squared")
print("usable", small.value_and_grad(np.zeros(3))[0], flush=True)
"""


@posix
@pytest.mark.parametrize(
    ("call", "loss", "shape"),
    [
        ("value_and_grad(np.ones(d))", "logistic", "(1, 1)"),
        ("value_and_grad(np.ones(d))", "squared", "(1, d)"),  # rows as in C order
        ("value_and_grad(np.ones(d))", "poisson", "(n, 1)"),  # columns as in Fortran order
        ("value_and_grad(np.ones((d, 3)))", "softmax", "(1, d)"),
        ("margins(np.ones(d))", "logistic", "(1, d)"),
        ("rmatvec(np.ones(n, np.float32))", "logistic", "(1, d)"),
    ],
)
def test_interrupt_stops_a_long_pass_within_a_second(call, loss, shape):
    code = textwrap.dedent(LONG).format(call=f"problem.{call}", loss=loss, shape=shape)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline().strip() == "start"
        time.sleep(0.5)
        sent = time.time()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if " " in line)
    assert "interrupted" in lines, out + err
    assert float(lines["interrupted"]) - sent < 1.0
    assert float(lines["usable"]) == 0.5


def test_other_threads_run_during_a_pass():
    """The interpreter's lock is free during a pass: a Python thread counts on."""
    X, y = virtual(n=200_000, d=4000)
    problem = _core.Problem(X, y, loss="logistic", n_threads=1)
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        begin = time.perf_counter()
        problem.value_and_grad(np.ones(4000))
        end = time.perf_counter()
    finally:
        done.set()
        thread.join()
    inside = sum(begin < t < end for t in ticks)
    assert inside >= 3, f"{inside} ticks in {end - begin:.3f} s"


# --------------------------------------------------------------------------------------------- fork
def in_child(queue, n_threads):
    case = make("logistic", 6001, 43, "float32")
    queue.put(answer(case.problem(n_threads=n_threads), case.w))


@posix
@pytest.mark.parametrize("n_threads", [1, 2, 4])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_computes_after_its_parent_did(n_threads):
    """libgomp's workers do not survive a fork, and a child that waits for them waits for ever."""
    case = make("logistic", 6001, 43, "float32")
    want = answer(case.problem(n_threads=n_threads), case.w)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=in_child, args=(queue, n_threads)) for _ in range(3)]
    for child in children:
        child.start()
    try:
        got = [queue.get(timeout=60) for _ in children]
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0, 0]
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
    assert set(got) == {want}
    assert answer(case.problem(n_threads=n_threads), case.w) == want


def square_of_value(i):
    case = make("squared", 3001, 21, "float64", seed=i)
    return answer(case.problem(n_threads=2), case.w)


@posix
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pool_of_forked_children_gives_the_parents_bits():
    want = [square_of_value(i) for i in range(6)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(square_of_value, range(6)).get(timeout=60) == want


@posix
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_inside_a_thread_while_another_computes():
    case = make("logistic", 20_001, 43, "float32")
    problem = case.problem(n_threads=2)
    want = answer(problem, case.w)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            assert answer(problem, case.w) == want

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                same = answer(case.problem(n_threads=2), case.w) == want
                os._exit(0 if same else 1)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux's sched_getaffinity")
def test_threads_may_run_where_they_could_before():
    """A thread that steps off another's core is held to no core afterwards."""
    script = """
        import os
        import numpy as np
        from nagcore import _core

        allowed = os.sched_getaffinity(0)
        X, y = np.random.default_rng(0).standard_normal((20_000, 20)), np.ones(20_000)
        problem = _core.Problem(X, y, loss="squared", n_threads=2)
        for _ in range(300):
            problem.value_and_grad(np.zeros(20))
        print([os.sched_getaffinity(int(t)) == allowed for t in os.listdir("/proc/self/task")])
    """
    binding = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
    unbound = {name: value for name, value in os.environ.items() if name not in binding}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=unbound, capture_output=True,
                          text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "False" not in done.stdout
    assert "True" in done.stdout
