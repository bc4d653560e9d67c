"""Tables with named columns (CSV, Parquet, Feather) → one block of floats; pyarrow reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._extras import require
from . import COMPRESSED, Table, _listed

# Rows copied at a time from the columns into the C-ordered block: 4096 rows of 100 float64 columns
# are 3 MB, which stays in cache, so that the block's lines are written once.
_COPY_ROWS = 4096
_CONVERSION = re.compile(
    r"In CSV column #(\d+).*?CSV conversion error to ([^:]+): invalid value '(.*)'", re.DOTALL
)


def read_columns(
    path: Path,
    kind: str,
    target: str | None,
    *,
    header: bool,
    drop: Sequence[str],
    one_hot: bool,
    columns: Sequence[str] | None,
    categories: Mapping[str, Sequence[str]] | None,
    dtype: str,
    require_target: bool,
) -> Table:
    """Read the table, take the target out, and lay the other columns out as X.

    With ``columns`` (and ``categories``) from a stored model, exactly those columns are read in
    that order, and others are ignored.
    """
    as_text = set(categories or ())
    if kind == "csv":
        table = _read_csv(path, header=header, one_hot=one_hot, as_text=as_text)
    else:
        table = _read_arrow(path, kind)
    names = [str(name) for name in table.column_names]
    _check_names(path, names, target, drop, columns)
    if target is None and require_target:
        raise ValueError(
            f"{path}: no target chosen. Choose the column to predict with --target (target= in "
            f"Python): {_listed(names)}."
        )
    if table.num_rows == 0:
        raise ValueError(f"{path} has {len(names)} columns and no rows.")
    used = list(columns) if columns is not None else [c for c in names if c not in (target, *drop)]
    if not used:
        raise ValueError(f"{path} has no feature columns left; it holds {_listed(names)}.")
    column_of = dict(zip(names, table.columns))
    y, classes = (None, None) if target is None else _target(path, target, column_of[target])
    blocks, features, found = [], [], {}
    for name in used:
        known = None if categories is None else categories.get(name)
        values, levels = _feature(path, name, column_of[name], one_hot, known)
        blocks.append((values, None if levels is None else len(levels)))
        if levels is not None:
            found[name] = levels
        features += [name] if levels is None else [f"{name}={level}" for level in levels]
    if len(set(features)) != len(features):
        twice = next(name for name in features if features.count(name) > 1)
        raise ValueError(f"{path}: one-hot makes the column {twice!r} twice. Rename one of them.")
    X = _fill(blocks, table.num_rows, len(features), dtype)
    return Table(X, y, tuple(features), classes, target, tuple(used), found)


def _read_arrow(path: Path, kind: str) -> Any:
    module = {"parquet": "pyarrow.parquet", "feather": "pyarrow.feather"}[kind]
    reader = require(module, "cli", f"reading {kind}")
    import pyarrow

    try:
        return reader.read_table(str(path), memory_map=kind == "feather")
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as {kind} ({_first_line(error)}); it may be truncated."
        ) from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _read_csv(path: Path, *, header: bool, one_hot: bool, as_text: set[str]) -> Any:
    csv = require("pyarrow.csv", "cli", "reading CSV")
    import pyarrow

    names, skip, delimiter, quote = _csv_header(path, header)
    if as_text - set(names):
        missing = min(as_text - set(names))
        raise ValueError(
            f"{path} has no column {missing!r}, which the model needs; it holds {_listed(names)}."
        )
    types = {name: pyarrow.string() for name in as_text}
    read = csv.ReadOptions(column_names=names, skip_rows=skip)
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=quote)
    try:
        # Types come from the first block, and a column may begin with whole numbers and go on with
        # others: those are read as floats, which X is anyway.
        options = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        with csv.open_csv(path, read, parse, options) as stream:
            schema = stream.schema
        for item in schema:
            if pyarrow.types.is_integer(item.type) or pyarrow.types.is_null(item.type):
                types[item.name] = pyarrow.float64()
        while True:
            options = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
            try:
                return csv.read_csv(path, read, parse, options)
            except pyarrow.ArrowInvalid as error:
                found = _CONVERSION.search(str(error))
                name = names[int(found[1])] if found else None
                if name is None or types.get(name) == pyarrow.string():
                    raise
                types[name] = pyarrow.string()  # text after all: reported, or one-hot encoded
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as CSV ({_first_line(error)}); the file may be truncated, or "
            "use another separator than , ; or tab."
        ) from None


def _csv_header(path: Path, header: bool) -> tuple[list[str], int, str, bool]:
    """Column names, lines to skip, the separator, and whether quotes occur."""
    import csv as text_csv

    opener: Any = COMPRESSED.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
            start = stream.read(1 << 20)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be decompressed ({error}); it may be truncated.") from None
    skip, lines = 0, start.splitlines()
    while skip < len(lines) and not lines[skip].strip():
        skip += 1
    if skip == len(lines):
        raise ValueError(f"{path} holds only empty lines.")
    first = lines[skip]
    delimiter = max(",;\t", key=first.count)  # the comma where there is none of them
    # Some files comment their header out: '# "a","b"'.
    cells = next(text_csv.reader([first.lstrip("# ")], delimiter=delimiter, skipinitialspace=True))
    if not header:
        return [f"c{j}" for j in range(len(cells))], skip, delimiter, '"' in start
    names = [cell.strip() for cell in cells]
    if all(_is_number(name) for name in names):
        raise ValueError(
            f"{path} begins with numbers ({_listed(names, 4)}) where column names are expected. "
            "If it has no header line, say --no-header (header=False in Python): the columns are "
            "then called c0, c1, …."
        )
    return names, skip + 1, delimiter, '"' in start


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_names(
    path: Path,
    names: list[str],
    target: str | None,
    drop: Sequence[str],
    columns: Sequence[str] | None,
) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path} has the column {name!r} twice. Rename one of them.")
        seen.add(name)
    asked = [("--target", target)] if target is not None else []
    asked += [("--drop", name) for name in drop] + [("the model", name) for name in columns or ()]
    for who, name in asked:
        if name not in seen:
            needs = "needs" if who == "the model" else "names"
            raise ValueError(
                f"{path} has no column {name!r}, which {who} {needs}; it holds {_listed(names)}."
            )
    if target is not None and target in drop:
        raise ValueError(f"--drop {target!r} would drop the target.")


def _whole(path: Path, name: str, column: Any) -> Any:
    """One contiguous Arrow array without missing values."""
    import pyarrow

    if pyarrow.types.is_null(column.type) or column.null_count == len(column):
        raise ValueError(f"{path}: column {name!r} holds no values. Leave it out with --drop.")
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ValueError(
            f"{path}: column {name!r} lacks {column.null_count} of {len(column)} values, the first "
            f"in row {row} (rows count from 0). Fill them, drop those rows, or leave the column "
            "out with --drop."
        )
    return column.combine_chunks()


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _numbers(path: Path, name: str, column: Any) -> np.ndarray:
    from pyarrow import types

    kind = column.type
    if types.is_boolean(kind):
        return column.cast("uint8").to_numpy(zero_copy_only=False)
    if types.is_decimal(kind):
        return column.cast("float64").to_numpy(zero_copy_only=False)
    if not (types.is_integer(kind) or types.is_floating(kind)):
        raise ValueError(
            f"{path}: column {name!r} has type {kind}; nagcore reads numbers and text. Turn it "
            "into numbers, or leave it out with --drop."
        )
    return column.to_numpy(zero_copy_only=False)


def _levels(column: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes 0..k-1 and the values they stand for, sorted."""
    encoded = column if hasattr(column, "dictionary") else column.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    present, codes = np.unique(codes, return_inverse=True)  # a Parquet dictionary may hold more
    values = np.array([str(value) for value in encoded.dictionary.to_pylist()])[present]
    order = np.argsort(values)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], tuple(str(value) for value in values[order])


