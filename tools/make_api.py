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

    >>> "minimize" in public_names(importlib.import_module("nagcore"))
    True
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


class Unspelt:
    """A default whose repr is no Python, such as a function's address; shown as dots."""

    def __repr__(self) -> str:
        return "…"


def signature(obj: object) -> str:
    """Return ``(a, b=1, *, c)``: parameter names and defaults, without annotations."""
    try:
        sig = inspect.signature(obj)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(…)"
    bare = []
    for p in sig.parameters.values():
        if p.name not in ("self", "cls"):
            default = Unspelt() if repr(p.default).startswith("<") else p.default
            if p.default is inspect.Parameter.empty:
                default = p.default
            bare.append(p.replace(annotation=inspect.Parameter.empty, default=default))
    return str(sig.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def field_lines(lines: list[str]) -> list[str]:
    """Turn the entries of a numpydoc section into a Markdown list.

    Text that follows the entries after a blank line, as a source or an example does, stays text.
    """
    out: list[str] = []
    for i, line in enumerate(lines):
        if not line or line[0].isspace():
            out.append("  " + line.strip() if line else "")
            continue
        described = i + 1 < len(lines) and lines[i + 1].startswith(" ")
        if i and not lines[i - 1] and not described:
            return out + fence_examples(lines[i:])
        name, _, kind = (part.strip() for part in line.partition(" : "))
        out.append(f"- **{name}**" + (f" ({kind})" if kind else ""))
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
    text = "\n".join(line.rstrip() for line in blocks)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)  # Sphinx roles
    text = re.sub(r"(?<!`)``([^`\n]+)``(?!`)", r"`\1`", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def render_object(name: str, obj: object, level: int, seen: dict[int, str]) -> Iterator[str]:
    """Yield the sections of one public object and of its members; later mentions point back."""
    title, doc = "#" * level, to_markdown(inspect.getdoc(obj) or "")
    if first := seen.get(id(obj)):
        yield f"{title} {name}\n\nThe same as `{first}`."
        return
    seen[id(obj)] = name
    if isinstance(obj, ModuleType):
        yield f"{title} {name}\n\n{doc}"
        for inner in public_names(obj):
            yield from render_object(f"{name}.{inner}", getattr(obj, inner), level + 1, seen)
    elif inspect.isclass(obj):
        yield f"{title} class {name}\n\n`{name}{signature(obj)}`\n\n{doc}"
        for inner, member in members(obj):
            if text := inspect.getdoc(member):
                call = "" if isinstance(member, property) else f"`.{inner}{signature(member)}`\n\n"
                yield f"{title}# .{inner}\n\n{call}{to_markdown(text)}"
    elif callable(obj):
        yield f"{title} {name}\n\n`{name}{signature(obj)}`\n\n{doc}"


def render() -> str:
    """Return the whole reference as Markdown."""
    package = importlib.import_module("nagcore")
    parts: list[str] = [HEADER.strip()]
    seen: dict[int, str] = {}
    for name in public_names(package):
        if not name.startswith("_"):
            parts += render_object(f"nagcore.{name}", getattr(package, name), 2, seen)
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
