"""The fused update against the oracle: both conventions, every storage, layout and option."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nagcore
from cases import ISAS, LENGTHS, THREADS, storage_type
from nagcore import _core, reference

# The baseline of x86-64 has no fma, which torch's convention is made of; keras' has none in it.
FUSED = _core.active_isa() != "baseline"
STORAGES = ("float32", "float64", "bfloat16", "float16")
SIZES = (*LENGTHS, 1023, 4097)

RULES = [
    {},
    {"weight_decay": 0.013},
    {"weight_decay": 0.05, "decoupled": True},
    {"nesterov": False, "dampening": 0.2},
    {"nesterov": False, "weight_decay": 0.01, "maximize": True},
    {"momentum": 0.97, "lookahead": 0.5},
    {"momentum": 0.0, "nesterov": False},
    {"momentum": 0.0, "lookahead": 0.25},
    {"maximize": True, "lr": 3.0},
    {"grad_scale": 1024.0},
    {"check_finite": True, "lr": 0.0},
    {"max_norm": 1e9},
]


def work_type(storage):
    return np.dtype(np.float64 if storage == "float64" else np.float32)


def tensors(storage, sizes=SIZES, seed=0, wide_grads=False):
    """params, grads, buffers."""
    rng = np.random.default_rng(seed)
    make = lambda dtype: [rng.normal(size=s).astype(np.float32).astype(dtype) for s in sizes]  # noqa: E731
    dtype, work = storage_type(storage), work_type(storage)
    return make(dtype), make(work if wide_grads else dtype), make(work)


def copies(arrays):
    return [a.copy(order="K") for a in arrays]


def bits(arrays):
    return [np.ascontiguousarray(a).tobytes() for a in arrays]


def compare(close, got, want, params, grads, buffers, exact, rule, note=""):
    """Parameters and buffers to the bit, or, without fma, within the table's k of their terms."""
    lr, mu = rule.get("lr", 0.1), rule.get("momentum", 0.9)
    for i, (p, q) in enumerate(zip(got, want)):
        assert p.dtype == q.dtype
        if exact:
            np.testing.assert_array_equal(
                p.astype(np.float64), q.astype(np.float64), err_msg=f"{i} {note}"
            )
            continue
        theta, g, b = (np.abs(a[i].astype(np.float64)) for a in (params, grads, buffers))
        g = g + rule.get("weight_decay", 0.0) * theta
        size = theta + (1 + lr) * (g + mu * (b + g))
        close(p, q, "update", p.dtype.name, size, note)


# ----------------------------------------------------------------------------- one step, every rule
@pytest.mark.parametrize("convention", ["torch", "keras", "keras-jax"])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_update_equals_reference(rule, storage, convention, close):
    if convention != "torch" and rule.get("dampening"):
        rule = {**rule, "dampening": 0.0}
    rule = {"lr": 0.1, **rule}
    exact = convention == "keras" or (FUSED and storage != "float64")
    # float64 has no wider type to emulate fma in; an ulp may decide a tie of 16 bits
    if storage in ("bfloat16", "float16") and not exact:
        pytest.skip("rounding to 16 bits turns the missing fma's ulp into an ulp of 16 bits")
    for first in (False, True):
        params, grads, buffers = tensors(storage)
        want = reference.nesterov_step(
            params, grads, buffers, convention=convention.replace("-", "_"), first_step=first, **rule
        )
        p, g, b = copies(params), copies(grads), copies(buffers)
        report = nagcore.nesterov_step_(p, g, b, convention=convention, first_step=first, **rule)
        note = f"{storage} {convention} first={first}"
        compare(close, p, want.params, params, grads, buffers, exact, rule, note)
        if rule.get("momentum") == 0.0 and "lookahead" not in rule:
            assert bits(b) == bits(buffers), "without momentum the buffers are left alone"
        else:
            compare(close, b, want.buffers, params, grads, buffers, exact, rule, note)
        assert bits(g) == bits(grads), "gradients are read only"
        assert report.tensors == len(params)
        assert report.elements == sum(a.size for a in params)
        assert not report.found_inf
        assert report.clip_factor == 1.0
        close(
            report.grad_norm,
            want.norm,
            "norm",
            "float64" if storage == "float64" else "float32",
            want.norm,
        )


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_update_keeps_equal_over_many_steps(convention, storage):
    """Fifty steps with schedules of lr and momentum: a wrong low bit would grow."""
    if convention == "torch" and not FUSED:
        pytest.skip("no fma")
    params, _, buffers = tensors(storage, (33, 129))
    p, b = copies(params), copies(buffers)
    for step in range(50):
        _, grads, _ = tensors(storage, (33, 129), seed=100 + step)
        rule = {"lr": 0.1 / (step + 1), "momentum": 1 - 0.5 / (step + 1), "convention": convention}
        rule["lookahead"], rule["weight_decay"] = 1 - 0.5 / (step + 2), 1e-3
        want = reference.nesterov_step(params, grads, buffers, first_step=step == 0, **rule)
        nagcore.nesterov_step_(p, grads, b, first_step=step == 0, **rule)
        params, buffers = want.params, want.buffers
        assert bits(p) == bits(params), step
        assert bits(b) == bits(buffers), step


