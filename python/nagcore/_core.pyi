from typing import Any

def nesterov_step(
    params: Any,
    grads: Any,
    buffers: Any,
    ema: Any,
    master: Any,
    dtype: Any,
    lr: Any,
    momentum: Any,
    lookahead: Any,
    dampening: Any,
    weight_decay: Any,
    decoupled: Any,
    nesterov: Any,
    maximize: Any,
    convention: Any,
    first_step: Any,
    check_finite: Any,
    grad_scale: Any,
    max_norm: Any,
    ema_decay: Any,
    seed: Any,
    n_threads: Any,
) -> tuple[float, float, bool, int, int]: ...

class NesterovPlan:
    def __init__(
        self, params: Any, grads: Any, buffers: Any, ema: Any, master: Any, dtype: Any
    ) -> None: ...
    @property
    def tensors(self) -> int: ...
    @property
    def elements(self) -> int: ...
    def step(
        self,
        lr: Any,
        momentum: Any,
        lookahead: Any,
        dampening: Any,
        weight_decay: Any,
        decoupled: Any,
        nesterov: Any,
        maximize: Any,
        convention: Any,
        first_step: Any,
        check_finite: Any,
        grad_scale: Any,
        max_norm: Any,
        ema_decay: Any,
        seed: Any,
        n_threads: Any,
    ) -> tuple[float, float, bool, int, int]: ...
