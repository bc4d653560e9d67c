"""hessian: value, gradient and Hessian of one pass, for every loss of one margin; curvature_from_margins."""

from __future__ import annotations

import numpy as np
import pytest

from cases import DTYPES, ISAS, LOSSES, THREADS, csr, lay_out, make, thinned
from kernels.second_order import arithmetic, gram
from nagcore import _core, reference

ONE_MARGIN = tuple(name for name in LOSSES if reference.LOSSES[name].targets != "class")
SIZES = [(1, 1), (7, 3), (130, 16), (129, 15), (1030, 33), (300, 260)]


def check(close, case, X=None, **more):
    problem = case.problem(X, **more)
    type_, wide = arithmetic(problem)
    note = f"{case.how['loss']} {case.X.dtype} {case.X.shape} {more}"
    z, r = np.empty((2, problem.n), type_)
    value, g, H = problem.hessian(case.w, margins=z, residuals=r)
    size = case.magnitudes()
    close(value, case.oracle(wide)[0], "value", type_, size.value, note)
    close(g, case.oracle(wide)[1], "gradient", type_, size.gradient, note)
    close(z, case.margins(wide), "margins", type_, size.margins, note)
    close(r, case.residuals(wide), "residual", type_, size.residuals, note)
    # At the pass's own margins, since a curvature may jump.
    phi = reference.LOSSES[case.how["loss"]]
    c = phi.curvature(z.astype(wide), phi.encode(case.y), case.how.get("delta", 1.0))
    want, terms = gram(case, c, wide=wide)
    np.testing.assert_array_equal(H, H.T)
    close(H, want, "gram", type_, 2 * terms, note)  # the curvature's own error comes on top


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ONE_MARGIN)
def test_hessian_is_what_the_formulas_say(loss, dtype, isa, close):
    for n, d in SIZES:
        for extras in ((), ("weights", "offset", "intercept")):
            check(close, make(loss, n, d, dtype, extras=extras), isa=isa, n_threads=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "layout", ["F", "C wide", "both-strided", "rows reversed", "misaligned", "read-only"]
)
def test_hessian_reads_every_layout(layout, dtype, close):
    for n, d in ((90, 37), (270, 280)):
        case = make("logistic", n, d, dtype, extras=("weights", "intercept"))
        check(close, case, lay_out(case.X, layout))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("keep", [0.03, 0.6])
def test_hessian_of_csr(keep, dtype, close):
    for n, d in ((40, 7), (1100, 33), (400, 300)):
        case = make("logistic", n, d, dtype, extras=("weights", "intercept"))
        dense = thinned(case.X, keep)
        case.X = dense
        for index in ("int32", "int64"):
            check(close, case, csr(dense, index))


def bits(problem, w):
    z, r = np.empty((2, problem.n), problem.compute)
    value, g, H = problem.hessian(w, margins=z, residuals=r)
    return np.float64(value).tobytes() + g.tobytes() + H.tobytes() + z.tobytes() + r.tobytes()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_give_the_same_bits(dtype, isa):
    for n, d in ((20011, 5), (5003, 37), (1001, 300)):
        case = make("logistic", n, d, dtype, extras=("weights", "intercept"))
        first = bits(case.problem(n_threads=1, isa=isa), case.w)
        for n_threads in THREADS[1:]:
            assert bits(case.problem(n_threads=n_threads, isa=isa), case.w) == first
    case.X = np.asfortranarray(case.X)
    assert bits(case.problem(isa=isa, n_threads=3), case.w) == first


