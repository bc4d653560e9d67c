"""Large tensors move into large pages of memory, and nothing else about them changes."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

from nagcore.torch import SGD  # noqa: E402

PAGE = 2 << 20
N = 6 << 20  # 24 MiB of float32
SETTLED = 8  # steps after which a gradient is taken to stay
SMAPS = Path("/proc/self/smaps")


def pages_move() -> bool:
    """Whether this system moves memory into large pages when asked, tried on a page of our own."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if sys.platform != "linux" or not setting.exists() or "[never]" in setting.read_text():
        return False
    room = mmap.mmap(-1, 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room[:] = bytes(2 * PAGE)
    hold = ctypes.c_char.from_buffer(room)
    begin = -(-ctypes.addressof(hold) // PAGE) * PAGE
    moved = ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(PAGE), 25) == 0
    del hold
    return moved


needs_pages = pytest.mark.skipif(not pages_move(), reason="this system does not move memory on demand")


def our_pages(*tensors) -> int:
    """The bytes of the large pages of which the tensors fill at least half together."""
    filled: dict[int, int] = {}
    for t in tensors:
        begin, end = t.data_ptr(), t.data_ptr() + t.nbytes
        for page in range(begin // PAGE, -(-end // PAGE)):
            filled[page] = filled.get(page, 0) + min(end, (page + 1) * PAGE) - max(begin, page * PAGE)
    return PAGE * sum(2 * bytes_ >= PAGE for bytes_ in filled.values())


def in_large_pages(address: int) -> int:
    """AnonHugePages, in bytes, of the mapping that holds an address."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0


def settled(optimizer) -> int:
    """Steps until nothing waits; how many."""
    # Each step moves what a quarter of its own time allows, of a machine that may have much else to do.
    end, step = time.monotonic() + 120, 0
    while time.monotonic() < end:
        step += 1
        optimizer.step()
        if optimizer.page_report.waiting == 0:
            return step
    return pytest.fail(f"{optimizer.page_report} after {step} steps")


def large(n: int = N):
    p = torch.nn.Parameter(torch.randn(n, generator=torch.Generator().manual_seed(1)))
    p.grad = torch.randn(n, generator=torch.Generator().manual_seed(2))
    return p


@needs_pages
@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
def test_tensors_move_and_neither_address_nor_bit_changes(state_dtype):
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "ema_decay": 0.5}
    p, q = large(), large()
    moving = SGD([p], state_dtype=state_dtype, **options)
    staying = SGD([q], state_dtype=state_dtype, large_pages=False, **options)
    addresses = p.data_ptr(), p.grad.data_ptr()
    gradient = p.grad.clone()
    for _ in range(5000):
        moving.step()
        staying.step()
        if moving.page_report.waiting == 0:
            break
    report = moving.page_report
    arrays = [p, p.grad, moving.state[p]["momentum_buffer"], moving.state[p]["ema"]]
    assert report.waiting == 0
    assert report.moved > 0
    assert report.moved + report.refused == our_pages(*arrays)
    assert (p.data_ptr(), p.grad.data_ptr()) == addresses
    assert torch.equal(p.grad, gradient)
    assert torch.equal(p.detach(), q.detach())
    for key, kept in moving.state[p].items():
        assert torch.equal(kept, staying.state[q][key]), key


def neighbours(sizes, gap=1 << 10):
    """Tensors of so many elements side by side in one piece of memory, and that memory."""
    block = torch.zeros(sum(sizes) + gap * len(sizes) + PAGE // 4)
    place = -(block.data_ptr() % -PAGE) // 4 % (PAGE // 4)  # the first begins where a page does
    params = []
    for n in sizes:
        params.append(torch.nn.Parameter(block[place : place + n]))
        place += n + gap
    return block, params


@needs_pages
def test_neighbours_share_pages():
    """Tensors of 1 MiB fill none alone; a last one that is alone on its page is left there."""
    _, params = neighbours([(1 << 18) - (1 << 10)] * 8 + [1 << 17])
    optimizer = SGD(params, lr=0.1)
    assert our_pages(*params) == 4 * PAGE
    for p in params:
        p.grad = torch.ones_like(p)
    steps = settled(optimizer)
    report = optimizer.page_report
    assert report.moved + report.refused == our_pages(*params, *(p.grad for p in params))
    assert all(torch.allclose(p, torch.full_like(p, -0.1 * steps)) for p in params)


@needs_pages
@pytest.mark.skipif(not SMAPS.exists(), reason="this system does not say where memory lies")
def test_the_system_counts_the_pages():
    p = large(24 << 20)  # mapped on its own
    before = in_large_pages(p.data_ptr() + PAGE)
    optimizer = SGD([p], lr=0.1)
    settled(optimizer)
    if optimizer.page_report.refused:
        pytest.skip("the system had no large pages left")
    assert in_large_pages(p.data_ptr() + PAGE) > before


def test_switched_off_nothing_is_asked_for():
    p = large()
    optimizer = SGD([p], lr=0.1, momentum=0.9, large_pages=False)
    for _ in range(2 * SETTLED):
        optimizer.step()
    assert optimizer.page_report == (0, 0, 0)


def test_small_tensors_are_left_alone():
    p = large((1 << 16) - 1)
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    for _ in range(2 * SETTLED):
        optimizer.step()
    assert optimizer.page_report == (0, 0, 0)


def test_gradients_wait_until_they_have_stayed():
    p = large()
    optimizer = SGD([p], lr=0.1)
    for _ in range(SETTLED - 1):
        optimizer.step()
    report = optimizer.page_report
    # A page that both share may be counted with either.
    assert report.waiting >= our_pages(p.grad) - PAGE
    assert report.moved + report.refused <= our_pages(p) + PAGE
    settled(optimizer)
    report = optimizer.page_report
    assert report.moved + report.refused == our_pages(p, p.grad)


def test_gradients_that_move_are_not_asked_for():
    p = large()
    gradients = [p.grad, p.grad.clone()]
    optimizer = SGD([p], lr=0.1)

    def steps(most):
        for i in range(most):
            p.grad = gradients[i % 2]
            optimizer.step()
            report = optimizer.page_report
            if i >= 2 * SETTLED and report.waiting <= our_pages(p.grad) + PAGE:  # the parameter is done
                break
        return report.moved + report.refused

    done = steps(5000)  # some pages a step, in a quarter of its time
    # A page that both share may be counted with either.
    assert our_pages(p) - PAGE <= done <= our_pages(p) + PAGE
    optimizer.step()
    report = optimizer.page_report
    assert report.waiting >= our_pages(p.grad) - PAGE
    assert report.waiting + report.moved + report.refused <= our_pages(p, p.grad) + PAGE


def test_gradients_that_moved_once_are_not_asked_for_again():
    p = large()
    optimizer = SGD([p], lr=0.1)
    settled(optimizer)
    before = optimizer.page_report
    p.grad, kept = p.grad.clone(), p.grad
    for _ in range(4 * SETTLED):
        optimizer.step()
    assert optimizer.page_report == before
    assert kept.data_ptr() != p.grad.data_ptr()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's own switch")
def test_a_refusal_is_survived_and_final():
    """With large pages forbidden to this process: each tensor is asked for once, and given up."""
    libc, disable = ctypes.CDLL(None), 41  # PR_SET_THP_DISABLE
    p, q = large(), large()
    refused = SGD([p], lr=0.1, momentum=0.9)
    if libc.prctl(disable, 1, 0, 0, 0) != 0:
        pytest.skip("this system does not let a process forbid large pages")
    try:
        steps = settled(refused)
        report = refused.page_report
    finally:
        libc.prctl(disable, 0, 0, 0, 0)
    assert report == (0, 0, our_pages(p, p.grad, refused.state[p]["momentum_buffer"]))
    plain = SGD([q], lr=0.1, momentum=0.9, large_pages=False)
    for _ in range(steps):
        plain.step()
    assert torch.equal(p.detach(), q.detach())
    refused.step()
    assert refused.page_report == report


def test_memory_of_a_file_is_survived(tmp_path):
    """A parameter that is a file, and a gradient that may only be read."""
    names = tmp_path / "parameter", tmp_path / "gradient"
    values = np.linspace(-1, 1, N, dtype=np.float32)
    for name in names:
        values.tofile(name)
    p = torch.nn.Parameter(torch.from_file(str(names[0]), shared=True, size=N))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the gradient cannot be written
        p.grad = torch.from_numpy(np.memmap(names[1], np.float32, mode="r"))
    optimizer = SGD([p], lr=0.5)
    steps = settled(optimizer)
    report = optimizer.page_report
    assert report.moved + report.refused == our_pages(p, p.grad)
    expected = torch.from_numpy(values.copy())
    for _ in range(steps):
        expected = expected - 0.5 * p.grad
    assert torch.equal(p.detach(), expected)
    assert np.array_equal(np.fromfile(names[1], np.float32), values)


def test_the_switch_survives_a_copy():
    import copy

    p = torch.nn.Parameter(torch.ones(2))
    assert not copy.deepcopy(SGD([p], large_pages=False)).large_pages
    assert copy.deepcopy(SGD([p])).large_pages
