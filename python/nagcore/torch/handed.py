"""Steps that torch takes itself: other devices and dtypes, shared memory, differentiable groups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.sgd import sgd

if TYPE_CHECKING:
    from .sgd import SGD


def wanted(optimizer: SGD) -> bool:
    """Whether a whole step is torch's: a group is differentiable, or a rate requires a gradient."""
    for group in optimizer.param_groups:
        if group["differentiable"]:
            return True
        for name in ("lr", "weight_decay"):
            value = group[name]
            if type(value) is not float and isinstance(value, torch.Tensor) and value.requires_grad:
                return True
    return False


def whole_step(optimizer: SGD, scale: float | None, found: Any) -> None:
    """Every parameter by torch, inside its graph where the groups are differentiable."""
    optimizer._memory.say(
        "a group is differentiable or a rate requires a gradient: torch's own SGD takes the step"
    )
    if found is not None and float(found) != 0.0:
        return
    everything = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(bool(optimizer.defaults["differentiable"]))
    try:
        _step(optimizer, everything, scale, 1.0, None)
    finally:
        torch.set_grad_enabled(before)


def step(
    optimizer: SGD, params: list[torch.Tensor], scale: float | None, clip: float, momentum: Any
) -> None:
    """These parameters by torch, with gradients unscaled and clipped as the others' were."""
    with torch.no_grad():
        _step(optimizer, params, scale, clip, momentum)
        if optimizer.ema_decay is not None:
            for p in params:
                state = optimizer.state[p]
                if "ema" in state:
                    state["ema"].lerp_(p.to(state["ema"].dtype), 1 - optimizer.ema_decay)
                else:
                    state["ema"] = p.detach().clone()


def _step(
    optimizer: SGD, params: list[torch.Tensor], scale: float | None, clip: float, momentum: Any
) -> None:
    chosen = {id(p) for p in params}
    for group in optimizer.param_groups:
        mine = [p for p in group["params"] if id(p) in chosen]
        if not mine:
            continue
        if any(p.grad is not None and p.grad.layout is not torch.strided for p in mine):
            raise RuntimeError(
                "A gradient is sparse; nagcore.torch.SGD reads dense ones. Use sparse=False in the "
                "embedding, or torch.optim.SGD for this parameter."
            )
        grads: list[torch.Tensor] = [p.grad for p in mine]  # type: ignore[misc]
        if scale is not None and scale != 1.0:
            grads = [g / scale for g in grads]
        if clip != 1.0:
            grads = [g * clip for g in grads]
        mu = group["momentum"] if momentum is None else momentum
        buffers = [optimizer.state[p].get("momentum_buffer") if mu != 0 else None for p in mine]
        decay = group["weight_decay"]
        if group["decoupled_weight_decay"] and decay != 0:
            for p in mine:
                p.mul_(1 - group["lr"] * decay)
            decay = 0
        # torch's fused step takes either only first steps or none.
        begun = len({b is None for b in buffers}) <= 1
        fused = bool(group["fused"]) and begun and all(p.device.type != "cpu" for p in mine)
        sgd(
            mine, grads, buffers, foreach=group["foreach"] and not fused, fused=fused,
            has_sparse_grad=False, weight_decay=decay, momentum=mu, lr=group["lr"],
            dampening=group["dampening"], nesterov=group["nesterov"], maximize=group["maximize"],
        )  # fmt: skip
        for p, buffer in zip(mine, buffers):
            if mu != 0:
                optimizer.state[p]["momentum_buffer"] = buffer


def joint_norm(norm: float, others: list[torch.Tensor], scale: float | None) -> float:
    """The norm of the core's gradients and of these together, unscaled; NaN if not finite.

    >>> joint_norm(3.0, [], None)
    3.0
    """
    squares = norm * norm
    for p in others:
        if p.grad is not None:
            squares += float(torch.linalg.vector_norm(p.grad)) ** 2 / (scale or 1.0) ** 2
    return math.sqrt(squares) if math.isfinite(squares) else math.nan
