"""All that a compiled model's training depends on, as named arrays, and the process's random numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

__all__ = ["random_state", "set_random_state", "set_state", "state_of"]


def state_of(model: Any) -> dict[str, np.ndarray]:
    """Return copies of the model's variables, seeds included, and of its optimizer's.

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> sorted(state_of(model))
    ['model/0', 'model/1', 'optimizer/0', 'optimizer/1']
    """
    return {name: np.array(keras.ops.convert_to_numpy(v.value)) for name, v in _variables(model)}


def set_state(model: Any, state: Mapping[str, np.ndarray]) -> None:
    """Set what `state_of` returned; ValueError, and nothing is set, where it belongs to another model.

    >>> import keras
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    >>> state = state_of(model)
    >>> state["model/1"] += 1.0
    >>> set_state(model, state)
    >>> model.weights[1].numpy().tolist()
    [1.0, 1.0]
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built and len(state) > len(list(_variables(model))):
        optimizer.build(model.trainable_variables)
    variables = dict(_variables(model))
    for name in [*variables, *state]:
        have = variables[name] if name in variables else None
        got = state.get(name)
        if have is None or got is None or tuple(have.shape) != tuple(got.shape):
            mine = "nothing" if have is None else f"{have.path} of shape {tuple(have.shape)}"
            theirs = "nothing" if got is None else f"an array of shape {tuple(got.shape)}"
            raise ValueError(
                f"The state holds {theirs} for {name}, where the model has {mine}. It was taken from "
                "another model or optimizer; build and compile the model as it was. Nothing was set."
            )
    for name, variable in variables.items():
        variable.assign(state[name])


def _variables(model: Any) -> list[tuple[str, Any]]:
    found = [(f"model/{i}", v) for i, v in enumerate(model.variables)]
    optimizer = getattr(model, "optimizer", None)
    own = [] if optimizer is None else optimizer.variables
    # A compiled model counts metrics and optimizer among its variables in some versions of keras.
    apart = {id(v) for v in [*own, *getattr(model, "metrics_variables", [])]}
    found = [(f"model/{i}", v) for i, (_, v) in enumerate(p for p in found if id(p[1]) not in apart)]
    return [*found, *((f"optimizer/{i}", v) for i, v in enumerate(own))]


def random_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global generators, which `fit` shuffles with.

    >>> state = random_state()
    >>> first = np.random.random()
    >>> set_random_state(state)
    >>> np.random.random() == first
    True
    """
    found: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  (keras draws from it)
    }
    if keras.backend.backend() == "torch":
        import torch

        found["torch"] = torch.get_rng_state().numpy()
    return found


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set the global generators to what `random_state` returned.

    >>> set_random_state(random_state())
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    if "torch" in state and keras.backend.backend() == "torch":
        import torch

        torch.set_rng_state(torch.from_numpy(np.array(state["torch"], np.uint8)))
