"""Rules about the source tree itself: which room may look into which, sizes, flags, names, versions, documentation."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nagcore

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "nagcore"
SKIPPED = {".git", "build", "dist", "__pycache__", ".pytest_cache", ".hypothesis", ".ruff_cache", ".mypy_cache"}
CODE = {".py", ".pyi", ".h", ".cc", ".cmake", ".sh"}


def tree(suffixes: set[str]) -> list[Path]:
    """Return the source files of the repository with one of these suffixes."""
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = [
            n for n in names if n not in SKIPPED and not n.startswith((".venv", "build-")) and n != "_skbuild"
        ]
        found += [Path(folder, f) for f in files if Path(f).suffix in suffixes and f != ".git"]
    return sorted(found)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def cpp_code(path: Path) -> str:
    """Return a C++ file's text without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text("utf-8"), flags=re.DOTALL)


# ----- doors -----------------------------------------------------------------------------------------------------

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

# From left to right; a module may import from rooms to its left, and from its own room where that is a folder.
PYTHON_ROOMS = [
    ["_core"],
    ["update", "losses", "penalties", "data"],
    ["duality"],
    ["objective"],
    ["callbacks"],
    ["solvers"],
    ["linear_model"],
    ["torch", "keras", "dask", "onnx", "plots", "model_io", "doctor"],
    ["__init__"],  # `import nagcore` and `from nagcore import minimize`: lazy, so all of the above
    ["bench"],
    ["cli", "__main__"],
]
ANYWHERE = {"_extras", "_errors", "_typing"}  # helpers that import nothing of nagcore
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
    """pybind11 lives in bindings, OpenMP's threads in engine, and vector code uses no C++ library."""
    room, code = path.relative_to(CSRC).parts[0], cpp_code(path)
    system = re.findall(r"#\s*include\s+<([^>]+)>", code)
    if room != "bindings":
        assert not [h for h in system if h.startswith(("pybind11", "Python"))]
    if room not in ("engine", "bindings"):
        assert "omp.h" not in system
    if room != "engine":
        assert not re.search(r"#\s*pragma\s+omp\s+(?!simd\b|declare\s+simd\b)", code)
    if room in ("losses", "kernels", "isa") and path.name != "table.h":
        stl = {"algorithm", "array", "cmath", "functional", "memory", "numeric", "string", "utility", "vector"}
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
    if here not in ("doctor", "__init__", "bench"):
        assert "reference" not in imports, "the oracle is for checks, not for results"
    for name in imports - {"reference"}:
        assert room_number(name) < room_number(here), f"{here} imports {name}, which stands to its right"


def test_doors_are_found():
    """The two tests above would pass on an empty house."""
    assert len(CPP_FILES) > 15 and len(PYTHON_FILES) > 12
    assert "_core" in nagcore_imports(PACKAGE / "update.py")
    assert "objective" in {n for p in (PACKAGE / "solvers").glob("*.py") for n in nagcore_imports(p)} | {
        n for p in (PACKAGE / "linear_model").glob("*.py") for n in nagcore_imports(p)
    }


