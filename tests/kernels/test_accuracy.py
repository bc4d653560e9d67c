"""The promised error bound: 8·eps·Σ_i(|r_i x_ij| + φ''_i |x_ij| Σ_k |x_ik w_k|), whatever n is."""

from __future__ import annotations

import numpy as np
import pytest

from cases import ISAS, LOSSES, Case, make, storage_type
from nagcore import reference

EPS = {"float64": 2.0**-52, "float32": 2.0**-23}


def ratio(case, **more):
    """The gradient's worst error in units of eps·(the promise's own sum), nothing added to it."""
    problem = case.problem(**more)
    wide = np.longdouble if problem.compute == "float64" else np.float64
    _, g = problem.value_and_grad(case.w)
    error = np.abs(g - case.oracle(wide)[1]).astype(np.float64)
    unit = EPS[problem.compute] * case.magnitudes(strict=True).gradient
    assert (error[unit == 0] == 0).all(), "a column of zeros has a gradient of zero"
    return float((error[unit > 0] / unit[unit > 0]).max())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_error_stays_below_the_bound_and_does_not_grow_with_n(loss, isa):
    worst = {}
    for n in (1000, 10_000, 100_000):
        worst[n] = ratio(make(loss, n, 20, "float32"), isa=isa)
    assert max(worst.values()) <= 8
    assert worst[100_000] <= 2 * max(worst[1000], 0.5), f"grows with n: {worst}"


@pytest.mark.parametrize("dtype", ["bfloat16", "uint8"])
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_gradient_error_of_narrow_storage_stays_below_the_bound(loss, dtype):
    for n in (1000, 30_000):
        for isa in ISAS:
            assert ratio(make(loss, n, 20, dtype), isa=isa) <= 8


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_gradient_error_of_float64_stays_below_its_own_bound(loss):
    for n in (1000, 30_000):
        for isa in ISAS:
            assert ratio(make(loss, n, 20, "float64"), isa=isa) <= 8


def constant(loss, n, d, dtype="float32", number=0.1, order="C"):
    """Every x, w and residual of one sign and size: roundings push one way, and nothing cancels."""
    X = np.full((n, d), number, storage_type(dtype), order=order)
    w = np.full(d, np.float32(0.3 / d), np.float64)
    y = {"binary": np.ones(n), "nonnegative": np.zeros(n)}.get(
        reference.LOSSES[loss].targets, np.full(n, -1.0)
    )
    return Case(X, y, w, {"loss": loss})


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "softmax"])
def test_gradient_error_on_constant_data(loss, order, isa):
    """The worst case for sums: a running total loses the same low bits n times over."""
    worst = {n: ratio(constant(loss, n, 10, order=order), isa=isa) for n in (1000, 10_000, 100_000)}
    assert max(worst.values()) <= 8, worst
    assert worst[100_000] <= 2 * max(worst[1000], 0.5), f"grows with n: {worst}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gradient_error_does_not_grow_with_d_either(order, dtype, isa):
    for d in (1000, 10_000, 100_000):
        for loss in ("squared", "logistic"):
            assert ratio(constant(loss, 5, d, dtype, order=order), isa=isa) <= 8, (loss, d)


