"""From a table to what a solver takes: encoded targets, a hold-out, and feature scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core

# A numeric target is taken for classes when it has few different whole numbers: at most this many,
# and five rows for each. The summary names the loss that was chosen, and --loss overrules it.
_MOST_CLASSES = 32
# Up to here the training rows are copied out; beyond, and for memory maps, the held-out rows stay
# where they are with weight zero, and each pass reads them along.
COPY_LIMIT = 1 << 28
_BLOCK_BYTES = 1 << 19  # as float64: stays in the second-level cache


def choose_loss(y: np.ndarray, classes: np.ndarray | None) -> tuple[str, str]:
    """The loss for a target, and why in a few words.

    >>> choose_loss(np.array([0, 1, 1, 0] * 3), None)
    ('logistic', 'the target has 2 classes')
    >>> choose_loss(np.linspace(0, 1, 9), None)
    ('squared', 'the target is a real number')
    """
    if classes is None:
        if not np.isfinite(y).all() or (y != np.round(y)).any():
            return "squared", "the target is a real number"
        different = len(np.unique(y))
        if different > min(_MOST_CLASSES, max(2, len(y) // 5)):
            return "squared", f"the target has {different} different values"
        count = different
    else:
        count = len(classes)
    return ("logistic" if count == 2 else "softmax"), f"the target has {count} classes"


def encode(
    y: np.ndarray, classes: np.ndarray | None, loss: str, name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets as the loss takes them, and the labels of the class numbers (None for a real target).

    Raises ValueError when the target does not fit the loss; the message names both.
    """
    kind = _core.loss_info(loss)["targets"]
    if kind not in ("binary", "class"):
        if classes is not None:
            raise ValueError(
                f"The target {name!r} holds text ({classes[0]!r}, …) and loss {loss} takes "
                "numbers. Use --loss logistic or softmax, or another --target."
            )
        return np.asarray(y, dtype=np.float64), None
    if classes is None:
        if not np.isfinite(y).all():
            row = int(np.argmin(np.isfinite(y)))
            raise ValueError(f"The target {name!r} holds {y[row]} in row {row}. Mend that row.")
        classes, y = np.unique(y, return_inverse=True)
        if (classes == np.round(classes)).all():
            classes = classes.astype(np.int64)
    present = len(np.unique(y))
    if present < 2:
        raise ValueError(
            f"The target {name!r} has {present} class; there is nothing to tell apart."
        )
    if kind == "binary" and len(classes) != 2:
        raise ValueError(
            f"The target {name!r} has {len(classes)} classes and loss {loss} takes two. "
            "Use --loss softmax."
        )
    if kind == "class" and len(classes) > max(1000, len(y) // 2):
        raise ValueError(
            f"The target {name!r} has {len(classes)} different values in {len(y)} rows, too many "
            "for classes. Use --loss squared, or another --target."
        )
    return y.astype(np.int64), classes


def hold_out(y: np.ndarray, stratify: bool, fraction: float, seed: int) -> np.ndarray | None:
    """A mask of the rows held out for testing, or None for none; each class in proportion.

    >>> hold_out(np.array([0] * 8 + [1] * 4), True, 0.25, seed=0).nonzero()[0].tolist()
    [4, 6, 10]
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"--test-size is {fraction}; give a part of the rows, 0 ≤ part < 1.")
    n = len(y)
    if fraction == 0 or n < 10:
        return None
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(n)
    test = np.zeros(n, dtype=bool)
    if stratify:
        # Sorted by class and shuffled inside: every 1/fraction-th place is in proportion, whatever
        # the classes' sizes, and the total is right.
        shuffled = shuffled[np.argsort(y[shuffled], kind="stable")]
    places = np.floor((np.arange(max(1, round(n * fraction))) + 0.5) / fraction).astype(np.int64)
    test[shuffled[np.minimum(places, n - 1)]] = True
    return test


def train_part(X: Any, y: np.ndarray, test: np.ndarray | None) -> tuple[Any, np.ndarray, Any]:
    """(X, y, weights) of the training rows: a copy of them, or all rows with weights 0 and 1."""
    if test is None:
        return X, y, None
    if isinstance(X, np.memmap) or _nbytes(X) > COPY_LIMIT:
        return X, y, (~test).astype(np.float64)
    return X[~test], y[~test], None


def _nbytes(X: Any) -> int:
    return X.data.nbytes + X.indices.nbytes if hasattr(X, "tocsr") else X.nbytes


@dataclass(frozen=True, eq=False)
class Scales:
    """Features as the solver sees them, x' = (x − mean)/size, without touching X.

    ``kind`` is "standard", "range" or "none"; ``reads`` is how many times X was read for it.
    """

    kind: str
    mean: np.ndarray
    size: np.ndarray
    reads: int

    def to_data(self, u: np.ndarray) -> np.ndarray:
        """Coefficients for x from those for x', (p,) or (p, k): w = u/size, b = u_b − mean·w."""
        w, d = np.array(u, dtype=np.float64), len(self.size)
        w[:d] /= _column(self.size, w)
        if len(w) > d:
            w[d] -= self.mean @ w[:d]
        return w

    def pull_back(self, g: np.ndarray) -> np.ndarray:
        """The gradient by u from that by w (the chain rule through `to_data`), in place."""
        d = len(self.size)
        if len(g) > d:
            g[:d] -= _column(self.mean, g) * g[d]
        g[:d] /= _column(self.size, g)
        return g


def _column(v: np.ndarray, like: np.ndarray) -> np.ndarray:
    return v if like.ndim == 1 else v[:, None]


def feature_scales(X: Any, kind: str, rows: np.ndarray | None, centre: bool) -> Scales:
    """Means and sizes of X's columns over ``rows`` (a mask; None for all), read in blocks.

    "standard": mean and standard deviation, 1 for a constant column; without ``centre`` (no
    intercept to take the means up) the root mean square. "range": one size for all columns, the
    largest magnitude, 255 for uint8. "none": nothing. "auto": "standard" for dense floats, "range"
    for uint8 (pictures: pixels share a unit, and rare ones are noise), "none" for sparse X (zeros
    mean absent, and rare columns would be blown up).
    """
    d, sparse = X.shape[1], hasattr(X, "tocsr")
    if kind == "auto":
        kind = "none" if sparse else "range" if X.dtype == np.uint8 else "standard"
    mean, size = np.zeros(d), np.ones(d)
    if kind == "none":
        return Scales(kind, mean, size, 0)
    if kind == "range":
        if X.dtype == np.uint8:
            return Scales(kind, mean, np.full(d, 255.0), 0)
        largest = _largest(X, sparse)
        return Scales(kind, mean, np.full(d, largest if largest > 0 else 1.0), 1)
    if kind != "standard":
        raise ValueError(f"--scale is {kind!r}; choose from auto, standard, range, none.")
    with np.errstate(invalid="ignore", over="ignore"):  # non-finite data are reported by name
        mean, square = _sparse_moments(X, rows) if sparse else _dense_moments(X, rows)
    if not (np.isfinite(mean).all() and np.isfinite(square).all()):
        _refuse_non_finite(X)
    deviation = np.sqrt(np.maximum(square, 0.0))  # about the mean
    if not centre:
        return Scales(kind, np.zeros(d), _positive(np.hypot(deviation, mean), mean), 1)
    return Scales(kind, mean, _positive(deviation, mean), 1)


def _positive(size: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """1 where a column is constant, up to the rounding of its mean."""
    return np.where(size > 1e-12 * np.abs(mean), size, 1.0)


def _blocks(X: Any) -> Any:
    step = max(1, _BLOCK_BYTES // (8 * X.shape[1]))
    for start in range(0, X.shape[0], step):
        yield start, np.asarray(X[start : start + step], dtype=np.float64)


def _largest(X: Any, sparse: bool) -> float:
    largest = (
        np.abs(X.data).max(initial=0.0) if sparse else max(np.abs(b).max() for _, b in _blocks(X))
    )
    if not np.isfinite(largest):
        _refuse_non_finite(X)
    return float(largest)


def _dense_moments(X: Any, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each column in one reading (Chan, Golub & LeVeque 1983, pairwise)."""
    count, mean, spread = 0, np.zeros(X.shape[1]), np.zeros(X.shape[1])
    step = max(1, _BLOCK_BYTES // (8 * X.shape[1]))
    room = np.empty((step, X.shape[1]))
    for start in range(0, X.shape[0], step):
        block = X[start : start + step]
        if rows is not None:
            block = block[rows[start : start + step]]
        n = len(block)
        if n == 0:
            continue
        # About the mean so far, so that a column far from zero keeps its digits.
        about = mean if count else block.mean(axis=0, dtype=np.float64)
        away = np.subtract(block, about, out=room[:n], dtype=np.float64)
        delta = away.sum(axis=0) / n
        square = np.multiply(away, away, out=away).sum(axis=0)
        inside = square - n * delta**2
        jumped = inside < 1e-6 * square  # the block lies far from all before: its digits cancelled
        if jumped.any():
            inside[jumped] = n * block[:, jumped].var(axis=0, dtype=np.float64)
        if count == 0:
            mean = about
        total = count + n
        spread += inside + delta**2 * (count * n / total)
        mean = mean + delta * (n / total)
        count = total
    return mean, spread / max(count, 1)


def _sparse_moments(X: Any, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    part = X if rows is None else X[rows]
    n, d = part.shape
    mean = np.bincount(part.indices, part.data, minlength=d) / n
    filled = np.bincount(part.indices, minlength=d)
    # Σ (x − m)² over the stored entries, plus m² for each of the zeros that are not stored.
    away = (part.data - mean[part.indices]) ** 2
    spread = np.bincount(part.indices, away, minlength=d) + (n - filled) * mean**2
    return mean, spread / n


def _refuse_non_finite(X: Any) -> None:
    """Name the first NaN or infinity of X."""
    if hasattr(X, "tocsr"):
        at = int(np.argmin(np.isfinite(X.data)))
        row, column = int(np.searchsorted(X.indptr, at, side="right")) - 1, int(X.indices[at])
        value = X.data[at]
    else:
        for start, block in _blocks(X):
            if not np.isfinite(block).all():
                row, column = np.argwhere(~np.isfinite(block))[0]
                value, row = block[row, column], row + start
                break
        else:
            raise ValueError(
                "X's values are finite and their squares are not: --scale standard overflows. "
                "Use --scale range or none."
            )
    raise ValueError(
        f"X holds {value} in row {row}, column {column} (both count from 0). "
        "Mend or leave out that row or column."
    )
