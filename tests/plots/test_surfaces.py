"""Paths on surfaces: taken by the kernel, drawn where they were."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from nagcore import plots, reference


@pytest.mark.parametrize("name", ["quadratic", "rosenbrock", "beale"])
def test_gradients_are_those_of_the_values(name):
    surface = {"quadratic": plots.quadratic, "rosenbrock": plots.rosenbrock, "beale": plots.beale}[
        name
    ]()
    bare = plots.Surface(surface.value, start=surface.start, limits=surface.limits)
    for point in np.random.default_rng(0).uniform(-2, 2, (20, 2)):
        np.testing.assert_allclose(surface.slope(*point), bare.slope(*point), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(surface.slope(*surface.minimum), 0, atol=1e-12)
    assert surface.value(*surface.minimum) == pytest.approx(0, abs=1e-24)


def by_hand(surface, lr, momentum, nesterov, steps):
    """torch's update, written out."""
    theta, b, path = np.array(surface.start, float), np.zeros(2), [surface.start]
    for t in range(steps):
        g = surface.slope(*theta)
        b = g if t == 0 else momentum * b + g
        theta = theta - lr * (g + momentum * b if nesterov else (b if momentum else g))
        path.append(tuple(theta))
    return np.array(path)


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True), (0.5, True)]
)
def test_descend_takes_the_steps_of_the_update(momentum, nesterov):
    surface = plots.beale()
    path = plots.descend(surface, lr=1e-3, momentum=momentum, nesterov=nesterov, steps=30)
    want = by_hand(surface, 1e-3, momentum, nesterov, 30)
    np.testing.assert_allclose(path, want, rtol=1e-10)
    assert path.shape == (31, 2)


def test_descend_ends_where_it_leaves_the_finite_numbers():
    path = plots.descend("rosenbrock", lr=1.0, momentum=0.0, nesterov=False, steps=50)
    assert 1 < len(path) < 51
    assert np.isfinite(path).all()


def test_surface_paths_draws_each_method_on_the_map():
    axes = plots.surface_paths("quadratic", steps=25, start=(-5.0, 1.0))
    labels = [line.get_label() for line in axes.lines]
    methods = {
        "gradient descent": (0.0, False), "heavy ball": (0.9, False), "Nesterov": (0.9, True)
    }  # fmt: skip
    for line, (name, (momentum, nesterov)) in zip(axes.lines, methods.items()):
        path = plots.descend("quadratic", momentum=momentum, nesterov=nesterov, steps=25,
                             start=(-5.0, 1.0))  # fmt: skip
        np.testing.assert_array_equal(np.transpose(line.get_data()), path)
        value = plots.quadratic().value(*path[-1])
        assert line.get_label() == f"{name}: f − f* = {value:.1e} after 25 steps"
    assert len(labels) == 3
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert axes.get_xlim() == plots.quadratic().limits[0]
    assert axes.get_title() == "quadratic, condition 25"
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert texts == [*labels, "minimum"]


def test_path_values_are_the_heights_above_the_minimum():
    axes = plots.path_values("beale", steps=40, methods={"mine": {"momentum": 0.8}})
    (line,) = axes.lines
    path = plots.descend("beale", momentum=0.8, steps=40)
    np.testing.assert_allclose(line.get_ydata(), plots.beale().value(*path.T))
    assert line.get_label() == "mine"
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("steps", "f − f*", "log")


def test_a_users_function_is_drawn():
    mine = plots.Surface(
        lambda x, y: np.cosh(x) + y**2, start=(2.0, 1.0), limits=((-3, 3), (-2, 2)), lr=0.05,
        steps=30, name="mine",
    )  # fmt: skip
    axes = plots.surface_paths(mine)
    assert axes.get_title() == "mine"
    path = np.transpose(axes.lines[2].get_data())
    assert mine.value(*path[-1]) < mine.value(*path[0]) / 2
    assert len(axes.get_legend().get_texts()) == 3  # no minimum is known


def test_animation_grows_to_the_still_picture(tmp_path):
    image = pytest.importorskip("PIL.Image")
    figure = plots.animate_paths("quadratic", tmp_path / "a.gif", steps=30, frames=7, fps=5)
    left, right = figure.axes
    path = plots.descend("quadratic", momentum=0.9, nesterov=True, steps=30)
    np.testing.assert_array_equal(np.transpose(left.lines[2].get_data()), path)
    np.testing.assert_allclose(right.lines[2].get_ydata(), plots.quadratic().value(*path.T))
    assert right.get_xlim() == (0, 30)
    with image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 7
        stills, lengths = [], []
        for frame in range(7):
            film.seek(frame)
            lengths.append(film.info["duration"])
            stills.append(np.asarray(film.convert("RGB"), int))
    assert lengths == [200] * 6 + [1500]
    assert all((a != b).any() for a, b in itertools.pairwise(stills))
    for colour in ([0, 0x72, 0xB2], [0xD5, 0x5E, 0], [0, 0x9E, 0x73]):  # exactly, in a GIF, too
        early, late = ((still == colour).all(axis=-1).sum() for still in (stills[1], stills[-1]))
        assert late > early > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.surface_paths("hill"), "surface is 'hill'; there are 'quadratic'"),
        (lambda: plots.descend("beale", steps=0), "steps is 0"),
        (lambda: plots.descend("beale", start=(1, np.nan)), "start is"),
        (lambda: plots.descend("beale", lr=-1.0), "lr"),
        (lambda: plots.quadratic(0.5), "condition is 0.5"),
        (lambda: plots.surface_paths("beale", methods={}), "methods is empty"),
        (lambda: plots.Surface(lambda x, y: x, limits=((1, 0), (0, 1))), "limits are"),
        (lambda: plots.surface_paths(plots.Surface(lambda x, y: 1.0)), "works elementwise"),
        (lambda: plots.surface_paths(plots.Surface(lambda x, y: 0 * x)), "level within"),
        (lambda: plots.surface_paths(plots.Surface(lambda x, y: x * np.nan)), "finite nowhere"),
        (lambda: plots.animate_paths("beale", "a.png"), "does not end in .gif"),
        (lambda: plots.animate_paths("beale", "a.gif", frames=1), "frames is 1"),
    ],
)
def test_surfaces_refuse(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_a_surface_is_a_callable():
    with pytest.raises(TypeError, match="a surface is a callable"):
        plots.Surface(3)


def test_paths_follow_the_reference_update():
    """The oracle's update, not the module's own formula."""
    surface = plots.rosenbrock()
    theta, buffer = [np.array(surface.start)], [np.zeros(2)]
    for t in range(12):
        out = reference.nesterov_step(
            theta, [surface.slope(*theta[0])], buffer, lr=4e-4, momentum=0.9, first_step=t == 0
        )
        theta, buffer = out.params, out.buffers
    path = plots.descend(surface, lr=4e-4, steps=12)
    np.testing.assert_allclose(path[-1], theta[0], rtol=1e-10)
