"""The update against the oracle, nagcore.reference.nesterov_step, over all that can be asked."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nagcore import _core, nesterov_step_, reference

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
LENGTHS = [1, 3, 7, 15, 16, 17, 31, 33, 511, 512, 513, 1003, 4095, 4096, 4097]
FUSED = _core.active_isa() != "baseline"


@st.composite
def scalars(draw):
    convention = draw(st.sampled_from(["torch", "keras"]))
    form = draw(st.sampled_from(["plain", "heavy ball", "nesterov", "lookahead"]))
    s = {
        "convention": convention,
        "lr": draw(st.sampled_from([0.1, 0.003, 1.0])),
        "momentum": 0.0 if form == "plain" else draw(st.sampled_from([0.9, 0.5])),
        "nesterov": form in ("nesterov", "lookahead"),
        "weight_decay": draw(st.sampled_from([0.0, 0.02])),
        "decoupled": draw(st.booleans()),
        "maximize": draw(st.booleans()),
        "check_finite": draw(st.booleans()),
    }
    if form == "lookahead":
        s["lookahead"] = 0.7
    if form == "heavy ball" and convention == "torch":
        s["dampening"] = draw(st.sampled_from([0.0, 0.3]))
    s["grad_scale"] = draw(st.sampled_from([None, 1024.0, 3.0]))
    s["max_norm"] = draw(st.sampled_from([None, 0.7, 1e9]))
    return s


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    settings=scalars(),
    lengths=st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=4),
    with_master=st.booleans(),
    seed=st.integers(0, 1000),
    n_threads=st.sampled_from([1, 2, 3]),
)
def test_update_equals_the_reference(dtype, settings, lengths, with_master, seed, n_threads):
    rng = np.random.default_rng(seed)
    storage = DTYPES[dtype]
    compute = np.float64 if dtype == "float64" else np.float32
    draw = lambda t: [rng.standard_normal(n).astype(np.float32).astype(t) for n in lengths]  # noqa: E731
    params, grads, buffers = draw(storage), draw(storage), draw(compute)
    master = draw(compute) if with_master and storage.itemsize == 2 else None
    first = [bool(f) for f in rng.integers(0, 2, len(lengths))]

    want = reference.nesterov_step(
        params, grads, buffers, master=master, first_step=first, **settings
    )
    before = [(m if master else p).astype(np.float64) for p, m in zip(params, master or params)]
    old_buffers = [b.astype(np.float64) for b in buffers]
    report = nesterov_step_(
        params, grads, buffers, master=master, first_step=first, n_threads=n_threads, **settings
    )

    assert report.grad_norm == pytest.approx(want.norm, rel=1e-6)
    assert report.clip_factor == pytest.approx(want.clip, rel=1e-6)
    assert report.found_inf == want.found_inf
    # To the bit where the factor that multiplies every gradient is the same number.
    exact = compute == np.float32 and report.clip_factor == want.clip
    if exact and (FUSED or settings["convention"] == "keras"):
        for got, ref in zip([*params, *buffers, *(master or [])],
                            [*want.params, *want.buffers, *(want.master or [])]):  # fmt: skip
            np.testing.assert_array_equal(got, ref)
        return
    eps = np.finfo(compute).eps
    for i, g in enumerate(grads):
        size = np.abs(g.astype(np.float64)) + np.abs(before[i]) + np.abs(old_buffers[i])
        buffer_scale = settings["lr"] if settings["convention"] == "keras" else 1.0
        assert (
            np.abs(buffers[i] - want.buffers[i]) <= 8 * eps * np.maximum(size, buffer_scale)
        ).all()
        got = (master or params)[i].astype(np.float64)
        ref = (want.master or want.params)[i].astype(np.float64)
        narrow = 0 if master or storage.itemsize > 2 else float(ml_dtypes.finfo(storage).eps)
        assert (np.abs(got - ref) <= 8 * eps * (1 + size) + narrow * np.abs(ref)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_skipped_step_is_the_references(dtype, bad):
    storage = DTYPES[dtype]
    state = np.float64 if dtype == "float64" else np.float32
    p, g = np.ones(9, storage), np.ones(9, storage)
    b = np.ones(9, state)
    g[4] = bad
    want = reference.nesterov_step([p], [g], [b], lr=0.1, max_norm=1.0)
    report = nesterov_step_(p, g, b, lr=0.1, max_norm=1.0)
    assert (report.found_inf, report.clip_factor) == (want.found_inf, want.clip) == (True, 1.0)
    np.testing.assert_array_equal(p, want.params[0])
    np.testing.assert_array_equal(b, want.buffers[0])


@pytest.mark.parametrize("decay", [0.3, 0.5, 0.999])
@pytest.mark.parametrize("convention", ["torch", "keras"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_moving_average_is_the_references(dtype, convention, decay):
    rng = np.random.default_rng(5)
    p, g, b, e = (rng.standard_normal(4099).astype(dtype) for _ in range(4))
    old = e.copy()
    nesterov_step_(p, g, b, lr=0.1, ema=e, ema_decay=decay, convention=convention)
    want = reference.ema_update(old, p, decay)
    limit = 2 * np.finfo(dtype).eps * (np.abs(old) + np.abs(p))
    assert (np.abs(e - want) <= limit).all()
