"""The loss round a trained model, on a plane through its weights (Li et al. 2018).

The plane is spanned by two random directions, scaled filter by filter to the weights' own size, or
by the two directions in which training moved most.

Source: Li, Xu, Taylor, Studer & Goldstein (2018), "Visualizing the loss landscape of neural nets".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._style import axes_or_new, framed, save
from .weights import borrowed, filter_axis, snapshot

Weights = Sequence[np.ndarray]


class Landscape(NamedTuple):
    """Losses on a plane θ* + α·δ + β·η through the trained weights θ*.

    Attributes
    ----------
    alpha, beta : ndarray of shape (n,), float64
        Coordinates along δ and η.
    loss : ndarray of shape (n, n), float64
        ``loss[j, i]`` at ``alpha[i]``, ``beta[j]``; NaN where the loss is not finite.
    path : ndarray of shape (snapshots, 2) or None
        The training path, projected on the plane.
    explained : tuple of two floats, or None
        The parts of the path's variance that δ and η hold.
    directions : tuple of two lists of ndarray
        δ and η.
    kind : {"filter", "path"}

    Examples
    --------
    >>> w = [np.array([[1.0, 2.0]])]
    >>> plane = landscape(w, lambda: float(np.sum((w[0] - [[1, 2]]) ** 2)), n=5)
    >>> plane.loss.shape, float(plane.loss[2, 2]), plane.kind
    ((5, 5), 0.0, 'filter')
    """

    alpha: np.ndarray
    beta: np.ndarray
    loss: np.ndarray
    path: np.ndarray | None
    explained: tuple[float, float] | None
    directions: tuple[list[np.ndarray], list[np.ndarray]]
    kind: str


def filter_normalised(direction: Weights, weights: Weights, axis: int = 0) -> list[np.ndarray]:
    """Scale each filter of a direction to the norm of the same filter of the weights.

    d_ij ← d_ij·‖θ_ij‖/‖d_ij‖ for filter j of tensor i. Tensors of fewer than two axes, which are
    biases and normalisation scales, get zero, as in the paper. So a step of 1 is as large as the
    weights themselves, whatever scale a following normalisation would hide.

    Parameters
    ----------
    direction, weights : sequence of ndarray
        The same shapes.
    axis : int
        Which axis counts filters: 0 in torch (out, in, …), −1 in keras (…, in, out).

    Returns
    -------
    list of ndarray, float64

    Raises
    ------
    ValueError
        Shapes that differ.

    Examples
    --------
    >>> d = filter_normalised([np.array([[1.0, 0.0], [0.0, 2.0]])], [np.array([[3.0, 4], [0, 1]])])
    >>> d[0].tolist()
    [[5.0, 0.0], [0.0, 1.0]]
    """
    if [np.shape(d) for d in direction] != [np.shape(w) for w in weights]:
        raise ValueError(
            f"The direction has shapes {[np.shape(d) for d in direction]}, the weights have "
            f"{[np.shape(w) for w in weights]}; they go tensor by tensor."
        )
    out = []
    for d, w in zip(direction, weights):
        d, w = np.asarray(d, np.float64), np.asarray(w, np.float64)
        if d.ndim < 2:
            out.append(np.zeros(d.shape))
            continue
        rest = tuple(i for i in range(d.ndim) if i != axis % d.ndim)
        size = np.sqrt(np.sum(d * d, axis=rest, keepdims=True))
        aim = np.sqrt(np.sum(w * w, axis=rest, keepdims=True))
        out.append(d * np.divide(aim, size, out=np.zeros_like(aim), where=size > 0))
    return out


def random_directions(
    weights: Weights, *, axis: int = 0, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two independent Gaussian directions, filter-normalised; nearly orthogonal in high dimension.

    Parameters
    ----------
    weights : sequence of ndarray
    axis : int
        As for `filter_normalised`.
    seed : int

    Examples
    --------
    >>> delta, eta = random_directions([np.ones((4, 100))])
    >>> np.linalg.norm(delta[0], axis=1)
    array([10., 10., 10., 10.])
    """
    rng = np.random.default_rng(seed)

    def draw() -> list[np.ndarray]:
        return filter_normalised([rng.standard_normal(np.shape(w)) for w in weights], weights, axis)

    return draw(), draw()


