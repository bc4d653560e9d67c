"""The doors between keras's backends and the step on NumPy arrays.

A door says which variables the kernel can update, and updates them: in place where the backend's
memory may be written (numpy, torch on the CPU), with copies where it may not (jax, tensorflow).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from .host import HostStep

try:  # keras has no public question for it
    from keras.src.backend.common.stateless_scope import in_stateless_scope
except ImportError:  # pragma: no cover (a keras that has moved it)

    def in_stateless_scope() -> bool:
        return False


__all__ = ["Door", "Update", "in_stateless_scope", "open_door", "plain"]

DTYPES = ("float32", "float64")


def plain(value: Any) -> Any:
    """A keras.Variable's tensor, and everything else as it is."""
    return value.value if isinstance(value, keras.Variable) else value


class Update(NamedTuple):
    """One step as the optimizer hands it over; `averages` only where the door is in place."""

    grads: Sequence[Any]
    variables: Sequence[Any]
    momentums: Sequence[Any] | None
    learning_rate: Any
    iterations: Any  # updates done before this one, a number or a tensor
    taken: Any  # None, or a truth of the backend: jax computes steps that accumulation drops
    weight_decay: float
    decayed: Sequence[bool] | None
    averages: Sequence[Any] | None
    ema_momentum: float | None


class Door:
    """NumPy's own door: variables hold arrays, which are written in place."""

    in_place = True

    def refusal(self, variable: Any, grad: Any) -> str:
        """Why keras's own rule has to update this variable; empty when the kernel can."""
        return "" if variable.dtype in DTYPES else f"its dtype is {variable.dtype}"

    def named(self, variable: Any) -> Any:
        """What keras looks at when names are excluded from weight decay."""
        return variable

    def adopt(self, variables: Sequence[Any]) -> None:
        """Make sure that writing a variable writes nothing else.

        A keras.Variable made from another one shares its array until the first assignment.
        """
        for variable in variables:
            variable.assign(variable.value)

    def update(self, step: HostStep, update: Update) -> None:
        """Take the step."""
        arrays = self._arrays
        step(
            arrays(update.variables),
            None if update.momentums is None else arrays(update.momentums),
            [self._gradient(g, v) for g, v in zip(update.grads, update.variables)],
            lr=float(update.learning_rate),
            step=int(update.iterations) + 1,
            weight_decay=update.weight_decay,
            decayed=update.decayed,
            averages=None if update.averages is None else arrays(update.averages),
            ema_momentum=update.ema_momentum,
        )

    def _arrays(self, variables: Sequence[Any]) -> list[np.ndarray]:
        return [v.value for v in variables]

    def _gradient(self, grad: Any, variable: Any) -> np.ndarray:
        return np.asarray(grad, dtype=variable.dtype)


class TorchDoor(Door):
    """Tensors on the CPU share their memory with NumPy views, which are kept while storage stays."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._views: dict[int, tuple[Any, int, np.ndarray]] = {}

    def refusal(self, variable: Any, grad: Any) -> str:
        torch, tensor = self._torch, variable.value
        if tensor.device.type != "cpu" or grad.device.type != "cpu":
            return f"it is on {tensor.device} and its gradient on {grad.device}"
        if type(tensor) not in (torch.nn.Parameter, torch.Tensor) or grad.layout != torch.strided:
            return f"it is a {type(tensor).__name__} with a gradient of layout {grad.layout}"
        return super().refusal(variable, grad)

    def adopt(self, variables: Sequence[Any]) -> None:
        """keras's own rule writes tensors in place as well."""

    def update(self, step: HostStep, update: Update) -> None:
        # Under jit_compile=True, torch.compile breaks its graph here and goes on after it.
        self._torch.compiler.disable(self._update)(step, update)

    def _update(self, step: HostStep, update: Update) -> None:
        super().update(step, update)
        written = [*update.variables, *(update.momentums or ()), *(update.averages or ())]
        self._torch.autograd.graph.increment_version([v.value for v in written])

    def _arrays(self, variables: Sequence[Any]) -> list[np.ndarray]:
        found, views = [], self._views
        for variable in variables:
            tensor = variable.value
            seen = views.get(id(variable))
            if seen is None or seen[0] is not tensor or seen[1] != tensor.data_ptr():
                seen = views[id(variable)] = (tensor, tensor.data_ptr(), tensor.detach().numpy())
            found.append(seen[2])
        return found

    def _gradient(self, grad: Any, variable: Any) -> np.ndarray:
        grad = grad.detach() if grad.requires_grad else grad
        if grad.dtype != variable.value.dtype:
            grad = grad.to(variable.value.dtype)
        return grad.numpy()


