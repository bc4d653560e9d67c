"""Curves of runs: what files are read, and which numbers end up on which axes."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import nagcore
from nagcore import plots

ROWS = [
    {"step": t, "passes": t / 10, "seconds": t / 7, "loss": 2.0 * 0.9**t, "gap": 0.8**t,
     "grad_norm": 0.95**t, "lr": 0.1, "momentum": 0.9, **({"val_loss": 1.0 / t} if t % 5 == 0 else {})}
    for t in range(1, 41)
]  # fmt: skip


def write(path, rows, head=None):
    lines = [{"nagcore_history": 1, "seed": 3} if head is None else head, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def drawn(axes):
    """Lines that the legend names, by name."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_a_history_file_is_read(tmp_path):
    run = plots.read_run(write(tmp_path / "first.jsonl", ROWS))
    assert (run.name, run.meta) == ("first", {"seed": 3})
    np.testing.assert_array_equal(run.columns["steps"], np.arange(1, 41))
    np.testing.assert_array_equal(run.columns["loss"], [row["loss"] for row in ROWS])
    assert np.isnan(run.columns["val_loss"]).sum() == 32


def test_names_of_minimize_and_of_loops_are_the_same_columns():
    run = plots.read_run([{"n_iter": 1, "n_passes": 2, "value": 0.5, "note": "x", "flag": True}])
    assert {key: v.tolist() for key, v in run.columns.items()} == {
        "steps": [1], "passes": [2], "loss": [0.5]
    }  # fmt: skip


def test_a_result_of_minimize_is_read():
    X = np.random.default_rng(0).standard_normal((200, 3))
    result = nagcore.minimize(nagcore.Objective(X, (X[:, 0] > 0) * 1, loss="logistic", l2=0.01))
    run = plots.read_run(result)
    assert run.columns["passes"].tolist() == result.history.n_passes
    assert run.columns["loss"].tolist() == result.history.value
    assert run.columns["steps"].tolist() == list(range(1, result.n_iter + 1))
    axes = plots.curves(result, x="passes", y="gap")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), run.columns["passes"])


def test_a_cut_last_line_is_left_out_with_a_warning(tmp_path):
    path = write(tmp_path / "cut.jsonl", ROWS)
    path.write_text(path.read_text()[:-30])
    with pytest.warns(UserWarning, match="last line is cut off"):
        run = plots.read_run(path)
    assert len(run.columns["steps"]) == 39


def test_a_resumed_run_replaces_what_it_repeats():
    rows = [{"step": t, "loss": 1.0} for t in range(1, 11)]
    rows += [{"step": t, "loss": 2.0} for t in range(6, 13)]
    run = plots.read_run(rows)
    assert run.columns["steps"].tolist() == list(range(1, 13))
    assert run.columns["loss"].tolist() == [1.0] * 5 + [2.0] * 7


def test_two_rows_of_one_step_both_stay():
    rows = [{"step": 1, "loss": 1.0}, {"step": 1, "val_loss": 2.0}, {"step": 2, "loss": 0.5}]
    run = plots.read_run(rows)
    assert run.columns["steps"].tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n', "begins with no version"),
        ("", "begins with no version"),
        ('{"nagcore_history": 2}\n', "begins with version 2"),
        ('{"nagcore_history": 1}\nnonsense\n{"step": 1}\n', "line 2 is no JSON"),
        ('{"nagcore_history": 1}\n[1]\n{"step": 1}\n', "line 2 is no JSON object"),
        ('{"nagcore_history": 1}\n', "'bad' is empty"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path, text, message):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        plots.read_run(tmp_path / "bad.jsonl")


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        plots.read_run(tmp_path / "none.jsonl")
    with pytest.raises(TypeError, match="given as int"):
        plots.read_run(3)
    with pytest.raises(ValueError, match=r"columns have \[1, 2\] rows"):
        plots.read_run({"step": [1, 2], "loss": [1.0]})
    with pytest.raises(ValueError, match="No run is given"):
        plots.curves({})


