"""The command line from outside: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("sklearn")

from nagcore.cli import main
from nagcore.cli import prepare as preparing
from nagcore.model_io import load_model


def _csv(path, n=400, seed=0, text=False):
    """Two classes with unscaled columns; the target is last."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * [1, 1e4, 1e-3] + [5, 1e5, 0]
    margin = (X - [5, 1e5, 0]) / [1, 1e4, 1e-3] @ [1.0, -2.0, 0.5]
    yes = rng.random(n) < 1 / (1 + np.exp(-2 * margin))
    lines = ["a,b,c,kind" if not text else "a,b,c,color,kind"]
    for row, hit in zip(X, yes):
        cells = [f"{v:.9g}" for v in row] + (["red" if hit else "blue"] if text else [])
        lines.append(",".join([*cells, "yes" if hit else "no"]))
    path.write_text("\n".join(lines) + "\n")
    return path


# ---- fit


def test_fit_digits_just_works(nagcore):
    code, out, err = nagcore("fit", "digits")
    assert code == 0
    assert err == ""  # no progress bar where no one watches
    for word in ("softmax", "instruction set", "threads", "passes", "data read", "converged"):
        assert word in out
    assert os.listdir() == []  # nothing is written unasked


def test_fit_summary_is_true(nagcore):
    code, out, _ = nagcore("fit", "digits", "--json", "-o", "m.nagcore", "--threads", 2)
    assert code == 0
    summary = json.loads(out)
    assert summary["converged"]
    assert summary["threads"] == 2
    assert summary["rows"] + summary["test_rows"] == 1797
    assert summary["rows"] == 1438
    assert summary["test"]["accuracy"] > 0.95
    # Only the solver's passes count, and each read all of X once.
    assert 0 <= summary["passes"] - summary["history"][-1]["n_passes"] <= 3  # the closing proof
    assert summary["bytes_read"] == summary["passes"] * summary["rows"] * 64 * 8
    assert summary["data_reads"] == summary["passes"] + 1
    # The stored model gives the printed scores, in the units of the data.
    from sklearn.datasets import load_digits

    data = load_digits()
    model = load_model("m.nagcore")
    held = preparing.hold_out(data.target, True, 0.2, 0)
    guess = model.predict(data.data)
    assert np.mean((guess == data.target)[held]) == pytest.approx(summary["test"]["accuracy"])
    assert np.mean((guess == data.target)[~held]) == pytest.approx(summary["train"]["accuracy"])
    assert model.info["passes"] == summary["passes"]


@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_fit_diabetes(nagcore, loss):
    code, out, _ = nagcore("fit", "diabetes", "--json", "--loss", loss, "--delta", 50)
    summary = json.loads(out)
    assert code == 0
    assert summary["converged"]
    assert 0.3 < summary["train"]["R²"] < 0.7


def test_fit_matches_scikit_learn(nagcore):
    """The same coefficients as scikit-learn on standardised data, in the data's units."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    path = _csv(Path("t.csv"))
    code, out, _ = nagcore(
        "fit", path, "--target", "kind", "--test-size", 0, "--tol", 1e-10, "-o", "m", "--json"
    )
    assert code == 0
    assert json.loads(out)["loss"] == "logistic"
    model = load_model("m")
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=str)
    X = table[:, :3].astype(float)
    scaler = StandardScaler().fit(X)
    peer = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(
        scaler.transform(X), table[:, 3]
    )
    np.testing.assert_allclose(model.coef, peer.coef_[0] / scaler.scale_, rtol=1e-4)
    expected = peer.intercept_[0] - peer.coef_[0] @ (scaler.mean_ / scaler.scale_)
    assert model.intercept == pytest.approx(expected, rel=1e-4)
    assert model.classes.tolist() == ["no", "yes"]


@pytest.mark.parametrize("scale", ["standard", "range", "none"])
@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "csr"])
def test_fit_unpenalised_is_the_same_in_all_scales(nagcore, tmp_path, scale, kind):
    """Without a penalty, scales are a change of variables: least squares has one answer."""
    from sklearn.datasets import dump_svmlight_file

    rng = np.random.default_rng(0)
    X = rng.integers(1, 200, (300, 3)).astype("float64" if kind == "csr" else kind)
    y = X.astype(float) @ [0.01, -0.02, 0.005] + 3 + 0.1 * rng.normal(size=300)
    if kind == "csr":
        dump_svmlight_file(X, y, str(tmp_path / "a.svm"), zero_based=False)
        data = "a.svm"
    else:
        np.savez(tmp_path / "a.npz", X=X, y=y)
        data = "a.npz"
    options = ("--l2", 0, "--scale", scale, "--tol", 1e-9, "--test-size", 0, "--loss", "squared")
    code, _, err = nagcore("fit", data, *options, "-o", "m")
    assert code == 0, err
    A = np.column_stack([X.astype(float), np.ones(300)])
    exact = np.linalg.lstsq(A, y, rcond=None)[0]
    model = load_model("m")
    np.testing.assert_allclose(model.coef, exact[:3], rtol=2e-3)
    assert model.intercept == pytest.approx(exact[3], rel=2e-3)


def test_fit_of_correlated_columns_takes_few_passes(nagcore, tmp_path):
    """The solvers see the rows in scaled features, so they can decorrelate the columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 1)) + 0.01 * rng.normal(size=(2000, 6))
    X = X * 10.0 ** np.arange(-3, 3) + 1000
    np.savez(tmp_path / "a.npz", X=X, y=X @ rng.normal(size=6) + rng.normal(size=2000))
    _, out, err = nagcore("fit", "a.npz", "--loss", "squared", "--json")
    summary = json.loads(out)
    assert summary["converged"], err
    assert summary["passes"] <= 15