def test_update_takes_one_array_as_well_as_a_list():
    params, grads, buffers = tensors("float32", (65,))
    p, b = copies(params), copies(buffers)
    nagcore.nesterov_step_(p, grads, b, lr=0.1)
    q, c = params[0].copy(), buffers[0].copy()
    report = nagcore.nesterov_step_(q, grads[0], c, lr=0.1)
    assert (q.tobytes(), c.tobytes()) == (p[0].tobytes(), b[0].tobytes())
    assert (report.tensors, report.elements) == (1, 65)
    empty = nagcore.nesterov_step_([], [], [], lr=0.1)
    assert (empty.tensors, empty.elements, empty.grad_norm) == (0, 0, 0.0)


def test_first_step_is_a_truth_of_each_tensor():
    params, grads, buffers = tensors("float32", (33, 65, 7))
    first = [True, False, True]
    buffers[0][:] = np.nan  # a first step does not read them
    want = reference.nesterov_step(params, grads, buffers, lr=0.1, first_step=first)
    p, b = copies(params), copies(buffers)
    nagcore.nesterov_step_(p, grads, b, lr=0.1, first_step=first)
    for got, wanted in zip(p + b, want.params + want.buffers):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=0 if FUSED else 1e-6)


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_low_precision_takes_wide_gradients_and_masters(storage):
    if not FUSED:
        pytest.skip("no fma")
    params, grads, buffers = tensors(storage, wide_grads=True)
    for master in (None, [p.astype(np.float32) + np.float32(1e-5) for p in params]):
        want = reference.nesterov_step(params, grads, buffers, lr=0.1, master=master)
        p, b = copies(params), copies(buffers)
        m = None if master is None else copies(master)
        nagcore.nesterov_step_(p, grads, b, lr=0.1, master=m)
        assert bits(p) == bits(want.params)
        assert bits(b) == bits(want.buffers)
        assert m is None or bits(m) == bits(want.master)


def test_bfloat16_as_uint16_gives_the_same_bits():
    params, grads, buffers = tensors("bfloat16")
    p, b = copies(params), copies(buffers)
    nagcore.nesterov_step_(p, grads, b, lr=0.1)
    q, c = [a.view(np.uint16).copy() for a in params], copies(buffers)
    nagcore.nesterov_step_(q, [g.view(np.uint16) for g in grads], c, lr=0.1, dtype="bfloat16")
    assert bits(p) == bits(q)
    assert bits(b) == bits(c)


