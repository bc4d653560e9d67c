"""An adversarial pair on nagcore.torch.SGD, and on torch.optim.SGD: the same bits, side by side.

The generator learns a ring of eight Gaussians from noise; the discriminator tells its points from
real ones. Both are stepped by SGD with momentum, whose paths here are long and touchy: one rounding
that differed would part the two runs.

    python examples/gan.py --out gan.png
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

import nagcore.torch
from nagcore import plots
from nagcore.callbacks import History

MODES, RADIUS, SPREAD, NOISE = 8, 2.0, 0.08, 8  # the ring, and the numbers the generator gets


def ring(n: int, generator: torch.Generator) -> torch.Tensor:
    """n points of eight Gaussians on a circle, shape (n, 2)."""
    angle = torch.randint(MODES, (n,), generator=generator) * (2 * np.pi / MODES)
    centre = RADIUS * torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    return centre + SPREAD * torch.randn(n, 2, generator=generator)


def dense(*widths: int) -> nn.Sequential:
    """Dense layers with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def slope(discriminator: nn.Module, X: torch.Tensor) -> torch.Tensor:
    """Mean squared gradient at real points, which keeps the game from circling (Mescheder 2018)."""
    X = X.requires_grad_()
    (g,) = torch.autograd.grad(discriminator(X).sum(), X, create_graph=True)
    return g.square().sum(dim=1).mean()


def train(kind: str, steps: int, batch: int) -> tuple[nn.Module, nn.Module, History, float]:
    """One game with one of the two optimizers; returns the median time of a step, too."""
    torch.manual_seed(0)
    generator, discriminator = dense(NOISE, 64, 64, 2), dense(2, 64, 64, 1)
    SGD = nagcore.torch.SGD if kind == "nagcore.torch.SGD" else torch.optim.SGD
    step_g = SGD(generator.parameters(), lr=0.02, momentum=0.7, nesterov=True)
    step_d = SGD(discriminator.parameters(), lr=0.05, momentum=0.7, nesterov=True)
    draw = torch.Generator().manual_seed(1)
    history, begun, took = History(), time.perf_counter(), []
    for step in range(1, steps + 1):
        real, z = ring(batch, draw), torch.randn(batch, NOISE, generator=draw)
        step_d.zero_grad()
        fake = generator(z).detach()
        loss_d = softplus(-discriminator(real)).mean() + softplus(discriminator(fake)).mean()
        (loss_d + 0.1 * slope(discriminator, real)).backward()
        start = time.perf_counter()
        step_d.step()
        took.append(time.perf_counter() - start)
        step_g.zero_grad()
        loss_g = softplus(-discriminator(generator(z))).mean()
        loss_g.backward()
        step_g.step()
        history.log(step=step, loss=loss_d.item(), generator_loss=loss_g.item(),
                    seconds=time.perf_counter() - begun)  # fmt: skip
    return generator, discriminator, history, float(np.median(took))


def modes_met(points: np.ndarray) -> tuple[int, float]:
    """How many of the eight Gaussians have at least 2 % of the points, and the part near any."""
    angle = np.arange(MODES) * 2 * np.pi / MODES
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.linalg.norm(points[:, None] - centres, axis=2)
    near = distance.min(axis=1) < 6 * SPREAD
    shares = np.bincount(distance.argmin(axis=1)[near], minlength=MODES) / len(points)
    return int((shares >= 0.02).sum()), float(near.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gan.png"), help="the picture")
    parser.add_argument("--quick", action="store_true", help="few steps")
    arguments = parser.parse_args()
    plots.check_path(arguments.out)
    torch.set_num_threads(1)  # tensors this small gain nothing from more
    steps, batch = (150, 64) if arguments.quick else (6_000, 128)

    found = {}
    for kind in ("torch.optim.SGD", "nagcore.torch.SGD"):
        _, _, history, took = found[kind] = train(kind, steps, batch)
        last = history.rows[-1]
        print(f"{kind:18s} discriminator {last['loss']:.4f}, generator "
              f"{last['generator_loss']:.4f} after {steps} steps; step {took * 1e6:.0f} µs")  # fmt: skip
    (_, _, before, slow), (generator, discriminator, history, fast) = found.values()
    same = [all(a[key] == b[key] for key in ("loss", "generator_loss"))
            for a, b in zip(before.rows, history.rows)]  # fmt: skip
    print(f"both losses equal to the bit in {sum(same)} of {steps} steps; step time "
          f"{slow / fast:.1f} times shorter")  # fmt: skip

    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        points = generator(torch.randn(2_000, NOISE, generator=draw)).numpy()
    met, near = modes_met(points)
    print(f"{met} of {MODES} modes met, {near:.1%} of the points near one")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.0), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    runs = {kind: history for kind, (_, _, history, _) in found.items()}
    plots.curves(runs, y="loss", smooth=0.98, ax=left, title="discriminator's loss, both optimizers")
    left.axhline(2 * np.log(2), color="#777777", lw=0.9, linestyle=":")
    left.annotate("2 ln 2: cannot tell", (0.98, 2 * np.log(2)), (0, 4), fontsize=9, ha="right",
                  xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
    side = np.linspace(-3.2, 3.2, 120)
    grid = torch.from_numpy(np.stack(np.meshgrid(side, side), axis=-1).astype(np.float32))
    with torch.no_grad():
        trust = torch.sigmoid(discriminator(grid.reshape(-1, 2))).reshape(120, 120).numpy()
    shade = right.contourf(side, side, trust, levels=np.linspace(0, 1, 11), cmap="cividis")
    figure.colorbar(shade, ax=right, label="held to be real")
    real = ring(400, draw)
    right.scatter(*real.T, s=7, color="black", label="real")
    right.scatter(*points[:800].T, s=7, color="#E69F00", label="made")
    right.set(xlabel="x₁", ylabel="x₂", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
    right.set_title(f"{met} of {MODES} modes met", fontsize=11)
    right.legend(fontsize=9, facecolor="#dddddd", edgecolor="none", loc="upper right")
    figure.savefig(arguments.out, facecolor="white")
    print(f"picture written to {arguments.out}")
    print(f"equal steps {sum(same) / steps:.4f}")


if __name__ == "__main__":
    main()
