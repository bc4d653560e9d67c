"""Model, optimizer and random state as a flat dict of arrays, and back to the same bits."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["load_state_arrays", "state_arrays"]

_VERSION = 1
_FORMAT = "nagcore/format"
# NumPy has no bfloat16: its bits travel as uint16, and the format entry names the type.
_BITS = {torch.bfloat16: torch.uint16}


def state_arrays(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    scheduler: Any = None,
    generators: Sequence[torch.Generator] = (),
) -> dict[str, np.ndarray]:
    """All that a training run needs to go on to the same bits, as a flat dict of copied arrays.

    Parameters, buffers, momentum, the groups' numbers, torch's CPU generator, NumPy's and Python's
    global ones. Made for ``nagcore.callbacks.Checkpoint``, which stores arrays and no pickles.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer, optional
        `nagcore.torch.SGD` or any whose state is tensors and numbers.
    scheduler : optional
        A learning-rate scheduler whose ``state_dict()`` holds numbers, strings and lists.
    generators : sequence of torch.Generator
        More generators, such as the one given to a DataLoader for its order.

    Returns
    -------
    dict of str to ndarray
        Keys ``model/…``, ``optimizer/…``, ``rng/…`` and ``nagcore/format``, which is JSON in bytes.

    Raises
    ------
    TypeError
        State that is neither tensor nor number, and would need a pickle.

    Examples
    --------
    >>> import torch
    >>> from nagcore.torch import SGD, load_state_arrays, state_arrays
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> kept = state_arrays(model, optimizer)
    >>> with torch.no_grad():
    ...     model.weight.zero_()
    Parameter containing:
    tensor([[0., 0.]], requires_grad=True)
    >>> load_state_arrays(kept, model, optimizer)
    >>> bool(model.weight.ne(0).any())
    True
    """
    arrays: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}

    def put(key: str, tensor: torch.Tensor) -> None:
        dtypes[key] = str(tensor.dtype).removeprefix("torch.")
        plain = tensor.detach().to("cpu", copy=True).resolve_conj().resolve_neg().contiguous()
        arrays[key] = plain.view(_BITS.get(plain.dtype, plain.dtype)).numpy()

    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f'model state "{name}" is {type(value).__name__}; arrays are needed.')
        put(f"model/{name}", value)
    format_: dict[str, Any] = {"version": _VERSION, "dtypes": dtypes}
    if optimizer is not None:
        state = optimizer.state_dict()
        scalars: dict[str, Any] = {}
        for index, entries in state["state"].items():
            for name, value in entries.items():
                if isinstance(value, torch.Tensor):
                    put(f"optimizer/{index}/{name}", value)
                else:
                    scalars.setdefault(str(index), {})[name] = _plain(value, f"state {name}")
        format_["optimizer"] = {
            "class": type(optimizer).__name__,
            "scalars": scalars,
            "groups": [_plain(group, "group") for group in state["param_groups"]],
            "nagcore": _plain(state.get("nagcore"), "nagcore"),
        }
    if scheduler is not None:
        format_["scheduler"] = _plain(scheduler.state_dict(), "scheduler")
    arrays["rng/torch"] = torch.get_rng_state().numpy()
    for i, generator in enumerate(generators):
        arrays[f"rng/generator/{i}"] = generator.get_state().numpy()
    format_["rng"] = _keep_rng(arrays)
    arrays[_FORMAT] = np.frombuffer(json.dumps(format_).encode(), dtype=np.uint8).copy()
    return arrays


def load_state_arrays(
    arrays: Mapping[str, np.ndarray],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    scheduler: Any = None,
    generators: Sequence[torch.Generator] = (),
) -> None:
    """Write what `state_arrays` returned into model, optimizer and generators.

    Everything is checked before anything is written. Afterwards the run goes on to the same bits as
    the one that was kept.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    model, optimizer, scheduler, generators
        As for `state_arrays`; what is None or empty is left alone.

    Raises
    ------
    ValueError
        Arrays of another model or version, an entry that is missing, of another shape or dtype.

    Examples
    --------
    >>> import torch
    >>> from nagcore.torch import load_state_arrays, state_arrays
    >>> load_state_arrays(state_arrays(torch.nn.Linear(2, 1)), torch.nn.Linear(3, 1))
    Traceback (most recent call last):
        ...
    ValueError: model/weight has shape (1, 2), and this model's is (1, 3). Load it into the same model.
    """
    format_ = _read_format(arrays)
    loaded = {
        key: _tensor(arrays, key, dtype)
        for key, dtype in format_["dtypes"].items()
    }  # fmt: skip
    weights = _weights(loaded, model)
    state = _optimizer_state(loaded, format_, optimizer) if optimizer is not None else None
    if scheduler is not None and "scheduler" not in format_:
        raise ValueError("The arrays hold no scheduler; pass scheduler to state_arrays as well.")
    random_state = _read_rng(arrays, format_, len(generators))
    if optimizer is not None:
        optimizer.load_state_dict(state)  # type: ignore[arg-type]
    model.load_state_dict(weights)
    if scheduler is not None:
        scheduler.load_state_dict(_tensors_again(format_["scheduler"]))
    torch.set_rng_state(random_state["torch"])
    for generator, kept in zip(generators, random_state["generators"]):
        generator.set_state(kept)
    random.setstate(random_state["python"])
    np.random.set_state(random_state["numpy"])  # noqa: NPY002


def _read_format(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    try:
        format_ = json.loads(np.asarray(arrays[_FORMAT], dtype=np.uint8).tobytes())
        version = format_["version"]
        complete = isinstance(format_["dtypes"], dict) and isinstance(format_["rng"], dict)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'These arrays have no readable "{_FORMAT}" entry ({type(error).__name__}); pass what '
            "state_arrays returned, all of it."
        ) from None
    if version != _VERSION or not complete:
        raise ValueError(f"The arrays are of version {version}; this nagcore reads {_VERSION}.")
    return format_


def _tensor(arrays: Mapping[str, np.ndarray], key: str, dtype: str) -> torch.Tensor:
    if key not in arrays:
        raise ValueError(f'"{key}" is missing from the arrays; pass all that state_arrays returned.')
    wanted = getattr(torch, dtype, None)
    if not isinstance(wanted, torch.dtype):
        raise ValueError(f'"{key}" is of dtype "{dtype}", which this torch does not have.')
    array = np.array(arrays[key], copy=True)
    stored = torch.zeros((), dtype=_BITS.get(wanted, wanted)).numpy().dtype
    if array.dtype != stored:
        raise ValueError(f'"{key}" has dtype {array.dtype}; {stored} was stored.')
    return torch.from_numpy(array).view(wanted)


def _weights(loaded: Mapping[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    weights = {k.removeprefix("model/"): v for k, v in loaded.items() if k.startswith("model/")}
    own = model.state_dict()
    if set(weights) != set(own):
        odd = sorted(set(weights) ^ set(own))[0]
        where = "the arrays" if odd in weights else "this model"
        raise ValueError(f"model/{odd} is in {where} only. Load it into the same model.")
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f"model/{name} has shape {tuple(value.shape)}, and this model's is "
                f"{tuple(own[name].shape)}. Load it into the same model."
            )
        if value.dtype != own[name].dtype:
            raise ValueError(
                f"model/{name} has {value.dtype}, and this model {own[name].dtype}. Use "
                f"model.to({value.dtype})."
            )
    return weights


def _optimizer_state(
    loaded: Mapping[str, torch.Tensor], format_: Mapping[str, Any], optimizer: Any
) -> dict[str, Any]:
    kept = format_.get("optimizer")
    if kept is None:
        raise ValueError("The arrays hold no optimizer; pass optimizer to state_arrays as well.")
    state: dict[int, dict[str, Any]] = {}
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in loaded.items():
        if not key.startswith("optimizer/"):
            continue
        _, index, name = key.split("/", 2)
        place = int(index)
        if place >= len(params) or (value.ndim and value.shape != params[place].shape):
            raise ValueError(
                f"{key} has shape {tuple(value.shape)}, and this optimizer has no parameter "
                f"{place} of that shape. Load it into an optimizer of the same model."
            )
        state.setdefault(place, {})[name] = value
    for index, entries in kept["scalars"].items():
        state.setdefault(int(index), {}).update(_tensors_again(entries))
    groups = [_tensors_again(group) for group in kept["groups"]]
    ours = [len(group["params"]) for group in optimizer.param_groups]
    if [len(group["params"]) for group in groups] != ours:
        raise ValueError(
            f"The arrays hold groups of {[len(g['params']) for g in groups]} parameters, and this "
            f"optimizer has {ours}. Load it into an optimizer with the same groups."
        )
    found = {"state": state, "param_groups": groups}
    more = _tensors_again(kept["nagcore"])
    return found if more is None else {**found, "nagcore": more}


# ----- numbers in JSON ------------------------------------------------------------------------


def _plain(value: Any, what: str) -> Any:
    """JSON for numbers, strings, lists, dicts and one-element tensors; a TypeError for the rest."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return {"tensor": value.item(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"entries": [[_plain(k, what), _plain(v, what)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_plain(v, what) for v in value]
    raise TypeError(
        f"{what} holds {type(value).__name__}, which needs a pickle; state_arrays keeps tensors, "
        "numbers, strings, lists and dicts. Leave it out, and restore it by hand."
    )


