"""A GradScaler that leaves the search for infinities to the step's own trip."""

from __future__ import annotations

from typing import Any

import torch

from .memory import readable
from .sgd import SGD

__all__ = ["GradScaler"]


class GradScaler(torch.amp.GradScaler):
    """torch.amp.GradScaler that reads the gradients of a `nagcore.torch.SGD` once less.

    torch's own scaler works with `SGD` as well: before each step it reads and writes every gradient
    to look for infinities. Here the step itself looks, in the read that clipping needs anyway, and
    tells the scaler. Anything else, other optimizers and other devices included, is torch's scaler
    unchanged.

    Parameters
    ----------
    device : str
        As in torch; "cpu" here by default.
    init_scale, growth_factor, backoff_factor, growth_interval, enabled
        As in torch.

    Examples
    --------
    >>> import torch
    >>> import nagcore.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = nagcore.torch.SGD([w], lr=0.5, momentum=0.9)
    >>> scaler = nagcore.torch.GradScaler(init_scale=1024.0)
    >>> scaler.scale(w.square().sum()).backward()
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w.tolist(), optimizer.last_report.found_inf
    ([0.0, 0.0], False)
    """

    def __init__(self, device: str = "cpu", *args: Any, **kwargs: Any) -> None:
        super().__init__(device, *args, **kwargs)

    def _check_inf_per_device(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        # Called by torch's step where the optimizer scales for itself. _per_optimizer_states is
        # where update() looks afterwards.
        if not isinstance(optimizer, SGD) or not _all_readable(optimizer):
            return super()._check_inf_per_device(optimizer)
        found = torch.zeros((), dtype=torch.float32)
        optimizer._pending = found
        self._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = {found.device: found}
        return self._per_optimizer_states[id(optimizer)]["found_inf_per_device"]


def _all_readable(optimizer: SGD) -> bool:
    params = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    return bool(params) and all(readable(p) for p in params)
