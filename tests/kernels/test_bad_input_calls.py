"""Bad input to the calls: outputs, CSR arrays, the package's doors; nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

import nagcore
from cases import CLASSES, DTYPES, make
from nagcore import _core

Problem = _core.Problem
N, D = 12, 4


def data(loss="logistic", dtype="float64", extras=()):
    case = make(loss, N, D, dtype, extras=extras)
    return case.X.copy(), case.y.copy(), case.w.copy()


# ------------------------------------------------------------------------- calls: w and the outputs
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_w_of_another_shape_says_what_it_wants(loss):
    X, y, w = data(loss)
    problem = Problem(X, y, loss=loss)
    wrong = [
        np.zeros(D + 1),
        np.zeros(D - 1),
        np.zeros((D, CLASSES + 1)),
        np.zeros((1, D)),
        np.zeros(()),
    ]
    for v in [*wrong, np.zeros((D, 1, 1))]:
        for method in (problem.value_and_grad, problem.margins):
            with pytest.raises(ValueError, match=rf"^w.*{D}"):
                method(v)
    with pytest.raises(ValueError, match=rf"^w.*{D + 1}"):
        Problem(X, y, loss=loss, fit_intercept=True).value_and_grad(w)


def outputs(problem, **change):
    shape = (problem.n,) if problem.k == 1 else (problem.n, problem.k)
    out = {
        "grad": np.full(problem.p, 7.0),
        "margins": np.full(shape, 7.0),
        "residuals": np.full(shape, 7.0),
    }
    return {**out, **change}


@pytest.mark.parametrize("name", ["grad", "margins", "residuals"])
def test_outputs_that_cannot_be_written_leave_the_others_alone(name):
    X, y, w = data()
    problem = Problem(X, y)
    right = outputs(problem)[name]
    frozen = right.copy()
    frozen.flags.writeable = False
    room = np.full(right.nbytes + 1, 7, np.uint8)
    misaligned = room[1:].view(np.float64)
    bad = {
        "read-only": frozen,
        "misaligned": misaligned,
        "long": np.full(len(right) + 1, 7.0),
        "narrow": right.astype(np.float32),
        "two-dimensional": right[:, None].repeat(2, axis=1),
        "strided": np.full(2 * len(right), 7.0)[::2],
        "list": right.tolist(),
    }
    for kind, array in bad.items():
        given = outputs(problem, **{name: array})
        with pytest.raises((ValueError, TypeError), match=name):
            problem.value_and_grad(w, **given)
        for other, values in given.items():
            expected = (
                room[1:].view(np.float64)[0] if kind == "misaligned" and other == name else 7.0
            )
            assert (np.asarray(values) == expected).all(), f"{kind} {name} wrote into {other}"


def test_outputs_that_overlap_are_refused():
    X, y, w = data()
    problem = Problem(X, y)
    room = np.full(2 * N, 7.0)
    overlapping = [
        {"margins": room[:N], "residuals": room[N - 1 : 2 * N - 1]},
        {"margins": room[:N], "residuals": room[:N]},
        {"grad": room[:D], "margins": room[:N]},
        {"grad": w},
        {"grad": X[0]},
        {"margins": X.reshape(-1)[:N]},
    ]
    before = X.copy(), w.copy()
    for arrays in overlapping:
        with pytest.raises(ValueError, match=r"overlap|share"):
            problem.value_and_grad(w, **arrays)
        assert (room == 7.0).all()
        np.testing.assert_array_equal(X, before[0])
        np.testing.assert_array_equal(w, before[1])


def test_nonfinite_x_leaves_the_gradient_alone():
    X, y, w = data()
    X[2, 2] = np.nan
    problem = Problem(X, y)
    g = np.full(D, 7.0)
    with pytest.raises(ValueError, match=r"row 2\b"):
        problem.value_and_grad(w, g)
    assert (g == 7.0).all()


def test_margins_and_rmatvec_check_their_vectors():
    X, y, w = data()
    problem = Problem(X, y)
    with pytest.raises(ValueError, match=rf"^v.*{N}"):
        problem.rmatvec(np.zeros(N + 1))
    with pytest.raises(ValueError, match=rf"^z.*{N}"):
        problem.loss_from_margins(np.zeros(N - 1))
    with pytest.raises((ValueError, TypeError), match=r"^out"):
        problem.margins(w, np.zeros(N + 1))
    frozen = np.full(N, 7.0)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out"):
        problem.margins(w, frozen)
    assert (frozen == 7.0).all()


# ------------------------------------------------------------------------------------------- CSR
def broken(**parts):
    """A CSR matrix whose arrays were replaced behind scipy's back."""
    sparse = pytest.importorskip("scipy.sparse")
    X = sparse.csr_matrix((3, 4))
    X.data = np.asarray(parts.get("data", [1.0, 2.0, 3.0, 4.0]))
    X.indices = np.asarray(parts.get("indices", [0, 2, 1, 3]), np.int32)
    X.indptr = np.asarray(parts.get("indptr", [0, 2, 2, 4]), np.int32)
    return X