# ---------------------------------------------------------------------------- clip, ema, non-finite
@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 4.5, 50.0, 1e9])
def test_clip_is_torchs(max_norm, storage, close):
    params, grads, buffers = tensors(storage, (257, 33, 1000), wide_grads=True)
    rule = {"lr": 0.1, "grad_scale": 8.0, "max_norm": max_norm}
    want = reference.nesterov_step(params, grads, buffers, **rule)
    master = None if storage != "bfloat16" else [p.astype(np.float32) for p in params]
    p, b = copies(params), copies(buffers)
    report = nagcore.nesterov_step_(p, grads, b, master=master, **rule)
    work = work_type(storage).name
    close(report.grad_norm, want.norm, "norm", work, want.norm)
    close(report.clip_factor, want.clip, "norm", work, want.clip)
    assert (report.clip_factor == 1.0) == (max_norm > want.norm)
    for got, wanted, theta, old in zip(master or p, want.master or [], params, buffers):
        close(got, wanted, "update", work, 1 + np.abs(theta.astype(float)) + np.abs(old))
    for got, wanted, g, old in zip(b, want.buffers, grads, buffers):
        close(got, wanted, "update", work, np.abs(g) / 8 + np.abs(old))


@pytest.mark.parametrize("storage", STORAGES)
def test_ema_follows_the_parameters(storage, close):
    params, grads, buffers = tensors(storage)
    work = work_type(storage)
    ema = [np.full(p.shape, 0.5, work) for p in params]
    master = None if storage in ("float32", "float64") else [p.astype(work) for p in params]
    p, b, e = copies(params), copies(buffers), copies(ema)
    nagcore.nesterov_step_(p, grads, b, lr=0.1, ema=e, ema_decay=0.99, master=master)
    for average, old, theta in zip(e, ema, master or p):
        want = reference.ema_update(old, theta, 0.99)
        close(average, want, "ema", work.name, np.abs(old) + np.abs(theta))
    frozen = copies(p)
    nagcore.nesterov_step_(p, grads, b, lr=0.1, ema=e, ema_decay=1.0, master=master)
    before = copies(e)
    nagcore.nesterov_step_(p, grads, b, lr=0.1, ema=e, ema_decay=1.0, master=master)
    assert bits(e) == bits(before)
    assert bits(p) != bits(frozen)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "look", [{"check_finite": True}, {"grad_scale": 2.0}, {"max_norm": 1.0}], ids=str
)
@pytest.mark.parametrize("storage", STORAGES)
def test_nonfinite_gradient_writes_nothing_after_a_look(storage, look, bad):
    params, grads, buffers = tensors(storage)
    ema = [np.ones(p.shape, work_type(storage)) for p in params]
    grads[-1][-1] = bad  # the last element of the last tensor
    p, b, e = copies(params), copies(buffers), copies(ema)
    report = nagcore.nesterov_step_(
        p, grads, b, lr=0.1, ema=e, ema_decay=0.9, first_step=True, **look
    )
    assert report.found_inf
    for got, old in ((p, params), (b, buffers), (e, ema)):
        assert bits(got) == bits(old)


@pytest.mark.parametrize("storage", STORAGES)
def test_nonfinite_gradient_passes_as_in_torch_and_is_reported(storage):
    params, grads, buffers = tensors(storage, (65, 17))
    grads[1][3] = np.nan
    p, b = copies(params), copies(buffers)
    assert nagcore.nesterov_step_(p, grads, b, lr=0.1).found_inf
    assert np.isnan(p[1][3].astype(float))
    assert np.isnan(b[1][3])
    nan = np.concatenate([np.isnan(a.astype(float)) for a in p + b])
    assert nan.sum() == 2, "NaN stays where it was"


