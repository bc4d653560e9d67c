"""Rules about the source tree: which room may look into which, sizes, flags, versions."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
from pathlib import Path

import pytest

import nagcore

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "nagcore"
SKIPPED = {
    ".git",
    "build",
    "dist",
    "__pycache__",
    ".pytest_cache",
    ".hypothesis",
    ".ruff_cache",
    ".mypy_cache",
}
CODE = {".py", ".pyi", ".h", ".cc", ".cmake", ".sh"}


def tree(suffixes: set[str]) -> list[Path]:
    """Return the source files of the repository with one of these suffixes."""
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = [
            n
            for n in names
            if n not in SKIPPED and not n.startswith((".venv", "build-")) and n != "_skbuild"
        ]
        found += [Path(folder, f) for f in files if Path(f).suffix in suffixes and f != ".git"]
    return sorted(found)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def cpp_code(path: Path) -> str:
    """Return a C++ file's text without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text("utf-8"), flags=re.DOTALL)


# ----- doors ------------------------------------------------------------------------------------

# base <- losses <- kernels <- isa;  kernels/table.h <- dispatch <- engine <- bindings
CPP_DOORS = {
    "base": {"base"},
    "losses": {"base", "losses"},
    "kernels": {"base", "losses", "kernels"},
    "isa": {"base", "losses", "kernels", "isa"},
    "dispatch": {"base", "losses", "kernels/table.h", "dispatch"},
    "engine": {"base", "losses", "kernels/table.h", "dispatch", "engine"},
    "bindings": {"base", "losses", "kernels/table.h", "dispatch", "engine", "bindings"},
}
CPP_FILES = [p for p in tree({".h", ".cc"}) if CSRC in p.parents]

# From left to right; a module may import from rooms to its left, and from its own folder.
PYTHON_ROOMS = [
    ["_core"],
    ["update", "losses", "penalties", "data", "schedules"],
    ["objective"],
    ["callbacks"],
    ["solvers"],
    ["linear_model"],
    ["torch", "keras", "dask", "onnx", "plots", "model_io", "checkup"],
    ["__init__"],  # `import nagcore` and `from nagcore import minimize`: lazy, so all of the above
    ["bench"],
    ["cli", "__main__"],
]
ANYWHERE = {"_extras", "_files"}  # import nothing of nagcore
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {"_core"} | {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in PYTHON_FILES}


@pytest.mark.parametrize("path", CPP_FILES, ids=name_of)
def test_cpp_doors_open_leftwards(path):
    room = path.relative_to(CSRC).parts[0]
    assert room in CPP_DOORS, f"{room} is no room of the house; see CPP_DOORS"
    for include in re.findall(r'#\s*include\s+"([^"]+)"', cpp_code(path)):
        target = (path.parent / include) if (path.parent / include).is_file() else CSRC / include
        assert target.is_file(), f"{include} is not in csrc"
        inside = target.resolve().relative_to(CSRC).as_posix()
        assert {inside, inside.partition("/")[0]} & CPP_DOORS[room], f"{room} looks into {inside}"


@pytest.mark.parametrize("path", CPP_FILES, ids=name_of)
def test_cpp_rooms_keep_to_their_libraries(path):
    """pybind11 lives in bindings, OpenMP in engine/threads.cc, and vector code uses no C++ library."""
    room, code = path.relative_to(CSRC).parts[0], cpp_code(path)
    system = re.findall(r"#\s*include\s+<([^>]+)>", code)
    if room != "bindings":
        assert not [h for h in system if h.startswith(("pybind11", "Python"))]
    if path.relative_to(CSRC).as_posix() != "engine/threads.cc":
        openmp = re.search(r"#\s*pragma\s+omp\b|\bomp\.h|\b_OPENMP\b", code)
        assert not openmp, "only engine/threads.cc is compiled with OpenMP's flags"
    if room in ("losses", "kernels", "isa") and path.name != "table.h":
        stl = {
            "algorithm",
            "array",
            "cmath",
            "functional",
            "memory",
            "numeric",
            "string",
            "utility",
            "vector",
        }
        assert not stl & set(system), "per-ISA code must share no template with other units"


