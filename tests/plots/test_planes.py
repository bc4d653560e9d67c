"""Loss landscapes: filter normalisation and projection against their formulas, models put back."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from nagcore import plots
from nagcore._extras import child_environment

SHAPES = [(4, 3, 2, 2), (4,), (5, 16), (5,)]


def weights(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal(shape) for shape in SHAPES]


@pytest.mark.parametrize("axis", [0, -1])
def test_filter_normalisation_is_the_formula(axis):
    theta, d = weights(0, 3.0), weights(1)
    out = plots.filter_normalised(d, theta, axis)
    for given, w, got in zip(d, theta, out):
        if given.ndim == 1:
            np.testing.assert_array_equal(got, 0)
            continue
        for j in range(given.shape[axis]):
            a, b = (np.take(m, j, axis=axis) for m in (given, w))
            want = a / np.linalg.norm(a) * np.linalg.norm(b)
            np.testing.assert_allclose(np.take(got, j, axis=axis), want, rtol=1e-12)


def test_filter_normalisation_keeps_what_a_rescaled_network_computes_comparable():
    """Scaling a filter scales its direction: the reason for which the paper normalises."""
    theta, d = weights(0), weights(1)
    scaled = [w.copy() for w in theta]
    scaled[2][3] *= 7
    one, two = plots.filter_normalised(d, theta), plots.filter_normalised(d, scaled)
    np.testing.assert_allclose(two[2][3], 7 * one[2][3])
    np.testing.assert_allclose(np.delete(two[2], 3, axis=0), np.delete(one[2], 3, axis=0))


def test_filters_of_zeros_get_no_direction():
    theta, d = [np.zeros((2, 3))], [np.ones((2, 3))]
    np.testing.assert_array_equal(plots.filter_normalised(d, theta)[0], 0)
    np.testing.assert_array_equal(plots.filter_normalised(theta, d)[0], 0)


def test_random_directions_have_the_filters_norms_and_differ():
    theta = weights()
    one, two = plots.random_directions(theta, seed=5)
    for d in (one, two):
        np.testing.assert_allclose(np.linalg.norm(d[2], axis=1), np.linalg.norm(theta[2], axis=1))
    assert (one[2] != two[2]).all()
    again, _ = plots.random_directions(theta, seed=5)
    np.testing.assert_array_equal(one[0], again[0])
    other, _ = plots.random_directions(theta, seed=6)
    assert (one[0] != other[0]).any()


def flat(tensors):
    return np.concatenate([t.ravel() for t in tensors])


def test_projection_is_the_singular_value_decomposition():
    snapshots = [weights(seed) for seed in range(7)]
    got = plots.project_path(snapshots)
    rows = np.stack([flat(w) for w in snapshots])
    rows -= rows[-1]
    _, sizes, vectors = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    for i in range(2):
        d = flat(got.directions[i])
        assert abs(d @ vectors[i]) == pytest.approx(1, abs=1e-10)
        np.testing.assert_allclose(got.path[:, i], rows @ d, atol=1e-10)
    np.testing.assert_allclose(got.explained, sizes[:2] ** 2 / np.sum(sizes**2), rtol=1e-10)
    np.testing.assert_array_equal(got.path[-1], 0)
    assert flat(got.directions[0]) @ flat(got.directions[1]) == pytest.approx(0, abs=1e-12)


def test_projection_recovers_a_path_in_a_plane():
    u, v = flat(weights(1)), flat(weights(2))
    u /= np.linalg.norm(u)
    v -= u * (u @ v)
    v /= np.linalg.norm(v)
    t = np.linspace(0, 2, 9)
    coordinates = np.stack([3 * t, np.sin(3 * t)], axis=1)
    snapshots = [[flat(weights()) + a * u + b * v] for a, b in coordinates]
    got = plots.project_path(snapshots)
    assert sum(got.explained) == pytest.approx(1)
    distance = np.linalg.norm(got.path[:, None] - got.path[None], axis=-1)
    want = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1)
    np.testing.assert_allclose(distance, want, atol=1e-9)


def test_a_straight_path_gets_a_direction_across():
    got = plots.project_path([[np.array([t, 2 * t, 0.0])] for t in range(4)])
    np.testing.assert_allclose(got.path[:, 1], 0, atol=1e-12)
    assert got.explained[0] == pytest.approx(1)
    assert np.linalg.norm(got.directions[1][0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [
        ([[np.ones(2)], [np.zeros(2)]], "2 snapshots are given"),
        ([[np.ones(2)]] * 3, "path does not move"),
        ([[np.ones(2)], [np.ones(3)], [np.zeros(2)]], "Snapshot 1 is of another model"),
        ([[np.ones(2)], [np.full(2, np.nan)], [np.zeros(2)]], "NaN or infinity"),
    ],
)
def test_projection_refuses(snapshots, message):
    with pytest.raises(ValueError, match=message):
        plots.project_path(snapshots)


def test_landscape_is_the_loss_at_each_point_of_the_plane():
    theta = [w.astype(np.float64) for w in weights()]
    before = [w.copy() for w in theta]
    goal = weights(9)

    def loss():
        return float(sum(np.sum((w - g) ** 2) for w, g in zip(theta, goal)))

    plane = plots.landscape(theta, loss, n=5, extent=0.5, seed=2)
    delta, eta = plots.random_directions(before, axis=-1, seed=2)
    for j, b in enumerate(np.linspace(-0.5, 0.5, 5)):
        for i, a in enumerate(np.linspace(-0.5, 0.5, 5)):
            moved = [w + a * d + b * e for w, d, e in zip(before, delta, eta)]
            want = sum(np.sum((w - g) ** 2) for w, g in zip(moved, goal))
            assert plane.loss[j, i] == pytest.approx(want, rel=1e-12)
    for w, was in zip(theta, before):
        np.testing.assert_array_equal(w, was)


def test_landscape_along_a_path_lies_in_its_plane():
    theta = weights()
    snapshots = [[w * (1 + 0.3 * t) + 0.01 * t * t for w in weights()] for t in range(5)]
    for w, last in zip(theta, snapshots[-1]):
        w[...] = last

    def loss():
        return float(sum(np.sum(w**2) for w in theta))

    plane = plots.landscape(theta, loss, snapshots=snapshots, n=7)
    projection = plots.project_path(snapshots)
    np.testing.assert_array_equal(plane.path, projection.path)
    assert plane.explained == projection.explained
    assert plane.alpha[0] < plane.path[:, 0].min() < plane.path[:, 0].max() < plane.alpha[-1]
    moved = [w + plane.alpha[2] * d + plane.beta[4] * e
             for w, d, e in zip(snapshots[-1], *projection.directions)]  # fmt: skip
    assert plane.loss[4, 2] == pytest.approx(sum(np.sum(w**2) for w in moved))


def test_the_model_is_put_back_after_an_error():
    theta = weights()
    before = [w.copy() for w in theta]

    def loss():
        if not np.array_equal(theta[0], before[0]):
            raise RuntimeError("no more")
        return 1.0

    with pytest.raises(RuntimeError, match="no more"):
        plots.landscape(theta, loss, n=3)
    for w, was in zip(theta, before):
        np.testing.assert_array_equal(w, was)


def test_torch_model_is_measured_and_put_back():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2)
    )
    net[1].eval()  # a mode that differs from the others', as when fine-tuning
    X, y = torch.randn(32, 3), torch.randint(2, (32,))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = []

    def loss():
        modes.append(net.training)
        value = torch.nn.functional.cross_entropy(net(X), y)
        assert not value.requires_grad
        return float(value)

    plane = plots.landscape(net, loss, n=5)
    assert not any(modes)
    assert [m.training for m in net.modules()] == [True, True, False, True, True]
    assert torch.is_grad_enabled()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    net.eval()
    with torch.no_grad():
        assert plane.loss[2, 2] == pytest.approx(loss(), rel=1e-6)
        # torch counts filters along the first axis.
        d = [torch.from_numpy(t).float() for t in plane.directions[0]]
        norms = plane.directions[0][0]
        want = np.linalg.norm(before["0.weight"].numpy(), axis=1)
        np.testing.assert_allclose(np.linalg.norm(norms, axis=1), want, rtol=1e-6)
        for p, step in zip(net.parameters(), d):
            p += plane.alpha[4] * step
        assert plane.loss[2, 4] == pytest.approx(loss(), rel=1e-5)


KERAS = """
import keras, numpy as np
from nagcore import plots
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(2)])
try:
    plots.snapshot(model)
