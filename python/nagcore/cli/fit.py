"""``nagcore fit`` without its printing: read, encode, hold out, scale, minimise, score."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core
from ..data import Table, load_table, match_classes
from ..model_io import Model
from ..objective import Objective
from ..objective.storage import on_copy
from ..solvers import minimize
from .prepare import Scales, choose_loss, encode, feature_scales, hold_out, train_part
from .scaled import ScaledProblem, scaled_rows


@dataclass(frozen=True)
class Options:
    """What the user chose; None and "auto" are chosen from the data."""

    target: str | None = None
    loss: str = "auto"
    l2: float | None = None
    l1: float = 0.0
    delta: float = 1.0
    intercept: bool = True
    scale: str = "auto"
    solver: str = "auto"
    tol: float = 1e-4
    max_passes: int = 2000
    max_seconds: float | None = None
    threads: int | None = None
    test: str | None = None
    test_size: float | None = None
    seed: int = 0
    file_format: str | None = None
    header: bool = True
    drop: tuple[str, ...] = ()
    one_hot: bool = False
    dtype: str | None = None
    storage: str | None = None


@dataclass(eq=False)
class Fitted:
    """A model in the units of the data, what the solver returned, and what to tell the user."""

    model: Model
    result: Any
    summary: dict[str, Any]
    interrupted: bool


@dataclass(eq=False)
class Job:
    """Everything up to the first pass: what is fitted, on which rows, in which coordinates.

    ``problem`` reads the training rows in the data's units, ``objective`` in the scaled features'.
    ``test`` is (X, y) of rows apart; ``all_rows`` is (X, y) where the held-out ones lie among them.
    """

    table: Table
    classes: np.ndarray | None
    loss: str
    reason: str
    objective: Objective
    problem: Any
    scales: Scales
    held_out: Any
    test: tuple[Any, np.ndarray] | None
    all_rows: tuple[Any, np.ndarray] | None
    facts: dict[str, Any]
    stored: str  # what became of --storage, where that is known before the first pass


DEFAULT_TEST_SIZE = 0.2
# |mean|/deviation from which a fit in scaled features computes in float64: seven digits less two
# leave what a gradient needs.
_FAR_FROM_ZERO = 100.0
# Seconds a pass from which an interrupted fit is not scored.
_PATIENCE = 0.1


def prepare(source: str, options: Options) -> Job:
    """Read the data and build the objective; errors of the data are raised here or by pass one."""
    reading: dict[str, Any] = {
        "file_format": options.file_format, "header": options.header, "dtype": options.dtype
    }  # fmt: skip
    table = load_table(
        source, options.target, drop=options.drop, one_hot=options.one_hot, **reading
    )
    target = table.target or "the target"
    loss, reason = options.loss, "chosen with --loss"
    if loss == "auto":
        loss, reason = choose_loss(table.y, table.classes)
    elif loss not in _core.loss_names():
        raise ValueError(f"--loss is {loss!r}; choose from auto, {', '.join(_core.loss_names())}.")
    y, classes = encode(table.y, table.classes, loss, target)
    test = _test_part(options, table, classes, reading)
    held_out = None
    if test is None:
        fraction = DEFAULT_TEST_SIZE if options.test_size is None else options.test_size
        held_out = hold_out(y, classes is not None, fraction, options.seed)
    X, y_train, weights = train_part(table.X, y, held_out)
    n_train = len(y) if held_out is None else int((~held_out).sum())
    all_rows = None
    if held_out is not None:
        if weights is None:
            test = (table.X[held_out], y[held_out])
        else:
            all_rows = (X, y)
    l2 = options.l2 if options.l2 is not None else (0.0 if options.l1 > 0 else 1.0 / n_train)
    mask = None if weights is None else weights > 0
    scales = feature_scales(X, options.scale, mask, options.intercept)
    how = {
        "loss": loss, "sample_weight": weights, "delta": options.delta,
        "fit_intercept": options.intercept, "n_threads": options.threads,
    }  # fmt: skip
    problem = _core.Problem(X, y_train, **how, n_classes=_n_classes(classes, loss))
    penalty: dict[str, Any] = {"l2": l2, "l1": options.l1}
    objective, stored = _objective(X, y_train, problem, scales, how, classes, penalty, options.storage)
    facts = {
        "data": source, "rows": n_train, "features": X.shape[1], "dtype": problem.x_dtype,
        "layout": problem.layout, "target": table.target, "loss": loss, "loss_reason": reason,
        "classes": None if classes is None else len(classes), "l2": l2, "l1": options.l1,
        "scale": scales.kind, "isa": _core.active_isa(),
        "threads": problem.n_threads, "bytes_a_pass": problem.nbytes,
    }  # fmt: skip
    return Job(
        table, classes, loss, reason, objective, problem, scales, held_out, test, all_rows, facts, stored
    )


def _objective(
    X: Any, y: np.ndarray, problem: Any, scales: Scales, how: dict[str, Any],
    classes: np.ndarray | None, penalty: dict[str, Any], storage: str | None,
) -> tuple[Objective, str]:  # fmt: skip
    """F in the scaled features' coefficients, on X as it lies; and what became of `storage` already."""
    one_factor = scales.kind == "range" and not hasattr(X, "tocsr")
    if scales.kind == "none" or one_factor:
        # The kernels fold one factor for all columns in by themselves.
        factor = {"scale": 1.0 / scales.size[0]} if one_factor else {}
        if problem.k > 1 and y.max() + 1 < problem.k:  # these rows lack the last class
            y = (y[:, None] == np.arange(problem.k)).astype(np.float64)
        return Objective(X, y, **penalty, **how, **factor), ""
    how = {**how, "n_classes": _n_classes(classes, problem.loss)}
    wide = None
    if problem.compute == "float32":
        wide = ScaledProblem(_core.Problem(X, y, **how, compute="float64"), scales)
        # Where means dwarf deviations, float32 sums about zero have no digits left about the mean.
        if np.max(np.abs(scales.mean) / scales.size) > _FAR_FROM_ZERO:
            problem, wide = wide.core, None
    objective = Objective.from_problem(
        ScaledProblem(problem, scales), **penalty, sample_weight=how["sample_weight"], wide=wide
    )
    if not hasattr(X, "tocsr"):
        # The solvers look at a sample of rows to choose their variables.
        objective.X = scaled_rows(X, scales)
    if storage is None:
        return objective, ""
    plain = Objective(X, y, **how)
    narrow, sentence = plain.narrowed(storage)
    if narrow is plain:
        return objective, sentence
    return on_copy(objective, ScaledProblem(narrow.problem.core, scales), storage)


