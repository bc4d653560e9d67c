"""shifted_loss: the loss at margins shifted alike, with means over its residuals, for every loss."""

from __future__ import annotations

import numpy as np
import pytest

from cases import LOSSES
from nagcore import Objective
from solvers.problems import fit_case


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_shifted_loss_is_what_margins_say(loss, weights, dtype):
    case = fit_case(loss, weights=weights, n=701)
    objective = Objective(**(case | {"X": case["X"].astype(dtype)}))
    problem, rng = objective.problem.core, np.random.default_rng(0)
    z = rng.normal(size=(701, *objective.w_shape[1:])).astype(dtype)
    b = rng.normal(size=z.shape[1:])
    s = objective.s if weights else np.full(701, 1 / 701)
    eps = float(np.finfo(dtype).eps)
    for shift in (None, float(b) if z.ndim == 1 else b):
        moved, r, want = np.empty_like(z), np.empty_like(z), np.empty_like(z)
        value, mean, size = problem.shifted_loss(z, shift, None if shift is None else moved, r)
        at = z if shift is None else (z.astype(np.float64) + b).astype(dtype)
        assert value == pytest.approx(problem.loss_from_margins(at, want), rel=1e-14)
        np.testing.assert_array_equal(r, want)
        if shift is not None:
            np.testing.assert_array_equal(moved, at)
        wide = want.astype(np.float64)
        scale = np.abs(wide).max()
        np.testing.assert_allclose(mean, s @ wide, atol=4 * eps * scale)
        assert size == pytest.approx(float((s @ np.abs(wide)).max()), rel=4 * eps)


def test_shifted_loss_gives_the_same_bits_for_every_number_of_threads():
    case = fit_case("softmax", n=120) | {"n_threads": 1}
    case["X"], case["y"] = np.tile(case["X"], (90, 1)), np.tile(case["y"], 90)
    z = np.random.default_rng(0).normal(size=(10800, 3))
    first, second = (Objective(**(case | {"n_threads": n})).problem.core.shifted_loss(z, np.arange(3.0))
                     for n in (1, 2))
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])
    assert first[2] == second[2]


def test_shifted_loss_names_what_it_does_not_take():
    problem = Objective(**fit_case("softmax")).problem.core
    z = np.zeros((120, 3))
    for wrong, message in (
        ((z, np.zeros(2)), r"b has shape \(2,\); \(3,\) is needed"),
        ((z, None, z), "moved and z overlap"),
        ((np.zeros(120),), "z has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            problem.shifted_loss(*wrong)