@pytest.mark.parametrize(
    ("x", "label"),
    [("steps", "steps"), ("passes", "passes over the data"), ("seconds", "time (seconds)")],
)
@pytest.mark.parametrize(
    ("y", "said", "scale"),
    [
        ("loss", "loss", "log"),
        ("gap", "gap F − F*", "log"),
        ("grad_norm", "gradient norm ‖g‖", "log"),
        ("lr", "learning rate", "linear"),
        ("momentum", "momentum µ", "linear"),
    ],
)
def test_curves_draw_each_quantity_against_each_axis(x, label, y, said, scale):
    axes = plots.curves({"one": ROWS, "two": ROWS[:20]}, x=x, y=y)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == (label, said, scale)
    key = "step" if x == "steps" else x
    for name, rows in (("one", ROWS), ("two", ROWS[:20])):
        line = drawn(axes)[name]
        np.testing.assert_allclose(line.get_xdata(), [row[key] for row in rows])
        np.testing.assert_allclose(line.get_ydata(), [row[y] for row in rows])
    first, second = drawn(axes)["one"], drawn(axes)["two"]
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()  # told apart without colour, too


def test_validation_is_drawn_where_it_was_recorded():
    axes = plots.curves({"one": ROWS}, y="loss")
    (line,) = [n for n in axes.lines if n.get_label() == "_one, validation"]
    assert line.get_xdata().tolist() == [5, 10, 15, 20, 25, 30, 35, 40]
    np.testing.assert_allclose(line.get_ydata(), 1 / line.get_xdata())
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["one", "validation"]
    assert len(plots.curves({"one": ROWS}, validation=False).lines) == 1


def test_smoothing_is_the_unbiased_moving_average():
    rng = np.random.default_rng(1)
    values = rng.standard_normal(60) + 5
    rows = [{"step": t, "loss": v} for t, v in enumerate(values)]
    raw, smooth = plots.curves({"a": rows}, smooth=0.8).lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    want = [
        np.average(values[: t + 1], weights=0.8 ** np.arange(t, -1, -1)) for t in range(len(values))
    ]
    np.testing.assert_allclose(smooth.get_ydata(), want, rtol=1e-12)


def test_a_log_axis_shows_only_what_has_a_logarithm():
    rows = [{"step": t, "loss": v} for t, v in enumerate([100.0, 1.0, -1.0])]
    assert plots.curves({"a": rows}).get_yscale() == "linear"
    assert plots.curves({"a": rows}, log=True).get_yscale() == "log"
    never = [{"step": 1, "gap": 0.0}, {"step": 2, "gap": 0.0}]
    axes = plots.curves({"a": never}, y="gap")
    assert axes.get_yscale() == "linear"
    axes.figure.canvas.draw()


def test_ticks_of_a_narrow_log_axis_are_plain_numbers():
    rows = [{"step": t, "gap": v} for t, v in enumerate([0.9, 0.5, 0.12])]
    axes = plots.curves({"a": rows}, y="gap")
    axes.figure.canvas.draw()
    texts = {t.get_text() for t in axes.get_yticklabels()}
    assert {"0.2", "0.5"} <= texts
    wide = plots.curves({"a": [{"step": t, "gap": 10.0**-t} for t in range(9)]}, y="gap")
    wide.figure.canvas.draw()
    assert all(not t.get_text() for t in wide.get_yticklabels(minor=True))


def test_a_history_of_the_package_is_read_in_memory_and_from_its_file(tmp_path):
    from nagcore.callbacks import History

    path = tmp_path / "run.jsonl"
    with History(path, meta={"seed": 1}) as history:
        for row in ROWS:
            history.log(**row)
        history.log(step=41, loss=float("nan"), gap=float("inf"))
    one, two = plots.read_run(history, "run"), plots.read_run(path)
    assert two.meta == {"seed": 1}
    assert set(one.columns) == set(two.columns)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, two.columns[name])
    axes = plots.curves(history, y="loss", validation=False)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [row["loss"] for row in ROWS])


