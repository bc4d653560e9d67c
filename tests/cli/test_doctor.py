"""nagcore.doctor: it passes on right kernels, and notices a wrong one."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

import nagcore
import nagcore.checkup as door
from nagcore import _core, reference


@pytest.fixture(scope="module")
def report():
    return nagcore.doctor(n_threads=(1, 3))


def test_doctor_covers_all_kinds_and_agrees(report):
    assert report.ok, str(report)
    seen = {(row["isa"], row["dtype"], row["layout"]) for row in report.rows}
    for isa in _core.isa_names():
        for dtype in ("float64", "float32", "bfloat16", "uint8"):
            for layout in ("C", "F", "strided"):
                assert (isa, dtype, layout) in seen
        for dtype in ("float32", "float64", "float16"):
            assert (isa, dtype, "list") in seen  # the update
    pytest.importorskip("scipy")
    assert (_core.active_isa(), "float32", "csr") in seen
    losses = [row for row in report.rows if row["layout"] != "list"]
    assert {row["checks"] for row in losses} == {2 * len(_core.loss_names())}


def test_doctor_prints_a_table(report):
    text = str(report)
    assert "All kernels agree" in text
    assert len(text.splitlines()) > len(report.rows)
    assert _core.active_isa() in text


def test_doctor_stays_the_function_when_its_module_is_imported():
    importlib.import_module("nagcore.checkup")
    assert nagcore.doctor is door.doctor


def _only(rows, **wanted):
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def test_doctor_notices_a_wrong_gradient(monkeypatch):
    real = reference.value_and_grad

    def wrong(X, y, w, *, loss, **how):
        value, grad = real(X, y, w, loss=loss, **how)
        if loss == "huber" and X.dtype == np.float32:
            grad[3] *= 1 + 1e-4
        return value, grad

    monkeypatch.setattr(reference, "value_and_grad", wrong)
    report = nagcore.doctor(losses=["huber", "squared"], n_threads=(1,))
    assert not report.ok
    for row in _only(report.rows, what="2 losses"):
        assert row["ok"] == (row["dtype"] != "float32")
        assert row["wrong"] == ([] if row["ok"] else ["huber"])
    assert "DISAGREE" in str(report)
    assert "WRONG" in str(report)


def test_doctor_notices_a_nan(monkeypatch):
    real = reference.value_and_grad
    monkeypatch.setattr(
        reference, "value_and_grad", lambda *a, **k: (float("nan"), real(*a, **k)[1])
    )
    assert not nagcore.doctor(losses=["squared"], n_threads=(1,)).ok


def test_doctor_notices_bits_that_depend_on_threads(monkeypatch):
    class Unsteady:
        def __init__(self, *args, n_threads=None, **how):
            self.problem, self.threads = _core.Problem(*args, n_threads=n_threads, **how), n_threads

        def value_and_grad(self, w):
            value, grad = self.problem.value_and_grad(w)
            return (np.nextafter(value, 9) if self.threads == 2 else value), grad

    class Core:
        Problem = Unsteady

        def __getattr__(self, name):
            return getattr(_core, name)

    monkeypatch.setattr(door, "_core", Core())
    report = door.doctor(losses=["squared"], n_threads=(1, 2))
    losses = _only(report.rows, what="squared")
    assert losses
    assert not any(row["same_bits"] or row["ok"] for row in losses)


def test_doctor_notices_a_wrong_update(monkeypatch):
    real = reference.nesterov_step

    def wrong(*arrays, **rule):
        step = real(*arrays, **rule)
        step.params[2][5] = np.nextafter(step.params[2][5], np.float32(9))
        return step

    monkeypatch.setattr(reference, "nesterov_step", wrong)
    report = nagcore.doctor(losses=["squared"], n_threads=(1,))
    rows = _only(report.rows, what="update", isa=_core.active_isa(), dtype="float32")
    if _core.active_isa() != "baseline":  # there one unit in the last place is allowed
        assert [row["ok"] for row in rows] == [False]


def test_doctor_refuses_unknown_losses():
    with pytest.raises(ValueError, match="'hinge' is not one of"):
        nagcore.doctor(losses=["hinge"])


@pytest.mark.parametrize("broken", [False, True])
def test_doctor_command(capsys, monkeypatch, broken):
    pytest.importorskip("typer")
    from nagcore.cli import main

    row = {"what": "w", "isa": "v3", "dtype": "float32", "layout": "C", "checks": 1, "worst": 0.5,
           "bound": 8.0, "same_bits": True, "ok": not broken}  # fmt: skip
    monkeypatch.setattr(door, "doctor", lambda: door.Report([row], {"isa": "v3"}))
    for arguments in (["doctor"], ["doctor", "--json"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert (end.value.code or 0) == (1 if broken else 0)
        out = capsys.readouterr().out
        if "--json" in arguments:
            assert json.loads(out)["ok"] is not broken
        else:
            assert ("DISAGREE" in out) is broken
