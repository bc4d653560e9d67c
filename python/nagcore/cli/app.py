"""The commands of ``nagcore``: their options, and the way from an error to one line."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.text import Text

app = typer.Typer(
    name="nagcore",
    help="Fit linear models in as few and as fast passes over the data as the machine allows.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ERROR, INTERRUPTED = 2, 130


class Scale(str, Enum):
    """How features are scaled inside the solver."""

    auto = "auto"
    standard = "standard"
    range = "range"
    none = "none"


class Format(str, Enum):
    """File formats."""

    csv = "csv"
    parquet = "parquet"
    feather = "feather"
    npy = "npy"
    npz = "npz"
    svmlight = "svmlight"


class Dtype(str, Enum):
    """How X is stored."""

    float64 = "float64"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Storage(str, Enum):
    """How a copy of a float64 X is stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    uint8 = "uint8"


def debugging() -> bool:
    """Whether errors show their traceback: --debug, or NAGCORE_DEBUG in the environment."""
    return bool(os.environ.get("NAGCORE_DEBUG"))


def one_line(text: str) -> str:
    """An error message without line breaks."""
    return " ".join(str(text).split())


def clean_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print an error as one line on stderr and exit with 2; Ctrl-C exits with 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            if debugging():
                raise
            print("nagcore: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader (head, less) went away. Python would complain once more when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            if debugging():
                raise
            text = one_line(str(error)) or type(error).__name__
            expected = isinstance(error, (ValueError, TypeError, OSError, ImportError))
            hint = "" if expected else f" ({type(error).__name__}; --debug shows where)"
            print(f"nagcore: {text}{hint}", file=sys.stderr)
            raise typer.Exit(ERROR) from None

    return run


@clean_errors
def _version(shown: bool) -> None:
    if shown:
        import nagcore

        print(f"nagcore {nagcore.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. Any place will do.")
    ] = False,
) -> None:
    if debug:
        os.environ["NAGCORE_DEBUG"] = "1"


DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A CSV, Parquet, Feather, npy, npz or svmlight file, or digits, breast_cancer, "
        "diabetes.",
    ),
]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="The format, where name and bytes do not tell.")
]
HeaderOption = Annotated[
    bool, typer.Option("--header/--no-header", help="Whether CSV begins with column names.")
]


