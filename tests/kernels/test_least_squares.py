"""Problem.least_squares: normal equations in one call, against NumPy's factorisation of [√s·X; √λ·I]."""

import numpy as np
import pytest

from nagcore import _core


def data(n=400, d=7, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-1, 2, d) + rng.uniform(-3, 3, d)
    y = X @ (rng.standard_normal(d) / X.std(axis=0)) + 50 + rng.standard_normal(n)
    return X.astype(dtype), y, rng.uniform(0.1, 3, n)


def factored(X, y, s, l2, fit_intercept):
    X = X.astype(np.float64)
    s = np.ones(len(y)) if s is None else s
    mean = (s @ X / s.sum(), s @ y / s.sum()) if fit_intercept else (np.zeros(X.shape[1]), 0.0)
    root = np.sqrt(s / s.sum())
    A = np.vstack([root[:, None] * (X - mean[0]), np.sqrt(l2) * np.eye(X.shape[1])])
    scale = np.linalg.norm(A, axis=0)
    b = np.concatenate([root * (y - mean[1]), np.zeros(X.shape[1])])
    w = np.linalg.lstsq(A / scale, b, rcond=None)[0] / scale
    return np.append(w, mean[1] - mean[0] @ w) if fit_intercept else w


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("correct", [0.0, 2.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_it_solves(dtype, order, correct, weighted, fit_intercept):
    X, y, s = data(dtype=dtype if dtype != "uint8" else "float64")
    X = np.asarray(np.clip(X * 20 + 99, 0, 255).astype("uint8") if dtype == "uint8" else X, order=order)
    s = s if weighted else None
    got, *others = (
        _core.Problem(X, y, loss="squared", sample_weight=s, fit_intercept=fit_intercept, compute="float64",
                      n_threads=t).least_squares(0.01, correct)
        for t in (1, 2, 3)
    )  # fmt: skip
    want, size = factored(X, y, s, 0.01, fit_intercept), np.append(X.std(axis=0, dtype=np.float64), 1.0)
    np.testing.assert_allclose(got * size[: len(got)], want * size[: len(want)], rtol=0, atol=1e-9)
    for other in others:
        np.testing.assert_array_equal(other, got)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_product_in_float32_is_corrected_to_eight_digits(order, weighted, fit_intercept):
    X, y, s = data(4000, 40, "float32")
    s = s if weighted else None
    narrow, full, *others = (
        _core.Problem(np.asarray(X, order=order), y, loss="squared", sample_weight=s,
                      fit_intercept=fit_intercept, compute="float64",
                      n_threads=t).least_squares(0.01, 1e-7, n)
        for t, n in ((1, True), (1, False), (2, True), (3, True))
    )  # fmt: skip
    assert (narrow != full).any()  # it went that way
    want, size = factored(X, y, s, 0.01, fit_intercept)[:40], X.std(axis=0, dtype=np.float64)
    assert np.linalg.norm((narrow[:40] - want) * size) < 2e-8 * np.linalg.norm(want * size)
    for other in others:
        np.testing.assert_array_equal(other, narrow)


@pytest.mark.parametrize("what", ["collinear", "few columns", "far targets"])
def test_what_float32_cannot_do_is_done_in_full(what):
    X, y, _ = data(4000, 10 if what == "few columns" else 40, "float32")
    if what == "collinear":
        X[:, 3] = X[:, 2] + 1e-3 * X[:, 2].std() * np.random.default_rng(1).standard_normal(4000)
    if what == "far targets":  # of which float32 holds one digit
        y += 1e8
    problem = _core.Problem(X, y, loss="squared", compute="float64", fit_intercept=True)
    full = problem.least_squares(1e-12, 1e-7)
    assert full is not None
    np.testing.assert_array_equal(problem.least_squares(1e-12, 1e-7, True), full)


def test_the_correction_gives_digits_back():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4))
    X[:, 3] = X[:, 2] + 1e-4 * X[:, 3]
    y = X @ np.arange(1.0, 5.0)
    problem = _core.Problem(X, y, loss="squared", fit_intercept=False, compute="float64")
    plain, corrected = (np.abs(problem.least_squares(0.0, c) - np.arange(1.0, 5.0)).max() for c in (0.0, 1.0))
    assert corrected < 1e-2 * plain
    assert corrected < 1e-10


@pytest.mark.parametrize("what", ["collinear", "constant", "far", "nan", "zero", "overflow"])
def test_what_it_does_not_trust(what):
    X, y, _ = data()
    if what == "collinear":
        X[:, 1] = 2 * X[:, 0]
    elif what == "constant":
        X[:, 1] = 3.0
    elif what == "far":
        X[:, 1] += 1e6 * X[:, 1].std()
    elif what == "nan":
        X[5, 1] = np.nan
    elif what == "zero":
        X[:, 1] = 0.0
    else:
        X[:, 1] *= 1e200
    problem = _core.Problem(X, y, loss="squared", fit_intercept=True, compute="float64")
    assert problem.least_squares(0.0) is None


def test_errors():
    X, y, _ = data()
    problem = _core.Problem(X, y, loss="squared", compute="float64")
    for l2 in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="l2 is"):
            problem.least_squares(l2)
    with pytest.raises(ValueError, match="squared loss"):
        _core.Problem(X, (y > 50).astype(float), loss="logistic").least_squares(0.1)
