"""`nagcore fit --storage`: the same minimum by way of a narrower copy, or a word on why there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("sklearn")

from nagcore.model_io import load_model


@pytest.mark.parametrize("scale", ["standard", "none"])
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_fit_on_a_narrower_copy_ends_at_the_same_minimum(nagcore, tmp_path, storage, scale):
    """Also in scaled features, and about origins where columns are far from zero."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 40)) * np.geomspace(1, 1e-2, 40) + np.arange(40)
    z = (X - np.arange(40)) @ rng.standard_normal(40)
    np.savez(tmp_path / "a.npz", X=X, y=(z + rng.logistic(size=4000) > 0).astype(int))
    options = ["a.npz", "--tol", 1e-9, "--l2", 1e-3, "--scale", scale, "--solver", "plbfgs", "--json"]
    _, out, _ = nagcore("fit", *options, "-o", "plain")
    plain = json.loads(out)
    code, out, err = nagcore("fit", *options, "--storage", storage, "-o", "copied")
    assert (code, err) == (0, "")
    copied = json.loads(out)
    assert "copy of X" not in plain["why"]
    assert f"early passes on a copy of X in {storage}" in copied["why"]
    assert (copied["converged"], copied["gap_kind"]) == (True, "certificate")
    assert copied["objective"] == pytest.approx(plain["objective"], rel=1e-8)
    assert copied["passes"] < plain["passes"]
    want, got = load_model("plain"), load_model("copied")
    size = np.abs(want.coef * X.std(axis=0)).max() / X.std(axis=0)
    assert (np.abs(got.coef - want.coef) <= 1e-3 * size).all()


@pytest.mark.parametrize(("options", "reason"), [
    (["--dtype", "float32", "--scale", "standard"], "X is float32 as it is"),
    (["--dtype", "float32", "--scale", "none"], "X is float32 as it is"),
    (["--scale", "range"], "X is read with scale, shift or dtype"),
    (["--max-passes", 9, "--scale", "none"], "it takes more than max_passes=9 to pay"),
])  # fmt: skip
def test_fit_says_why_there_is_no_narrower_copy(nagcore, options, reason):
    code, out, _ = nagcore("fit", "breast_cancer", "--storage", "float32", *options)
    assert code == 0
    assert f"no copy in float32: {reason}" in " ".join(out.split())
