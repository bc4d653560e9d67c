"""Bad input: one error that names the argument and what came; nothing is written before it."""

from __future__ import annotations

import numpy as np
import pytest

from cases import CLASSES, ISAS, csr, lay_out, make
from nagcore import _core

Problem = _core.Problem
N, D = 12, 4


def data(loss="logistic", dtype="float64", extras=()):
    case = make(loss, N, D, dtype, extras=extras)
    return case.X.copy(), case.y.copy(), case.w.copy()


# ------------------------------------------------------------------------------ X: type, rank, size
@pytest.mark.parametrize(
    "dtype",
    [
        "int64",
        "int32",
        "int16",
        "int8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
        "object",
        "complex128",
        "float16",
        "longdouble",
        "U3",
        "datetime64[s]",
    ],
)
def test_x_of_another_type_names_it_and_the_fix(dtype):
    _, y, _ = data()
    X = np.ones((N, D)).astype(np.int64).astype(dtype)
    with pytest.raises(
        (ValueError, TypeError), match=r"X has dtype .*float64, float32.*astype"
    ) as info:
        Problem(X, y)
    assert np.dtype(dtype).name in str(info.value) or np.dtype(dtype).str in str(info.value)


def test_x_in_the_other_byte_order_is_refused():
    X, y, _ = data()
    swapped = X.astype(X.dtype.newbyteorder())
    with pytest.raises(ValueError, match=rf"X has dtype {swapped.dtype.str}"):
        Problem(swapped, y)


def test_native_byte_order_spelt_out_is_read():
    X, y, w = data()
    order = "<" if np.dtype("<f8").isnative else ">"
    value, g = Problem(X.astype(X.dtype.newbyteorder(order)), y).value_and_grad(w)
    want, h = Problem(X, y).value_and_grad(w)
    assert value == want
    np.testing.assert_array_equal(g, h)


def test_vectors_in_the_other_byte_order_are_converted():
    X, y, w = data("squared")
    want = Problem(X, y, loss="squared", sample_weight=np.ones(N)).value_and_grad(w)
    other = {"y": y.astype(y.dtype.newbyteorder()), "sample_weight": np.ones(N, ">f8")}
    got = Problem(X, loss="squared", **other).value_and_grad(w)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("shape", [(N,), (N, D, 1), ()])
def test_x_of_another_rank(shape):
    _, y, _ = data()
    with pytest.raises(ValueError, match=r"X .*(2-D|2 dim|two dim|n, d)"):
        Problem(np.ones(shape), y)


@pytest.mark.parametrize("X", [[[1.0, 2.0]], "X", None, 3.0])
def test_x_that_is_no_array(X):
    with pytest.raises((ValueError, TypeError), match="X "):
        Problem(X, np.ones(1), loss="squared")


@pytest.mark.parametrize("shape", [(0, D), (N, 0), (0, 0)])
def test_x_that_is_empty(shape):
    with pytest.raises(ValueError, match=r"X .*\b0\b"):
        Problem(np.ones(shape), np.ones(shape[0]), loss="squared")


def test_d_beyond_what_indices_hold():
    """A zero stride makes a row of 2³¹ + 1 columns out of one byte."""
    X = np.broadcast_to(np.zeros((1, 1), np.uint8), (1, 2**31 + 1))
    with pytest.raises(ValueError, match="2147483649"):
        Problem(X, np.ones(1), loss="squared")
    sparse = pytest.importorskip("scipy.sparse")
    parts = np.ones(1), np.array([2**31], np.int64), np.array([0, 1], np.int64)
    S = sparse.csr_matrix((1, 1))
    S.data, S.indices, S.indptr = parts
    S._shape = (1, 2**31 + 1)
    with pytest.raises(ValueError, match="2147483649"):
        Problem(S, np.ones(1), loss="squared")


def test_other_sparse_formats_name_csr():
    sparse = pytest.importorskip("scipy.sparse")
    X, y, _ = data()
    for other in (sparse.csc_matrix(X), sparse.coo_matrix(X)):
        with pytest.raises((ValueError, TypeError), match=r"(?i)X .*csr"):
            Problem(other, y)


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint8", "complex64"])
def test_csr_data_of_another_type(dtype):
    sparse = pytest.importorskip("scipy.sparse")
    X, y, _ = data()
    S = csr(X)
    bad = sparse.csr_matrix(S)
    bad.data = S.data.astype(dtype) if dtype != "complex64" else S.data.astype(np.complex64)
    with pytest.raises((ValueError, TypeError), match=f"X.*{dtype}"):
        Problem(bad, y)


