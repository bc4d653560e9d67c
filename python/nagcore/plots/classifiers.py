"""What a classifier does: its regions in the plane, its confusions, its weights, its images."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._style import COLOURS, GREY, MARKERS, axes_or_new, framed, save
from ._style import figure as new_figure

_GRID = 300  # points a side at which the classifier is asked
_MOST_NAMES = 30  # classes whose names and counts can be read at this size


def decision_boundary(
    model: Any,
    X: Any,
    y: Any,
    *,
    ax: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
) -> Any:
    """Draw which class a classifier gives each point of the plane, and the data over it.

    Parameters
    ----------
    model : object with ``predict``, or callable
        Takes points of shape (m, 2), returns m labels.
    X : array of shape (n, 2)
        Finite numbers.
    y : array of shape (n,)
        True labels; points whose label the model does not give are ringed.
    ax, path, title
        As for `curves`.
    labels : sequence of str, optional
        ``"x"`` and ``"y"`` of the plane, with their units.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        X of another shape, lengths that differ, NaN.
    TypeError
        A model that cannot be asked.

    Examples
    --------
    >>> X = np.array([[-1.0, 0.0], [1.0, 0.0], [2.0, 1.0]])
    >>> axes = decision_boundary(lambda points: points[:, 0] > 0, X, np.array([0, 1, 1]))
    >>> axes.get_title()
    '100.0 % of 3 points right'
    """
    X, y = np.asarray(X, np.float64), np.asarray(y)
    if X.ndim != 2 or X.shape[1] != 2 or not len(X):
        raise ValueError(f"X has shape {X.shape}; a plane has points of shape (n, 2).")
    if y.shape != (len(X),):
        raise ValueError(f"y has shape {y.shape} and X {len(X)} rows; there is one label a row.")
    if not np.isfinite(X).all():
        raise ValueError("X holds NaN or infinity; leave those rows out.")
    ask = _asker(model)
    low, high = X.min(axis=0), X.max(axis=0)
    room = 0.08 * np.maximum(high - low, 1e-9 + 0.1 * (high - low).max())
    across, up = (np.linspace(a, b, _GRID) for a, b in zip(low - room, high + room))
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    region, given = np.asarray(ask(points)), np.asarray(ask(X))
    if region.shape != (len(points),):
        raise ValueError(f"The model gives shape {region.shape} for {len(points)} points; it is to "
                         "give one label a point.")  # fmt: skip
    classes = np.unique(np.concatenate([y, region.astype(y.dtype)]))
    number = np.searchsorted(classes, region.astype(y.dtype)).reshape(_GRID, _GRID)
    axes = axes_or_new(ax, 5.2)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(classes))]
    axes.contourf(across, up, number, levels=np.arange(len(classes) + 1) - 0.5, colors=colours,
                  alpha=0.22)  # fmt: skip
    for i in range(len(classes) - 1):
        axes.contour(across, up, number > i, levels=[0.5], colors="black", linewidths=0.9)
    wrong = given.astype(y.dtype) != y
    for i, c in enumerate(classes):
        axes.scatter(*X[y == c].T, s=14, color=colours[i], marker=MARKERS[i % len(MARKERS)],
                     edgecolor="white", linewidth=0.3, label=f"class {c}")  # fmt: skip
    if wrong.any():
        axes.scatter(*X[wrong].T, s=60, facecolor="none", edgecolor="black", linewidth=1.0,
                     label="misclassified")  # fmt: skip
    names = ("x₁", "x₂") if labels is None else labels
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    framed(axes)
    axes.legend(fontsize=9, framealpha=0.9, edgecolor="none")
    axes.set_title(title or f"{np.mean(~wrong):.1%} of {len(X):,} points right".replace("%", " %"),
                   fontsize=11)  # fmt: skip
    return save(axes, path)


def _asker(model: Any) -> Callable[[np.ndarray], Any]:
    ask = getattr(model, "predict", model)
    if not callable(ask):
        raise TypeError(f"model is {type(model).__name__}; it has a predict, or is a callable that "
                        "takes points of shape (m, 2).")  # fmt: skip
    return ask


def confusion_matrix(
    y_true: Any,
    y_pred: Any,
    *,
    classes: Sequence[Any] | None = None,
    ax: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw how often each true class (rows) was given as each class (columns).

    Colours are parts of each row; the numbers are counts.

    Parameters
    ----------
    y_true, y_pred : arrays of shape (n,)
    classes : sequence, optional
        Names of the classes in order; default the labels themselves. With integer labels 0 … k−1 the
        names may be anything.
    ax, path, title
        As for `curves`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        Lengths that differ, no rows, or more labels than names.

    Examples
    --------
    >>> axes = confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1])
    >>> axes.images[0].get_array().tolist(), axes.get_title()
    ([[0.5, 0.5], [0.0, 1.0]], 'accuracy 75.00 %, 4 rows')
    """
    counts, names = _confusions(np.asarray(y_true), np.asarray(y_pred), classes)
    k = len(names)
    axes = axes_or_new(ax, 6.0, width=6.6)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    if k <= _MOST_NAMES:
        digits = len(str(counts.max()))
        size = max(5.0, min(10.0, 110 / k) * min(1.0, 3 / digits if k > 5 else 1.0))
        for i, j in np.argwhere(counts):
            dark = parts[i, j] > 0.5
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=size,
                      color="white" if dark else "black")  # fmt: skip
        long = k * max(len(str(name)) for name in names) > 36  # characters that fit below
        axes.set_xticks(range(k), names, rotation=45 if long else 0, ha="right" if long else "center")
        axes.set_yticks(range(k), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    framed(axes)
    right = np.trace(counts) / counts.sum()
    axes.set_title(title or f"accuracy {100 * right:.2f} %, {counts.sum():,} rows", fontsize=11)
    return save(axes, path)


def _confusions(
    y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[Any] | None
) -> tuple[np.ndarray, list[Any]]:
    if y_true.ndim != 1 or y_true.shape != y_pred.shape or not len(y_true):
        raise ValueError(
            f"y_true has shape {y_true.shape} and y_pred {y_pred.shape}; both are (n,), n ≥ 1."
        )
    labels, numbers = np.unique(np.concatenate([y_true, y_pred]), return_inverse=True)
    names = list(labels) if classes is None else list(classes)
    if classes is not None:
        if set(labels.tolist()) <= set(names):
            numbers = np.array([names.index(label) for label in labels.tolist()])[numbers]
        elif labels.dtype.kind in "iu" and 0 <= labels[0] and labels[-1] < len(names):
            numbers = labels[numbers]
        else:
            raise ValueError(
                f"The labels are {labels[:12].tolist()}, classes are {names[:12]}; classes name "
                "each label, or stand at the places that integer labels count from 0."
            )
    k, n = len(names), len(y_true)
    counts = np.bincount(numbers[:n] * k + numbers[n:], minlength=k * k).reshape(k, k)
    return counts, names


def weight_images(
    coef: Any,
    shape: tuple[int, ...],
    *,
    classes: Sequence[Any] | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw the coefficients of a linear model on images as images, one for each class.

    Parameters
    ----------
    coef : array of shape (d,), (k, d) as estimators have it, or (d, k) as `minimize` gives it
        d is the product of ``shape``; where k = d, rows are classes.
    shape : (height, width) or (height, width, channels)
        Channels are summed.
    classes : sequence, optional
        Names; default 0 … k−1.
    path, title
        As for `curves`.

    Returns
    -------
    matplotlib.figure.Figure
        One scale, symmetric about zero, for all images: violet lowers the class's margin, orange
        raises it.

    Raises
    ------
    ValueError
        Shapes that do not fit.

    Examples
    --------
    >>> figure = weight_images(np.eye(3, 4), (2, 2))
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['0', '1', '2']
    """
    coef, d = np.atleast_2d(np.asarray(coef, np.float64)), math.prod(shape)
    if coef.ndim != 2 or d not in coef.shape or len(shape) not in (2, 3):
        raise ValueError(
            f"coef has shape {coef.shape} and an image {shape} has {d} pixels; coef is (d,), (k, d) "
            "or (d, k), an image (height, width) or (height, width, channels)."
        )
    rows = coef if coef.shape[1] == d else coef.T
    names = [str(c) for c in (range(len(rows)) if classes is None else classes)]
    if len(names) != len(rows):
        raise ValueError(f"{len(names)} classes are named, coef has {len(rows)}.")
    pictures = rows.reshape(len(rows), *shape)
    if len(shape) == 3:
        pictures = pictures.sum(axis=-1)
    columns = min(5, len(rows))
    n_rows = math.ceil(len(rows) / columns)
    figure = new_figure(0.5 + 1.55 * n_rows, title)
    grid = figure.subplots(n_rows, columns, squeeze=False)
    most = float(np.abs(pictures).max()) or 1.0
    for axes, picture, name in zip(grid.flat, pictures, names):
        image = axes.imshow(picture, cmap="PuOr_r", vmin=-most, vmax=most)
        axes.set_title(name, fontsize=10)
    for axes in grid.flat:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=list(grid.flat), pad=0.02, shrink=0.9)
    bar.set_label("coefficient (margin per unit of pixel)", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    return save(figure, path)


def image_grid(
    images: Any,
    captions: Sequence[str] | None = None,
    *,
    columns: int = 10,
    into: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw images in rows, each with its caption.

    Parameters
    ----------
    images : array of shape (n, height, width) or (n, height, width, 3)
        Grey bytes are shown from 0 to 255, other grey images from their own least to their own
        largest value; those of three channels are uint8, or floats in [0, 1].
    captions : sequence of n str, optional
    columns : int
    into : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.
    path, title
        As for `curves`.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ValueError
        No images, another shape, or captions that do not count as many.

    Examples
    --------
    >>> figure = image_grid(np.zeros((3, 8, 8)), ["a", "b", "c"])
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['a', 'b', 'c']
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4) or not len(images) or (images.ndim == 4 and images.shape[3] != 3):
        raise ValueError(
            f"images have shape {images.shape}; they are (n, height, width) or "
            "(n, height, width, 3), n ≥ 1."
        )
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions are given for {len(images)} images.")
    if columns < 1:
        raise ValueError(f"columns is {columns}; there is at least one.")
    n_rows = math.ceil(len(images) / columns)
    if into is None:
        into = new_figure(0.4 + n_rows * (8.6 / columns + 0.2))
    if title:
        into.suptitle(title, fontsize=10, x=0.01, ha="left", color=GREY)
    grid = into.subplots(n_rows, columns, squeeze=False)
    style: dict[str, Any] = {"cmap": "gray"} if images.ndim == 3 else {}
    if images.dtype == np.uint8:
        style.update(vmin=0, vmax=255)
    for i, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if i < len(images):
            axes.imshow(images[i], **style)
            if captions is not None:
                axes.set_title(captions[i], fontsize=8)
    return save(into, path)
