"""``nagcore.doctor()``: this machine's kernels against the NumPy reference, one row for each kind.

The function has the module's name; importing the module puts it in the function's place in the
package, so the module can be called as the function.
"""

from __future__ import annotations

import itertools
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _core, reference
from ._extras import child_environment
from .update import nesterov_step_

# |error| ≤ k·eps·magnitude, as docs/numerics.md promises for every kernel.
_BOUND = 8.0
# Several leaves of rows, so that threads share the work, and tails in both directions.
_ROWS, _FEATURES, _CLASSES = 2003, 37, 3
_DTYPES = ("float64", "float32", "bfloat16", "uint8")
_LAYOUTS = ("C", "F", "strided", "csr")
_UPDATE_SIZES = (1, 7, 1003, 5000)


@dataclass
class Report:
    """What `doctor` found: ``ok``, ``rows`` and ``machine``; printing it gives the table.

    Attributes
    ----------
    rows : list of dict
        For each instruction set × dtype × layout: what was checked, the worst error in units of
        eps·magnitude (or of a rounding), whether all thread counts gave the same bits, and ``ok``.
    machine : dict
        Instruction sets, threads, versions.
    notes : list of str
        What could not be checked, and why.

    Examples
    --------
    >>> report = Report([{"what": "losses", "isa": "v3", "dtype": "float32", "layout": "C",
    ...                   "checks": 24, "worst": 1.5, "bound": 8.0, "same_bits": True, "ok": True}])
    >>> report.ok
    True
    """

    rows: list[dict[str, Any]]
    machine: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when something was checked and everything agreed."""
        return bool(self.rows) and all(row["ok"] for row in self.rows)

    def cells(self) -> list[list[str]]:
        """The table as text: a header, then one list for each row."""
        header = ["what", "isa", "dtype", "layout", "checks", "worst error", "same bits", ""]
        return [header] + [
            [
                row["what"], row["isa"], row["dtype"], row["layout"], str(row["checks"]),
                row.get("detail") or f"{row['worst']:.2f} ≤ {row['bound']:g} eps",
                "yes" if row["same_bits"] else "NO", "ok" if row["ok"] else "WRONG",
            ]
            for row in self.rows
        ]  # fmt: skip

    def __str__(self) -> str:
        cells = self.cells()
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in cells]
        head = [f"{key}: {value}" for key, value in self.machine.items()]
        verdict = "All kernels agree with the reference." if self.ok else "Kernels DISAGREE."
        return "\n".join([*head, "", *lines, "", *self.notes, verdict])


def doctor(
    *,
    losses: Sequence[str] | None = None,
    n_threads: Sequence[int] = (1, 2, 3, 8),
    seed: int = 0,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Report:
    """Check this machine's kernels against `nagcore.reference` and return a printable report.

    Value and gradient of every registered loss on every instruction set this processor runs, every
    dtype and layout, on several thread counts: within k·eps of the terms' magnitude, and the same
    bits on all thread counts. Then the Nesterov update in float32, float64 and float16.

    Parameters
    ----------
    losses : sequence of str, optional
        Only these; default all that are registered.
    n_threads : sequence of int
        Thread counts to compare.
    seed : int
        Of the random data.
    on_row : callable
        Called with each row as it is found.

    Returns
    -------
    Report
        ``.ok`` is False on any mismatch; ``print(report)`` shows the table.

    Raises
    ------
    ValueError
        A loss is not registered.

    Examples
    --------
    >>> nagcore_report = doctor(losses=["logistic"], n_threads=(1, 2))
    >>> nagcore_report.ok
    True
    """
    names = list(_core.loss_names() if losses is None else losses)
    unknown = [name for name in names if name not in _core.loss_names()]
    if unknown:
        raise ValueError(f"loss {unknown[0]!r} is not one of {', '.join(_core.loss_names())}.")
    openmp, rounded = "on" if _core.openmp_enabled() else "off", _core.rounded_products()
    machine = {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "instruction sets": f"{', '.join(_core.isa_names())} (active: {_core.active_isa()})",
        "rounded products": f"{rounded}, for metrics" if rounded else "none",
        "threads": f"{_core.default_threads()} by default; OpenMP {openmp}",
    }
    report = Report([], machine)
    if not _scipy_sparse():
        report.notes.append("CSR was not checked: scipy is not installed.")
    rows = itertools.chain(
        _loss_rows(names, tuple(n_threads), seed), _update_rows(tuple(n_threads), seed)
    )
    for row in rows:
        report.rows.append(row)
        on_row(row)
    return report


def _scipy_sparse() -> Any:
    try:
        from scipy import sparse
    except ModuleNotFoundError:
        return None
    return sparse


# ---- losses


def _storage(dtype: str) -> dict[str, Any]:
    """How `_core.Problem` is told to read X."""
    if dtype == "bfloat16":
        return {"dtype": "bfloat16"}
    return {"scale": 1 / 64, "shift": -2.0} if dtype == "uint8" else {}


def _values(dtype: str, rng: np.random.Generator) -> np.ndarray:
    """C-ordered X in its storage, about a fifth of it zeros so that CSR has something to skip."""
    if dtype == "uint8":
        return rng.integers(0, 256, (_ROWS, _FEATURES), dtype=np.uint8)
    X = rng.standard_normal((_ROWS, _FEATURES)).astype(np.float32)
    X[rng.random(X.shape) < 0.2] = 0
    if dtype == "bfloat16":
        return (X.view(np.uint32) >> 16).astype(np.uint16)
    return X.astype(dtype)


def _laid_out(X: np.ndarray, layout: str) -> Any:
    if layout == "C":
        return X
    if layout == "F":
        return np.asfortranarray(X)
    if layout == "strided":
        # Every other row, backwards, with columns between others: a view no library would pack.
        wide = np.zeros((2 * X.shape[0], X.shape[1] + 5), dtype=X.dtype)
        view = wide[::-2, 3:-2]
        view[:] = X
        return view
    return _scipy_sparse().csr_matrix(X)


def _targets(loss: str, rng: np.random.Generator) -> np.ndarray:
    kind = _core.loss_info(loss)["targets"]
    if kind == "binary":
        return np.where(rng.random(_ROWS) < 0.4, -1.0, 1.0)
    if kind == "class":
        return rng.integers(0, _CLASSES, _ROWS)
    return (
        rng.poisson(2.0, _ROWS).astype(float) if kind == "nonnegative" else rng.normal(size=_ROWS)
    )


def _loss_rows(names: list[str], threads: tuple[int, ...], seed: int) -> Iterator[dict[str, Any]]:
    oracle = {}
    for dtype in _DTYPES:
        rng = np.random.default_rng(seed)
        X = _values(dtype, rng)
        weights, offset = rng.integers(0, 4, _ROWS).astype(float), rng.normal(size=_ROWS) / 4
        for loss in names:
            y = _targets(loss, rng)
            p = _FEATURES + 1
            shape = (p, _CLASSES) if _core.loss_info(loss)["targets"] == "class" else (p,)
            w = rng.normal(size=shape) / np.sqrt(p)
            extra: dict[str, Any] = {"sample_weight": weights, "fit_intercept": True}
            extra["offset"] = offset if len(shape) == 1 else np.repeat(offset[:, None], _CLASSES, 1)
            how = _storage(dtype)
            told = {"storage" if k == "dtype" else k: v for k, v in how.items()}
            exact = reference.value_and_grad(X, y, w, loss=loss, **extra, **told)
            size = reference.magnitudes(X, y, w, loss=loss, **extra, **told)
            oracle[dtype, loss] = (X, y, w, extra, how, exact, size)
    for isa, dtype, layout in itertools.product(_core.isa_names(), _DTYPES, _LAYOUTS):
        if layout == "csr" and (dtype not in ("float64", "float32") or not _scipy_sparse()):
            continue
        yield _loss_row(isa, dtype, layout, names, threads, oracle)


def _loss_row(
    isa: str, dtype: str, layout: str, names: list[str], threads: tuple[int, ...],
    oracle: dict[Any, Any],
) -> dict[str, Any]:  # fmt: skip
    eps = float(np.finfo(np.float64 if dtype == "float64" else np.float32).eps)
    worst, same, wrong = 0.0, True, []
    for loss in names:
        X, y, w, extra, how, (value, grad), size = oracle[dtype, loss]
        A, first = _laid_out(X, layout), None
        for count in threads:
            problem = _core.Problem(A, y, loss=loss, n_threads=count, isa=isa, **extra, **how)
            v, g = problem.value_and_grad(w)
            if first is None:
                first = (v, g.tobytes())
                error = max(
                    abs(v - value) / (eps * size.value),
                    float(np.max(np.abs(g - grad) / (eps * size.gradient))),
                )
                worst = max(worst, error)
                if not error <= _BOUND:  # a NaN is wrong too
                    wrong.append(loss)
            same = same and (v, g.tobytes()) == first
    return {
        "what": f"{len(names)} losses" if len(names) > 1 else names[0], "isa": isa, "dtype": dtype,
        "layout": layout, "checks": len(names) * len(threads), "worst": worst, "bound": _BOUND,
        "same_bits": same, "ok": same and not wrong, "wrong": wrong,
    }  # fmt: skip


# ---- the update


def _update_rows(threads: tuple[int, ...], seed: int) -> Iterator[dict[str, Any]]:
    """The active instruction set here; the others in processes that are told to use them."""
    for isa in _core.isa_names():
        if isa == _core.active_isa():
            yield from update_rows(threads, seed)
            continue
        code = (
            "import json; from nagcore.checkup import update_rows; "
            f"print(json.dumps(list(update_rows({threads!r}, {seed!r}))))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=child_environment(NAGCORE_ISA=isa),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            yield {
                **_update_row(isa, "float32", 0, float("nan"), 0.0, True),
                "detail": lines[-1][:60],
            }
        else:
            yield from json.loads(done.stdout)


def update_rows(threads: tuple[int, ...], seed: int) -> Iterator[dict[str, Any]]:
    """One row for each dtype, on the instruction set that is active in this process.

    float32 has to equal the reference to the bit where the processor fuses multiply and add, which
    the x86-64 baseline does not; float16 parameters round once, from float32.
    """
    isa = _core.active_isa()
    for dtype in ("float32", "float64", "float16"):
        worst, checks, same = 0.0, 0, True
        for convention, decoupled in itertools.product(("torch", "keras"), (False, True)):
            rule: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
            rule |= {"decoupled": decoupled, "convention": convention}
            start = _tensors(dtype, seed)
            exact = reference.nesterov_step(*start, **rule)
            first = None
            for count in threads:
                p, g, b = ([a.copy() for a in group] for group in start)
                nesterov_step_(p, g, b, **rule, n_threads=count)
                bits = b"".join(a.tobytes() for a in (*p, *b))
                first = bits if first is None else first
                same, checks = same and bits == first, checks + 1
                for a, e in zip((*p, *b), (*exact.params, *exact.buffers)):
                    size = np.finfo(a.dtype).eps * (1 + np.abs(e.astype(np.float64)))
                    apart = np.abs(a.astype(np.float64) - e.astype(np.float64)) / size
                    worst = max(worst, float(apart.max()))
        exactly = dtype == "float32" and isa != "baseline"
        yield _update_row(isa, dtype, checks, worst, 0.0 if exactly else 2.0, same)


def _update_row(
    isa: str, dtype: str, checks: int, worst: float, bound: float, same: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "what": "update", "isa": isa, "dtype": dtype, "layout": "list", "checks": checks,
        "worst": worst, "bound": bound, "same_bits": same, "ok": same and worst <= bound,
        "wrong": [],
    }  # fmt: skip
    return row | {"detail": "bit for bit"} if worst == 0 and bound == 0 else row


def _tensors(dtype: str, seed: int) -> tuple[list[np.ndarray], ...]:
    """Parameters, gradients and buffers of awkward lengths; float16's buffers are float32."""
    rng = np.random.default_rng(seed)
    wide = np.float32 if dtype == "float16" else dtype
    return tuple(
        [rng.standard_normal(size).astype(kind) for size in _UPDATE_SIZES]
        for kind in (dtype, dtype, wide)
    )
