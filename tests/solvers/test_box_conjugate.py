"""Ω* of l1, l2 and a box, and the certificates made of it: Fenchel and Young, the reference's gap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

import nagcore
from nagcore import reference
from nagcore.objective.duality import infeasibility, penalty_gap
from nagcore.penalties import Box, Penalty
from nagcore.solvers.prox import box_threshold
from nagcore.solvers.quadratic_l1 import minimise, violation

INF = np.inf
NUMBERS = st.floats(-10, 10, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
STRENGTHS = st.sampled_from([0.0, 0.0, 0.1, 1.0, 3.0])


@st.composite
def sides(draw):
    low, high = sorted([draw(NUMBERS), draw(NUMBERS)])
    if draw(st.booleans()):
        high = draw(st.sampled_from([low, INF]))
    if draw(st.booleans()):
        low = -INF
    return low, high


def inside(bounds, share):
    """A number of the box: −∞ and ∞ stand for 20 beyond the other end."""
    low, high = bounds
    low = max(min(high, 0) - 20, low)
    return min(low + share * (min(high, max(low, 0) + 20) - low), high)


@given(sides(), st.floats(0, 1), NUMBERS, STRENGTHS, STRENGTHS)
def test_fenchel_and_youngs_inequality(bounds, share, c, l1, l2):
    """Ω(w) + Ω*(c) − cw ≥ 0, equal to what the reference's Ω* makes of it, and 0 at the maximiser."""
    box, w = Box(*bounds), inside(bounds, share)
    got = penalty_gap(np.array([w]), np.array([-c]), Penalty(l2, l1, bounds=box))
    conjugate = float(reference.conjugate(c, l1, l2, *bounds))
    size = (abs(c) + l1 + 1) * (abs(w) + 40) + l2 * w * w
    if math.isinf(conjugate):
        assert got == INF
        return
    want = l2 / 2 * w * w + l1 * abs(w) + conjugate - c * w
    assert got >= -1e-15 * size
    assert abs(got - want) <= 1e-13 * (size + abs(conjugate))
    soft = c - np.clip(c, -l1, l1)
    if l2:
        best = np.clip(soft / l2, *bounds)
    else:
        best = bounds[1] if soft > 0 else bounds[0] if soft < 0 else np.clip(0.0, *bounds)
    at_best = penalty_gap(np.array([best]), np.array([-c]), Penalty(l2, l1, bounds=box))
    assert abs(at_best) <= 1e-15 * size


@given(sides(), NUMBERS, STRENGTHS, STRENGTHS)
def test_the_reference_conjugate_is_a_maximum(bounds, c, l1, l2):
    """No point of a grid over the box does better, and an optimiser's best does no worse."""
    conjugate = float(reference.conjugate(c, l1, l2, *bounds))
    grid = np.array([inside(bounds, share) for share in np.linspace(0, 1, 401)])
    values = c * grid - l1 * np.abs(grid) - l2 / 2 * grid**2
    assert values.max() <= conjugate + 1e-12 * (1 + abs(conjugate))
    if math.isfinite(conjugate) and l2:
        low, high = max(bounds[0], -200.0), min(bounds[1], 200.0)
        if low < high:
            found = minimize_scalar(lambda w: l2 / 2 * w * w + l1 * abs(w) - c * w, bounds=(low, high),
                                    method="bounded", options={"xatol": 1e-10})
            assert conjugate <= -found.fun + 1e-4 * (1 + abs(c)) or low in bounds or high in bounds


@given(sides(), NUMBERS, st.floats(0, 5))
def test_the_prox_is_the_reference_one_and_least(bounds, h, tau):
    got = float(box_threshold(np.array([h]), np.array([tau]), *np.array(bounds)[:, None])[0])
    assert got == float(reference.prox_box(h, tau, *bounds)) or abs(got - h) <= tau + 1e-12
    value = lambda p: tau * np.abs(p) + (p - h) ** 2 / 2  # noqa: E731
    grid = np.array([inside(bounds, share) for share in np.linspace(0, 1, 201)])
    assert bounds[0] <= got <= bounds[1]
    assert value(got) <= value(grid).min() + 1e-12 * (1 + value(got))