except ValueError as error:
    assert "no trainable weights" in str(error)
else:
    raise AssertionError("not built")
X = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)

def loss():
    return float(np.mean(keras.ops.convert_to_numpy(model(X, training=False)) ** 2))

here = loss()
before = [np.array(w) for w in model.get_weights()]
assert [s.shape for s in plots.snapshot(model)] == [w.shape for w in before]
plane = plots.landscape(model, loss, n=5)
np.testing.assert_allclose(plane.loss[2, 2], here, rtol=1e-6)
assert np.ptp(plane.loss) > 0
for w, was in zip(model.get_weights(), before):
    np.testing.assert_array_equal(w, was)
# keras counts filters along the last axis.
got = np.linalg.norm(plane.directions[0][0], axis=0)
np.testing.assert_allclose(got, np.linalg.norm(before[0], axis=0), rtol=1e-6)
print("measured")
"""


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_keras_model_is_measured_and_put_back(backend):
    """keras' backend is fixed at its first import, so each runs in a process of its own."""
    for module in ("keras", backend):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", KERAS], capture_output=True, text=True, timeout=120,
        env=child_environment(KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3"),
    )  # fmt: skip
    assert done.stdout == "measured\n", done.stderr


def test_drawing_shows_the_plane_the_path_and_the_model():
    theta = weights(0, 0.1)
    snapshots = [[w * (1 + 0.3 * t) for w in weights(0, 0.1)] for t in range(5)]
    plane = plots.landscape(
        theta, lambda: float(sum(np.sum(w**2) for w in theta)), snapshots=snapshots, n=6
    )
    axes = plots.draw_landscape(plane, title="mine")
    np.testing.assert_array_equal(np.transpose(axes.lines[0].get_data()), plane.path)
    assert axes.get_xlabel() == "first principal direction of the path (100% of its variance)"
    assert axes.get_title() == "mine"
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert texts == ["training path", "trained model"]
    assert axes.figure.axes[1].get_ylabel() == "loss"
    np.testing.assert_allclose(axes.get_xlim(), plane.alpha[[0, -1]])
    random = plots.landscape(theta, lambda: float(sum(np.sum(w**2) for w in theta)), n=6)
    axes = plots.draw_landscape(random, colorbar=False)
    assert "random direction" in axes.get_xlabel()
    assert len(axes.figure.axes) == 1


