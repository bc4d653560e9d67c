"""What a step stands on: the plan of the tensors' places, the state beside them, and its loading."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .. import _core

if TYPE_CHECKING:
    from .sgd import SGD

# Whether module.to() swaps tensors in place of their data: it refuses any that a weak reference points at.
_swapping = torch.__future__.get_swap_module_params_on_conversion

_READ = {
    torch.float32: (2, 32), torch.float64: (2, 64), torch.float16: (2, 16),
    torch.bfloat16: (4, 16), torch.complex64: (5, 64), torch.complex128: (5, 128),
}  # fmt: skip
_HALF = (torch.bfloat16, torch.float16)
_WRITTEN_FIRST = ("momentum_buffer", "ema")  # unwritten until a parameter's first step
_STATE = (*_WRITTEN_FIRST, "master")
with torch.inference_mode(False):  # whatever mode and default device this is imported in
    _NO_MEMORY = torch.empty(0, device="cpu")


def describe(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """Address, DLPack type code and bits, shape and strides; None where there is no memory here.

    >>> describe(torch.zeros(2, 3))[1:]
    (2, 32, (2, 3), (3, 1))
    """
    if not readable(tensor):
        return None
    code, bits = _READ[tensor.dtype]
    return tensor.data_ptr(), code, bits, tuple(tensor.shape), tuple(tensor.stride())


def readable(tensor: torch.Tensor) -> bool:
    """Whether the core can read a tensor where it lies.

    >>> readable(torch.zeros(2)), readable(torch.zeros(2, device="meta"))
    (True, False)
    """
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return plain and tensor.dtype in _READ


def counter(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without memory that shares another's version counter; that one where it must tell itself.

    To count a write there is to count it for both, and it may be held where a parameter may not.

    >>> p = torch.nn.Parameter(torch.ones(3))
    >>> torch.autograd.graph.increment_version(counter(p))
    >>> p._version, counter(p).numel()
    (1, 0)
    """
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_inference():
        return tensor
    with torch.inference_mode(False):  # in it, what is detached counts for itself
        shared = tensor.detach()
        shared.data = _NO_MEMORY
    return shared


class PageReport(NamedTuple):
    """Bytes of an optimizer's large tensors, by what became of them.

    >>> PageReport(moved=1 << 24, waiting=0, refused=0).moved
    16777216
    """

    moved: int
    """In large pages of memory by now."""
    waiting: int
    """To be moved by steps that follow."""
    refused: int
    """Left where they lie, as the system refused."""


