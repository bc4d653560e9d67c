"""nagcore bench: every section runs, results are checked before they are timed."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("scipy")

from nagcore import _core, bench
from nagcore.bench import dense, measure, others

KEYS = {
    "section", "kernel", "dtype", "layout", "n", "d", "k", "seconds", "bytes", "gbps", "roof",
    "roof_gbps", "ratio_roof", "reach_roof", "peer", "peer_seconds", "peer_gbps", "ratio_peer",
    "reach_peer", "error",
}  # fmt: skip


@pytest.fixture(scope="module")
def quick():
    """One quick run of everything: (report, rows as they came)."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        # torch takes seconds to start, and threads of two OpenMP runtimes on few cores take more.
        patch.setattr(bench.update, "_torch_step", lambda *shape: None)
        patch.delenv("NAGCORE_DATA", raising=False)
        return bench.run(quick=True, n_threads=2, on_row=seen.append), seen


def test_rows_of_every_section_are_filled(quick):
    report, seen = quick
    assert report["rows"] == seen
    assert {row["section"] for row in seen} == set(bench.SECTIONS)
    for row in seen:
        assert set(row) >= KEYS
        if row["seconds"] is not None and row["bytes"]:
            assert row["gbps"] == pytest.approx(row["bytes"] / row["seconds"] / 1e9)
        if row["ratio_roof"] is not None:
            assert row["ratio_roof"] > 0
    json.dumps(report)


def test_ratios_are_those_of_the_columns_where_rounds_agree(monkeypatch):
    seconds = {"read": 1.0, "stream": 1.25, "numpy": 6.0, "float32": 5.0, "bfloat16": 3.0}

    def race(work, effort):
        return measure.Times({name: [seconds.get(name, 2.0)] * 3 for name in work})

    for module in (bench.dense, bench.others, bench.update):
        monkeypatch.setattr(module, "race", race)
    monkeypatch.setattr(bench.update, "_torch_step", lambda *shape: None)
    monkeypatch.delenv("NAGCORE_DATA", raising=False)
    rows = bench.run(("dense", "narrow", "softmax", "sparse", "update"), quick=True)["rows"]
    roofs = [row for row in rows if row["ratio_roof"] is not None]
    peers = [row for row in rows if row["ratio_peer"] is not None]
    assert {row["section"] for row in roofs} == {"dense", "narrow", "softmax", "sparse", "update"}
    assert {row["section"] for row in peers} == {"dense", "narrow", "softmax", "sparse"}
    for row in roofs:
        assert row["ratio_roof"] == pytest.approx(row["gbps"] / row["roof_gbps"])
    for row in peers:
        assert row["ratio_peer"] == pytest.approx(row["peer_seconds"] / row["seconds"])


def test_dense_rows_have_both_losses_all_dtypes_and_all_d(quick):
    rows = [row for row in quick[0]["rows"] if row["section"] in ("dense", "narrow")]
    assert {(r["kernel"], r["dtype"], r["d"]) for r in rows} == {
        (kernel, dtype, d)
        for kernel in ("logistic", "squared")
        for dtype in ("float32", "float64", "bfloat16", "uint8")
        for d in measure.QUICK.dims
    }
    assert measure.FULL.dims == (50, 100, 200, 1000, 10_000, 100_000)
    assert measure.FULL.bytes >= 400_000_000


def test_columns_are_measured_where_they_are_asked_for():
    rows = bench.run(("columns",), quick=True)["rows"]
    assert {(r["dtype"], r["d"]) for r in rows} == {
        (dtype, d) for dtype in ("float32", "float64") for d in measure.QUICK.dims
    }
    for row in rows:
        assert row["layout"] == "F"
        assert bench.reached(row) is None
        assert set(row) >= KEYS


class _Wrong:
    """A Problem whose gradient is off by a part in 10⁴."""

    def __init__(self, *args, **how):
        self.problem = _core.Problem(*args, **how)
        self.nbytes = self.problem.nbytes

    def value_and_grad(self, w, grad=None):
        value, g = self.problem.value_and_grad(w, grad)
        g *= 1 + 1e-4
        return value, g


@pytest.mark.parametrize("section", ["dense", "narrow", "softmax", "sparse", "accuracy"])
def test_wrong_results_are_not_timed(section, monkeypatch):
    class Core:
        Problem = _Wrong

        def __getattr__(self, name):
            return getattr(_core, name)

    monkeypatch.setattr(dense, "_core", Core())
    monkeypatch.setattr(others, "_core", Core())
    if section == "softmax":  # whose rival is float32: the error has to be larger than its rounding
        monkeypatch.setattr(_Wrong, "value_and_grad", lambda self, w, grad=None: (1e3, w * 0 + 1))
    with pytest.raises(AssertionError, match="differ by"):
        bench.run((section,), quick=True)


def test_wrong_update_is_not_timed(monkeypatch):
    real = bench.update.nesterov_step_
    monkeypatch.setattr(
        bench.update, "nesterov_step_", lambda p, g, b, **rule: real(p, g, b, **{**rule, "lr": 0.1})
    )
    with pytest.raises(AssertionError, match="update of"):
        bench.run(("update",), quick=True)


