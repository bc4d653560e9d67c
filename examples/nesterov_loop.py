"""A small network in NumPy, trained with the fused Nesterov update: a plan, stepped in a loop.

python examples/nesterov_loop.py
"""

import argparse
import itertools

import numpy as np

import nagcore


def spirals(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two spirals in the plane; y tells which."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    angle = 3 * np.pi * np.sqrt(rng.random(n))
    point = np.stack([np.cos(angle + np.pi * y), np.sin(angle + np.pi * y)], axis=1)
    X = point * angle[:, None] / 10 + 0.02 * rng.standard_normal((n, 2))
    return X.astype(np.float32), y.astype(np.float32)


def forward(params: list[np.ndarray], X: np.ndarray) -> list[np.ndarray]:
    """The activations of every layer: tanh inside, the logit last."""
    layers = [X]
    for W, b in zip(params[0:-2:2], params[1:-2:2]):
        layers.append(np.tanh(layers[-1] @ W + b))
    layers.append(layers[-1] @ params[-2] + params[-1])
    return layers


def backward(
    params: list[np.ndarray], grads: list[np.ndarray], X: np.ndarray, y: np.ndarray
) -> float:
    """The mean logistic loss; its gradients are written into ``grads``."""
    layers = forward(params, X)
    z = layers[-1][:, 0]
    loss = float(np.mean(np.logaddexp(0, z) - y * z))
    delta = ((1 / (1 + np.exp(-z)) - y) / len(y))[:, None].astype(np.float32)
    for i in range(len(params) - 2, -1, -2):
        below = layers[i // 2]
        grads[i][...] = below.T @ delta
        grads[i + 1][...] = delta.sum(axis=0)
        delta = (delta @ params[i].T) * (1 - below**2)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps")
    steps = 200 if parser.parse_args().quick else 4_000

    rng = np.random.default_rng(0)
    widths = (2, 32, 32, 1)
    params = []
    for a, b in itertools.pairwise(widths):
        params += [
            (rng.standard_normal((a, b)) * np.sqrt(2 / a)).astype(np.float32),
            np.zeros(b, "f4"),
        ]
    grads = [np.empty_like(p) for p in params]
    buffers = [np.empty_like(p) for p in params]

    plan = nagcore.NesterovPlan(params, grads, buffers)
    print(f"{plan.tensors} tensors, {plan.elements} elements, one call a step")
    for step in range(steps):
        X, y = spirals(256, seed=step)
        loss = backward(params, grads, X, y)
        report = plan.step(lr=0.1, momentum=0.95, max_norm=1.0, first_step=step == 0)
        if step % (steps // 5) == 0 or step == steps - 1:
            print(
                f"step {step:5d}: loss {loss:.4f}, ‖gradient‖ {report.grad_norm:.3f}, "
                f"clipped to {report.clip_factor:.2f} of it"
            )
    X, y = spirals(4_000, seed=10**6)
    print(f"test accuracy {np.mean((forward(params, X)[-1][:, 0] > 0) == (y > 0)):.4f}")


if __name__ == "__main__":
    main()
