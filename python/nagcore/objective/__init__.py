"""The objective F(w, b) = (1/S) Σ s_i φ(z_i, y_i) + (l2/2)‖w‖² + l1‖w‖₁ and its one-pass gradient.

`Objective` is the seam between data and solvers: whatever can run a pass (an array in memory, a
memory map, later a stream or a cluster) can stand behind it. The intercept is never penalised.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np

from nagcore import _core, losses
from nagcore.objective.checks import check_w, w_shape
from nagcore.objective.counted import Counted, Reads
from nagcore.objective.duality import Certificate, best_intercept, certify, dot
from nagcore.objective.one_pass import value_and_grad
from nagcore.objective.storage import narrowed
from nagcore.penalties import Penalty

__all__ = ["Objective", "value_and_grad"]


def _rows_of(X: Any, rows: np.ndarray, n_threads: int | None) -> Any:
    """X[rows]. Of an array's rows several are on their way from memory at a time."""
    if isinstance(X, np.ndarray) and len(rows):
        return _core.take_rows(X, rows, n_threads)
    return X[rows]


_CLASSES = ("logistic", "softmax")  # all of them equally likely at margins of zero


class Objective:
    """A data set, a loss and penalties as one function of w, which counts its passes over X.

    F(w, b) = (1/S) Σ s_i φ(z_i, y_i) + (l2/2)‖w‖² + l1‖w‖₁,  z = Xw + b + offset,  l ≤ w ≤ u.

    Parameters
    ----------
    X, y, sample_weight, offset, delta, scale, shift, n_threads, dtype
        As in `nagcore.value_and_grad`. They are checked once, here, and X is never copied.
    loss : str or nagcore.losses.Loss
    l2, l1 : float
        Strengths of the penalties, ≥ 0.
    positive : bool
        Whether the coefficients must be ≥ 0 (not the intercept); not for several classes.
    bounds : (lower, upper) or an object with lb and ub, as scipy.optimize.Bounds; optional
        lower ≤ w ≤ upper (not the intercept), each one number or an array of shape (d,), −∞ and ∞
        for no bound, lower = upper to fix a coefficient; not for several classes. `positive` means
        bounds=(0, inf); with both, both hold. Afterwards a `nagcore.penalties.Box`, or None.
    fit_intercept : bool
        Whether w has an intercept as its last row.
    n_classes : int, optional
        Columns of w for softmax with class numbers; by default the largest of them plus one.
    compute : {None, "float64"}
        "float64" does the arithmetic on narrower X in float64 throughout. By default narrow X is
        computed in float32, and solvers turn to float64 for their last passes.

    Attributes
    ----------
    shape : (n, d)
    p, k : int
        w has shape (p,), or (p, k) for k classes.
    l1, l2, positive, bounds, penalty, loss, fit_intercept
    nbytes : int
        Bytes of X that one pass reads.
    n_passes : int or float
        Passes over X so far, of every kind: gradients, margins, Hessians and Xᵀ; m sampled rows
        count as m/n of one, a pass over a narrower copy as its bytes' share.
    storage : str or None
        Of the narrower copy of X that `narrowed` made.
    gap_kind : {"certificate", "none"}
        What `gap` returns: a proven bound needs a penalty, or bounds that are finite.

    Raises
    ------
    TypeError, ValueError
        The message names the argument, what came, what is accepted and the call that fixes it.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 3.5])
    >>> objective = Objective(X, y, loss="squared", l2=0.1)
    >>> value, grad = objective.value_and_grad(np.zeros(2))
    >>> grad.shape, objective.n_passes
    ((2,), 1)

    Within bounds, where nothing else is needed for a proof:

    >>> from nagcore import minimize
    >>> result = minimize(Objective(X, y, loss="squared", bounds=(0, 1)))
    >>> result.coef.tolist(), round(result.intercept, 6), result.gap_kind
    ([1.0], 0.166667, 'certificate')
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        loss: str | losses.Loss,
        l2: float = 0.0,
        l1: float = 0.0,
        positive: bool = False,
        bounds: Any = None,
        fit_intercept: bool = True,
        sample_weight: Any = None,
        offset: Any = None,
        delta: float = 1.0,
        scale: float = 1.0,
        shift: float = 0.0,
        compute: str | None = None,
        n_threads: int | None = None,
        dtype: str | None = None,
        n_classes: int | None = None,
    ) -> None:
        penalty = Penalty(l2=l2, l1=l1, positive=positive, bounds=bounds)
        name = losses.get(loss).name
        how = {"scale": scale, "shift": shift, "dtype": dtype, "fit_intercept": bool(fit_intercept)}

        def build(compute: str | None, X: Any = X, **other: Any) -> Any:
            return _core.Problem(
                X, y, loss=name, sample_weight=sample_weight, offset=offset, delta=delta,
                compute=compute, n_threads=n_threads, n_classes=n_classes, **(how | other if other else how),
            )

        self.X, self.read_as = X, (scale, shift, dtype)
        core = build(compute)
        self._set(core, penalty, sample_weight, offset, lambda: build("float64", like=core, **how))
        self.rebuild, self.n_threads = build, n_threads

        def subset(rows: Any, columns: Any, weight: Any, penalty: Penalty) -> Objective:
            def of(a: Any) -> Any:
                return None if a is None else a if rows is None else np.asarray(a)[rows]

            given = of(sample_weight)
            if weight is not None:
                given = weight if given is None else np.asarray(given, np.float64) * weight
            box = penalty.bounds
            return Objective(
                _rows_of(X, rows, n_threads) if columns is None else X[:, columns], of(y), loss=loss,
                l2=penalty.l2, l1=penalty.l1,
                bounds=box if box is None or columns is None else box.at(columns),
                positive=penalty.positive, fit_intercept=fit_intercept, sample_weight=given,
                offset=of(offset), delta=delta, scale=scale, shift=shift,
                compute=compute, n_threads=n_threads, dtype=dtype,
                n_classes=n_classes or (core.k if core.k > 1 else None),
            )

        self._subset = subset

    @classmethod
    def from_problem(
        cls,
        problem: Any,
        *,
        l2: float = 0.0,
        l1: float = 0.0,
        positive: bool = False,
        bounds: Any = None,
        sample_weight: Any = None,
        offset: Any = None,
        wide: Any = None,
        X: Any = None,
    ) -> Objective:
        """Make an objective of any object with the interface of `nagcore._core.Problem`.

        Parameters
        ----------
        problem : object
            Attributes n, d, k, p, compute, nbytes, loss; methods value_and_grad, margins,
            loss_from_margins and rmatvec.
        l2, l1 : float
        positive : bool
        bounds : (lower, upper) or an object with lb and ub, optional
        sample_weight, offset : array, optional
            What the problem was made with; the solvers take means over rows with them.
        wide : object, optional
            The same problem with compute="float64", for the last passes of a narrow one. Without
            it a narrow problem's gap is an estimate.
        X : ndarray or CSR of shape (n, d), optional
            Where solvers may look at rows to choose their variables: `X[i:j]` and `X[rows]` are
            read. Without it they work in the problem's own.

        Returns
        -------
        Objective
        """
        self = cls.__new__(cls)
        penalty = Penalty(l2=l2, l1=l1, positive=positive, bounds=bounds)
        self._set(problem, penalty, sample_weight, offset, None if wide is None else lambda: wide)
        self.X, self.read_as = X, (1.0, 0.0, None)
        return self

    _subset: Any = None
    rebuild: Any = None  # the core's problem on another X
    storage: str | None = None  # of the copy that `narrowed` made
    kept_hessian: Any = None  # of least squares, which has but one: for every strength of the penalty
    kept: Any = None          # what a path's solver leaves from one strength to the next
    _null_margins: Any = None  # where w = 0 is out of bounds

    def _set(self, core, penalty, sample_weight, offset, make_wide) -> None:
        if penalty.positive and core.k > 1:
            raise ValueError(f"positive is True and the loss has {core.k} classes; nagcore takes it "
                             "for losses of one margin. Use positive=False.")
        penalty = penalty.of_columns(core.d, core.k)
        self.reads = Reads(core.n)
        self.kept_hessian = {}
        self.problem = Counted(core, self.reads)
        self.penalty, self.l1, self.l2 = penalty, penalty.l1, penalty.l2
        self.positive, self.bounds = penalty.positive, penalty.bounds
        self.loss = losses.get(core.loss)
        self.shape, self.p, self.k = (core.n, core.d), core.p, core.k
        self.fit_intercept, self.nbytes = core.p > core.d, core.nbytes
        self.w_shape = w_shape(core)
        self.s = None
        if sample_weight is not None:
            s = np.asarray(sample_weight, np.float64)
            self.s = s / s.sum()
        self._offset, self._make_wide = offset, make_wide
        self._wide = self.problem if core.compute == "float64" else None
        self._null: dict[Any, tuple[float, Any]] = {}

    def sample(self, rows: np.ndarray, weight: np.ndarray | None = None) -> Objective | None:
        """The same objective over some rows, their X copied; None where the rows cannot be had.

        `weight` multiplies their sample weights: 1/probability where they were not drawn uniformly.
        Reads of the sample are its own; `reads.rows` of this objective is for the caller to raise.
        """
        return None if self._subset is None else self._subset(rows, None, weight, self.penalty)

    @property
    def has_rows(self) -> bool:
        """Whether X is CSR in memory, made into the problem as it is: products X Xᵀv can be had."""
        core = self.problem.core
        return self._subset is not None and getattr(core, "layout", "") == "csr" and self.wide is not None

    @property
    def divisible(self) -> bool:
        """Whether `sample` and `restrict` can be had: the objective was made from X itself."""
        return self._subset is not None

    def restrict(self, columns: np.ndarray) -> Objective | None:
        """The same objective over some columns of X, which are copied; None where they cannot be had."""
        return None if self._subset is None else self._subset(None, columns, None, self.penalty)

    def with_penalty(self, l2: float, l1: float) -> Objective:
        """The same data under other strengths: nothing is copied, and reads are counted together."""
        other = copy.copy(self)
        other._wide = self.wide
        other.penalty = dataclasses.replace(self.penalty, l2=l2, l1=l1)
        other.l1, other.l2 = other.penalty.l1, other.penalty.l2
        return other

    def narrowed(self, storage: str) -> tuple[Objective, str]:
        """The same objective with a narrower copy of X for all passes but the last, and a sentence.

        Solvers take the last passes, and the proof of the gap, on the float64 X: the minimum is that
        of this objective. Where no such copy can be had the objective itself is returned, and the
        sentence says why.

        Parameters
        ----------
        storage : {"float32", "bfloat16", "uint8"}
            The copy takes a half, a quarter, an eighth of X's memory; it lives as long as the
            objective returned, so one copy serves many runs. uint8 only where it is exact.

        Returns
        -------
        objective : Objective
            Reads are counted together: making the copy as one pass and what is written of it, a
            pass over it as its bytes' share of one over X.
        sentence : str

        Examples
        --------
        >>> import numpy as np
        >>> X, y = np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 3.5])
        >>> narrow, sentence = Objective(X, y, loss="squared", l2=0.1).narrowed("float32")
        >>> narrow.storage, sentence
        ('float32', 'early passes on a copy of X in float32, 0.0 MB')
        """
        return narrowed(self, storage)

    @property
    def n_passes(self) -> float:
        """Passes over X so far; a fraction where rows were sampled or a narrower copy was read."""
        return self.reads.total

    @property
    def wide(self) -> Counted | None:
        """The same problem with float64 arithmetic on the same X (not a copy), or None."""
        if self._wide is None and self._make_wide is not None:
            self._wide = Counted(self._make_wide(), self.reads)
        return self._wide

    @property
    def gap_kind(self) -> str:
        """"certificate" where `gap` is a proven bound, else "none"."""
        return "certificate" if self.penalty.provable and self.wide is not None else "none"

    @property
    def null_value(self) -> float:
        """F₀: the value at w = 0, or at the nearest point within `bounds`, with the best intercept.

        It costs no pass, or one where w = 0 is out of bounds.
        """
        return self._null_parts(self.problem)[0]

    def null_model(self, problem: Counted | None = None) -> tuple[float, np.ndarray]:
        """Return F₀ and the null model's w, from the targets alone where w = 0 is within bounds."""
        value, b = self._null_parts(problem or self.problem)
        w = np.zeros(self.w_shape)
        if self.bounds is not None:
            w[: self.shape[1]] = self.bounds.nearest_zero
        if self.fit_intercept:
            w[-1] = b
        return value, w

    def _null_parts(self, problem: Counted) -> tuple[float, Any]:
        """F₀ and the null model's intercept: w can be far larger than all that it takes to find them."""
        has_zero = self.bounds is None or self.bounds.has_zero
        if not self.fit_intercept and has_zero and self._offset is None and self.loss.name in _CLASSES:
            return math.log(max(self.k, 2)), 0.0  # of every row, whatever its class
        if problem.compute not in self._null:
            z = self._zero_margins(problem)
            b: Any = 0.0
            if self.fit_intercept:
                at_zero = self._offset is None and has_zero
                found = best_intercept(problem, z, self.s, self.loss.curvature_bound, at_zero)
                b, value = found.b, found.value
            else:
                value = problem.loss_from_margins(z)
            self._null[problem.compute] = value, b
        value, b = self._null[problem.compute]
        return value if has_zero else value + self.penalty_value(self.bounds.nearest_zero), b

    def _zero_margins(self, problem: Counted) -> np.ndarray:
        """The margins of the null model without an intercept: the offset, where its w is zero."""
        if self.bounds is not None and not self.bounds.has_zero:
            if self._null_margins is None:
                source = self.wide or self.problem
                self._null_margins = source.margins(self.clipped(np.zeros(self.w_shape)))
            return self._null_margins.astype(problem.compute)
        z = _core.empty_rows((problem.n, *self.w_shape[1:]), problem.compute)
        z.fill(0)
        if self._offset is not None:
            offset = np.asarray(self._offset, problem.compute)
            z += offset if offset.ndim == z.ndim else offset[:, None]
        return z

    def null_margins(self) -> np.ndarray:
        """The margins of the null model. No pass, once F₀ is known."""
        z = self._zero_margins(self.problem)
        if self.fit_intercept:
            z += self.null_model()[1][-1].astype(z.dtype)
        return z

    def value_and_grad(self, w: Any, out: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Return the smooth part of F (data and l2; l1 belongs to the solver's prox) and its gradient.

        Parameters
        ----------
        w : array of shape (p,) or (p, k)
        out : ndarray of the same shape, float64 and C-contiguous, optional
            Where the gradient goes.

        Returns
        -------
        value : float
        grad : ndarray, float64

        One pass.
        """
        w = np.ascontiguousarray(check_w(w, self.problem), np.float64)
        value, grad = self.problem.value_and_grad(w, out)
        if self.l2:
            d = self.shape[1]
            value += 0.5 * self.l2 * dot(w[:d], w[:d])
            grad[:d] += self.l2 * w[:d]
        return value, grad

    def clipped(self, w: np.ndarray) -> np.ndarray:
        """The nearest w within the bounds, on those that it misses by rounding: w where there are none."""
        if self.bounds is None:
            return w
        d = self.shape[1]
        return np.concatenate([self.bounds.snap(w[:d], w[:d]), w[d:]])

    def margins(self, w: Any) -> np.ndarray:
        """Return z = Xw + b + offset in the compute dtype, shape (n,) or (n, k). One pass."""
        return self.problem.margins(np.ascontiguousarray(check_w(w, self.problem), np.float64))

    def value(self, w: Any) -> float:
        """Return F(w), all of it; ∞ out of bounds. One pass."""
        d = self.shape[1]
        w = np.ascontiguousarray(check_w(w, self.problem), np.float64)
        if self.bounds is not None and not self.bounds.contains(w[:d]):
            return float("inf")
        z = self.problem.margins(w)
        return self.problem.loss_from_margins(z) + self.penalty_value(w[:d])

    def penalty_value(self, w: np.ndarray) -> float:
        """(l2/2)‖w‖² + l1‖w‖₁ for coefficients w without the intercept."""
        value = 0.5 * self.l2 * dot(w, w) if self.l2 else 0.0
        return value + self.l1 * float(np.abs(w).sum()) if self.l1 else value

    def gap(self, w: Any) -> float:
        """Return a proven upper bound of F(w) − min F; NaN where there is none (see `gap_kind`).

        The bound is the duality gap of docs/maths.md, "When to stop", at the residuals of w with
        its best intercept, in float64 arithmetic. One pass without an intercept, two with one.
        """
        if self.gap_kind == "none":
            return float("nan")
        w = np.ascontiguousarray(check_w(w, self.problem), np.float64)
        if self.bounds is not None and not self.bounds.contains(w[: self.shape[1]]):
            return float("inf")
        found = self.certify(w)
        return found.given_value - found.value + found.gap

    def certify(self, w: np.ndarray, **known: Any) -> Certificate:
        """`duality.certify` for this objective; `known` may hold margins, residuals and gradient."""
        return certify(self.wide, w, self.penalty, self.s, self.loss.curvature_bound, **known)
