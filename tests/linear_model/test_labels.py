"""Labels become class numbers as numpy.unique makes them, whatever way they take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nagcore import _core
from nagcore.linear_model import LogisticRegression, RidgeClassifier
from nagcore.linear_model._labels import checked, encode, signs

CASES = {
    "int": np.array([3, -2, 3, 7]), "int8": np.array([-128, 127, 0], np.int8),
    "far apart": np.array([0, 10**12, 5]), "uint64": np.array([2**64 - 1, 2**64 - 2], np.uint64),
    "least": np.array([-(2**63), -(2**63) + 1]), "bool": np.array([True, False, True]),
    "one": np.array([4, 4]), "one bool": np.array([True]), "two floats": np.array([-1.0, 1.0, -1.0]),
    "three floats": np.array([0.0, 2.0, 1.0]), "one float": np.array([2.0]),
    "text": np.array(["b", "a", "b"]),
    "float32": np.array([0, 1, 1], np.float32), "gap": np.array([0, 2, 2], np.uint8),
}


@pytest.mark.parametrize("y", CASES.values(), ids=CASES)
def test_encode_is_unique_with_its_inverse(y):
    classes, codes = encode(y)
    wanted, inverse = np.unique(y, return_inverse=True)
    np.testing.assert_array_equal(classes, wanted)
    np.testing.assert_array_equal(codes, inverse)
    assert classes.dtype == wanted.dtype
    assert codes.dtype == np.int8


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int32, np.int8, np.uint8])
def test_two_whole_numbers_are_told_in_one_sweep(dtype):
    for n, threads in ((2, None), (17, 2), (10_000, 1), (100_000, 3)):
        for low, high in ((0, 1), (3, 120)):
            y = np.where(np.random.default_rng(n).random(n) < 0.5, low, high).astype(dtype)
            y[:2] = high, low
            classes, codes = _core.class_numbers(y, threads)
            assert classes == [low, high]
            np.testing.assert_array_equal(codes, y == high)
            assert codes.dtype == np.int8
            for at in (0, n // 2, n - 1):  # one more, wherever it is
                other = y.copy()
                other[at] = 2
                wanted, inverse = np.unique(other, return_inverse=True)
                classes, codes = _core.class_numbers(other, threads)
                assert classes == wanted.tolist()
                np.testing.assert_array_equal(codes, inverse)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int32, np.int8, np.uint8])
def test_a_few_whole_numbers_are_told_in_two_sweeps(dtype):
    rng = np.random.default_rng(0)
    for n, threads in ((1, None), (3, 2), (10_000, 1), (100_000, 3)):
        for values in ([5], [0, 1, 2], [0, 3, 127], [7, 8, 9, 11], range(128)):
            y = rng.choice(np.array(values, dtype), n)
            classes, codes = _core.class_numbers(y, threads)
            wanted, inverse = np.unique(y, return_inverse=True)
            assert classes == wanted.tolist()
            np.testing.assert_array_equal(codes, inverse)
            assert codes.dtype == np.int8


@pytest.mark.parametrize(
    "values", [[0, 1, 128], [-(2**63), 0, 2**63 - 1], [2**62, 2**62 + 1, 2**62 + 300]], ids=str)
def test_whole_numbers_far_apart_go_the_long_way(values):
    assert _core.class_numbers(np.array(values)) is None
    np.testing.assert_array_equal(encode(np.array(values))[0], values)


def test_whole_numbers_side_by_side_may_be_large():
    for y in (np.array([2**63 - 1, 2**63 - 2, 2**63 - 4]), np.array([1e17, 1e17 + 16, 1e17 + 64])):
        assert _core.class_numbers(y)[0] == np.unique(y).tolist()


@pytest.mark.parametrize("y", [
    np.array([0.0, np.nan]), np.array([np.nan, 0.0, 1.0]), np.array([0.0, 1.0] * 20 + [np.nan]),
    np.array([0.0, np.inf]), np.array([0.0, 0.5]), np.array([0.0, 1.0] * 20 + [5e-324]), np.zeros(0),
    np.array([-1e308, 1e308, 0.0]), np.array(["a", "b"]), np.array([0.0, 1.0, 2.0, 1.0])[::2],
    np.full(3, np.inf),
    np.array([[0.0, 1.0]]), np.array([0, 1], ">i4"),
], ids=str)  # fmt: skip
def test_what_is_not_a_few_whole_numbers_goes_the_long_way(y):
    assert _core.class_numbers(y) is None


def test_checked_labels_are_encoded_or_refused():
    for y in (np.array([2.0, 5.0, 2.0]), np.array([2, 5, 7]), np.array([True, False]), np.array(["b", "a"])):
        for found, wanted in zip(checked(y), np.unique(y, return_inverse=True), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert checked(y)[0].dtype == y.dtype
    for y in (np.array([0.0, 0.5]), np.array([0.0, 1.0, np.nan])):
        with pytest.raises(ValueError, match=r"continuous|NaN"):
            checked(y)


def test_codes_take_the_least_type_that_holds_them():
    for k, dtype in ((128, np.int8), (129, np.int16), (4000, np.int16), (40_000, np.intp)):
        for y in (np.arange(k)[::-1], 0.5 * np.arange(k)[::-1]):
            codes = encode(y)[1]
            assert codes.dtype == dtype
            np.testing.assert_array_equal(codes, np.arange(k)[::-1])


@given(st.lists(st.integers(-5000, 5000), min_size=1, max_size=50))
def test_encode_of_any_whole_numbers(values):
    for dtype in (np.int64, np.int16, np.float64):
        y = np.array(values, dtype)
        np.testing.assert_array_equal(encode(y)[0], np.unique(y))
        np.testing.assert_array_equal(encode(y)[0][encode(y)[1]], y)


def test_signs_are_one_column_for_two_classes():
    np.testing.assert_array_equal(signs(np.array([0, 1]), 2), [[-1], [1]])
    np.testing.assert_array_equal(signs(np.array([0, 0]), 1), [[-1], [-1]])
    np.testing.assert_array_equal(signs(np.array([2, 0]), 3), [[-1, -1, 1], [1, -1, -1]])


@pytest.mark.parametrize("estimator", [LogisticRegression, RidgeClassifier])
def test_float_labels_are_classes_only_if_whole(estimator):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 3
    model = estimator().fit(X, y.astype(float))
    np.testing.assert_array_equal(model.classes_, [0.0, 1.0, 2.0])
    assert model.predict(X).dtype == np.float64
    np.testing.assert_allclose(model.coef_, estimator().fit(X, y).coef_)
    for bad in (y + 0.5, np.where(y, np.nan, 1.0), np.where(y, np.inf, 1.0)):
        with pytest.raises(ValueError, match=r"Unknown label type|NaN|infinity"):
            estimator().fit(X, bad)