def _feature(
    path: Path, name: str, column: Any, one_hot: bool, known: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """(values, None) for a numeric column, (codes, levels) for a one-hot encoded one."""
    column = _whole(path, name, column)
    if not _is_text(column.type):
        if known is None:
            return _numbers(path, name, column), None
        column = column.cast("string")
    codes, levels = _levels(column)
    if known is not None:
        place = {level: i for i, level in enumerate(known)}
        for i, level in enumerate(levels):
            if level not in place:
                row = int(np.argmax(codes == i))
                raise ValueError(
                    f"{path}: column {name!r} has {level!r} in row {row}, which the model has not "
                    f"seen: {_listed(list(known))}."
                )
        codes = np.array([place[level] for level in levels])[codes]
        return codes, tuple(known)
    if not one_hot:
        first, row = _first_text(levels, codes)
        raise ValueError(
            f"{path}: column {name!r} holds text, {first!r} in row {row} (rows count from 0). "
            f"Leave it out with --drop {name}, mend the cell, or say --one-hot (one_hot=True in "
            f"Python) for one 0/1 column for each of its {len(levels)} values."
        )
    return codes, levels


def _first_text(levels: tuple[str, ...], codes: np.ndarray) -> tuple[str, int]:
    """The first cell that is no number: in a column of numbers it is the typing error."""
    text = np.array([not _is_number(level) for level in levels])
    if not text.any():  # numbers stored as text
        text[:] = True
    row = int(np.argmax(text[codes]))
    return levels[codes[row]], row


def _target(path: Path, name: str, column: Any) -> tuple[np.ndarray, np.ndarray | None]:
    from pyarrow import types

    column = _whole(path, name, column)
    if types.is_boolean(column.type):
        column = column.cast("string")
    if _is_text(column.type):
        codes, levels = _levels(column)
        return codes, np.array(levels)
    return _numbers(path, name, column), None


def _fill(blocks: list[tuple[np.ndarray, int | None]], n: int, d: int, dtype: str) -> np.ndarray:
    X = np.empty((n, d), dtype=dtype)
    for start in range(0, n, _COPY_ROWS):
        stop = min(start + _COPY_ROWS, n)
        rows, j = np.arange(stop - start), 0
        for values, width in blocks:
            if width is None:
                X[start:stop, j] = values[start:stop]
                j += 1
            else:
                part = X[start:stop, j : j + width]
                part[:] = 0
                part[rows, values[start:stop]] = 1
                j += width
    return X
