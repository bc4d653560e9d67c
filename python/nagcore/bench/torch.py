"""``nagcore bench torch``: nagcore.torch.SGD against torch's fused SGD, step for step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import _core
from .._extras import require
from .measure import Effort, Times, check_agreement, race

_RULE: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "nesterov": True}
_PEER = "torch SGD(fused=True)"
Shapes = Sequence[tuple[int, ...]]
# From so many elements on a step waits for memory, whose speed others may share: three times the
# rounds, of which quarters lie a tenth apart.
_LONG_STEP = 10_000_000


def gpt2_shapes(width: int = 768, depth: int = 12, words: int = 50257) -> list[tuple[int, ...]]:
    """The 148 parameters of GPT-2 (124M), in the model's order.

    >>> shapes = gpt2_shapes()
    >>> len(shapes), sum(int(np.prod(s)) for s in shapes)
    (148, 124439808)
    """
    d = width
    block: list[tuple[int, ...]] = [
        (d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,),
        (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,),
    ]  # fmt: skip
    return [(words, d), (1024, d), *(block * depth), (d,), (d,)]


def resnet50_shapes(width: int = 64) -> list[tuple[int, ...]]:
    """The 161 parameters of ResNet-50 (25.6M), in the model's order.

    >>> shapes = resnet50_shapes()
    >>> len(shapes), sum(int(np.prod(s)) for s in shapes)
    (161, 25557032)
    """
    shapes: list[tuple[int, ...]] = [(width, 3, 7, 7), (width,), (width,)]
    inside = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        w = width << stage
        for block in range(blocks):
            convolutions = [(w, inside, 1, 1), (w, w, 3, 3), (4 * w, w, 1, 1)]
            if block == 0:
                convolutions.append((4 * w, inside, 1, 1))
            for shape in convolutions:
                shapes += [shape, shape[:1], shape[:1]]
            inside = 4 * w
    return [*shapes, (1000, inside), (1000,)]


def mlp_shapes() -> list[tuple[int, ...]]:
    """A multilayer perceptron of 99 530 parameters.

    >>> sum(int(np.prod(s)) for s in mlp_shapes())
    99530
    """
    widths = [64, 256, 256, 64, 10]
    return [s for a, b in itertools.pairwise(widths) for s in ((b, a), (b,))]


def run_torch(effort: Effort, n_threads: int) -> Iterator[dict[str, Any]]:
    """The rows, in the order of docs/deep-learning.md."""
    torch = require("torch", "torch", "nagcore bench torch")
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    big = min(1.0, effort.elements / 100_000_000)
    # Quick: the same lists, narrower.
    gpt2 = gpt2_shapes() if big == 1.0 else gpt2_shapes(32, 12, 512)
    resnet = resnet50_shapes() if big == 1.0 else resnet50_shapes(8)
    lists: list[tuple[str, Shapes, float | None, float]] = [
        ("one tensor", [(effort.elements,)], 0.95, 1.0),
        ("GPT-2", gpt2, 0.95, 1.0),
        ("1000 of 64×64", [(64, 64)] * 1000, None, 1.8),
        ("1000 of 32×32", [(32, 32)] * 1000, None, 3.0),
        ("1000 of 256", [(256,)] * 1000, None, 4.0),
        ("100k MLP", mlp_shapes(), None, 1.3),
        ("ResNet-50", resnet, None, 1.1),
    ]
    try:
        for name, shapes, reach_roof, reach_peer in lists:
            yield _step_row(torch, name, shapes, reach_roof, reach_peer, effort, n_threads)
        yield _sequence_row(torch, gpt2, effort, n_threads)
        yield _bfloat16_row(torch, gpt2, effort, n_threads)
        for count in (161, 1000):
            yield _overhead_row(torch, count, effort, n_threads)
    finally:
        torch.set_num_threads(before)


def _rounds(effort: Effort, shapes: Shapes) -> Effort:
    long = sum(int(np.prod(s)) for s in shapes) >= _LONG_STEP
    return replace(effort, rounds=3 * effort.rounds) if long else effort


def _parameters(torch: Any, shapes: Shapes, copies: int = 1) -> list[list[Any]]:
    """Lists of equal parameters with gradients; the lists share the gradients, which are only read."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(1 << 20, generator=generator)

    def filled(shape: tuple[int, ...]) -> Any:
        n = int(np.prod(shape))
        long = block if n <= block.numel() else block.repeat(-(-n // block.numel()))
        return long[:n].reshape(shape).clone()

    gradients = [filled(shape) for shape in shapes]
    lists = []
    for _ in range(copies):
        params = [torch.nn.Parameter(filled(shape)) for shape in shapes]
        for p, g in zip(params, gradients):
            p.grad = g
        lists.append(params)
    return lists


def _settle(optimizer: Any, step: Callable[[], Any]) -> None:
    """Steps until all that moves into large pages has moved: a training's first hundred or so."""
    for _ in range(1000):
        step()
        if not optimizer.page_report.waiting:
            break


def _apart(name: str, ours: list[Any], theirs: list[Any], bound: float) -> float:
    apart = max(float((a.detach() - b.detach()).abs().max()) for a, b in zip(ours, theirs))
    return check_agreement(name, apart, bound)


def _row(
    name: str, shapes: Shapes, times: Times, streams: float, rival: str, **more: Any
) -> dict[str, Any]:
    seconds, other = times["nagcore"], times[rival]
    elements = sum(int(np.prod(s)) for s in shapes)
    moved = int(streams * 4 * elements)
    row: dict[str, Any] = {
        "section": "torch", "kernel": name, "dtype": "float32", "layout": "C", "n": len(shapes),
        "d": elements, "k": 1, "seconds": seconds, "bytes": moved, "gbps": moved / seconds / 1e9,
        "roof": None, "roof_gbps": None, "ratio_roof": None, "reach_roof": None,
        "peer_seconds": other, "peer_gbps": moved / other / 1e9,
        "ratio_peer": times.ratio(rival, "nagcore"), "reach_peer": None,
    }  # fmt: skip
    row.update(more)
    return row


def _step_row(
    torch: Any, name: str, shapes: Shapes, reach_roof: float | None, reach_peer: float,
    effort: Effort, n_threads: int,
) -> dict[str, Any]:  # fmt: skip
    from ..torch import SGD

    ours, theirs = _parameters(torch, shapes, 2)
    for p in theirs:  # the peer keeps memory as torch allocates it: ours moves large gradients
        if p.grad.nbytes >= 4 << 20:
            p.grad = p.grad.clone()
    a = SGD(ours, n_threads=n_threads, **_RULE)
    b = torch.optim.SGD(theirs, fused=True, **_RULE)
    for _ in range(3):
        a.step()
        b.step()
    error = _apart(f"step of {name}", ours, theirs, 1e-5)
    _settle(a, a.step)
    work = {"nagcore": a.step, "torch": b.step}
    more: dict[str, Any] = {}
    if reach_roof is not None:
        n = sum(int(np.prod(s)) for s in shapes)
        p, g, q = (np.ones(n, np.float32) for _ in range(3))  # touched: no page of zeros
        work["stream"] = lambda: _core.stream_update(p, g, q, n_threads)
    times = race(work, _rounds(effort, shapes))
    if reach_roof is not None:
        moved = 5 * 4 * sum(int(np.prod(s)) for s in shapes)
        more = {
            "roof": "five-stream loop", "roof_gbps": moved / times["stream"] / 1e9,
            "ratio_roof": times.ratio("stream", "nagcore"), "reach_roof": reach_roof,
        }  # fmt: skip
    return _row(
        f"step, {name}", shapes, times, 5, "torch", peer=_PEER, reach_peer=reach_peer, error=error,
        **more,
    )  # fmt: skip


def _sequence_row(torch: Any, shapes: Shapes, effort: Effort, n_threads: int) -> dict[str, Any]:
    """Unscale, clip, step and moving average, as a training loop calls them."""
    from ..torch import SGD, GradScaler

    scale, kept, max_norm = 1024.0, 0.999, 1.0
    ours, theirs = _parameters(torch, shapes, 2)
    master = [p.grad * scale for p in ours]
    for p, g in zip(ours, master):
        p.grad = g
    scaled = [g.clone() for g in master]  # torch's sequence unscales and clips in place
    for p, g in zip(theirs, scaled):
        p.grad = g
    # growth_interval so long that the scale never changes
    ours_scaler = GradScaler(init_scale=scale, growth_interval=10**9)
    theirs_scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**9)
    for scaler in (ours_scaler, theirs_scaler):
        scaler.scale(torch.ones(()))
    a = SGD(ours, n_threads=n_threads, max_norm=max_norm, ema_decay=kept, **_RULE)
    b = torch.optim.SGD(theirs, fused=True, **_RULE)
    averages = [p.detach().clone() for p in theirs]

    def one() -> None:
        ours_scaler.step(a)
        ours_scaler.update()

    def other() -> None:
        theirs_scaler.unscale_(b)
        torch.nn.utils.clip_grad_norm_(theirs, max_norm, foreach=True)
        theirs_scaler.step(b)
        theirs_scaler.update()
        torch._foreach_lerp_(averages, [p.detach() for p in theirs], 1 - kept)

    one()
    other()
    error = _apart("unscale, clip, step, average", ours, theirs, 1e-5)
    _settle(a, one)
    times = race({"nagcore": one, "torch": other}, _rounds(effort, shapes))
    # Ours reads g, then reads g, θ, b, e and writes θ, b, e.
    return _row(
        "unscale+clip+step+EMA, GPT-2", shapes, times, 8, "torch", peer="torch's fused sequence",
        reach_peer=1.5, error=error,
    )  # fmt: skip


def _bfloat16_row(torch: Any, shapes: Shapes, effort: Effort, n_threads: int) -> dict[str, Any]:
    from ..torch import SGD

    narrow, wide = _parameters(torch, shapes, 2)
    a = SGD(narrow, n_threads=n_threads, state_dtype=torch.bfloat16, **_RULE)
    b = SGD(wide, n_threads=n_threads, **_RULE)
    for _ in range(2):
        a.step()
        b.step()
    error = _apart("bfloat16 momentum", narrow, wide, 1e-4)
    for optimizer in (a, b):
        _settle(optimizer, optimizer.step)
    times = race({"nagcore": a.step, "float32": b.step}, _rounds(effort, shapes))
    return _row(
        "step, GPT-2", shapes, times, 4, "float32", dtype="bfloat16 state",
        peer="float32 momentum", reach_peer=1.2, error=error,
    )  # fmt: skip


def _overhead_row(torch: Any, count: int, effort: Effort, n_threads: int) -> dict[str, Any]:
    """What a step costs beside its arithmetic: tensors of one element."""
    from .. import NesterovPlan
    from ..torch import SGD

    shapes = [(1,)] * count
    ours, theirs = _parameters(torch, shapes, 2)
    a = SGD(ours, n_threads=n_threads, **_RULE)
    b = torch.optim.SGD(theirs, fused=True, **_RULE)
    for _ in range(2):
        a.step()
        b.step()
    error = _apart("step of single elements", ours, theirs, 1e-5)
    arrays = ([x.detach().numpy() for x in tensors] for tensors in (
        ours, [p.grad for p in ours], [a.state[p]["momentum_buffer"] for p in ours]))  # fmt: skip
    plan = NesterovPlan(*arrays)  # the same update of the same memory, and nothing asked of torch
    rule = {"lr": _RULE["lr"], "momentum": _RULE["momentum"], "n_threads": n_threads}
    work = {"nagcore": a.step, "torch": b.step, "update": lambda: plan.step(**rule)}
    times = race(work, replace(effort, turn=effort.turn / 5))
    return _row(
        f"step, {count} of 1", shapes, times, 5, "torch", peer=_PEER, error=error,
        update_seconds=times["update"],
        reach_seconds=30e-6 + 0.2e-6 * len(shapes) + times["update"],
    )  # fmt: skip
