"""nagcore bench torch: every row runs, agrees with torch first, and stands under its names."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

import nagcore.torch.sgd  # noqa: E402
from nagcore import bench  # noqa: E402
from nagcore.bench import measure  # noqa: E402
from nagcore.bench import torch as bench_torch  # noqa: E402


def test_rows_of_torch_are_filled():
    before = torch.get_num_threads()
    # One thread: with two, torch's and ours spin in each other's way, for minutes on a busy machine.
    rows = bench.run(("torch",), quick=True, n_threads=1)["rows"]
    assert torch.get_num_threads() == before
    assert [r["kernel"] for r in rows] == [
        "step, one tensor", "step, GPT-2", "step, 1000 of 64×64", "step, 1000 of 32×32",
        "step, 1000 of 256", "step, 100k MLP", "step, ResNet-50", "unscale+clip+step+EMA, GPT-2",
        "step, GPT-2", "step, 161 of 1", "step, 1000 of 1",
    ]  # fmt: skip
    for row in rows:
        assert row["section"] == "torch"
        assert row["ratio_peer"] > 0
        assert row["error"] is not None
    assert [r["n"] for r in rows[:7]] == [1, 148, 1000, 1000, 1000, 8, 161]


def test_ratios_are_those_of_the_columns_where_rounds_agree(monkeypatch):
    seconds = {"nagcore": 2.0, "torch": 5.0, "float32": 3.0, "stream": 1.5, "update": 0.5}

    def race(work, effort):
        return measure.Times({name: [seconds[name]] * 3 for name in work})

    monkeypatch.setattr(bench_torch, "race", race)
    rows = bench.run(("torch",), quick=True, n_threads=1)["rows"]
    for row in rows:
        assert row["ratio_peer"] == (1.5 if row["dtype"] == "bfloat16 state" else 2.5)
        assert row["ratio_roof"] == (0.75 if row["roof"] else None)
        assert row["peer_seconds"] == 2 * row["ratio_peer"]


def test_torch_is_measured_only_when_it_is_named():
    assert "torch" not in bench.SECTIONS
    with pytest.raises(ValueError, match="torch"):
        bench.run(("flame",), quick=True)


def test_a_wrong_step_is_not_timed(monkeypatch):
    real = nagcore.torch.SGD._step

    def off(self, loss):
        real(self, loss)
        with torch.no_grad():
            self.param_groups[0]["params"][0].view(-1)[0].add_(1e-3)

    monkeypatch.setattr(nagcore.torch.SGD, "_step", off)
    monkeypatch.setattr(measure, "race", None)
    with pytest.raises(AssertionError, match="step of one tensor: results differ"):
        bench.run(("torch",), quick=True)


def test_long_steps_are_measured_in_more_rounds():
    effort = measure.Effort(rounds=5)
    assert bench_torch._rounds(effort, [(100, 100)]) is effort
    assert bench_torch._rounds(effort, bench_torch.gpt2_shapes()).rounds == 15
    assert bench_torch._rounds(effort, [(4000, 4000)]).rounds == 15
