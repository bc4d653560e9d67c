"""The compiled module: stubs that match, and object files that share nothing."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nagcore import _core

ROOT = Path(__file__).resolve().parents[1]
STUBS = ROOT / "python" / "nagcore" / "_core.pyi"


def stub_functions() -> dict[str, ast.FunctionDef]:
    """Return {'name' or 'Class.name': definition} of the stub file."""
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.parse(STUBS.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{f.name}": f for f in node.body if isinstance(f, ast.FunctionDef)
            }
    return found


def stub_names() -> set[str]:
    """Return the top-level and the member names that the stub file declares."""
    names: set[str] = set()
    for node in ast.parse(STUBS.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
            names |= {
                f"{node.name}.{f.target.id}" for f in node.body if isinstance(f, ast.AnnAssign)
            }
    return {n for n in names if not n.rpartition(".")[2].startswith("_")}


def compiled_names() -> set[str]:
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
    obj = _core
    for part in name.split("."):
        obj = getattr(obj, part)
    line = obj.__doc__.splitlines()[0]
    line = re.sub(r"<[^<>]*>", "...", line)
    return ast.parse(f"def {line}: ...").body[0]


def test_stubs_name_what_is_compiled():
    assert stub_names() == compiled_names()


@pytest.mark.parametrize(
    "name",
    sorted(n for n in stub_functions() if not re.search(r"(^|\.)_", n) or n.endswith("__init__")),
)
def test_stub_signatures_match(name):
    stub = stub_functions()[name]
    if any(isinstance(d, ast.Name) and d.id == "property" for d in stub.decorator_list):
        pytest.skip("a property has no signature")
    assert parameters(stub) == parameters(compiled_signature(name))


# What vector code may ask of the C library: the compiler itself puts in calls to these.
ALLOWED_UNDEFINED = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def isa_objects() -> dict[Path, str]:
    """Return {object file of csrc/isa: its instruction set}, sanitized builds left out.

    They are looked for in NAGCORE_BUILD_DIR if that is set, else in the build folders of the tree.
    """
    given = os.environ.get("NAGCORE_BUILD_DIR")
    places = [Path(given)] if given else sorted(ROOT.glob("build*"))
    found = {}
    for place in places:
        for path in sorted(place.rglob("kernels.cc.o")):
            isa = re.search(r"nagcore_isa_(\w+)\.dir", path.as_posix())
            if isa and not any("__asan" in n or "__tsan" in n for _, n in symbols(path)):
                found[path] = isa.group(1)
    assert found or not given, f"NAGCORE_BUILD_DIR={given} holds no object file of csrc/isa"
    return found


def symbols(path: Path, *options: str) -> list[tuple[str, str]]:
    """Return (kind, demangled name) of an object file's symbols."""
    done = subprocess.run(
        ["nm", "-C", *options, str(path)], capture_output=True, text=True, check=True
    )
    return re.findall(r"^(?:[0-9a-f]+)?\s+([A-Za-z]) (.+)$", done.stdout, re.MULTILINE)


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_isa_objects_share_nothing_the_linker_could_merge():
    """Of a weak symbol the linker keeps one copy: AVX-512's may win, and crash elsewhere."""
    objects = isa_objects()
    if not objects:
        pytest.skip("no object files: build into build/, or name the folder in NAGCORE_BUILD_DIR")
    for path, isa in objects.items():
        own = f"nag::{isa}::"
        defined = symbols(path, "--defined-only")
        assert ("R", f"{own}table") in defined or ("D", f"{own}table") in defined, path
        for kind, name in defined:
            assert "std::" not in name, f"{isa}: {name}"
            assert "__gnu_cxx" not in name, f"{isa}: {name}"
            if kind.isupper() or kind in "wvu":  # visible to the linker
                assert own in name, f"{isa} defines {name} ({kind}) outside its namespace"
        undefined = {name.partition("@")[0] for _, name in symbols(path, "--undefined-only")}
        assert undefined <= ALLOWED_UNDEFINED, f"{isa} asks for {undefined - ALLOWED_UNDEFINED}"