def test_relative_error_measures_what_it_says():
    """An error put in comes out, in units of eps·magnitude; NumPy in float64 has about none."""
    X = dense.make_dense(500, 7, "float64")
    y, w = dense.make_targets(500, "logistic", float), np.full(7, 0.2)
    value, grad = dense.numpy_two_pass("logistic", X, X.T, y, w)
    assert dense.relative_error("logistic", X, "float64", y, w, value, grad) < 4
    z = X @ w
    p = 1 / (1 + np.exp(y * z))
    size = np.abs(X).T @ (p + p * (1 - p) * (np.abs(X) @ np.abs(w))) / 500
    off = grad.copy()
    off[3] += 1000 * 2.0**-52 * size[3]
    got = dense.relative_error("logistic", X, "float64", y, w, value, off)
    assert got == pytest.approx(1000, rel=0.01)


def test_race_is_interleaved_and_takes_medians():
    order = []
    work = {name: (lambda name=name: order.append(name)) for name in "ab"}
    effort = measure.Effort(rounds=3, turn=0.0, pause=0.0)
    times = measure.race(work, effort)
    assert "".join(order) == "aabb" + "aabb" * 3  # twice to size a turn; then untimed, timed
    assert all(t >= 0 for t in times.values())


def test_ratios_are_of_the_same_round():
    """A machine that halves its speed after the second round: either median is of another half."""
    times = measure.Times({"ours": [1.0, 1.0, 2.0, 2.0, 2.0], "theirs": [3.0, 3.0, 3.0, 6.0, 6.0]})
    assert (times["ours"], times["theirs"]) == (2.0, 3.0)
    assert times.ratio("theirs", "ours") == 3.0


def test_sparse_shapes():
    X = others.make_sparse(2000, 30_000, 157, zipf=True)
    assert X.has_sorted_indices
    assert X.has_canonical_format
    assert 120 < X.nnz / 2000 < 200
    assert X.indices.dtype == np.int32
    np.testing.assert_allclose(np.sqrt(X.multiply(X).sum(axis=1)), 1, rtol=1e-12)
    popular = np.sort(np.bincount(X.indices, minlength=30_000))[::-1]
    assert popular[:300].sum() > 0.3 * X.nnz  # one column in a hundred: a third of the entries
    assert (popular == 0).any() or popular[-1] < popular[0] / 50
    a9a = others.make_sparse(1000, 123, 14, zipf=False)
    assert set(a9a.data) == {1.0}
    assert 12 < a9a.nnz / 1000 <= 14


def test_real_data_come_from_a_folder(tmp_path, monkeypatch):
    (tmp_path / "load.py").write_text(
        "import numpy as np, scipy.sparse as s\n"
        "def load(name):\n"
        "    X = s.random(200, 50, 0.1, format='csr', random_state=0)\n"
        "    return dict(X_train=X, y_train=np.zeros(200))\n"
    )
    monkeypatch.setenv("NAGCORE_DATA", str(tmp_path))
    report = bench.run(("sparse",), quick=True)
    assert report["data"] == "real"
    assert {row["kernel"] for row in report["rows"]} == {"logistic 20news", "logistic a9a"}
    assert {row["n"] for row in report["rows"]} == {200}
    with pytest.raises(FileNotFoundError, match=r"has no load\.py"):
        bench.run(("sparse",), quick=True, data=str(tmp_path / "none"))


def test_reached():
    assert (
        bench.reached({"ratio_roof": 0.89, "reach_roof": 0.9, "ratio_peer": 3, "reach_peer": 2})
        is False
    )
    assert bench.reached({"ratio_roof": 0.91, "reach_roof": 0.9, "ratio_peer": 3, "reach_peer": 2})
    assert bench.reached({"error": 9, "reach_error": 8}) is False
    assert bench.reached({"seconds": 0.02, "reach_seconds": 0.03}) is True


def test_run_refuses():
    with pytest.raises(ValueError, match="no section 'fast'; choose from dense"):
        bench.run(("fast",))
    with pytest.raises(ValueError, match="n_threads is 0"):
        bench.run(n_threads=0)


def test_bench_command_writes_json_and_a_picture(capsys, tmp_path, monkeypatch):
    pytest.importorskip("typer")
    pytest.importorskip("matplotlib")
    from nagcore.cli import main

    def command(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        return end.value.code or 0, *capsys.readouterr()

    monkeypatch.setattr(measure, "QUICK", measure.Effort(400_000, 1, 1000, 0.0, 0.0, (50,), 10_000))
    monkeypatch.setattr(bench, "QUICK", measure.QUICK)
    path = tmp_path / "b.json"
    code, out, err = command("bench", "--quick", "--only", "dense", "--json", path)
    assert code == 0, err
    assert out.count("logistic") == out.count("squared") == 2
    report = json.loads(path.read_text())
    assert report["machine"]["isa"] == _core.active_isa()
    assert len(report["rows"]) == 4
    code, out, err = command("plot", path, "-o", tmp_path / "b.png")
    assert code == 0, err
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = command("bench", "--only", "fast")
    assert (code, err.count("\n")) == (2, 1)
    monkeypatch.setattr(dense, "relative_error", lambda *a: float("nan"))
    code, _, err = command("bench", "--quick", "--only", "dense")
    assert code == 1
    assert "results differ" in err
