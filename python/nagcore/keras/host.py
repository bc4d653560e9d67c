"""One step on NumPy arrays: what every backend's door calls, and all that knows no keras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nagcore.update import StepReport, nesterov_step_

__all__ = ["HostStep", "alignment_of", "norm_of"]

Arrays = Sequence[np.ndarray]


def norm_of(grads: Arrays) -> tuple[float, bool]:
    """Return the Euclidean norm over all gradients together, and whether one is not finite.

    >>> norm_of([np.array([3.0], np.float32), np.array([[4.0]])])
    (5.0, False)
    >>> norm_of([np.array([1e30], np.float32)])[0] / 1e30 == float(np.float32(1e30)) / 1e30
    True
    """
    total = 0.0
    for g in grads:
        flat = g.ravel(order="K")
        with np.errstate(over="ignore", invalid="ignore"):
            total += float(np.dot(flat, flat))
    if math.isfinite(total):
        return math.sqrt(total), False
    if not all(bool(np.isfinite(g).all()) for g in grads):
        return math.nan if math.isnan(total) else math.inf, True
    # Squares beyond the type's range: once more, scaled, in double.
    top = max(float(np.abs(g).max(initial=0.0)) for g in grads)
    scaled = sum(float(np.square(g.astype(np.float64) / top).sum()) for g in grads)
    return top * math.sqrt(scaled), False


def alignment_of(grads: Arrays, momentums: Arrays) -> float:
    """Return <g, v>, v the velocity that led here: positive when the last step went uphill.

    >>> alignment_of([np.array([1.0, 2.0])], [np.array([3.0, -1.0])])
    1.0
    """
    return sum(
        float(np.dot(g.ravel(), v.ravel())) for g, v in zip(grads, momentums)
    )


class HostStep:
    """The update of one optimizer: decay, velocity, step and moving average in one call of the kernel.

    Parameters
    ----------
    momentum : float
    nesterov : bool
    acceleration : nagcore.schedules.Schedule or None
        Momentum of step t instead of `momentum`; with nesterov the step looks ahead with that of
        step t + 1, so that the shifted variable follows Nesterov's iterates while it changes.
    guard : nagcore.callbacks.AnomalyGuard or None
        Judges the gradients' norm before anything is written.
    n_threads : int or None
    convention : {"keras", "keras-torch", "keras-jax"}
        Whose roundings; as for nagcore.nesterov_step_.

    Examples
    --------
    >>> step = HostStep(momentum=0.5, nesterov=True)
    >>> w, v = np.ones(2), np.zeros(2)
    >>> report = step([w], [v], [np.ones(2)], lr=0.1, step=1)
    >>> w, v
    (array([0.85, 0.85]), array([-0.1, -0.1]))
    """

    def __init__(
        self,
        *,
        momentum: float,
        nesterov: bool,
        acceleration: Any = None,
        guard: Any = None,
        n_threads: int | None = None,
        convention: str = "keras",
    ) -> None:
        self.convention = convention
        self.momentum, self.nesterov = momentum, nesterov
        self.acceleration, self.guard, self.n_threads = acceleration, guard, n_threads
        # What takes the schedule's place if the first step to come is step 1: one that was loaded
        # remembers a run, which an optimizer that starts anew does not continue.
        self.acceleration_at_first: Any = None
        self.last_report: StepReport | None = None
        self.last_momentum = momentum

    @property
    def has_memory(self) -> bool:
        """Whether a step depends on more than its arguments."""
        return self.guard is not None or bool(getattr(self.acceleration, "adaptive", False))

    def __call__(
        self,
        params: Arrays,
        momentums: Arrays | None,
        grads: Arrays,
        *,
        lr: float,
        step: int,
        weight_decay: float = 0.0,
        decayed: Sequence[bool] | None = None,
        averages: Arrays | None = None,
        ema_momentum: float | None = None,
        convention: str | None = None,
    ) -> StepReport:
        """Write one step into `params`, `momentums` and `averages`.

        `decayed` says which parameters `weight_decay` is for; None is all of them. `convention` is
        this step's, where it is not every step's.
        """
        scale = None
        if self.guard is not None:
            norm, found_inf = norm_of(grads)
            verdict = self.guard.check(step, grad_norm=norm, found_inf=found_inf)
            if verdict.action in ("skip", "rollback"):
                if verdict.action == "rollback":
                    self._go_back(params, momentums)
                self.last_report = StepReport(norm, 1.0, found_inf, 0, 0)
                return self.last_report
            if verdict.action == "clip":
                scale = verdict.max_norm / norm
        mu, ahead = self._momenta(grads, momentums, step)
        self.last_momentum = mu
        if scale is not None:
            grads = [g * g.dtype.type(scale) for g in grads]
        settings: dict[str, Any] = {
            "lr": lr, "momentum": mu, "nesterov": self.nesterov, "convention": convention or self.convention,
            "decoupled": True, "n_threads": self.n_threads,
        }  # fmt: skip
        if ahead is not None:
            settings["lookahead"] = ahead
        if momentums is not None and mu == 0.0:
            # Without momentum the kernel would leave the velocity alone. A first step reads none and
            # writes -lr·g, which is what a momentum of 0 means; the momentum itself is then not used.
            settings.update(first_step=True, momentum=0.0 if self.nesterov else 1.0)
        if averages is not None:
            settings["ema_decay"] = ema_momentum
        reports = [
            nesterov_step_(
                [params[i] for i in chosen],
                [grads[i] for i in chosen],
                None if momentums is None else [momentums[i] for i in chosen],
                ema=None if averages is None else [averages[i] for i in chosen],
                weight_decay=decay,
                **settings,
            )
            for chosen, decay in _groups(len(params), weight_decay, decayed)
        ]
        self.last_report = _together(reports, 1.0 if scale is None else scale)
        self._remember(params, momentums, step)
        return self.last_report

    def _momenta(
        self, grads: Arrays, momentums: Arrays | None, step: int
    ) -> tuple[float, float | None]:
        if self.acceleration is None:
            return self.momentum, None
        if self.acceleration_at_first is not None:
            if step == 1:
                self.acceleration = self.acceleration_at_first
            self.acceleration_at_first = None
        if self.acceleration.adaptive and momentums is not None:
            self.acceleration.observe(alignment_of(grads, momentums))
        mu = float(self.acceleration(step))
        return mu, float(self.acceleration(step + 1)) if self.nesterov else None

    def _remember(self, params: Arrays, momentums: Arrays | None, step: int) -> None:
        """Hand the guard a copy after its first accepted step and then once in a window."""
        guard = self.guard
        if guard is None or guard.action != "rollback":
            return
        if guard.last_good is None or step % guard.window == 0:
            guard.remember(
                {
                    "params": [p.copy() for p in params],
                    "momentums": None if momentums is None else [v.copy() for v in momentums],
                }
            )

    def _go_back(self, params: Arrays, momentums: Arrays | None) -> None:
        good = self.guard.last_good
        for array, kept in zip(params, good["params"]):
            array[...] = kept
        if momentums is not None and good["momentums"] is not None:
            for array, kept in zip(momentums, good["momentums"]):
                array[...] = kept


def _groups(
    count: int, weight_decay: float, decayed: Sequence[bool] | None
) -> list[tuple[Sequence[int], float]]:
    """Parameters that share a decay: one group, unless some are excluded from it."""
    if not weight_decay or decayed is None or all(decayed):
        return [(range(count), weight_decay)]
    groups = [
        ([i for i in range(count) if decayed[i]], weight_decay),
        ([i for i in range(count) if not decayed[i]], 0.0),
    ]
    return [group for group in groups if group[0]]


def _together(reports: list[StepReport], clip_factor: float) -> StepReport:
    if len(reports) == 1 and clip_factor == 1.0:
        return reports[0]
    return StepReport(
        math.hypot(*(r.grad_norm for r in reports)) / clip_factor,
        clip_factor,
        any(r.found_inf for r in reports),
        sum(r.tensors for r in reports),
        sum(r.elements for r in reports),
    )