# ------------------------------------------------------------------------------ layouts and threads
def layouts(a):
    """The same shape as a in every memory order, holes and reversals included."""
    room = np.zeros((2 * a.shape[0], 3 * a.shape[1]), a.dtype)
    swapped = np.zeros((a.shape[1], a.shape[0]), a.dtype)
    yield from (
        a.copy(),
        np.asfortranarray(a),
        room[::2, ::3],
        swapped.T,
        a[::-1].copy()[::-1],
        np.asfortranarray(a)[:, ::-1],
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_every_combination_of_layouts_is_right(storage):
    """A transposed gradient once gave torch's fused kernel silently wrong results."""
    params, grads, buffers = (t[0] for t in tensors(storage, ((33, 17),)))
    p, b = params.copy(), buffers.copy()
    nagcore.nesterov_step_(p, grads, b, lr=0.1, weight_decay=0.01)
    for q, g, c in itertools.product(layouts(params), layouts(grads), layouts(buffers)):
        q[...], g[...], c[...] = params, grads, buffers
        nagcore.nesterov_step_(q, g, c, lr=0.1, weight_decay=0.01)
        np.testing.assert_array_equal(q, p)
        np.testing.assert_array_equal(c, b)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("seed", [0, 7])
def test_threads_give_the_same_bits(seed, storage):
    """One large tensor among many small ones; the norm's sum too."""
    sizes = (100_003, 1, 64, 4096, 5, 30_011, *[257] * 40)
    params, grads, buffers = tensors(storage, sizes)
    if storage in ("float32", "float64"):
        seed = 0
    first = None
    for n_threads in (*THREADS, None):
        p, b = copies(params), copies(buffers)
        ema = [np.zeros(a.shape, work_type(storage)) for a in params]
        report = nagcore.nesterov_step_(
            p,
            grads,
            b,
            lr=0.1,
            max_norm=1.0,
            ema=ema,
            ema_decay=0.9,
            seed=seed,
            n_threads=n_threads,
        )
        got = (bits(p), bits(b), bits(ema), report)
        first = first or got
        assert got == first, n_threads


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=12),
    st.sampled_from(["float32", "bfloat16"]),
    st.sampled_from(["torch", "keras"]),
    st.integers(1, 8),
    st.booleans(),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_any_list_of_tensors_equals_reference(
    sizes, storage, convention, n_threads, first, lr, momentum
):
    params, grads, buffers = tensors(storage, sizes)
    rule = {"lr": lr, "momentum": momentum, "convention": convention, "first_step": first}
    rule["nesterov"] = momentum > 0
    want = reference.nesterov_step(params, grads, buffers, **rule)
    p, b = copies(params), copies(buffers)
    report = nagcore.nesterov_step_(p, grads, b, n_threads=n_threads, **rule)
    assert report.elements == sum(sizes)
    if FUSED or convention == "keras":
        assert bits(p) == bits(want.params)
        assert bits(b) == bits(want.buffers)


def test_plan_is_the_function_on_the_same_arrays():
    for storage in STORAGES:
        params, grads, buffers = tensors(storage)
        work = work_type(storage)
        ema = [np.zeros(p.shape, work) for p in params]
        p, b, e = copies(params), copies(buffers), copies(ema)
        q, c, f, g = copies(params), copies(buffers), copies(ema), copies(grads)
        plan = nagcore.NesterovPlan(q, g, c, ema=f)
        assert plan.tensors == len(params)
        assert plan.elements == sum(a.size for a in params)
        for step in range(4):
            fresh = tensors(storage, seed=step)[1]
            for array, values in zip(g, fresh):
                array[...] = values
            how = {"lr": 0.1, "first_step": step == 0, "max_norm": 1.0, "ema_decay": 0.9}
            one = nagcore.nesterov_step_(p, fresh, b, ema=e, **how)
            two = plan.step(**how)
            assert one == two
            for ours, theirs in ((p, q), (b, c), (e, f)):
                assert bits(ours) == bits(theirs)


