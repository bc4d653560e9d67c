"""Labels as class numbers, without a sort where none is needed."""

from __future__ import annotations

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from nagcore import _core

__all__ = ["check_labels", "checked", "encode", "signs"]

_SPAN = 1 << 12  # whole numbers that lie within so many are counted, not sorted


def are_whole(y: np.ndarray) -> bool:
    """Whether floating-point y holds finite whole numbers only."""
    return bool((y == np.rint(y)).all() and np.isfinite(y).all())


def check_labels(y: np.ndarray) -> None:
    """scikit-learn's check that y holds classes; whole numbers and text in one column always do."""
    if not (y.ndim == 1 and (y.dtype.kind in "iubU" or (y.dtype.kind == "f" and are_whole(y)))):
        check_classification_targets(y)


def encode(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes in y of shape (n,), sorted, and the number of each row's: numpy.unique with its inverse.

    Numbers have the least of the types int8, int16 and intp that holds them.

    >>> classes, codes = encode(np.array([7, 3, 7]))
    >>> classes.tolist(), codes.tolist()
    ([3, 7], [1, 0, 1])
    """
    kind = y.dtype.kind
    if (few := _core.class_numbers(y)) is not None:
        return np.array(few[0], y.dtype), few[1]
    if y.size and kind in "iu":
        low, high = int(np.minimum.reduce(y)), int(np.maximum.reduce(y))  # past Python's y.min()
        if high - low < _SPAN and high < 2**62:
            codes = y.astype(np.intp)
            codes -= low
            present = np.bincount(codes).nonzero()[0]
            if len(present) <= high - low:
                number = np.empty(high - low + 1, np.intp)
                number[present] = np.arange(len(present))
                codes = number[codes]
            return (present + low).astype(y.dtype), _least(codes, len(present))
    if y.size and kind in "bf":
        low, high = y.min(), y.max()
        upper = y == high
        if low != high and (upper | (y == low)).all():
            return np.array([low, high], y.dtype), upper.view(np.int8)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, _least(codes, len(classes))


def checked(y: np.ndarray, n_threads: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`encode` after `check_labels`: of two whole numbers in one sweep, of a few in two.

    >>> [a.tolist() for a in checked(np.array([2.0, 1.0, 2.0]))]
    [[1.0, 2.0], [1, 0, 1]]
    """
    if y.ndim == 1 and (few := _core.class_numbers(y, n_threads)) is not None:
        return np.array(few[0], y.dtype), few[1]
    check_labels(y)
    return encode(y)


def _least(codes: np.ndarray, k: int) -> np.ndarray:
    """Numbers below k in the least type: a fit holds them to its end."""
    return codes.astype(np.int8 if k <= 1 << 7 else np.int16 if k <= 1 << 15 else np.intp, copy=False)


def signs(codes: np.ndarray, k: int) -> np.ndarray:
    """Targets −1 and +1: of shape (n, 1) for up to two classes, (n, k) for more."""
    if k <= 2:
        return 2.0 * codes[:, None].astype(np.float64) - 1.0
    Y = np.full((len(codes), k), -1.0)
    Y[np.arange(len(codes)), codes] = 1.0
    return Y
