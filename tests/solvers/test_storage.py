"""A narrower copy of X for the early passes: what it holds, and that the minimum is the float64 one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from nagcore import Objective, _core, minimize
from nagcore.objective.storage import ShiftedProblem, narrow_copy
from solvers.numpy_problem import NumpyProblem
from solvers.problems import KINDS, fit_case, minimum, value

EPS = 2.0**-52
FLOATS = ("float32", "bfloat16")


def decoded(found, X):
    """The float64 numbers that a copy stands for."""
    q = found.X
    if found.how.get("dtype") == "bfloat16":
        q = (np.asarray(q).astype(np.uint32) << 16).view(np.float32)
    q = np.asarray(q, np.float64)
    if "scale" in found.how:
        return q * found.how["scale"] + found.how["shift"]
    if found.origin is None:
        return q
    return q * found.step + found.origin


def bytes_of(X):
    return X.data.tobytes() if sp.issparse(X) else X.tobytes()


def shelves(n=900, d=7, levels=200, seed=0):
    """Numbers of `levels` equally spaced values, none of which is a binary fraction."""
    return 0.3 + 0.1 * np.random.default_rng(seed).integers(0, levels, (n, d))


def layouts(X):
    """The same numbers in C order, in F order, and as rows of a larger array in either."""
    wide = np.full((2 * len(X), X.shape[1] + 3), np.nan)
    wide[::2, : X.shape[1]] = X
    tall = np.full((len(X) + 3, 2 * X.shape[1]), np.nan, order="F")
    tall[: len(X), ::2] = X
    return {"C": np.ascontiguousarray(X), "F": np.asfortranarray(X),
            "rows": wide[::2, : X.shape[1]], "columns": tall[: len(X), ::2]}  # fmt: skip


# What the copy holds ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["C", "F", "rows", "columns"])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("far", [False, True])
def test_a_copy_is_x_rounded_once(storage, layout, far):
    X = shelves() if storage == "uint8" else np.random.default_rng(0).normal(size=(5000, 7))
    X = layouts(X + 1000.0 * far * np.arange(7) if storage != "uint8" else X)[layout]
    before = X.copy()
    found = narrow_copy(X, storage)
    assert found.reason == ""
    np.testing.assert_array_equal(X, before)
    assert found.X.shape == X.shape
    close = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "uint8": 0.0}[storage]
    moved = X if found.origin is None else X - found.origin
    error = np.abs(decoded(found, X) - X)
    assert (error <= close * np.abs(moved) + 8 * EPS * (np.abs(X) + 26)).all()
    if storage == "float32" and not far:
        np.testing.assert_array_equal(found.X, X.astype(np.float32))
    if far and storage != "uint8":
        assert np.abs(found.origin - X.mean(axis=0)).max() <= 4
        assert np.abs(moved).max() < 10
    for threads in (1, 2, 3, 8):
        np.testing.assert_array_equal(narrow_copy(X, storage, threads).X, found.X)


def test_bfloat16_rounds_to_nearest_even():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    X = np.random.default_rng(0).normal(size=(999, 5)) * 10.0 ** np.arange(-2, 3)
    X[:3] = [[1 + 2.0**-8] * 5, [1 + 3 * 2.0**-8] * 5, [-0.0] * 5]
    out = np.empty(X.shape, np.uint16)
    assert _core.narrow_copy(X, out)
    want = X.astype(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(out, want)


def test_whole_numbers_stay_whole_about_an_origin():
    """An origin of few digits: 8 bits hold x − o exactly where x itself has 20."""
    X = np.random.default_rng(0).integers(1_000_000, 1_000_100, (4000, 3)).astype(np.float64)
    found = narrow_copy(X, "bfloat16")
    np.testing.assert_array_equal(decoded(found, X), X)


def test_a_constant_column_is_stored_as_its_origin():
    X = np.random.default_rng(0).normal(size=(100, 2))
    X[:, 1] = 0.1 + 1e9
    found = narrow_copy(X, "float32")
    assert found.origin[1] == X[0, 1]
    np.testing.assert_array_equal(found.X[:, 1], 0.0)


@pytest.mark.parametrize("unit", [1e-200, 1e-60, 1e60, 1e200])
def test_units_beyond_float32_are_scaled(unit):
    X = np.random.default_rng(0).normal(size=(300, 4)) * [1, unit, 1, unit]
    found = narrow_copy(X, "float32")
    assert (np.log2(found.step) % 1 == 0).all()
    np.testing.assert_allclose(decoded(found, X), X, rtol=2.0**-24)


def test_uint8_is_exact_or_not_at_all():
    pixels = np.random.default_rng(0).integers(0, 256, (700, 9)) / 255.0
    assert narrow_copy(pixels, "uint8").X.max() == 255
    np.testing.assert_allclose(decoded(narrow_copy(pixels, "uint8"), pixels), pixels, rtol=4 * EPS)
    assert "equally spaced" in narrow_copy(np.random.default_rng(0).normal(size=(50, 3)), "uint8").reason
    late = np.zeros((9000, 2))
    late[:, 0] = np.arange(9000) % 5
    assert narrow_copy(late, "uint8").reason == ""
    late[4567:4569, 1] = 0.25, 0.251  # no lattice of 256 numbers has them all, sampled or not
    assert "equally spaced" in narrow_copy(late, "uint8").reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30, -1e300])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "uint8"])
def test_what_a_copy_cannot_hold_is_a_reason(storage, bad):
    for sparse in (False, True):
        X = np.zeros((9000, 3))
        X[:, 0] = np.arange(9000) % 2
        X[7777, 2] = bad
        found = narrow_copy(sp.csr_matrix(X) if sparse else X, storage)
        if found.X is None:
            assert found.reason
        else:  # the row was in the sample, and the column got a unit of its own
            np.testing.assert_allclose(decoded(found, X), X, rtol=2.0**-8)


def test_the_core_says_what_it_was_given():
    X = np.ones((4, 3))
    for out, how, words in (
        (np.empty((4, 3)), {}, "float32, uint16"),
        (np.empty((3, 4), np.float32), {}, r"\(4, 3\)"),
        (np.empty((4, 3), np.float32, order="F"), {}, "C-contiguous"),
        (np.empty((4, 3), np.float32), {"origin": np.zeros(3)}, "together"),
        (np.empty((4, 3), np.float32), {"origin": np.zeros(4), "step": np.ones(4)}, r"\(3,\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            _core.narrow_copy(X, out, **how)
    with pytest.raises(ValueError, match="not contiguous"):
        _core.narrow_copy(np.asfortranarray(X), np.empty((4, 3), np.float32))
    with pytest.raises(TypeError, match="float64"):
        _core.narrow_copy(X.astype(np.float32), np.empty((4, 3), np.float32))


# The problem on a copy --------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", ["logistic", "squared", "softmax"])
def test_a_problem_about_an_origin_is_the_problem_of_x(loss, fit_intercept):
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(200, 5)).astype(np.float32)
    origin, step = np.array([0.0, 3.0, -1e3, 0.0, 7.0]), 2.0 ** np.array([0, 0, 1, -3, 5])
    X = Q * step + origin
    y = rng.integers(0, 3, 200).astype(float) if loss == "softmax" else (X[:, 0] > 0).astype(float)
    s, offset = rng.uniform(size=200), rng.normal(size=200)
    how = {"loss": loss, "sample_weight": s, "offset": None if loss == "softmax" else offset}
    core = _core.Problem(Q, y, **how, fit_intercept=True, compute="float64")
    shifted = ShiftedProblem(core, origin, step, fit_intercept)
    plain = _core.Problem(X, y, **how, fit_intercept=fit_intercept)
    assert (shifted.n, shifted.d, shifted.k, shifted.p) == (plain.n, plain.d, plain.k, plain.p)
    w = 1e-3 * rng.normal(size=(plain.p,) if plain.k == 1 else (plain.p, plain.k))
    close = {"rtol": 1e-9, "atol": 1e-9}
    z = shifted.margins(w)
    np.testing.assert_allclose(z, plain.margins(w), **close)
    out = np.empty_like(w)
    value_here, g = shifted.value_and_grad(w, out)
    assert g is out
    value_there, g_there = plain.value_and_grad(w)
    assert value_here == pytest.approx(value_there, rel=1e-12)
    np.testing.assert_allclose(g, g_there, **close)
    np.testing.assert_allclose(shifted.rmatvec(z), plain.rmatvec(z), rtol=1e-9, atol=1e-6)
    weights, rows = rng.uniform(size=200), np.array([3, 5, 9, 77])
    for chosen in (None, rows):
        G = shifted.gram(weights, chosen)
        np.testing.assert_allclose(G, plain.gram(weights, chosen), rtol=1e-8, atol=1e-8)
        np.testing.assert_array_equal(G, G.T)
    if plain.k == 1:
        _, g, H = shifted.hessian(w)
        _, g_there, H_there = plain.hessian(w)
        np.testing.assert_allclose(g, g_there, **close)
        np.testing.assert_allclose(H, H_there, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(
            shifted.hessian_vector(w, weights), plain.hessian_vector(w, weights), rtol=1e-8, atol=1e-8)


# Fits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax", "poisson"])
@pytest.mark.parametrize("storage", FLOATS)
def test_the_minimum_is_that_of_the_float64_problem(storage, loss, kind, fit_intercept):
    for penalty in ("l2", "l1", "elasticnet"):
        if loss == "softmax" and penalty == "l1" and kind == "collinear":
            continue  # the oracle's minimum is not unique enough to compare with
        case = fit_case(loss, kind, penalty, fit_intercept, weights=True)
        before, best = case["X"].tobytes(), minimum(case)
        for tol in (1e-9, 1e-10):
            objective = Objective(**case)
            # "auto" takes the normal equations for least squares, which need no copy.
            solver = "plbfgs" if penalty == "l2" else "auto"
            found = minimize(objective, tol=tol, solver=solver, storage=storage, max_passes=3000)
            note = f"{penalty} {found.solver} {found.n_passes} {found.message} {found.gap} {found.why}"
            assert found.converged, note
            assert found.gap_kind == "certificate", note
            assert f"copy of X in {storage}" in found.why, note
            assert found.value == pytest.approx(value(case, found.w), rel=1e-12), note
            slack = tol * (found.null_value - found.value) + 100 * EPS * abs(found.null_value)
            assert found.value - best <= slack, note
            assert objective.n_passes == found.n_passes
        assert case["X"].tobytes() == before


@pytest.mark.parametrize("solver", ["newton", "plbfgs", "pnag", "fista", "acfgm"])
@pytest.mark.parametrize("storage", FLOATS)
def test_every_method_ends_on_x_itself(storage, solver):
    case = fit_case("logistic", "correlated")
    found = minimize(Objective(**case), tol=1e-10, solver=solver, storage=storage)
    assert found.converged
    assert found.gap_kind == "certificate"
    slack = 1e-10 * (found.null_value - found.value) + 50 * EPS
    assert found.value - minimum(case) <= slack


@pytest.mark.parametrize("layout", ["C", "F", "rows", "csr"])
def test_layouts(layout):
    case = fit_case("logistic", "plain", weights=True)
    X = sp.csr_matrix(case["X"]) if layout == "csr" else layouts(case["X"])[layout]
    before = bytes_of(X)
    found = minimize(Objective(**case | {"X": X}), tol=1e-10, solver="plbfgs", storage="float32")
    assert found.converged
    assert "copy of X" in found.why
    assert bytes_of(X) == before
    assert found.value - minimum(case) <= 1e-10 * (found.null_value - found.value) + 50 * EPS


def test_uint8_carries_pixels_and_the_proof_is_of_float64():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (2000, 30)) / 255.0
    y = (X @ rng.normal(size=30) + rng.logistic(size=2000) > 0).astype(float)
    case = {"X": X, "y": y, "loss": "logistic", "l2": 1e-3, "l1": 0.0, "fit_intercept": True}
    found = minimize(Objective(**case), tol=1e-10, solver="plbfgs", storage="uint8")
    assert "uint8, 0.1 MB" in found.why
    assert found.converged
    assert found.value - minimum(case) <= 1e-10 * (found.null_value - found.value) + 50 * EPS


@pytest.mark.parametrize("storage", FLOATS)
def test_columns_far_from_zero_do_not_send_the_run_to_float64(storage):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 20))
    y = (X @ rng.normal(size=20) + rng.logistic(size=5000) > 0).astype(float)
    wide = {}
    for far in (0.0, 1e6):
        objective = Objective(X + far, y, loss="logistic", l2=1e-3)
        narrow, _ = objective.narrowed(storage)
        share, seen = narrow.problem.share, []
        found = minimize(narrow, tol=1e-8, solver="plbfgs",
                         callbacks=[lambda state, seen=seen: seen.append(state.n_passes)])
        assert found.converged
        wide[far] = sum(step >= 1 for step in np.diff(seen))
        assert sum(step == pytest.approx(share, abs=2e-3) for step in np.diff(seen)) >= 4
    assert wide[1e6] <= wide[0.0] + 3


def test_units_at_the_ends_of_float32():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6))
    y = (X @ rng.normal(size=6) + rng.logistic(size=3000) > 0).astype(float)
    unit = np.array([1e-50, 1e-30, 1.0, 1.0, 1e30, 1e50])
    found = minimize(Objective(X * unit, y, loss="logistic", l1=0.0, l2=0.0), tol=1e-9, solver="plbfgs",
                     storage="float32")
    plain = minimize(Objective(X, y, loss="logistic"), tol=1e-12)
    assert "copy of X" in found.why
    assert found.value == pytest.approx(plain.value, rel=1e-9)
    np.testing.assert_allclose(found.coef * unit, plain.coef, rtol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_x_is_named_by_its_place(bad):
    for layout in (np.asarray, sp.csr_matrix):
        case = fit_case("logistic")
        case["X"][5, 3] = bad
        with pytest.raises(ValueError, match="row 5, column 3"):
            minimize(Objective(**case | {"X": layout(case["X"])}), solver="plbfgs", storage="float32")


def test_numbers_beyond_the_sample_fall_back_to_float64():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 3))
    y = (X[:, 0] + rng.logistic(size=20_000) > 0).astype(float)
    X[rng.permutation(20_000)[:3], 2] = 1e19
    how = {"tol": 1e-6, "solver": "plbfgs", "max_passes": 50}
    found = minimize(Objective(X, y, loss="logistic", l2=1e-2), storage="float32", **how)
    assert "no copy in float32: X does not hold finite numbers below 1e18" in found.why
    np.testing.assert_array_equal(found.w, minimize(Objective(X, y, loss="logistic", l2=1e-2), **how).w)


def test_why_says_why_there_is_no_copy():
    case = fit_case("squared")
    X, rest = case["X"], {k: v for k, v in case.items() if k != "X"}
    blind = Objective.from_problem(NumpyProblem(X, case["y"], loss="squared", fit_intercept=True), l2=0.1)
    for objective, how, words in (
        (Objective(**case), {"solver": "normal"}, '"normal" reads X as often'),
        (Objective(**case), {"solver": "plbfgs", "max_passes": 8}, "max_passes=8"),
        (Objective(X.astype(np.float32), **rest), {"solver": "plbfgs"}, "X is float32 as it is"),
        (Objective(X[:, ::-2].T[::2].T, **rest), {"solver": "plbfgs"}, "contiguous"),
        (blind, {"solver": "fista"}, "was not made from X itself"),
        (Objective(X, **rest, scale=0.5), {"solver": "plbfgs"}, "scale"),
        (Objective(sp.csr_matrix(X), **rest), {"solver": "plbfgs", "storage": "bfloat16"}, "CSR"),
        (Objective(**case), {"solver": "plbfgs", "storage": "uint8"}, "equally spaced"),
    ):
        found = minimize(objective, **{"storage": "float32"} | how)
        assert "no copy in" in found.why
        assert words in found.why


def test_an_unknown_storage_gets_the_choices():
    objective = Objective(**fit_case("logistic"))
    with pytest.raises(ValueError, match="storage is 'float16'; nagcore takes \"float32\""):
        minimize(objective, storage="float16")
    assert objective.n_passes == 0


@pytest.mark.parametrize("solver", ["newton", "plbfgs", "fista"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_max_passes_is_never_exceeded(solver, fit_intercept):
    case = fit_case("logistic", "correlated", "l2", fit_intercept)
    for limit in (2, 9, 10, 11, 12, 14, 20):
        objective = Objective(**case)
        found = minimize(objective, tol=1e-14, max_passes=limit, solver=solver, storage="float32")
        assert objective.n_passes == found.n_passes <= limit
        assert found.message in (f"max_passes={limit} reached", "converged")


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "uint8"])
def test_the_same_bits_on_any_number_of_threads(storage):
    X = shelves(3000, 20) if storage == "uint8" else np.random.default_rng(0).normal(size=(3000, 20)) + 50
    y = (X[:, 0] + np.random.default_rng(1).normal(size=3000) > X[:, 0].mean()).astype(float)
    found = [minimize(Objective(X, y, loss="logistic", l2=1e-3, n_threads=n), tol=1e-9, solver="plbfgs",
                      storage=storage).w for n in (1, 2, 3, 4)]
    for w in found[1:]:
        np.testing.assert_array_equal(w, found[0])


def test_a_copy_saves_passes_and_serves_many_runs():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 300)) + rng.normal(size=(4000, 1))
    y = (X @ rng.normal(size=300) / 10 + rng.logistic(size=4000) > 0).astype(float)
    objective = Objective(X, y, loss="logistic", l2=1 / 4000)
    plain = minimize(objective, tol=1e-6, solver="plbfgs")
    narrow, sentence = objective.narrowed("float32")
    assert sentence == "early passes on a copy of X in float32, 4.8 MB"
    assert narrow.wide.core is objective.problem.core
    before = narrow.n_passes
    found = minimize(narrow, tol=1e-6, solver="plbfgs", storage="float32")
    assert found.why.endswith("early passes on the copy of X in float32")
    assert found.n_passes == pytest.approx(narrow.n_passes - before)
    assert found.n_passes < 0.75 * plain.n_passes
    assert found.value == pytest.approx(plain.value, rel=1e-6)
    other = minimize(narrow.with_penalty(1e-2, 0.0), tol=1e-6, solver="plbfgs")
    assert other.converged
    assert other.n_passes < 0.75 * plain.n_passes
