"""bfloat16 momentum: the step is float32's on the widened buffer, and the buffer is rounded once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from nagcore import _core, nesterov_step_

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)
LENGTHS = [0, 1, 15, 16, 17, 31, 32, 33, 511, 513, 4095, 4097, 10_000]
RULES = [
    {},
    {"nesterov": False},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled": True, "maximize": True},
    {"max_norm": 0.5},
    {"grad_scale": 8.0},
    {"convention": "keras"},
    {"convention": "keras", "nesterov": False, "weight_decay": 0.1},
    {"ema_decay": 0.9},
    {"first_step": True},
    {"first_step": True, "ema_decay": 0.9},
]


def arrays(n, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    p, g, b, e = (rng.standard_normal(n).astype(np.float32) for _ in range(4))
    return p.astype(dtype), g.astype(dtype), b.astype(BF16), e


def up(b):
    """The bfloat16 after each, away from zero."""
    return (b.view(np.uint16) + 1).astype(np.uint16).view(BF16)


def down(x):
    """Each float32 cut to bfloat16, towards zero."""
    return (x.view(np.uint32) >> 16).astype(np.uint16).view(BF16)


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, BF16, np.float16], ids=str)
def test_step_is_that_of_the_widened_buffer(dtype, rule, seed):
    for n in LENGTHS:
        p, g, b, e = arrays(n, dtype)
        q, wide, f = p.copy(), b.astype(np.float32), e.copy()
        averages = (e, f) if "ema_decay" in rule else (None, None)
        step = {"lr": 0.1, "momentum": 0.9, **rule}
        narrow_report = nesterov_step_(p, g, b, ema=averages[0], seed=seed, **step)
        wide_report = nesterov_step_(q, g, wide, ema=averages[1], seed=seed, **step)
        assert narrow_report == wide_report
        assert p.tobytes() == q.tobytes()
        assert e.tobytes() == f.tobytes()
        if seed == 0:
            assert b.tobytes() == wide.astype(BF16).tobytes()
        else:
            below = down(wide)
            assert np.all((b == below) | (b == up(below)))
            exact = below.astype(np.float32) == wide
            assert np.all(b[exact] == below[exact])


def test_plain_descent_leaves_the_buffer_alone():
    p, g, b, _ = arrays(100)
    before = b.tobytes()
    nesterov_step_(p, g, b, lr=0.1, momentum=0.0, nesterov=False, seed=3)
    assert b.tobytes() == before


def test_stochastic_rounding_keeps_the_mean():
    n = 200_000
    fraction = np.float32(0.3)  # of a unit in the last place above 1
    g = np.full(n, 1 + fraction / 128, np.float32)
    p, b = np.zeros(n, np.float32), np.zeros(n, BF16)
    nesterov_step_(p, g, b, lr=0.0, momentum=0.5, seed=1)
    ups = float((b.astype(np.float32) > 1).mean())
    assert abs(ups - fraction) < 5 * (0.3 * 0.7 / n) ** 0.5
    # Neighbours, and the two halves of one draw, are not tied to each other.
    chosen = (b.astype(np.float32) > 1).astype(float) - fraction
    for lag in (1, 2, 8, 15, 16, 17, 32, 64):
        assert abs(float((chosen[lag:] * chosen[:-lag]).mean())) < 5 * 0.21 / n**0.5


def test_infinities_and_nans_stay_what_they_are():
    g = np.array([np.inf, -np.inf, np.nan, 3e38, 0.0, -0.0] * 7, np.float32)
    g[2::12].view(np.uint32)[:] = 0xFFFFFFFF  # a NaN whose payload would carry
    p, b = np.zeros(g.size, np.float32), np.zeros(g.size, BF16)
    nesterov_step_(p, g, b, lr=0.0, momentum=0.5, nesterov=False, seed=9, first_step=True)
    kept = b.astype(np.float32)
    assert np.array_equal(np.isnan(kept), np.isnan(g))
    assert np.array_equal(np.isposinf(kept[0::6]), np.full(7, True))
    assert np.array_equal(np.isneginf(kept[1::6]), np.full(7, True))
    assert np.array_equal(kept[4::6], np.zeros(7))


def test_strided_buffers_equal_dense_ones():
    p, g, b, _ = arrays(60 * 70)
    dense = [a.reshape(60, 70).copy() for a in (p, g, b)]
    host = np.zeros((120, 140), BF16)
    host[::2, ::2] = dense[2]
    strided = [dense[0].copy(), dense[1], host[::2, ::2]]
    for p_, g_, b_ in (dense, strided):
        nesterov_step_(p_, g_, b_, lr=0.1, momentum=0.9, seed=4)
    assert np.array_equal(dense[0], strided[0])
    assert np.array_equal(dense[2], strided[2])


def digest(n_threads=None):
    found = hashlib.sha256()
    for dtype in (np.float32, BF16, np.float16):
        p, g, b, _ = arrays(70_001, dtype)
        for seed in (1, 2, 3):
            nesterov_step_(p, g, b, lr=0.1, momentum=0.9, weight_decay=0.01, seed=seed, n_threads=n_threads)
        found.update(p.tobytes() + b.tobytes())
    return found.hexdigest()


def test_the_same_bits_on_any_number_of_threads():
    assert len({digest(n) for n in (1, 2, 3, 7)}) == 1


def test_the_same_bits_on_every_instruction_set_with_fused_arithmetic():
    fused = [isa for isa in _core.isa_names() if isa != "baseline"]
    if len(fused) < 2:
        pytest.skip("one instruction set here")
    code = "import test_update_bf16_buffer as t; print(t.digest())"
    where = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "NAGCORE_ISA": isa, "PYTHONPATH": where},
        ).stdout
        for isa in fused
    }  # fmt: skip
    assert len(found) == 1
