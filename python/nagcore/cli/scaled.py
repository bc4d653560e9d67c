"""A problem as it looks in scaled features, on the same data: nothing is copied.

With x' = (x − m)/σ, w = u/σ and b = u_b − m·w, the margins X'u + u_b and Xw + b are the same
numbers, so every pass runs on X as it lies, and only vectors of length p are mapped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .prepare import Scales


class ScaledProblem:
    """`nagcore._core.Problem` in coordinates u of scaled features, for `Objective.from_problem`.

    Parameters
    ----------
    core : nagcore._core.Problem
        With fit_intercept where ``scales.mean`` is not zero: the intercept takes the means up.
    scales : Scales
    """

    def __init__(self, core: Any, scales: Scales) -> None:
        self.core, self.scales = core, scales
        self.n, self.d, self.p, self.k = core.n, core.d, core.p, core.k
        self.compute, self.nbytes, self.loss = core.compute, core.nbytes, core.loss
        self.loss_from_margins = core.loss_from_margins

    def value_and_grad(
        self,
        u: np.ndarray,
        grad: np.ndarray | None = None,
        margins: np.ndarray | None = None,
        residuals: np.ndarray | None = None,
    ) -> tuple[float, np.ndarray]:
        """The data term and its gradient by u. One pass."""
        value, g = self.core.value_and_grad(self.scales.to_data(u), grad, margins, residuals)
        return value, self.scales.pull_back(g)

    def margins(self, u: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The margins at u. One pass."""
        return self.core.margins(self.scales.to_data(u), out)

    def rmatvec(self, v: np.ndarray) -> np.ndarray:
        """(1/S) X'ᵀ(s∘v). One pass."""
        return self.scales.pull_back(self.core.rmatvec(v))


class _ScaledRows(np.ndarray):
    """An array whose rows come out scaled when they are asked for; see `scaled_rows`."""

    scales: Scales

    def __getitem__(self, rows: Any) -> np.ndarray:
        block = np.asarray(self.view(np.ndarray)[rows], dtype=np.float64)
        return (block - self.scales.mean) / self.scales.size


def scaled_rows(X: np.ndarray, scales: Scales) -> np.ndarray:
    """A view of X for who samples rows of it: ``view[rows]`` are those rows in scaled features.

    >>> X = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> scaled_rows(X, Scales("standard", X.mean(axis=0), X.std(axis=0), 1))[0:1].tolist()
    [[-1.0, -1.0]]
    """
    view = X.view(_ScaledRows)
    view.scales = scales
    return view
