"""Every example runs: those of the package's docstrings, of the README and of the docs."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import nagcore

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = ["nagcore"] + [
    m.name
    for m in pkgutil.walk_packages(nagcore.__path__, "nagcore.")
    if not m.name.endswith("__main__")
]
PAGES = [
    p
    for p in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if ">>>" in p.read_text("utf-8")
]
PROVED_ELSEWHERE = {
    "api.md": "made of the docstrings, whose examples have run",
    "adding-a-loss.md": "test_adding_a_loss.py carries the page out",
}

NEEDS = {"deep-learning.md": "torch"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if error.name is None or error.name.startswith("nagcore"):
            raise
        pytest.skip(f"{name} needs {error.name}")
    failed, _ = doctest.testmod(module, optionflags=FLAGS)
    assert failed == 0, f"{failed} examples of {name} fail; their output is above"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_in_pages_run(page, tmp_path, monkeypatch):
    if page.name in PROVED_ELSEWHERE:
        pytest.skip(PROVED_ELSEWHERE[page.name])
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name], reason=f"{page.name} needs {NEEDS[page.name]}")
    monkeypatch.chdir(tmp_path)
    # A Markdown fence ends the expected output; doctest wants a blank line there.
    text = page.read_text("utf-8").replace("\n```", "\n\n")
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=FLAGS).run(test).failed == 0


def test_the_examples_are_many():
    """A package whose doctests are not found passes them all; so count."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    counted = sum(
        len(test.examples)
        for name in (
            "nagcore",
            *(f"nagcore.{n}" for n in ("update", "objective", "losses", "reference")),
        )
        for test in finder.find(importlib.import_module(name))
    )
    assert counted >= 10
