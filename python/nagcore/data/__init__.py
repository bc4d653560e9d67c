"""Files and named data sets → X, y, feature names and class labels.

The kernels read arrays where they lie, so this module's work is to get a file into the shape they
read with as few copies as the format allows: ``.npy`` is memory-mapped and never copied, svmlight
becomes CSR, tables are copied once, column by column, into one C-ordered block.
"""

from __future__ import annotations

import bz2
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .._extras import require

BUILTIN = ("digits", "breast_cancer", "diabetes")
FORMATS = ("csv", "parquet", "feather", "npy", "npz", "svmlight")

_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".feather": "feather", ".arrow": "feather", ".npy": "npy", ".npz": "npz",
    ".svm": "svmlight", ".svmlight": "svmlight", ".libsvm": "svmlight",
}  # fmt: skip
_MAGIC = ((b"PAR1", "parquet"), (b"ARROW1", "feather"), (b"\x93NUMPY", "npy"), (b"PK", "npz"))
COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open}
# "label index:value …": a line of nothing but a number is svmlight too, but also a one-column CSV.
_SVMLIGHT_LINE = re.compile(
    rb"\s*[-+]?[\d.]+(e[-+]?\d+)?(\s+qid:\d+)?(\s+\d+:[-+.\deE]+)+\s*(#.*)?$"
)
_X_KEYS = ("X", "x", "data", "X_train", "x_train")
_Y_KEYS = ("y", "target", "labels", "label", "y_train")


@dataclass(frozen=True, eq=False)
class Table:
    """What `load_table` read.

    Attributes
    ----------
    X : ndarray of shape (n, d) or scipy.sparse CSR
        Features in a dtype that the kernels read; a memory map stays one.
    y : ndarray of shape (n,) or None
        Numbers, or class numbers 0..k-1 when ``classes`` holds their labels. None without target.
    feature_names : tuple of str or None
        One name for each column of X; None where the format has no names.
    classes : ndarray of str or None
        The labels of a text target; None for a numeric one.
    target : str or None
        The name of the target column or key.
    columns : tuple of str or None
        The columns of the file that X came from, in order: what a model asks of new data.
    categories : dict
        For each one-hot encoded column its values, in the order of its 0/1 columns.
    index_base : int or None
        0 or 1 for svmlight files, what the first feature is called.
    test : Table or None
        The held-out part, where a file brings one (npz with X_test and y_test).
    """

    X: Any
    y: Any
    feature_names: tuple[str, ...] | None = None
    classes: np.ndarray | None = None
    target: str | None = None
    columns: tuple[str, ...] | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    index_base: int | None = None
    test: Table | None = None


def load_table(
    source: str | os.PathLike[str],
    target: str | int | None = None,
    *,
    require_target: bool = True,
    file_format: str | None = None,
    header: bool = True,
    drop: Sequence[str] = (),
    one_hot: bool = False,
    dtype: str | None = None,
    columns: Sequence[str] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    n_features: int | None = None,
    index_base: int | None = None,
) -> Table:
    """Read a file, or one of the data sets that scikit-learn ships, into arrays.

    CSV (any of ``, ; tab``, plain, ``.gz``, ``.bz2``), Parquet and Feather are read with pyarrow,
    svmlight with scikit-learn's reader, ``.npy`` memory-mapped and ``.npz`` without pickle. The
    format is told by the first bytes, then by the name.

    Parameters
    ----------
    source : str or path
        A file, or ``"digits"``, ``"breast_cancer"``, ``"diabetes"``.
    target : str or int, optional
        The column (tables), the key (npz), or for npy a column number or another ``.npy`` file.
        svmlight files and the named data sets bring their own.
    require_target : bool
        False allows a table without a target: y is then None.
    file_format : str, optional
        One of ``csv parquet feather npy npz svmlight`` where neither bytes nor name tell.
    header : bool
        Whether a CSV file's first line holds the column names; without, they are c0, c1, ….
    drop : sequence of str
        Columns to leave out.
    one_hot : bool
        Turn each text column into one 0/1 column for each of its values, named ``column=value``.
    dtype : {"float64", "float32", "bfloat16"}, optional
        Store X so. bfloat16 reads npy files of 2-byte words as they lie (needs ml_dtypes).
    columns, categories, n_features, index_base
        What a stored model knows about its training data: new data is read into the same columns.

    Returns
    -------
    Table

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is no such file.
    ValueError
        The file is empty, truncated or not what it claims; the target is missing; a name stands
        twice; a column holds text, dates or missing values. The message names the fix.
    ModuleNotFoundError
        The reader's library is not installed; the message names the extra.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "iris.csv")
    >>> _ = path.write_text("width,kind\\n1.5,setosa\\n2.5,virginica\\n3.5,setosa\\n")
    >>> table = load_table(path, target="kind")
    >>> table.X.tolist(), table.y.tolist(), table.classes.tolist()
    ([[1.5], [2.5], [3.5]], [0, 1, 0], ['setosa', 'virginica'])
    """
    if file_format is not None and file_format not in FORMATS:
        raise ValueError(f"file_format is {file_format!r}; choose from {', '.join(FORMATS)}.")
    if dtype not in (None, "float64", "float32", "bfloat16"):
        raise ValueError(f"dtype is {dtype!r}; choose from float64, float32, bfloat16.")
    name = os.fspath(source)
    if name in BUILTIN and not os.path.isfile(name):
        table = _builtin(name, target)
    else:
        path = Path(name)
        _check_file(path)
        kind = file_format or _sniff(path)
        if kind in ("csv", "parquet", "feather"):
            from .columns import read_columns

            table = read_columns(
                path, kind, None if target is None else str(target), header=header,
                drop=drop, one_hot=one_hot, columns=columns, categories=categories,
                dtype="float32" if dtype == "float32" else "float64", require_target=require_target,
            )  # fmt: skip
        elif kind == "svmlight":
            table = _svmlight(path, target, n_features, index_base)
        elif kind == "npz":
            table = _npz(path, target, require_target)
        else:
            table = _npy(path, target, bfloat16=dtype == "bfloat16")
        if drop and table.columns is None:
            raise ValueError(f"drop names columns, and {path} ({kind}) has no column names.")
    if require_target and table.y is None:
        raise ValueError(_no_target(name))
    return _as_dtype(table, dtype)


