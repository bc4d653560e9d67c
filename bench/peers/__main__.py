"""`python -m bench.peers [--data DIR] [--only NAME ...] [--against FILE] [--json FILE] [--plot FILE]`.

Prints a table and draws a Pareto plot.

For each problem and contestant: seconds of the first whole fit whose objective, evaluated in float64 by
this program, is within 1e-3, 1e-6 and 1e-9 of the minimum, the same in reads of X, and nagcore's ratio to
the best peer. A path of strengths is one fit, and as good as its worst strength. `--against FILE` refreshes a
table: of the peers only those that were first at some goal in FILE race again.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from .contestants import contestants
from .harness import GOALS, Outcome, bounds, race, read_seconds, reference, suboptimality, sweep_seconds
from .problems import PROBLEMS, Problem, is_path, make


def run(
    problem: Problem, budget: float, n_threads: int, only: set[str] | None = None
) -> dict[str, Any]:
    """Race all contestants on one problem, or those named in `only`.

    Each starts with `n_threads` OpenMP and BLAS threads: snapml leaves the process with one OpenMP thread,
    which halves the speed of whoever comes after it and takes its number of threads from there.
    """
    exact = reference(problem)
    best = None if exact is None else exact[0]
    read, sweep = read_seconds(problem, n_threads), sweep_seconds(problem, n_threads)
    outcomes: list[Outcome] = []
    for name, fit, ladder in contestants(problem):
        if only is None or name in only:
            with threadpool_limits(n_threads):
                outcomes.append(race(problem, name, fit, ladder, best, budget))
            gc.collect()
    least, scale = bounds(problem, outcomes, best)
    rows = {
        o.contestant: {
            "seconds": [o.seconds_to(g, least, scale) for g in GOALS],
            "note": o.note,
            "rungs": [(t, s, suboptimality(v, least, scale)) for t, s, v in o.rungs],
        }
        for o in outcomes
    }
    return {
        "problem": problem.name,
        "dtype": str(problem.X.dtype),
        "n": problem.n,
        "d": problem.d,
        "l2": problem.l2,
        "l1": problem.l1,
        "bytes": problem.nbytes,
        "read": read,
        "sweep": sweep,
        "minimum": [float(value) for value in least],
        "exact": exact is not None,
        "rows": rows,
    }


def _number(seconds: float, read: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.3g} s ({seconds / read:.0f})"


def show(result: dict[str, Any]) -> None:
    """Print one problem's table in Markdown."""
    read, shape = result["read"], f"{result['n']:,} × {result['d']:,}"
    print(f"\n### {result['problem']}, {result['dtype']}, {shape}, one read {read * 1e3:.3g} ms, "
          f"a sweep over X where it lies {result['sweep'] * 1e3:.3g} ms\n")
    print("| contestant | to 1e-3: seconds (reads) | to 1e-6 | to 1e-9 | |\n|---|---|---|---|---|")
    for name, row in sorted(result["rows"].items(), key=lambda item: item[1]["seconds"][1]):
        print(f"| {name} | " + " | ".join(_number(s, read) for s in row["seconds"]) + f" | {row['note']} |")
    parts = [
        f"{'–' if ratio is None else f'{ratio:.2g}×'} to {goal:.0e}"
        for ratio, goal in zip(ratios(result), GOALS)
    ]
    print("\nThe best peer's seconds over nagcore's: " + "; ".join(parts), flush=True)


def ratios(result: dict[str, Any]) -> list[float | None]:
    """Best peer's seconds over nagcore's for each goal: None if neither arrives, 0 if only a peer does."""
    out: list[float | None] = []
    for i in range(len(GOALS)):
        own = result["rows"]["nagcore"]["seconds"][i]
        others = [row["seconds"][i] for name, row in result["rows"].items() if name != "nagcore"]
        peer = min(others, default=math.inf)
        if math.isinf(own):
            out.append(None if math.isinf(peer) else 0.0)
        else:
            out.append(peer / own)
    return out


