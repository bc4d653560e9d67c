"""Timing rivals in turn, so that what the machine does meanwhile meets them all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

# A turn runs its work until it has lasted so long: the clock and one interruption are then small.
_TURN_SECONDS = 0.05
# Between rivals: threads of another OpenMP runtime spin for a while after their last region and
# would hold the cores that the next rival needs (with 60 ms, reading
# after NumPy still reached only three quarters of what it does alone).
_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Effort:
    """How much to measure: bytes of a dense X, rounds of a race, elements of the long update."""

    bytes: int = 420_000_000
    rounds: int = 7
    elements: int = 100_000_000
    turn: float = _TURN_SECONDS
    pause: float = _PAUSE_SECONDS
    dims: tuple[int, ...] = (50, 100, 200, 1000, 10_000, 100_000)
    largest_n: int = 10_000_000
    sparse_rows: float = 1.0  # share of the rows of the synthetic sparse shapes


FULL = Effort()
# For tests and a first look: everything runs, and the ratios mean little, X fitting into cache.
QUICK = Effort(2_000_000, 2, 200_000, 0.002, 0.0, (50, 1000), 100_000, 0.1)


class Times(dict[str, float]):
    """Median seconds a call by rival, and the rounds behind them.

    >>> times = Times({"fast": [1.0, 2.0, 8.0], "slow": [2.0, 4.0, 12.0]})
    >>> times["fast"], times["slow"], times.ratio("slow", "fast")
    (2.0, 4.0, 2.0)
    """

    def __init__(self, rounds: Mapping[str, Sequence[float]]) -> None:
        super().__init__({name: statistics.median(values) for name, values in rounds.items()})
        self._rounds = rounds

    def ratio(self, over: str, under: str) -> float:
        """The median of the rounds' ratios: in seconds the machine may halve its speed, and a
        median of each rival by itself may come from another of its moods."""
        return statistics.median(
            a / b for a, b in zip(self._rounds[over], self._rounds[under], strict=True)
        )


def race(work: Mapping[str, Callable[[], Any]], effort: Effort) -> Times:
    """Seconds a call of each, over rounds A B C A B C ….

    Each turn pauses, runs its work once untimed, then as often as fills the turn.

    >>> sorted(race({"a": lambda: None, "b": lambda: None}, QUICK))
    ['a', 'b']
    """
    repeats = {}
    for name, function in work.items():
        function()  # pages, caches, thread pools, lazy imports
        start = time.perf_counter()
        function()
        once = max(time.perf_counter() - start, 1e-7)
        repeats[name] = max(1, round(effort.turn / once))
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(effort.rounds):
        for name, function in work.items():
            time.sleep(effort.pause)
            function()
            count = repeats[name]
            start = time.perf_counter()
            for _ in range(count):
                function()
            times[name].append((time.perf_counter() - start) / count)
    return Times(times)


def blas_threads(n_threads: int) -> AbstractContextManager[Any]:
    """Hold NumPy's BLAS to as many threads as the kernels get, where threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return nullcontext()
    return threadpool_limits(n_threads)


def bytes_of(array: np.ndarray) -> np.ndarray:
    """The same memory as one run of uint8, for the bandwidth probe."""
    return array.reshape(-1).view(np.uint8)


def check_agreement(name: str, error: float, bound: float) -> float:
    """The error in units of its bound's k; AssertionError when it is over ``bound``.

    A benchmark of wrong results measures nothing, so this stops the run.
    """
    if not error <= bound:
        raise AssertionError(
            f"{name}: results differ by {error:.3g}, and at most {bound:g} is right."
        )
    return error