def test_report_has_a_panel_for_what_all_runs_record():
    short = [{key: row[key] for key in ("step", "loss", "lr")} for row in ROWS]
    figure = plots.report({"whole": ROWS, "short": short})
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "learning rate"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"steps"}
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["whole", "short", "validation"]
    figure = plots.report({"whole": ROWS})
    assert len(figure.axes) == 5
    figure = plots.report({"whole": ROWS}, x="seconds", y=["gap"])
    assert figure.axes[0].get_xlabel() == "time (seconds)"


def test_runs_of_one_name_stay_apart(tmp_path):
    (tmp_path / "b").mkdir()
    one, two = write(tmp_path / "run.jsonl", ROWS), write(tmp_path / "b" / "run.jsonl", ROWS[:9])
    axes = plots.curves([one, two], validation=False)
    assert [line.get_label() for line in axes.lines] == ["run", "run′"]


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match=r"'a' records no 'gap'; it has 'loss'"):
        plots.curves({"a": [{"loss": 2.0, "step": 1}]}, y="gap")
    with pytest.raises(ValueError, match="share no column"):
        plots.report({"a": [{"step": 1, "loss": 2.0}], "b": [{"seconds": 1, "gap": 2.0}]})
    with pytest.raises(ValueError, match=r"smooth is 1.0"):
        plots.curves({"a": ROWS}, smooth=1.0)
    with pytest.raises(TypeError, match="ax is str"):
        plots.curves({"a": ROWS}, ax="here")


def test_a_picture_goes_into_given_axes_and_to_a_file(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    assert plots.curves({"a": ROWS}, ax=axes, path=tmp_path / "a.png") is axes
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_command_draws_histories(tmp_path, capsys, monkeypatch):
    pytest.importorskip("typer")
    from nagcore.cli import main
    from nagcore.cli import plot as command

    monkeypatch.chdir(tmp_path)
    one, two = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS[:9])
    seen = {}
    report = plots.report

    def watched(*args, **kwargs):
        seen["figure"] = report(*args, **kwargs)
        return seen["figure"]

    monkeypatch.setattr(plots, "report", watched)
    with pytest.raises(SystemExit) as end:
        main(["plot", str(one), str(two), "-o", "p.svg", "--x", "seconds", "--y", "gap", "--y", "lr"])
    assert not end.value.code, capsys.readouterr().err
    assert "picture written to p.svg" in capsys.readouterr().out
    gap, lr = seen["figure"].axes
    assert (gap.get_xlabel(), gap.get_ylabel()) == ("time (seconds)", "gap F − F*")
    assert lr.get_ylabel() == "learning rate"
    assert [line.get_label() for line in gap.lines] == ["a", "b"]
    for arguments, message in (
        (["a.jsonl", "--y", "speed"], "'a' records no 'speed'"),
        (["a.jsonl", "--smooth", "2"], "smooth is 2.0"),
        (["none.jsonl"], "no such file"),
        (["a.jsonl", "-o", "p.q"], "'q'"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["plot", *arguments])
        error = capsys.readouterr().err
        assert end.value.code == 2
        assert message in error
        assert error.count("\n") == 1
    assert callable(command.draw)


def test_command_draws_a_fit_beside_a_history(tmp_path, monkeypatch):
    pytest.importorskip("typer")
    from nagcore.cli.plot import draw

    history = [{"n_passes": t, "seconds": t / 9, "value": 1 / t, "gap": None} for t in range(1, 9)]
    (tmp_path / "fit.json").write_text(json.dumps({"history": history}))
    one = write(tmp_path / "a.jsonl", ROWS)
    seen = {}
    monkeypatch.setattr(plots, "report", lambda runs, **how: seen.update(how, runs=runs))
    draw([one, tmp_path / "fit.json"], tmp_path / "p.png")
    assert [run.name for run in seen["runs"]] == ["a", "fit"]
    assert seen["runs"][1].columns["passes"].tolist() == list(range(1, 9))