class Memory:
    """The tensors of one optimizer as the core sees them, and the state that goes with them."""

    def __init__(self, optimizer: SGD) -> None:
        self.optimizer = optimizer
        self.plan = self._new_plan()
        self.handed_over: dict[int, torch.Tensor] = {}
        self._said: set[str] = set()

    def _new_plan(self) -> _core.TensorPlan:
        exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)  # torch ≥ 2.10
        return _core.TensorPlan(exchange, describe, counter, self.optimizer.large_pages)

    def parameters(self) -> list[torch.Tensor]:
        """Every parameter, in the order in which the plan counts places."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    # ----- gathering ----------------------------------------------------------------------------

    def gather(self, momentum: float | None, lookahead: float | None) -> list[int]:
        """Make the plan ready for a step; the places whose state was made for it."""
        o = self.optimizer
        if self.handed_over:
            self._take_back()
        first: list[int] = []
        try:
            # State is made, a lazy mark carried out, a parameter handed over: each at most once.
            for _ in range(6):
                troubles = self.plan.gather(
                    o.param_groups, o.state, momentum, lookahead,
                    o.ema_decay is not None, o.master_weights, not _swapping(),
                )  # fmt: skip
                if not troubles:
                    return first
                self._answer(troubles, first, momentum is not None)
        except BaseException:
            self.forget(first)
            self.plan.release()
            raise
        raise RuntimeError("The parameters change while they are read: step from one thread only.")

    def _answer(self, troubles: list[Any], first: list[int], scheduled: bool) -> None:
        flat = self.parameters()
        # Refusals before anything is made.
        for place, reason in troubles:
            if reason != "state":
                self._look_at(place, flat[place], reason)
        for place, reason in troubles:
            if reason == "state" and place not in self.handed_over:
                if place in first:
                    raise RuntimeError(f"The state of parameter {place} cannot be read.")
                self._make_state(place, flat[place], first, scheduled)

    def _look_at(self, place: int, p: torch.Tensor, reason: str) -> None:
        g = p.grad
        if g is None:
            return
        named = f"parameter {place} (shape {tuple(p.shape)}, {p.dtype})"
        if g.layout is not torch.strided:
            raise RuntimeError(
                f"{named} has a gradient of layout {g.layout}; nagcore.torch.SGD reads dense ones. "
                "Use sparse=False in the embedding, p.grad = p.grad.to_dense(), or "
                "torch.optim.SGD for this parameter."
            )
        if reason == "lazy":
            p.grad = g.resolve_conj().resolve_neg()
        elif not readable(p):
            self._hand_over(place, p, f"{p.dtype} on {p.device}")
        elif reason == "overlap" or p.is_neg() or p.is_conj():
            self._hand_over(place, p, "memory that is shared, expanded or misaligned")
        elif g.device != p.device or g.dtype != p.dtype or g.shape != p.shape:
            self._check_gradient(named, p, g)
            self._check_state(place, p)
        else:
            self._check_state(place, p)

    @staticmethod
    def _check_gradient(named: str, p: torch.Tensor, g: torch.Tensor) -> None:
        if g.device != p.device:
            what, fix = f"on {g.device}", f'p.grad = p.grad.to("{p.device}")'
        elif g.shape != p.shape:
            what, fix = f"of shape {tuple(g.shape)}", "p.grad = p.grad.reshape(p.shape)"
        elif p.dtype in _HALF and g.dtype is torch.float32:
            return
        else:
            what, fix = f"of {g.dtype}", "p.grad = p.grad.to(p.dtype)"
        raise ValueError(f"{named} has a gradient {what}; they must agree. Use {fix}.")

    def _check_state(self, place: int, p: torch.Tensor) -> None:
        """The state's own faults, once parameter and gradient have none."""
        for key in _STATE:
            value = self.optimizer.state.get(p, {}).get(key)
            if value is None:
                continue
            wanted = self._dtype_of(p, key)
            if value.shape != p.shape or value.device != p.device:
                raise ValueError(
                    f'state[{place}]["{key}"] has shape {tuple(value.shape)} on {value.device}; '
                    f"the parameter has {tuple(p.shape)} on {p.device}. Delete the entry, or load "
                    "the state_dict of this model."
                )
            if value.dtype is not wanted:
                self.optimizer.state[p][key] = value.to(wanted)

    # ----- state --------------------------------------------------------------------------------

    def _dtype_of(self, p: torch.Tensor, key: str) -> torch.dtype:
        if key == "momentum_buffer" and self.optimizer.state_dtype is torch.bfloat16:
            if p.dtype in (torch.float32, *_HALF):
                return torch.bfloat16
        return torch.float32 if p.dtype in _HALF else p.dtype

    def _make_state(self, place: int, p: torch.Tensor, first: list[int], scheduled: bool) -> None:
        o, state = self.optimizer, self.optimizer.state[p]
        self._check_state(place, p)
        group = next(g for g in o.param_groups if any(q is p for q in g["params"]))
        averaged, began = o.ema_decay is not None, "ema" in state
        buffered = scheduled or group["momentum"] != 0
        goes_on = buffered and state.get("momentum_buffer") is not None
        if buffered and not goes_on:
            buffer = _room_like(p, self._dtype_of(p, "momentum_buffer"), o.large_pages)
            # Beside a moving average that goes on, no first step can be marked: from zero the
            # buffer becomes g just as well where there is no dampening.
            state["momentum_buffer"] = buffer.zero_() if began else buffer
        if averaged and not began:
            # On a first step it is written without being read; beside momentum that goes on it
            # starts where the parameter stands.
            average = _room_like(p, self._dtype_of(p, "ema"), o.large_pages)
            state["ema"] = average.copy_(p.detach()) if goes_on else average
        if not began and not goes_on and (buffered or averaged):
            first.append(place)
        if o.master_weights and p.dtype in _HALF and state.get("master") is None:
            master = _room_like(p, torch.float32, o.large_pages)
            state["master"] = master.copy_(p.detach())

    def forget(self, first: list[int]) -> None:
        """Remove the state that was made for a step which was not taken."""
        if not first:
            return
        flat = self.parameters()
        for place in first:
            state = self.optimizer.state[flat[place]]
            for key in _WRITTEN_FIRST:
                state.pop(key, None)
            if not state:
                del self.optimizer.state[flat[place]]
        first.clear()

    # ----- what torch steps ---------------------------------------------------------------------

    def _hand_over(self, place: int, p: torch.Tensor, why: str) -> None:
        o = self.optimizer
        lacks = [
            name
            for name, used in (
                ("state_dtype", o.state_dtype is torch.bfloat16),
                ("acceleration", o.acceleration is not None and o.acceleration.adaptive),
            )
            if used
        ]
        if lacks:
            raise ValueError(
                f"parameter {place} has {why}; torch would step it, which knows nothing of "
                f"{', '.join(lacks)}. Leave that out, or give the parameter its own optimizer."
            )
        self.plan.hand_over(place)
        self.handed_over[place] = p
        self.say(f"{why}: torch's own SGD steps these parameters")

    def say(self, what: str) -> None:
        """Warn, once for each wording."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"nagcore.torch.SGD: {what}.", UserWarning, stacklevel=6)

    def _take_back(self) -> None:
        """A parameter that has moved, as model.cpu() moves one, is read anew."""
        flat = self.parameters()
        for place, p in self.handed_over.items():
            if place >= len(flat) or flat[place] is not p or readable(p):
                self.plan, self.handed_over = self._new_plan(), {}
                return

    def others(self) -> list[torch.Tensor]:
        """Parameters with a gradient that torch steps."""
        return [p for p in self.handed_over.values() if p.grad is not None]

    # ----- going back ---------------------------------------------------------------------------

    def keep_for(self, guard: Any, first: list[int]) -> None:
        """Hand the guard a copy of parameters and state, every ``window`` steps.

        Buffers of the places in ``first`` are made for this very step and not written yet: they
        are left out, and a step after going back makes them again.
        """
        o = self.optimizer
        if guard.last_good is not None and o._taken % guard.window:
            return
        unwritten = set(first)
        guard.remember(
            [
                (
                    p.detach().clone(),
                    {
                        k: _copied(v)
                        for k, v in o.state.get(p, {}).items()
                        if place not in unwritten or k not in _WRITTEN_FIRST
                    },
                )
                for place, p in enumerate(self.parameters())
            ]
        )

    def go_back(self, good: Any) -> None:
        """Write parameters and state as the guard remembers them."""
        with torch.no_grad():
            for p, (value, state) in zip(self.parameters(), good):
                p.copy_(value)
                if state:
                    self.optimizer.state[p] = {k: _copied(v) for k, v in state.items()}
                else:
                    self.optimizer.state.pop(p, None)

    # ----- loading ------------------------------------------------------------------------------

    def load(self, state_dict: dict[str, Any], base: Callable[[Any], None]) -> None:
        """torch's load_state_dict between our check and our casts."""
        o, seen = self.optimizer, {}

        def check(_: Any, given: dict[str, Any]) -> None:  # after every other hook, before torch
            self._check_loaded(given)
            seen.update(given)

        def cast(_: Any) -> None:
            saved = itertools.chain.from_iterable(g["params"] for g in seen["param_groups"])
            for key, p in zip(saved, self.parameters()):
                for name, value in seen["state"].get(key, {}).items():
                    if name in _STATE and isinstance(value, torch.Tensor):
                        kept = value.detach().to(p.device, self._dtype_of(p, name), copy=True)
                        o.state[p][name] = kept

        handles = (
            o.register_load_state_dict_pre_hook(check),
            o.register_load_state_dict_post_hook(cast, prepend=True),
        )
        try:
            base(state_dict)
        finally:
            for handle in handles:
                handle.remove()
        more = seen.get("nagcore", {})
        o._taken = int(more.get("steps", 0))
        for name in ("acceleration", "guard"):
            if name in more and getattr(o, name) is not None:
                getattr(o, name).load_state_dict(more[name])

    def _check_loaded(self, given: dict[str, Any]) -> None:
        groups = self.optimizer.param_groups
        ours, theirs = ([len(g["params"]) for g in gs] for gs in (groups, given["param_groups"]))
        if ours != theirs:
            raise ValueError(
                "loaded state dict has a different number of parameter groups, or contains a "
                f"parameter group that doesn't match the size of optimizer's group: {theirs} "
                f"parameters by group, and this optimizer has {ours}. Load the state of this model."
            )
        version = given.get("nagcore", {}).get("version", 1)
        if version != 1:
            raise ValueError(f"The state is of version {version}; this nagcore reads version 1.")
        saved = itertools.chain.from_iterable(g["params"] for g in given["param_groups"])
        for place, (key, p) in enumerate(zip(saved, self.parameters())):
            for name, value in given["state"].get(key, {}).items():
                if name in _STATE and value is not None and value.shape != p.shape:
                    raise ValueError(
                        f'The state\'s "{name}" of parameter {place} has shape '
                        f"{tuple(value.shape)}; the parameter has {tuple(p.shape)}. Load the state "
                        "of this model."
                    )


def _room_like(p: torch.Tensor, dtype: torch.dtype, large_pages: bool) -> torch.Tensor:
    """Memory for a state of this parameter, unwritten, and in large pages where the system gives them."""
    room = torch.empty_like(p, dtype=dtype).detach()
    if large_pages:
        _core.advise_large_pages(room.data_ptr(), room.numel() * room.element_size())
    return room


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
