"""What every solver works with: an oracle in the solver's variables, and what it hands back.

A solver is a generator `method(oracle, x, L)`. It runs one pass over X between two yields, and
yields an `Iterate` after each. The driver (`minimize`) counts passes, looks at the gap, calls
callbacks and stops.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nagcore import _core
from nagcore.callbacks import History
from nagcore.objective import Objective
from nagcore.objective.duality import dot, mean_size, row_mean
from nagcore.solvers.coordinates import ClassCoordinates, Coordinates, OwnCoordinates
from nagcore.solvers.pairs import Pairs
from nagcore.solvers.prox import best_shift, box_threshold, class_threshold, soft_threshold

_EPS, _EPS32 = 2.0**-52, 2.0**-23  # numpy.finfo takes longer than a pass over small data
_RESIDUAL_STEPS = 16  # calls of `rounding` between two looks at the size of the residuals

__all__ = ["Horizon", "Iterate", "Known", "Method", "Oracle", "Result", "Step", "eps_of"]


@dataclass(eq=False)
class Result:
    """What `nagcore.minimize` found.

    Attributes
    ----------
    w : ndarray of shape (p,) or (p, k), float64
        The best point met: coefficients, with the intercept as the last row where there is one.
    coef : ndarray of shape (d,) or (d, k)
    intercept : float, or ndarray of shape (k,)
        0.0 without an intercept.
    value : float
        F(w).
    gap : float
        Absolute: F(w) − min F is at most (certificate) or about (estimate) this; NaN for none.
    gap_kind : {"certificate", "estimate", "none"}
    n_passes : int or float
        Passes over X, all counted; m sampled rows count as m/n of one.
    n_iter : int
    converged : bool
        Whether gap ≤ tol·(F₀ − F(w)), F₀ the null model's value.
    message : str
        Why the run ended.
    history : nagcore.callbacks.History
        n_passes, seconds, value and gap per iteration.
    solver : str
        Which method ran.
    why : str
        Why: what "auto" saw, or "asked for".
    null_value : float
        F₀.
    seconds : float
    separated : bool
        Whether w separates the classes and there is no penalty: F then has no minimum.

    Examples
    --------
    >>> import numpy as np
    >>> import nagcore
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> objective = nagcore.Objective(X, np.array([0, 0, 1, 1]), loss="logistic", l2=0.1)
    >>> result = nagcore.minimize(objective)
    >>> result.converged, result.gap_kind
    (True, 'certificate')
    """

    w: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray | float
    value: float
    gap: float
    gap_kind: str
    n_passes: float
    n_iter: int
    converged: bool
    message: str
    history: History
    solver: str
    why: str
    null_value: float
    seconds: float
    separated: bool = False


class Step(NamedTuple):
    """A pass that lowered F and left a gap too large for anything to be done about it."""

    f: float      # F at its point
    gap: float    # what it says of the gap there
    bound: float  # of that, what is proven where the arithmetic is float64
    at: float     # when it ended
    later: float  # passes since


class Iterate(NamedTuple):
    """One pass of a solver, in its variables.

    `x` is the point it stands for, with smooth value `f` and margins `z`. The pass itself was at
    `y`, with smooth value `fy`, margins `zy` and smooth gradient `g`. The margins are buffers that
    the next pass may overwrite. `moved` is False when the pass went to a step that was taken back.
    `resolved` is False when the step changes F by less than the arithmetic can tell. `decrement` is
    ½⟨g, H⁻¹g⟩ where the method has a Hessian H: the gap, if f were its quadratic model. `bound` is
    ‖∇_w f‖²/(2·l2) where the method knows it without that gradient, and the duality gap at `y` under l1,
    where `free` is an estimate of it that is finite. `at` is when the pass ended, on
    the clock of `time.perf_counter`, where that was not just now, and `proven` says whether `bound`
    was computed in the oracle's arithmetic. `trail` holds the steps since the last iterate, where a
    method went on by itself (`Horizon`), and `passed` the point of the last of them. `value` is F at `x`
    where the method knows it, and `y` is `x`.
    """

    x: np.ndarray
    f: float
    z: np.ndarray
    y: np.ndarray
    fy: float
    zy: np.ndarray
    g: np.ndarray
    L: float
    moved: bool = True
    resolved: bool = True
    decrement: float = math.nan
    bound: float = math.nan
    at: float = math.nan
    proven: bool = True
    trail: Sequence[Step] = ()
    passed: np.ndarray | None = None
    free: float = math.nan
    value: float = math.nan


class Horizon(NamedTuple):
    """How far a method may run before what it saw is looked at.

    At most so many `passes`, and not beyond a gap of max(tol·(null_value − f), floor).
    """

    passes: float = 1
    tol: float = 0.0
    null_value: float = 0.0
    floor: float = 0.0


class Known(NamedTuple):
    """What a pass at w gave: data value, data gradient and margins."""

    w: np.ndarray
    data_value: float
    u: np.ndarray
    z: np.ndarray


def eps_of(real: np.dtype) -> float:
    """The distance from 1 to the next number of float64 or float32.

    >>> eps_of(np.dtype(np.float32)) == float(np.finfo(np.float32).eps)
    True
    """
    return _EPS if real.itemsize == 8 else _EPS32


class Oracle:
    """F in the variables of `Coordinates`: f smooth (data and l2), and the prox of l1.

    It remembers the last pass in the problem's own variables (`w`, data value, data gradient `u`),
    from which the driver gets a gap for free.
    """

    def __init__(
        self,
        objective: Objective,
        coordinates: Coordinates | ClassCoordinates | OwnCoordinates,
        problem: Any,
        memory: Pairs | None = None,
        known: Known | None = None,
    ) -> None:
        self.objective, self.coordinates, self.problem = objective, coordinates, problem
        self.real = np.dtype(problem.compute)
        self._eps = eps_of(self.real)
        self._d, self._l2 = objective.shape[1], objective.l2
        self._l1 = coordinates.thresholds if objective.l1 else None
        self._box: Any = None  # in these variables, in which P is diagonal then
        if objective.bounds is not None:
            self._box = objective.bounds.lower / coordinates.scale, objective.bounds.upper / coordinates.scale
        self._l2_classes = objective.l2 * coordinates.scale**2 if objective.l1 else None
        self._shifted: tuple[Any, Any] = None, None  # the last prox point of classes, and its shift
        self.tol = 0.0  # what the run is to reach
        self.horizon: Callable[[], Horizon] = Horizon
        self.dropped: np.ndarray | None = None  # columns that are zero in the solution, and not read
        self.w = self.u = np.zeros(0)  # of the last pass
        self.data_value = math.nan
        self.spare: np.ndarray | None = None  # margins that the method will not read again
        self.proposed: np.ndarray | None = None  # where the first step may go
        self._known = known
        self._memory = Pairs() if memory is None else memory

    def new_margins(self) -> np.ndarray:
        """A buffer for margins, shape (n,) or (n, k), of the compute dtype."""
        return _core.empty_rows((self.problem.n, *self.objective.w_shape[1:]), self.real)

    def gradient(self, v, z, r=None) -> tuple[float, np.ndarray]:
        """f(v) and ∇f(v); margins and residuals are written. The one pass of an iteration."""
        self.w = w = self.coordinates.to_w(v)
        self.data_value, self.u = self.problem.value_and_grad(w, None, z, r)
        return self.with_penalty(w)

    def with_penalty(self, w) -> tuple[float, np.ndarray]:
        """f and its gradient at w, from the data value and the data gradient there."""
        wd = w[: self._d]
        f = self.data_value + (0.5 * self._l2 * dot(wd, wd) if self._l2 else 0.0)
        g = self.coordinates.pull_back(self.u, self._l2, w)
        if self.dropped is not None:
            g[: self._d][self.dropped] = 0.0
        return f, g

    def start(self, v, z) -> tuple[float, np.ndarray]:
        """`gradient` at a run's first point, without a pass where an earlier one was there."""
        known = self.take_known()
        if known is None:
            f, g = self.gradient(v, z)
            if math.isfinite(f):
                return f, g
            raise ValueError("the objective is infinite at the starting point; start elsewhere, or "
                             "use w0=None to start at the null model.")
        self.w, self.data_value, self.u = known.w, known.data_value, known.u
        if known.z is not z:
            z[...] = known.z
        return self.with_penalty(self.w)

    def first_margins(self) -> np.ndarray:
        """An array for a run's first margins: those of an earlier pass there, if one is known."""
        return self.new_margins() if self._known is None else self._known.z

    def take_known(self) -> Known | None:
        """What an earlier pass gave at the point where this begins; asked for once."""
        known, self._known = self._known, None
        return known

    def resume(self, known: Known) -> None:
        """Let `start` begin with what an earlier pass, of another run, gave."""
        self._known = known

    def known(self, it: Iterate) -> Known | None:
        """What the last pass gave, if it was at the iterate itself."""
        if it.x is not it.y or not self.w.size:
            return None
        return Known(self.w, self.data_value, self.u, it.z)

    def pairs(self) -> deque:
        """The steps s with their changes of gradient y in these variables, oldest first; append to it.

        Later oracles find them, whatever their variables are.
        """
        return self._memory.seen_in(self.coordinates)

    def lend_pairs(self, give: Callable[[], Any]) -> None:
        """Let a loop keep the pairs in these variables; `give` gives them back."""
        self._memory.lend(give)

    def hessian(self, v, z) -> tuple[float, np.ndarray, np.ndarray]:
        """f(v), ∇f(v) and ∇²f(v), in one pass; margins are written. In the problem's own variables."""
        self.w = w = self.coordinates.to_w(v)
        self.data_value, self.u, H = self.problem.hessian(w, z)
        wd, d = w[: self._d], self._d
        f = self.data_value + (0.5 * self._l2 * dot(wd, wd) if self._l2 else 0.0)
        if math.isfinite(f):
            self.coordinates.look(H)  # type: ignore[union-attr]
        if self._l2:
            H.reshape(-1)[:: w.size + 1][:d] += self._l2
        return f, self.coordinates.pull_back(self.u, self._l2, w), H

    def smooth(self, v, z) -> float:
        """f(v) from its margins z, O(n)."""
        f = self.problem.loss_from_margins(z)
        if self._l2:
            wd = self.coordinates.to_w(v)[: self._d]
            f += 0.5 * self._l2 * dot(wd, wd)
        return f

    def prox(self, v, step) -> np.ndarray:
        """argmin_u l1‖w(u)‖₁ + ‖u − v‖²/(2·step), w(u) within bounds, the intercept as it is."""
        if self._l1 is None and self._box is None:
            return v
        out, d = v.copy(), self._d
        if self._box is not None:
            out[:d] = box_threshold(v[:d], step * self.coordinates.thresholds, *self._box)
            return out
        if v.ndim == 1:
            out[:d] = soft_threshold(v[:d], step * self._l1)
        else:
            out[:d], shift = class_threshold(v[:d], step * self._l1, step * self._l2_classes)
            self._shifted = out, shift
        return out

    def centred_classes(self, v) -> np.ndarray:
        """v with coefficients that sum to zero over the classes, where a penalty makes that free."""
        shared = not isinstance(self.coordinates, ClassCoordinates)  # which sees to it itself
        if v.ndim == 2 and shared and self.objective.penalty.name != "none" and v[: self._d].any():
            v = v.copy()
            v[: self._d] -= v[: self._d].mean(axis=1, keepdims=True)
        return v

    def settled(self, v) -> np.ndarray:
        """v with each feature's coefficients shifted over the classes to where their penalty is least."""
        if v.ndim == 1 or self._l1 is None:
            return v
        out = v.copy()
        out[: self._d] += self._shift(v)
        return out

    def _shift(self, v) -> np.ndarray:
        if self._shifted[0] is v:
            return self._shifted[1]
        return best_shift(v[: self._d], self._l1, self._l2_classes)

    def value(self, v, smooth) -> float:
        """F at a point whose smooth value is known."""
        if self._l1 is None:
            return smooth
        head = v[: self._d]
        if v.ndim == 2:
            shift = self._shift(v)
            head = head + shift
            smooth = smooth + 0.5 * v.shape[1] * float(np.sum(self._l2_classes * shift**2))
        return smooth + float((np.abs(head) * self._l1).sum())

    def divergence(self, x, zx, rx, y, zy, ry) -> float:
        """f(x) − f(y) − ⟨∇f(y), x − y⟩ from margins and residuals, never negative.

        The integral of (φ'(z_y + t·h) − φ'(z_y))·h over t, by Simpson's rule: nothing cancels,
        however close x and y are, where a difference of objectives would be rounding.
        """
        h = zx - zy
        middle = np.empty_like(h)
        self.problem.loss_from_margins(zy + h * self.real.type(0.5), middle)
        middle -= ry
        middle *= 4
        middle += rx
        middle -= ry
        middle *= h
        value = float(np.sum(row_mean(middle, self.objective.s))) / 6
        if self._l2:
            change = (self.coordinates.to_w(x) - self.coordinates.to_w(y))[: self._d]
            value += 0.5 * self._l2 * dot(change, change)
        return value

    def _residual_size(self, z) -> float:
        """(1/S) Σ s |φ'(z)|, the largest over classes."""
        if z.ndim == 1 and self.problem.residual_size is not None:
            return self.problem.residual_size(z)
        if isinstance(self.problem.core, _core.Problem):
            return self.problem.core.shifted_loss(z)[2]  # of classes: no array of residuals
        r = np.empty_like(z)
        self.problem.loss_from_margins(z, r)
        return mean_size(r, self.objective.s)

    def rounding(self, f, z) -> float:
        """How far a value of f can be off: rounded margins, as large as their terms |x_ij w_j|."""
        seen = self._memory
        if seen.residual_age == 0:
            seen.residual = self._residual_size(z)
        seen.residual_age = (seen.residual_age + 1) % _RESIDUAL_STEPS
        terms, d, origin = np.abs(self.w), self._d, self.problem.origin
        if terms.ndim == 1:
            size = dot(self.coordinates.rms, terms[:d])
        else:
            size = float(np.sum(np.einsum("i,i...->...", self.coordinates.rms, terms[:d])))
        if origin is not None:  # X is stored about it, and the intercept there is this
            size += float(np.abs(self.w[d:] + np.einsum("i,i...->...", origin, self.w[:d])).sum())
        elif len(terms) > d:
            size += float(terms[d:].sum())
        return 4 * self._eps * (abs(f) + seen.residual * size)


