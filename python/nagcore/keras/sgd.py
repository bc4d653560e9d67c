"""keras.optimizers.SGD with nagcore's fused update."""

from __future__ import annotations

import math
import numbers
import operator
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from . import saving
from .doors import Update, in_stateless_scope, open_door, plain
from .host import HostStep

__all__ = ["SGD"]

if TYPE_CHECKING:
    KerasSGD = Any
else:
    # keras makes its own class for each backend (torch has a parallel one), and only an instance
    # tells which. The name keeps the counter of automatic names where it was.
    KerasSGD = type(keras.optimizers.SGD(name="sgd_of_the_backend"))


def _number(value: Any, name: str, *, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; it must be a real number, such as {name}=0.9.")
    number = float(value)
    if not 0 <= number <= most or math.isinf(number):
        bound = "not negative and finite" if most == math.inf else f"in [0, {most:g}]"
        raise ValueError(f"{name} is {value!r}; it must be {bound}.")
    return number


@keras.saving.register_keras_serializable(package="nagcore")
class SGD(KerasSGD):
    r"""keras.optimizers.SGD whose whole variable list is updated in one call and one trip through memory.

    With v the momentum, g the gradient, μ ``momentum`` and λ ``weight_decay``::

        w ← w − w·λ·lr
        v ← μv − lr·g
        w ← w + (μv − lr·g)       or, with nesterov=False,  w ← w + v

    Every argument of keras.optimizers.SGD has keras's meaning; clipping, loss scaling, gradient
    accumulation, constraints and the overwriting by averages are keras's own code around the step.
    One step equals keras's own on the same backend to the bit, where the processor has fused
    multiply-add and jax and tensorflow are left their own rule (docs/keras.md has the small print).
    Variables the kernel does not update (bfloat16 and float16, another device, sparse gradients, XLA)
    are updated by keras's own rule, which is said once.

    Parameters
    ----------
    learning_rate : float, keras.optimizers.schedules.LearningRateSchedule or callable
    momentum : float
        μ in [0, 1].
    nesterov : bool
        Needs momentum > 0 or an acceleration.
    weight_decay, clipnorm, clipvalue, global_clipnorm : float, optional
        As in keras: decoupled decay; the three ways to clip exclude each other.
    use_ema : bool
    ema_momentum : float
    ema_overwrite_frequency : int, optional
    loss_scale_factor : float, optional
    gradient_accumulation_steps : int, optional
    name : str, optional
    acceleration : nagcore.schedules.Schedule, optional
        Momentum of step t = 1, 2, … instead of ``momentum``; t counts updates. With nesterov the
        step looks ahead with the momentum of step t + 1. An adaptive schedule is shown ⟨g, v⟩.
    n_threads : int, optional
        None is all that this process may use.
    guard : nagcore.callbacks.AnomalyGuard, optional
        Judges the norm of the gradients, after keras's clipping, before each update. "skip" leaves
        variables and momentums as they are, "rollback" sets them to the copy made at the first
        accepted step and then once in a window. Not saved with the model.
    use_kernel : bool, optional
        None takes nagcore's kernel where it is the faster one: on numpy, on torch with momentum and
        24 variables, 1.5 million elements, weight decay or averages, and elsewhere only for what
        keras's rule cannot do (acceleration, guard), because a callback with copies is slower than a
        compiled rule. True takes it wherever it can be had, False never.

    Attributes
    ----------
    last_report : nagcore.StepReport or None
        Of the last step that the kernel took.

    Raises
    ------
    TypeError, ValueError
        An argument that is not what is said here, NaN included. A gradient whose shape is not its
        variable's: nothing has been written then.

    Notes
    -----
    numpy and torch on the CPU are updated in place; jax and tensorflow by keras's own rule or, with the
    kernel, through a callback with copies. docs/keras.md says what each costs. A saved model is loaded
    after ``import nagcore.keras``.
    The rule is that of Sutskever et al. (2013), "On the importance of initialization and momentum in
    deep learning".

    Examples
    --------
    >>> import keras, numpy as np
    >>> from nagcore.keras import SGD
    >>> w = keras.Variable(np.ones(3, "float32"))
    >>> optimizer = SGD(learning_rate=0.25, momentum=0.5, nesterov=True)
    >>> optimizer.apply([keras.ops.ones(3)], [w])
    >>> w.numpy().tolist()
    [0.625, 0.625, 0.625]
    >>> SGD(momentum=1.5)
    Traceback (most recent call last):
        ...
    ValueError: momentum is 1.5; it must be in [0, 1].
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        acceleration: Any = None,
        n_threads: int | None = None,
        guard: Any = None,
        use_kernel: bool | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(learning_rate, numbers.Real):
            learning_rate = _number(learning_rate, "learning_rate")
        momentum = _number(momentum, "momentum", most=1.0)
        if nesterov and momentum == 0 and acceleration is None:
            raise ValueError(
                "nesterov=True needs momentum > 0 or an acceleration. Pass nesterov=False for plain "
                "gradient descent, which is what keras makes of it without a word."
            )
        optional = {
            "weight_decay": weight_decay,
            "clipnorm": clipnorm,
            "clipvalue": clipvalue,
            "global_clipnorm": global_clipnorm,
            "loss_scale_factor": loss_scale_factor,
        }
        for argument, value in optional.items():
            if value is not None:
                optional[argument] = _number(value, argument)
        if loss_scale_factor == 0:
            raise ValueError("loss_scale_factor is 0; gradients are divided by it. None scales nothing.")
        _number(ema_momentum, "ema_momentum", most=1.0)
        if n_threads is not None and (
            isinstance(n_threads, bool) or not isinstance(n_threads, numbers.Integral) or n_threads < 1
        ):
            raise ValueError(
                f"n_threads is {n_threads!r}; it must be an integer from 1 to 4096, or None for all "
                "that this process may use."
            )
        if acceleration is not None and not callable(acceleration):
            raise TypeError(
                f"acceleration is {acceleration!r}; it must be a schedule of nagcore.schedules, such as "
                "acceleration=nagcore.schedules.Nesterov()."
            )
        if guard is not None and not hasattr(guard, "check"):
            raise TypeError(
                f"guard is {guard!r}; it must be an AnomalyGuard, such as "
                "guard=nagcore.callbacks.AnomalyGuard()."
            )
        super().__init__(
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=bool(nesterov),
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **optional,
            **kwargs,
        )
        self._door: Any = open_door()
        self._step = HostStep(
            convention="keras" if self._door is None else self._door.convention,
            momentum=momentum,
            nesterov=bool(nesterov),
            acceleration=acceleration,
            guard=guard,
            n_threads=n_threads,
        )
        self.use_kernel = None if use_kernel is None else bool(use_kernel)
        self._said: set[str] = set()
        self._averaged = False
        self._many = False  # variables or elements, so that the kernel is faster than keras's rule

    # ----- what keras's SGD does not have -----------------------------------------------------------

    @property
    def acceleration(self) -> Any:
        """The schedule of the momentum, or None."""
        return self._step.acceleration

    @property
    def guard(self) -> Any:
        """The AnomalyGuard that judges each update, or None; assign one after loading a model."""
        return self._step.guard

    @guard.setter
    def guard(self, guard: Any) -> None:
        self._step.guard = guard

    @property
    def n_threads(self) -> int | None:
        """Threads of the update; None is all that this process may use."""
        return self._step.n_threads

    @n_threads.setter
    def n_threads(self, n_threads: int | None) -> None:
        self._step.n_threads = n_threads

    @property
    def last_report(self) -> Any:
        """StepReport of the last step that the kernel took, or None."""
        return self._step.last_report

    # ----- keras's hooks, in the order in which a step meets them -----------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Make the momentums (and averages, and accumulators) of these variables."""
        if self.built:
            return
        super().build(variables)
        if self.momentum == 0 and self.acceleration is not None:
            self.momentums = self.add_optimizer_variables(variables, "momentum")
        if self._door is not None:
            self._door.adopt(variables)
            self._many = not self._door.has_rival or (
                self.momentum != 0 and self._door.pays(variables)
            )

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Nothing: the step that follows decays what it updates."""

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if self._uses_kernel() and not self._is_folded(trainable_variables):
            self._door.outside_graphs(self._divide, grads, trainable_variables, learning_rate)
            return
        if self._accelerated():
            raise ValueError(
                "acceleration and guard need nagcore's kernel, which use_kernel=False, the backend "
                f"{keras.backend.backend()} or a stateless_apply in place of apply rules out. Leave them out."
            )
        self._leave(grads, trainable_variables, learning_rate)

    def _uses_kernel(self) -> bool:
        """Whether the kernel is asked for: where a callback would copy, only if it has to be."""
        if self._door is None or (self._door.in_place and in_stateless_scope()):
            return False
        if self.use_kernel is not None:
            return self.use_kernel
        if self._accelerated():
            return True
        return self._door.in_place and (self._many or self._merges())

    def _accelerated(self) -> bool:
        """Whether the step is one that keras's own rule does not know."""
        return self.acceleration is not None or self.guard is not None

    def _is_folded(self, variables: Sequence[Any]) -> bool:
        """Whether a step of its own would round another product than the backend's: said once."""
        scale = self.loss_scale_factor
        if not self._door.folds_scales or self._accelerated() or scale is None:
            return False
        if math.frexp(abs(float(scale)))[0] == 0.5:  # a power of two: no product is rounded by it
            return False
        self._say(
            variables[0],
            f"the compiler folds loss_scale_factor={scale} into the learning rate, which rounds otherwise "
            "than a division of the gradients; a power of two does not",
        )
        return True

    def _merges(self) -> bool:
        """Whether keras would go over the variables once more, for decay or averages."""
        return self.use_ema or bool(self.weight_decay and self.momentum)

    def _leave(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        super()._apply_weight_decay(variables)
        super()._backend_update_step(grads, variables, learning_rate)

    def _divide(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        """Give the kernel what it can update, and keras the rest."""
        ready = self._door.ready(grads, variables)
        if ready is not None:
            self._update(ready, variables, learning_rate)
            return
        ours: list[tuple[Any, Any]] = []
        theirs: list[tuple[Any, Any]] = []
        for grad, variable in zip(grads, variables):
            if tuple(grad.shape) != tuple(variable.shape):
                raise ValueError(
                    f"The gradient of {variable.path} has shape {tuple(grad.shape)} and the variable "
                    f"{tuple(variable.shape)}; they must agree. Nothing was updated."
                )
            reason = self._door.refusal(variable, grad)
            if reason:
                self._say(variable, reason)
            (theirs if reason else ours).append((grad, variable))
        if ours:
            self._update([g for g, _ in ours], [v for _, v in ours], learning_rate)
        if theirs:
            self._leave([g for g, _ in theirs], [v for _, v in theirs], learning_rate)

    def _say(self, variable: Any, reason: str) -> None:
        if self._accelerated():
            raise ValueError(
                f"{variable.path} cannot be updated by nagcore because {reason}, and keras's own rule "
                "knows no acceleration and no guard. Leave them out, or train it with "
                "keras.optimizers.SGD."
            )
        if reason not in self._said:
            self._said.add(reason)
            warnings.warn(
                f"{variable.path} is left to keras's own rule because {reason}", stacklevel=2
            )

    def _update(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        step, steps, scalar = self._step, self.gradient_accumulation_steps, self._door.scalar
        step.momentum, step.nesterov = scalar("momentum", self.momentum), self.nesterov
        momentums = None
        if self.momentum != 0 or self.acceleration is not None:
            momentums = self._partners(self.momentums, variables)
        weight_decay, decayed = scalar("weight_decay", self.weight_decay or 0.0), None
        if weight_decay and hasattr(self, "_exclude_from_weight_decay"):
            decayed = [self._use_weight_decay(self._door.named(v)) for v in variables]
        averages = self._averages_in_step(variables)
        self._door.update(
            step,
            Update(
                grads=grads,
                variables=variables,
                momentums=momentums,
                learning_rate=plain(learning_rate),
                iterations=plain(self.iterations),
                taken=None if not steps else (plain(self._iterations) + 1) % steps == 0,
                weight_decay=weight_decay,
                decayed=decayed,
                averages=averages,
                ema_momentum=None if averages is None else scalar("ema_momentum", self.ema_momentum),
            ),
        )
        self._averaged = averages is not None

    def _averages_in_step(self, variables: Sequence[Any]) -> Sequence[Any] | None:
        """The averages, where the kernel can write them in the same trip and mean what keras means.

        keras averages every variable in every call, those without a gradient and those that only
        accumulate included, and starts an average at the first one.
        """
        if not self.use_ema or not self._door.in_place or self.gradient_accumulation_steps:
            return None
        averages = self._model_variables_moving_average
        if len(variables) != len(self._trainable_variables) or any(a is None for a in averages):
            return None
        if self.acceleration is not None or int(plain(self._iterations)) == 0:
            return None
        return self._partners(averages, variables)

    def _partners(self, partners: Sequence[Any], variables: Sequence[Any]) -> Sequence[Any]:
        """The momentums or averages of these variables."""
        if len(variables) == len(partners) and all(map(operator.is_, variables, self._trainable_variables)):
            return partners
        return [partners[self._get_variable_index(v)] for v in variables]

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[Any]) -> None:
        if self._averaged:
            self._averaged = False
        else:
            super()._update_model_variables_moving_average(trainable_variables)

    # ----- saving and loading -----------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again; a guard is not among them."""
        config = super().get_config()
        config.update(
            acceleration=saving.config_of(self.acceleration),
            n_threads=self.n_threads,
            use_kernel=self.use_kernel,
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SGD:
        """Make an optimizer from what `get_config` returned, or keras.optimizers.SGD's."""
        config = dict(config)
        acceleration = config.pop("acceleration", None)
        if acceleration is not None:
            config["acceleration"] = saving.schedule_of(acceleration, custom_objects)
        made = super().from_config(config, custom_objects)
        made._step.acceleration_at_first = saving.begun_anew(made.acceleration)
        return made

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all variables of the optimizer; none, and a ValueError, where a shape does not fit."""
        if self.built:
            self._check_weights([np.shape(w) for w in weights], "weights")
        super().set_weights(weights)

    def load_own_variables(self, store: Any) -> None:
        """Set all variables from a file; none, and a ValueError, where it holds another model's."""
        if self.built:
            names = [str(i) for i in range(len(store.keys()))]
            self._check_weights([np.shape(store[name]) for name in names], "saved state")
        super().load_own_variables(store)

    def _check_weights(self, shapes: Sequence[tuple[int, ...]], what: str) -> None:
        wanted = [tuple(v.shape) for v in self.variables]
        if list(shapes) != wanted:
            differing = next(
                (i for i, (a, b) in enumerate(zip(shapes, wanted)) if a != b),
                min(len(shapes), len(wanted)),
            )
            raise ValueError(
                f"The {what} has {len(shapes)} arrays and optimizer {self.name} {len(wanted)} variables; "
                f"they differ first at {differing}. It belongs to another model or to other arguments "
                "of SGD (momentum, use_ema, gradient_accumulation_steps). Nothing was set."
            )
