"""``nagcore plot`` without its options: which picture the files ask for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..model_io import load_model


def draw(
    paths: Sequence[Path],
    output: Path,
    title: str | None = None,
    *,
    x: str | None = None,
    y: Sequence[str] = (),
    smooth: float = 0.0,
) -> None:
    """Draw runs together, or one ``bench --json``.

    Fits (models, and what ``fit --json`` printed) are drawn as objective and gap; as soon as one
    file is a history of JSON lines, or an axis is named, all are drawn as curves.

    Raises
    ------
    ValueError
        A file that holds neither, a column that a run does not record, a suffix that is no picture.
    FileNotFoundError
    """
    from .. import plots

    plots.check_path(output)
    runs: dict[str, Any] = {}
    only_fits = True
    for path in paths:
        name = path.stem
        while name in runs:
            name += "′"
        content = _json_content(path)
        if content is None:
            runs[name] = load_model(path).history
        elif content == "lines":
            runs[name], only_fits = plots.read_run(path, name), False
        elif isinstance(content.get("rows"), list):
            if len(paths) > 1:
                raise ValueError(f"{path} is a benchmark; draw it alone.")
            plots.bandwidth(content["rows"], output, title=title)
            return
        elif isinstance(content.get("history"), list):
            runs[name] = content["history"]
        else:
            raise ValueError(
                f"{path} holds no history; give JSON lines of a History, or what nagcore fit --json "
                "printed."
            )
    if only_fits and x is None and not y and not smooth:
        plots.convergence(runs, output, title=title)
    else:
        whole = [plots.read_run(run, name) for name, run in runs.items()]
        plots.report(whole, x=x, y=y or None, smooth=smooth, path=output, title=title)


def _json_content(path: Path) -> Any:
    """The object in a JSON file, "lines" for JSON lines of a history; None for what is no JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Give histories, models, or JSON of fit or "
                                "bench.")  # fmt: skip
    with path.open("rb") as stream:
        first = stream.readline(1 << 20)
    if not first.lstrip().startswith(b"{"):
        return None
    try:
        head = json.loads(first)
    except ValueError:
        head = {}  # an object over several lines
    if "nagcore_history" in head or path.suffix in (".jsonl", ".ndjson"):
        return "lines"
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON ({error}).") from None
