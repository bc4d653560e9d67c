"""Every public name is documented with an example, and the pages say what the code does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import nagcore
from nagcore import _core, reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])

sys.path.insert(0, str(ROOT / "tools"))
import make_api  # noqa: E402


def public_objects():
    """Yield (dotted name, object) for all that the reference lists, modules included."""
    for name in make_api.public_names(nagcore):
        if name.startswith("_"):
            continue
        obj = getattr(nagcore, name)
        yield f"nagcore.{name}", obj
        if hasattr(obj, "__all__"):
            for inner in make_api.public_names(obj):
                yield f"nagcore.{name}.{inner}", getattr(obj, inner)


@pytest.mark.parametrize(("name", "obj"), [pytest.param(*p, id=p[0]) for p in public_objects()])
def test_public_names_are_documented_with_an_example(name, obj):
    if not callable(obj) and not hasattr(obj, "__all__"):
        assert isinstance(obj, (str, tuple, dict, int, float)), (
            f"{name} is neither callable nor a constant"
        )
        return
    doc = obj.__doc__ or ""
    summary = doc.strip().partition("\n\n")[0]
    assert summary.endswith((".", ":")), f"{name}: the docstring starts with one sentence"
    assert ">>> " in doc, f"{name} has no example"
    if isinstance(obj, type):
        for member, value in make_api.members(obj):
            assert value.__doc__, f"{name}.{member} has no docstring"


def test_every_public_name_resolves():
    names = make_api.public_names(nagcore)
    promised = "nesterov_step_ NesterovPlan value_and_grad Objective minimize doctor reference"
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(nagcore))
    assert set(promised.split()) <= set(names)


def test_api_reference_is_up_to_date():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert text == make_api.render(), "run python tools/make_api.py"


def test_every_loss_has_its_section_and_its_oracle():
    maths = (ROOT / "docs" / "maths.md").read_text("utf-8")
    names = _core.loss_names()
    assert len(set(names)) == len(names) >= 6
    for name in names:
        section = _core.loss_info(name)["section"]
        assert f"### {section} {name.replace('_', ' ')}" in maths
    assert set(names) == set(reference.LOSSES)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8")):
        if not re.match(r"[a-z]+:", link):
            assert (path.parent / link).exists(), f"{link} does not exist"
