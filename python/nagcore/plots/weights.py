"""Reading and writing the trainable weights of a torch model, a keras model, or a list of arrays.

Neither library is imported here: a model that exists has brought its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


def _is_keras(model: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def _is_torch(model: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _kind(model: Any) -> str:
    if _is_keras(model):  # first: on its torch backend, keras's models are torch's modules, too
        return "keras"
    if _is_torch(model):
        return "torch"
    if isinstance(model, (list, tuple)) and model:
        if all(isinstance(w, np.ndarray) and w.dtype.kind == "f" for w in model):
            return "arrays"
    raise TypeError(
        f"model is {type(model).__name__}; a torch.nn.Module, a keras.Model, or a list of floating "
        "NumPy arrays that the loss reads is taken."
    )


def filter_axis(model: Any) -> int:
    """The axis of a weight that counts filters: the first in torch, the last elsewhere.

    >>> filter_axis([np.zeros((3, 2))])
    -1
    """
    return 0 if _kind(model) == "torch" else -1


def snapshot(model: Any) -> list[np.ndarray]:
    """Copy the trainable weights of a model, as a training loop does after each epoch.

    Parameters
    ----------
    model : torch.nn.Module, keras.Model, or list of ndarray

    Returns
    -------
    list of ndarray
        Copies in the model's order, shapes kept, float64 for float64 weights and float32 else.

    Raises
    ------
    TypeError
        Something else.
    ValueError
        A model without trainable weights, such as a keras model that is not built yet.

    Examples
    --------
    >>> weights = [np.zeros((2, 3)), np.ones(3)]
    >>> copy = snapshot(weights)
    >>> weights[1][:] = 7
    >>> copy[1]
    array([1., 1., 1.])
    """
    kind = _kind(model)
    if kind == "keras":
        found = [_as_numpy(v.value) for v in model.trainable_variables]
    elif kind == "torch":
        found = [_as_numpy(p) for p in model.parameters() if p.requires_grad]
    else:
        found = [np.array(w, np.float64 if w.dtype.itemsize > 4 else np.float32) for w in model]
    if not found:
        raise ValueError(
            "The model has no trainable weights. A keras model has them once it is built: call it "
            "on one batch."
        )
    return found


def _as_numpy(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):  # torch's, on any device and in any dtype
        tensor = tensor.detach().cpu()
        return (tensor.double() if tensor.element_size() > 4 else tensor.float()).numpy().copy()
    array = np.asarray(tensor)
    return np.array(array, np.float64 if array.dtype.itemsize > 4 else np.float32)


def _assign(model: Any, weights: Sequence[np.ndarray]) -> None:
    kind = _kind(model)
    if kind == "keras":
        for variable, value in zip(model.trainable_variables, weights):
            variable.assign(value)
    elif kind == "torch":
        torch = sys.modules["torch"]
        with torch.no_grad():
            trainable = [p for p in model.parameters() if p.requires_grad]
            for parameter, value in zip(trainable, weights):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    else:
        for array, value in zip(model, weights):
            array[...] = value


@contextmanager
def borrowed(model: Any) -> Iterator[Any]:
    """Yield a function that writes weights into the model; put everything back at the end.

    Weights, and the training mode of each torch module, return on errors and Ctrl-C too. In
    between, torch modules are in evaluation mode and no gradients are kept.
    """
    before = snapshot(model)
    modes: list[tuple[Any, bool]] = []
    torch = sys.modules.get("torch")
    try:
        if _kind(model) == "torch":
            modes = [(module, module.training) for module in model.modules()]
            model.eval()
        if torch is not None:
            with torch.no_grad():
                yield lambda weights: _assign(model, weights)
        else:
            yield lambda weights: _assign(model, weights)
    finally:
        _assign(model, before)
        for module, training in modes:
            module.training = training
