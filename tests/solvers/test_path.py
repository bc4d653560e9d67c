"""The path: strengths, warm starts, counts, ends, errors."""

from __future__ import annotations

import numpy as np
import pytest

from nagcore import Objective, minimize
from nagcore.solvers import largest_strength, path
from solvers.problems import fit_case


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_every_solution_is_that_of_its_strength_alone(loss, l1_ratio):
    case = fit_case(loss, "correlated", "l2", weights=True) | {"l2": 0.0}
    objective = Objective(**case)
    found = path(objective, l1_ratio=l1_ratio, n_strengths=8, eps=1e-2, tol=1e-8)
    assert found.n_passes == objective.n_passes
    assert not found.coefs[..., 0].any()
    assert found.coefs[..., 2].any()
    assert (np.diff(found.strengths) < 0).all()
    assert found.coefs.shape == (*objective.w_shape[:0], 6, *objective.w_shape[1:], 8)
    for j, strength in enumerate(found.strengths):
        alone = minimize(Objective(**case | {"l1": l1_ratio * strength, "l2": (1 - l1_ratio) * strength}),
                         tol=1e-8)
        assert abs(alone.value - found.results[j].value) <= alone.gap + found.gaps[j] + 1e-13
        assert found.results[j].gap_kind == "certificate"
        assert found.results[j].converged or (j == 0 and found.gaps[j] < 1e-12)  # nothing to gain there


def test_warm_starts_pay():
    case = fit_case("logistic", "correlated") | {"l2": 0.0}
    objective = Objective(**case)
    strengths = largest_strength(objective) * np.geomspace(1, 1e-3, 20)
    warm = path(objective, strengths=strengths, tol=1e-6).n_passes
    cold = sum(minimize(objective.with_penalty(0.0, s), tol=1e-6).n_passes for s in strengths)
    assert warm < cold


def test_largest_strength_is_where_the_first_coefficient_moves():
    for positive in (False, True):
        objective = Objective(**fit_case("squared", "scales") | {"l2": 0.0, "positive": positive})
        strength = largest_strength(objective)
        assert not minimize(objective.with_penalty(0.0, strength * (1 + 1e-9)), tol=1e-12).coef.any()
        assert minimize(objective.with_penalty(0.0, strength * (1 - 1e-3)), tol=1e-12).coef.any()


@pytest.mark.parametrize(("how", "words"), [
    ({"l1_ratio": 1.5}, "l1_ratio is 1.5"), ({"eps": -1}, "eps is -1"),
    ({"n_strengths": 0}, "n_strengths is 0"), ({"strengths": []}, "strengths must be"),
    ({"strengths": [np.nan]}, "strengths must be"), ({"tol": -1.0}, "tol is -1"),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(how, words):
    with pytest.raises(ValueError, match=words):
        path(Objective(**fit_case("squared")), **how)
    with pytest.raises(TypeError, match="path takes a nagcore"):
        path(np.eye(3))
