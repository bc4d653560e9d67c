"""The code of docs/keras.md runs, block after block, on one backend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integrations.keras.backend_tools import BACKEND
from nagcore.callbacks import History

PAGE = Path(__file__).resolve().parents[3] / "docs" / "keras.md"


@pytest.mark.skipif(BACKEND == "numpy", reason="keras has no fit on its numpy backend")
def test_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    space: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    assert int(space["model"].optimizer.iterations) == 40
    assert len(History.read(space["folder"] + "/run.jsonl").rows) == 45
    assert len(space["checkpoint"].core.paths) >= 3


def test_the_page_names_what_there_is():
    from nagcore.keras import callbacks

    text = PAGE.read_text("utf-8")
    for name in callbacks.__all__:
        assert f"| `{name}` |" in text