# ------------------------------------------------------------------------------------ X: not finite
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", ["C", "F", "both-strided", "both reversed"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_nonfinite_x_names_row_and_column(dtype, layout, isa):
    for bad in (np.nan, np.inf, -np.inf):
        for loss in ("logistic", "softmax", "squared", "poisson", "huber", "squared_hinge"):
            for row, column in ((0, 0), (N - 1, D - 1), (7, 2)):
                X, y, w = data(loss, dtype)
                X[row, column] = bad
                problem = Problem(lay_out(X, layout), y, loss=loss, isa=isa, n_threads=2)
                with pytest.raises(ValueError, match=rf"(?i)X.*row {row}\b.*column {column}\b"):
                    problem.value_and_grad(w)


def test_nonfinite_x_is_found_where_its_coefficient_is_zero():
    """0·NaN is NaN, and 0·∞ too: w = 0, a solver's first point, hides nothing."""
    for loss in ("logistic", "softmax", "squared", "huber", "squared_hinge", "poisson"):
        for bad in (np.nan, np.inf):
            X, y, w = data(loss, "float32")
            X[5, 1] = bad
            with pytest.raises(ValueError, match=r"row 5\b.*column 1\b"):
                Problem(X, y, loss=loss).value_and_grad(0 * w)


def test_nonfinite_x_is_found_where_its_residual_is_zero():
    """A row whose loss and residual vanish, and a row of weight 0, still hold bad data."""
    X = np.ones((N, D))
    X[3, 2] = np.inf  # margin +∞ for y = +1: φ = r = 0
    for loss in ("squared_hinge", "logistic"):
        with pytest.raises(ValueError, match=r"row 3\b.*column 2\b"):
            Problem(X, np.ones(N), loss=loss).value_and_grad(np.ones(D))
    s = np.ones(N)
    s[3] = 0
    with pytest.raises(ValueError, match=r"row 3\b.*column 2\b"):
        Problem(X, np.ones(N), loss="squared", sample_weight=s).value_and_grad(np.ones(D))


def test_nonfinite_x_in_a_large_array_is_found_from_any_thread():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50_000, 20)).astype(np.float32)
    X[43_210, 17] = np.nan
    for n_threads in (1, 2, 4):
        problem = Problem(X, np.ones(50_000), loss="logistic", n_threads=n_threads)
        for call in (problem.value_and_grad, problem.margins):
            with pytest.raises(ValueError, match=r"row 43210\b.*column 17\b"):
                call(np.ones(20))


def test_nonfinite_csr_names_row_and_column():
    for dtype in ("float64", "float32"):
        for index in ("int32", "int64"):
            X, y, w = data(dtype=dtype)
            X[7] = 0
            X[7, 3] = np.nan
            with pytest.raises(ValueError, match=r"row 7\b.*column 3\b"):
                Problem(csr(X, index), y).value_and_grad(w)


def test_finite_numbers_that_overflow_are_not_called_nan():
    """1e300 in float64, 1e38 in float32 are finite: ∞ is then a legitimate result."""
    for dtype, big in (("float64", 1e300), ("float32", 1e38)):
        X = np.full((N, D), big, dtype)
        value, _ = Problem(X, np.zeros(N), loss="squared").value_and_grad(np.ones(D))
        assert not np.isfinite(value)


