"""Every registered loss has its oracle, every oracle its loss, and both say the same of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cases import targets
from nagcore import _core, reference


def test_every_registered_loss_has_an_oracle_and_vice_versa():
    registered = _core.loss_names()
    assert isinstance(registered, tuple)
    assert len(set(registered)) == len(registered)
    assert set(registered) == set(reference.LOSSES)


def test_the_registry_holds_the_losses_of_the_maths():
    assert {"squared", "logistic", "softmax", "huber", "poisson", "squared_hinge"} <= set(
        _core.loss_names()
    )


@pytest.mark.parametrize("loss", sorted(reference.LOSSES))
def test_registry_and_oracle_agree_on_targets_and_curvature(loss):
    info, oracle = _core.loss_info(loss), reference.LOSSES[loss]
    assert info["name"] == loss == oracle.name
    assert info["targets"] == oracle.targets
    assert info["curvature_bound"] == oracle.bound
    assert math.isinf(info["curvature_bound"]) == (loss == "poisson")
    assert info["section"]


def test_sections_of_the_maths_are_distinct():
    sections = [_core.loss_info(name)["section"] for name in _core.loss_names()]
    assert len(set(sections)) == len(sections)


@pytest.mark.parametrize("loss", sorted(reference.LOSSES))
def test_every_registered_loss_runs(loss):
    rng = np.random.default_rng(0)
    problem = _core.Problem(rng.normal(size=(9, 2)), targets(loss, 9, rng), loss=loss)
    w = np.zeros((2, problem.k) if loss == "softmax" else 2)
    value, _ = problem.value_and_grad(w)
    assert np.isfinite(value)


def test_unknown_loss_is_refused_by_name():
    with pytest.raises(ValueError, match=r"absolute.*logistic"):
        _core.Problem(np.ones((2, 1)), np.ones(2), loss="absolute")
    with pytest.raises((KeyError, ValueError), match="absolute"):
        _core.loss_info("absolute")


def test_instruction_sets_are_named_best_first():
    names = _core.isa_names()
    assert isinstance(names, tuple)
    assert names
    assert _core.active_isa() in names
    assert names[-1] in ("baseline", "neon")
    with pytest.raises(ValueError, match="v9000"):
        _core.Problem(np.ones((2, 1)), np.ones(2), loss="squared", isa="v9000")
