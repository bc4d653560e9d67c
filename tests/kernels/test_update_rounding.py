"""bfloat16 and float16 parameters: widened exactly, rounded once, to nearest even or at random, and
with master weights."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from nagcore import _core, nesterov_step_

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)
F16 = np.dtype(np.float16)
NARROW = [BF16, F16]


def rounded(x, dtype, seed=0):
    """x as nesterov_step_ rounds it: θ ← 0 − 1·(−x)."""
    x = np.asarray(x, np.float32)
    p = np.zeros(x.shape, dtype)
    nesterov_step_(p, -x, None, lr=1.0, momentum=0.0, nesterov=False, seed=seed)
    return p


def interesting_floats():
    """Every exponent with mantissas at, beside and between the narrow values, and random ones."""
    tails = [
        0,
        1,
        0xFFF,
        0x1000,
        0x1001,
        0x1FFF,
        0x2000,
        0x3000,
        0x7FFF,
        0x8000,
        0x8001,
        0x17FFF,
        0x18000,
        0x7FFFFF,
    ]
    exponents = np.arange(256, dtype=np.uint32) << 23
    rng = np.random.default_rng(31)
    pattern = (exponents[:, None] | np.array(tails, np.uint32)).ravel()
    noise = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    low = (rng.integers(90, 130, 100_000).astype(np.uint32) << 23) | (
        noise & 0x7FFFFF
    )  # around float16's subnormals
    x = np.concatenate([pattern, pattern | np.uint32(1 << 31), noise, low]).view(np.float32)
    return x[~np.isnan(x)]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_every_narrow_number_survives_a_step_of_zero(dtype):
    every = np.arange(65536, dtype=np.uint16)
    p = every.view(dtype).copy()
    # θ + (−0)·0 keeps the sign of a zero
    nesterov_step_(p, np.zeros(65536, np.float32), None, lr=0.0, momentum=0.0, nesterov=False)
    nan = np.isnan(every.view(dtype).astype(np.float32))
    np.testing.assert_array_equal(p.view(np.uint16)[~nan], every[~nan])
    assert np.isnan(p.astype(np.float32)[nan]).all()


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_rounding_is_to_nearest_even(dtype):
    x = interesting_floats()
    with np.errstate(over="ignore"):
        want = x.astype(dtype)
    nonzero = x != 0  # 0 − (−0) has lost its sign before the rounding
    np.testing.assert_array_equal(
        rounded(x, dtype).view(np.uint16)[nonzero], want.view(np.uint16)[nonzero]
    )


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_uint16_holds_bfloat16_where_dtype_says_so(dtype):
    p = np.linspace(-2, 2, 1003).astype(BF16)
    q = p.view(np.uint16).copy()
    g = np.linspace(3, -1, 1003).astype(BF16)
    b, c = np.zeros(1003, np.float32), np.zeros(1003, np.float32)
    nesterov_step_(p, g, b, lr=0.1)
    word = "bfloat16" if dtype == F16 else BF16
    nesterov_step_(q, g.view(np.uint16), c, lr=0.1, dtype=word)
    np.testing.assert_array_equal(q, p.view(np.uint16))
    np.testing.assert_array_equal(c, b)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_master_weights_carry_the_step(dtype):
    rng = np.random.default_rng(37)
    master = rng.standard_normal(5001).astype(np.float32)
    p = np.full(5001, 100, dtype)  # what the parameter holds is not read
    wide, b, c = master.copy(), np.zeros(5001, np.float32), np.zeros(5001, np.float32)
    for step in range(3):
        g = (rng.standard_normal(5001) * 1e-3).astype(dtype)
        nesterov_step_(p, g, b, lr=0.01, master=master, seed=step)
        nesterov_step_(wide, g.astype(np.float32), c, lr=0.01)
        np.testing.assert_array_equal(master, wide)
        np.testing.assert_array_equal(b, c)
        np.testing.assert_array_equal(p.view(np.uint16), wide.astype(dtype).view(np.uint16))


# ----- stochastic rounding ------------------------------------------------------------------------

VALUES = {
    "bfloat16": [1.001, -1.0035, 3.14159, -1e-30, 2.5e20, 1 + 2.0**-8],
    "float16": [1.0003, -1.0009, 3.14159, 1e-5, -3.3e-6, 2.0**-25, 6.2e-5, 1234.567, 1 + 2.0**-11],
}


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_stochastic_rounding_is_unbiased(dtype):
    n = 1 << 18
    for value in VALUES[dtype.name]:
        x = np.float32(value)
        got = rounded(np.full(n, x), dtype, seed=2026).astype(np.float64)
        levels = np.unique(got)
        assert len(levels) == 2, f"{value} is rounded to {levels}"
        below, above = levels
        assert below < x < above
        near = np.float64(x.astype(dtype))
        assert near in levels  # the two neighbours, not others
        chance = (np.float64(x) - below) / (above - below)
        # Six standard deviations of n draws: no bias that this many draws could show.
        spread = 6 * np.sqrt(chance * (1 - chance) / n)
        assert abs((got == above).mean() - chance) < spread


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_stochastic_rounding_draws_look_independent(dtype):
    """Across neighbours, leaves, tensors and seeds the draws of a midpoint agree half the time."""
    n = 1 << 16
    x = np.full(n, 1 + np.ldexp(1.0, -8 if dtype == BF16 else -11), np.float32)
    zero, g = [np.zeros(n, dtype) for _ in range(2)], [-x, -x]
    nesterov_step_(zero, g, None, lr=1.0, momentum=0.0, nesterov=False, seed=1)
    up = [z.astype(np.float32) > x for z in zero]
    other = rounded(x, dtype, seed=2).astype(np.float32) > x
    spread = 6 * 0.5 / np.sqrt(n)
    for lag in (1, 2, 3, 7, 16, 64, 512, 4096, 8192):
        assert abs((up[0][lag:] == up[0][:-lag]).mean() - 0.5) < spread * 1.1
    assert abs((up[0] == up[1]).mean() - 0.5) < spread
    assert abs((up[0] == other).mean() - 0.5) < spread
    # and in blocks: the number of ups in 256 draws has the binomial's variance
    counts = up[0].reshape(-1, 256).sum(axis=1)
    assert 48 < counts.var() < 82  # 64 ± 3.2 standard deviations of 256 blocks


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_what_needs_no_rounding_is_not_rounded(dtype):
    every = np.arange(65536, dtype=np.uint16).view(dtype)
    x = every.astype(np.float32)
    x = x[np.isfinite(x)]
    np.testing.assert_array_equal(rounded(x, dtype, seed=9).astype(np.float32), x)
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(rounded(special, dtype, seed=9).astype(np.float32), special)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_stochastic_rounding_goes_to_a_neighbour(dtype):
    x = interesting_floats()
    x = x[np.abs(x) < (3e38 if dtype == BF16 else 65000)]
    got = rounded(x, dtype, seed=3)
    toward, near = got.astype(np.float64), x.astype(dtype)
    bits = near.view(np.uint16).astype(np.int64)
    exact = near.astype(np.float64)
    outward = np.where(np.abs(exact) > np.abs(x.astype(np.float64)), bits - 1, bits + 1)
    neighbour = outward.astype(np.uint16).view(dtype).astype(np.float64)
    assert ((toward == exact) | (toward == neighbour)).all()
    assert (toward != exact).any()


def test_seed_counts_and_threads_do_not():
    x = np.random.default_rng(41).standard_normal(100_001).astype(np.float32)

    def step(seed, n_threads):
        p = np.zeros(x.shape, BF16)
        nesterov_step_(
            p, -x, None, lr=1.0, momentum=0.0, nesterov=False, seed=seed, n_threads=n_threads
        )
        return p.tobytes()

    assert len({step(7, t) for t in (1, 2, 3, 4, 8)}) == 1
    assert len({step(s, 2) for s in (0, 1, 2, 3, 2**32, 2**64 - 1)}) == 6


SCRIPT = """
import hashlib, numpy as np, ml_dtypes
from nagcore import nesterov_step_
x = np.random.default_rng(43).standard_normal(20_011).astype(np.float32)
x = np.concatenate([x, x * np.float32(1e-6), x * np.float32(1e30)])
for dtype in (ml_dtypes.bfloat16, np.float16):
    p = np.zeros(x.shape, dtype)
    nesterov_step_(p, -x, None, lr=1.0, momentum=0.0, nesterov=False, seed=11)
    print(hashlib.sha256(p.tobytes()).hexdigest())
"""


def test_random_bits_are_the_same_on_every_instruction_set():
    answers = set()
    for isa in _core.isa_names():
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "NAGCORE_ISA": isa},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    assert len(answers) == 1