@dataclass(frozen=True)
class Method:
    """A registered solver: its generator and what it needs.

    Parameters
    ----------
    name : str
    run : callable(oracle, x, L) -> iterator of Iterate
    bounded_curvature : bool
        Whether it needs a loss whose φ'' is bounded.
    averages : bool
        Whether its iterates are means of prox points, so that l1 leaves no exact zeros in them.
    smooth : bool
        Whether it takes no l1.
    second_order : bool
        Whether it needs Hessians: one margin per row, and data that can give them.
    class_hessians : bool
        Whether it takes those of several margins per row, too.
    own_variables : bool
        Whether it works in w itself, and not in the variables of `Coordinates`.
    screens : bool
        Whether columns that are proven zero are to leave its passes.
    patience : int
        Steps without progress, of a size that rounding hides, after which nothing more is expected.
    wide_beyond : float
        Columns beyond which it reads X so seldom that all passes are in float64.
    losses : tuple of str
        The losses it takes; empty for all.
    from_sample : bool
        Whether the solution of some rows, once there are many, is a start for it.
    rows : bool
        Whether its unknowns are rows of X: it needs X as CSR, and l2 > 0.
    mixes : bool
        Whether its float64 steps read X in float32, so that they begin where those of float32 end.

    Examples
    --------
    >>> import numpy as np
    >>> import nagcore
    >>> objective = nagcore.Objective(np.eye(3), np.ones(3), loss="squared")
    >>> nagcore.solvers.get("acfgm", objective).bounded_curvature
    True
    """

    name: str
    run: Callable[..., Iterator[Iterate]]
    bounded_curvature: bool = False
    averages: bool = False
    smooth: bool = False
    second_order: bool = False
    class_hessians: bool = False
    own_variables: bool = False
    screens: bool = False
    patience: int = 300
    wide_beyond: float = math.inf
    losses: tuple[str, ...] = ()
    from_sample: bool = False
    rows: bool = False
    mixes: bool = False

    def check(self, objective: Objective) -> None:
        """Raise ValueError if the objective lacks what the solver needs; the error names both."""
        loss, name = objective.loss, f'solver="{self.name}"'
        if self.bounded_curvature and not loss.bounded_curvature:
            raise ValueError(
                f'{name} needs a loss of bounded curvature; the curvature of '
                f'"{loss.name}" has no bound. Use solver="fista", which searches its step.'
            )
        if self.smooth and not objective.penalty.smooth:
            what = "positive is True" if objective.positive else "w has bounds"
            what = f"l1 is {objective.l1}" if objective.l1 else what
            raise ValueError(f"{name} needs a smooth objective; {what}. "
                             'Use solver="fista", or "auto", which chooses.')
        if self.losses and loss.name not in self.losses:
            raise ValueError(f'{name} takes loss {" or ".join(self.losses)}; this one is '
                             f'"{loss.name}". Use solver="auto", which chooses.')
        if self.rows and not (objective.l2 and objective.has_rows):
            what = "is not CSR" if not objective.has_rows else "comes with l2 = 0"
            raise ValueError(f'{name} needs CSR and l2 > 0; this X {what}. Use solver="auto", which '
                             "chooses.")
        of_classes = self.class_hessians and objective.k > 1 and objective.problem.has_class_hessian
        if self.second_order and not (objective.problem.second_order or of_classes):
            what = "has a Hessian of classes" if objective.k > 1 else "gives no Hessian"
            raise ValueError(f'{name} needs one margin per row and data that give a Hessian; '
                             f'this problem {what}. Use solver="auto", which chooses.')
