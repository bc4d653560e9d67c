"""Every example runs in its quick form and prints its result."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# The last number each prints, and the least it may be.
RESULTS = {
    "quickstart": ("accuracy", 0.8),
    "sparse_text": ("accuracy", 0.4),  # of five topics, from 600 texts
    "big_memmap": ("accuracy", 0.9),
    "nesterov_loop": ("accuracy", 0.8),
}


def test_every_example_is_listed():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_example_runs(name, tmp_path):
    if name == "sparse_text":
        pytest.importorskip("scipy")
    if name == "quickstart":
        pytest.importorskip("sklearn")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    word, least = RESULTS[name]
    assert float(re.findall(rf"{word} ([\d.]+)", done.stdout)[-1]) >= least, done.stdout
    assert list(tmp_path.iterdir()) == []
