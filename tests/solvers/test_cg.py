"""cg: least squares with many columns, one pass a step, against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cases import THREADS, csr
from nagcore import Objective, minimize
from nagcore.solvers import get
from nagcore.solvers.auto import choose
from nagcore.solvers.base import Oracle
from nagcore.solvers.cg import cg
from nagcore.solvers.coordinates import Columns, Coordinates

pytest.importorskip("scipy.sparse")


def regression(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-1, 1, d) + rng.normal(size=d)
    w = rng.normal(size=d) / X.std(axis=0)
    y = X @ w / np.sqrt(d) + rng.normal(size=n) + 2
    return X, y / y.std()


def ridge(X, y, l2, fit_intercept, s=None):
    """(w, min F) by a dense solve of the dual, columns centred where there is an intercept."""
    s = np.full(len(y), 1 / len(y)) if s is None else s / s.sum()
    mean, top = (s @ X, s @ y) if fit_intercept else (0.0, 0.0)
    root = np.sqrt(s)
    A, b = (X - mean) * root[:, None], (y - top) * root
    w = A.T @ np.linalg.solve(A @ A.T + l2 * np.eye(len(y)), b)
    value = 0.5 * ((A @ w - b) ** 2).sum() + 0.5 * l2 * w @ w
    return (np.append(w, top - mean @ w) if fit_intercept else w), value


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("n", "d"), [(80, 30), (60, 1500)])
def test_cg_finds_the_minimum(n, d, fit_intercept, dtype):
    X, y = regression(n, d)
    X, l2 = X.astype(dtype), 0.1 if d < n else 20.0
    s = np.random.default_rng(1).integers(0, 4, n).astype(float)
    for weight in (None, s):
        objective = Objective(X, y, loss="squared", l2=l2, fit_intercept=fit_intercept, sample_weight=weight)
        result = minimize(objective, solver="cg", tol=1e-10)
        w, best = ridge(X.astype(np.float64), y, l2, fit_intercept, weight)
        assert result.converged and result.gap_kind == "certificate", result.message
        assert best - 1e-12 <= result.value <= best + 1e-10 * (result.null_value - best) + 1e-12
        assert result.value - best <= result.gap + 1e-12
        np.testing.assert_allclose(result.w, w, rtol=0, atol=1e-4 * np.abs(w).max())


def test_every_step_is_one_pass_and_conjugate_gradients():
    """In the variables of the metric, the textbook's iterates."""
    X, y = regression(50, 20)
    objective = Objective(X, y, loss="squared", l2=0.1, fit_intercept=False)
    columns = Columns(np.zeros(20), (X**2).mean(axis=0), None, 1.0)
    coordinates = Coordinates(objective, columns, 2.0**-52)
    scale = coordinates.scale
    A = scale * (X.T @ X / 50 + 0.1 * np.eye(20)) * scale[:, None]
    b = scale * (X.T @ y) / 50
    v, r = np.zeros(20), b
    p, before = r, objective.n_passes
    oracle = Oracle(objective, coordinates, objective.problem)
    for k, it in enumerate(itertools.islice(cg(oracle, np.zeros(20)), 10)):
        assert objective.n_passes - before == k + 1
        np.testing.assert_allclose(it.x, v, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(it.g, A @ v - b, rtol=0, atol=1e-6)
        np.testing.assert_allclose(it.z, X @ (scale * v), rtol=0, atol=1e-6)
        np.testing.assert_allclose(oracle.u, X.T @ (X @ (scale * v) - y) / 50, rtol=0, atol=1e-5)
        assert it.f == pytest.approx(objective.value_and_grad(scale * v)[0], rel=1e-12)
        before += 1  # that evaluation
        step = r @ r / (p @ A @ p)
        v, last, r = v + step * p, r, r - step * A @ p
        p = r + (r @ r) / (last @ last) * p


def test_cg_takes_few_passes_on_many_columns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5000))
    y = X[:, :9].sum(axis=1) + rng.normal(size=400)
    objective = Objective(X.astype(np.float32), y, loss="squared", l2=5.0)
    assert choose(objective)[0] == "cg"
    result = minimize(objective, tol=1e-6)
    assert result.converged and result.n_passes <= 20, result


def test_bits_do_not_depend_on_the_threads():
    X, y = regression(300, 1200)
    results = [minimize(Objective(csr(X), y, loss="squared", l2=1.0, n_threads=t), solver="cg", tol=1e-8)
               for t in THREADS[:3]]
    assert len({r.w.tobytes() for r in results}) == 1


def test_what_cg_refuses():
    X = np.eye(3)
    with pytest.raises(ValueError, match=r'solver="cg" takes loss squared; this one is "logistic".*"auto"'):
        get("cg", Objective(X, np.array([0.0, 1, 1]), loss="logistic", l2=0.1))
    with pytest.raises(ValueError, match="needs a smooth objective"):
        get("cg", Objective(X, np.ones(3), loss="squared", l1=0.1))
