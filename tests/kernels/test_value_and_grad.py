"""The one-pass kernels against the oracle: loss × storage × layout × instruction set × length."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nagcore
from cases import (
    CLASSES,
    DENSE_LAYOUTS,
    DTYPES,
    ISAS,
    LENGTHS,
    LOSSES,
    Case,
    check,
    csr,
    lay_out,
    make,
)
from nagcore import _core, reference


# ---------------------------------------------------------------------------- against the oracle
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_problem_matches_reference_for_every_loss(loss, dtype, isa, close):
    for extras in ((), ("weights",), ("offset", "intercept"), ("weights", "offset", "intercept")):
        check(close, make(loss, 203, 37, dtype, extras=extras), isa=isa, note=str(extras))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["C", "F", "both-strided"])
def test_problem_matches_reference_at_awkward_lengths(layout, dtype, isa, close):
    """Every d with three n, every n with three d: heads, tails and both together."""
    pairs = {(n, d) for d in LENGTHS for n in (1, 7, 65)} | {
        (n, d) for n in LENGTHS for d in (1, 8, 33)
    }
    for n, d in sorted(pairs | {(1, 5000), (2, 4097), (5000, 1), (4097, 2), (1025, 3)}):
        case = make("squared_hinge" if n % 2 else "logistic", n, d, dtype, extras=("intercept",))
        check(close, case, X=lay_out(case.X, layout), isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("k", [2, 3, 4, 7, 8, 9, 10, 16, 17, 33, 100])
def test_softmax_matches_reference_for_any_number_of_classes(k, isa, close):
    for n, d, dtype in ((101, 5, "float32"), (130, 33, "float64"), (103, 17, "uint8")):
        check(close, make("softmax", n, d, dtype, extras=("weights", "intercept"), k=k), isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 2), (2, 40), (70, 1)])
def test_softmax_matches_reference_at_awkward_lengths(n, d, dtype, isa, close):
    for layout in ("C", "F", "column-strided"):
        case = make("softmax", n, d, dtype)
        check(close, case, X=lay_out(case.X, layout), isa=isa)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", sorted(DENSE_LAYOUTS))
def test_problem_reads_every_layout(layout, dtype, tmp_path, close):
    for loss in ("logistic", "softmax"):
        for isa in ISAS:
            for n, d in ((67, 19), (1, 65), (300, 2)):
                case = make(loss, n, d, dtype, extras=("weights",))
                X = lay_out(case.X, layout, tmp_path)
                before = X.copy()
                check(close, case, X=X, isa=isa, note=layout)
                np.testing.assert_array_equal(X.view(X.dtype), before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, None])
def test_problem_reads_zero_strides(axis, dtype, close):
    """np.broadcast_to: one row, one column or one number standing for all."""
    case = make("logistic", 101, 23, dtype)
    rows, columns = (slice(0, 1) if axis in (0, None) else slice(None)), slice(None)
    columns = slice(0, 1) if axis in (1, None) else slice(None)
    case.X = np.broadcast_to(case.X[rows, columns], (101, 23))
    assert 0 in case.X.strides
    for isa in ISAS:
        check(close, case, isa=isa)


@pytest.mark.parametrize("dtype", DTYPES)
def test_problem_reads_views_of_three_dimensions(dtype, close):
    """A slice of a stack and a transpose of a swapped stack: strides no single array has."""
    case = make("logistic", 64, 15, dtype)
    stack = np.zeros((64, 2, 15), case.X.dtype)
    stack[:, 1] = case.X
    check(close, case, X=stack[:, 1])
    swapped = np.zeros((15, 3, 64), case.X.dtype)
    swapped[:, 2] = case.X.T
    check(close, case, X=swapped[:, 2].T)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1 / 255, 0.0), (0.013, -1.7), (-2.0, 100.0)]
)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_scale_and_shift_fold_into_the_pass(loss, scale, shift, close):
    case = make(loss, 99, 21, "uint8", extras=("weights", "intercept"))
    case.how.update(scale=scale, shift=shift)
    case.w = case.w / (abs(scale) * 128 + abs(shift))
    for isa in ISAS:
        check(close, case, isa=isa)
        check(close, case, X=np.asfortranarray(case.X), isa=isa)
        check(close, case, compute="float64", isa=isa)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("loss", LOSSES)
def test_compute_float64_on_narrow_storage_is_float64_exact(loss, dtype, close):
    for isa in ISAS:
        check(
            close,
            make(loss, 120, 30, dtype, extras=("weights", "offset", "intercept")),
            compute="float64",
            isa=isa,
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "uint8"])
def test_compute_float32_may_be_asked_for_by_name(dtype, close):
    check(close, make("logistic", 50, 9, dtype), compute="float32")


def test_bfloat16_as_uint16_gives_the_same_bits():
    case = make("logistic", 77, 33, "bfloat16")
    value, g = case.problem().value_and_grad(case.w)
    for X in (case.X.view(np.uint16), np.asfortranarray(case.X).view(np.uint16)[::1]):
        problem = case.problem(X, dtype="bfloat16")
        assert problem.x_dtype == "bfloat16"
        again, h = problem.value_and_grad(case.w)
        assert again == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose(h, g, rtol=1e-4, atol=1e-6)
    same = case.problem(case.X.view(np.uint16), dtype="bfloat16").value_and_grad(case.w)
    assert (same[0], same[1].tobytes()) == (value, g.tobytes())


@st.composite
def cases(draw):
    loss, dtype = draw(st.sampled_from(LOSSES)), draw(st.sampled_from(DTYPES))
    n, d = draw(st.integers(1, 150)), draw(st.integers(1, 80))
    extras = draw(st.sets(st.sampled_from(["weights", "offset", "intercept"])))
    case = make(loss, n, d, dtype, extras=tuple(extras), seed=draw(st.integers(0, 5)))
    rows = draw(st.sampled_from([1, 2, 5, -1, -3]))
    columns = draw(st.sampled_from([1, 2, 3, -1, -2]))
    room = np.zeros(
        (n * abs(rows), d * abs(columns)), case.X.dtype, order=draw(st.sampled_from("CF"))
    )
    X = room[::rows, ::columns]
    X[...] = case.X
    return case, X


@settings(max_examples=150)
@given(cases(), st.sampled_from(ISAS), st.integers(1, 8), st.booleans())
def test_problem_matches_reference_on_any_view(close, drawn, isa, n_threads, wide):
    case, X = drawn
    compute = "float64" if wide else None
    check(close, case, X=X, isa=isa, n_threads=n_threads, compute=compute, note=str(X.strides))


# ----------------------------------------------------------------- what a Problem says and keeps
@pytest.mark.parametrize("dtype", DTYPES)
def test_problem_attributes(dtype):
    case = make("softmax", 50, 7, dtype, extras=("weights", "intercept"))
    problem = case.problem()
    assert (problem.n, problem.d, problem.k, problem.p) == (50, 7, CLASSES, 8)
    assert problem.sum_weights == pytest.approx(case.how["sample_weight"].sum(), rel=1e-15)
    assert problem.loss == "softmax"
    assert problem.x_dtype == dtype
    assert problem.compute == ("float64" if dtype == "float64" else "float32")
    assert problem.nbytes == case.X.nbytes
    other = make("logistic", 50, 7, dtype)
    assert (other.problem().k, other.problem().p, other.problem().sum_weights) == (1, 7, 50.0)
    assert other.problem().layout == "C"
    assert other.problem(np.asfortranarray(other.X)).layout == "F"
    assert other.problem(lay_out(other.X, "both-strided")).layout == "strided"


def test_problem_reads_x_where_it_lies():
    """X is not copied: what is written into it later is what the next pass reads."""
    case = make("squared", 40, 6, "float64")
    for layout in ("C", "F", "both-strided", "misaligned"):
        X = lay_out(case.X, layout).copy() if layout == "C" else lay_out(case.X, layout)
        problem = _core.Problem(X, case.y, loss="squared")
        first, _ = problem.value_and_grad(case.w)
        X[...] = 2 * case.X
        second, _ = problem.value_and_grad(case.w)
        want, _ = reference.value_and_grad(2 * case.X, case.y, case.w, loss="squared")
        assert first != second
        assert second == pytest.approx(want, rel=1e-12)


def test_problem_keeps_x_alive():
    case = make("logistic", 2000, 50, "float64")
    want, _g = case.oracle()
    X = case.X.copy()
    problem = case.problem(X)
    del X
    gc.collect()
    junk = [np.full((2000, 50), 7.0) for _ in range(4)]
    value, _h = problem.value_and_grad(case.w)
    assert value == pytest.approx(want, rel=1e-12)
    assert len(junk) == 4


@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_grad_writes_into_what_it_is_given(loss):
    case = make(loss, 60, 11, "float32", extras=("intercept",))
    problem = case.problem()
    value, g = problem.value_and_grad(case.w)
    out = np.full_like(case.w, np.nan)
    again, same = problem.value_and_grad(case.w, out)
    assert same is out
    assert again == value
    np.testing.assert_array_equal(out, g)
    w = case.w.copy()
    w.flags.writeable = False
    np.testing.assert_array_equal(problem.value_and_grad(w)[1], g)
    np.testing.assert_array_equal(w, case.w)


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
@pytest.mark.parametrize("loss", LOSSES)
def test_margins_losses_and_rmatvec_are_the_parts_of_the_pass(loss, dtype, close):
    case = make(loss, 301, 29, dtype, extras=("weights", "offset", "intercept"))
    size, arithmetic = case.magnitudes(), "float64" if dtype == "float64" else "float32"
    wide = np.longdouble if dtype == "float64" else np.float64
    for isa in ISAS:
        problem = case.problem(isa=isa)
        z = problem.margins(case.w)
        assert z.dtype == arithmetic
        close(z, case.margins(wide), "margins", arithmetic, size.margins)
        out = np.full_like(z, np.nan)
        assert problem.margins(case.w, out) is out
        np.testing.assert_array_equal(out, z)
        r = np.full_like(z, np.nan)
        value = problem.loss_from_margins(z, r)
        close(value, case.oracle(wide)[0], "value", arithmetic, size.value)
        close(r, case.residuals(wide), "residual", arithmetic, size.residuals)
        assert problem.loss_from_margins(z) == value
        rng = np.random.default_rng(0)
        v = rng.normal(size=z.shape).astype(z.dtype)
        fit = {k: case.how[k] for k in ("sample_weight", "fit_intercept")}
        fold = {k: case.how[k] for k in ("scale", "shift") if k in case.how}
        A = np.abs(fold.get("scale", 1) * reference.decode(case.X)) + abs(fold.get("shift", 0))
        got = problem.rmatvec(v)
        assert got.dtype == np.float64
        close(
            got,
            reference.rmatvec(case.X, v, dtype=wide, **fit, **fold),
            "rmatvec",
            arithmetic,
            reference.rmatvec(A, np.abs(v), **fit),
        )


def test_two_class_targets_may_be_signs_bits_or_booleans():
    case = make("logistic", 90, 5, "float64")
    want = case.problem().value_and_grad(case.w)
    bits = case.y > 0
    for y in (
        bits,
        bits.astype(np.int64),
        bits.astype(np.uint8),
        bits.astype(np.float32),
        case.y.astype(np.int8),
        case.y.astype(np.float32),
    ):
        got = _core.Problem(case.X, y, loss="logistic").value_and_grad(case.w)
        assert got[0] == want[0]
        np.testing.assert_array_equal(got[1], want[1])


def test_softmax_targets_may_be_numbers_or_probabilities(close):
    case = make("softmax", 90, 5, "float64")
    value, g = case.problem().value_and_grad(case.w)
    size = case.magnitudes()
    for y in (case.y.astype(np.int32), case.y.astype(np.float64), case.y.astype(np.uint8)):
        got = _core.Problem(case.X, y, loss="softmax").value_and_grad(case.w)
        assert (got[0], got[1].tobytes()) == (value, g.tobytes())
    hot = np.eye(CLASSES)[case.y]
    got = _core.Problem(case.X, hot, loss="softmax").value_and_grad(case.w)
    close(got[0], value, "value", "float64", size.value)
    close(got[1], g, "gradient", "float64", size.gradient)
    soft = np.random.default_rng(0).dirichlet(np.ones(CLASSES), 90)
    for dtype in ("float64", "float32"):
        mixed = Case(
            case.X.astype(dtype), soft.astype(np.float32).astype(np.float64), case.w, case.how
        )
        mixed.y /= mixed.y.sum(axis=1, keepdims=True)
        check(close, mixed)


def test_sample_weights_are_a_mean_not_a_sum(close):
    """Scaling every weight changes nothing; a weight of zero is a row that is not there."""
    case = make("logistic", 80, 6, "float64", extras=("weights",))
    value, g = case.problem().value_and_grad(case.w)
    size = case.magnitudes()
    s = case.how["sample_weight"]
    got = _core.Problem(case.X, case.y, loss="logistic", sample_weight=1000 * s).value_and_grad(
        case.w
    )
    close(got[0], value, "value", "float64", size.value)
    close(got[1], g, "gradient", "float64", size.gradient)
    s = s.copy()
    s[10:] = 0
    got = _core.Problem(case.X, case.y, loss="logistic", sample_weight=s).value_and_grad(case.w)
    few = Case(case.X[:10], case.y[:10], case.w, {"loss": "logistic", "sample_weight": s[:10]})
    close(got[0], few.oracle()[0], "value", "float64", few.magnitudes().value)
    close(got[1], few.oracle()[1], "gradient", "float64", few.magnitudes().gradient)


# ------------------------------------------------------------------------ nagcore.value_and_grad
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_grad_adds_l2_but_not_on_the_intercept(loss, dtype, close):
    case = make(loss, 90, 13, dtype, extras=("weights", "offset", "intercept"))
    arithmetic = "float64" if dtype == "float64" else "float32"
    value, g = nagcore.value_and_grad(case.X, case.y, case.w, l2=0.3, **case.how)
    want, gradient = reference.value_and_grad(case.X, case.y, case.w, l2=0.3, **case.how)
    size = reference.magnitudes(case.X, case.y, case.w, l2=0.3, **case.how)
    close(value, want, "value", arithmetic, size.value)
    close(g, gradient, "gradient", arithmetic, size.gradient)


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_value_and_grad_returns_the_gradient_in_the_type_of_w(loss, close):
    case = make(loss, 50, 9, "float32")
    value, g = nagcore.value_and_grad(case.X, case.y, case.w, **case.how)
    assert g.dtype == np.float64
    narrow, h = nagcore.value_and_grad(case.X, case.y, case.w.astype(np.float32), **case.how)
    assert isinstance(value, float)
    assert h.dtype == np.float32
    assert narrow == value
    np.testing.assert_array_equal(h, g.astype(np.float32))
    out = np.empty_like(case.w)
    again, same = nagcore.value_and_grad(case.X, case.y, case.w, out=out, **case.how)
    assert same is out
    assert again == value
    np.testing.assert_array_equal(out, g)


def test_value_and_grad_takes_csr_lists_and_default_loss(close):
    case = make("logistic", 50, 9, "float64")
    want, g = case.oracle()
    for X in (case.X, csr(case.X)):
        value, h = nagcore.value_and_grad(X, case.y, case.w)
        assert value == pytest.approx(want, rel=1e-13)
        np.testing.assert_allclose(h, g, rtol=1e-10, atol=1e-14)
    value, _ = nagcore.value_and_grad(case.X, case.y.tolist(), case.w.tolist())
    assert value == pytest.approx(want, rel=1e-13)
