"""Where a step's memory lies, and how the step finds the gradients of tensors that are not plain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

from nagcore import _core  # noqa: E402
from nagcore.torch import SGD  # noqa: E402

SMAPS = Path("/proc/self/smaps")


def flags_at(address: int) -> list[str]:
    """What the kernel notes about the mapping that holds an address ("hg": large pages advised)."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


@pytest.mark.skipif(
    not SMAPS.exists() or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="this system has no large pages to advise",
)
@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
def test_large_state_lies_in_large_pages(state_dtype):
    n = 24 << 20  # mapped on its own
    p = torch.nn.Parameter(torch.zeros(n))
    p.grad = torch.ones(n)
    optimizer = SGD([p], lr=0.5, momentum=0.9, ema_decay=0.9, state_dtype=state_dtype)
    optimizer.step()
    for key in ("momentum_buffer", "ema"):
        kept = optimizer.state[p][key]
        assert "hg" in flags_at(kept.data_ptr() + kept.numel() * kept.element_size() // 2), key
    assert float(p.detach().min()) == float(p.detach().max()) == -0.5


def test_advice_about_small_memory_changes_nothing():
    x = torch.arange(1000.0)
    _core.advise_large_pages(x.data_ptr(), 4000)
    _core.advise_large_pages(0, 0)
    assert torch.equal(x, torch.arange(1000.0))


@pytest.mark.parametrize("where", ["subclass", "getattribute", "instance"])
def test_grad_is_asked_as_python_asks(where):
    """A class that answers `grad` itself is believed; an instance's dict does not hide the tensor's own."""

    class Halved(torch.nn.Parameter):
        @property
        def grad(self):
            return torch.full((3,), 0.5)

    class Asked(torch.nn.Parameter):
        def __getattribute__(self, name):
            if name == "grad":
                return torch.full((3,), 0.25)
            return super().__getattribute__(name)

    p = {"subclass": Halved, "getattribute": Asked}.get(where, torch.nn.Parameter)(torch.ones(3))
    plain = torch.nn.Parameter(torch.ones(3))
    plain.grad = torch.ones(3)
    if where == "instance":
        p.grad = torch.full((3,), 0.125)
        p.__dict__["grad"] = torch.full((3,), 100.0)
    SGD([plain, p, torch.nn.Parameter(torch.ones(2))], lr=1.0).step()
    gone = {"subclass": 0.5, "getattribute": 0.25, "instance": 0.125}[where]
    assert p.detach().tolist() == [1 - gone] * 3
    assert plain.detach().tolist() == [0.0] * 3