# ------------------------------------------------------------------------------ stochastic rounding
@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_stochastic_rounding_takes_a_neighbour_with_the_right_probability(storage):
    n = 200_000
    params, grads, buffers = tensors(storage, (n,))
    # what the step gives before rounding: the same step on float32 copies
    wide = reference.nesterov_step(
        [params[0].astype(np.float32)], [grads[0].astype(np.float32)], buffers, lr=1e-3
    ).params[0]
    down, up, p = (
        a.astype(np.float64) for a in reference.stochastic_neighbours(wide, params[0].dtype)
    )
    means = []
    for seed in (1, 2, 3, 2**63):
        q, b = copies(params), copies(buffers)
        nagcore.nesterov_step_(q, grads, b, lr=1e-3, seed=seed)
        got = q[0].astype(np.float64)
        if not FUSED:  # an ulp of float32 may lie across a representable number
            continue
        is_up = got == up
        assert (is_up | (got == down)).all(), "only the two neighbours"
        assert (got[p == 0] == down[p == 0]).all(), "what is representable stays"
        spread = np.sqrt((p * (1 - p)).sum())
        assert abs((is_up - p).sum()) < 5 * spread
        for low in np.arange(0, 1, 0.1):  # in every tenth of probabilities, not only in the mean
            part = (p > low) & (p <= low + 0.1)
            assert abs((is_up - p)[part].sum()) < 5 * np.sqrt((p * (1 - p))[part].sum()) + 1
        halves = (is_up - p)[:-1] * (is_up - p)[1:]  # neighbours are drawn independently
        assert abs(halves.sum()) < 5 * np.sqrt((halves**2).sum())
        means.append(is_up)
    for one, other in itertools.combinations(means, 2):
        middle = (p > 0.2) & (p < 0.8)
        assert 0.3 < (one == other)[middle].mean() < 0.8, "another seed draws other bits"


def test_stochastic_rounding_draws_apart_for_each_tensor_and_alike_for_each_run():
    params, grads, buffers = tensors("bfloat16", (5000,))
    runs = []
    for n_threads in (1, 2, 5):
        p, b = [params[0].copy(), params[0].copy()], [buffers[0].copy(), buffers[0].copy()]
        nagcore.nesterov_step_(
            p, [grads[0], grads[0].copy()], b, lr=1e-3, seed=11, n_threads=n_threads
        )
        assert p[0].tobytes() != p[1].tobytes()
        runs.append(bits(p))
    assert runs[0] == runs[1] == runs[2]
    nearest = params[0].copy()
    nagcore.nesterov_step_(nearest, grads[0], buffers[0].copy(), lr=1e-3)
    assert nearest.tobytes() not in runs[0]


def test_stochastic_rounding_lets_small_steps_add_up():
    """lr·g far below half an ulp: to nearest, nothing ever moves; at random, the mean does."""
    p = np.ones(20_000, storage_type("bfloat16"))
    g, b = np.ones(20_000, np.float32), np.zeros(20_000, np.float32)
    still = p.copy()
    for step in range(100):
        nagcore.nesterov_step_(p, g, b, lr=1e-4, momentum=0.0, nesterov=False, seed=step + 1)
        nagcore.nesterov_step_(still, g, b, lr=1e-4, momentum=0.0, nesterov=False)
    assert (still.astype(float) == 1).all()
    # 1 − 100·1e-4, with the standard error of 20000 walks of 100 draws of size 2⁻⁸
    assert abs(p.astype(np.float64).mean() - 0.99) < 6 * 2.0**-8 / np.sqrt(20_000) * 2


# ------------------------------------------------------------------------------- instruction sets
SUBPROCESS = """
import hashlib, sys
import numpy as np
import nagcore
rng = np.random.default_rng(0)
out = [nagcore._core.active_isa()]
for convention in ("keras", "torch"):
    p, g, b = rng.normal(size=(3, 10007)).astype(np.float32)
    nagcore.nesterov_step_(p, g, b, lr=0.1, weight_decay=0.01, convention=convention)
    out.append(hashlib.sha256(p.tobytes() + b.tobytes()).hexdigest())
print(*out)
"""


def test_instruction_sets_differ_only_where_fma_is_missing():
    rng = np.random.default_rng(0)
    want = []
    for convention in ("keras", "torch"):
        p, g, b = rng.normal(size=(3, 10007)).astype(np.float32)
        step = reference.nesterov_step(
            [p], [g], [b], lr=0.1, weight_decay=0.01, convention=convention
        )
        both = step.params[0].tobytes() + step.buffers[0].tobytes()
        want.append(hashlib.sha256(both).hexdigest())
    for isa in ISAS:
        done = subprocess.run(
            [sys.executable, "-c", SUBPROCESS],
            env={**os.environ, "NAGCORE_ISA": isa},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        name, keras, torch = done.stdout.split()
        assert name == isa
        assert keras == want[0]
        assert (torch == want[1]) == (isa != "baseline")
