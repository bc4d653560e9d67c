"""`_core.RowLbfgs`: every point, value and bound of the compiled loop against plain NumPy in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cases import THREADS, csr
from nagcore import Objective, _core, minimize, reference
from nagcore.solvers.rowspace import RowCoordinates, RowOracle

pytest.importorskip("scipy.sparse")
PAIRS = 4


def case(k=1, dtype="float64", intercept=False, n=300, d=500, seed=0):
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n, d)) < 0.1, rng.normal(size=(n, d)), 0.0).astype(dtype).astype(float)
    y = (X[:, :5].sum(axis=1) + rng.normal(size=n) > 0.3).astype(int) if k == 1 else rng.integers(0, k, n)
    loss = "logistic" if k == 1 else "softmax"
    return X, y, Objective(csr(X, dtype=dtype), y, loss=loss, l2=0.01, fit_intercept=intercept), loss


def loop_of(objective, **how):
    coordinates = RowCoordinates(objective)
    rows = RowOracle(objective, coordinates, objective.problem)
    x, Kx, z, r, f = rows.start(coordinates.null(objective))
    square = float(np.vdot(Kx, x[: len(z)]))
    args = {"x": x, "Kx": Kx, "z": z, "r": r, "f": f, "square": square, "l2": objective.l2,
            "scale": coordinates.scale, "curvature": objective.loss.curvature_bound, "pairs": PAIRS} | how
    return coordinates, _core.RowLbfgs(objective.problem.core, coordinates.products, **args)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_step_is_what_numpy_says_of_its_point(k, dtype, intercept):
    X, y, objective, loss = case(k, dtype, intercept)
    coordinates, loop = loop_of(objective)
    close = 1e-10 if dtype == "float64" else 2e-4
    values = []
    for step in range(12):
        [(f, bound, seconds, resolved)], made = loop.run()
        w = coordinates.to_w(loop.x)
        value, grad = reference.value_and_grad(X, y, w, loss=loss, l2=objective.l2, fit_intercept=intercept)
        z = X @ w[: X.shape[1]] + (w[-1] if intercept else 0.0)
        np.testing.assert_allclose(loop.margins, z, rtol=close, atol=close)
        assert f == pytest.approx(value, rel=close)
        own = grad[: X.shape[1]]
        if intercept:  # its part is taken as solved: columns are centred
            own = own - np.multiply.outer(X.mean(axis=0), grad[-1])
        assert bound == pytest.approx(0.5 * (own**2).sum() / objective.l2, rel=20 * close, abs=close**2)
        assert (made, loop.steps) == (1, step)
        assert seconds >= 0
        assert resolved or (dtype == "float32" and step > 3)
        values.append(f)
    assert all(b < a or (dtype == "float32" and b < a + 1e-6) for a, b in itertools.pairwise(values))


def test_kept_products_and_lengths_are_those_of_the_points():
    X, _, objective, _ = case()
    _, loop = loop_of(objective)
    loop.run(7)
    K = X @ X.T
    plain, inner = loop.plain, loop.inner
    assert len(plain) == 2 * PAIRS + 1
    assert all(p is not None for p in plain)
    for a, Ka in zip(plain, loop.lifted, strict=True):
        np.testing.assert_allclose(Ka, K @ a, rtol=1e-9, atol=1e-12)
    latest = next(i for i in range(PAIRS, 2 * PAIRS + 1) if np.array_equal(plain[i], loop.gradient))
    np.testing.assert_allclose(inner[latest], [loop.gradient @ K @ a for a in plain], rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(inner, inner.T)
    d, t = plain[(loop.steps - 1) % PAIRS], loop.lengths[(loop.steps - 1) % PAIRS]
    np.testing.assert_allclose(loop.x - loop.before, t * d, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("taken", [3, 9])
def test_a_step_is_newtons_in_the_span_of_what_is_kept(taken, intercept):
    X, y, objective, _ = case(intercept=intercept)
    coordinates, loop = loop_of(objective)
    for _ in range(taken):
        loop.run()
    d = X.shape[1]

    def seen(a):
        w = coordinates.to_w(a)
        return w[:d], X @ w[:d] + (w[d] if intercept else 0.0)

    span = [seen(a) for a in loop.plain if a is not None]
    w, z = seen(loop.x)
    loop.run()
    way, h = seen(loop.plain[(loop.steps - 1) % PAIRS])
    mu = 1 / (1 + np.exp(-z))
    for v, along in span:
        slope = (mu - y) @ along / len(y) + objective.l2 * w @ v
        bend = (mu * (1 - mu) * h) @ along / len(y) + objective.l2 * way @ v
        size = np.sqrt(((mu * (1 - mu) * along) @ along / len(y) + objective.l2 * v @ v)
                       * ((mu * (1 - mu) * h) @ h / len(y) + objective.l2 * way @ way))
        assert slope + bend == pytest.approx(0, abs=1e-6 * size)


def test_a_call_takes_the_steps_of_as_many_calls_and_ends_at_the_gap():
    _, _, objective, _ = case()
    singly, together = loop_of(objective)[1], loop_of(objective)[1]
    records = [singly.run()[0][0] for _ in range(10)]
    told, made = together.run(10)
    assert made == len(told) == 10
    assert [r[:2] + r[3:] for r in told] == [r[:2] + r[3:] for r in records]
    assert together.x.tobytes() == singly.x.tobytes()
    null = objective.null_value
    ended, _ = loop_of(objective)[1].run(10, 1e-2, null, 0.0)
    assert 1 < len(ended) < 10
    assert ended[-1][1] <= 1e-2 * (null - ended[-1][0])
    assert all(bound > 1e-2 * (null - f) for f, bound, *_ in ended[:-1])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bits_do_not_depend_on_the_threads(dtype):
    rng = np.random.default_rng(0)
    X = csr(np.where(rng.random((700, 900)) < 0.4, rng.normal(size=(700, 900)), 0.0), dtype=dtype)
    y = rng.integers(0, 2, 700)
    found = []
    for threads in THREADS[:3]:
        objective = Objective(X, y, loss="logistic", l2=0.01, fit_intercept=False, n_threads=threads)
        loop = loop_of(objective)[1]
        records = [loop.run()[0][0] for _ in range(9)]  # one call may end early, by the clock
        found.append((loop.x.tobytes(), loop.margins.tobytes(), tuple(r[:2] for r in records)))
    assert len(set(found)) == 1


def test_where_a_run_has_a_limit_it_is_kept_and_whoever_watches_sees_each_step():
    _, _, objective, _ = case()
    for dtype, intercept in itertools.product(("float64", "float32"), (False, True)):
        ended = minimize(case(1, dtype, intercept)[2], solver="row_lbfgs", tol=1e-12, max_passes=9)
        assert ended.n_passes <= 9
        assert ended.gap_kind == "certificate"
        assert ended.message == "max_passes=9 reached"
    seen = []
    watched = minimize(objective, solver="row_lbfgs", tol=1e-6, callbacks=[seen.append])
    alone = minimize(objective, solver="row_lbfgs", tol=1e-6)
    assert len(seen) == watched.n_iter == alone.n_iter == len(alone.history.value)
    assert alone.history.value == watched.history.value
    np.testing.assert_array_equal(watched.w, alone.w)


@pytest.mark.parametrize(("how", "message"), [
    ({"l2": 0.0}, "l2 is 0"), ({"scale": -1.0}, "scale is -1"), ({"curvature": np.inf}, "curvature is inf"),
    ({"pairs": 0}, "pairs is 0"), ({"x": np.zeros(3)}, r"x has shape \(3,\)"),
    ({"z": np.full(300, np.nan)}, "z holds NaN"),
])
def test_what_cannot_be_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        loop_of(case()[2], **how)


def test_weights_and_offsets_are_refused():
    X, y, _, _ = case()
    ones = np.ones(300)
    for given, name in (({"sample_weight": ones}, "sample weights"), ({"offset": ones}, "offset")):
        weighted = Objective(csr(X), y, loss="logistic", l2=0.01, fit_intercept=False, **given)
        with pytest.raises(ValueError, match=name):
            loop_of(weighted)


def test_infinity_in_x_is_explained():
    X, y, _, _ = case()
    X[3, np.flatnonzero(X[3])[0]] = np.inf
    with pytest.raises(ValueError, match="row 3"):
        minimize(Objective(csr(X), y, loss="logistic", l2=0.01), solver="row_lbfgs")
