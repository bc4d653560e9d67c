"""``nagcore bench``: what each kernel does on this machine, as ratios taken in one run.

Every row is measured after its result was compared with float64 arithmetic and with its rival's.
docs/performance.md says how to read it.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .. import _core
from . import dense, others, update
from .measure import FULL, QUICK, Effort

_PEERS = ("scipy", "torch")
SECTIONS = (
    "dense", "narrow", "softmax", "sparse", "update", "accuracy", "threads", "import"
)  # fmt: skip
# Not part of a run of everything: nobody set figures for F order, and torch takes minutes.
ON_REQUEST = ("columns", "torch")


def machine(n_threads: int) -> dict[str, Any]:
    """What the numbers depend on: processor, instruction set, threads, versions.

    >>> machine(2)["threads"]
    2
    """
    return {
        "processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(),
        "isa": _core.active_isa(), "isas": list(_core.isa_names()), "threads": n_threads,
        "openmp": _core.openmp_enabled(), "python": platform.python_version(),
        "numpy": np.__version__,
        **{name: sys.modules[name].__version__ for name in _PEERS if name in sys.modules},
    }  # fmt: skip


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def run(
    only: tuple[str, ...] = (),
    *,
    quick: bool = False,
    n_threads: int = 2,
    data: str | None = None,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Measure the sections of ``only`` (all for none) and return machine and rows.

    Parameters
    ----------
    only : tuple of str
        From dense, narrow, softmax, sparse, update, accuracy, threads, import; and columns (X in
        F order) and torch, which only run when they are named.
    quick : bool
        Small data and few rounds: shows that all runs and agrees; its ratios mean little.
    n_threads : int
        Threads for nagcore, NumPy's BLAS and torch alike.
    data : str, optional
        A folder whose load.py gives real data for the sparse section; default NAGCORE_DATA.
    on_row : callable
        Called with each row as it is measured.

    Returns
    -------
    dict
        ``machine`` (a dict), ``quick``, ``data`` ("real" or "synthetic") and ``rows``, a list of
        dicts with section, kernel, dtype, layout, n, d, k, seconds, gbps, roof_gbps, ratio_roof,
        ratio_peer, reach_roof, reach_peer and error.

    Raises
    ------
    ValueError
        A name in ``only`` is no section, or n_threads < 1.
    AssertionError
        Results disagree: nothing is measured of a wrong result.

    Examples
    --------
    >>> report = run(("threads",), quick=True)
    >>> report["rows"][0]["error"]
    0.0
    """
    every = SECTIONS + ON_REQUEST
    unknown = [name for name in only if name not in every]
    if unknown:
        raise ValueError(f"There is no section {unknown[0]!r}; choose from {', '.join(every)}.")
    if n_threads < 1:
        raise ValueError(f"n_threads is {n_threads}; give 1 or more.")
    data = data or os.environ.get("NAGCORE_DATA") or None
    effort = QUICK if quick else FULL
    rows = []
    for section in every:
        if section not in (only or SECTIONS):
            continue
        for row in _section(section, effort, n_threads, data):
            rows.append(row)
            on_row(row)
    kind = "synthetic" if data is None else "real"
    return {"machine": machine(n_threads), "quick": quick, "data": kind, "rows": rows}


def _section(
    name: str, effort: Effort, n_threads: int, data: str | None
) -> Iterator[dict[str, Any]]:
    if name == "sparse":
        return others.run_sparse(replace(effort, turn=min(effort.turn, 0.02)), n_threads, data)
    if name == "torch":
        from . import torch

        return torch.run_torch(effort, n_threads)
    return {
        "dense": dense.run_dense, "narrow": dense.run_narrow, "softmax": others.run_softmax,
        "columns": dense.run_columns, "update": update.run_update, "accuracy": others.run_accuracy,
        "threads": others.run_threads, "import": others.run_import,
    }[name](effort, n_threads)  # fmt: skip


def reached(row: dict[str, Any]) -> bool | None:
    """Whether a row reaches what it is to reach: None where nothing is asked of it.

    >>> reached({"ratio_roof": 0.93, "reach_roof": 0.9}), reached({})
    (True, None)
    """
    asked = [
        (row.get("ratio_roof"), row.get("reach_roof"), 1),
        (row.get("ratio_peer"), row.get("reach_peer"), 1),
        (row.get("error"), row.get("reach_error"), -1),
        (row.get("seconds"), row.get("reach_seconds"), -1),
    ]
    answers = [
        sign * value >= sign * goal for value, goal, sign in asked
        if value is not None and goal is not None
    ]  # fmt: skip
    return all(answers) if answers else None
