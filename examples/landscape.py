"""Watching Nesterov train: moving paths on a surface, and the loss round a network with its path.

Writes two files: a GIF of gradient descent, heavy ball and Nesterov on Rosenbrock's valley, and a
page with the loss landscape of a small network, written in NumPy, that learns two spirals.

    python examples/landscape.py --out landscape.png
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

import nagcore
from nagcore import plots


def spirals(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two spirals in the plane; y tells which."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    angle = 2.2 * np.pi * np.sqrt(rng.random(n))
    point = np.stack([np.cos(angle + np.pi * y), np.sin(angle + np.pi * y)], axis=1)
    X = point * angle[:, None] / 7 + 0.03 * rng.standard_normal((n, 2))
    return X.astype(np.float32), y.astype(np.float32)


class Network:
    """tanh layers and a logit; parameters are W, b, W, b, …"""

    def __init__(self, widths: tuple[int, ...], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.params: list[np.ndarray] = []
        for a, b in itertools.pairwise(widths):
            W = rng.standard_normal((a, b)) * np.sqrt(2 / a)
            self.params += [W.astype(np.float32), np.zeros(b, np.float32)]
        self.grads = [np.empty_like(p) for p in self.params]

    def layers(self, X: np.ndarray) -> list[np.ndarray]:
        """The activations; the last are the logits."""
        out, last = [X], len(self.params) - 2
        for i in range(0, last + 1, 2):
            z = out[-1] @ self.params[i] + self.params[i + 1]
            out.append(z if i == last else np.tanh(z))
        return out

    def loss(self, X: np.ndarray, y: np.ndarray) -> float:
        """The mean logistic loss."""
        z = self.layers(X)[-1][:, 0]
        return float(np.mean(np.logaddexp(0, z) - y * z))

    def gradients(self, X: np.ndarray, y: np.ndarray) -> None:
        """Backpropagation, into `grads`."""
        layers = self.layers(X)
        p = 1 / (1 + np.exp(-layers[-1][:, 0]))
        delta = ((p - y) / len(y))[:, None].astype(np.float32)
        for i in range(len(self.params) - 2, -1, -2):
            below = layers[i // 2]
            self.grads[i][...] = below.T @ delta
            self.grads[i + 1][...] = delta.sum(axis=0)
            delta = (delta @ self.params[i].T) * (1 - below**2)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The class of each point."""
        return (self.layers(X.astype(np.float32))[-1][:, 0] > 0).astype(int)


def train(X, y, steps: int, momentum: float, nesterov: bool) -> tuple[Network, list]:
    """A network and its weights at 25 moments of its training."""
    network = Network((2, 24, 24, 1))
    buffers = [np.zeros_like(p) for p in network.params]
    plan = nagcore.NesterovPlan(network.params, network.grads, buffers)
    path = [plots.snapshot(network.params)]
    for t in range(steps):
        network.gradients(X, y)
        plan.step(lr=0.05, momentum=momentum, nesterov=nesterov, first_step=t == 0)
        if (t + 1) % (steps // 24) == 0:
            path.append(plots.snapshot(network.params))
    return network, path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps, coarse planes")
    parser.add_argument("--out", type=Path, default=Path("landscape.png"), help="the picture")
    parser.add_argument("--gif", type=Path, default=None, help="default: as --out, but .gif")
    arguments = parser.parse_args()
    plots.check_path(arguments.out)
    steps, n = (240, 9) if arguments.quick else (4_800, 31)

    gif = arguments.gif or arguments.out.with_suffix(".gif")
    plots.animate_paths(
        "rosenbrock", gif, frames=10 if arguments.quick else 60,
        title="Gradient descent, heavy ball, Nesterov: the same steps on Rosenbrock's valley",
    )  # fmt: skip
    print(f"animation written to {gif}")

    X, y = spirals(1_000, seed=0)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 7.6), dpi=95, layout="constrained")
    grid = figure.subplots(2, 2)
    final = {}
    methods = {"gradient descent": (0.0, False), "Nesterov, momentum 0.9": (0.9, True)}
    for axes, (name, (momentum, nesterov)) in zip(grid[0], methods.items()):
        network, path = train(X, y, steps, momentum, nesterov)
        final[name] = network

        def loss(network=network):
            return network.loss(X, y)

        plane = plots.landscape(network.params, loss, snapshots=path, n=n)
        plots.draw_landscape(plane, ax=axes, title=f"{name}: loss {loss():.3f}", log=False)
        print(f"{name}: loss {loss():.4f} after {steps} steps, accuracy "
              f"{np.mean(network.predict(X) == y):.4f}; the plane holds "
              f"{sum(plane.explained):.0%} of the path")  # fmt: skip
    network = final["Nesterov, momentum 0.9"]
    plane = plots.landscape(network.params, lambda: network.loss(X, y), n=n, extent=0.6)
    plots.draw_landscape(plane, ax=grid[1, 0], title="round Nesterov's network")
    T, t = spirals(500, seed=1)
    plots.decision_boundary(network, T, t.astype(int), ax=grid[1, 1])
    for axes in grid.flat:
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
        if axes.get_legend() is not None:
            for text in axes.get_legend().get_texts():
                text.set_fontsize(8)
    figure.savefig(arguments.out, facecolor="white")
    print(f"picture written to {arguments.out}")
    print(f"test accuracy {np.mean(network.predict(T) == t):.4f}")


if __name__ == "__main__":
    main()