def test_broken_helper_makes_a_good_matrix_by_default():
    value, _ = Problem(broken(), np.ones(3), loss="squared").value_and_grad(np.zeros(4))
    assert value == 0.5


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"indices": [2, 0, 1, 3]}, r"row 0\b.*sort|sort.*row 0\b"),
        ({"indices": [0, 2, 3, 3]}, r"row 2\b.*duplicate|duplicate.*row 2\b"),
        ({"indices": [0, 2, 1, 4]}, r"row 2\b.*\b4\b"),
        ({"indices": [-1, 2, 1, 3]}, r"-1 in row 0\b"),
        ({"indptr": [0, 2, 2, 5]}, "indptr"),
        ({"indptr": [0, 3, 2, 4]}, "indptr"),
        ({"indptr": [0, 2, 4]}, "indptr"),
        ({"indptr": [0, -1, 2, 4]}, "indptr"),
        ({"data": [1.0, 2.0, 3.0]}, "3 entries"),
    ],
    ids=str,
)
def test_csr_that_is_malformed(parts, says):
    with pytest.raises(ValueError, match=says):
        Problem(broken(**parts), np.ones(3), loss="squared")


def test_csr_unsorted_and_duplicate_name_the_fix():
    with pytest.raises(ValueError, match="sort_indices"):
        Problem(broken(indices=[2, 0, 1, 3]), np.ones(3), loss="squared")
    with pytest.raises(ValueError, match="sum_duplicates"):
        Problem(broken(indices=[0, 0, 1, 3]), np.ones(3), loss="squared")


# ------------------------------------------------------------------------- the doors of the package
@pytest.mark.parametrize("l2", [-1e-9, np.nan, np.inf])
def test_value_and_grad_refuses_l2_below_zero(l2):
    X, y, w = data()
    with pytest.raises(ValueError, match=r"^l2"):
        nagcore.value_and_grad(X, y, w, l2=l2)


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_objective_refuses_penalties_below_zero(name):
    X, y, _ = data()
    with pytest.raises(ValueError, match=f"^{name}"):
        nagcore.Objective(X, y, loss="logistic", **{name: -1.0})


def test_value_and_grad_passes_the_errors_on():
    X, y, w = data()
    with pytest.raises(ValueError, match=r"X has dtype int64"):
        nagcore.value_and_grad(X.astype(np.int64), y, w)
    with pytest.raises(ValueError, match=r"^w"):
        nagcore.value_and_grad(X, y, w[:-1])
    frozen = np.full(D, 7.0)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out"):
        nagcore.value_and_grad(X, y, w, out=frozen)
    assert (frozen == 7.0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_refused_call_leaves_the_problem_usable(dtype):
    X, y, w = data(dtype=dtype)
    problem = Problem(X, y)
    want = problem.value_and_grad(w)
    with pytest.raises(ValueError, match=r"^w"):
        problem.value_and_grad(np.zeros(D + 3))
    got = problem.value_and_grad(w)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])
