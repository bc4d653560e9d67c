"""PyTorch: `SGD`, a drop-in for torch.optim.SGD whose step is one trip through memory.

The module needs torch (``pip install 'nagcore[torch]'``) and imports it. docs/deep-learning.md says
what changes and what does not.

>>> import torch, nagcore.torch
>>> model = torch.nn.Linear(2, 1)
>>> optimizer = nagcore.torch.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
>>> model(torch.ones(4, 2)).square().mean().backward()
>>> optimizer.step()
>>> optimizer.last_report.tensors
2
"""

from __future__ import annotations

from .._extras import require

require("torch", "torch", "nagcore.torch")

from .arrays import load_state_arrays, state_arrays  # noqa: E402
from .scaler import GradScaler  # noqa: E402
from .sgd import SGD  # noqa: E402

__all__ = ["SGD", "GradScaler", "load_state_arrays", "state_arrays"]
