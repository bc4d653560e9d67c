"""A fitted linear model as one file: arrays in npz without pickle, everything else as JSON in it.

The file is written whole or not at all: into a temporary beside it, synced, then renamed over.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._files import atomic_write

FORMAT = "nagcore-model"
VERSION = 1
# Rows converted to float64 at a time when predicting: a file larger than memory stays a file.
_BLOCK_BYTES = 1 << 24

_CLASS_LOSSES = ("logistic", "squared_hinge", "softmax")


@dataclass(eq=False)
class Model:
    """A linear model in the units of its data: margins are ``X @ coef + intercept``.

    Attributes
    ----------
    loss : str
        A registered loss: what the margins mean.
    coef : ndarray of shape (d,), or (d, k) for softmax
    intercept : ndarray of shape () or (k,)
    classes : ndarray of str or of numbers, or None
        Labels in the order of the class numbers; None for a real target.
    feature_names, columns, categories, index_base, target
        As in `nagcore.data.Table`: what new data has to look like.
    info : dict
        How it was fitted (JSON values): solver, l2, l1, passes, seconds, scores, version.
    history : list of dict
        One entry a pass: passes, seconds, value, gap.

    Examples
    --------
    >>> model = Model("logistic", np.array([1.0, -1.0]), np.array(0.5), np.array(["no", "yes"]))
    >>> model.predict(np.array([[2.0, 0.0], [0.0, 2.0]])).tolist()
    ['yes', 'no']
    """

    loss: str
    coef: np.ndarray
    intercept: np.ndarray
    classes: np.ndarray | None = None
    feature_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    index_base: int | None = None
    target: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def n_features(self) -> int:
        """Columns of the X that the model takes."""
        return int(self.coef.shape[0])

    @property
    def labels(self) -> list[Any]:
        """The class labels in the order of `predict_proba`'s columns; empty for a real target."""
        return [] if self.classes is None else self.classes.tolist()

    def margins(self, X: Any) -> np.ndarray:
        """``X @ coef + intercept`` in float64, block by block; X dense in any dtype, or CSR.

        Raises ValueError when X has another number of columns than the model.
        """
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(
                f"X has shape {X.shape} and the model takes {self.n_features} features. "
                "Predict on data with the columns that the model was fitted on."
            )
        if hasattr(X, "tocsr"):
            return np.asarray(X @ self.coef) + self.intercept
        z = np.empty((len(X), *self.coef.shape[1:]))
        step = max(1, _BLOCK_BYTES // (8 * self.n_features))
        for start in range(0, len(X), step):
            block = np.asarray(X[start : start + step], dtype=np.float64)
            z[start : start + step] = block @ self.coef + self.intercept
        return z

    def predict(self, X: Any) -> np.ndarray:
        """Class labels, or the expected target: ``exp(z)`` for poisson, else the margin z."""
        z = self.margins(X)
        if self.loss in _CLASS_LOSSES and self.classes is not None:
            numbers = z.argmax(axis=1) if z.ndim == 2 else (z > 0).astype(np.int64)
            return self.classes[numbers]
        return np.exp(z) if self.loss == "poisson" else z

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities, shape (n, k): σ(z) for logistic, softmax(z) for softmax.

        Raises ValueError for the losses that define none.
        """
        if self.loss not in ("logistic", "softmax") or self.classes is None:
            raise ValueError(
                f"The model's loss is {self.loss!r}, which gives no probabilities; "
                "fit with logistic or softmax for those."
            )
        z = self.margins(X)
        if z.ndim == 1:  # two columns of logits, stable for any |z|
            z = np.stack([np.zeros_like(z), z], axis=1)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write the model as one file, whole or not at all.

    Raises OSError when the folder does not exist or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "m.nagcore")
    >>> save_model(Model("squared", np.array([2.0]), np.array(1.0)), path)
    >>> load_model(path).predict(np.array([[3.0]])).tolist()
    [7.0]
    """
    arrays = {
        "coef": np.asarray(model.coef, dtype=np.float64),
        "intercept": np.asarray(model.intercept, dtype=np.float64),
    }
    if model.classes is not None:
        arrays["classes"] = np.asarray(model.classes)
    names = {
        "loss": model.loss,
        "feature_names": model.feature_names,
        "columns": model.columns,
        "categories": {name: list(levels) for name, levels in model.categories.items()},
        "index_base": model.index_base,
        "target": model.target,
        "info": model.info,
        "history": model.history,
    }
    text = json.dumps(json_values({"format": FORMAT, "version": VERSION, **names}))
    with atomic_write(path) as stream:
        _write_npz(stream, arrays, text)


def json_values(value: Any) -> Any:
    """The same with NumPy's numbers as Python's, and None for what JSON has no number for.

    >>> json_values({"gap": np.float64("inf"), "passes": np.int64(3), "w": np.array([1.0])})
    {'gap': None, 'passes': 3, 'w': [1.0]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return json_values(value.tolist())
    if isinstance(value, (list, tuple)):
        return [json_values(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _write_npz(stream: IO[bytes], arrays: Mapping[str, np.ndarray], text: str) -> None:
    words = np.frombuffer(text.encode(), dtype=np.uint8)
    everything: dict[str, Any] = {"meta": words, **arrays}
    np.savez(stream, **everything)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read what `save_model` wrote.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is truncated, no model of nagcore, or one of another format version.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a model file that nagcore fit -o wrote.")
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such model. Write one with nagcore fit DATA -o {path}."
        )
    try:
        archive = np.load(path, allow_pickle=False)
        if not hasattr(archive, "files") or "meta" not in archive.files:
            raise ValueError("it holds other arrays")
        with archive:
            meta = json.loads(archive["meta"].tobytes().decode())
            if not isinstance(meta, dict) or meta.get("format") != FORMAT:
                raise ValueError("it holds other arrays")
            version = meta.get("version")
            arrays = {key: archive[key] for key in archive.files} if version == VERSION else {}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is not a whole nagcore model ({str(error) or type(error).__name__}); it is "
            "truncated or another kind of file. Write it again with nagcore fit -o."
        ) from None
    if version != VERSION:
        raise ValueError(
            f"{path} has model format {version}; this nagcore reads {VERSION}. "
            "Read it with the version of nagcore that wrote it, or fit again."
        )
    return _checked(path, arrays, meta)


def _checked(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Model:
    try:
        coef, intercept = arrays["coef"], arrays["intercept"]
        names = meta["feature_names"]
        if coef.ndim not in (1, 2) or intercept.shape != coef.shape[1:]:
            raise ValueError(f"coef has shape {coef.shape}, intercept {intercept.shape}")
        if names is not None and len(names) != len(coef):
            raise ValueError(f"{len(names)} names for {len(coef)} coefficients")
        return Model(
            loss=meta["loss"],
            coef=coef,
            intercept=intercept,
            classes=arrays.get("classes"),
            feature_names=None if names is None else tuple(names),
            columns=None if meta["columns"] is None else tuple(meta["columns"]),
            categories={name: tuple(levels) for name, levels in meta["categories"].items()},
            index_base=meta["index_base"],
            target=meta["target"],
            info=meta["info"],
            history=meta["history"],
        )
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is a damaged nagcore model ({error}). Write it again with nagcore fit -o."
        ) from None