@pytest.mark.parametrize(("n", "d"), [(8000, 1000), (2666, 3000), (800, 10_000)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_gradient_error_on_wide_constant_data(loss, dtype, n, d):
    """Long rows: here leaves are cut by bytes, and a leaf's rows add up in one float32 register."""
    case = constant(loss, n, d, dtype, 0.7 if dtype != "uint8" else 77)
    if dtype == "uint8":
        case.how["scale"] = 1 / 128
    want, unit = case.oracle()[1], EPS["float32"] * case.magnitudes(strict=True).gradient
    worst = {}
    for isa in ISAS:
        for order in "CF":
            problem = case.problem(np.asarray(case.X, order=order), isa=isa)
            _, g = problem.value_and_grad(case.w)
            worst[isa, order] = float((np.abs(g - want) / unit).max())
    assert max(worst.values()) <= 8, worst


@pytest.mark.parametrize("d", [700, 2500])
@pytest.mark.parametrize("towers", [0, 100, 1e6])
def test_gradient_error_of_long_rows_of_bytes(towers, d):
    """Coefficients as whole numbers: one that towers over all must not cost rows without it digits."""
    case = make("logistic", 4100, d, "uint8")
    if towers:
        case.how = {"loss": "logistic", "scale": 1 / 64}
        case.w[5] = np.float32(towers * np.abs(case.w).mean())
        case.X[:, 5] = 0
        case.X[::2, 7:] = 0  # and few columns
    for isa in ISAS:
        assert ratio(case, isa=isa) <= 8


def test_gradient_error_on_softmax_constant_data():
    for n in (1000, 50_000):
        X = np.full((n, 7), 0.1, np.float32)
        w = np.float32(np.outer(np.full(7, 0.05), [1, 2, 3])).astype(np.float64)
        for isa in ISAS:
            assert ratio(Case(X, np.arange(n) % 3, w, {"loss": "softmax"}), isa=isa) <= 8


def test_gradient_error_on_columns_of_unlike_scale():
    """The bound is per component: a column of 1e-4 next to one of 1e4 keeps its own accuracy."""
    case = make("logistic", 20_000, 9, "float32")
    sizes = np.geomspace(1e-4, 1e4, 9).astype(np.float32)
    case.X = case.X * sizes
    case.w = np.float32(case.w / sizes).astype(np.float64)
    for isa in ISAS:
        assert ratio(case, isa=isa) <= 8


def test_gradient_error_with_heavy_tails_and_few_large_weights(close):
    rng = np.random.default_rng(0)
    case = make("huber", 20_000, 9, "float32")
    case.X = np.float32(rng.standard_t(1.5, size=case.X.shape))
    case.how["sample_weight"] = np.float32(rng.pareto(1.1, 20_000) + 1e-3).astype(np.float64)
    for isa in ISAS:
        assert ratio(case, isa=isa) <= 8


def test_value_error_on_constant_data(close):
    for n in (1000, 100_000):
        case = constant("squared", n, 10)
        value, _ = case.problem().value_and_grad(case.w)
        close(value, case.oracle()[0], "value", "float32", case.magnitudes().value)


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_float64_on_float32_data_has_no_float32_in_it(loss):
    """compute="float64": the error is of float64's size, on 10⁵ rows of float32."""
    case = make(loss, 100_000, 10, "float32")
    assert ratio(case, compute="float64") <= 8


def test_a_running_float32_sum_would_not_meet_the_bound():
    """What the bound is there to tell apart: one accumulator, n additions."""
    case = constant("squared", 100_000, 10)
    z = case.X @ case.w.astype(np.float32)
    terms = case.X * (z - case.y.astype(np.float32))[:, None]
    g = np.add.accumulate(terms, axis=0, dtype=np.float32)[-1] / np.float32(100_000)
    unit = EPS["float32"] * case.magnitudes(strict=True).gradient
    assert (np.abs(g - case.oracle()[1]) / unit).min() > 100


def test_the_check_fails_on_what_is_beyond_the_table(close):
    case = make("logistic", 500, 10, "float32")
    size, want = case.magnitudes().gradient, case.oracle()[1]
    close(want + 7 * EPS["float32"] * size, want, "gradient", "float32", size)
    off = want.copy()
    off[3] += 9 * EPS["float32"] * size[3]
    for bad in (off, want * np.nan, want[:-1], want + 9 * EPS["float64"] * size):
        arithmetic = "float64" if bad is not off and np.isfinite(bad).all() else "float32"
        with pytest.raises(AssertionError, match="gradient"):
            close(bad, want, "gradient", arithmetic, size)


def test_real_data_meets_the_bound(real_data):
    X = real_data.load("mnist")["X_train"][:3000]
    y = real_data.load("mnist")["y_train"][:3000].astype(np.int64)
    rng = np.random.default_rng(0)
    w = np.float32(rng.normal(size=(X.shape[1], 10)) / 30).astype(np.float64)
    case = Case(X, y, w, {"loss": "softmax", "scale": 1 / 255})
    for isa in ISAS:
        assert ratio(case, isa=isa) <= 8