@given(sides(), st.floats(0, 1), NUMBERS, STRENGTHS)
def test_violation_is_zero_where_the_prox_stays(bounds, share, q, l1):
    w = inside(bounds, share)
    offence = float(violation(np.array([q]), np.array([w]), l1, Box(*np.array(bounds)[:, None]))[0])
    assert offence >= 0
    moved = float(reference.prox_box(w - q, l1, *bounds)) - w
    if offence <= 1e-12:
        assert abs(moved) <= 1e-9
    else:
        assert moved or offence <= 1e-12 * (1 + abs(w) + abs(q)) or abs(w) > 1e3 * offence


@pytest.mark.parametrize("p", [3, 20, 90])
@pytest.mark.parametrize("l1", [0.0, 0.5])
def test_quadratics_in_a_box_end_at_the_minimum(p, l1):
    """Block exchange and sweeps: at what they find a proximal step stays."""
    rng = np.random.default_rng(p)
    for _ in range(8):
        A = rng.standard_normal((p + 5, p)) * np.geomspace(0.1, 3, p)
        C, low = A.T @ A, rng.normal(size=p)
        high = low + rng.exponential(size=p)
        low[rng.random(p) < 0.2], high[rng.random(p) < 0.2] = -INF, INF
        fixed = (rng.random(p) < 0.1) & np.isfinite(low)
        high[fixed] = low[fixed]
        box = Box(low, high)
        w, g = box.clip(rng.normal(size=p)), 5 * rng.normal(size=p)
        found = minimise(C, g, w, l1, 1e-10, box)
        assert box.contains(found)
        q = g + C @ (found - w)
        assert_allclose(found, reference.prox_box(found - q, l1, low, high), atol=1e-8)


def test_what_must_be_within_l1():
    penalty = Penalty(l1=1.0, bounds=([-1.0, -INF, 0.0, -INF], [1.0, 0.0, INF, INF]))
    assert infeasibility(np.array([9.0, 2.0, 8.0, 1.0]), penalty) == 2.0
    assert infeasibility(np.array([9.0, -7.0, -3.0, -1.0]), penalty) == 3.0
    assert infeasibility(np.array([9.0, -7.0, 8.0, 0.0]), penalty) == 0.0
    assert infeasibility(np.array([9.0]), Penalty(bounds=(-1, 1))) == 0.0
    assert penalty_gap(np.zeros(1), np.array([-1.5]), Penalty(l1=1.0, positive=True)) == INF
    assert penalty_gap(np.zeros(1), np.array([1.5]), Penalty(l1=1.0, positive=True)) == 0.0


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.1), (0.05, 0.1)])
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "squared_hinge", "poisson"])
def test_gaps_are_the_references(loss, l1, l2, fit_intercept, sparse):
    """The reference's F(w) − D(θ) by conjugates, and never less than F(w) − F(another point inside)."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(60, 4)) * (rng.random((60, 4)) < 0.7)
    y = {"squared": X[:, 0] + 1, "huber": 3 * X[:, 0], "poisson": rng.poisson(2, 60)}.get(
        loss, X[:, 0] > 0)
    y = np.asarray(y, float)
    lower, upper = np.array([-0.5, 0.1, -0.3, 0.2]), np.array([0.5, 0.4, 0.0, 0.2])
    s = rng.integers(1, 4, 60).astype(float)
    how = {"loss": loss, "l1": l1, "l2": l2, "sample_weight": s, "fit_intercept": fit_intercept}
    data = sp.csr_matrix(X) if sparse else X
    objective = nagcore.Objective(data, y, bounds=(lower, upper), **how)
    assert objective.gap_kind == "certificate"
    points = [np.append(lower + (upper - lower) * rng.random(4), [rng.normal()] * fit_intercept)
              for _ in range(6)]
    values = [objective.value(w) for w in points]
    for w, value in zip(points, values):
        gap = objective.gap(w)
        assert gap >= value - min(values) - 1e-13
        want = reference.duality_gap(X, y, w, bounds=(lower, upper), **how)
        assert_allclose(gap, want, rtol=1e-7, atol=1e-11)