def _no_target(name: str) -> str:
    return (
        f"{name}: no target chosen. Give --target (target= in Python) a column number such as -1, "
        "or an .npy file that holds y."
    )


def _listed(names: Sequence[str], limit: int = 12) -> str:
    """The names, or the first of them and how many more there are."""
    shown = ", ".join(map(str, names[:limit]))
    return shown if len(names) <= limit else f"{shown}, … ({len(names) - limit} more)"


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file, or one of {', '.join(BUILTIN)}.")
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file. Give a CSV, Parquet, Feather, npy, npz or svmlight file, or "
            f"one of {', '.join(BUILTIN)}, which scikit-learn ships."
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); there is nothing to read.")


def _sniff(path: Path) -> str:
    """The format, by the first bytes where they are decisive, else by the name."""
    opener: Any = COMPRESSED.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            start = stream.read(1 << 16)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be decompressed ({error}); it may be truncated.") from None
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    suffix = path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix
    named = _SUFFIXES.get(suffix.lower())
    if named in ("parquet", "feather", "npy", "npz"):
        raise ValueError(
            f"{path} is named like {named} and does not begin like one; it is damaged, or another "
            "format: say which with --format (file_format= in Python)."
        )
    if not start:
        raise ValueError(f"{path} is empty once decompressed; there is nothing to read.")
    if named is None and b"\0" in start:
        raise ValueError(
            f"{path} is in no format that nagcore knows ({', '.join(FORMATS)}); "
            "convert it, or say which it is with --format (file_format= in Python)."
        )
    lines = [line for line in start.splitlines()[:20] if line.strip() and line[:1] != b"#"]
    whole = lines[:-1] or lines  # the last one may be cut by the read
    looks_svmlight = bool(whole) and all(_SVMLIGHT_LINE.match(line) for line in whole[:5])
    return "svmlight" if looks_svmlight or named == "svmlight" else "csv"


def _as_dtype(table: Table, dtype: str | None) -> Table:
    """X in a dtype the kernels read: as it lies where possible, else converted once."""
    X = table.X
    if dtype in ("float32", "float64"):
        X = X if X.dtype == dtype else X.astype(dtype)
    elif dtype == "bfloat16" and X.dtype.name != "bfloat16":
        bfloat16 = require("ml_dtypes", "all", "dtype bfloat16").bfloat16
        if hasattr(X, "tocsr"):
            raise ValueError("Sparse X is read as float64 or float32, not as bfloat16.")
        X = X.astype(np.float32).astype(bfloat16)
    elif X.dtype == bool and not hasattr(X, "tocsr"):
        X = X.view(np.uint8)
    elif X.dtype.kind in "biu" and (X.dtype != np.uint8 or hasattr(X, "tocsr")):
        X = X.astype(np.float64)  # the kernels refuse wider integers; exact up to 2**53
    elif X.dtype.kind == "f" and X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float32 if X.dtype.itemsize == 2 else np.float64)
    if X.dtype.byteorder not in "=|":
        X = X.astype(X.dtype.newbyteorder("="))
    test = None if table.test is None else _as_dtype(table.test, dtype)
    return table if X is table.X and test is table.test else replace(table, X=X, test=test)


