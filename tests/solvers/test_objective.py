"""The seam between data and solvers: values, gradients, what is written, what is counted, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import nagcore
from cases import LOSSES
from nagcore import Objective, losses, penalties, reference
from solvers.numpy_problem import NumpyProblem
from solvers.problems import fit_case, minimum, value

RNG = np.random.default_rng(5)


def problem_of(case):
    return {k: v for k, v in case.items() if k not in ("X", "y", "l1", "l2")}


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient_equal_the_reference(loss, fit_intercept):
    case = fit_case(loss, penalty="elasticnet", fit_intercept=fit_intercept, weights=True)
    objective = Objective(**case)
    w = 0.3 * RNG.normal(size=objective.w_shape)
    how = problem_of(case) | {"l2": case["l2"]}
    want, want_grad = reference.value_and_grad(case["X"], case["y"], w, **how)
    for got, grad in (
        objective.value_and_grad(w),
        nagcore.value_and_grad(case["X"], case["y"], w, **how),
    ):
        assert got == pytest.approx(want, rel=1e-13)
        np.testing.assert_allclose(grad, want_grad, rtol=1e-10, atol=1e-13)
    assert objective.value(w) == pytest.approx(value(case, w), rel=1e-13)
    assert objective.n_passes == 2


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_the_slope_of_the_value(loss):
    objective = Objective(**fit_case(loss, penalty="l2", weights=True))
    w = 0.3 * RNG.normal(size=objective.w_shape)
    direction = RNG.normal(size=w.shape)
    _, grad = objective.value_and_grad(w)
    h = 1e-6
    ahead, behind = (objective.value_and_grad(w + e * direction)[0] for e in (h, -h))
    assert (grad * direction).sum() == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)


def test_the_intercept_is_not_penalised():
    objective = Objective(**fit_case("squared") | {"l2": 1.0, "l1": 1.0})
    w = np.zeros(7)
    w[-1] = 5.0
    plain = Objective(**fit_case("squared") | {"l2": 0.0, "l1": 0.0})
    assert objective.value(w) == plain.value(w)
    assert objective.value_and_grad(w)[1][-1] == plain.value_and_grad(w)[1][-1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradient_comes_back_in_the_dtype_of_w(dtype):
    case = fit_case("logistic")
    w = np.zeros(6, dtype)
    _, grad = nagcore.value_and_grad(case["X"], case["y"], w)
    assert grad.dtype == dtype
    out = np.empty(6, dtype)
    _, same = nagcore.value_and_grad(case["X"], case["y"], w, out=out)
    assert same is out
    np.testing.assert_array_equal(out, grad)
    strided = np.zeros(12, dtype)[::2]
    nagcore.value_and_grad(case["X"], case["y"], w, out=strided)
    np.testing.assert_array_equal(strided, grad)


def read_only(n):
    array = np.zeros(n)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        ([0.0] * 6, TypeError, "out is list"),
        (np.zeros(5), ValueError, "shape \\(5,\\)"),
        (np.zeros(6, np.float32), ValueError, "dtype float32"),
        (read_only(6), ValueError, "read-only"),
        ("w", ValueError, "overlaps w"),
    ],
)
def test_bad_out_is_refused_and_not_written(out, error, words):
    case, w = fit_case("logistic"), np.ones(6)
    out = w[:] if isinstance(out, str) else out
    before = np.array(out, copy=True)
    with pytest.raises(error, match=words):
        nagcore.value_and_grad(case["X"], case["y"], w, out=out)
    np.testing.assert_array_equal(out, before)


def test_out_stays_as_it_was_when_x_holds_nan():
    case, out = fit_case("logistic"), np.full(6, 7.0)
    case["X"][3, 2] = np.nan
    with pytest.raises(ValueError, match="row 3, column 2"):
        nagcore.value_and_grad(case["X"], case["y"], np.zeros(6), out=out)
    np.testing.assert_array_equal(out, 7.0)


@pytest.mark.parametrize(
    ("w", "error", "words"),
    [
        (np.zeros(6), ValueError, "the intercept last"),
        (np.zeros((7, 1)), ValueError, "shape \\(7, 1\\)"),
        (np.array(["a"] * 7), TypeError, "dtype <U1"),
        (np.array([0, 0, np.inf, 0, 0, 0, 0]), ValueError, "first at \\(2,\\)"),
    ],
)
def test_bad_w_is_one_clear_error(w, error, words):
    objective = Objective(**fit_case("logistic"))
    for call in (objective.value_and_grad, objective.margins, objective.gap):
        with pytest.raises(error, match=words):
            call(w)
    assert objective.n_passes == 0


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"l2": -1.0}, ValueError, "l2 is -1.0"),
        ({"l1": np.nan}, ValueError, "l1 is nan"),
        ({"l1": np.inf}, ValueError, "finite"),
        ({"l2": "much"}, TypeError, "l2 is str"),
        ({"loss": "hinge"}, ValueError, "logistic"),
        ({"loss": None}, TypeError, "loss is NoneType"),
    ],
)
def test_bad_settings_are_one_clear_error(how, error, words):
    with pytest.raises(error, match=words):
        Objective(**fit_case("logistic") | how)


def test_softmax_takes_the_number_of_classes_from_w():
    """The targets of a batch need not hold the last class."""
    X, y = RNG.normal(size=(20, 3)), np.zeros(20)
    _, grad = nagcore.value_and_grad(X, y, np.zeros((3, 4)), loss="softmax")
    assert grad.shape == (3, 4)
    assert Objective(X, y, loss="softmax", n_classes=4).w_shape == (4, 4)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_null_value_is_the_best_constant_model(loss, fit_intercept):
    offset = RNG.normal(size=120)
    if loss == "softmax":
        offset = RNG.normal(size=(120, 3))
    case = fit_case(loss, fit_intercept=fit_intercept, weights=True) | {"offset": offset}
    objective = Objective(**case)
    f0, w = objective.null_model()
    assert f0 == objective.null_value
    assert objective.n_passes == 0
    assert f0 == pytest.approx(objective.value(w), rel=1e-12)
    assert not w[:6].any()
    if fit_intercept:
        _, grad = objective.value_and_grad(w)
        assert np.abs(grad[6]).max() <= 1e-9
    else:
        assert w.shape[0] == 6


def test_every_kind_of_pass_is_counted():
    case = fit_case("logistic")
    problem = NumpyProblem(case["X"], case["y"], loss="logistic", fit_intercept=True)
    objective = Objective.from_problem(problem, l2=0.1)
    w = np.zeros(7)
    for call, passes in (
        (objective.value_and_grad, 1), (objective.margins, 1), (objective.value, 1),
        (objective.gap, 2), (lambda w: objective.null_value, 0),
    ):  # fmt: skip
        before = objective.n_passes
        call(w)
        assert objective.n_passes == before + passes
    assert problem.passes == objective.n_passes


def test_from_problem_agrees_with_the_core():
    case = fit_case("poisson", penalty="elasticnet", weights=True)
    ours = Objective(**case)
    problem = NumpyProblem(case["X"], case["y"], loss="poisson", fit_intercept=True,
                           sample_weight=case["sample_weight"])
    theirs = Objective.from_problem(problem, l1=case["l1"], l2=case["l2"],
                                    sample_weight=case["sample_weight"])
    w = 0.1 * RNG.normal(size=7)
    assert theirs.value(w) == pytest.approx(ours.value(w), rel=1e-13)
    # Without second derivatives the bound may be a looser one, where l1 shrinks the residuals.
    assert min(theirs.gap(w), ours.gap(w)) >= ours.value(w) - minimum(case)
    smooth = {"l1": 0.0, "l2": case["l2"]}
    same = Objective.from_problem(problem, sample_weight=case["sample_weight"], **smooth)
    assert same.gap(w) == pytest.approx(Objective(**case | smooth).gap(w), rel=1e-9)
    assert theirs.null_value == pytest.approx(ours.null_value, rel=1e-13)
    assert theirs.shape == ours.shape == (120, 6)


def test_a_narrow_problem_without_its_wide_twin_proves_nothing():
    case = fit_case("logistic")
    X = case["X"].astype(np.float32)
    narrow = NumpyProblem(X, case["y"], fit_intercept=True)
    assert Objective.from_problem(narrow, l2=0.1).gap_kind == "none"
    wide = NumpyProblem(X, case["y"], fit_intercept=True, compute="float64")
    assert Objective.from_problem(narrow, l2=0.1, wide=wide).gap_kind == "certificate"


@pytest.mark.parametrize("layout", ["C", "F", "strided", "csr", "float32", "memmap", "readonly"])
def test_x_is_read_where_it_lies(layout, tmp_path):
    case = fit_case("logistic", weights=True)
    X = case["X"]
    if layout == "F":
        X = np.asfortranarray(X)
    elif layout == "strided":
        X = np.repeat(X, 2, axis=1)[:, ::2]
    elif layout == "csr":
        X = sp.csr_matrix(X)
    elif layout == "float32":
        X = X.astype(np.float32)
    elif layout == "memmap":
        X.tofile(tmp_path / "X")
        X = np.memmap(tmp_path / "X", np.float64, "r", shape=X.shape)
    elif layout == "readonly":
        X.flags.writeable = False
    objective = Objective(**case | {"X": X})
    assert objective.X is X
    w = 0.3 * RNG.normal(size=7)
    tolerance = 1e-5 if layout == "float32" else 1e-12
    assert objective.value(w) == pytest.approx(value(case, w), rel=tolerance)
    assert objective.gap(w) == pytest.approx(Objective(**case).gap(w), rel=tolerance)


def test_losses_follow_the_registry():
    assert losses.names() == LOSSES
    for name in LOSSES:
        loss = losses.get(name)
        assert loss is not None
        assert str(loss) == loss.name == name
        assert losses.get(loss) is loss
        assert getattr(losses, name) == loss
        assert loss.bounded_curvature == np.isfinite(loss.curvature_bound)
        assert name in dir(losses)
    with pytest.raises(AttributeError, match="no attribute"):
        losses.absent  # noqa: B018


def test_a_loss_handle_stands_for_its_name():
    case = fit_case("huber")
    assert Objective(**case | {"loss": losses.huber}).loss == losses.huber


def test_penalties_are_named():
    made = {penalties.Penalty(l1=l1, l2=l2).name for l1 in (0, 1) for l2 in (0, 1)}
    assert made == set(penalties.names())
