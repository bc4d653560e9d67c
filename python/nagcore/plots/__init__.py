"""Pictures of training: runs, fits, paths on surfaces, loss landscapes, classifiers, benchmarks.

A function that draws one panel takes ``ax=None`` and returns the Axes; one that draws a page returns
the Figure. Both write a file where ``path`` names one. matplotlib is imported when the first picture
is drawn, pyplot never. docs/pictures.md shows them.

>>> axes = curves([{"step": t, "loss": 0.9**t} for t in range(50)])
>>> axes.get_ylabel()
'loss'
"""

from __future__ import annotations

from ._style import check_path
from .benchmarks import bandwidth
from .classifiers import confusion_matrix, decision_boundary, image_grid, weight_images
from .fits import convergence
from .paths import animate_paths, path_values, surface_paths
from .planes import (
    Landscape,
    Projection,
    draw_landscape,
    filter_normalised,
    landscape,
    project_path,
    random_directions,
)
from .runs import Run, curves, read_run, report
from .surfaces import Surface, beale, descend, quadratic, rosenbrock
from .weights import snapshot

__all__ = [
    # runs and fits
    "Run", "curves", "read_run", "report", "convergence",
    # paths on surfaces
    "Surface", "quadratic", "rosenbrock", "beale", "descend", "surface_paths", "path_values",
    "animate_paths",
    # landscapes
    "Landscape", "Projection", "snapshot", "landscape", "draw_landscape", "filter_normalised",
    "random_directions", "project_path",
    # classifiers
    "decision_boundary", "confusion_matrix", "weight_images", "image_grid",
    # benchmarks, files
    "bandwidth", "check_path",
]  # fmt: skip