def test_fit_holds_out_by_weight_as_by_copy(nagcore, monkeypatch, tmp_path):
    """Large data keep their held-out rows with weight zero: the same model and the same scores."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    np.savez(tmp_path / "a.npz", X=X, y=(X @ [1, -1, 2, 0] + rng.normal(size=500) > 0).astype(int))
    options = ("--json", "--tol", 1e-10, "--seed", 5, "-o")
    _, copied, _ = nagcore("fit", "a.npz", *options, "copied")
    monkeypatch.setattr(preparing, "COPY_LIMIT", 0)
    _, weighted, _ = nagcore("fit", "a.npz", *options, "weighted")
    a, b = json.loads(copied), json.loads(weighted)
    assert (a["rows"], a["test_rows"]) == (b["rows"], b["test_rows"]) == (400, 100)
    for part in ("train", "test"):
        assert a[part] == pytest.approx(b[part], rel=1e-6)
    np.testing.assert_allclose(load_model("copied").coef, load_model("weighted").coef, rtol=1e-4)


def test_fit_l1_gives_zeros_and_no_default_l2(nagcore):
    _, out, _ = nagcore("fit", "diabetes", "--l1", 20, "-o", "m", "--json")
    assert json.loads(out)["l2"] == 0
    coef = load_model("m").coef
    assert 0 < np.count_nonzero(coef) < len(coef)


@pytest.mark.parametrize("solver", ["fista", "acfgm"])
def test_fit_takes_solvers(nagcore, solver):
    _, out, _ = nagcore("fit", "breast_cancer", "--solver", solver, "--json")
    summary = json.loads(out)
    assert summary["solver"] == solver
    assert summary["converged"]


def test_fit_stops_where_told(nagcore):
    _, out, _ = nagcore("fit", "digits", "--max-passes", 12, "--tol", 1e-12, "--json")
    summary = json.loads(out)
    assert not summary["converged"]
    assert summary["passes"] <= 12
    assert "max_passes" in summary["message"]


def test_fit_test_file_with_other_column_order(nagcore, tmp_path):
    _csv(tmp_path / "t.csv")
    rows = [line.split(",") for line in _csv(tmp_path / "u.csv", seed=1).read_text().splitlines()]
    (tmp_path / "v.csv").write_text("\n".join(",".join(row[::-1]) for row in rows) + "\n")
    for name in ("u.csv", "v.csv"):
        code, out, err = nagcore("fit", "t.csv", "--target", "kind", "--test", name, "--json")
        assert code == 0, err
        summary = json.loads(out)
        assert summary["test_rows"] == 400
        assert summary["rows"] == 400
        assert summary["test"]["accuracy"] > 0.8


def test_fit_rare_last_class_may_be_held_out(nagcore, tmp_path):
    """k comes from all rows: a class whose only row is held out keeps its column."""
    rng = np.random.default_rng(0)
    y = np.array([0, 1] * 30 + [2])
    np.savez(tmp_path / "a.npz", X=rng.normal(size=(61, 3)), y=y)
    for scale in ("standard", "none", "range"):
        for seed in range(6):
            code, _, err = nagcore(
                "fit", "a.npz", "--loss", "softmax", "--scale", scale, "--seed", seed, "-o", "m"
            )
            assert code == 0, err
            assert load_model("m").coef.shape == (3, 3)


def test_fit_plot(nagcore, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, _ = nagcore("fit", "breast_cancer", "--plot", "p.png")
    assert code == 0
    assert "picture written to p.png" in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["t.csv"], "no target chosen"),
        (["t.csv", "--target", "kin"], "no column 'kin'"),
        (["text.csv", "--target", "kind"], "column 'color' holds text"),
        (["t.csv", "--target", "kind", "--loss", "squared"], "holds text"),
        (["digits", "--loss", "hinge"], "--loss is 'hinge'; choose from auto, squared"),
        (["digits", "--loss", "logistic"], "has 10 classes and loss logistic takes two"),
        (["digits", "--target", "t"], "brings its own target"),
        (["digits", "--l2", "-1"], "l2 is -1.0"),
        (["digits", "--l1", "nan"], "l1 is nan"),
        (["digits", "--tol", "-1"], "tol is -1.0"),
        (["digits", "--max-passes", "0"], "max_passes is 0"),
        (["digits", "--solver", "sgd"], 'solver is "sgd"'),
        (["digits", "--test-size", "1.5"], "--test-size is 1.5"),
        (["digits", "--test", "t.csv", "--test-size", "0.2"], "Both --test and --test-size"),
        (["digits", "--test", "nowhere.csv"], "nowhere.csv: no such file"),
        (["digits", "-o", "no/m"], "folder no does not exist"),
        (["digits", "--plot", "p.xyz"], "ends in 'xyz'"),
        (["empty.csv"], "is empty"),
        (["nan.npz"], "holds nan in row 3, column 1"),
        (["nan.npz", "--scale", "none"], "row 3, column 1"),
        (["diabetes", "--loss", "poisson", "--solver", "acfgm"], "fista"),
    ],
)
def test_fit_errors_are_one_line(nagcore, tmp_path, arguments, message):
    _csv(tmp_path / "t.csv")
    _csv(tmp_path / "text.csv", text=True)
    (tmp_path / "empty.csv").touch()
    X = np.random.default_rng(0).normal(size=(30, 2))
    X[3, 1] = np.nan
    np.savez(tmp_path / "nan.npz", X=X, y=np.arange(30) % 2)
    code, out, err = nagcore("fit", *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("nagcore: ")
    assert message in err
    assert err.count("\n") == 1


def test_usage_errors_return_2(nagcore):
    for arguments in (
        ["fit"],
        ["fit", "digits", "--scale", "z"],
        ["fit", "digits", "--storage", "float16"],
        ["fry"],
        ["fit", "digits", "--x"],
    ):
        code, _, err = nagcore(*arguments)
        assert code == 2
        assert "Usage" in err


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAGCORE_DEBUG", "")
    with pytest.raises(FileNotFoundError):
        main(["fit", "nowhere.csv", "--debug"])


def test_one_hot_model_predicts_new_rows(nagcore, tmp_path):
    _csv(tmp_path / "t.csv", text=True)
    code, _, err = nagcore("fit", "t.csv", "--target", "kind", "--one-hot", "-o", "m")
    assert code == 0, err
    assert load_model("m").feature_names == ("a", "b", "c", "color=blue", "color=red")
    (tmp_path / "new.csv").write_text("color,c,b,a\nred,0,1e5,5\nblue,0,1e5,5\n")
    code, out, err = nagcore("predict", "m", "new.csv")
    assert code == 0, err
    assert out.splitlines() == ["kind", "yes", "no"]


# ---- predict


def test_predict_writes_csv_and_npy_and_scores(nagcore, tmp_path):
    _csv(tmp_path / "t.csv")
    nagcore("fit", "t.csv", "--target", "kind", "-o", "m")
    code, out, _ = nagcore("predict", "m", "t.csv", "-o", "p.csv")
    assert code == 0
    assert "400 rows: accuracy 0." in out
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "kind"
    assert set(lines[1:]) == {"yes", "no"}
    nagcore("predict", "m", "t.csv", "-o", "p.npy", "--proba")
    p = np.load(tmp_path / "p.npy", allow_pickle=False)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(np.where(p[:, 1] > 0.5, "yes", "no"), lines[1:])
    code, out, err = nagcore("predict", "m", "t.csv", "--proba")
    assert out.splitlines()[0] == "p(no),p(yes)"
    assert "accuracy" in err  # not in the pipe


@pytest.mark.parametrize("kind", ["npy", "npz", "svm", "digits"])
def test_predict_every_format(nagcore, tmp_path, kind):
    from sklearn.datasets import dump_svmlight_file, load_digits

    X, y = load_digits(return_X_y=True)
    data, target = {"npy": ("a.npy", ["--target", "-1"])}.get(kind, (f"a.{kind}", []))
    if kind == "npy":
        np.save(tmp_path / data, np.column_stack([X, y]))
    elif kind == "npz":
        np.savez(tmp_path / data, X=X, y=y)
    elif kind == "svm":
        dump_svmlight_file(X, y, str(tmp_path / data), zero_based=False)
    else:
        data = "digits"
    code, _, err = nagcore("fit", data, *target, "-o", "m")
    assert code == 0, err
    code, out, err = nagcore("predict", "m", data, "-o", "p.npy")
    assert code == 0, err
    assert "1,797 rows: accuracy 0.9" in out
    assert np.mean(np.load(tmp_path / "p.npy") == y) > 0.95
    if kind == "npy":  # without the target column
        np.save(tmp_path / "x.npy", X)
        code, out, _ = nagcore("predict", "m", "x.npy", "-o", "q.npy")
        assert (code, "accuracy" in out) == (0, False)
        np.testing.assert_array_equal(np.load(tmp_path / "q.npy"), np.load(tmp_path / "p.npy"))


def test_predict_errors(nagcore, tmp_path):
    _csv(tmp_path / "t.csv")
    nagcore("fit", "t.csv", "--target", "kind", "-o", "m")
    nagcore("fit", "diabetes", "-o", "real")
    whole = (tmp_path / "m").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "few.csv").write_text("a,b\n1,2\n")
    for arguments, message in (
        (["none", "t.csv"], "no such model"),
        (["cut", "t.csv"], "not a whole nagcore model"),
        (["t.csv", "t.csv"], "not a whole nagcore model"),
        (["m", "few.csv"], "no column 'c', which the model needs"),
        (["m", "t.csv", "-o", "p.txt"], "neither .csv nor .npy"),
        (["real", "diabetes", "--proba"], "gives no probabilities"),
        (["m", "digits"], "takes 3 features"),
    ):
        code, _, err = nagcore("predict", *arguments)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


# ---- plot, doctor, version


def test_plot_draws_models_and_json_together(nagcore, tmp_path):
    pytest.importorskip("matplotlib")
    nagcore("fit", "breast_cancer", "-o", "a.nagcore")
    _, out, _ = nagcore("fit", "breast_cancer", "--solver", "acfgm", "--json")
    (tmp_path / "b.json").write_text(out)
    code, out, err = nagcore("plot", "a.nagcore", "b.json", "-o", "p.svg", "--title", "two")
    assert code == 0, err
    picture = (tmp_path / "p.svg").read_text()
    assert "<svg" in picture
    (tmp_path / "c.json").write_text('{"history": 3}')
    for arguments, message in (
        (["none"], "no such file"),
        (["c.json"], "holds no history"),
        (["a.nagcore", "-o", "p.q"], "'q'"),
    ):
        code, _, err = nagcore("plot", *arguments)
        assert code == 2
        assert message in err


def test_version(nagcore):
    import nagcore as package

    try:
        metadata.version("nagcore")
    except metadata.PackageNotFoundError:
        pytest.skip("nagcore runs from its source tree and is not installed")
    code, out, _ = nagcore("--version")
    assert code == 0
    assert out == f"nagcore {package.__version__}\n"


def test_missing_typer_is_one_line(capsys, monkeypatch):
    for name in [n for n in sys.modules if n.startswith(("typer", "nagcore.cli.app"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as end:
        main(["fit", "digits"])
    assert end.value.code == 2
    expected = "nagcore: the command line needs typer; pip install 'nagcore[cli]'\n"
    assert capsys.readouterr().err == expected


# ---- Ctrl-C

_TELLS_WHEN_IT_RUNS = """
import sys
from nagcore.cli import main, show