class Projection(NamedTuple):
    """The plane in which a training path moves most.

    Attributes
    ----------
    directions : tuple of two lists of ndarray
        Orthonormal over all weights together, shaped as the weights.
    path : ndarray of shape (snapshots, 2), float64
        Coordinates of θ_t − θ_last.
    explained : tuple of two floats
        σ²/Σσ² of the two.

    Examples
    --------
    >>> path = [[np.array([float(t), 0.0])] for t in range(4)]
    >>> np.abs(project_path(path).path[0]).round(12).tolist()
    [3.0, 0.0]
    """

    directions: tuple[list[np.ndarray], list[np.ndarray]]
    path: np.ndarray
    explained: tuple[float, float]


def project_path(snapshots: Sequence[Weights]) -> Projection:
    """Project a training path on its two leading principal directions.

    The rows θ_t − θ_last, less their mean, have the singular value decomposition UΣVᵀ; the
    directions are the first two rows of Vᵀ. It comes from the eigenvectors of the small matrix of
    inner products, so that memory stays at snapshots × weights.

    Parameters
    ----------
    snapshots : sequence of sequences of ndarray
        As `snapshot` gives them; at least three, the last is where the plane passes through.

    Returns
    -------
    Projection

    Raises
    ------
    ValueError
        Fewer than three snapshots, shapes that differ, or a path that does not move.

    Examples
    --------
    >>> circle = [[np.array([[np.cos(t), np.sin(t), 0.0]])] for t in np.linspace(0, 3, 9)]
    >>> projection = project_path(circle)
    >>> round(sum(projection.explained), 12), projection.path.shape
    (1.0, (9, 2))
    """
    if len(snapshots) < 3:
        raise ValueError(
            f"{len(snapshots)} snapshots are given; a plane takes at least 3. Call "
            "nagcore.plots.snapshot(model) before training and after each epoch."
        )
    shapes = [np.shape(w) for w in snapshots[-1]]
    for number, weights in enumerate(snapshots):
        if [np.shape(w) for w in weights] != shapes:
            raise ValueError(f"Snapshot {number} is of another model: its shapes differ.")
    rows = np.stack([_flat(weights) for weights in snapshots])
    rows -= rows[-1].copy()
    if not np.isfinite(rows).all():
        raise ValueError("A snapshot holds NaN or infinity; leave out what came after divergence.")
    centred = rows - rows.mean(axis=0)
    variance, vectors = np.linalg.eigh(centred @ centred.T)
    variance, vectors = np.maximum(variance[::-1], 0), vectors[:, ::-1]
    if not variance[0] > 0:
        raise ValueError("All snapshots are equal; the path does not move.")
    first = centred.T @ vectors[:, 0]
    first /= np.linalg.norm(first)
    second = centred.T @ vectors[:, 1]
    second -= first * (first @ second)
    length = np.linalg.norm(second)
    if length <= 1e-7 * math.sqrt(variance[0]):  # a straight path: any direction across will do
        second = np.random.default_rng(0).standard_normal(len(first))
        second -= first * (first @ second)
        length = np.linalg.norm(second)
    second /= length
    path = rows @ np.stack([first, second], axis=1)
    explained = variance[:2] / variance.sum()
    return Projection(
        (_shaped(first, shapes), _shaped(second, shapes)),
        path,
        (float(explained[0]), float(explained[1])),
    )


def _flat(weights: Weights) -> np.ndarray:
    return np.concatenate([np.asarray(w, np.float64).ravel() for w in weights])


def _shaped(vector: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(vector, cuts), shapes)]


