"""newton_cg and row_lbfgs: minima, trips over X, certificates and bits, with an oracle each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize

from cases import THREADS, csr
from nagcore import Objective, _core, minimize, reference
from nagcore.solvers import get
from nagcore.solvers.auto import choose
from nagcore.solvers.newton_cg import newton_cg
from nagcore.solvers.rowlbfgs import row_lbfgs
from nagcore.solvers.rowspace import RowCoordinates, RowOracle
from solvers.problems import fit_case, value

pytest.importorskip("scipy.sparse")
LOSSES = ["logistic", "squared", "huber", "poisson", "squared_hinge", "softmax"]
N, D = 60, 150
METHODS = {"newton_cg": newton_cg, "row_lbfgs": row_lbfgs}


@pytest.fixture(params=list(METHODS))
def solver(request):
    return request.param


def wide_case(loss, fit_intercept=False, weights=False, offset=False, seed=0):
    """Keyword arguments of Objective for a dense X; `sparse` makes its CSR."""
    case = fit_case(loss, fit_intercept=fit_intercept, seed=seed, n=N)
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((N, D)) < 0.2, rng.normal(size=(N, D)), 0.0)
    X[:, :6] = case["X"] * (rng.random((N, 6)) < 0.8)
    X[:, 9], X[7] = 0.0, 0.0
    if loss == "squared":
        case["y"] = case["y"] / np.std(case["y"])
    case = {**case, "X": X, "l1": 0.0, "l2": 0.02}
    if weights:
        case["sample_weight"] = rng.integers(0, 4, N).astype(float)
    if offset:
        case["offset"] = 0.3 * rng.normal(size=N if loss != "softmax" else (N, 3))
    return case


def sparse(case, dtype="float64", **more):
    return Objective(csr(case["X"], dtype=dtype), **{k: v for k, v in case.items() if k != "X"}, **more)


def solution(case):
    """w by scipy's L-BFGS on the reference, polished by gradient evaluations alone."""
    how = {k: v for k, v in case.items() if k not in ("X", "y", "l1")}
    k = int(case["y"].max()) + 1 if case["loss"] == "softmax" else 1
    shape = (D + case["fit_intercept"],) + ((k,) if k > 1 else ())

    def fg(v):
        f, g = reference.value_and_grad(case["X"], case["y"], v.reshape(shape), **how)
        return f, g.ravel()

    v = np.zeros(int(np.prod(shape)))
    for _ in range(4):
        v = scipy_minimize(fg, v, jac=True, method="L-BFGS-B",
                           options={"maxiter": 5000, "maxfun": 9000, "ftol": 1e-16, "gtol": 1e-11,
                                    "maxcor": 40}).x
    return v.reshape(shape)


