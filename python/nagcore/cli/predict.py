"""``nagcore predict`` without its options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import BUILTIN, Table, load_table
from ..model_io import Model, atomic_write, load_model


def predict_file(
    model_path: Path,
    source: str,
    output: Path | None,
    *,
    proba: bool = False,
    header: bool = True,
    file_format: str | None = None,
) -> None:
    """Read data as the model's training data was read, write predictions, print a score if it can.

    Raises what `load_model` and `load_table` raise, and ValueError for an output that is neither
    .csv nor .npy.
    """
    model = load_model(model_path)
    if output is not None and output.suffix not in (".csv", ".npy"):
        raise ValueError(f"{output} is neither .csv nor .npy; predictions are written as those.")
    table = _read_for(model, source, header, file_format)
    if proba:
        values, names = model.predict_proba(table.X), [f"p({c})" for c in model.labels]
    else:
        values, names = model.predict(table.X), [model.target or "prediction"]
    if output is None:
        _write_csv(sys.stdout, values, names)
    elif output.suffix == ".npy":
        with atomic_write(output) as stream:
            np.save(stream, values, allow_pickle=False)
    else:
        with atomic_write(output, "w") as stream:
            _write_csv(stream, values, names)
    if table.y is not None:
        _report_score(model, table, output is None)


def _read_for(model: Model, source: str, header: bool, file_format: str | None) -> Table:
    """The model's columns of the data, and the target where the data hold it."""
    if source in BUILTIN and not Path(source).is_file():
        return load_table(source)

    def read(target: str | None) -> Table:
        return load_table(
            source, target, require_target=False, header=header, file_format=file_format,
            columns=model.columns, categories=model.categories, n_features=model.n_features,
            index_base=model.index_base,
        )  # fmt: skip

    if model.columns is not None and model.target is not None:
        try:
            return read(model.target)
        except ValueError as error:
            # New data without the target is what predict is for. Another fault shows again below.
            if f"no column {model.target!r}, which --target" not in str(error):
                raise
    # The target of an npy file was one of its columns, which new data may have or not.
    table = read(None)
    if _is_number(model.target) and table.X.shape[1] == model.n_features + 1:
        return read(model.target)
    return table


def _is_number(text: str | None) -> bool:
    return text is not None and text.lstrip("+-").isdigit()


def _write_csv(stream: Any, values: np.ndarray, names: Sequence[str]) -> None:
    import csv

    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    rows = values.tolist()
    writer.writerows(rows if values.ndim == 2 else ([value] for value in rows))


def _report_score(model: Model, table: Table, quiet: bool) -> None:
    """The score, on stderr so that predictions may go down a pipe."""
    from .fit import score, test_targets

    text = model.classes if model.classes is not None and model.classes.dtype.kind == "U" else None
    try:
        y = test_targets(table, text, model.classes, "the data")
    except ValueError as error:
        print(f"nagcore: not scored: {error}", file=sys.stderr)
        return
    found = score(model.loss, model.margins(table.X), y)
    words = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"{len(y):,} rows: {words}", file=sys.stderr if quiet else sys.stdout)