def landscape(
    model: Any,
    loss: Callable[[], float],
    *,
    snapshots: Sequence[Weights] | None = None,
    extent: float = 1.0,
    n: int = 25,
    seed: int = 0,
) -> Landscape:
    """Evaluate the loss on a plane through a model's weights; the model is put back as it was.

    Parameters
    ----------
    model : torch.nn.Module, keras.Model, or list of ndarray
        torch modules are in evaluation mode meanwhile, so that running statistics stand still.
    loss : callable
        Takes nothing, and returns the loss of the model as it stands, on whatever data.
    snapshots : sequence, optional
        The training path (`snapshot` after each epoch): the plane is that of its two leading
        principal directions, and reaches a little beyond it. Without it, the plane is spanned by two
        random filter-normalised directions.
    extent : float > 0
        Half the plane's side for random directions: 1 moves each filter by its own norm.
    n : int ≥ 3
        Points a side: n² evaluations.
    seed : int
        Of the random directions.

    Returns
    -------
    Landscape

    Raises
    ------
    TypeError
        A model of another kind.
    ValueError
        Numbers out of range, snapshots of another model, no finite loss anywhere.

    Examples
    --------
    >>> w = [np.array([[2.0, 0.0], [0.0, 1.0]])]
    >>> plane = landscape(w, lambda: float(np.sum(w[0] ** 2)), n=3, extent=0.5)
    >>> float(plane.loss[1, 1]), w[0].tolist()
    (5.0, [[2.0, 0.0], [0.0, 1.0]])
    """
    if n < 3:
        raise ValueError(f"n is {n}; a plane has at least 3 points a side.")
    if not (math.isfinite(extent) and extent > 0):
        raise ValueError(f"extent is {extent}; it is half the plane's side, a positive number.")
    centre = snapshot(model)
    if snapshots is None:
        kind, path, explained = "filter", None, None
        delta, eta = random_directions(centre, axis=filter_axis(model), seed=seed)
        alpha = beta = np.linspace(-extent, extent, n)
    else:
        kind = "path"
        (delta, eta), path, explained = project_path(snapshots)
        if [d.shape for d in delta] != [w.shape for w in centre]:
            raise ValueError("The snapshots are of another model: their shapes differ.")
        centre = [np.asarray(w) for w in snapshots[-1]]
        alpha, beta = (_span(path[:, i], path, n) for i in range(2))
    values = np.empty((n, n))
    with borrowed(model) as write, np.errstate(all="ignore"):
        for j, b in enumerate(beta):
            for i, a in enumerate(alpha):
                write([(w + a * d + b * e).astype(w.dtype) for w, d, e in zip(centre, delta, eta)])
                values[j, i] = float(loss())
    values[~np.isfinite(values)] = np.nan
    if np.isnan(values).all():
        raise ValueError("The loss is finite nowhere on the plane.")
    return Landscape(alpha, beta, values, path, explained, (delta, eta), kind)


def _span(along: np.ndarray, path: np.ndarray, n: int) -> np.ndarray:
    """n points that reach a quarter beyond the path, and are no sliver where it hardly moves."""
    low, high = along.min(), along.max()
    room = max(0.25 * (high - low), 0.08 * np.ptp(path, axis=0).max())
    return np.linspace(low - room, high + room, n)


def draw_landscape(
    plane: Landscape,
    *,
    log: bool | None = None,
    levels: int = 20,
    ax: Any = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    colorbar: bool = True,
) -> Any:
    """Draw a landscape as filled contours, with the training path where it has one.

    Parameters
    ----------
    plane : Landscape
    log : bool, optional
        Contours evenly spaced in the loss's logarithm. Default: where all losses are positive and
        the largest is above 10 times the least.
    levels : int
        How many contours.
    ax : matplotlib Axes, optional
        With ``projection="3d"`` the landscape is drawn as a surface.
    path, title
        As for `curves`.
    colorbar : bool
        The scale of the loss at the side.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        ``plane`` is no Landscape.

    Examples
    --------
    >>> w = [np.array([[1.0, 2.0]])]
    >>> plane = landscape(w, lambda: float(np.sum((w[0] - [[1, 2]]) ** 2)), n=5)
    >>> draw_landscape(plane).get_xlabel()
    'α, along a random direction (1 = the size of the filters)'
    """
    if not isinstance(plane, Landscape):
        raise TypeError(
            f"plane is {type(plane).__name__}; draw what nagcore.plots.landscape(model, loss) gives."
        )
    axes = axes_or_new(ax, 5.4)
    finite = plane.loss[np.isfinite(plane.loss)]
    if log is None:
        log = finite.min() > 0 and finite.max() > 10 * finite.min()
    ticks = _contours(finite, log, levels)
    if getattr(axes, "name", "") == "3d":
        _draw_solid(plane, axes, log)
    else:
        _draw_flat(plane, axes, ticks, log, colorbar)
    if title:
        axes.set_title(title, fontsize=11)
    return save(axes, path)


