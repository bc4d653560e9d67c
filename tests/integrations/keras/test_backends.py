"""nagcore.keras on every installed backend.

keras fixes its backend at the first import, so each backend runs in a process of its own, over the
same files: check_*.py beside this one. tensorflow may live in another environment than the rest, as
its wheels pin versions of their own; NAGCORE_TENSORFLOW_PYTHON names that environment's interpreter.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nagcore._extras import child_environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BACKENDS = ["numpy", "torch", "jax", "tensorflow"]
CHECKS = sorted(HERE.glob("check_*.py"))
DOCTESTS = [
    f"nagcore.keras{name}" for name in ("", ".callbacks", ".host", ".model_state", ".saving", ".sgd")
]


def python_of(backend: str) -> str:
    """The interpreter that has keras and the backend; skips, saying so, where none has."""
    if backend == "tensorflow" and os.environ.get("NAGCORE_TENSORFLOW_PYTHON"):
        return os.environ["NAGCORE_TENSORFLOW_PYTHON"]
    for needed in {"keras", backend}:
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    return sys.executable


def environment(backend: str) -> dict[str, str]:
    return child_environment(KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")


def run(backend: str, *arguments: str) -> str:
    result = subprocess.run(
        [python_of(backend), *arguments],
        cwd=ROOT, env=environment(backend), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert result.returncode == 0, f"{result.stdout[-6000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(backend):
    """Every file's tests pass on the backend, or say why they do not run there."""
    # All files in one process: half of a file's time is the imports of keras and its backend.
    out = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", *map(str, CHECKS))
    for check in CHECKS:
        path = re.escape(check.relative_to(ROOT).as_posix())
        assert re.search(rf"^(PASSED {path}|SKIPPED .*{path}:\d+: \S)", out, re.MULTILINE), check.name


@pytest.mark.parametrize("backend", BACKENDS)
def test_examples_in_docstrings_run(backend):
    """tests/test_doctest.py runs these on one backend, or skips where that one is absent."""
    script = (
        "import doctest, importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    found = doctest.testmod(importlib.import_module(name),"
        " optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)\n"
        "    assert found.attempted, f'{name} has no examples'\n"
        "    assert not found.failed, name\n"
    )
    run(backend, "-c", script, *DOCTESTS)


def test_a_missing_keras_is_one_clear_line():
    script = (
        "import sys\n"
        "sys.modules['keras'] = None\n"
        "try:\n"
        "    import nagcore.keras\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", script],
        env=child_environment(), capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert out.strip() == "nagcore.keras needs keras; pip install 'nagcore[keras]'"
