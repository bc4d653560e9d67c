"""What the update does beyond torch: each defect of torch's fused CPU SGD as a test, reading before
writing, clipping, averaging, threads, plans."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from nagcore import NesterovPlan, StepReport, nesterov_step_

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)

SHAPES = [(1,), (3,), (8191,), (17, 5), (4096,), (2, 3, 4)]


def arrays(seed, dtype=np.float32, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(np.float32).astype(dtype) for s in shapes]


def state_like(params):
    return [
        np.zeros(p.shape, p.dtype if p.dtype in (np.float32, np.float64) else np.float32)
        for p in params
    ]


def bits(lists):
    return [a.tobytes() for group in lists for a in group]


# ----- the defects of torch 2.13's fused CPU SGD --------------------------------------------------


@pytest.mark.parametrize("grad_dtype", ["own", np.float32], ids=["own", "float32"])
@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float16)], ids=str)
def test_narrow_parameters_are_updated_whole(dtype, grad_dtype):
    # torch's fused SGD updates 11 of 1003 elements and corrupts the momentum.
    (p,) = arrays(1, dtype, [(1003,)])
    (g,) = arrays(2, dtype if grad_dtype == "own" else grad_dtype, [(1003,)])
    b = np.full(1003, np.nan, np.float32)
    wide, wide_b = p.astype(np.float32), b.copy()
    for step in range(4):
        settings = {"lr": 0.1, "weight_decay": 0.01, "first_step": step == 0}
        nesterov_step_(p, g, b, **settings)
        nesterov_step_(wide, g.astype(np.float32), wide_b, **settings)
        np.testing.assert_array_equal(b, wide_b)
        wide = wide.astype(dtype).astype(np.float32)  # rounded once a step, to nearest even
        np.testing.assert_array_equal(p.astype(np.float32), wide)


@pytest.mark.parametrize(
    "settings", [{"check_finite": True}, {"grad_scale": 8.0}, {"max_norm": 1.0}], ids=str
)
def test_found_inf_on_the_first_step_leaves_no_trace(settings):
    # torch leaves an uninitialised momentum buffer; the next step writes values around -1e28.
    params, grads = arrays(1), arrays(2)
    buffers = [np.full_like(p, -1e28) for p in params]
    before = bits([params, grads, buffers])
    good = [g.copy() for g in grads]
    grads[-1][1, 2, 3] = np.inf
    report = nesterov_step_(params, grads, buffers, lr=0.1, first_step=True, **settings)
    assert report.found_inf
    assert not np.isfinite(report.grad_norm)
    assert (report.tensors, report.elements) == (0, 0)
    grads[-1][1, 2, 3] = good[-1][1, 2, 3]
    assert bits([params, grads, buffers]) == before
    report = nesterov_step_(params, grads, buffers, lr=0.1, first_step=True)
    assert not report.found_inf
    assert report.tensors == len(params)
    for b, g in zip(buffers, good, strict=False):
        np.testing.assert_array_equal(b, g)


@pytest.mark.parametrize("transposed", ["param", "grad", "buffer", "both"])
def test_transposed_arrays_give_right_results(transposed):
    # torch computes grad.contiguous() and does not use it.
    p, g, b = arrays(3, shapes=[(37, 53)] * 3)
    want_p, want_b = p.copy(), b.copy()
    nesterov_step_(want_p, g, want_b, lr=0.1)
    if transposed in ("param", "both"):
        p = np.asfortranarray(p)
    if transposed in ("grad", "both"):
        g = np.asfortranarray(g)
    if transposed in ("buffer", "both"):
        b = np.asfortranarray(b)
    nesterov_step_(p, g, b, lr=0.1)
    np.testing.assert_array_equal(p, want_p)
    np.testing.assert_array_equal(b, want_b)


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_first_step_belongs_to_the_tensor(kind):
    # torch raises TypeError when a gradient first appears on a later step.
    params, grads, buffers = arrays(1), arrays(2), arrays(4)
    first = [i % 2 == 0 for i in range(len(params))]
    wanted = [(p.copy(), b.copy()) for p, b in zip(params, buffers, strict=False)]
    for (p, b), g, f in zip(wanted, grads, first, strict=False):
        nesterov_step_(p, g, b, lr=0.1, first_step=f)
    nesterov_step_(params, grads, buffers, lr=0.1, first_step=kind(first))
    for (p, b), ours, buffer, g, f in zip(wanted, params, buffers, grads, first, strict=False):
        np.testing.assert_array_equal(ours, p)
        np.testing.assert_array_equal(buffer, b)
        assert f == np.array_equal(buffer, g)


# ----- what is not finite -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, BF16, np.float16], ids=str)
@pytest.mark.parametrize("place", [0, 4095, 8190])
def test_nan_propagates_and_the_report_flags_it(place, dtype, value):
    params, grads = arrays(1, dtype), arrays(2, dtype)
    buffers = state_like(params)
    grads[2][place] = value
    report = nesterov_step_(params, grads, buffers, lr=0.1)
    assert report.found_inf
    assert not np.isfinite(report.grad_norm)
    assert report.tensors == len(params)
    wrong = [np.flatnonzero(~np.isfinite(p.astype(np.float64))).tolist() for p in params]
    assert wrong == [[], [], [place], [], [], []]


def test_parameters_that_are_not_finite_are_not_a_gradient_that_is_not():
    p, g, b = np.array([np.nan, 1.0]), np.array([1.0, 2.0]), np.zeros(2)
    report = nesterov_step_(p, g, b, lr=0.5, momentum=0.5)
    assert not report.found_inf
    assert np.isnan(p[0])
    assert p[1] == 1.0 - 0.5 * 3.0


@pytest.mark.parametrize("scale", [1e-200, 1e-300, 5e-324, 1e160, 1e300])
@pytest.mark.parametrize("check_finite", [False, True])
def test_norm_of_float64_neither_overflows_nor_vanishes(scale, check_finite):
    p, g, b = np.zeros(4), np.array([3.0, 0.0, -4.0, 0.0]) * scale, np.zeros(4)
    g32 = np.array([0.0, 0.0], np.float32)
    report = nesterov_step_(
        [p, g32.copy()], [g, g32], [b, g32.copy()], lr=0.1, check_finite=check_finite
    )
    assert not report.found_inf
    assert report.grad_norm == pytest.approx(5 * scale, rel=1e-14)


def test_norm_of_float32_does_not_overflow():
    g = np.full(5000, 3e38, np.float32)
    report = nesterov_step_(np.zeros_like(g), g, np.zeros_like(g), lr=0.0, max_norm=1.0)
    assert report.grad_norm == pytest.approx(3e38 * np.sqrt(5000), rel=1e-6)
    assert not report.found_inf


# ----- scale, clip, average -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, BF16, np.float16], ids=str)
@pytest.mark.parametrize("scale", [65536.0, 3.0])
def test_gradients_are_divided_by_the_scale_and_never_written(scale, dtype):
    params, grads = arrays(1, dtype), arrays(2, dtype)
    buffers = state_like(params)
    before = bits([grads])
    wanted = [p.copy() for p in params]
    wanted_buffers = state_like(params)
    wide = np.float64 if dtype is np.float64 else np.float32
    unscaled = [g.astype(wide) / wide(scale) for g in grads]
    settings = {"lr": 0.1, "first_step": True, "weight_decay": 0.1}
    want = nesterov_step_(wanted, unscaled, wanted_buffers, **settings)
    got = nesterov_step_(params, grads, buffers, grad_scale=scale, **settings)
    assert bits([grads]) == before
    assert bits([params, buffers]) == bits([wanted, wanted_buffers])
    assert got.grad_norm == pytest.approx(want.grad_norm, rel=1e-6)


@pytest.mark.parametrize("maximize", [False, True])
def test_clip_is_of_the_joint_norm_after_the_scale(maximize):
    params, grads = arrays(1), arrays(2)
    buffers = state_like(params)
    norm = np.sqrt(sum(np.sum((g.astype(np.float64) / 4) ** 2) for g in grads))
    clip = 1.5 / (norm + 1e-6)
    wanted, wanted_buffers = [p.copy() for p in params], state_like(params)
    clipped = [g / np.float32(4) * np.float32(clip) for g in grads]
    nesterov_step_(wanted, clipped, wanted_buffers, lr=0.1, maximize=maximize)
    report = nesterov_step_(
        params, grads, buffers, lr=0.1, grad_scale=4.0, max_norm=1.5, maximize=maximize
    )
    assert report.grad_norm == pytest.approx(norm, rel=1e-14)
    assert report.clip_factor == pytest.approx(clip, rel=1e-14)
    for p, w in zip(params, wanted, strict=False):
        np.testing.assert_allclose(p, w, rtol=0, atol=4 * np.finfo(np.float32).eps)


def test_infinite_max_norm_measures_and_never_clips():
    params, grads, buffers = arrays(1), arrays(2), arrays(3)
    report = nesterov_step_(params, grads, buffers, lr=0.1, max_norm=np.inf)
    assert report.clip_factor == 1.0
    assert not report.found_inf


@pytest.mark.parametrize("convention", ["torch", "keras"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=str)
def test_moving_average_follows_the_parameter(dtype, convention):
    params, grads, buffers, ema = (arrays(i, dtype) for i in range(4))
    old = [e.copy() for e in ema]
    nesterov_step_(params, grads, buffers, lr=0.1, ema=ema, ema_decay=0.75, convention=convention)
    for e, o, p in zip(ema, old, params, strict=False):
        np.testing.assert_allclose(e, 0.75 * o + 0.25 * p, rtol=0, atol=8 * np.finfo(dtype).eps)
    # on a first step the average starts as the parameter
    nesterov_step_(
        params,
        grads,
        buffers,
        lr=0.1,
        ema=ema,
        ema_decay=0.75,
        convention=convention,
        first_step=True,
    )
    assert bits([ema]) == bits([params])


def test_average_of_narrow_parameters_is_taken_before_the_rounding():
    p, g, b = np.zeros(5, BF16), np.full(5, 1 + 2.0**-12, np.float32), np.zeros(5, np.float32)
    e = np.zeros(5, np.float32)
    nesterov_step_(p, g, b, lr=1.0, momentum=0.0, nesterov=False, ema=e, ema_decay=0.0)
    assert (e == -np.float32(1 + 2.0**-12)).all()
    assert (p.astype(np.float32) == -1).all()


@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_lookahead_is_apart_from_momentum(convention):
    p, g, b = (a.astype(np.float64) for a in arrays(5, shapes=[(9,)] * 3))
    want_b = 0.6 * b + g if convention == "torch" else 0.6 * b - 0.1 * g
    want_p = p - 0.1 * (g + 0.8 * want_b) if convention == "torch" else p + 0.8 * want_b - 0.1 * g
    nesterov_step_(p, g, b, lr=0.1, momentum=0.6, lookahead=0.8, convention=convention)
    np.testing.assert_allclose(b, want_b, rtol=1e-14)
    np.testing.assert_allclose(p, want_p, rtol=1e-14)


@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_coupled_and_decoupled_decay(convention):
    for decoupled in (False, True):
        p, g, b = (a.astype(np.float64) for a in arrays(6, shapes=[(9,)] * 3))
        h = g if decoupled else g + 0.3 * p
        q = p * (1 - 0.1 * 0.3) if decoupled else p
        want_b = 0.9 * b + h if convention == "torch" else 0.9 * b - 0.1 * h
        want_p = (
            q - 0.1 * (h + 0.9 * want_b) if convention == "torch" else q + 0.9 * want_b - 0.1 * h
        )
        nesterov_step_(
            p, g, b, lr=0.1, weight_decay=0.3, decoupled=decoupled, convention=convention
        )
        np.testing.assert_allclose(b, want_b, rtol=1e-14)
        np.testing.assert_allclose(p, want_p, rtol=1e-14, atol=1e-15)


def test_without_momentum_buffers_are_left_alone():
    params, grads = arrays(1), arrays(2)
    buffers = [np.full_like(p, np.nan) for p in params]
    before = bits([buffers])
    wanted = [p.copy() for p in params]
    settings = {"lr": 0.1, "momentum": 0.0, "nesterov": False}
    nesterov_step_(params, grads, buffers, **settings)
    nesterov_step_(wanted, grads, None, **settings)
    assert bits([buffers]) == before
    assert bits([params]) == bits([wanted])


# ----- threads ------------------------------------------------------------------------------------

THREADED = [(200_003,), (5,), (4096,), (0,), (70_001,), *[(257,)] * 300]
LONG = [(300, 2001), (3,), (900_001,), (70_001,), *[(4097,)] * 20]  # more pieces than threads


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"long": True},
        {"long": True, "max_norm": 1.0},
        {"long": True, "dtype": BF16, "seed": 5},
        {"weight_decay": 0.1, "decoupled": True, "check_finite": True},
        {"grad_scale": 2.0, "max_norm": 1.0},
        {"convention": "keras", "first_step": True},
        {"dtype": BF16, "seed": 5},
        {"dtype": np.float64},
    ],
    ids=str,
)
def test_every_number_of_threads_gives_the_same_bits(settings):
    settings = dict(settings)
    dtype, shapes = settings.pop("dtype", np.float32), LONG if settings.pop("long", False) else THREADED
    results = set()
    for n_threads in (1, 2, 3, 4, 8, None):
        params, grads = arrays(1, dtype, shapes), arrays(2, dtype, shapes)
        buffers, ema = state_like(params), state_like(params)
        report = nesterov_step_(
            params, grads, buffers, lr=0.1, ema=ema, ema_decay=0.9, n_threads=n_threads, **settings
        )
        results.add((report, *bits([params, buffers, ema])))
    assert len(results) == 1


def test_concurrent_calls_from_python_threads():
    wanted = arrays(1, shapes=THREADED)
    grads = arrays(2, shapes=THREADED)
    buffers = state_like(wanted)
    for _ in range(5):
        nesterov_step_(wanted, grads, buffers, lr=0.1)
    mine = [arrays(1, shapes=THREADED) for _ in range(4)]

    def work(params):
        own = state_like(params)
        for _ in range(5):
            nesterov_step_(params, grads, own, lr=0.1)

    threads = [threading.Thread(target=work, args=(m,)) for m in mine]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for m in mine:
        assert bits([m]) == bits([wanted])


# ----- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, BF16, np.float16], ids=str)
def test_plan_equals_the_plain_call(dtype):
    params, buffers, ema = (arrays(1, dtype), *(state_like(arrays(1, dtype)) for _ in range(2)))
    others = [[a.copy() for a in group] for group in (params, buffers, ema)]
    grads = arrays(2, dtype)
    plan = NesterovPlan(params, grads, buffers, ema=ema)
    assert plan.tensors == len(params)
    assert plan.elements == sum(p.size for p in params)
    for step in range(3):
        settings = {
            "lr": 0.1 / (step + 1),
            "weight_decay": 0.01,
            "first_step": step == 0,
            "ema_decay": 0.9,
            "max_norm": 3.0,
            "seed": step,
        }
        got = plan.step(**settings)
        want = nesterov_step_(others[0], grads, others[1], ema=others[2], **settings)
        assert got == want
        assert isinstance(got, StepReport)
        assert bits([params, buffers, ema]) == bits(others)
        for g in grads:
            g[...] = (g.astype(np.float32) * 0.5).astype(dtype)


def test_plan_keeps_its_arrays_alive():
    base = np.ones(100_000, np.float32)
    params = [base[:50_000]]
    plan = NesterovPlan(params, [np.ones(50_000, np.float32)], [np.zeros(50_000, np.float32)])
    params.clear()
    gc.collect()
    junk = [np.full(50_000, 7, np.float32) for _ in range(20)]
    report = plan.step(lr=0.5, momentum=0.0, nesterov=False)
    assert report.grad_norm == pytest.approx(np.sqrt(50_000))
    assert (base[:50_000] == 0.5).all()
    assert (base[50_000:] == 1).all()
    assert all((j == 7).all() for j in junk)


def test_plan_stepped_from_several_threads_takes_turns():
    shapes = [(40_001,), (7,), (40_000,)]
    params, grads = arrays(1, shapes=shapes), arrays(2, shapes=shapes)
    buffers = state_like(params)
    others = [[a.copy() for a in group] for group in (params, buffers)]
    plan = NesterovPlan(params, grads, buffers)

    def work():
        for _ in range(10):
            plan.step(lr=0.01)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for _ in range(40):
        nesterov_step_(others[0], grads, others[1], lr=0.01)
    assert bits([params, buffers]) == bits(others)


def test_empty_lists_and_empty_tensors():
    assert nesterov_step_([], [], [], lr=0.1) == StepReport(0.0, 1.0, False, 0, 0)
    z = np.zeros((3, 0), np.float32)
    report = nesterov_step_(
        [z, np.float32([1])], [z.copy(), np.float32([1])], [z.copy(), np.float32([0])], lr=0.1
    )
    assert (report.tensors, report.elements, report.grad_norm) == (2, 1, 1.0)


def test_zero_dimensional_array():
    p, g, b = np.array(2.0), np.array(1.0), np.array(0.0)
    nesterov_step_(p, g, b, lr=0.5, momentum=0.5)
    assert p == 2.0 - 0.5 * (1 + 0.5)
