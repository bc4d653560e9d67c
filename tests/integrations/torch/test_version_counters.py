"""Autograd counts the writes to a tensor; a step must be counted wherever the tensor has gone meanwhile."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

from nagcore.torch import SGD  # noqa: E402


class Own(torch.nn.Parameter):
    """A parameter of another class."""


def new_data(p):
    p.data = torch.randn(4)


def set_to_memory(p):
    with torch.no_grad():
        p.set_(torch.randn(4))


def swapped(p):
    torch.utils.swap_tensors(p, torch.nn.Parameter(torch.randn(4)))


def swapped_on_the_spot(p):
    """Another tensor in the same object, of the same memory, with a counter of its own."""
    torch.utils.swap_tensors(p, torch.nn.Parameter(p.data))


def to_and_fro(p):
    swapped_on_the_spot(p)
    new_data(p)
    swapped_on_the_spot(p)


def written(p):
    with torch.no_grad():
        p.add_(1.0)


CHANGES = [new_data, set_to_memory, swapped, swapped_on_the_spot, to_and_fro, written]
KINDS = [torch.nn.Parameter, Own, torch.Tensor]


def one(kind):
    values = torch.randn(4)
    return values.requires_grad_() if kind is torch.Tensor else kind(values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_each_step_counts_once(change, kind):
    p, still = one(kind), one(kind)
    optimizer = SGD([p, still], lr=0.1, momentum=0.9)
    for turn in range(4):
        if turn == 2:
            p.grad = None
            change(p)
        p.grad, still.grad = torch.ones(4), torch.ones(4)
        before = p._version, still._version
        optimizer.step()
        assert (p._version, still._version) == (before[0] + 1, before[1] + 1), turn


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_a_graph_that_saved_a_parameter_refuses_to_go_back(dtype):
    p = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    x = torch.ones(4, dtype=dtype, requires_grad=True)
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    for _ in range(2):
        p.grad = torch.ones(4, dtype=dtype)
        loss = (p * x).sum().abs()
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_parameter_without_a_gradient_counts_nothing():
    p, idle = one(torch.nn.Parameter), one(torch.nn.Parameter)
    optimizer = SGD([p, idle], lr=0.1)
    p.grad = torch.ones(4)
    optimizer.step()
    assert (p._version, idle._version) == (1, 0)


def test_a_view_and_its_base_count_together():
    base = torch.zeros(3, 4)
    p = base[1].requires_grad_()
    optimizer = SGD([p], lr=0.1)
    p.grad = torch.ones(4)
    optimizer.step()
    assert base._version == p._version == 1
    assert torch.equal(base.sum(1), torch.tensor([0.0, -0.4, 0.0]).to(base))


@pytest.mark.parametrize("made", [False, True], ids=["ordinary", "of inference mode"])
def test_steps_in_inference_mode_count(made):
    with torch.inference_mode(made):
        p = torch.nn.Parameter(torch.ones(4))
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    with torch.inference_mode():
        for _ in range(2):
            p.grad = torch.ones(4)
            optimizer.step()
    if not made:  # what inference mode makes has no counter
        assert p._version == 2
    assert torch.allclose(p, torch.full((4,), 1.0 - 0.1 * (1.0 + 1.9)))


def test_memory_that_a_parameter_lets_go_is_freed():
    p = torch.nn.Parameter(torch.ones(4))
    p.grad = torch.ones(4)
    optimizer = SGD([p], lr=0.5, momentum=0.9)
    optimizer.step()
    gone = weakref.ref(p.untyped_storage())
    p.data = torch.zeros(0)
    gc.collect()
    assert gone() is None


def test_a_parameter_is_held_by_python_alone():
    p = torch.nn.Parameter(torch.ones(4))
    before = p._use_count()
    p.grad = torch.ones(4)
    optimizer = SGD([p], lr=0.5, momentum=0.9)
    optimizer.step()
    assert p._use_count() == before
    assert not weakref.getweakrefs(p)


@pytest.mark.parametrize("where", ["torch.device('meta')", "torch.inference_mode()"])
def test_what_it_is_imported_in_does_not_matter(where):
    program = f"""
import torch
p = torch.nn.Parameter(torch.ones(4))
p.grad = torch.ones(4)
with {where}:
    from nagcore.torch import SGD
optimizer = SGD([p], lr=0.5, momentum=0.9)
optimizer.step()
assert p._version == 1 and p.tolist() == [0.5] * 4, (p._version, p)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
