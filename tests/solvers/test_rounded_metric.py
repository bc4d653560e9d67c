"""Metrics from rounded rows, made again where rounding hides a column; and starts at a column of ones."""

from __future__ import annotations

import numpy as np
import pytest

from nagcore import Objective, _core, minimize
from nagcore.linear_model import LogisticRegression
from nagcore.solvers.coordinates import Coordinates
from nagcore.solvers.metric import Metric
from nagcore.solvers.rows import Sampler, sample_size
from nagcore.solvers.warmstart import start_of_constant

needs_rounding = pytest.mark.skipif(not _core.rounded_products(), reason="none here, or NAGCORE_ISA set")
EPS = float(np.finfo(np.float32).eps)


def table(n=20_000, d=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d)) / np.sqrt(d))
    y = (X @ rng.normal(size=d) / np.sqrt(d) + rng.logistic(size=n) > 0).astype(float)
    return X.astype(np.float32), y


def objective_of(X, y, **more):
    return Objective(X, y, loss="logistic", l2=1 / len(y), **more)


@needs_rounding
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_rounded_metric_is_the_exact_one_but_for_two_digits(fit_intercept):
    objective = objective_of(*table(), fit_intercept=fit_intercept)
    columns = Metric(objective, 0).at(objective.problem, objective.null_margins())
    assert columns.exact is not None
    rounded = Coordinates(objective, columns, EPS)
    exact = Coordinates(objective, columns.exact(), EPS)
    # T⁻¹ of one times T of the other: the identity, if both are one metric.
    d = objective.shape[1]
    both = np.array([rounded.to_v(exact.to_w(e))[:d] for e in np.eye(objective.p)[:d]])
    assert 1e-7 < np.abs(both - np.eye(d)).max() < 0.02


@needs_rounding
def test_a_column_that_rounding_hides_is_looked_at_in_full():
    """One that differs from another by a ten-thousandth: three digits say that they are the same."""
    X, y = table()
    X[:, 7] = X[:, 3] + 1e-4 * np.random.default_rng(1).normal(size=len(X))
    objective = Objective(X, y, loss="logistic", l2=1e-12)
    columns = Metric(objective, 0).at(objective.problem, objective.null_margins())
    asked = []

    def exact():
        asked.append(True)
        return columns.exact()

    coordinates = Coordinates(objective, columns._replace(exact=exact), EPS)
    assert asked == [True]
    want = Coordinates(objective, columns.exact(), EPS)
    np.testing.assert_array_equal(coordinates.parts[0], want.parts[0])


@needs_rounding
def test_means_far_from_zero_are_not_rounded():
    X, y = table()
    X[:, 5] += 100
    objective = objective_of(X, y, fit_intercept=True)
    assert Metric(objective, 0).at(objective.problem, objective.null_margins()).exact is None


@needs_rounding
def test_what_rounding_has_hidden_once_is_not_rounded_again():
    """And rows are counted at the price of full products from then on, which fewer of them are worth."""
    X, y = table(45_000, 200)
    X[:, 7] = X[:, 3] + 1e-4 * np.random.default_rng(1).normal(size=len(X))
    objective = Objective(X, y, loss="logistic", l2=1e-12, fit_intercept=False)
    metric, z = Metric(objective, 0), objective.null_margins()
    columns = metric.at(objective.problem, z)
    many = metric.sampler.rows_for(0.0)
    price = metric.price(5.0)
    assert columns.exact is not None
    assert price > 0
    Coordinates(objective, columns, EPS)
    assert metric.at(objective.problem, z).exact is None
    assert metric.price(5.0) == 0
    assert not metric.tells_all(5.0)
    assert metric.sampler.rows_for(0.0) == sample_size(*X.shape, speed=1.0) != many


@pytest.mark.parametrize(
    ("kind", "n", "speed", "reads"), [("amx", 40_000, 5.0, (1.5, 2.5)), ("bf16", 30_000, 2.0, (1.0, 1.5))]
)
def test_what_a_metric_may_cost_follows_how_it_is_made(monkeypatch, kind, n, speed, reads):
    """Rows for the first metric and for later ones; those of a smaller table are all worth 2.5 reads."""
    monkeypatch.setattr(_core, "rounded_products", lambda: kind)
    p, few = 300, n // 4
    X, y = np.random.default_rng(0).random((n, p - 1), np.float32), (np.arange(n) % 2).astype(float)
    large, small = Sampler(objective_of(X, y), 0), Sampler(objective_of(X[:few], y[:few]), 0)
    assert (large.soon, small.soon) == (True, False)
    assert large.speed == pytest.approx(speed)
    bought = 11 * speed / p  # rows of X for one read of it, as a part of them
    assert [large.rows_for(0.0), large.rows_for(1.0)] == [int(r * bought * n) for r in reads]
    assert small.rows_for(0.0) == small.rows_for(1.0) == max(5 * p, int(2.5 * bought * few))


@needs_rounding
def test_a_metric_is_weighed_in_passes_of_its_problem():
    """One pass of ten classes is some four reads of X, and all that a metric costs is counted in reads."""
    X, y = table(45_000, 200)
    two = Metric(objective_of(X, y), 0)
    ten = Metric(Objective(X, np.arange(len(y)) % 10, loss="softmax", l2=1 / len(y)), 0)
    rows = [m.sampler.rows_for(5.0, m.n_metrics) for m in (two, ten)]
    assert two.n_metrics == 1
    assert ten.n_metrics == 10
    reads = (two.price(5.0) - 1) * 10 * rows[1] / rows[0]
    assert 1 + reads / 5 < ten.price(5.0) < 1 + reads / 3


