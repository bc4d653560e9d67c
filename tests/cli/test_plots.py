"""Pictures: right data on right axes, and nothing global changed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from nagcore import plots


def _history(n=40, gap=True):
    return [
        {"n_passes": 2 * i, "seconds": i / 7, "value": 1 + 0.8**i, "gap": 0.8**i if gap else None}
        for i in range(1, n + 1)
    ]


def test_convergence_draws_the_history(tmp_path):
    figure = plots.convergence({"fista": _history(), "acfgm": _history(20)}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    objective, seconds, gap, last = figure.axes
    assert gap.get_xlabel() == "passes over the data"
    assert last.get_xlabel() == "time (seconds)"
    assert "objective" in objective.get_ylabel()
    assert gap.get_yscale() == "log"
    line = objective.lines[0]
    np.testing.assert_allclose(line.get_xdata(), 2 * np.arange(1, 41))
    np.testing.assert_allclose(line.get_ydata(), 1 + 0.8 ** np.arange(1, 41))
    np.testing.assert_allclose(last.lines[1].get_xdata(), np.arange(1, 21) / 7)
    # Told apart without colour, too.
    assert objective.lines[0].get_linestyle() != objective.lines[1].get_linestyle()
    assert [text.get_text() for text in seconds.get_legend().get_texts()] == ["fista", "acfgm"]


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), 0.0])
def test_convergence_without_gaps(missing):
    history = [{**row, "gap": missing} for row in _history()]
    figure = plots.convergence({"a": history})
    figure.canvas.draw()
    assert figure.axes[2].get_yscale() == "linear"
    assert np.isfinite(figure.axes[0].lines[0].get_ydata()).all()


def test_bandwidth_draws_each_dtype():
    rows = [
        {"kernel": "logistic", "dtype": t, "layout": "C", "d": d, "gbps": 18.0, "roof_gbps": 20.0,
         "peer_gbps": 6.0}
        for t in ("float64", "float32") for d in (1000, 50)
    ]  # fmt: skip
    figure = plots.bandwidth(rows)
    assert [axes.get_title() for axes in figure.axes] == ["logistic, float32", "logistic, float64"]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["50", "1,000"]
    with pytest.raises(ValueError, match="no dense logistic"):
        plots.bandwidth([{**rows[0], "kernel": "softmax"}])


def test_plots_refuse(tmp_path):
    with pytest.raises(ValueError, match="'a' is empty"):
        plots.convergence({"a": []})
    with pytest.raises(ValueError, match=r"ends in 'bmp2'; matplotlib writes .*png"):
        plots.convergence({"a": _history()}, tmp_path / "a.bmp2")


def test_pyplot_is_never_imported(tmp_path):
    import subprocess

    code = (
        "import sys; from nagcore import plots; assert 'matplotlib' not in sys.modules; "
        "plots.convergence({'a': [dict(n_passes=1, seconds=1, value=1, gap=1)]}, 'a.png'); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_missing_matplotlib_is_one_line(monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError) as caught:
        plots.convergence({"a": _history()})
    assert str(caught.value) == "drawing needs matplotlib; pip install 'nagcore[plots]'"