def _test_part(
    options: Options, table: Table, classes: np.ndarray | None, reading: dict[str, Any]
) -> tuple[Any, np.ndarray] | None:
    """The test data that the user named, or that the training file brought."""
    if options.test is not None:
        if options.test_size is not None:
            raise ValueError("Both --test and --test-size are given; choose one of them.")
        part = load_table(
            options.test, table.target if table.columns or table.index_base is None else None,
            columns=table.columns, categories=table.categories, n_features=table.X.shape[1],
            index_base=table.index_base, **reading,
        )  # fmt: skip
        label = options.test
        if part.X.shape[1] != table.X.shape[1]:
            raise ValueError(
                f"{label} has {part.X.shape[1]} features and the training data "
                f"{table.X.shape[1]}. Give test data with the same columns."
            )
    elif table.test is not None and options.test_size is None:
        part, label = table.test, f"the test part of {table.target}"
    else:
        return None
    return part.X, test_targets(part, table.classes, classes, label)


def test_targets(
    part: Table, text_classes: np.ndarray | None, classes: np.ndarray | None, label: str
) -> np.ndarray:
    """The targets of other data in the training data's class numbers, or as floats."""
    y = part.y
    if classes is None:
        if part.classes is not None:
            raise ValueError(f"{label} has a text target, and the training target is numeric.")
        return np.asarray(y, dtype=np.float64)
    if text_classes is not None:
        if part.classes is None:
            raise ValueError(f"{label} has a numeric target, and the training target is text.")
        return match_classes(np.asarray(y), part.classes, classes, label)
    if part.classes is not None:
        raise ValueError(f"{label} has a text target, and the training target is numeric.")
    places = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    if (classes[places] != y).any():
        row = int(np.argmax(classes[places] != y))
        raise ValueError(
            f"{label} has the class {y[row]} in row {row}, which the training data does not have."
        )
    return places


def _n_classes(classes: np.ndarray | None, loss: str) -> int | None:
    """k for softmax: a part of the rows may lack the last class."""
    if classes is None or _core.loss_info(loss)["targets"] != "class":
        return None
    return len(classes)


