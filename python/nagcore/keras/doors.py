"""The doors between keras's backends and the step on NumPy arrays.

A door says which variables the kernel can update, and updates them: in place where the backend's
memory may be written (numpy, torch on the CPU), with copies where it may not (jax, tensorflow).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
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
    has_rival = False  # a rule of keras's that can be faster
    convention = "keras"  # whose roundings
    # Python floats that keras rounds to float32 on this backend, also beside float64 variables.
    rounded: frozenset[str] = frozenset()
    folds_scales = False  # the compiler multiplies rate and 1 / loss scale before either meets a gradient

    def scalar(self, name: str, value: float) -> float:
        """The value that keras computes with where the argument is this Python float."""
        return float(np.float32(value)) if name in self.rounded else value

    def pays(self, variables: Sequence[Any]) -> bool:
        """Whether a step with momentum over these is faster in the kernel than by keras's rule."""
        return True

    def outside_graphs(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call the function; a backend that traces Python leaves its graph first."""
        function(*arguments)

    def named(self, variable: Any) -> Any:
        """What keras looks at when names are excluded from weight decay."""
        return variable

    def refusal(self, variable: Any, grad: Any) -> str:
        """Why keras's own rule has to update this variable; empty when the kernel can."""
        return "" if variable.dtype in DTYPES else f"its dtype is {variable.dtype}"

    def adopt(self, variables: Sequence[Any]) -> None:
        """Make sure that writing a variable writes nothing else.

        A keras.Variable made from another one shares its array until the first assignment.
        """
        for variable in variables:
            variable.assign(variable.value)

    def ready(self, grads: Sequence[Any], variables: Sequence[Any]) -> Sequence[np.ndarray] | None:
        """The gradients as arrays, if all is as in the last step; None asks for the long way."""
        return None

    def update(self, step: HostStep, update: Update) -> None:
        """Take the step."""
        arrays = self._arrays
        step(
            arrays(update.variables, "variables"),
            None if update.momentums is None else arrays(update.momentums, "momentums"),
            [self._gradient(g, v) for g, v in zip(update.grads, update.variables)],
            lr=float(update.learning_rate),
            step=int(update.iterations) + 1,
            weight_decay=update.weight_decay,
            decayed=update.decayed,
            averages=None if update.averages is None else arrays(update.averages, "averages"),
            ema_momentum=update.ema_momentum,
        )

    def _arrays(self, variables: Sequence[Any], role: str) -> list[np.ndarray]:
        return [v.value for v in variables]

    def _gradient(self, grad: Any, variable: Any) -> np.ndarray:
        return np.asarray(grad, dtype=variable.dtype)


class _Views(NamedTuple):
    """NumPy views of the tensors of some variables, and what they were made of."""

    variables: list[Any]
    tensors: list[Any]
    pointers: list[int]
    arrays: list[np.ndarray]
    shapes: list[tuple[int, ...]]
    dtypes: list[np.dtype]

    def hold(self, variables: Sequence[Any]) -> bool:
        """Whether these are still the variables, the tensors and the storage."""
        return (
            len(variables) == len(self.variables)
            and all(map(operator.is_, variables, self.variables))
            and all(map(operator.is_, map(_tensor, variables), self.tensors))
            and [t.data_ptr() for t in self.tensors] == self.pointers
        )


def _tensor(variable: Any) -> Any:
    """A torch variable's tensor: `value` looks for scopes first, which costs more than the view."""
    return variable._value if hasattr(variable, "_value") else variable.value


class TorchDoor(Door):
    """Tensors on the CPU share their memory with NumPy views, which are kept while storage stays."""

    has_rival = True
    convention = "keras-torch"
    rounded = frozenset({"ema_momentum"})

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._views: dict[str, _Views] = {}

    def pays(self, variables: Sequence[Any]) -> bool:
        # Measured inside fit, where the code of a step is cold: ours then costs some 40 µs more than keras's
        # foreach calls, which cost 2 µs a variable and, beyond the caches, more trips through memory.
        elements = sum(math.prod(v.shape) for v in variables)
        return len(variables) >= 24 or elements >= 1_500_000

    def outside_graphs(self, function: Callable[..., None], *arguments: Any) -> None:
        # Under jit_compile=True torch.compile ends its graph here and begins another one after.
        if self._torch.compiler.is_compiling():
            self._torch.compiler.disable(function)(*arguments)
        else:
            function(*arguments)

    def refusal(self, variable: Any, grad: Any) -> str:
        torch, tensor = self._torch, variable.value
        if tensor.device.type != "cpu" or grad.device.type != "cpu":
            return f"it is on {tensor.device} and its gradient on {grad.device}"
        if type(tensor) not in (torch.nn.Parameter, torch.Tensor) or grad.layout != torch.strided:
            return f"it is a {type(tensor).__name__} with a gradient of layout {grad.layout}"
        return super().refusal(variable, grad)

    def adopt(self, variables: Sequence[Any]) -> None:
        """keras's own rule writes tensors in place as well."""

    def ready(self, grads: Sequence[Any], variables: Sequence[Any]) -> Sequence[np.ndarray] | None:
        views = self._views.get("variables")
        if views is None or not views.hold(variables):
            return None
        try:
            arrays = [g.numpy() for g in grads]
        except (RuntimeError, TypeError):  # it requires a gradient itself, or is not on the CPU
            return None
        if [a.shape for a in arrays] != views.shapes or [a.dtype for a in arrays] != views.dtypes:
            return None
        return arrays

    def update(self, step: HostStep, update: Update) -> None:
        super().update(step, update)
        roles = ["variables"]
        roles += ["momentums"] if update.momentums else []
        roles += ["averages"] if update.averages else []
        # NumPy's writes are unknown to autograd, which has to refuse a graph that saved these.
        written = [tensor for role in roles for tensor in self._views[role].tensors]
        self._torch.autograd.graph.increment_version(written)

    def _arrays(self, variables: Sequence[Any], role: str) -> list[np.ndarray]:
        views = self._views.get(role)
        if views is None or not views.hold(variables):
            tensors = [v.value for v in variables]
            arrays = [t.detach().numpy() for t in tensors]
            views = self._views[role] = _Views(
                list(variables), tensors, [t.data_ptr() for t in tensors], arrays,
                [a.shape for a in arrays], [a.dtype for a in arrays],
            )  # fmt: skip
        return views.arrays

    def _gradient(self, grad: Any, variable: Any) -> np.ndarray:
        if isinstance(grad, np.ndarray):
            return grad
        return grad.detach().to(variable.value.dtype).numpy()


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

    folds_scales = True

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
        # keras's own rule is contracted where XLA compiles it whole, and not where jax runs it op by op.
        if any(isinstance(x, jax.core.Tracer) for x in values):
            settings["convention"] = "keras-jax"
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

    rounded = frozenset({"momentum", "weight_decay"})

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
            [tf.convert_to_tensor(x) for x in (update.learning_rate, update.iterations, True, *values)],
            [x.dtype for x in values[: len(values) - count]],
            stateful=True,
        )
        new = tf.nest.flatten(new)  # one result comes without its list in eager mode
        for variable, value in zip([*update.variables, *(update.momentums or ())], new):
            value.set_shape(variable.shape)
            variable.value.assign(value)


_DOORS = {"numpy": Door, "torch": TorchDoor, "jax": JaxDoor, "tensorflow": TensorFlowDoor}


def open_door() -> Door | None:
    """The door of this process's backend, or None where there is none (openvino)."""
    door = _DOORS.get(keras.backend.backend())
    return None if door is None else door()
