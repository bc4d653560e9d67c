"""docs/pictures.md shows every picture of docs/images, and they stay small enough for a README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
IMAGES = sorted((DOCS / "images").iterdir())


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_pictures_are_small_and_shown_somewhere(image):
    size, most = image.stat().st_size, 1_000_000 if image.suffix == ".gif" else 200_000
    assert size < most
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    shown = {link for page in pages for link in re.findall(r"\]\(([^)\s]+)", page.read_text("utf-8"))}
    assert any(link.endswith(f"images/{image.name}") for link in shown)