def _builtin(name: str, target: str | int | None) -> Table:
    if target not in (None, "target"):
        raise ValueError(f"{name} brings its own target; leave --target out.")
    datasets = require("sklearn.datasets", "cli", f"the data set {name!r}")
    bunch = getattr(datasets, f"load_{name}")()
    names = tuple(str(feature) for feature in bunch.feature_names)
    y, classes = np.asarray(bunch.target), None
    if name == "breast_cancer":
        y, classes = y.astype(np.int64), np.asarray(bunch.target_names).astype(str)
    return Table(bunch.data, y, names, classes, "target", names)


def _svmlight(
    path: Path, target: str | int | None, n_features: int | None, index_base: int | None
) -> Table:
    if target is not None:
        raise ValueError(f"{path} is svmlight, where the target comes first; leave --target out.")
    reader = require("sklearn.datasets", "cli", "reading svmlight")
    try:
        X, y = reader.load_svmlight_file(str(path), zero_based=True)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as svmlight: {error}") from None
    if X.shape[0] == 0:
        raise ValueError(f"{path} holds no rows.")
    if index_base is None:
        # scikit-learn's zero_based="auto" on one file; a model keeps the answer for the next one.
        index_base = int(X.nnz > 0 and X.indices.min() > 0)
    if index_base == 1:
        if X.nnz and X.indices.min() < 1:
            raise ValueError(
                f"{path} has a feature 0, and the model's training data counted from 1. "
                "Number the features alike in both files."
            )
        X.indices -= 1
    highest = int(X.indices.max()) + 1 if X.nnz else 1
    width = highest if n_features is None else n_features
    if highest > width:
        raise ValueError(
            f"{path} has feature {highest - 1 + index_base} and the model was fitted on {width} "
            "features. Leave out the features that are new."
        )
    csr = require("scipy.sparse", "cli", "reading svmlight").csr_matrix
    if max(width, X.nnz) < 2**31:  # half the index bytes to read in every pass
        X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    X = csr((X.data, X.indices, X.indptr), shape=(X.shape[0], width))
    return Table(X, y, index_base=index_base)


def _matrix(X: np.ndarray, path: Path, what: str = "") -> np.ndarray:
    """X as two dimensions: pictures and the like are flattened, row by row."""
    label = f"{path}{what}"
    if X.dtype.kind not in "fiub" and X.dtype.name != "bfloat16":
        words = " It may hold bfloat16: say --dtype bfloat16." if X.dtype.itemsize == 2 else ""
        raise ValueError(
            f"{label} has dtype {X.dtype}; nagcore reads numbers. Save X.astype(np.float64).{words}"
        )
    if X.ndim < 2:
        raise ValueError(
            f"{label} has shape {X.shape}; X needs two dimensions, rows × features. "
            "Save X.reshape(-1, 1) if it is one feature."
        )
    if 0 in X.shape:
        raise ValueError(f"{label} has shape {X.shape}; it holds no values.")
    return X if X.ndim == 2 else X.reshape(X.shape[0], -1)


