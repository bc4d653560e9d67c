"""Every example runs in its quick form, prints its result, and draws its picture."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# The last number each prints after a word, the least it may be, and the libraries it needs.
RESULTS = {
    "quickstart": ("accuracy", 0.8, ["sklearn"]),
    "sparse_text": ("accuracy", 0.4, ["scipy"]),  # of five topics, from 600 texts
    "big_memmap": ("accuracy", 0.9, []),
    "nesterov_loop": ("accuracy", 0.8, []),
    "numpy_mse": ("speed-up", 2.0, ["matplotlib"]),
    "ten_reads": ("arrives after", 0.1, ["sklearn", "matplotlib"]),
    "landscape": ("accuracy", 0.9, ["matplotlib"]),
    "large_images": ("accuracy", 0.85, ["sklearn", "matplotlib"]),
    "torch_cnn": ("accuracy", 0.7, ["torch", "sklearn", "matplotlib"]),
    "keras_dense": ("accuracy", 0.8, ["keras", "torch", "sklearn", "matplotlib"]),
    # The part of the steps in which nagcore's and torch's losses are equal to the bit.
    "rnn": ("equal steps", 1.0, ["torch", "matplotlib"]),
    "gan": ("equal steps", 1.0, ["torch", "matplotlib"]),
}
# What each writes into the folder it runs in.
PICTURES = {
    "numpy_mse": {"numpy_mse.png"},
    "ten_reads": {"ten_reads.png"},
    "landscape": {"landscape.png", "landscape.gif"},
    "large_images": {"large_images.png"},
    "torch_cnn": {"torch_cnn.png"},
    "keras_dense": {"keras_dense.png"},
    "rnn": {"rnn.png"},
    "gan": {"gan.png"},
}
SIGNATURES = {".png": b"\x89PNG", ".gif": b"GIF8"}
MODULES = {"image_files"}  # what examples import from beside them


def test_every_example_is_listed():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(RESULTS) | MODULES


def check_what_was_planted(text):
    lines = {line.split()[0]: line for line in text.splitlines() if "planted" in line}
    parts = {kind: [float(p) for p in re.findall(r"([\d.]+)%", line)] for kind, line in lines.items()}
    assert min(parts["corrupt"] + parts["duplicate"]) >= 95
    assert min(parts["mislabelled"]) >= 40, text  # with two folds of 2,000 rows
    assert "20 planted" in lines["corrupt"]
    assert "40 planted" in lines["duplicate"]


@pytest.mark.parametrize("name", RESULTS)
def test_example_runs(name, tmp_path):
    word, least, needed = RESULTS[name]
    for library in needed:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick"]
    environment = {**os.environ, "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "torch")}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert float(re.findall(rf"{word} ([\d.]+)", done.stdout)[-1]) >= least, done.stdout
    if name == "large_images":
        check_what_was_planted(done.stdout)
    if name == "keras_dense":
        assert "read back: predictions equal to the bit" in done.stdout
        tools = ("onnx", "onnxruntime", "onnxscript")
        there = all(importlib.util.find_spec(tool) is not None for tool in tools)
        assert ("200 of 200 classes equal" if there else "ONNX: left out") in done.stdout
    pictures = {path.name for path in tmp_path.iterdir()}
    assert pictures == PICTURES.get(name, set())
    for picture in pictures:
        head = (tmp_path / picture).read_bytes()[:4]
        assert head == SIGNATURES[Path(picture).suffix]


@pytest.mark.parametrize("name", ["numpy_mse", "landscape", "large_images"])
def test_a_name_that_is_no_picture_is_refused_before_the_work(name, tmp_path):
    for library in RESULTS[name][2]:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick", "--out", "a.nothing"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "ends in 'nothing'; matplotlib writes" in done.stderr
    assert list(tmp_path.iterdir()) == []

