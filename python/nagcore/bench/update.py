"""The fused update: one long array against a five-stream loop, many small ones against torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _core
from ..update import NesterovPlan, nesterov_step_
from .measure import Effort, check_agreement, race

_RULE: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9}
# Shape of each of 1000 tensors → what the plan and the plain call are to reach against torch.
_SMALL = {(64, 64): (2.5, 1.8), (32, 32): (5.0, 2.7), (256,): (8.0, 3.0)}


def _arrays(count: int, shape: tuple[int, ...]) -> tuple[list[np.ndarray], ...]:
    """Parameters, gradients and momentum buffers, float32."""
    rng = np.random.default_rng(0)
    return tuple(
        [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)] for _ in range(3)
    )


def _check_step(n_threads: int, shape: tuple[int, ...]) -> float:
    """One step of plan and call equals the formula b ← μb + g, θ ← θ − lr(g + μb) in float64."""
    for use_plan in (True, False):
        p, g, b = _arrays(3, shape)
        exact_b = [0.9 * v.astype("f8") + u for v, u in zip(b, g)]
        exact = [t - 1e-3 * (u.astype("f8") + 0.9 * v) for t, u, v in zip(p, g, exact_b)]
        if use_plan:
            NesterovPlan(p, g, b).step(**_RULE, n_threads=n_threads)
        else:
            nesterov_step_(p, g, b, **_RULE, n_threads=n_threads)
        eps = float(np.finfo(np.float32).eps)
        apart = max(
            float(np.max(np.abs(x - e) / (eps * (1 + np.abs(e)))))
            for x, e in zip([*p, *b], [*exact, *exact_b])
        )
        check_agreement(f"update of {shape}, {'plan' if use_plan else 'call'}", apart, 4.0)
    return apart


def run_update(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """One array of 100M elements, then 1000 small tensors as a plan and as a plain call."""
    yield _long_row(effort, n_threads)
    for shape, reach in _SMALL.items():
        yield from _small_rows(shape, reach, effort, n_threads)


def _long_row(effort: Effort, n_threads: int) -> dict[str, Any]:
    n = effort.elements
    error = _check_step(n_threads, (min(n, 100_003),))
    block = np.random.default_rng(0).standard_normal(min(n, 1 << 20), dtype=np.float32)
    p, g, b = (np.resize(block, n) for _ in range(3))
    plan = NesterovPlan([p], [g], [b])
    times = race(
        {
            "stream": lambda: _core.stream_update(p, g, b, n_threads),
            "nagcore": lambda: plan.step(**_RULE, n_threads=n_threads),
        },
        effort,
    )
    moved = 5 * 4 * n  # reads θ, g, b; writes θ, b
    return {
        "section": "update", "kernel": "update, one array", "dtype": "float32", "layout": "C",
        "n": 1, "d": n, "k": 1, "seconds": times["nagcore"], "bytes": moved,
        "gbps": moved / times["nagcore"] / 1e9, "roof": "five-stream loop",
        "roof_gbps": moved / times["stream"] / 1e9,
        "ratio_roof": times.ratio("stream", "nagcore"), "reach_roof": 0.95, "peer": None,
        "peer_seconds": None, "peer_gbps": None, "ratio_peer": None, "reach_peer": None,
        "error": error,
    }  # fmt: skip


def _small_rows(
    shape: tuple[int, ...], reach: tuple[float, float], effort: Effort, n_threads: int
) -> Iterator[dict[str, Any]]:
    count = 1000
    error = _check_step(n_threads, shape)
    p, g, b = _arrays(count, shape)
    plan = NesterovPlan(p, g, b)
    work = {
        "plan": lambda: plan.step(**_RULE, n_threads=n_threads),
        "call": lambda: nesterov_step_(p, g, b, **_RULE, n_threads=n_threads),
    }
    torch_step = _torch_step(count, shape, n_threads)
    if torch_step is not None:
        work["torch"] = torch_step
    times = race(work, effort)
    moved, rival = 5 * 4 * count * int(np.prod(shape)), times.get("torch")
    for way, wanted in zip(("plan", "call"), reach):
        yield {
            "section": "update", "kernel": f"update, {way}", "dtype": "float32", "layout": "C",
            "n": count, "d": int(np.prod(shape)), "k": 1, "seconds": times[way], "bytes": moved,
            "gbps": moved / times[way] / 1e9, "roof": None, "roof_gbps": None, "ratio_roof": None,
            "reach_roof": None, "peer": None if rival is None else "torch SGD(fused=True)",
            "peer_seconds": rival, "peer_gbps": None if rival is None else moved / rival / 1e9,
            "ratio_peer": None if rival is None else times.ratio("torch", way),
            "reach_peer": None if rival is None else wanted, "error": error,
        }  # fmt: skip


def _torch_step(count: int, shape: tuple[int, ...], n_threads: int) -> Any:
    """``step`` of torch's fused SGD on as many tensors, once it has agreed; None without torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(n_threads)
    p, g, b = _arrays(count, shape)
    tensors = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in p]
    for tensor, gradient in zip(tensors, g):
        tensor.grad = torch.from_numpy(gradient)
    options = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "fused": True}
    optimiser = torch.optim.SGD(tensors, **options)
    for step in range(3):
        optimiser.step()
        nesterov_step_(p, g, b, **_RULE, first_step=step == 0, n_threads=n_threads)
    apart = max(float(np.max(np.abs(a - t.detach().numpy()))) for a, t in zip(p, tensors))
    check_agreement(f"torch SGD(fused=True) on {shape}", apart, 1e-6)
    return optimiser.step