@needs_rounding
def test_classes_of_pictures_get_their_metrics_in_time(real_data):
    """At the price of ten metrics in reads the fit took 80 passes, nearly all in the first metric."""
    data = real_data.load("mnist")
    X = np.ascontiguousarray(data["X_train"], np.float32) / np.float32(255)
    model = LogisticRegression(C=1e4 / len(X), tol=1e-5).fit(X, data["y_train"])
    assert model.n_iter_[0] <= 40


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e4])
def test_fits_take_few_passes_wherever_the_columns_lie(dtype, offset):
    X, y = table(30_000, 80)
    X = (X + offset * np.linspace(0, 1, 80)).astype(dtype)
    objective = objective_of(X, y, fit_intercept=True)
    result = minimize(objective, tol=1e-6)
    assert result.converged
    assert result.gap_kind == "certificate"
    assert objective.n_passes <= (20 if offset < 1e4 else 35)


def test_large_tables_with_many_columns():
    """Above the size from which metrics are renewed at their price; against scikit-learn's solution."""
    from sklearn.linear_model import LogisticRegression as Peer

    rng = np.random.default_rng(0)
    n, d = 45_000, 200
    X = (rng.random((n, d)) < 0.3 * np.exp(-rng.exponential(2.0, d))).astype(np.float32)
    y = (X @ rng.normal(size=d) * 1.5 + rng.logistic(size=n) > 5).astype(int)
    ours = LogisticRegression(tol=1e-8).fit(X, y)
    peer = Peer(solver="newton-cholesky", tol=1e-10).fit(X.astype(float), y)

    def value(model):
        z = (2 * y - 1) * (X.astype(float) @ model.coef_[0] + model.intercept_[0])
        return np.logaddexp(0, -z).sum() + 0.5 * model.coef_[0] @ model.coef_[0]

    assert value(ours) <= value(peer) * (1 + 1e-8)


def rare(n=8000, d=120, dtype=np.float32):
    rng = np.random.default_rng(4)
    X = np.hstack([rng.normal(size=(n, d)), np.full((n, 1), 2.0)]).astype(dtype)
    y = (X[:, :5].sum(1) + rng.logistic(size=n) > 8).astype(float)
    return X, y


def test_a_column_of_one_number_is_where_a_fit_with_a_rare_class_begins():
    X, y = rare()
    objective = objective_of(X, y, fit_intercept=False)
    before = objective.n_passes
    w, z = start_of_constant(objective)
    assert objective.n_passes == before
    assert np.flatnonzero(w).tolist() == [120]
    np.testing.assert_allclose(z, X @ w, rtol=1e-6)
    assert w[120] * 2 == pytest.approx(np.log(y.mean() / (1 - y.mean())), rel=1e-4)
    result = minimize(objective, tol=1e-9)
    assert result.converged
    elsewhere = minimize(objective_of(X, y, fit_intercept=False), np.zeros(121), tol=1e-9)
    np.testing.assert_allclose(result.w, elsewhere.w, atol=1e-4)
    assert result.n_passes < elsewhere.n_passes


@pytest.mark.parametrize("change", ["balanced", "nearly", "narrow", "intercept", "zero", "bounds", "l2"])
def test_no_such_start(change):
    X, y = rare()
    more = {"fit_intercept": False, "l2": 1 / len(y)}
    if change == "balanced":
        y = np.arange(len(y)) % 2.0
    elif change == "nearly":
        X[4321, 120] = 1.5  # between the rows that are looked at first
    elif change == "narrow":
        X = np.ascontiguousarray(X[:, 60:])
    elif change == "intercept":
        more["fit_intercept"] = True
    elif change == "zero":
        X[:, 120] = 0
    elif change == "bounds":
        more["bounds"] = (-1, 1)
    else:
        more["l2"] = 1.0
    assert start_of_constant(Objective(X, y, loss="logistic", **more)) is None


def test_equilibrate_is_numpys():
    rng = np.random.default_rng(0)
    for d, extra in ((1, 0), (7, 1), (40, 0), (200, 1)):
        A = rng.normal(size=(3 * d, d + extra))
        M, scale, mean = A.T @ A, rng.uniform(0.5, 2, d), rng.normal(size=d)
        for m in (None, mean):
            out = np.full((d, d), 7.0)
            _core.equilibrate(M, 0.5, m, scale, out, 2)
            want = (0.5 * M[:d, :d] - (0 if m is None else np.outer(m, m))) * np.outer(scale, scale)
            np.fill_diagonal(want, 1.0)
            low = np.tril_indices(d)
            np.testing.assert_allclose(out[low], want[low], rtol=1e-12, atol=1e-13)
            assert (out[np.triu_indices(d, 1)] == 7).all()
    with pytest.raises(ValueError, match="M has 2 rows; out has 3"):
        _core.equilibrate(np.eye(2), 1.0, None, np.ones(3), np.eye(3))
    with pytest.raises(ValueError, match="scale has shape"):
        _core.equilibrate(np.eye(3), 1.0, None, np.ones(2), np.eye(3))