def _contours(finite: np.ndarray, log: bool, levels: int) -> np.ndarray:
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        high = low + max(abs(low), 1.0) * 1e-6
    return np.geomspace(low, high, levels) if log else np.linspace(low, high, levels)


def _axis_names(plane: Landscape) -> tuple[str, str]:
    if plane.explained is None:
        words = "along {} random direction"
        return (
            "α, " + words.format("a") + " (1 = the size of the filters)",
            "β, " + words.format("another"),
        )
    first, second = plane.explained
    return (
        f"first principal direction of the path ({first:.0%} of its variance)",
        f"second principal direction ({second:.0%})",
    )


def _draw_flat(plane: Landscape, axes: Any, ticks: np.ndarray, log: bool, colorbar: bool) -> None:
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    norm = (LogNorm if log else Normalize)(ticks[0], ticks[-1])
    filled = axes.contourf(plane.alpha, plane.beta, plane.loss, levels=ticks, cmap="cividis",
                           norm=norm)  # fmt: skip
    axes.contour(plane.alpha, plane.beta, plane.loss, levels=ticks[::2], colors="white",
                 linewidths=0.5, alpha=0.5)  # fmt: skip
    if plane.path is not None:
        axes.plot(*plane.path.T, color="white", lw=1.6, marker="o", markersize=4,
                  markeredgecolor="black", markeredgewidth=0.5, label="training path")  # fmt: skip
        axes.annotate("start", plane.path[0], xytext=(7, 7), textcoords="offset points", fontsize=9,
                      bbox={"facecolor": "#dddddd", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    end = (0.0, 0.0) if plane.path is None else plane.path[-1]
    axes.scatter(*end, marker="*", s=170, color="#E69F00", edgecolor="black", linewidth=0.9,
                 zorder=5, label="trained model")  # fmt: skip
    across, up = _axis_names(plane)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    framed(axes)
    axes.legend(loc="best", fontsize=9, facecolor="#dddddd", edgecolor="none")
    if colorbar:
        bar = axes.get_figure().colorbar(filled, ax=axes, label="loss", pad=0.02)
        if log:
            marks = MaxNLocator(6).tick_values(np.log10(ticks[0]), np.log10(ticks[-1]))
            marks = 10 ** marks[(marks >= np.log10(ticks[0])) & (marks <= np.log10(ticks[-1]))]
            bar.set_ticks(marks, labels=[f"{mark:.2g}" for mark in marks])
        else:
            bar.set_ticks(MaxNLocator(6).tick_values(ticks[0], ticks[-1])[1:-1])
        bar.ax.minorticks_off()
        bar.ax.tick_params(labelsize=9)


def _draw_solid(plane: Landscape, axes: Any, log: bool) -> None:
    height = np.log10(plane.loss) if log else plane.loss
    a, b = np.meshgrid(plane.alpha, plane.beta)
    axes.plot_surface(a, b, height, cmap="cividis", rcount=len(plane.beta), ccount=len(plane.alpha),
                      linewidth=0.2, edgecolor="#ffffff55", antialiased=True)  # fmt: skip
    across, up = _axis_names(plane)
    axes.set_xlabel(across.partition(" (")[0].partition(",")[0], fontsize=9)
    axes.set_ylabel(up.partition(" (")[0].partition(",")[0], fontsize=9)
    axes.set_zlabel("log₁₀ loss" if log else "loss", fontsize=9)
    axes.tick_params(labelsize=8)