def _tensors_again(value: Any) -> Any:
    if isinstance(value, list):
        return [_tensors_again(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if "float" in value:
        return float(value["float"])
    if "entries" in value:
        return {_tensors_again(k): _tensors_again(v) for k, v in value["entries"]}
    return {k: _tensors_again(v) for k, v in value.items()}


# ----- generators -----------------------------------------------------------------------------


def _keep_rng(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    version, words, gauss = random.getstate()
    arrays["rng/python"] = np.array(words, dtype=np.uint64)
    name, keys, place, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    arrays["rng/numpy"] = np.array(keys, dtype=np.uint32)
    return {
        "python": [version, gauss],
        "numpy": [name, int(place), int(has_gauss), float(cached)],
    }


def _read_rng(
    arrays: Mapping[str, np.ndarray], format_: Mapping[str, Any], generators: int
) -> dict[str, Any]:
    def taken(key: str) -> Iterator[np.ndarray]:
        if key not in arrays:
            raise ValueError(
                f'"{key}" is missing from the arrays; pass all that state_arrays returned, and as '
                "many generators."
            )
        yield np.array(arrays[key], copy=True)

    version, gauss = format_["rng"]["python"]
    name, place, has_gauss, cached = format_["rng"]["numpy"]
    return {
        "torch": torch.from_numpy(next(taken("rng/torch"))),
        "generators": [
            torch.from_numpy(next(taken(f"rng/generator/{i}"))) for i in range(generators)
        ],
        "python": (version, tuple(int(w) for w in next(taken("rng/python"))), gauss),
        "numpy": (name, next(taken("rng/numpy")), place, has_gauss, cached),
    }