def best_peers(path: str) -> dict[Any, set[str]]:
    """From an earlier --json: nagcore, and the peers that were first at some goal, for each problem.

    The keys are (name, dtype, l2 n), and the name alone for a dtype or strength that did not race there.
    """
    chosen: dict[Any, set[str]] = {}
    for result in json.loads(Path(path).read_text()):
        peers = {name: row["seconds"] for name, row in result["rows"].items() if name != "nagcore"}
        names = {"nagcore"}
        for i in range(len(GOALS)):
            first = min(peers, key=lambda name: peers[name][i], default=None)
            if first is not None and math.isfinite(peers[first][i]):
                names.add(first)
        if len(names) > 1:  # where no peer arrived, all of them try again
            chosen[result["problem"], result["dtype"], result["lambda_n"]] = names
            chosen.setdefault(result["problem"], set()).update(names)
    return chosen


def plot(results: list[dict[str, Any]], path: str) -> None:
    """Relative suboptimality against seconds of whole fits, a panel for each problem."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    names = sorted({name for r in results for name in r["rows"]}, key=lambda s: (s != "nagcore", s))
    others = [c for i, c in enumerate(plt.get_cmap("tab10").colors) if i != 1]  # orange is nagcore's
    styles = [(colour, marker) for marker in "s^v" for colour in others]
    style = dict(zip(names, [("#D55E00", "o"), *styles]))
    columns = min(3, len(results))
    lines = -(-len(results) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False, layout="constrained"
    )
    for ax, r in zip(axes.flat, results):
        for name, row in r["rows"].items():
            points = [(s, max(v, 1e-13)) for _, s, v in row["rungs"]]
            if points:
                ax.plot(
                    *zip(*points),
                    marker=style[name][1],
                    markersize=3.5,
                    linewidth=2.2 if name == "nagcore" else 1,
                    color=style[name][0],
                    label=name,
                    zorder=3 if name == "nagcore" else 2,
                )
        ax.set(
            xscale="log",
            yscale="log",
            title=f"{r['problem']} ({r['dtype']})",
            xlabel="time of the whole fit",
            ylabel="relative suboptimality",
        )
        ax.grid(alpha=0.3)
        low, high = ax.get_xlim()
        subs = (1, 2, 5) if high < 20 * low else (1, 3) if high < 200 * low else (1,)
        ax.xaxis.set_major_locator(LogLocator(subs=subs))
        ax.xaxis.set_major_formatter(EngFormatter(unit="s"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    for ax in list(axes.flat)[len(results) :]:
        ax.set_axis_off()
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Parse the command line, race, print, and write what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", default=os.environ.get("NAGCORE_DATA"), help="folder whose load.py loads the real sets"
    )
    parser.add_argument(
        "--only", nargs="*", default=list(PROBLEMS), help="problems, by name: " + ", ".join(PROBLEMS)
    )
    parser.add_argument("--dtype", nargs="*", default=["float32"], choices=["float32", "float64"])
    parser.add_argument("--lambda-n", nargs="*", type=float, default=[1.0], help="l2 times n")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds for each contestant and problem")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--against", metavar="FILE", help="an earlier --json: of the peers only those that were first there"
    )
    parser.add_argument("--json", help="write every rung to this file")
    parser.add_argument("--plot", help="draw suboptimality against seconds to this file")
    args = parser.parse_args()
    results = []
    chosen = {} if args.against is None else best_peers(args.against)
    for name in args.only:
        if name not in PROBLEMS:
            parser.error(f"{name!r} is no problem; choose from {', '.join(PROBLEMS)}")
        for dtype in args.dtype:
            for lambda_n in args.lambda_n:
                try:
                    problem = make(name, dtype, lambda_n, args.data)
                except FileNotFoundError as error:
                    print(f"\n{name}: skipped, {error}")
                    continue
                only = chosen.get((name, dtype, lambda_n), chosen.get(name))
                results.append(run(problem, args.budget, args.threads, only) | {"lambda_n": lambda_n})
                show(results[-1])
                del problem
    logistic = [r for r in results if PROBLEMS[r["problem"]] == "logistic" and not is_path(r["problem"])]
    known = [ratio for r in logistic if (ratio := ratios(r)[1]) not in (None, 0.0) and math.isfinite(ratio)]
    if known:
        mean = math.exp(sum(map(math.log, known)) / len(known))
        print(f"\nGeometric mean over {len(known)} of {len(logistic)} logistic problems to 1e-6: {mean:.3g}×")
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
    if args.plot and results:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