@pytest.mark.parametrize("method", ["value_and_grad", "margins"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_w(bad, method):
    for loss in ("logistic", "softmax"):
        for fit_intercept in (False, True):
            X, y, w = data(loss, extras=("intercept",) if fit_intercept else ())
            for index in (0, -1):
                v = w.copy()
                v[index] = bad
                problem = Problem(X, y, loss=loss, fit_intercept=fit_intercept)
                with pytest.raises(ValueError, match=r"\bw\b.*(nan|inf|finite)"):
                    getattr(problem, method)(v)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["y", "sample_weight", "offset"])
def test_nonfinite_vectors_name_the_place(name, bad):
    for loss in ("squared", "logistic", "poisson"):
        X, y, _ = data(loss)
        vectors = {"y": y, "sample_weight": np.ones(N), "offset": np.zeros(N)}
        vectors[name][5] = bad
        with pytest.raises(ValueError, match=rf"^{name}.*\b5\b"):
            Problem(X, loss=loss, **vectors)


@pytest.mark.parametrize("name", ["delta", "scale", "shift"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_numbers(name, bad):
    X, y, _ = data("huber")
    with pytest.raises(ValueError, match=rf"\b{name}\b.*finite"):
        Problem(X, y, loss="huber", **{name: bad})


@pytest.mark.parametrize("delta", [0.0, -1.0])
def test_delta_must_be_positive(delta):
    X, y, _ = data("huber")
    with pytest.raises(ValueError, match=r"^delta.*0"):
        Problem(X, y, loss="huber", delta=delta)


# --------------------------------------------------------------------------- vectors: shape, domain
@pytest.mark.parametrize("name", ["y", "sample_weight", "offset"])
@pytest.mark.parametrize("shape", [(N - 1,), (N + 1,), (N, 1, 1), (0,)])
def test_vectors_of_another_length_or_rank(name, shape):
    X, y, _ = data("squared")
    vectors = {"y": y, name: np.ones(shape)}
    with pytest.raises(ValueError, match=rf"^{name}.*{N}"):
        Problem(X, loss="squared", **vectors)


@pytest.mark.parametrize("name", ["y", "sample_weight", "offset"])
def test_vectors_of_another_type(name):
    X, y, _ = data("squared")
    for dtype in ("object", "complex128", "U1"):
        with pytest.raises((ValueError, TypeError), match=rf"^{name}"):
            Problem(
                X,
                loss="squared",
                **{
                    "y": y,
                    name: np.array(["a"] * N).astype("U1").astype(dtype)
                    if dtype != "complex128"
                    else np.ones(N, dtype),
                },
            )


def test_softmax_offset_and_targets_of_another_shape():
    X, y, _ = data("softmax")
    with pytest.raises(ValueError, match=rf"^offset.*{CLASSES}"):
        Problem(X, y, loss="softmax", offset=np.zeros((N, CLASSES + 1)))
    with pytest.raises(ValueError, match=r"^y"):
        Problem(X, np.full((N + 1, CLASSES), 1 / 3), loss="softmax")


@pytest.mark.parametrize(
    ("loss", "bad"),
    [
        ("logistic", 2.0),
        ("logistic", 0.5),
        ("logistic", -3.0),
        ("squared_hinge", 2.0),
        ("poisson", -1.0),
        ("poisson", -1e-9),
        ("softmax", -1),
        ("softmax", 0.5),
        ("softmax", 1e12),
    ],
)
def test_targets_outside_the_domain(loss, bad):
    X, y, _ = data(loss)
    y = y.astype(np.float64)
    y[4] = bad
    with pytest.raises(ValueError, match=rf"^y.*{loss}"):
        Problem(X, y, loss=loss)


def test_two_class_targets_do_not_mix_conventions():
    X, y, _ = data()
    y[:3] = [0, 1, -1]
    with pytest.raises(ValueError, match=r"^y.*logistic"):
        Problem(X, y)


@pytest.mark.parametrize(
    "row", [[0.5, 0.6, 0.1], [1.5, -0.5, 0.0], [0.0, 0.0, 0.0], [np.nan, 0.5, 0.5]]
)
def test_probabilities_that_are_none(row):
    X, _, _ = data()
    y = np.full((N, 3), 1 / 3)
    y[6] = row
    with pytest.raises(ValueError, match=r"^y.*\b6\b"):
        Problem(X, y, loss="softmax")


def test_weights_negative_or_all_zero():
    X, y, _ = data()
    s = np.ones(N)
    s[8] = -1e-9
    with pytest.raises(ValueError, match=r"^sample_weight.*\b8\b"):
        Problem(X, y, sample_weight=s)
    with pytest.raises(ValueError, match=r"^sample_weight.*(zero|0)"):
        Problem(X, y, sample_weight=np.zeros(N))


@pytest.mark.parametrize("n_threads", [0, -1])
def test_n_threads_below_one(n_threads):
    X, y, _ = data()
    with pytest.raises(ValueError, match=r"^n_threads"):
        Problem(X, y, n_threads=n_threads)


def test_names_that_do_not_exist():
    X, y, _ = data()
    for name, value in (
        ("compute", "float16"),
        ("isa", "mmx"),
        ("loss", "hinge"),
        ("dtype", "float8"),
    ):
        with pytest.raises(ValueError, match=rf"{value}"):
            Problem(X, y, **{name: value})
    with pytest.raises(ValueError, match=r"compute.*float32"):
        Problem(X, y, compute="float32")  # float64 data would lose what it has
    with pytest.raises(ValueError, match=r"(?i)uint16|bfloat16"):
        Problem(X, y, dtype="bfloat16")