# ----- text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", tree(CODE), ids=name_of)
def test_no_file_holds_two_ideas(path):
    assert len(path.read_text("utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", tree({".h", ".cc", ".txt", ".cmake", ".toml", ".json", ".yml"}), ids=name_of)
def test_no_fast_math(path):
    """-ffast-math links a start-up object that flushes denormals in every library of the process."""
    text = cpp_code(path) if path.suffix in (".h", ".cc") else re.sub(r"#[^\n]*", "", path.read_text("utf-8"))
    for flag in ("-ffast-math", "-Ofast", "/fp:fast", "-funsafe-math-optimizations", "-ffinite-math-only", "-fassociative-math"):
        assert flag not in text


TEXT = [p for p in tree({*CODE, ".md", ".toml", ".json", ".yml", ".txt", ""}) if p.name != "LICENSE"]
TEXT = [p for p in TEXT if p != Path(__file__).resolve()]


@pytest.mark.parametrize("path", TEXT, ids=name_of)
def test_no_banner_of_other_projects(path):
    text = path.read_text("utf-8", errors="replace")
    found = re.search(r"copyright \(c\)|copyright \d{4}|all rights reserved|licensed under|@author|SPDX-", text, re.IGNORECASE)
    assert found is None, f"{found.group()!r}: no third-party code is copied in, and LICENSE speaks for ours"


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
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released[0] == version
    cmake = re.search(r"project\([^)]*VERSION\s+([\d.]+)", (ROOT / "CMakeLists.txt").read_text("utf-8"))
    assert cmake is None or cmake.group(1) == version


# ----- documentation -------------------------------------------------------------------------------------------------

sys.path.insert(0, str(ROOT / "tools"))
import make_api  # noqa: E402


def public_objects():
    """Yield (dotted name, object) for all that the reference lists, modules included."""
    for name in make_api.public_names(nagcore):
        obj = getattr(nagcore, name)
        if name.startswith("_"):
            continue
        yield f"nagcore.{name}", obj
        if hasattr(obj, "__all__"):
            for inner in make_api.public_names(obj):
                yield f"nagcore.{name}.{inner}", getattr(obj, inner)


@pytest.mark.parametrize(("name", "obj"), [pytest.param(*p, id=p[0]) for p in public_objects()])
def test_public_names_are_documented_with_an_example(name, obj):
    if not callable(obj) and not hasattr(obj, "__all__"):
        assert isinstance(obj, (str, tuple, dict, int, float)), f"{name} is neither callable nor a constant"
        return
    doc = obj.__doc__ or ""
    summary = doc.strip().partition("\n\n")[0]
    assert summary.endswith((".", ":")), f"{name}: the docstring starts with one sentence"
    assert ">>> " in doc, f"{name} has no example"
    if isinstance(obj, type):
        for member, value in make_api.members(obj):
            assert value.__doc__, f"{name}.{member} has no docstring"


def test_every_public_name_resolves():
    listed = set(make_api.public_names(nagcore))
    assert len(listed) == len(make_api.public_names(nagcore))
    assert listed <= set(dir(nagcore))
    assert {"nesterov_step_", "NesterovPlan", "value_and_grad", "Objective", "minimize", "doctor", "reference"} <= listed


def test_api_reference_is_up_to_date():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert text == make_api.render(), "run python tools/make_api.py"


def test_every_loss_has_its_section_and_its_oracle():
    from nagcore import _core, reference

    maths = (ROOT / "docs" / "maths.md").read_text("utf-8")
    names = _core.loss_names()
    assert len(names) >= 6 and len(set(names)) == len(names)
    for name in names:
        section = _core.loss_info(name)["section"]
        assert f"### {section} {name.replace('_', ' ')}" in maths
    assert set(names) == set(reference.LOSSES)


@pytest.mark.parametrize("path", tree({".md"}), ids=name_of)
def test_links_between_pages_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8")):
        if not re.match(r"[a-z]+:", link):
            assert (path.parent / link).exists(), f"{link} does not exist"


def test_nothing_unfinished():
    pattern = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|raise NotImplemented" r"Error")
    found = [f"{name_of(p)}: {m.group()}" for p in tree(CODE) for m in [pattern.search(p.read_text("utf-8"))] if m]
    assert not found


# ----- the compiled module against its stubs ------------------------------------------------------------------------


def stub_functions() -> dict[str, ast.FunctionDef]:
    """Return {'name' or 'Class.name': definition} of the stub file."""
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.parse((PACKAGE / "_core.pyi").read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{f.name}": f for f in node.body if isinstance(f, ast.FunctionDef)}
    return found


def stub_names() -> set[str]:
    """Return the top-level and the member names that the stub file declares."""
    names: set[str] = set()
    for node in ast.parse((PACKAGE / "_core.pyi").read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
            names |= {f"{node.name}.{f.target.id}" for f in node.body if isinstance(f, ast.AnnAssign)}
    return {n for n in names if not n.rpartition(".")[2].startswith("_")}


def compiled_names() -> set[str]:
    from nagcore import _core

    names = {n for n in dir(_core) if not n.startswith("_")}
    for n in list(names):
        if isinstance(cls := getattr(_core, n), type):
            names |= {f"{n}.{m}" for m in vars(cls) if not m.startswith("_")}
    return names


def parameters(definition: ast.FunctionDef) -> list[tuple[str, str, bool]]:
    """Return (kind, name, has a default) of each parameter but self."""
    a = definition.args
    plain = [*a.posonlyargs, *a.args]
    kinds = ["positional only"] * len(a.posonlyargs) + ["plain"] * len(a.args)
    defaults = [False] * (len(plain) - len(a.defaults)) + [True] * len(a.defaults)
    rows = list(zip(kinds, [p.arg for p in plain], defaults))
    rows += [("keyword", p.arg, d is not None) for p, d in zip(a.kwonlyargs, a.kw_defaults)]
    return [r for r in rows if r[1] != "self"]


def compiled_signature(name: str) -> ast.FunctionDef:
    """Parse the signature that pybind11 writes as the first line of a docstring."""
    from nagcore import _core

    obj = _core
    for part in name.split("."):
        obj = getattr(obj, part)
    line = obj.__doc__.splitlines()[0]
    line = re.sub(r"<[^<>]*>", "...", line)
    return ast.parse(f"def {line}: ...").body[0]


def test_stubs_name_what_is_compiled():
    assert stub_names() == compiled_names()


@pytest.mark.parametrize("name", sorted(n for n in stub_functions() if not re.search(r"(^|\.)_", n) or n.endswith("__init__")))
def test_stub_signatures_match(name):
    stub = stub_functions()[name]
    if any(isinstance(d, ast.Name) and d.id == "property" for d in stub.decorator_list):
        pytest.skip("a property has no signature")
    assert parameters(stub) == parameters(compiled_signature(name))


# ----- object files ----------------------------------------------------------------------------------------------------

# What vector code may ask of the C library: the compiler itself puts in calls to these.
ALLOWED_UNDEFINED = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def isa_objects() -> list[Path]:
    """Return the object files of csrc/isa from NAGCORE_BUILD_DIR, or from build folders in the tree."""
    given = os.environ.get("NAGCORE_BUILD_DIR")
    places = [Path(given)] if given else sorted(ROOT.glob("build*"))
    found = [o for place in places for o in sorted(place.rglob("*.o")) if "isa" in o.parts or "kernels_" in o.name]
    assert found or not given, f"NAGCORE_BUILD_DIR={given} holds no object file of csrc/isa"
    return found


def symbols(path: Path, *options: str) -> list[tuple[str, str]]:
    done = subprocess.run(["nm", "-C", *options, str(path)], capture_output=True, text=True, check=True)
    rows = re.findall(r"^(?:[0-9a-f]+)?\s+([A-Za-z]) (.+)$", done.stdout, re.MULTILINE)
    return [(kind, name) for kind, name in rows]


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_isa_objects_share_nothing_the_linker_could_merge():
    """A weak symbol with one name in two units is kept once: the AVX-512 copy may win, and crash elsewhere."""
    objects = isa_objects()
    if not objects:
        pytest.skip("no object files here; cmake -B build keeps them, and NAGCORE_BUILD_DIR names another folder")
    if any(re.search(r"__(asan|ubsan|tsan)", n) for _, n in symbols(objects[0])):
        pytest.skip("a sanitizer's symbols are in these objects")
    owner: dict[str, str] = {}
    for path in objects:
        for kind, name in symbols(path, "--defined-only"):
            assert "std::" not in name and "__gnu_cxx" not in name, f"{path.name}: {name}"
            if kind in "WVuw":
                key = f"{path.parent}: {name}"
                assert owner.setdefault(key, path.name) == path.name, f"{name} is in {owner[key]} and {path.name}"
        undefined = {n.partition("@")[0] for k, n in symbols(path, "--undefined-only")}
        assert undefined <= ALLOWED_UNDEFINED, f"{path.name} asks for {sorted(undefined - ALLOWED_UNDEFINED)}"
