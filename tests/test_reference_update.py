"""The oracle's update and its rounding against exact rationals, libm and torch."""

from __future__ import annotations

import ctypes
import ctypes.util
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nagcore import reference as ref

f32 = np.float32


# ------------------------------------------------------------------------------- exact rounding
def nearest_f32(q: Fraction) -> np.float32:
    """The float32 nearest to a rational, ties to even: the best of a guess and its neighbours."""
    guess = f32(float(q))
    around = [np.nextafter(guess, f32(-np.inf)), guess, np.nextafter(guess, f32(np.inf))]
    around = [c for c in around if np.isfinite(c)]
    return min(around, key=lambda c: (abs(Fraction(float(c)) - q), int(c.view(np.uint32)) & 1))


floats = st.floats(
    width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60
)


@settings(max_examples=400, deadline=None)
@given(floats, floats, floats)
def test_fma_is_rounded_once(a, b, c):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    got = ref.fma(f32(a), f32(b), f32(c))
    assert got.dtype == f32
    assert got == nearest_f32(exact) or (exact == 0 and got == 0)


def test_fma_meets_double_rounding_cases_and_libm():
    """Sums that lie a hair beside a float32 tie: naive float64 arithmetic gets these wrong."""
    rng = np.random.default_rng(0)
    n = 20000
    c = f32(rng.integers(2**23, 2**24, n))
    a = np.concatenate([np.full(n // 2, f32(0.5)), rng.random(n // 2, dtype=f32)])
    tiny = f32(2.0) ** rng.integers(-40, -20, n).astype(f32)
    b = (1 + f32(2.0**-23) * rng.integers(0, 3, n).astype(f32)) * rng.choice([-1, 1], n).astype(f32)
    A, B, C = [np.concatenate(t) for t in ((a, tiny), (b, b), (c, c + f32(1)))]
    got = ref.fma(A, B, C)
    # products that put the sum half an ulp and a little more from c
    half = ref.fma(f32(1 + 2.0**-23), f32(0.5 * (1 + 2.0**-22)), f32(2**24 - 2))
    assert half == nearest_f32(
        Fraction(1 + 2.0**-23) * Fraction(0.5 * (1 + 2.0**-22)) + Fraction(2**24 - 2)
    )
    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("no libm to compare with")
    fmaf = ctypes.CDLL(name).fmaf
    fmaf.argtypes, fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
    want = np.array([fmaf(*map(float, t)) for t in zip(A, B, C)], f32)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


def test_fma_naive_float64_would_fail():
    """The case that needs rounding to odd, so that the emulation is known to earn its place."""
    a, b, c = f32(1 + 2.0**-23), f32(1 + 2.0**-23), f32(2.0**24 + 2)
    scale = f32(2.0**-46)
    exact = Fraction(float(a)) * Fraction(float(scale)) + Fraction(float(f32(1 + 2.0**-23)))
    hard = [(a, f32(2.0**-24), f32(1)), (f32(-(2.0**-60)), f32(1), f32(2.0**24 + 2)), (a, b, c)]
    assert nearest_f32(exact) == ref.fma(a, scale, f32(1 + 2.0**-23))
    for t in hard:
        exact = Fraction(float(t[0])) * Fraction(float(t[1])) + Fraction(float(t[2]))
        assert ref.fma(*t) == nearest_f32(exact)
    # 1 + 2^-24 + 2^-60: float64 drops the last term, and the tie then goes to even, the wrong way
    x, y = f32(2.0**-24 * (1 + 2.0**-18)), f32(1 + 2.0**-18)
    tie = Fraction(float(x)) * Fraction(float(y))
    assert tie > Fraction(2.0**-24)
    p, q = f32(2.0**-12 * (1 + 2.0**-23)), f32(2.0**-12 * (1 - 2.0**-23))  # p·q = 2^-24 − 2^-70
    naive = f32(float(p) * float(q) + 1.0 + 2.0**-23)
    assert naive != ref.fma(p, q, f32(1 + 2.0**-23))
    assert ref.fma(p, q, f32(1 + 2.0**-23)) == f32(1 + 2.0**-23)


def test_fma_passes_nonfinite_and_float64_through():
    got = ref.fma(f32([np.inf, np.nan, 3e38, 0]), f32([1, 1, 10, np.inf]), f32([0, 0, 0, 1]))
    assert np.isinf(got[0])
    assert np.isnan(got[1])
    assert np.isinf(got[2])
    assert np.isnan(got[3])
    assert ref.fma(np.float64(2), np.float64(3), np.float64(1)).dtype == np.float64


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_stochastic_neighbours_bracket_and_are_unbiased(kind):
    dtype = np.float16 if kind == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(size=2000), rng.normal(size=100) * 1e-6, [0, 1, -1, 1 + 2.0**-9]]
    )
    x = x.astype(f32)
    down, up, p = ref.stochastic_neighbours(x, dtype)
    lo, hi = down.astype(np.float64), up.astype(np.float64)
    assert (np.abs(lo) <= np.abs(x)).all()
    assert (np.abs(x) < np.abs(hi)).all()
    assert ((p >= 0) & (p < 1)).all()
    np.testing.assert_allclose(lo + p * (hi - lo), x, rtol=1e-15, atol=1e-45)
    exact = x.astype(dtype).astype(f32) == x
    assert exact.any()
    assert (p[exact] == 0).all()
    assert (p[~exact] > 0).all()
    between = (lo + hi) / 2  # nothing of this type lies between the two
    assert np.isin(between.astype(f32).astype(dtype).astype(np.float64), [lo, hi]).all()


# ------------------------------------------------------------------------------------ the update
GRID = [
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    {"lr": 1e-3, "momentum": 0.99, "weight_decay": 1e-4, "maximize": True},
    {"lr": 0.1, "momentum": 0.9, "nesterov": False, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.1},
]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("how", GRID, ids=str)
def test_nesterov_step_equals_torch_to_the_bit(how, foreach):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shapes = [(1003,), (33, 7), (5,)]
    params = [rng.normal(size=s).astype(f32) for s in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    sgd = torch.optim.SGD(theirs, foreach=foreach, **{"nesterov": how["momentum"] > 0, **how})
    buffers = [np.full(s, np.nan, f32) for s in shapes]
    for step in range(5):
        grads = [rng.normal(size=s).astype(f32) for s in shapes]
        for t, g in zip(theirs, grads):
            t.grad = torch.tensor(g)
        sgd.step()
        done = ref.nesterov_step(params, grads, buffers, first_step=step == 0, **how)
        params, buffers = done.params, done.buffers
        for ours, t in zip(params, theirs):
            np.testing.assert_array_equal(ours, t.detach().numpy())


def test_nesterov_step_clips_as_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    g = [rng.normal(size=s).astype(f32) for s in (100, 7)]
    p = [np.zeros_like(t) for t in g]
    theirs = [torch.nn.Parameter(torch.tensor(t)) for t in p]
    for t, u in zip(theirs, g):
        t.grad = torch.tensor(u)
    norm = torch.nn.utils.clip_grad_norm_(theirs, 2.5)
    done = ref.nesterov_step(p, g, p, lr=1.0, momentum=0.0, max_norm=2.5)
    assert done.norm == pytest.approx(float(norm), rel=1e-6)
    for ours, t in zip(done.params, theirs):
        np.testing.assert_allclose(ours, -t.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
def test_nesterov_step_keras_written_with_scalars(nesterov):
    """keras' eager rule, operation by operation on single numbers."""
    rng = np.random.default_rng(0)
    p, g, v = rng.normal(size=(3, 50)).astype(f32)
    done = ref.nesterov_step(
        [p],
        [g],
        [v],
        lr=0.1,
        momentum=0.9,
        nesterov=nesterov,
        convention="keras",
        weight_decay=0.05,
        decoupled=True,
    )
    lr, mu, wd = f32(0.1), f32(0.9), f32(0.05)
    for i in range(50):
        theta = p[i] - f32(f32(p[i] * wd) * lr)
        new = f32(f32(mu * v[i]) - f32(lr * g[i]))
        want = f32(theta + f32(f32(mu * new) - f32(lr * g[i]))) if nesterov else f32(theta + new)
        assert done.params[0][i] == want
        assert done.buffers[0][i] == new


def test_nesterov_step_conventions_agree_in_exact_arithmetic():
    """v = −lr·b at constant lr: torch's and keras' iterates are the same numbers (float64)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), None
    b = a.copy()
    torch_b, keras_v = np.zeros(20), np.zeros(20)
    for step in range(10):
        g = rng.normal(size=20)
        t = ref.nesterov_step([a], [g], [torch_b], lr=0.1, momentum=0.9, first_step=step == 0)
        k = ref.nesterov_step([b], [g], [keras_v], lr=0.1, momentum=0.9, convention="keras")
        a, torch_b, b, keras_v = t.params[0], t.buffers[0], k.params[0], k.buffers[0]
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(keras_v, -0.1 * torch_b, rtol=1e-12, atol=1e-13)


def test_nesterov_step_low_precision_rounds_once():
    bf16 = pytest.importorskip("ml_dtypes").bfloat16
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(2, 200)).astype(bf16)
    b = rng.normal(size=200).astype(f32)
    how = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    low = ref.nesterov_step([p], [g], [b], **how)
    high = ref.nesterov_step([p.astype(f32)], [g.astype(f32)], [b], **how)
    assert low.params[0].dtype == bf16
    assert low.buffers[0].dtype == f32
    np.testing.assert_array_equal(low.params[0], high.params[0].astype(bf16))
    np.testing.assert_array_equal(low.buffers[0], high.buffers[0])
    kept = ref.nesterov_step([p], [g], [b], master=[p.astype(f32)], **how)
    np.testing.assert_array_equal(kept.master[0], high.params[0])
    np.testing.assert_array_equal(kept.params[0], high.params[0].astype(bf16))


def test_nesterov_step_nonfinite_gradient():
    one = np.ones(3, f32)
    bad = np.array([1, np.nan, 1], f32)
    how = {"lr": 0.1, "momentum": 0.9, "first_step": True}
    free = ref.nesterov_step([one], [bad], [one], **how)
    assert free.found_inf
    assert np.isnan(free.params[0][1])
    assert free.params[0][0] != 1
    for look in ({"check_finite": True}, {"grad_scale": 2.0}, {"max_norm": 1.0}):
        kept = ref.nesterov_step([one], [bad], [one], **how, **look)
        assert kept.found_inf
        assert (kept.params[0] == 1).all()
        assert (kept.buffers[0] == 1).all()


def test_nesterov_step_first_step_is_a_property_of_the_tensor():
    one = np.ones(3, f32)
    done = ref.nesterov_step(
        [one] * 2, [one] * 2, [9 * one] * 2, lr=0.5, momentum=0.5, first_step=[True, False]
    )
    assert done.buffers[0].tolist() == [1, 1, 1]
    assert done.buffers[1].tolist() == [5.5] * 3


def test_ema_update_follows():
    ema, theta = f32([1, 2]), f32([3, 4])
    np.testing.assert_allclose(ref.ema_update(ema, theta, 0.9), [1.2, 2.2], rtol=1e-6)
