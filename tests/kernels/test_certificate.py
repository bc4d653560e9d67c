"""certify in the core against the NumPy certificate, which problems that are not the core's still take."""

from __future__ import annotations

import numpy as np
import pytest

from cases import LOSSES
from nagcore import Objective, _core
from nagcore.objective.duality import certify
from solvers.problems import fit_case


class Plain:
    """A problem's core behind a name of its own, so that Python does what the core would."""

    def __init__(self, core, second_order):
        self.within, self.second_order = core, second_order
        for name in ("n", "d", "p", "k", "compute", "loss", "margins", "rmatvec", "value_and_grad",
                     "loss_from_margins", "curvature_from_margins"):
            setattr(self, name, getattr(core, name))


class PlainCore:
    """What `Plain` shows of the core: its loss, to which `_scaling_gap` looks."""

    def __init__(self, loss):
        self.loss = loss


def both(objective, w, **known):
    core = objective.wide.core
    plain = Plain(core, core.k == 1)
    plain.core = PlainCore(core.loss)
    args = objective.penalty, objective.s, objective.loss.curvature_bound
    return (certify(objective.wide, w, *args, **known), certify(plain, w, *args, **known))


@pytest.mark.parametrize("penalty", [(0.0, 0.1), (0.05, 0.0), (0.05, 0.02)])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_certificate_is_what_numpy_proves(loss, weights, fit_intercept, penalty):
    l1, l2 = penalty
    case = fit_case(loss, weights=weights) | {"l1": l1, "l2": l2, "fit_intercept": fit_intercept}
    objective, rng = Objective(**case), np.random.default_rng(0)
    for size in (0.0, 1e-3, 0.3):
        w = size * rng.normal(size=objective.w_shape)
        found, want = both(objective, w)
        assert found.value == pytest.approx(want.value, rel=1e-11)
        assert found.given_value == pytest.approx(want.given_value, rel=1e-11)
        assert found.gap == pytest.approx(want.gap, rel=1e-7, abs=1e-12)
        np.testing.assert_allclose(found.w, want.w, rtol=1e-9, atol=1e-10)
        if want.slope is None:
            assert found.slope is None
        else:
            np.testing.assert_allclose(found.slope, want.slope, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", ["logistic", "softmax", "poisson"])
def test_certificate_takes_what_is_known(loss, fit_intercept):
    objective = Objective(**fit_case(loss) | {"l1": 0.05, "l2": 0.0, "fit_intercept": fit_intercept})
    w = 0.1 * np.random.default_rng(1).normal(size=objective.w_shape)
    problem = objective.wide
    z = problem.margins(w)
    r = np.empty_like(z)
    _, u = problem.value_and_grad(w, None, None, r)
    before, kept = objective.n_passes, z.copy()
    known = {"z": z, "spare": np.empty_like(z)} if fit_intercept else {"z": z, "u": u, "r": r}
    found, plain = certify(problem, w, objective.penalty, None, objective.loss.curvature_bound, **known), None
    assert objective.n_passes == before + fit_intercept
    np.testing.assert_array_equal(z, kept)
    plain = objective.certify(w)
    assert (found.value, found.given_value) == pytest.approx((plain.value, plain.given_value), rel=1e-13)
    assert found.gap == pytest.approx(plain.gap, rel=1e-9)


def test_certificate_of_soft_labels_under_l1_alone():
    """Multiples of their residuals are no residuals: nothing is proven."""
    case = fit_case("softmax") | {"l1": 0.02, "l2": 0.0}
    case["y"] = np.random.default_rng(0).dirichlet(np.ones(3), len(case["y"]))
    objective = Objective(**case)
    found, want = both(objective, 0.3 * np.random.default_rng(1).normal(size=objective.w_shape))
    assert found.gap == want.gap == np.inf
    assert found.slope is None


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_certificate_has_the_same_bits_for_every_number_of_threads(loss):
    case = fit_case(loss) | {"l1": 0.05, "l2": 0.0}
    case["X"], case["y"] = np.tile(case["X"], (90, 1)), np.tile(case["y"], 90)
    found = []
    for n_threads in (1, 2):
        objective = Objective(**case, n_threads=n_threads)
        found.append(objective.certify(np.full(objective.w_shape, 0.1) * np.arange(objective.p).reshape(
            -1, *[1] * (len(objective.w_shape) - 1))))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_certify_names_what_it_does_not_take():
    objective = Objective(**fit_case("logistic"))
    core, w = objective.problem.core, np.zeros(objective.w_shape)
    narrow = Objective(**fit_case("logistic") | {"X": fit_case("logistic")["X"].astype(np.float32)})
    for wrong, message in (
        ((narrow.problem.core, w, 0.0, 1.0, 0.25), "computes in float32"),
        ((core, w, -1.0, 1.0, 0.25), "l1 and l2 are"),
        ((core, w, 0.0, 1.0, 0.0), "curvature is"),
        ((core, w[1:], 0.0, 1.0, 0.25), "w has shape"),
        ((core, w, 0.0, 1.0, 0.25, None, None, w), "u is given without z"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.certify(*wrong)


def test_certify_says_where_x_is_not_finite():
    case = fit_case("logistic")
    case["X"][3, 1] = np.nan
    objective = Objective(**case)
    with pytest.raises(ValueError, match="X holds NaN or infinity, first in row 3, column 1"):
        objective.gap(np.full(objective.w_shape, 0.1))
