"""Coordinate descent for a quadratic plus l1: optimality, layouts, bounds, free columns, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from nagcore import _core

BOXES = {
    "none": (None, None), "w >= 0": (0.0, None), "w <= 1": (None, 1.0), "about zero": (-0.2, 0.1),
    "beside zero": (0.1, 0.4),
    "one side of some": (np.array([-np.inf, 0.0, 0.3]), np.array([0.2, np.inf, 0.3])),
}  # fmt: skip


def ends(box, p):
    """Both bounds as the core takes them: p numbers, or None."""
    return tuple(None if end is None else np.resize(np.asarray(end, float), p) for end in BOXES[box])


def violations(q, w, l1, lower=None, upper=None):
    """The step that proximal descent would take from w: zero at the minimum, and only there."""
    lower = -np.inf if lower is None else lower
    upper = np.inf if upper is None else upper
    h = w - q
    return np.abs(w - np.clip(np.sign(h) * np.maximum(np.abs(h) - l1, 0), lower, upper))


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("l1", [0.02, 0.0])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(40, 12), (15, 60), (2, 3), (33, 1)])
def test_ends_at_the_minimum_in_both_layouts(shape, l2, intercept, l1, box):
    rng = np.random.default_rng(0)
    n, p = shape
    A = rng.normal(size=(p, n)) * (rng.random((p, n)) < 0.6)
    A += 0.5 * np.roll(A, 1, 0)
    v, target = rng.exponential(size=n) / n, rng.normal(size=n)
    w0 = np.where(rng.random(p) < 0.5, np.abs(rng.normal(size=p)), 0.0)
    lower, upper = ends(box, p)
    w0 = np.clip(w0, -np.inf if lower is None else lower, np.inf if upper is None else upper)
    g = A @ (v * (target + A.T @ w0)) + l2 * w0
    slope_b = float(v @ (target + A.T @ w0)) if intercept else None
    how = (v, g, w0, l1, l2, slope_b, lower, upper, 1e-11)
    dense, b, t, left = _core.minimise_on_columns(A, None, None, *how)
    csc = sp.csr_matrix(A)
    arrays = csc.data, csc.indices.astype(np.int32), csc.indptr.astype(np.int64)
    sparse, b_sparse, t_sparse, _ = _core.minimise_on_columns(*arrays, *how)
    for w, change, margins in ((dense, b, t), (sparse, b_sparse, t_sparse)):
        np.testing.assert_allclose(margins, A.T @ (w - w0) + change, atol=1e-12)
        q = g + A @ (v * margins) + l2 * (w - w0)
        assert violations(q, w, l1, lower, upper).max() <= 1e-9
        assert lower is None or (w >= lower).all()
        assert upper is None or (w <= upper).all()
        if intercept:
            assert abs(slope_b + v @ margins) <= 1e-12
        else:
            assert change == 0
    assert left <= 1e-11


def test_columns_far_from_zero_are_centred():
    """Sweeps over the columns as they are would take thousands of rounds."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(30, 200)) + 1000 * rng.normal(size=(30, 1))
    v, target = np.full(200, 1 / 200), rng.normal(size=200) + 5
    g, slope_b = -A @ (v * target), -float(v @ target)
    how = (v, g, np.zeros(30), 1e-3, 0.0, slope_b, None, None, 1e-7, 30)
    _, _, t, left = _core.minimise_on_columns(A, None, None, *how)
    assert left <= 1e-7
    assert abs((t - target).mean()) <= 1e-9