def test_drawing_leaves_out_what_is_not_finite():
    theta = [np.ones((2, 2))]

    def loss():
        return float(np.sum(theta[0] ** 2)) if theta[0][0, 0] > 0.7 else float("nan")

    plane = plots.landscape(theta, loss, n=7)
    assert 0 < np.isnan(plane.loss).sum() < 49
    plots.draw_landscape(plane).figure.canvas.draw()
    with pytest.raises(ValueError, match="finite nowhere"):
        plots.landscape(theta, lambda: float("inf"), n=3)


def test_a_landscape_is_drawn_as_a_solid_on_three_axes():
    from matplotlib.figure import Figure

    theta = [np.ones((2, 2))]
    plane = plots.landscape(theta, lambda: float(np.sum(theta[0] ** 2)) + 1, n=5)
    axes = Figure().add_subplot(projection="3d")
    assert plots.draw_landscape(plane, ax=axes) is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("α", "β")
    assert axes.get_zlabel() in ("loss", "log₁₀ loss")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: plots.landscape(w, lambda: 1.0, n=2), ValueError, "n is 2"),
        (lambda w: plots.landscape(w, lambda: 1.0, extent=0), ValueError, "extent is 0"),
        (lambda w: plots.landscape("net", lambda: 1.0), TypeError, "model is str"),
        (lambda w: plots.landscape([1, 2], lambda: 1.0), TypeError, "model is list"),
        (lambda w: plots.landscape(w, lambda: 1.0, snapshots=[[np.ones(2) * t] for t in range(3)]),
         ValueError, "of another model"),
        (lambda w: plots.landscape(w, lambda: 1.0, snapshots=[]), ValueError, "0 snapshots"),
        (lambda w: plots.draw_landscape(np.ones((2, 2))), TypeError, "plane is ndarray"),
        (lambda w: plots.filter_normalised([np.ones(2)], w), ValueError, "tensor by tensor"),
    ],
)  # fmt: skip
def test_landscapes_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call(weights())
