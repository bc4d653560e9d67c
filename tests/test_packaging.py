"""What the installed package promises about imports, threads, processes and metadata.

Each promise is about a whole process, so each test looks at a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nagcore import _core

ROOT = Path(__file__).resolve().parents[1]
HEAVY = [
    "scipy",
    "sklearn",
    "typer",
    "rich",
    "matplotlib",
    "pyarrow",
    "torch",
    "keras",
    "pandas",
    "ml_dtypes",
]
CLEARED = ("NAGCORE_ISA", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "PYTHONWARNINGS")
needs_openmp = pytest.mark.skipif(not _core.openmp_enabled(), reason="built without OpenMP")

# A fit-sized piece of work on two threads; prints what it computed, to the bit.
COMPUTE = """
import numpy as np, nagcore
rng = np.random.default_rng(0)
X = rng.standard_normal((20011, 23)); w = rng.standard_normal(23)
y = (rng.random(20011) < 0.5).astype(float)
def compute(n_threads=2):
    value, grad = nagcore.value_and_grad(X, y, w, loss="logistic", n_threads=n_threads)
    return value.hex() + grad.tobytes().hex()
"""


def in_process(code: str, *, timeout: float = 120, check: bool = True, **env: str):
    """Run code in a new interpreter, away from the source tree, and return the finished process."""
    clean = {k: v for k, v in os.environ.items() if k not in CLEARED}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**clean, **env},
        cwd=Path(sys.executable).parent,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def answer(code: str, **kwargs):
    """Return what code's last line of output says, read as JSON."""
    return json.loads(in_process(code, **kwargs).stdout.splitlines()[-1])


# ----- imports ----------------------------------------------------------------------------------


