"""A problem whose reads of X are counted: whole passes, and sampled rows as their share of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nagcore import _core

__all__ = ["Counted", "Reads"]


_REAL: dict[str, np.dtype[Any]] = {"float64": np.dtype(np.float64), "float32": np.dtype(np.float32)}


class Reads:
    """How often X was read: whole passes and single rows, over all arithmetic types alike.

    >>> reads = Reads(200)
    >>> reads.passes += 2
    >>> reads.rows += 50
    >>> reads.total
    2.25
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self.passes: float = 0  # a float where a narrower copy of X was read
        self.rows: float = 0

    @property
    def total(self) -> float:
        """Passes over X; an int where only whole ones were taken, else to three decimals."""
        if self.rows == 0 and isinstance(self.passes, int):
            return self.passes
        return round(self.passes + self.rows / self._n, 3)


class Counted:
    """`nagcore._core.Problem`, or what stands for it, adding each read of X to a count.

    `second_order` says whether it has the four methods of second order: `gram`, `hessian`,
    `hessian_vector` and `curvature_from_margins`. `share` is what one of its passes counts: less
    than 1 where it reads a narrower copy of X; `origin` the point that copy is stored about.
    """

    def __init__(self, core: Any, reads: Reads, share: float = 1) -> None:
        self.core, self._reads, self.share = core, reads, share
        self.n, self.d, self.p, self.k = core.n, core.d, core.p, core.k
        self.compute: np.dtype[Any] = _REAL.get(core.compute) or np.dtype(core.compute)
        self.loss_from_margins: Callable[..., float] = core.loss_from_margins
        own = isinstance(core, _core.Problem)  # which has all that is asked for here
        self.origin: np.ndarray | None = None if own else getattr(core, "origin", None)
        # The derivative along a segment of margins, and the mean size of the residuals there.
        self.slope_along: Callable[..., float] | None = (
            core.slope_along if own else getattr(core, "slope_along", None))
        self.residual_size: Callable[..., float] | None = (
            core.residual_size if own else getattr(core, "residual_size", None))
        self.n_threads: int | None = core.n_threads if own else getattr(core, "n_threads", None)
        self.second_order = self.k == 1 and (own or hasattr(core, "hessian"))
        self.has_gram = own or hasattr(core, "gram")
        self.has_class_hessian = own or hasattr(core, "class_hessian")

    def value_and_grad(self, w, grad=None, margins=None, residuals=None):
        """(1/S) Σ s φ(z) and its gradient. One pass."""
        self._reads.passes += self.share
        return self.core.value_and_grad(w, grad, margins, residuals)

    def margins(self, w, out=None):
        """z = X̃w + offset. One pass."""
        self._reads.passes += self.share
        return self.core.margins(w, out)

    def rmatvec(self, v):
        """(1/S) X̃ᵀ(s∘v). One pass."""
        self._reads.passes += self.share
        return self.core.rmatvec(v)

    def gram(self, weights=None, rows=None, factors=None, rounded=False, out=None):
        """(1/S) Σ s_i v_i x̃_i x̃_iᵀ over all rows (one pass), or over `rows` (their share of one).

        `factors`, one for each of `rows`, multiply what those count. `rounded`: two digits are enough.
        """
        if rows is None:
            self._reads.passes += self.share
        else:
            self._reads.rows += self.share * len(rows)
        return self.core.gram(weights, rows, out, factors, rounded)

    def hessian(self, w, margins=None, residuals=None):
        """`value_and_grad` and (1/S) Σ s φ''(z) x̃x̃ᵀ, fused. One pass."""
        self._reads.passes += self.share
        return self.core.hessian(w, None, None, margins, residuals)

    def class_hessian(self, w, margins):
        """`value_and_grad` and the Hessian of softmax, (k, p, k, p). A pass, and one for each two classes."""
        self.count(self.newton_passes)
        return self.core.class_hessian(w, margins)

    @property
    def newton_passes(self) -> float:
        """Passes that a step of Newton's method takes: one, and one more for each two classes."""
        return self.share * (1 + self.k * (self.k - 1) // 2)

    def count(self, passes: float) -> None:
        """Add passes that the core was asked for directly."""
        self._reads.passes += passes

    def hessian_vector(self, v, weights):
        """(1/S) X̃ᵀ(s∘weights∘(X̃v)), fused. One pass."""
        self._reads.passes += self.share
        return self.core.hessian_vector(v, weights)

    def curvature_from_margins(self, z, out=None):
        """φ''(z) of each row. No pass."""
        return self.core.curvature_from_margins(z, out)