def _vector(y: np.ndarray, n: int, label: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(y, classes): numbers as they are, text as class numbers."""
    if y.ndim == 2 and 1 in y.shape:
        y = y.reshape(-1)
    if y.ndim != 1 or len(y) != n:
        raise ValueError(f"{label} has shape {y.shape}; it needs one value for each of {n} rows.")
    if y.dtype.kind in "US":
        classes, codes = np.unique(y.astype(str), return_inverse=True)
        return codes.astype(np.int64), classes
    if y.dtype.kind not in "fiub":
        raise ValueError(f"{label} has dtype {y.dtype}; a target holds numbers or text.")
    return (y.astype(np.uint8) if y.dtype == bool else np.asarray(y)), None


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(str(path), "npy", error) from None


def _member(path: Path, archive: Any, key: str) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        raise _unreadable(f"{path}[{key!r}]", "npz", error) from None


def _unreadable(label: str, kind: str, error: Exception) -> ValueError:
    if "pickle" in str(error) or "Python objects" in str(error):
        return ValueError(
            f"{label} holds Python objects, and nagcore unpickles nothing. Save plain numbers, "
            "X.astype(np.float64), and labels as text, y.astype(str)."
        )
    return ValueError(f"{label} cannot be read as {kind} ({error}); it may be truncated.")


def _npy(path: Path, target: str | int | None, *, bfloat16: bool) -> Table:
    X = _load_array(path)
    if bfloat16 and X.dtype.itemsize == 2 and X.dtype.kind in "uV":
        X = X.view(require("ml_dtypes", "all", "dtype bfloat16").bfloat16)
    X = _matrix(X, path)
    if target is None:
        return Table(X, None)
    if not re.fullmatch(r"[-+]?\d+", str(target)):
        other = Path(str(target))
        if not other.is_file():
            raise ValueError(
                f"{path} is npy, so --target is a column number or an .npy file that holds y; "
                f"{str(target)!r} is neither."
            )
        y, classes = _vector(_load_array(other), len(X), str(other))
        return Table(X, y, classes=classes, target=str(target))
    column, d = int(target), X.shape[1]
    if not -d <= column < d or d < 2:
        raise ValueError(
            f"{path} has {d} columns; --target {column} leaves no features or is none."
        )
    column %= d
    y = np.ascontiguousarray(X[:, column])
    # At either end the rest is a view; from the middle it has to be a copy.
    if column in (0, d - 1):
        X = X[:, 1:] if column == 0 else X[:, :-1]
    else:
        X = np.delete(X, column, axis=1)
    return Table(X, y, target=str(target))


def _npz(path: Path, target: str | int | None, require_target: bool) -> Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = archive.files
            if "indptr" in keys and "format" in keys:
                return _sparse_npz(path, target)
            x_key = next((key for key in _X_KEYS if key in keys), None)
            y_key = None if target is None else str(target)
            if target is None:
                y_key = next((key for key in _Y_KEYS if key in keys), None)
            if x_key is None or (target is not None and y_key not in keys):
                missing = "X" if x_key is None else f"the target {target!r}"
                raise ValueError(
                    f"{path} has no array {missing}; it holds {_listed(keys) or 'nothing'}. Save "
                    "it with np.savez(path, X=X, y=y), or name the target's key with --target."
                )
            X = _matrix(_member(path, archive, x_key), path, f"[{x_key!r}]")
            y, classes = None, None
            if y_key is not None:
                y, classes = _vector(_member(path, archive, y_key), len(X), f"{path}[{y_key!r}]")
            elif require_target:
                raise ValueError(
                    f"{path} has no array y; it holds {_listed(keys)}. Name the target's key with "
                    "--target."
                )
            test = None
            x_test, y_test = (str(key or "").replace("train", "test") for key in (x_key, y_key))
            if "train" in x_key and x_test in keys and y_test in keys and y_test != y_key:
                test = _npz_test(path, archive, x_test, y_test, X.shape[1], classes)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as npz ({error}); it may be truncated.") from None
    return Table(X, y, classes=classes, target=y_key, test=test)


def _npz_test(
    path: Path, archive: Any, x_key: str, y_key: str, d: int, classes: np.ndarray | None
) -> Table:
    X = _matrix(_member(path, archive, x_key), path, f"[{x_key!r}]")
    if X.shape[1] != d:
        raise ValueError(f"{path}[{x_key!r}] has {X.shape[1]} features, the training part {d}.")
    y, labels = _vector(_member(path, archive, y_key), len(X), f"{path}[{y_key!r}]")
    if labels is not None:
        y = match_classes(y, labels, classes, f"{path}[{y_key!r}]")
    return Table(X, y, classes=classes, target=y_key)


def _sparse_npz(path: Path, target: str | int | None) -> Table:
    sparse = require("scipy.sparse", "cli", "reading sparse npz")
    X = sparse.load_npz(path).tocsr()
    if target is None:
        return Table(X, None)
    if not Path(str(target)).is_file():
        raise ValueError(f"{path} holds a sparse X alone; --target is then an .npy file with y.")
    y, classes = _vector(_load_array(Path(str(target))), X.shape[0], str(target))
    return Table(X, y, classes=classes, target=str(target))


def match_classes(
    y: np.ndarray, labels: np.ndarray, classes: np.ndarray | None, label: str
) -> np.ndarray:
    """Class numbers of another part of the data, in the numbering of the training classes.

    >>> match_classes(np.array([0, 1]), np.array(["b", "c"]), np.array(["a", "b", "c"]), "test.csv")
    array([1, 2])
    """
    known = {} if classes is None else {str(name): i for i, name in enumerate(classes)}
    new = [str(name) for name in labels if str(name) not in known]
    if new:
        raise ValueError(
            f"{label} has the class {new[0]!r}, which the training data does not have: "
            f"{_listed(list(known)) or 'its target is numeric'}."
        )
    return np.array([known[str(name)] for name in labels], dtype=np.int64)[y]
