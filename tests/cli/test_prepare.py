"""Targets, hold-out and feature scales: the same fit without touching X."""

from __future__ import annotations

import numpy as np
import pytest

from nagcore import _core
from nagcore.cli import prepare
from nagcore.cli.scaled import ScaledProblem


@pytest.mark.parametrize(
    ("y", "classes", "loss"),
    [
        (np.array([0.0, 1.0] * 9), None, "logistic"),
        (np.array([-1, 1] * 9), None, "logistic"),
        (np.arange(40) % 4, None, "softmax"),
        (np.arange(40.0), None, "squared"),
        (np.linspace(0, 1, 40), None, "squared"),
        (np.array([1.0, np.nan]), None, "squared"),
        (np.arange(4) % 2, np.array(["a", "b"]), "logistic"),
        (np.arange(3), np.array(["a", "b", "c"]), "softmax"),
    ],
)
def test_loss_is_guessed_from_the_target(y, classes, loss):
    assert prepare.choose_loss(y, classes)[0] == loss


def test_encode_numbers_classes_in_order():
    y, classes = prepare.encode(np.array([7.0, 3.0, 7.0, 5.0]), None, "softmax", "t")
    assert classes.tolist() == [3, 5, 7]
    assert classes.dtype == np.int64
    np.testing.assert_array_equal(classes[y], [7, 3, 7, 5])


@pytest.mark.parametrize(
    ("y", "classes", "loss", "message"),
    [
        (
            np.array([0, 1]),
            np.array(["a", "b"]),
            "squared",
            "holds text.*--loss logistic or softmax",
        ),
        (np.array([0.0, 0.0]), None, "logistic", "has 1 class"),
        (np.array([0, 1, 2]), None, "logistic", "has 3 classes and loss logistic takes two"),
        (np.array([0.0, np.nan]), None, "softmax", "holds nan in row 1"),
        (np.linspace(0, 1, 3000), None, "softmax", "too many for classes"),
    ],
)
def test_encode_refuses(y, classes, loss, message):
    with pytest.raises(ValueError, match=message):
        prepare.encode(y, classes, loss, "t")


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.33, 0.5, 0.9])
def test_hold_out_is_in_proportion_and_repeatable(fraction):
    y = np.repeat([0, 1, 2], [600, 300, 100])
    test = prepare.hold_out(y, True, fraction, seed=3)
    np.testing.assert_array_equal(test, prepare.hold_out(y, True, fraction, seed=3))
    assert (test != prepare.hold_out(y, True, fraction, seed=4)).any()
    assert test.sum() == round(1000 * fraction)
    for label, count in ((0, 600), (1, 300), (2, 100)):
        assert abs(test[y == label].sum() - count * fraction) <= 1.01


def test_hold_out_bounds():
    assert prepare.hold_out(np.arange(50), False, 0.0, 0) is None
    assert prepare.hold_out(np.arange(9), False, 0.5, 0) is None
    for fraction in (-0.1, 1.0, 30):
        with pytest.raises(ValueError, match="give a part of the rows"):
            prepare.hold_out(np.arange(50), False, fraction, 0)


def test_large_training_data_is_not_copied(monkeypatch, tmp_path):
    X, y = np.ones((40, 3)), np.arange(40)
    test = np.arange(40) % 5 == 0
    part, _, weights = prepare.train_part(X, y, test)
    assert part.shape == (32, 3)
    assert weights is None
    monkeypatch.setattr(prepare, "COPY_LIMIT", 100)
    part, targets, weights = prepare.train_part(X, y, test)
    assert part is X
    assert targets is y
    np.testing.assert_array_equal(weights, ~test)
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(prepare, "COPY_LIMIT", 1 << 30)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert prepare.train_part(mapped, y, test)[0] is mapped


def _data(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(301, 5)) * [1, 1e3, 1e-3, 5, 0] + [0, 1e4, 0, -7, 3]
    if dtype == "uint8":
        X = rng.integers(0, 256, (301, 5))
    return np.ascontiguousarray(X.astype(dtype))


