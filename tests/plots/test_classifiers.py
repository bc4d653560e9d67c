"""Decision boundaries, confusions, weight images, image grids: what stands where."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from nagcore import plots


class Halves:
    """Class 1 right of zero."""

    def predict(self, points):
        return (points[:, 0] > 0).astype(int)


def test_decision_boundary_draws_regions_points_and_errors():
    X = np.array([[-1.0, 0], [-2, 1], [1, 0], [2, 2], [-0.5, 2]])
    y = np.array([0, 0, 1, 1, 1])
    axes = plots.decision_boundary(Halves(), X, y, labels=("width (cm)", "height (cm)"))
    assert axes.get_title() == "80.0 % of 5 points right"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("width (cm)", "height (cm)")
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert texts == ["class 0", "class 1", "misclassified"]
    points = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections
              if not c.get_label().startswith("_")}  # fmt: skip
    np.testing.assert_array_equal(points["class 0"], X[y == 0])
    np.testing.assert_array_equal(points["class 1"], X[y == 1])
    np.testing.assert_array_equal(points["misclassified"], X[4:])
    (low, high) = axes.get_xlim()
    assert low < -2
    assert high > 2
    # The boundary stands at zero.
    boundary = [c for c in axes.collections if hasattr(c, "levels") and list(c.levels) == [0.5]]
    vertices = np.concatenate([path.vertices for path in boundary[0].get_paths()])
    assert np.abs(vertices[:, 0]).max() < 0.02


def test_decision_boundary_of_three_named_classes():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    names = np.array(["left", "middle", "right"])

    def ask(points):
        return names[np.digitize(points[:, 0], [-0.5, 0.5])]

    axes = plots.decision_boundary(ask, X, ask(X))
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert texts == ["class left", "class middle", "class right"]
    assert axes.get_title() == "100.0 % of 60 points right"


def test_confusion_matrix_counts():
    true = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    given = [0, 0, 1, 1, 1, 0, 2, 2, 2]
    axes = plots.confusion_matrix(true, given, classes=["cat", "dog", "owl"])
    want = np.array([[2, 1, 0], [0, 2, 0], [1, 0, 3]])
    np.testing.assert_allclose(
        axes.images[0].get_array(), want / want.sum(axis=1, keepdims=True)
    )
    texts = {t.get_position(): t.get_text() for t in axes.texts}
    assert texts == {(j, i): str(want[i, j]) for i in range(3) for j in range(3) if want[i, j]}
    assert [t.get_text() for t in axes.get_xticklabels()] == ["cat", "dog", "owl"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert axes.get_title() == "accuracy 77.78 %, 9 rows"


def test_confusion_matrix_of_strings_and_of_a_class_that_is_never_seen():
    axes = plots.confusion_matrix(np.array(["b", "a"]), np.array(["b", "b"]), classes=["b", "a", "c"])
    np.testing.assert_allclose(axes.images[0].get_array(), [[1, 0, 0], [1, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("layout", ["rows", "columns", "one"])
def test_weight_images_are_the_coefficients(layout):
    coef = np.random.default_rng(0).standard_normal((1 if layout == "one" else 3, 6))
    given = {"rows": coef, "columns": coef.T, "one": coef[0]}[layout]
    figure = plots.weight_images(given, (2, 3), classes=["x", "y", "z"][: len(coef)])
    images = [axes.images[0] for axes in figure.axes if axes.images]
    most = np.abs(coef).max()
    for image, row in zip(images, coef):
        np.testing.assert_array_equal(image.get_array(), row.reshape(2, 3))
        assert image.get_clim() == (-most, most)  # zero is the middle colour
    assert len(images) == len(coef)
    assert [a.get_title() for a in figure.axes[: len(coef)]] == ["x", "y", "z"][: len(coef)]
    assert "per unit of pixel" in figure.axes[-1].get_ylabel()


def test_weight_images_sum_channels():
    coef = np.arange(12.0).reshape(1, 12)
    figure = plots.weight_images(coef, (2, 2, 3))
    want = coef.reshape(2, 2, 3).sum(axis=-1)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), want)


def test_image_grid_shows_each_image_with_its_caption():
    images = np.random.default_rng(0).random((7, 4, 5))
    figure = plots.image_grid(images, list("abcdefg"), columns=3, title="seven")
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == list("abcdefg")
    for axes, image in zip(shown, images):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
    assert len(figure.axes) == 9
    bytes_ = plots.image_grid(np.full((1, 2, 2), 7, np.uint8)).axes[0].images[0]
    assert bytes_.get_clim() == (0, 255)  # a picture of one grey is shown as that grey


X2, Y2 = np.zeros((3, 2)), np.zeros(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.decision_boundary(Halves(), np.ones((3, 3)), Y2), ValueError, r"X has shape"),
        (lambda: plots.decision_boundary(Halves(), X2, np.zeros(2)), ValueError, "y has shape"),
        (lambda: plots.decision_boundary(Halves(), X2 * np.nan, Y2), ValueError, "NaN or infinity"),
        (lambda: plots.decision_boundary(3, X2, Y2), TypeError, "model is int"),
        (lambda: plots.decision_boundary(lambda p: p, X2, Y2), ValueError, "one label a point"),
        (lambda: plots.confusion_matrix([1], [1, 2]), ValueError, r"both are \(n,\)"),
        (lambda: plots.confusion_matrix([], []), ValueError, r"n ≥ 1"),
        (lambda: plots.confusion_matrix([0, 5], [0, 0], classes=["a"]), ValueError, "classes name"),
        (lambda: plots.weight_images(np.ones((3, 5)), (2, 2)), ValueError, "has 4 pixels"),
        (lambda: plots.weight_images(np.ones((3, 4)), (2, 2), classes=["a"]), ValueError, "1 classes"),
        (lambda: plots.image_grid(np.ones((4, 4))), ValueError, "images have shape"),
        (lambda: plots.image_grid(np.ones((2, 4, 4)), ["a"]), ValueError, "1 captions"),
    ],
)
def test_classifiers_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
