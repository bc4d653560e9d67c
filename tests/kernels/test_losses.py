"""The scalar maths of each loss at every margin: tails, kinks, overflow; one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest

from cases import ISAS, LOSSES
from nagcore import _core, reference

GRID = np.unique(
    np.concatenate(
        [
            np.linspace(-20, 20, 161),
            np.geomspace(1e-6, 80, 60),
            -np.geomspace(1e-6, 80, 60),
            [
                -88.5,
                -87.0,
                0.0,
                0.5,
                0.75,
                1.0,
                87.0,
                88.5,
                100.0,
                -100.0,
                300.0,
                -300.0,
                700.0,
                -700.0,
            ],
            np.nextafter([1.0, 0.75, 0.0], 2),
            np.nextafter([1.0, 0.75], -2),
        ]
    )
)


def scalar_losses():
    return [name for name in LOSSES if reference.LOSSES[name].targets != "class"]


def margins_of(compute, isa, z, y, **how):
    """(φ, r) for each margin: a problem of one row and no X to speak of, its margin given."""
    z = np.asarray(z, compute)
    problem = _core.Problem(np.ones((1, 1), compute), np.array([y]), isa=isa, n_threads=1, **how)
    values, residuals, r = np.empty(len(z)), np.empty(len(z), compute), np.empty(1, compute)
    for i in range(len(z)):
        values[i] = problem.loss_from_margins(z[i : i + 1], r)
        residuals[i] = r[0]
    return z, values, residuals


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("compute", ["float64", "float32"])
@pytest.mark.parametrize("loss", scalar_losses())
def test_loss_and_residual_at_every_margin(loss, compute, isa, close):
    phi = reference.LOSSES[loss]
    signs = {"binary": (-1.0, 1.0), "nonnegative": (0.0, 3.0), "real": (0.0, -1.5)}[phi.targets]
    wide = np.longdouble if compute == "float64" else np.float64
    for y in signs:
        grid = GRID[GRID <= 80] if loss == "poisson" else GRID
        z, value, r = margins_of(compute, isa, grid, y, loss=loss, delta=0.75)
        z = z.astype(wide)
        Y, delta = np.full(len(z), y), 0.75
        of_value, of_residual = phi.operands(z, Y)
        want, wanted = phi.value(z, Y, delta), phi.residual(z, Y, delta)
        # φ is as good relative to itself as to its residual: no cancellation in the tails
        close(value, want, "loss", compute, np.abs(want) + of_value, f"{loss} φ y={y} {isa}")
        close(r, wanted, "residual", compute, np.abs(wanted) + of_residual, f"{loss} r y={y} {isa}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("compute", ["float64", "float32"])
def test_logistic_is_finite_at_any_finite_margin(compute, isa):
    big = float(np.finfo(compute).max) / 4
    for y in (-1.0, 1.0):
        z, value, r = margins_of(compute, isa, [-big, -1e30, 1e30, big], y, loss="logistic")
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(r, np.where(y * z > 0, 0.0, -y))
        np.testing.assert_allclose(value, np.maximum(-y * z.astype(float), 0), rtol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("compute", ["float64", "float32"])
def test_softmax_at_extreme_margins(compute, isa, close):
    """logsumexp shifts by the maximum: nothing overflows; equal margins, equal probabilities."""
    rng = np.random.default_rng(0)
    Z = np.concatenate(
        [
            rng.normal(size=(40, 4)) * np.geomspace(0.1, 1e4, 40)[:, None],
            np.zeros((1, 4)),
            np.full((1, 4), 3e4),
            np.full((1, 4), -3e4),
            [[1e30, 0, 0, -1e30]],
        ]
    ).astype(compute)
    y = np.arange(len(Z)) % 4
    problem = _core.Problem(np.ones((len(Z), 1), compute), y, loss="softmax", isa=isa)
    r = np.empty_like(Z)
    value = problem.loss_from_margins(Z, r)
    wide = Z.astype(np.longdouble if compute == "float64" else np.float64)
    Y = np.eye(4)[y]
    phi = reference.LOSSES["softmax"]
    each = phi.value(wide, Y)
    assert np.isfinite(value)
    close(value, each.mean(), "loss", compute, np.abs(each).mean(), isa)
    # e^{z − max} is as good as z − max, whose rounding e^t turns into |t|·e^t
    t = np.abs(wide - wide.max(axis=1, keepdims=True))
    p = phi.p(wide)
    close(r, phi.residual(wide, Y), "residual", compute, Y + p * (1 + np.minimum(t, 800)), isa)
    np.testing.assert_allclose(r.sum(axis=1), 0, atol=8 * np.finfo(compute).eps)
    np.testing.assert_array_equal(r[40] + Y[40], 0.25)


@pytest.mark.parametrize("isa", ISAS)
def test_poisson_overflow_is_infinite_not_an_error(isa):
    """e^z beyond the largest number is a legitimate infinity: a line search steps back from it."""
    for compute, z in (("float32", 89.0), ("float64", 710.0)):
        X = np.array([[1.0], [z]], compute)
        problem = _core.Problem(X, np.array([1.0, 1.0]), loss="poisson", isa=isa)
        value, g = problem.value_and_grad(np.ones(1))
        assert value == np.inf
        assert g[0] == np.inf
        value, g = problem.value_and_grad(np.zeros(1))
        assert value == 1.0
        assert np.isfinite(g).all()


@pytest.mark.parametrize("delta", [0.01, 1.0, 1e3])
@pytest.mark.parametrize("compute", ["float64", "float32"])
def test_huber_is_quadratic_inside_and_linear_outside(delta, compute, close):
    z = np.concatenate([np.linspace(-3, 3, 61) * delta, [1e4, -1e4]])
    for isa in ISAS:
        z, value, r = margins_of(compute, isa, z, 0.0, loss="huber", delta=delta)
        assert np.abs(r).max() <= np.asarray(delta, compute)
        u = np.abs(z.astype(np.float64))
        delta_c = float(np.asarray(delta, compute))
        want = np.where(u <= delta_c, u**2 / 2, delta_c * u - delta_c**2 / 2)
        close(value, want, "loss", compute, want, f"delta={delta}")


@pytest.mark.parametrize("loss", LOSSES)
def test_residuals_are_unweighted_and_the_mean_is_weighted(loss):
    rng = np.random.default_rng(0)
    n = 17
    y = {"binary": rng.choice([-1.0, 1.0], n), "class": np.arange(n) % 3}.get(
        reference.LOSSES[loss].targets, rng.random(n)
    )
    s = rng.random(n) + 0.1
    z = rng.normal(size=(n, 3) if loss == "softmax" else n)
    X = np.ones((n, 1))
    plain = _core.Problem(X, y, loss=loss)
    heavy = _core.Problem(X, y, loss=loss, sample_weight=s)
    r, q = np.empty_like(z), np.empty_like(z)
    plain.loss_from_margins(z, r)
    value = heavy.loss_from_margins(z, q)
    np.testing.assert_array_equal(r, q)
    phi = reference.LOSSES[loss]
    each = phi.value(z, phi.encode(y, 3), 1.0)
    assert value == pytest.approx((s * each).sum() / s.sum(), rel=1e-13)
