"""Write docs/api.md, the API reference, from the docstrings of the installed package.

    python tools/make_api.py            writes docs/api.md
    python tools/make_api.py --check    exits with 1 when docs/api.md is not what would be written

The text depends on the docstrings and on nothing else: annotations are left out, for their spelling
changes between Python versions, and names come in the order of ``__all__``.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "api.md"
HEADER = """# API reference

Made from the docstrings by `python tools/make_api.py`; a test compares the two. The formulas are in
[maths.md](maths.md).
"""
# numpydoc sections whose entries are "name : type" lines with an indented description.
FIELD_SECTIONS = {
    "Parameters",
    "Returns",
    "Raises",
    "Yields",
    "Attributes",
    "Other Parameters",
    "Warns",
}


def public_names(module: ModuleType) -> list[str]:
    """Return the names a module offers, in the order in which it lists them.

    >>> public_names(importlib.import_module("nagcore"))[0]
    '__version__'
    """
    return list(module.__all__)


def members(cls: type) -> Iterator[tuple[str, object]]:
    """Yield the documented public members that a class itself defines, in source order."""
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if isinstance(function, property) or callable(function):
            yield name, function


def signature(obj: object) -> str:
    """Return ``(a, b=1, *, c)``: parameter names and defaults, without annotations."""
    try:
        sig = inspect.signature(obj)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(…)"
    bare = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in sig.parameters.values()
        if p.name not in ("self", "cls")
    ]
    return str(sig.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def field_lines(lines: list[str]) -> list[str]:
    """Turn the entries of a numpydoc section into a Markdown list."""
    out: list[str] = []
    for line in lines:
        if line and not line[0].isspace():
            name, _, kind = (part.strip() for part in line.partition(" : "))
            out.append(f"- **{name}**" + (f" ({kind})" if kind else ""))
        else:
            out.append(line if not line.strip() else "  " + line.strip())
    return out


def fence_examples(lines: list[str]) -> list[str]:
    """Put doctest blocks, which end at a blank line, between fences."""
    out: list[str] = []
    inside = False
    for line in [*lines, ""]:
        if not inside and line.lstrip().startswith(">>>"):
            out.append("```python")
            inside = True
        elif inside and not line.strip():
            out.append("```")
            inside = False
        out.append(line.strip() if inside and line.lstrip().startswith((">>>", "...")) else line)
    return out[:-1]


def to_markdown(doc: str) -> str:
    """Render one numpydoc docstring as Markdown."""
    lines = inspect.cleandoc(doc).splitlines()
    starts = [
        i
        for i in range(len(lines) - 1)
        if lines[i].strip() and re.fullmatch(r"-{3,}", lines[i + 1].strip())
    ]
    blocks: list[str] = []
    head = lines[: starts[0]] if starts else lines
    blocks += fence_examples(head)
    for start, stop in zip(starts, [*starts[1:], len(lines)]):
        title, body = lines[start].strip(), lines[start + 2 : stop]
        blocks += ["", f"**{title}**", ""]
        blocks += field_lines(body) if title in FIELD_SECTIONS else fence_examples(body)
    text = re.sub(r"``([^`]+)``", r"`\1`", "\n".join(line.rstrip() for line in blocks))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def render_object(qualified: str, obj: object, level: int) -> Iterator[str]:
    """Yield the sections of one public object and, for a class, of its members."""
    doc = inspect.getdoc(obj) or ""
    if isinstance(obj, ModuleType):
        yield f"{'#' * level} {qualified}\n\n{to_markdown(doc)}"
        for name in public_names(obj):
            yield from render_object(f"{qualified}.{name}", getattr(obj, name), level + 1)
    elif inspect.isclass(obj):
        call = f"`{qualified}{signature(obj)}`"
        yield f"{'#' * level} class {qualified}\n\n{call}\n\n{to_markdown(doc)}"
        for name, member in members(obj):
            if text := inspect.getdoc(member):
                title = (
                    f".{name}" if isinstance(member, property) else f".{name}{signature(member)}"
                )
                yield f"{'#' * min(level + 1, 6)} `{title}`\n\n{to_markdown(text)}"
    elif callable(obj):
        yield f"{'#' * level} {qualified}\n\n`{qualified}{signature(obj)}`\n\n{to_markdown(doc)}"


def render() -> str:
    """Return the whole reference as Markdown."""
    package = importlib.import_module("nagcore")
    parts = [HEADER.strip()]
    for name in public_names(package):
        if not name.startswith("_"):
            parts += render_object(f"nagcore.{name}", getattr(package, name), 2)
    return "\n\n".join(parts) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write or check docs/api.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args(argv).check
    text = render()
    if not check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    old = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    changes = difflib.unified_diff(
        old.splitlines(), text.splitlines(), "docs/api.md", "the docstrings", n=1, lineterm=""
    )
    difference = "\n".join(changes)
    print(difference or "docs/api.md is up to date")
    return int(bool(difference))


if __name__ == "__main__":
    sys.exit(main())
