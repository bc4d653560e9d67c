"""A run kept as arrays goes on to the same bits; arrays of another run are refused untouched."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

from nagcore.torch import SGD, load_state_arrays, state_arrays  # noqa: E402


class Run:
    """A small model with everything that draws numbers: dropout, data order, NumPy, Python."""

    def __init__(self, seed, make=SGD, dtype=torch.float32, **options):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        self.order = torch.Generator().manual_seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 2)
        ).to(dtype)
        self.optimizer = make(self.model.parameters(), lr=0.1, momentum=0.9, nesterov=True, **options)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3)
        self.dtype = dtype

    def go(self, steps):
        for _ in range(steps):
            rows = torch.randperm(64, generator=self.order)[:16]
            x = torch.linspace(-1, 1, 64 * 6).reshape(64, 6)[rows].to(self.dtype)
            x = x * (1 + random.random()) + float(np.random.rand())  # noqa: NPY002
            self.optimizer.zero_grad()
            self.model(x).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()

    def parts(self):
        return self.model, self.optimizer

    def also(self):
        return {"scheduler": self.scheduler, "generators": [self.order]}

    def bits(self):
        return [t.detach().clone() for t in self.model.state_dict().values()] + [
            self.optimizer.state[p]["momentum_buffer"].clone() for p in self.model.parameters()
        ]


OPTIONS = [
    {}, {"state_dtype": torch.bfloat16, "ema_decay": 0.9}, {"max_norm": 0.1},
    {"dtype": torch.bfloat16, "master_weights": True}, {"make": torch.optim.SGD},
    {"lr_tensor": True},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_a_run_goes_on_to_the_same_bits(options):
    options = dict(options)
    tensor = options.pop("lr_tensor", False)
    run = Run(0, **options)
    if tensor:
        run.optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    run.go(4)
    kept = state_arrays(*run.parts(), **run.also())
    assert all(isinstance(a, np.ndarray) and a.dtype != object for a in kept.values())
    file = io.BytesIO()
    np.savez(file, **kept)
    file.seek(0)
    run.go(5)
    again = Run(99, **options)
    again.go(2)
    with np.load(file, allow_pickle=False) as arrays:
        load_state_arrays(dict(arrays), *again.parts(), **again.also())
    again.go(5)
    assert all(torch.equal(a, b) for a, b in zip(run.bits(), again.bits()))


def test_the_arrays_are_copies():
    run = Run(0)
    run.go(2)
    kept = state_arrays(*run.parts())
    before = {k: a.copy() for k, a in kept.items()}
    run.go(1)
    assert all(np.array_equal(kept[k], before[k]) for k in kept)


def without(key):
    def damage(kept):
        del kept[key]

    return damage


def of_shape(key):
    def damage(kept):
        kept[key] = np.zeros(3, kept[key].dtype)

    return damage


def of_dtype(key):
    def damage(kept):
        kept[key] = kept[key].astype(np.float64)

    return damage


def of_version(kept):
    kept["nagcore/format"] = np.frombuffer(
        kept["nagcore/format"].tobytes().replace(b'"version": 1', b'"version": 7'), np.uint8
    )


def cut_off(kept):
    kept["nagcore/format"] = kept["nagcore/format"][:-20]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("model/0.weight"), 'model/0.weight" is missing'),
        (without("optimizer/1/momentum_buffer"), "is missing"),
        (without("nagcore/format"), "nagcore/format"),
        (without("rng/numpy"), 'rng/numpy" is missing'),
        (without("rng/generator/0"), 'rng/generator/0" is missing'),
        (of_shape("model/0.weight"), "model/0.weight has shape"),
        (of_shape("optimizer/0/momentum_buffer"), "optimizer/0/momentum_buffer has shape"),
        (of_dtype("model/0.weight"), "has dtype float64; float32 was stored"),
        (of_version, "version 7"),
        (cut_off, "no readable"),
    ],
)
def test_damaged_arrays_are_refused_and_nothing_is_written(damage, message):
    run = Run(0)
    run.go(3)
    kept = state_arrays(*run.parts(), **run.also())
    damage(kept)
    other = Run(1)
    other.go(1)
    before, drawn = other.bits(), torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        load_state_arrays(kept, *other.parts(), **other.also())
    assert all(torch.equal(a, b) for a, b in zip(before, other.bits()))
    assert torch.equal(drawn, torch.get_rng_state())


def test_another_model_is_refused():
    run = Run(0)
    run.go(1)
    kept = state_arrays(*run.parts())
    with pytest.raises(ValueError, match="Load it into the same model"):
        load_state_arrays(kept, torch.nn.Linear(6, 16))
    with pytest.raises(ValueError, match="optimizer"):
        load_state_arrays(state_arrays(run.model), run.model, run.optimizer)


def test_what_needs_a_pickle_is_refused():
    run = Run(0)
    run.go(1)
    run.optimizer.param_groups[0]["note"] = object()
    with pytest.raises(TypeError, match="needs a pickle"):
        state_arrays(*run.parts())


def test_a_checkpoint_on_the_disk_goes_on_to_the_same_bits(tmp_path):
    """nagcore.callbacks.Checkpoint stores the arrays, in a file without pickles."""
    from nagcore.callbacks import Checkpoint

    run = Run(0, state_dtype=torch.bfloat16, ema_decay=0.5)
    run.go(3)
    Checkpoint(tmp_path).save(3, state_arrays(*run.parts(), **run.also()), metric=1.0)
    run.go(4)
    again = Run(5, state_dtype=torch.bfloat16, ema_decay=0.5)
    saved = Checkpoint(tmp_path).load_latest()
    assert saved.step == 3
    load_state_arrays(saved.state, *again.parts(), **again.also())
    again.go(4)
    assert all(torch.equal(a, b) for a, b in zip(run.bits(), again.bits()))
