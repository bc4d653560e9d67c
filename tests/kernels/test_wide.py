"""Rows so long that threads share the columns (csrc/engine/wide.cc): right, the same bits for all threads."""

from __future__ import annotations

import numpy as np
import pytest

from nagcore import _core, reference

D = 41_003  # past the row length at which this path begins, and no whole number of panels


def problem(dtype: str, n: int, loss: str, rng: np.random.Generator, **more):
    """A wide problem, what the reference makes of it, and the keywords both take."""
    X = rng.standard_normal((n, D), dtype=np.float32)
    keywords = {}
    if dtype == "uint8":
        X, keywords = rng.integers(0, 255, (n, D), dtype=np.uint8), {"scale": 1 / 64, "shift": -2.0}
    elif dtype == "bfloat16":
        X = (X.view(np.uint32) >> 16).astype(np.uint16)
        keywords = {"dtype": "bfloat16"}
    else:
        X = X.astype(dtype)
    y = rng.integers(0, 2, n).astype(float)
    plain = (X.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else X
    how = {"loss": loss, "fit_intercept": True, "sample_weight": rng.random(n) + 0.1, **more}
    return X, plain, y, how, keywords


@pytest.mark.parametrize("isa", _core.isa_names())
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("n", [1, 2, 3, 131])
def test_wide_rows_match_the_reference_on_any_threads(isa, dtype, n):
    rng = np.random.default_rng(n)
    X, plain, y, common, storage = problem(dtype, n, "logistic", rng)
    w = rng.standard_normal(D + 1) / np.sqrt(D)
    scaling = {key: storage[key] for key in ("scale", "shift") if key in storage}
    value, grad = reference.value_and_grad(plain, y, w, **common, **scaling)
    results = []
    for threads in (1, 2, 3, 8):
        p = _core.Problem(X, y, isa=isa, n_threads=threads, **common, **storage)
        z = np.empty(n, p.compute)
        r = np.empty(n, p.compute)
        v, g = p.value_and_grad(w, margins=z, residuals=r)
        parts = (g, z, r, p.margins(w), p.rmatvec(r))
        results.append((v, *(part.tobytes() for part in parts)))
    assert all(result == results[0] for result in results[1:])
    eps = float(np.finfo(p.compute).eps)
    assert v == pytest.approx(value, rel=64 * eps, abs=64 * eps)
    size = np.abs(grad).max() + np.abs(plain).max() * scaling.get("scale", 1)
    assert np.abs(g - grad).max() <= 200 * eps * size
    assert np.array_equal(p.margins(w), z)
    np.testing.assert_allclose(p.rmatvec(r), g, rtol=0, atol=200 * eps * np.abs(g).max())


def test_many_wide_rows_of_bytes_give_the_same_bits_on_any_threads():
    """So many that coefficients are converted to whole numbers where the processor sums those."""
    rng = np.random.default_rng(7)
    n, d = 4101, 29_003
    X = rng.integers(0, 256, (n, d), dtype=np.uint8)
    y = rng.integers(0, 2, n).astype(float)
    w = np.float32(rng.standard_normal(d) / np.sqrt(d)).astype(float)
    how = {"loss": "logistic", "scale": 1 / 64, "shift": -2.0}
    exact = np.empty(n)
    _, g_exact = _core.Problem(X, y, compute="float64", **how).value_and_grad(w, margins=exact)
    size = np.abs(g_exact).max() + 2.0
    for isa in _core.isa_names():
        results = []
        for threads in (1, 2, 3):
            z = np.empty(n, np.float32)
            v, g = _core.Problem(X, y, isa=isa, n_threads=threads, **how).value_and_grad(w, margins=z)
            results.append((v, g.tobytes(), z.tobytes()))
        assert all(result == results[0] for result in results[1:]), isa
        eps = float(np.finfo(np.float32).eps)
        assert np.abs(z - exact).max() <= 40 * eps * (np.abs(w) * 2).sum(), isa
        assert np.abs(g - g_exact).max() <= 200 * eps * size, isa


@pytest.mark.parametrize("isa", _core.isa_names())
@pytest.mark.parametrize("d", [15_003, 66_003, 2048 * 33, 280_003, 420_003])
def test_rows_of_any_length_match_the_reference_on_any_threads(isa, d):
    """From the shortest that share columns; four, two or one go together, in place or copied."""
    rng = np.random.default_rng(d)
    n = 5
    X, y = rng.standard_normal((n, d)), rng.integers(0, 2, n).astype(float)
    w = rng.standard_normal(d) / np.sqrt(d)
    value, grad = reference.value_and_grad(X, y, w, loss="logistic")
    results = [
        _core.Problem(X, y, loss="logistic", isa=isa, n_threads=threads).value_and_grad(w)
        for threads in (1, 2, 3, 8, 64)
    ]
    for v, g in results:
        assert v == results[0][0]
        assert np.array_equal(g, results[0][1])
    assert results[0][0] == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(results[0][1], grad, rtol=0, atol=1e-14 * np.abs(X).max())


@pytest.mark.parametrize("isa", _core.isa_names())
def test_rows_too_long_to_be_copied_give_the_same_bits(isa):
    """One thread's share of w, g and a row is past the cache: read where they lie; four copy."""
    rng = np.random.default_rng(5)
    X, w = rng.standard_normal((5, 80_003)), rng.standard_normal(80_003) / 283
    y = np.where(rng.random(5) > 0.5, 1.0, -1.0)
    value, grad = reference.value_and_grad(X, y, w, loss="logistic")
    results = []
    for threads in (1, 4):
        p = _core.Problem(X, y, loss="logistic", n_threads=threads, isa=isa)
        results.append(p.value_and_grad(w))
    assert results[0][0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(results[0][1], grad, rtol=1e-12, atol=1e-14)
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_wide_rows_name_a_nan():
    X = np.ones((5, D), np.float32)
    X[3, 40_000] = np.nan
    with pytest.raises(ValueError, match="row 3, column 40000"):
        _core.Problem(X, np.ones(5), loss="squared").value_and_grad(np.zeros(D))


def test_wide_rows_of_a_wider_matrix_are_read_where_they_lie():
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((9, D + 13), dtype=np.float32)
    view, y, w = whole[::2, 5 : D + 5], np.arange(5.0), rng.standard_normal(D) / D
    results = [
        _core.Problem(X, y, loss="squared", n_threads=2).value_and_grad(w)
        for X in (view, np.ascontiguousarray(view))
    ]
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])