class CopyingDoor(Door):
    """What jax and tensorflow share: the step runs on copies, in a callback of the compiled program."""

    in_place = False

    def adopt(self, variables: Sequence[Any]) -> None:
        """Nothing is written in place."""

    def _on_copies(
        self,
        step: HostStep,
        count: int,
        settings: dict[str, Any],
        lr: Any,
        iterations: Any,
        taken: Any,
        *arrays: Any,
    ) -> list[np.ndarray]:
        """Return the new variables and momentums; `arrays` are those, then the gradients."""
        grads = [np.asarray(g) for g in arrays[len(arrays) - count :]]
        written = [np.array(a) for a in arrays[: len(arrays) - count]]
        if bool(taken):
            step(
                written[:count],
                written[count:] or None,
                grads,
                lr=float(lr),
                step=int(iterations) + 1,
                **settings,
            )
        return written

    def _operands(self, update: Update) -> tuple[list[Any], dict[str, Any]]:
        values = [
            *(v.value for v in update.variables),
            *(m.value for m in update.momentums or ()),
            *(keras.ops.cast(g, v.dtype) for g, v in zip(update.grads, update.variables)),
        ]
        return values, {"weight_decay": update.weight_decay, "decayed": update.decayed}


class JaxDoor(CopyingDoor):
    """jax on the CPU: a callback with copies; io_callback where the step has a memory of its own."""

    def __init__(self) -> None:
        import jax

        self._jax = jax

    def refusal(self, variable: Any, grad: Any) -> str:
        platform = self._jax.default_backend()
        if platform != "cpu":
            return f"jax computes on {platform}"
        if keras.distribution.distribution() is not None:
            return "a keras.distribution is set"
        return super().refusal(variable, grad)

    def update(self, step: HostStep, update: Update) -> None:
        from jax.experimental import io_callback

        jax, count = self._jax, len(update.variables)
        values, settings = self._operands(update)
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in values[: len(values) - count]]
        call = partial(self._on_copies, step, count, settings)
        taken = True if update.taken is None else update.taken
        operands = (update.learning_rate, update.iterations, taken, *values)
        if step.has_memory:
            new = io_callback(call, shapes, *operands, ordered=False)
        else:
            new = jax.pure_callback(call, shapes, *operands, vmap_method="sequential")
        for variable, value in zip([*update.variables, *(update.momentums or ())], new):
            variable.assign(value)


class TensorFlowDoor(CopyingDoor):
    """tensorflow on the CPU: tf.numpy_function with copies, in eager mode and in graphs."""

    def __init__(self) -> None:
        import tensorflow

        self._tf = tensorflow

    def named(self, variable: Any) -> Any:
        return variable.value

    def refusal(self, variable: Any, grad: Any) -> str:
        tf = self._tf
        if isinstance(grad, tf.IndexedSlices):
            return "its gradient is sparse"
        if tf.distribute.has_strategy():
            return "a tf.distribute strategy is set"
        if not isinstance(variable, keras.Variable):
            return "it is no keras.Variable"
        if "GPU" in variable.value.device or "TPU" in variable.value.device:
            return f"it is on {variable.value.device}"
        if self._compiles():
            return "the step is compiled by XLA (jit_compile=True)"
        return super().refusal(variable, grad)

    def _compiles(self) -> bool:
        """Whether this is traced for XLA, which has no callbacks; tensorflow has no public question."""
        if self._tf.executing_eagerly():
            return False
        from tensorflow.python.ops import control_flow_util

        graph = self._tf.compat.v1.get_default_graph()
        return bool(control_flow_util.GraphOrParentsInXlaContext(graph))

    def update(self, step: HostStep, update: Update) -> None:
        tf, count = self._tf, len(update.variables)
        values, settings = self._operands(update)
        call = partial(self._on_copies, step, count, settings)
        new = tf.numpy_function(
            call,
            [update.learning_rate, update.iterations, True, *values],
            [x.dtype for x in values[: len(values) - count]],
            stateful=True,
        )
        for variable, value in zip([*update.variables, *(update.momentums or ())], new):
            value.set_shape(variable.shape)
            variable.value.assign(value)


_DOORS = {"numpy": Door, "torch": TorchDoor, "jax": JaxDoor, "tensorflow": TensorFlowDoor}


def open_door() -> Door | None:
    """The door of this process's backend, or None where there is none (openvino)."""
    door = _DOORS.get(keras.backend.backend())
    return None if door is None else door()
