"""What the terminal shows: the progress of a fit, its summary, tables of doctor and bench."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


class FitProgress:
    """A solver callback that draws passes, objective, gap and GB/s; silent where no one watches.

    The bar shows how far the relative gap has come on its way from 1 to tol, on a logarithmic
    scale, on which a linear rate looks linear; without a gap, passes of max_passes.
    """

    def __init__(self, console: Console, tol: float, max_passes: int) -> None:
        self.tol, self.max_passes, self.done = max(tol, 1e-16), max_passes, 0.0
        self.progress = Progress(
            SpinnerColumn(), TextColumn("fit"), BarColumn(bar_width=24),
            TextColumn("{task.fields[passes]} passes · F {task.fields[value]} · "
                       "gap {task.fields[gap]} · {task.fields[gbps]} GB/s"),
            TimeElapsedColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task("", total=1.0, passes=0, value="…", gap="…", gbps="…")

    def __enter__(self) -> FitProgress:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def __call__(self, state: Any) -> bool:
        reached = state.n_passes / self.max_passes
        if 0 < state.relative_gap < 1:
            reached = max(reached, math.log(state.relative_gap) / math.log(min(self.tol, 0.5)))
        self.done = min(max(self.done, reached), 1.0)
        rate = state.nbytes * state.n_passes / max(state.seconds, 1e-9) / 1e9
        self.progress.update(
            self.task, completed=self.done, passes=state.n_passes, value=f"{state.value:.6g}",
            gap=number(state.gap), gbps=f"{rate:.1f}",
        )  # fmt: skip
        return False


def number(value: float | None) -> str:
    """Three digits, or a dash for what is not known.

    >>> number(None), number(0.00012345)
    ('–', '0.000123')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def amount(n_bytes: float) -> str:
    """Bytes in the largest unit that leaves a number above one.

    >>> amount(735_744), amount(3.2e9)
    ('736 kB', '3.20 GB')
    """
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= size:
            return (
                f"{n_bytes / size:.3g}" + f" {unit}"
                if n_bytes < 1e9
                else f"{n_bytes / size:.2f} {unit}"
            )
    return f"{n_bytes:.0f} bytes"


def times(count: int) -> str:
    """once, twice, 3 times, …

    >>> times(1), times(7)
    ('once', '7 times')
    """
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


_SCALES = {
    "standard": "each column to mean 0, deviation 1, inside the solver",
    "range": "one factor for all columns, inside the solver",
    "none": "none",
}


def summary_rows(s: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the summary as (name, text)."""
    rows = f"{s['rows']:,} × {s['features']:,}"
    held = f", {s['test_rows']:,} rows for testing" if s["test_rows"] else ""
    penalty = " + ".join(
        text for text, on in (
            (f"l2 {s['l2']:.3g}", s["l2"] > 0), (f"l1 {s['l1']:.3g}", s["l1"] > 0)
        ) if on
    ) or "none"  # fmt: skip
    reads = f"{times(s['passes'])} by the solver ({amount(s['bytes_read'])})"
    if s["scale_reads"]:
        reads += f" and {times(s['scale_reads'])} for the scales"
    gap = number(s["gap"]) + (f" ({s['gap_kind']})" if s["gap_kind"] != "none" else "")
    return [
        ("data", f"{Path(s['data']).name}: {rows} {s['dtype']} {s['layout']}{held}"),
        ("loss", f"{s['loss']} ({s['loss_reason']}); penalty {penalty}"),
        ("feature scales", _SCALES[s["scale"]]),
        ("solver", f"{s['solver']}, instruction set {s['isa']}, {s['threads']} threads"),
        ("chosen", s["why"]),
        ("passes", f"{s['passes']} in {s['seconds']:.3g} s ({s['gbps']:.3g} GB/s)"),
        ("data read", reads),
        ("objective", f"{s['objective']:.8g}, gap {gap}"),
        ("result", s["message"]),
        *_score_rows(s),
    ]


def _score_rows(s: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for part in ("train", "test"):
        if s[part]:
            words = [f"{name} {value:.4f}" for name, value in s[part].items() if name != "loss"]
            found.append((part, ", ".join([*words, f"loss {s[part]['loss']:.5g}"])))
    return found


def print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """The summary as two columns; long lines stay whole in a pipe."""
    for name, text in summary_rows(summary):
        console.print(Text.assemble((f"{name:<15}", "bold"), text), soft_wrap=True)


def print_doctor(console: Console, report: Any) -> None:
    """The machine, the table and the verdict."""
    for key, value in report.machine.items():
        console.print(Text(f"{key}: {value}"))
    header, *rows = report.cells()
    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        style = "green" if row[-1] == "ok" else "bold red"
        table.add_row(*row[:-1], Text(row[-1], style=style))
    console.print(table)
    for note in report.notes:
        console.print(Text(note, style="yellow"))
    if report.ok:
        console.print(Text("All kernels agree with the reference.", style="green"))
    else:
        console.print(Text("Kernels DISAGREE with the reference.", style="bold red"))


# ---- bench

BENCH_COLUMNS = (
    "kernel", "dtype", "n", "d", "time", "GB/s", "÷ roof", "reach", "÷ peer", "reach", "peer",
    "error",
)  # fmt: skip


def bench_cells(row: Mapping[str, Any]) -> list[str]:
    """One row of ``nagcore bench`` as text."""

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    error = "" if row["error"] is None else f"{row['error']:.2g}"
    if row.get("reach_error"):
        error += f" ≤ {row['reach_error']:g}"
    reach_time = row.get("reach_seconds")
    return [
        row["kernel"], row["dtype"], f"{row['n']:,}" if row["n"] else "",
        f"{row['d']:,}" if row["d"] else "",
        duration(row["seconds"]) + (f" ≤ {duration(reach_time)}" if reach_time else ""),
        "" if row["gbps"] is None else f"{row['gbps']:.1f}",
        ratio(row["ratio_roof"]), ratio(row["reach_roof"]), ratio(row["ratio_peer"]),
        ratio(row["reach_peer"]), row["peer"] or "", error,
    ]  # fmt: skip


def duration(seconds: float | None) -> str:
    """In the unit that leaves at least one digit before the point.

    >>> duration(0.0123), duration(2.5e-5), duration(None)
    ('12.3 ms', '25 µs', '')
    """
    if seconds is None:
        return ""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def bench_table(rows: Sequence[Mapping[str, Any]], reached: Any) -> Table:
    """The rows as a table; those below what they are to reach stand in red."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(BENCH_COLUMNS):
        table.add_column(name, justify="right" if 2 <= i <= 9 or i == 11 else "left", no_wrap=i > 0)
    for row in rows:
        style = {True: "", None: "", False: "red"}[reached(row)]
        table.add_row(*bench_cells(row), style=style)
    return table