@app.command()
@clean_errors
def fit(
    data: DataArgument,
    target: Annotated[
        str | None,
        typer.Option(help="What to predict: a column, an npz key, an npy column or file."),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(help="squared, logistic, softmax, huber, poisson, squared_hinge, or auto."),
    ] = "auto",
    l2: Annotated[
        float | None, typer.Option(help="Strength of l2/2·‖w‖²; default 1/rows, or 0 with --l1.")
    ] = None,
    l1: Annotated[float, typer.Option(help="Strength of l1·‖w‖₁.")] = 0.0,
    delta: Annotated[float, typer.Option(help="Where the huber loss turns linear.")] = 1.0,
    intercept: Annotated[bool, typer.Option(help="Fit an intercept, unpenalised.")] = True,
    scale: Annotated[
        Scale,
        typer.Option(
            help="Scale features inside the solver; the model is in the data's units. auto: "
            "standard for dense floats, range for uint8, none for sparse data."
        ),
    ] = Scale.auto,
    solver: Annotated[str, typer.Option(help="A name of nagcore.solvers.names(), or auto.")] = "auto",
    tol: Annotated[
        float, typer.Option(help="Stop when (F − F*)/(F₀ − F*) is at most this.")
    ] = 1e-4,
    max_passes: Annotated[
        int, typer.Option(help="Stop after so many passes over the data.")
    ] = 2000,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; default what this process may use.")
    ] = None,
    test: Annotated[str | None, typer.Option(metavar="DATA", help="Test data.")] = None,
    test_size: Annotated[
        float | None, typer.Option(help="Part of the rows held out for testing; default 0.2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the hold-out and of the solver.")] = 0,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="Leave a column out (may be repeated).")
    ] = None,
    one_hot: Annotated[
        bool, typer.Option("--one-hot", help="Turn text columns into 0/1 columns.")
    ] = False,
    header: HeaderOption = True,
    file_format: FormatOption = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Store X so; default as the file does, float64 for text.")
    ] = None,
    storage: Annotated[
        Storage | None,
        typer.Option(
            help="Let a narrower copy of a float64 X carry all passes but the last; it takes memory, and "
            "pays from some fifteen passes on."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="MODEL", help="Write the model here.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw objective and gap against passes and seconds."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary and the history as JSON.")
    ] = False,
) -> None:
    """Fit a linear model and say how well it does.

    The loss is chosen from the target where --loss does not name it; a fifth of the rows is held
    out for testing where --test and --test-size say nothing else.
    """
    from ..model_io import json_values, save_model
    from . import fit as work
    from .show import FitProgress, print_summary

    options = work.Options(
        target=target, loss=loss, l2=l2, l1=l1, delta=delta, intercept=intercept, scale=scale.value,
        solver=solver, tol=tol, max_passes=max_passes, max_seconds=max_seconds, threads=threads,
        test=test, test_size=test_size, seed=seed, header=header, drop=tuple(drop or ()),
        file_format=None if file_format is None else file_format.value, one_hot=one_hot,
        dtype=None if dtype is None else dtype.value,
        storage=None if storage is None else storage.value,
    )  # fmt: skip
    for path in (output, plot):  # before the work, not after it
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(
                f"{path}: the folder {path.parent} does not exist; make it first."
            )
    if plot is not None:
        from ..plots import check_path

        check_path(plot)
    job = work.prepare(data, options)
    with FitProgress(Console(stderr=True), tol, max_passes) as progress:
        fitted = work.run(job, options, [progress])
    if fitted.interrupted and output is None:
        output = Path(f"{Path(data).name.split('.')[0]}-interrupted.nagcore")
    if output is not None:
        save_model(fitted.model, output)
    if plot is not None:
        from ..plots import convergence

        title = f"{Path(data).name}: {job.loss}, {job.facts['rows']:,} × {job.facts['features']:,}"
        convergence({fitted.summary["solver"]: fitted.model.history}, plot, title=title)
    if as_json:
        whole = {**fitted.summary, "history": fitted.model.history, "model": output and str(output)}
        print(json.dumps(json_values(whole), indent=1))
    else:
        console = Console(highlight=False)
        print_summary(console, fitted.summary)
        for name, path in (("model", output), ("picture", plot)):
            if path is not None:
                console.print(Text(f"{name} written to {path}"))
    if fitted.interrupted:
        print(f"nagcore: interrupted; the model so far is in {output}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


@app.command()
@clean_errors
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What nagcore fit -o wrote.")],
    data: DataArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A .csv or .npy file; default CSV on the terminal.",
        ),
    ] = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="Write a probability for each class.")
    ] = False,
    header: HeaderOption = True,
    file_format: FormatOption = None,
) -> None:
    """Predict with a stored model.

    Where the data hold the target too, the score is printed: on stderr, when predictions go down a
    pipe.
    """
    from .predict import predict_file

    predict_file(
        model, data, output, proba=proba, header=header,
        file_format=None if file_format is None else file_format.value,
    )  # fmt: skip


