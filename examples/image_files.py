"""Reads image sets as they are published: IDX (MNIST, Fashion-MNIST) and CIFAR-10's binary files.

No example itself: torch_cnn.py and large_images.py import it. Without a folder they use
scikit-learn's digits, 1,797 pictures of 8×8 that come with it.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

FASHION = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
CIFAR = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_ROW = 1 + 3 * 32 * 32  # a label and three planes of 32×32


class Images(NamedTuple):
    """Pictures as bytes: X (n, height, width) or (n, height, width, 3) uint8, y (n,) int64."""

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]


def read_idx(path: Path) -> np.ndarray:
    """An IDX file, gzipped or not: two zero bytes, the type (8 is uint8), the axes, their lengths."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no IDX file of bytes: it begins with {content[:4].hex()}.")
    axes = content[3]
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    found = len(content) - 4 - 4 * axes
    if found != np.prod(shape):
        raise ValueError(f"{path} says {shape}, {np.prod(shape):,} bytes, and holds {found:,}.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A CIFAR-10 binary batch: rows of a label and 3·32·32 bytes, colour planes one after another."""
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % _CIFAR_ROW:
        raise ValueError(f"{path} has {len(content):,} bytes, no multiple of {_CIFAR_ROW}.")
    rows = content.reshape(-1, _CIFAR_ROW)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)


def _find(folder: Path, stem: str) -> Path | None:
    """A file of the usual spellings: train-images-idx3-ubyte, train-images.idx3-ubyte, with .gz."""
    for name in (stem, ".idx".join(stem.rsplit("-idx", 1))):
        for suffix in ("", ".gz"):
            if (path := folder / (name + suffix)).is_file():
                return path
    return None


def load(folder: Path | None, most: int | None = None) -> Images:
    """The image set in a folder, or the digits; at most `most` training pictures.

    Raises FileNotFoundError where the folder holds neither kind, ValueError for damaged files.
    """
    images = _digits() if folder is None else _from_folder(Path(folder))
    if len(images.X) != len(images.y) or len(images.X_test) != len(images.y_test):
        raise ValueError(f"{folder}: there are not as many labels as pictures.")
    if most is not None:
        tests = max(200, most // 5)
        images = images._replace(
            X=images.X[:most], y=images.y[:most],
            X_test=images.X_test[:tests], y_test=images.y_test[:tests],
        )  # fmt: skip
    return images


def _from_folder(folder: Path) -> Images:
    if (train := _find(folder, "train-images-idx3-ubyte")) is not None:
        stems = ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
        others = [_find(folder, stem) for stem in stems]
        if None in others:
            raise FileNotFoundError(f"{folder} has {train.name}, but not all four IDX files.")
        X, y, X_test, y_test = (read_idx(path) for path in (train, *others))
        fashion = "fashion" in str(folder.resolve()).lower()
        classes = FASHION if fashion else tuple(str(c) for c in range(int(y.max()) + 1))
        return Images("Fashion-MNIST" if fashion else "MNIST", X, y.astype(np.int64), X_test,
                      y_test.astype(np.int64), classes)  # fmt: skip
    for place in (folder, folder / "cifar-10-batches-bin"):
        batches = sorted(place.glob("data_batch_*.bin"))
        if batches and (place / "test_batch.bin").is_file():
            parts = [read_cifar(path) for path in batches]
            X, y = (np.concatenate(part) for part in zip(*parts))
            return Images("CIFAR-10", X, y, *read_cifar(place / "test_batch.bin"), CIFAR)
    raise FileNotFoundError(
        f"{folder} holds neither train-images-idx3-ubyte (MNIST, Fashion-MNIST) nor "
        "data_batch_1.bin and test_batch.bin (CIFAR-10). Leave --data away to use digits."
    )


def _digits() -> Images:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X = np.round(X * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order], y[order].astype(np.int64)
    return Images("digits", X[360:], y[360:], X[:360], y[:360], tuple("0123456789"))