def run(job: Job, options: Options, callbacks: Sequence[Callable[[Any], Any]] = ()) -> Fitted:
    """Minimise, map the coefficients back to the data's units, score."""
    start = time.perf_counter()
    result = minimize(
        job.objective, solver=options.solver, tol=options.tol, max_passes=options.max_passes,
        max_seconds=options.max_seconds, seed=options.seed, callbacks=callbacks,
        storage=None if job.stored else options.storage,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    w, d = job.scales.to_data(result.w), job.problem.d
    coef, intercept = w[:d], (w[d] if options.intercept else np.zeros(w.shape[1:]))
    passes = int(result.n_passes)
    interrupted = str(result.message).startswith("interrupted")
    # Who pressed Ctrl-C wants an end: no scores where they would take long.
    slow = interrupted and seconds > _PATIENCE * max(passes, 1)
    scores = {"train": None, "test": None, "test_rows": 0} if slow else _all_scores(job, w)
    bytes_read = passes * job.problem.nbytes
    summary = {
        **job.facts,
        "solver": result.solver, "why": "; ".join(filter(None, (result.why, job.stored))), "passes": passes,
        "scale_reads": job.scales.reads, "data_reads": passes + job.scales.reads,
        "bytes_read": bytes_read, "seconds": seconds, "gbps": bytes_read / max(seconds, 1e-9) / 1e9,
        "iterations": int(result.n_iter), "objective": float(result.value),
        "gap": result.gap, "gap_kind": result.gap_kind, "tol": options.tol,
        "converged": bool(result.converged), "message": result.message,
        **scores,
    }  # fmt: skip
    table = job.table
    model = Model(
        loss=job.loss, coef=coef, intercept=np.asarray(intercept), classes=job.classes,
        feature_names=table.feature_names, columns=table.columns, categories=table.categories,
        index_base=table.index_base, target=table.target, info=summary,
        history=history_rows(result.history),
    )  # fmt: skip
    return Fitted(model, result, summary, interrupted)


def history_rows(history: Any) -> list[dict[str, Any]]:
    """The solver's `nagcore.callbacks.History` as plain rows of n_passes, seconds, value, gap."""
    keys = ("n_passes", "seconds", "value", "gap")
    return [dict(zip(keys, row)) for row in zip(*(getattr(history, key) for key in keys))]


# ---- scores


def _all_scores(job: Job, w: np.ndarray) -> dict[str, Any]:
    """Scores of the training rows and of the test rows; these passes do not count as fitting."""
    z = job.problem.margins(w)
    loss = job.problem.loss_from_margins(z)
    if job.all_rows is not None:
        X, y = job.all_rows
        test = job.held_out
        problem = _problem(job, X, y, test.astype(np.float64))
        return {
            "train": {"loss": loss, **score(job.loss, z[~test], y[~test])},
            "test": {"loss": problem.loss_from_margins(z), **score(job.loss, z[test], y[test])},
            "test_rows": int(test.sum()),
        }
    y = _train_targets(job)
    found = {"train": {"loss": loss, **score(job.loss, z, y)}, "test": None, "test_rows": 0}
    if job.test is not None:
        X, y = job.test
        problem = _problem(job, X, y, None)
        z = problem.margins(w)
        found["test"] = {"loss": problem.loss_from_margins(z), **score(job.loss, z, y)}
        found["test_rows"] = len(y)
    return found


def _problem(job: Job, X: Any, y: np.ndarray, weights: np.ndarray | None) -> Any:
    return _core.Problem(
        X, y, loss=job.loss, sample_weight=weights, fit_intercept=job.problem.fit_intercept,
        n_threads=job.facts["threads"], n_classes=_n_classes(job.classes, job.loss),
    )  # fmt: skip


def _train_targets(job: Job) -> np.ndarray:
    y, _ = encode(job.table.y, job.table.classes, job.loss, "the target")
    return y if job.held_out is None else y[~job.held_out]


def score(loss: str, z: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Accuracy of classes, R² of numbers, D² (explained deviance) of poisson rates, from margins.

    >>> score("logistic", np.array([-1.0, 2.0]), np.array([0, 0]))
    {'accuracy': 0.5}
    >>> score("squared", np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    {'R²': 1.0}
    """
    z = np.asarray(z, dtype=np.float64)
    targets = _core.loss_info(loss)["targets"]
    if targets in ("binary", "class"):
        guess = z.argmax(axis=1) if z.ndim == 2 else z > 0
        return {"accuracy": float(np.mean(guess == y))}
    if targets == "nonnegative":
        full, null = _deviance(y, np.exp(z)), _deviance(y, np.full(len(y), y.mean()))
        return {"D²": _explained(full, null)}
    return {"R²": _explained(float(((y - z) ** 2).sum()), float(((y - y.mean()) ** 2).sum()))}


def _deviance(y: np.ndarray, mu: np.ndarray) -> float:
    safe = np.where(y > 0, y, 1.0)
    return float(2 * np.sum(np.where(y > 0, y * np.log(safe / np.maximum(mu, 1e-300)), 0) - y + mu))


def _explained(rest: float, total: float) -> float:
    return 1 - rest / total if total > 0 else float(rest == 0)
