"""A convolutional classifier in PyTorch: gradient descent against Nesterov, everything else equal.

Two convolutions, pooling, two dense layers, on MNIST, Fashion-MNIST or CIFAR-10 where --data names
a folder with their files, on scikit-learn's digits where not. The one changed line is the optimizer.

    python examples/torch_cnn.py --data folder --out torch_cnn.png
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from image_files import Images, load
from torch import nn

import nagcore.torch
from nagcore import plots
from nagcore.callbacks import History


class Classifier(nn.Module):
    """Convolution, convolution, pooling, dense, dense."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool = nn.AdaptiveMaxPool2d(side // 2 if side <= 16 else side // 4)
        self.dense1 = nn.Linear(32 * (self.pool.output_size**2), 64)
        self.dense2 = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        x = self.pool(F.relu(self.conv2(x)))
        return self.dense2(F.relu(self.dense1(x.flatten(1))))


def tensors(X: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes to (n, channels, height, width) in [−1, 1]."""
    X = X[..., None] if X.ndim == 3 else X
    return torch.from_numpy(X.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.from_numpy(y)


@torch.no_grad()
def predict(model: nn.Module, X: torch.Tensor) -> torch.Tensor:
    """Classes, in batches."""
    return torch.cat([model(part).argmax(1) for part in X.split(500)])


def train(data: Images, momentum: float, epochs: int, lr: float) -> tuple[History, np.ndarray]:
    """One run; the seed, and so the start and the order of the data, are the same for all."""
    torch.manual_seed(0)
    X, y = tensors(data.X, data.y)
    T, t = tensors(data.X_test, data.y_test)
    model = Classifier(X.shape[1], X.shape[2], len(data.classes))
    optimizer = nagcore.torch.SGD(
        model.parameters(), lr=lr, momentum=momentum, nesterov=momentum > 0
    )
    history, begun, step = History(), time.perf_counter(), 0
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
            step += 1
            history.log(step=step, passes=step * 64 / len(X), loss=loss.item(), lr=lr,
                        momentum=momentum, seconds=time.perf_counter() - begun)  # fmt: skip
        accuracy = float((predict(model, T) == t).float().mean())
        history.log(step=step, passes=epoch, accuracy=accuracy)
        print(f"   epoch {epoch}: loss {loss.item():.4f}, test accuracy {accuracy:.4f}")
    return history, predict(model, T).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with IDX or CIFAR-10 binary files")
    parser.add_argument("--rows", type=int, default=10_000, help="of --data, at most")
    parser.add_argument("--out", type=Path, default=Path("torch_cnn.png"), help="the picture")
    parser.add_argument("--epochs", type=int, help="default 12 on digits, 2 on larger sets")
    parser.add_argument("--lr", type=float, default=0.05, help="of both runs")
    parser.add_argument("--quick", action="store_true", help="600 pictures, 4 epochs")
    arguments = parser.parse_args()
    plots.check_path(arguments.out)

    data = load(arguments.data, 600 if arguments.quick else arguments.rows)
    epochs = arguments.epochs or (4 if arguments.quick else 12 if len(data.X) < 5_000 else 2)
    print(f"{data.name}: {len(data.X):,} pictures to learn from, {len(data.X_test):,} to test")
    runs, given = {}, {}
    for name, momentum in (("gradient descent", 0.0), ("Nesterov, momentum 0.9", 0.9)):
        print(name)
        runs[name], given[name] = train(data, momentum, epochs, arguments.lr)

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 6.6), dpi=100, layout="constrained")
    figure.suptitle(f"{data.name}: learning rate {arguments.lr:g}, batches of 64", fontsize=11)
    grid = figure.subplots(2, 2)
    plots.curves(runs, x="passes", y="loss", smooth=0.9, ax=grid[0, 0], title="training loss")
    plots.curves(runs, x="passes", y="accuracy", ax=grid[0, 1], title="test accuracy")
    for axes, (name, labels) in zip(grid[1], given.items()):
        right = np.mean(labels == data.y_test)
        plots.confusion_matrix(data.y_test, labels, classes=data.classes, ax=axes,
                               title=f"{name}: {100 * right:.1f} %")  # fmt: skip
    figure.savefig(arguments.out, facecolor="white")
    print(f"picture written to {arguments.out}")
    for name, labels in given.items():
        print(f"{name}: test accuracy {np.mean(labels == data.y_test):.4f}")


if __name__ == "__main__":
    main()
