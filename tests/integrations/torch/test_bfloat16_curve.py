"""bfloat16 momentum trains a convolutional network as float32 momentum does, over five seeds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")
datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")

import numpy as np  # noqa: E402

from nagcore.torch import SGD  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Small layers: on a busy machine two threads would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses_of(seed, state_dtype, x, y):
    """The mean loss of each epoch."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3), torch.nn.ReLU(),
        torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, state_dtype=state_dtype)
    epochs = []
    for _ in range(4):
        sum_ = 0.0
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            sum_ += loss.item() * len(rows)
        epochs.append(sum_ / len(x))
    return epochs


def test_loss_curves_agree_within_the_noise_of_seeds():
    x, y = datasets.load_digits(return_X_y=True)
    x = torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(y)
    wide, narrow = (
        np.log([losses_of(seed, dtype, x, y) for seed in range(5)])
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert wide[:, -1].mean() < np.log(0.4)  # it does learn
    # The same seeds: what is left between the two is rounding, and the seeds' spread is the yardstick.
    difference = (narrow - wide).mean(0)
    assert np.all(np.abs(difference) < wide.std(0, ddof=1)), difference