def test_import_is_light():
    """Importing the package imports its core and the standard library, nothing that takes long."""
    loaded = answer("import nagcore, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert "nagcore._core" in loaded
    assert not set(HEAVY) & set(loaded)
    assert not [m for m in loaded if m.startswith("nagcore.linear_model")]


def test_core_work_needs_numpy_alone():
    """A gradient, an update and a fit run where importing anything heavy is an error."""
    in_process(
        f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\n" + COMPUTE + "compute()\n"
        "p = np.ones(3); nagcore.nesterov_step_(p, p.copy(), p * 0, lr=0.1)\n"
        "assert nagcore.minimize(nagcore.Objective(X, y, loss='logistic', l2=0.1)).converged\n"
    )


@pytest.mark.parametrize("other", ["sklearn.linear_model", "torch"])
@pytest.mark.parametrize("first", [True, False], ids=["other-first", "nagcore-first"])
def test_import_order_does_not_matter(other, first):
    """Libraries that bring an OpenMP runtime of their own live beside ours, whoever comes first."""
    if importlib.util.find_spec(other.partition(".")[0]) is None:
        pytest.skip(f"{other} is not installed")
    theirs = {
        "torch": "import torch; torch.ones(400, 400) @ torch.ones(400, 400)\n",
        "sklearn.linear_model": "from sklearn.cluster import KMeans\n"
        "from numpy.random import default_rng\n"
        "KMeans(2, n_init=1, random_state=0).fit(default_rng(0).random((600, 3)))\n",
    }[other]
    parts = (
        [theirs, COMPUTE + "a = compute()\n"] if first else [COMPUTE + "a = compute()\n", theirs]
    )
    code = "".join(parts) + "import json; print(json.dumps([a, compute(), compute(1)]))"
    assert len(set(answer(code))) == 1


def test_public_names_survive_the_import_of_their_modules():
    """`nagcore.doctor` is a function, and stays one after a module of that name was imported."""
    got = answer(
        "import importlib, json, pkgutil, nagcore\n"
        "def kinds(): return {n: type(getattr(nagcore, n)).__name__ for n in nagcore.__all__}\n"
        "for m in pkgutil.iter_modules(nagcore.__path__):\n"
        "    if m.name not in ('_core', '__main__', 'cli', 'plots', 'torch', 'keras'):\n"
        "        importlib.import_module('nagcore.' + m.name)\n"
        "print(json.dumps(kinds()))"
    )
    fresh = answer(
        "import json, nagcore\n"
        "print(json.dumps({n: type(getattr(nagcore, n)).__name__ for n in nagcore.__all__}))"
    )
    assert got == fresh


# ----- instruction sets -------------------------------------------------------------------------


@pytest.mark.parametrize("isa", _core.isa_names())
def test_isa_override_is_obeyed(isa):
    assert answer("from nagcore import _core; import json; print(json.dumps(_core.active_isa()))",
                  NAGCORE_ISA=isa) == isa  # fmt: skip


def test_best_isa_is_the_default():
    got = answer(
        "from nagcore import _core; import json\n"
        "print(json.dumps([_core.active_isa(), _core.isa_names()]))"
    )
    assert got[0] == got[1][0]


def test_unknown_isa_is_an_import_error_that_names_the_choices():
    done = in_process("import nagcore; nagcore._core", check=False, NAGCORE_ISA="v9")
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError")
    assert "v9" in message
    for isa in _core.isa_names():
        assert isa in message


# ----- threads, processes and the state of the process ------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child_computes():
    """libgomp's threads do not survive a fork; a child must not wait for them."""
    code = COMPUTE + (
        "import multiprocessing as mp, json, warnings\n"
        "warnings.simplefilter('ignore')\n"  # Python 3.12 warns of fork beside threads
        "before = compute()\n"
        "with mp.get_context('fork').Pool(2) as pool:\n"
        "    children = pool.map(compute, [2, 2, 1, 4])\n"
        "print(json.dumps([before, *children, compute()]))\n"
    )
    assert len(set(answer(code, timeout=60))) == 1


@needs_openmp
def test_threadpoolctl_limit_is_honoured():
    pytest.importorskip("threadpoolctl")
    got = answer(
        COMPUTE + "from threadpoolctl import threadpool_limits\n"
        "from nagcore import _core\nimport json\n"
        "free = _core.default_threads()\n"
        "with threadpool_limits(1): limited = _core.default_threads(), compute(None)\n"
        "print(json.dumps([free, limited[0], limited[1] == compute(), _core.default_threads()]))"
    )
    assert got == [got[0], 1, True, got[0]]


@needs_openmp
def test_environment_limit_is_honoured():
    code = "from nagcore import _core; print(_core.default_threads())"
    assert answer(code, OMP_NUM_THREADS="1") == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity call")
def test_affinity_is_honoured():
    assert answer(
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from nagcore import _core; print(_core.default_threads())"
    ) == 1  # fmt: skip


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity call")
def test_binding_threads_to_places_keeps_them():
    """OMP_PROC_BIND leaves the first thread one processor to run on; the others are still there."""
    code = "from nagcore import _core; print(_core.default_threads())"
    assert answer(code, OMP_PROC_BIND="true") == answer(code, OMP_PROC_BIND="false")


@needs_openmp
@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_n_threads_changes_nothing_outside_the_call(n_threads):
    pytest.importorskip("threadpoolctl")
    got = answer(
        COMPUTE + "from threadpoolctl import threadpool_info\nimport json\n"
        "def openmp():\n"
        "    return [i['num_threads'] for i in threadpool_info() if i['user_api'] == 'openmp']\n"
        f"before = openmp(); compute({n_threads})\n"
        "p = np.ones(100000)\n"
        f"nagcore.nesterov_step_(p, p * 2, p * 0, lr=0.1, n_threads={n_threads})\n"
        "print(json.dumps([before, openmp()]))"
    )
    assert got[0]
    assert got[0] == got[1]


def test_denormals_survive_import_and_work():
    """-ffast-math anywhere in a library would flush them to zero for the whole process."""
    got = answer(
        COMPUTE + "import json; compute()\n"
        "tiny32, tiny64 = np.array([1e-39], np.float32), np.array([1e-310])\n"
        "halves = (tiny32 * np.float32(0.5))[0], (tiny64 * 0.5)[0]\n"
        "print(json.dumps([float(half) > 0 for half in halves]))"
    )
    assert got == [True, True]


def test_random_state_is_left_alone():
    got = answer(
        COMPUTE + "import json, random\nnp.random.seed(1); random.seed(1)\n"
        "def draw(): return [np.random.random(), random.random()]\n"
        "first = draw(); np.random.seed(1); random.seed(1)\n"
        "compute(); p = np.ones(9); nagcore.nesterov_step_(p, p * 2, p * 0, lr=0.1, seed=5)\n"
        "nagcore.minimize(nagcore.Objective(X, y, loss='logistic', l2=0.1), seed=3)\n"
        "print(json.dumps(draw() == first))"
    )
    assert got is True


# ----- what is installed ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["py.typed", "_core.pyi"])
def test_typing_files_are_installed(name):
    assert importlib.resources.files("nagcore").joinpath(name).is_file()


def test_runtime_dependency_is_numpy_alone():
    requires = importlib.metadata.requires("nagcore") or []
    core = [r for r in requires if "extra ==" not in r]
    assert [re.split(r"[^\w]", r)[0] for r in core] == ["numpy"]


def test_every_promised_extra_exists():
    extras = importlib.metadata.metadata("nagcore").get_all("Provides-Extra")
    assert {"cli", "sklearn", "plots", "all", "test", "bench"} <= set(extras or [])


def test_console_script_says_its_version():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    (script,) = [s for s in scripts if s.name == "nagcore"]
    assert script.value == "nagcore.cli:main"
    code = "import sys; sys.argv = ['nagcore', '--version']; from nagcore.cli import main; main()"
    done = in_process(code, check=False)
    assert done.returncode == 0, done.stderr
    assert importlib.metadata.version("nagcore") in done.stdout


def test_readme_shows_the_commands_that_ci_runs():
    text = (ROOT / "README.md").read_text("utf-8")
    assert "pip install '.[test]' && pytest" in text
    assert "nagcore fit digits" in text