@app.command()
@clean_errors
def plot(
    histories: Annotated[
        list[Path],
        typer.Argument(
            metavar="HISTORY…",
            help="Histories as JSON lines, models, or what fit --json or bench --json gave.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The picture: .png, .svg or .pdf."),
    ] = Path("nagcore.png"),
    x: Annotated[
        str | None, typer.Option("--x", help="steps, passes, seconds, or another column.")
    ] = None,
    y: Annotated[
        list[str] | None,
        typer.Option(
            "--y",
            help="loss, gap, grad_norm, lr, momentum, or another column (may be repeated, a panel "
            "each); default all of these that are recorded.",
        ),
    ] = None,
    smooth: Annotated[
        float, typer.Option(help="β in [0, 1) of a moving average over noisy curves.")
    ] = 0.0,
    title: Annotated[str | None, typer.Option(help="A line above the picture.")] = None,
) -> None:
    """Draw runs over each other, or a benchmark.

    Histories of training loops are drawn as curves of what they record. Fits are drawn together,
    objective and gap against passes and seconds; what bench --json wrote is drawn as bandwidths.
    """
    from .plot import draw

    draw(histories, output, title, x=x, y=tuple(y or ()), smooth=smooth)
    Console(highlight=False).print(Text(f"picture written to {output}"))


@app.command()
@clean_errors
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check this machine's kernels.

    Every loss, dtype, layout and instruction set, on several thread counts, against the NumPy
    reference; exit with 1 when they disagree.
    """
    from ..checkup import doctor as examine
    from ..model_io import json_values
    from .show import print_doctor

    report = examine()
    if as_json:
        whole = {
            "ok": report.ok,
            "machine": report.machine,
            "notes": report.notes,
            "rows": report.rows,
        }
        print(json.dumps(json_values(whole), indent=1))
    else:
        print_doctor(Console(highlight=False), report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
@clean_errors
def bench(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SECTION…]",
            help="dense, narrow, softmax, sparse, update, accuracy, threads, import (all of them "
            "by default), columns, torch.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers there.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A folder whose load.py gives real data; default NAGCORE_DATA."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small data, few rounds: does all run, does all agree?")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A section, as the argument."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="For nagcore and its rivals alike.")] = 2,
) -> None:
    """Measure this machine's kernels.

    Against the bandwidth of its memory, and against NumPy, scipy and torch, all in one run.

    Each result is first compared with float64 arithmetic and with its rival's; exit with 1 when one
    is wrong. docs/performance.md says how to read the table.
    """
    from .. import bench as benchmark
    from ..model_io import atomic_write, json_values
    from .show import bench_cells, bench_table

    if json_file is not None and not json_file.parent.is_dir():
        raise FileNotFoundError(f"{json_file}: the folder {json_file.parent} does not exist.")
    console, watcher = Console(highlight=False), Console(stderr=True)

    def on_row(row: dict[str, Any]) -> None:
        if watcher.is_terminal:
            watcher.print(Text("  ".join(cell for cell in bench_cells(row) if cell), style="dim"))

    try:
        report = benchmark.run(
            (*(sections or ()), *(only or ())), quick=quick, n_threads=threads, data=data, on_row=on_row
        )
    except AssertionError as error:
        print(f"nagcore: {one_line(str(error))}", file=sys.stderr)
        raise typer.Exit(1) from None
    if json_file is not None:
        with atomic_write(json_file, "w") as stream:
            json.dump(json_values(report), stream, indent=1)
    where = report["machine"]
    console.print(
        Text(
            f"{where['processor']}, {where['isa']}, {where['threads']} threads, "
            f"NumPy {where['numpy']}"
        )
    )
    # A pipe has no width of its own; rich would wrap the table at 80 columns.
    wide = console if console.is_terminal else Console(highlight=False, width=160)
    wide.print(bench_table(report["rows"], benchmark.reached))
    if quick:
        console.print(Text("quick: the data fit into cache, so these ratios mean little."))


def run_app(arguments: list[str] | None = None) -> None:
    """Run the command line; --debug is accepted in any place before a ``--``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:end]:
        os.environ["NAGCORE_DEBUG"] = "1"
        arguments = [a for i, a in enumerate(arguments) if i > end or a != "--debug"]
    with np.errstate(over="ignore"):
        app(args=arguments, prog_name="nagcore")
