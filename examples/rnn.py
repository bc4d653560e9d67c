"""A recurrent network on nagcore.torch.SGD, and on torch.optim.SGD: the same bits, side by side.

A GRU learns to continue a sum of sines with noise. Gradients are clipped, as recurrent networks need
it, by torch's own call for both, so that both get the same bits to step with. (nagcore can clip in
the trip of the update itself: max_norm=1.0.)

    python examples/rnn.py --out rnn.png
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import nagcore.torch
from nagcore import plots
from nagcore.callbacks import History

LENGTH = 32  # of the sequences, of which each next value is to be told
NOISE = 0.05


def waves(n: int, length: int, seed: int) -> torch.Tensor:
    """n sums of two sines with random phase and speed, with noise; shape (n, length, 1)."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    phase, speed = rng.uniform(0, 6.3, (2, n, 1)), rng.uniform(0.15, 0.35, (2, n, 1))
    X = np.sin(speed[0] * t + phase[0]) + 0.5 * np.sin(2.1 * speed[1] * t + phase[1])
    return torch.from_numpy((X + NOISE * rng.standard_normal(X.shape)).astype(np.float32))[..., None]


class Forecaster(nn.Module):
    """A GRU and a dense layer: the next value at each moment."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.gru = nn.GRU(1, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0])

    @torch.no_grad()
    def go_on(self, x: torch.Tensor, steps: int) -> torch.Tensor:
        """Continue sequences by feeding predictions back."""
        out, state = self.gru(x)
        last, found = self.head(out[:, -1:]), []
        for _ in range(steps):
            found.append(last)
            out, state = self.gru(last, state)
            last = self.head(out)
        return torch.cat(found, dim=1)


def train(kind: str, steps: int, batch: int) -> tuple[nn.Module, History, float]:
    """One run with one of the two optimizers; returns the median time of a step, too."""
    torch.manual_seed(0)
    model = Forecaster()
    settings = {"lr": 0.05, "momentum": 0.9, "nesterov": True}
    if kind == "nagcore.torch.SGD":
        optimizer = nagcore.torch.SGD(model.parameters(), **settings)
    else:
        optimizer = torch.optim.SGD(model.parameters(), **settings)
    history, begun, took = History(), time.perf_counter(), []
    for step in range(1, steps + 1):
        X = waves(batch, LENGTH + 1, seed=step)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(X[:, :-1]), X[:, 1:])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        start = time.perf_counter()
        optimizer.step()
        took.append(time.perf_counter() - start)
        history.log(step=step, loss=loss.item(), grad_norm=float(norm),
                    seconds=time.perf_counter() - begun)  # fmt: skip
    return model, history, float(np.median(took))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("rnn.png"), help="the picture")
    parser.add_argument("--quick", action="store_true", help="few steps")
    arguments = parser.parse_args()
    plots.check_path(arguments.out)
    torch.set_num_threads(1)  # tensors this small gain nothing from more
    steps, batch = (60, 16) if arguments.quick else (1_500, 32)

    found = {}
    for kind in ("torch.optim.SGD", "nagcore.torch.SGD"):
        _, history, took = found[kind] = train(kind, steps, batch)
        last = np.mean([row["loss"] for row in history.rows[-20:]])
        print(f"{kind:18s} loss {last:.5f} after {steps} steps; optimizer.step {took * 1e6:.0f} µs")
    (theirs, before, slow), (ours, history, fast) = found.values()
    apart = max(float((a - b).detach().abs().max()) for a, b in zip(theirs.parameters(), ours.parameters()))
    same = [a["loss"] == b["loss"] for a, b in zip(before.rows, history.rows)]
    print(f"losses equal to the bit in {sum(same)} of {steps} steps; parameters differ by at most "
          f"{apart:g}; step time {slow / fast:.1f} times shorter")  # fmt: skip

    seen, ahead = 24, 16
    test = waves(64, seen + ahead, seed=10**6)
    given = ours.go_on(test[:, :seen], ahead)
    error = float((given - test[:, seen:]).square().mean())
    plain = float((test[:, seen - 1 : seen] - test[:, seen:]).square().mean())

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 5.6), dpi=100, layout="constrained")
    figure.suptitle("A GRU continues noisy waves: momentum 0.9, nesterov, clipped to norm 1", fontsize=11)
    above, below = figure.subfigures(2, 1)
    left, right = above.subplots(1, 2)
    runs = {kind: history for kind, (_, history, _) in found.items()}
    plots.curves(runs, y="loss", smooth=0.9, ax=left)
    plots.curves(runs, y="grad_norm", smooth=0.9, ax=right)
    for i, axes in enumerate(below.subplots(1, 3, sharey=True)):
        t = np.arange(seen + ahead)
        axes.plot(t, test[i, :, 0], color="#000000", lw=1.2, label="wave")
        axes.plot(t[seen:], given[i, :, 0], color="#D55E00", lw=1.8, linestyle="--", label="continued")
        axes.axvline(seen - 0.5, color="#777777", lw=0.8, linestyle=":")
        axes.set_xlabel("time step")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if i == 0:
            axes.set_ylabel("value")
            axes.legend(frameon=False, fontsize=9)
    figure.savefig(arguments.out, facecolor="white")
    print(f"picture written to {arguments.out}")
    print(f"{ahead} steps ahead: mean squared error {error:.4f}, of the last value repeated {plain:.4f}")
    print(f"equal steps {sum(same) / steps:.4f}")


if __name__ == "__main__":
    main()