@pytest.mark.parametrize("keep", [0.03, 0.6])
def test_threads_give_the_same_bits_on_csr(keep):
    for n, d in ((4001, 37), (700, 300)):
        case = make("logistic", n, d, "float32", extras=("weights", "intercept"))
        case.X = csr(thinned(case.X, keep))
        first = bits(case.problem(n_threads=1), case.w)
        for n_threads in THREADS[1:]:
            assert bits(case.problem(n_threads=n_threads), case.w) == first


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("type_", ["float64", "float32"])
@pytest.mark.parametrize("loss", ONE_MARGIN)
def test_curvature_from_margins_is_the_oracles(loss, type_, isa, close):
    for n in (1, 3, 15, 16, 17, 257, 10_007):
        case = make(loss, n, 1, type_, extras=("weights",))
        rng = np.random.default_rng(n)
        z = (3 * rng.normal(size=n)).astype(type_)
        z[:: max(1, n // 3)] = rng.uniform(-80, 80)
        problem = case.problem(isa=isa, n_threads=2)
        got = problem.curvature_from_margins(z)
        assert got.dtype == type_
        phi = reference.LOSSES[loss]
        delta = case.how.get("delta", 1.0)
        want = phi.curvature(z.astype(np.longdouble), phi.encode(case.y), delta) + np.zeros(n)
        size = np.abs(want) * (1 + np.abs(z) + np.abs(case.y))  # a loss may see z − y alone
        close(got, want, "curvature", type_, size, loss)
        out = np.full(n, np.nan, type_)
        assert problem.curvature_from_margins(z, out) is out
        np.testing.assert_array_equal(out, got)
        np.testing.assert_array_equal(got, case.problem(isa=isa, n_threads=1).curvature_from_margins(z))


def test_hessian_is_the_derivative_of_the_gradient():
    """Independent of every formula of φ'': central differences of value_and_grad."""
    for loss in ("logistic", "poisson", "squared"):
        case = make(loss, 80, 5, "float64", extras=("weights", "intercept"))
        problem = case.problem()
        H = problem.hessian(case.w)[2]
        for j, e in enumerate(1e-5 * np.eye(6)):
            column = (problem.value_and_grad(case.w + e)[1] - problem.value_and_grad(case.w - e)[1]) / 2e-5
            np.testing.assert_allclose(H[j], column, rtol=1e-6, atol=1e-7 * np.abs(H).max())


def test_softmax_is_refused_by_name():
    case = make("softmax", 30, 4, "float64")
    with pytest.raises(ValueError, match="softmax loss couples its 3 columns"):
        case.problem().hessian(case.w)
    with pytest.raises(ValueError, match="curvature_from_margins is for losses of one margin"):
        case.problem().curvature_from_margins(np.zeros((30, 3)))


def test_bad_input_is_one_clear_error_and_writes_nothing():
    case = make("logistic", 50, 4, "float64")
    problem = case.problem()
    outputs = {
        "out": np.full((4, 4), 7.0),
        "grad": np.full(4, 7.0),
        "margins": np.full(50, 7.0),
        "residuals": np.full(50, 7.0),
    }
    for name, wrong in (
        ("out", np.empty((4, 5))),
        ("grad", np.empty(5)),
        ("margins", np.empty(49)),
        ("residuals", np.empty(50, np.float32)),
    ):
        with pytest.raises(ValueError, match=f"^{name} has dtype"):
            problem.hessian(case.w, **{**outputs, name: wrong})
        for array in outputs.values():
            assert (array == 7.0).all()
    with pytest.raises(ValueError, match="overlap"):
        problem.hessian(case.w, out=outputs["out"], grad=outputs["out"][0])
    with pytest.raises(ValueError, match=r"w has shape \(5,\)"):
        problem.hessian(np.zeros(5))
    with pytest.raises(ValueError, match=r"z has shape \(49,\)"):
        problem.curvature_from_margins(np.zeros(49))
    X = case.X.copy()
    X[7, 1] = np.nan
    with pytest.raises(ValueError, match="X holds NaN or infinity, first in row 7, column 1"):
        case.problem(X).hessian(case.w, out=outputs["out"], grad=outputs["grad"])
    assert (outputs["out"] == 7.0).all()
    assert (outputs["grad"] == 7.0).all()


@pytest.mark.parametrize("loss", ["huber", "squared_hinge"])
def test_rows_of_no_curvature_still_count_in_the_gradient(loss):
    """Every margin where the loss is straight or flat: a Hessian of zeros, the gradient as ever."""
    case = make(loss, 90, 6, "float64")
    problem = _core.Problem(
        case.X, case.y, loss=loss, offset=1000 * (case.y if loss == "squared_hinge" else np.ones(90))
    )
    value, g, H = problem.hessian(case.w)
    again, h = problem.value_and_grad(case.w)
    np.testing.assert_array_equal(H, np.zeros((6, 6)))
    assert value == pytest.approx(again, rel=1e-12)
    np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-12)