def nagcore_imports(path: Path) -> set[str]:
    """Return the nagcore modules, by their first name, that a file imports anywhere, lazily or not.

    A name that is no module, as in ``from nagcore import minimize``, comes from ``__init__``.
    """
    package = ("nagcore", *path.relative_to(PACKAGE).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            first = name.split(".")[1:2] or ["__init__"]
            if name.split(".")[0] == "nagcore":
                found.add(first[0] if first[0] in MODULES else "__init__")
    return found


def room_number(name: str) -> int:
    for number, room in enumerate(PYTHON_ROOMS):
        if name in room:
            return number
    raise AssertionError(f"nagcore.{name} has no place in the house; give it one in PYTHON_ROOMS")


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_python_doors_open_leftwards(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imports = nagcore_imports(path) - {here} - ANYWHERE
    if here in ANYWHERE or here == "reference":
        assert not imports, f"{here} must stand alone"
        return
    if here not in ("checkup", "__init__", "bench"):
        assert "reference" not in imports, "the oracle is for checks, not for results"
    for name in imports - {"reference"}:
        assert room_number(name) < room_number(here), (
            f"{here} imports {name}, which stands to its right"
        )


def test_doors_are_found():
    """The two tests above would pass on an empty house."""
    assert len(CPP_FILES) > 15
    assert len(PYTHON_FILES) > 12
    assert "_core" in nagcore_imports(PACKAGE / "update.py")
    assert "objective" in {
        n for p in (PACKAGE / "solvers").glob("*.py") for n in nagcore_imports(p)
    } | {n for p in (PACKAGE / "linear_model").glob("*.py") for n in nagcore_imports(p)}


# ----- text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", tree(CODE), ids=name_of)
def test_no_file_holds_two_ideas(path):
    assert len(path.read_text("utf-8").splitlines()) <= 500


@pytest.mark.parametrize(
    "path", tree({".h", ".cc", ".txt", ".cmake", ".toml", ".json", ".yml"}), ids=name_of
)
def test_no_fast_math(path):
    """-ffast-math links an object that flushes denormals to zero in the whole process."""
    text = (
        cpp_code(path)
        if path.suffix in (".h", ".cc")
        else re.sub(r"#[^\n]*", "", path.read_text("utf-8"))
    )
    for flag in (
        "-ffast-math",
        "-Ofast",
        "/fp:fast",
        "-funsafe-math-optimizations",
        "-ffinite-math-only",
        "-fassociative-math",
    ):
        assert flag not in text


TEXT = [
    p for p in tree({*CODE, ".md", ".toml", ".json", ".yml", ".txt", ""}) if p.name != "LICENSE"
]
TEXT = [p for p in TEXT if p != Path(__file__).resolve()]


@pytest.mark.parametrize("path", TEXT, ids=name_of)
def test_no_banner_of_other_projects(path):
    text = path.read_text("utf-8", errors="replace")
    found = re.search(
        r"copyright \(c\)|copyright \d{4}|all rights reserved|licensed under|@author|SPDX-",
        text,
        re.IGNORECASE,
    )
    assert found is None, (
        f"{found.group()!r}: no third-party code is copied in, and LICENSE speaks for ours"
    )


@pytest.mark.parametrize("path", TEXT, ids=name_of)
def test_no_path_of_one_machine(path):
    text = path.read_text("utf-8", errors="replace")
    found = re.search(r"(?<![\w.~$}])/(home|root|Users|work|mnt|data)/\w+|[A-Z]:\\\\?Users", text)
    assert found is None, f"{found.group()!r} exists on one machine"


def test_versions_agree():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    version = re.search(r'^version = "([^"]+)"', text, re.MULTILINE).group(1)
    assert importlib.metadata.version("nagcore") == version
    assert nagcore.__version__ == version
    released = re.findall(
        r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert released[0] == version
    cmake = re.search(
        r"project\([^)]*VERSION\s+([\d.]+)", (ROOT / "CMakeLists.txt").read_text("utf-8")
    )
    assert cmake is None or cmake.group(1) == version


def test_nothing_unfinished():
    words = "TO-DO FIX-ME XX-X HA-CK".replace("-", "").split()  # as they stand nowhere else
    pattern = re.compile(rf"\b({'|'.join(words)})\b|raise NotImplemented" + "Error")
    for path in tree(CODE):
        found = pattern.search(path.read_text("utf-8"))
        assert found is None, f"{name_of(path)}: {found.group()}"