draw = show.FitProgress.__call__

def tell(self, state):
    if state.n_iter == 30:
        print("running", flush=True)
    return draw(self, state)

show.FitProgress.__call__ = tell
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.parametrize("output", [["-o", "m.nagcore"], []])
def test_ctrl_c_keeps_the_model_so_far(tmp_path, output):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60_000, 60)).astype(np.float32)
    np.savez(tmp_path / "a.npz", X=X, y=(X @ rng.normal(size=60) > 0).astype(int))
    options = ["--tol", "0", "--max-passes", "1000000", "--l2", "1e-12", "--threads", "2"]
    (tmp_path / "run.py").write_text(_TELLS_WHEN_IT_RUNS)
    process = subprocess.Popen(
        [sys.executable, "run.py", "fit", "a.npz", *options, *output],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "running\n", process.communicate()
    process.send_signal(signal.SIGINT)
    start = time.perf_counter()
    _, err = process.communicate(timeout=20)
    assert time.perf_counter() - start < 5  # well within a second on an idle machine
    assert process.returncode == 130, err
    assert "Traceback" not in err
    name = "m.nagcore" if output else "a-interrupted.nagcore"
    assert f"interrupted; the model so far is in {name}" in err
    model = load_model(tmp_path / name)
    assert model.info["message"] == "interrupted"
    assert np.isfinite(model.coef).all()
    assert np.mean(model.predict(X) == np.load(tmp_path / "a.npz")["y"]) > 0.9