def test_collinear_columns_take_few_rounds():
    """On the support conjugate gradients go where sweeps would crawl."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(40, 300)) + 30 * rng.normal(size=300)
    v = np.full(300, 1 / 300)
    g = -A @ (v * (A.T @ rng.normal(size=40)))
    how = (v, g, np.zeros(40), 1e-3, 0.0, None, None, None, 1e-6, 60)
    _, _, _, left = _core.minimise_on_columns(A, None, None, *how)
    assert left <= 1e-6


@pytest.mark.parametrize("box", BOXES)
def test_sweeps_on_a_gram_matrix_go_downhill_and_keep_the_gradient(box):
    lower, upper = ends(box, 8)
    rng = np.random.default_rng(0)
    A = rng.normal(size=(50, 8))
    C, g = A.T @ A, rng.normal(size=8) * 20
    w = np.clip(np.zeros(8), -np.inf if lower is None else lower, np.inf if upper is None else upper)
    q = g + C @ w
    values = []
    for _ in range(60):
        values.append(g @ w + 0.5 * w @ C @ w + 5 * np.abs(w).sum())
        left = _core.sweep_on_gram_(C, q, w, 5.0, 1e-9, 1, lower, upper)
        np.testing.assert_allclose(q, g + C @ w, atol=1e-9)
    assert left <= 1e-9
    assert (np.diff(values) <= 1e-12).all()
    assert violations(q, w, 5.0, lower, upper).max() <= 1e-8


@pytest.mark.parametrize(("change", "words"), [
    ({"values": np.ones((2, 3), np.float32)}, "float64"), ({"values": np.ones((2, 4))}, "shape"),
    ({"v": -np.ones(3)}, "numbers >= 0"), ({"l1": -1.0}, "l1, l2 and accuracy"),
    ({"slope_b": np.inf}, "slope_b"), ({"g": np.ones(3)}, "g"), ({"w": np.array([np.nan, 0.0])}, "w"),
    ({"lower": np.ones(2, np.float32)}, "lower"), ({"upper": np.ones(3)}, "upper has shape"),
    ({"lower": np.array([0.0, np.nan])}, "at 1"), ({"lower": np.ones(2), "upper": np.zeros(2)}, "at 0"),
    ({"upper": np.full(2, -np.inf)}, "-inf and inf for no bound"),
])  # fmt: skip
def test_bad_arguments_are_one_clear_error(change, words):
    how = {"values": np.ones((2, 3)), "rows": None, "starts": None, "v": np.ones(3), "g": np.ones(2),
           "w": np.zeros(2), "l1": 1.0, "l2": 0.0}
    with pytest.raises((ValueError, TypeError), match=words):
        _core.minimise_on_columns(**how | change)


@pytest.mark.parametrize(("rows", "starts", "words"), [
    ([0, 5], [0, 1, 2], "rows holds 5"), ([0, 1], [0, 2, 1], "starts"), ([0, 1], [1, 1, 2], "starts"),
    ([0], [0, 1, 2], "rows must have"),
])  # fmt: skip
def test_entries_outside_are_refused(rows, starts, words):
    with pytest.raises(ValueError, match=words):
        _core.minimise_on_columns(np.ones(2), np.array(rows, np.int32), np.array(starts, np.int64),
                                  np.ones(3), np.ones(2), np.zeros(2), 1.0, 0.0)
    w = np.zeros(2)
    with pytest.raises(ValueError, match="overlap"):
        _core.sweep_on_gram_(np.eye(2), w, w, 1.0, 0.0, 1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (300, 500)])
def test_products_and_sums_of_columns(shape):
    rng = np.random.default_rng(0)
    p, n = shape
    A = rng.normal(size=shape) * (rng.random(shape) < 0.6)
    csc = sp.csr_matrix(A)
    arrays = csc.data, csc.indices.astype(np.int32), csc.indptr.astype(np.int64)
    r, c, t = rng.normal(size=n), rng.normal(size=p) * (rng.random(p) < 0.5), rng.normal(size=n)
    for columns in ((A, None, None), arrays):
        seen = {threads: _core.column_products(*columns, r, threads) for threads in (1, 2, 3)}
        np.testing.assert_allclose(seen[1], A @ r, atol=1e-12)
        assert all((found == seen[1]).all() for found in seen.values())
        to = t.copy()
        _core.add_columns_(*columns, c, to)
        np.testing.assert_allclose(to, t + A.T @ c, atol=1e-12)


def test_columns_and_vectors_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="values has shape"):
        _core.column_products(np.ones((2, 3)), None, None, np.ones(4))
    with pytest.raises(ValueError, match="c has shape"):
        _core.add_columns_(np.ones((2, 3)), None, None, np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="rows holds 3"):
        _core.column_products(np.ones(1), np.array([3], np.int32), np.array([0, 1]), np.ones(3))