@pytest.mark.parametrize("extras", [{}, {"fit_intercept": True},
                                    {"fit_intercept": True, "weights": True, "offset": True}],
                         ids=["plain", "intercept", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
def test_row_methods_find_the_minimum(loss, extras, solver):
    case = wide_case(loss, **extras)
    result = minimize(sparse(case), solver=solver, tol=1e-12)
    best = solution(case)
    assert result.converged, result.message
    assert result.gap_kind == "certificate", result.message
    assert value(case, result.w) == pytest.approx(result.value, rel=1e-12)
    assert result.value <= value(case, best) + 1e-11
    assert result.value - value(case, best) <= result.gap + 1e-12
    d = result.w - best
    if loss == "softmax" and case["fit_intercept"]:
        d[-1] -= d[-1].mean()  # a shift of all intercepts changes nothing
    assert np.abs(d).max() <= 2e-4 * (1 + np.abs(best).max())


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
def test_float32_reaches_what_float64_does(loss, fit_intercept, solver):
    case = wide_case(loss, fit_intercept)
    case["X"] = case["X"].astype(np.float32).astype(np.float64)
    wide = minimize(sparse(case), solver=solver, tol=1e-10)
    narrow = minimize(sparse(case, "float32"), solver=solver, tol=1e-9)
    assert narrow.converged
    assert narrow.value - wide.value <= 1e-9 * (narrow.null_value - wide.value) + 1e-13


def test_least_squares_are_the_conjugate_gradients_of_the_textbook():
    """Without an intercept, from zero: the iterates in w are those of CG on (XᵀX/n + l2·I) w = Xᵀy/n."""
    case = wide_case("squared")
    objective = sparse(case)
    coordinates = RowCoordinates(objective)
    rows = RowOracle(objective, coordinates, objective.problem)
    X, y = case["X"], case["y"]
    A, w = X.T @ X / N + case["l2"] * np.eye(D), np.zeros(D)
    r = p = X.T @ y / N
    for it in itertools.islice(newton_cg(rows, np.zeros(N)), 12):
        np.testing.assert_allclose(coordinates.to_w(it.x), w, rtol=1e-8, atol=1e-10)
        assert it.bound == pytest.approx(0.5 * (A @ w - X.T @ y / N) @ (A @ w - X.T @ y / N) / case["l2"],
                                         rel=1e-6, abs=1e-14)
        step = r @ r / (p @ A @ p)
        w, before, r = w + step * p, r, r - step * A @ p
        p = r + (r @ r) / (before @ before) * p


@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
def test_iterates_know_their_values_and_margins(loss, solver):
    case = wide_case(loss, fit_intercept=True, weights=True, offset=True)
    objective = sparse(case)
    coordinates = RowCoordinates(objective)
    rows = RowOracle(objective, coordinates, objective.problem)
    start = np.zeros((N + 1, *objective.w_shape[1:]))
    values = []
    for it in itertools.islice(METHODS[solver](rows, start), 8):
        w = coordinates.to_w(it.x)
        np.testing.assert_allclose(it.z, objective.problem.margins(w), rtol=1e-9, atol=1e-10)
        f, g = objective.value_and_grad(w)
        assert it.f == pytest.approx(f, rel=1e-12)
        centred = g[:D] - np.multiply.outer(coordinates._mean, g[D])
        assert it.bound == pytest.approx(0.5 * (centred**2).sum() / case["l2"], rel=1e-6, abs=1e-13)
        values.append(it.f)
    assert all(a >= b - 1e-14 for a, b in itertools.pairwise(values))
    assert values[-1] < values[0]


@pytest.mark.parametrize(("loss", "most"), [("logistic", 60), ("softmax", 60), ("squared", 45)])
def test_trips_over_x_are_counted_and_few(loss, most, solver):
    case = wide_case(loss)
    objective = sparse(case)
    calls, gradients = [], []
    inner = RowCoordinates.product

    class Loop:
        """The compiled one, with its gradients counted: a product each."""

        def __init__(self, *args):
            self.loop = inner_loop(*args)

        def run(self, *limits):
            records, _ = found = self.loop.run(*limits)
            gradients.append(len(records))
            return found

        def __getattr__(self, name):
            return getattr(self.loop, name)

    inner_loop = _core.RowLbfgs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowCoordinates, "product", lambda self, x: (calls.append(x.any()), inner(self, x))[1])
        patch.setattr(_core, "RowLbfgs", Loop)
        result = minimize(objective, solver=solver, tol=1e-6)
    # w at the end is a pass, and so is the copy by columns, where there is one.
    copies = loss == "softmax"
    assert _core.RowProducts(objective.problem.core).by_rows is not copies
    assert result.n_passes == sum(calls) + sum(gradients) + copies + 1 <= most
    assert bool(gradients) == (solver == "row_lbfgs")
    assert result.converged


def test_bits_do_not_depend_on_the_threads(solver):
    rng = np.random.default_rng(0)
    X = np.where(rng.random((400, 1500)) < 0.5, rng.normal(size=(400, 1500)), 0.0)
    y = (X[:, :5].sum(axis=1) + rng.normal(size=400) > 0).astype(float)
    for dtype in ("float64", "float32"):
        results = [minimize(Objective(csr(X, dtype=dtype), y, loss="logistic", l2=0.05, n_threads=t),
                            solver=solver, tol=1e-8) for t in THREADS[:3]]
        assert len({r.w.tobytes() for r in results}) == 1
        assert len({(r.value, r.gap, r.n_passes) for r in results}) == 1


def test_a_narrower_copy_is_not_what_is_minimised(solver):
    case = wide_case("logistic")
    plain = minimize(sparse(case), solver=solver, tol=1e-10)
    stored = minimize(sparse(case), solver=solver, tol=1e-10, storage="float32")
    assert "no copy in float32" in stored.why
    np.testing.assert_array_equal(stored.w, plain.w)


def test_arithmetic_that_is_asked_for_is_used_throughout(solver):
    case = wide_case("softmax")
    case["X"] = case["X"].astype(np.float32).astype(np.float64)
    wide = minimize(sparse(case), solver=solver, tol=1e-8)
    asked = minimize(sparse(case, "float32", compute="float64"), solver=solver, tol=1e-8)
    np.testing.assert_allclose(asked.w, wide.w, rtol=1e-11, atol=1e-12)
    assert asked.n_iter == wide.n_iter


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_start_near_the_minimum_is_used(fit_intercept, solver):
    case = wide_case("logistic", fit_intercept)
    cold = minimize(sparse(case), solver=solver, tol=1e-9)
    warm = minimize(sparse(case), cold.w, solver=solver, tol=1e-6)
    assert warm.converged
    assert warm.n_passes < 0.6 * cold.n_passes
    bad = minimize(sparse(case), 100 * cold.w, solver=solver, tol=1e-9)
    assert bad.converged
    assert bad.value == pytest.approx(cold.value, abs=1e-8)


def test_max_passes_leaves_the_best_point_and_its_gap(solver):
    case = wide_case("logistic", True)
    best = minimize(sparse(case), solver=solver, tol=1e-10).value
    cut = minimize(sparse(case), solver=solver, tol=1e-10, max_passes=12)
    assert not cut.converged
    assert cut.n_passes <= 12
    assert value(case, cut.w) == pytest.approx(cut.value, rel=1e-9)
    assert cut.gap >= cut.value - best - 1e-12


def test_what_row_methods_refuse(solver):
    case = wide_case("logistic")
    with pytest.raises(ValueError, match=f'"{solver}" needs CSR and l2 > 0; this X is not CSR.*"auto"'):
        get(solver, Objective(**case))
    with pytest.raises(ValueError, match=r"needs CSR and l2 > 0; this X comes with l2 = 0"):
        get(solver, sparse({**case, "l2": 0.0}))
    with pytest.raises(ValueError, match="needs a smooth objective"):
        get(solver, sparse({**case, "l1": 0.1}))


def test_bad_numbers_in_x_are_named(solver):
    case = wide_case("logistic", True)
    X = csr(case["X"])
    X.data[5] = np.inf
    for fit_intercept in (False, True):
        with pytest.raises(ValueError, match="X holds NaN or infinity, first in row 0"):
            minimize(Objective(X, case["y"], loss="logistic", l2=0.1, fit_intercept=fit_intercept),
                     solver=solver)


def test_auto_takes_rows_as_unknowns_where_they_are_few():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((300, 2000)) < 0.02, 1.0, 0.0)
    y = (rng.random(300) < 0.5).astype(float)
    name, why = choose(Objective(csr(X), y, loss="logistic", l2=0.1))
    assert name == "row_lbfgs"
    assert "few rows for the columns" in why
    wider = np.where(rng.random((300, 3000)) < 0.02, 1.0, 0.0)
    assert choose(Objective(csr(wider), y, loss="squared", l2=0.1))[0] == "newton_cg"
    uneven = X * 10.0 ** rng.uniform(-3, 3, 2000)
    for objective in (Objective(csr(uneven), y, loss="logistic", l2=0.1),
                      Objective(csr(X), y, loss="logistic", l2=0.0), Objective(X, y, loss="logistic", l2=0.1),
                      Objective(csr(X), y, loss="logistic", l2=0.1, l1=0.1),
                      Objective(csr(X.T), rng.random(2000) < 0.5, loss="logistic", l2=0.1)):
        assert choose(objective)[0] not in METHODS
