"""docs/adding-a-loss.md, carried out in a copy of the tree: built, and kernel against oracle.

Slow, for it compiles the project: ``pytest -m slow``. Needs CMake, Ninja, a compiler and pybind11.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding-a-loss.md"

pytestmark = pytest.mark.slow


def block(label: str) -> str:
    """Return the code that follows a ``<!-- test: label -->`` of the page."""
    return re.search(
        rf"<!-- test: {label} -->\n```\w+\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    ).group(1)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{path.name} holds {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new), "utf-8")


def pybind11_folder() -> str | None:
    if importlib.util.find_spec("pybind11"):
        import pybind11

        return pybind11.get_cmake_dir()
    if config := shutil.which("pybind11-config"):
        return subprocess.run(
            [config, "--cmakedir"], capture_output=True, text=True, check=True
        ).stdout.strip()
    return None


@pytest.fixture(scope="module")
def changed_tree(tmp_path_factory):
    """A copy of the sources with the new loss in csrc, built in place, and no oracle yet."""
    if not (shutil.which("cmake") and shutil.which("ninja") and pybind11_folder()):
        pytest.skip("needs cmake, ninja and pybind11")
    copy = tmp_path_factory.mktemp("tree")
    unwanted = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "python", "tests", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for name in ("CMakeLists.txt", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    losses, registry = copy / "csrc/losses/losses.h", copy / "csrc/losses/registry.h"
    losses.write_text(losses.read_text("utf-8") + "\n" + block("struct"), "utf-8")
    registry.write_text(registry.read_text("utf-8") + block("registry"), "utf-8")
    # Little optimised and without one of the instruction sets: half of the minutes that a release takes.
    options = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1", "-DNAGCORE_HAS_V3=OFF"]
    options += ["-DNAGCORE_INPLACE=ON", "-DNAGCORE_WERROR=ON"]
    options += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11_folder()}"]
    subprocess.run(["cmake", "-S", copy, "-B", copy / "build", "-G", "Ninja", *options], check=True)
    subprocess.run(
        ["cmake", "--build", copy / "build", "--parallel", str(os.cpu_count())], check=True
    )
    return copy


def pytest_in(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "python")},
        capture_output=True,
        text=True,
    )


def test_a_loss_without_its_oracle_fails_the_tests(changed_tree):
    done = pytest_in(changed_tree, "tests/kernels/test_registry.py", "-k", "oracle_and_vice_versa")
    assert done.returncode == 1, done.stdout
    assert "log_cosh" in done.stdout


def test_the_page_adds_a_loss(changed_tree):
    oracle = changed_tree / "python/nagcore/reference/losses.py"
    edit(oracle, "\nLOSSES = {", f"\n{block('oracle')}\n\nLOSSES = {{")
    edit(oracle, "SquaredHinge)}", "SquaredHinge, LogCosh)}")
    # Whatever is parametrised over the registry now has cases for it.
    done = pytest_in(
        changed_tree, "tests/kernels", "tests/test_reference.py", "-k", "log_cosh or test_registry"
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    assert passed > 20, done.stdout[-4000:]

    code = """
import numpy as np, nagcore
rng = np.random.default_rng(0)
X = rng.standard_normal((500, 4)); y = X @ [1.0, -2.0, 0.5, 0.0] + rng.standard_t(2, 500)
assert "log_cosh" in nagcore.losses.names() and nagcore.losses.log_cosh.bounded_curvature
for solver in ("fista", "acfgm"):
    objective = nagcore.Objective(X, y, loss="log_cosh", l2=1e-3)
    result = nagcore.minimize(objective, solver=solver, tol=1e-8)
    assert result.converged, result.message
    value, gradient = nagcore.reference.value_and_grad(
        X, y, result.w, loss="log_cosh", l2=1e-3, fit_intercept=True)
    assert np.abs(gradient).max() < 1e-4, gradient
"""
    env = {**os.environ, "PYTHONPATH": str(changed_tree / "python")}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=changed_tree, env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