@pytest.mark.parametrize("block_bytes", [1 << 23, 800])
@pytest.mark.parametrize("some", [False, True])
def test_standard_scales_are_means_and_deviations(monkeypatch, block_bytes, some):
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr(prepare, "_BLOCK_BYTES", block_bytes)
    X = _data()
    rows = np.random.default_rng(1).random(301) < 0.5 if some else None
    part = X if rows is None else X[rows]
    deviation = part.std(axis=0)
    deviation[4] = 1  # the constant column
    for A in (X, sparse.csr_matrix(X), np.asfortranarray(X)):
        scales = prepare.feature_scales(A, "standard", rows, True)
        np.testing.assert_allclose(scales.mean, part.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(scales.size, deviation, rtol=1e-10)
    scales = prepare.feature_scales(X, "standard", rows, False)
    assert not scales.mean.any()
    np.testing.assert_allclose(scales.size, np.sqrt((part**2).mean(axis=0)), rtol=1e-10)


def test_moments_keep_their_digits_after_a_jump(monkeypatch):
    """A file sorted by a column: blocks of it lie far apart, and the deviation is small in each."""
    monkeypatch.setattr(prepare, "_BLOCK_BYTES", 8 * 2 * 50)
    rng = np.random.default_rng(0)
    X = np.stack([rng.normal(size=400), rng.normal(size=400)], axis=1)
    X[200:, 1] += 1e9
    X[:50, 0] = 7  # and a block in which a column is constant
    scales = prepare.feature_scales(X, "standard", None, True)
    np.testing.assert_allclose(scales.mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scales.size, X.std(axis=0), rtol=1e-9)
    few = prepare.feature_scales(X, "standard", np.arange(400) >= 200, True)
    np.testing.assert_allclose(few.size, X[200:].std(axis=0), rtol=1e-6)


def test_scales_auto_and_range():
    sparse = pytest.importorskip("scipy.sparse")
    X = _data()
    assert prepare.feature_scales(X, "auto", None, True).kind == "standard"
    assert prepare.feature_scales(sparse.csr_matrix(X), "auto", None, True).kind == "none"
    pictures = prepare.feature_scales(_data("uint8"), "auto", None, True)
    assert pictures.kind == "range"
    assert set(pictures.size) == {255.0}
    assert set(prepare.feature_scales(X, "range", None, True).size) == {np.abs(X).max()}
    with pytest.raises(ValueError, match="choose from auto, standard, range, none"):
        prepare.feature_scales(X, "z", None, True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize("kind", ["standard", "range"])
def test_scales_name_the_bad_cell(bad, as_sparse, kind):
    sparse = pytest.importorskip("scipy.sparse")
    X = _data()
    X[17, 3] = bad
    with pytest.raises(ValueError, match=f"X holds {bad} in row 17, column 3"):
        prepare.feature_scales(sparse.csr_matrix(X) if as_sparse else X, kind, None, True)


@pytest.mark.parametrize("loss", ["logistic", "squared", "softmax"])
@pytest.mark.parametrize("intercept", [True, False])
def test_scaled_problem_is_the_problem_on_scaled_data(loss, intercept):
    """Value, gradient, margins and Xᵀv on X through the scales equal those on scaled copies."""
    X, rng = _data(), np.random.default_rng(2)
    y = rng.integers(0, 3, 301) if loss == "softmax" else rng.integers(0, 2, 301)
    weights = rng.integers(0, 3, 301).astype(float)
    scales = prepare.feature_scales(X, "standard", None, intercept)
    how = {"loss": loss, "sample_weight": weights, "fit_intercept": intercept}
    scaled = ScaledProblem(_core.Problem(X, y, **how), scales)
    copied = _core.Problem((X - scales.mean) / scales.size, y, **how)
    shape = (scaled.p,) if scaled.k == 1 else (scaled.p, scaled.k)
    u = rng.normal(size=shape)
    (value, grad), (value_of_copy, grad_of_copy) = (p.value_and_grad(u) for p in (scaled, copied))
    assert value == pytest.approx(value_of_copy, rel=1e-11)
    np.testing.assert_allclose(grad, grad_of_copy, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(scaled.margins(u), copied.margins(u), rtol=1e-9, atol=1e-9)
    v = rng.normal(size=scaled.margins(u).shape)
    np.testing.assert_allclose(scaled.rmatvec(v), copied.rmatvec(v), rtol=1e-8, atol=1e-9)
