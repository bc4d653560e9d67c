"""Four defects of torch 2.13's fused CPU SGD, none of which is ours (shared inputs, right answers)."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nagcore[torch]'")

import nagcore.torch  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [7, 64, 1003])
def test_every_element_of_a_narrow_tensor_moves(dtype, n):
    p = torch.nn.Parameter(torch.ones(n, dtype=dtype))
    optimizer = nagcore.torch.SGD([p], lr=0.5, momentum=0.5, fused=True)
    for _ in range(2):
        p.grad = torch.ones(n, dtype=dtype)
        optimizer.step()
    # b: 1, 1.5; θ: 1 - 0.5 - 0.75
    assert torch.equal(p.detach(), torch.full((n,), -0.25, dtype=dtype))
    assert torch.equal(optimizer.state[p]["momentum_buffer"], torch.full((n,), 1.5))


def test_infinities_on_the_first_step_leave_no_uninitialised_buffer():
    p = torch.nn.Parameter(torch.ones(100_003))
    optimizer = nagcore.torch.SGD([p], lr=0.5, momentum=0.9, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((p * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.last_report.found_inf
    assert torch.equal(p.detach(), torch.ones_like(p))
    assert not optimizer.state.get(p)
    optimizer.zero_grad()
    scaler.scale(p.sum()).backward()
    scaler.step(optimizer)
    assert torch.equal(p.detach(), torch.full_like(p, 0.5))
    assert torch.equal(optimizer.state[p]["momentum_buffer"], torch.ones_like(p))


@pytest.mark.parametrize("turned", ["gradient", "parameter"])
def test_a_transposed_tensor_gives_right_results(turned):
    base, g = torch.randn(37, 53), torch.randn(37, 53)
    p = torch.nn.Parameter(base.clone() if turned == "gradient" else base.t().contiguous().t())
    right = base.clone()
    p.grad = g.t().contiguous().t() if turned == "gradient" else g
    optimizer = nagcore.torch.SGD([p], lr=0.5, momentum=0.5, fused=True)
    for b in (g, 1.5 * g):
        optimizer.step()
        right = right - 0.5 * b
    torch.testing.assert_close(p.detach(), right)


def test_a_gradient_that_appears_late_takes_its_own_first_step():
    early, late = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = nagcore.torch.SGD([early, late], lr=1.0, momentum=0.5, dampening=0.5, fused=True)
    early.grad = torch.ones(3)
    optimizer.step()
    late.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.state[late]["momentum_buffer"].tolist() == [1.0] * 3  # g, not (1 - τ)g
    assert late.tolist() == [0.0] * 3
    assert optimizer.state[early]["momentum_buffer"].tolist() == [1.0] * 3  # 0.5·1 + 0.5·1
