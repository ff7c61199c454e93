"""Memory of a monitored run does not grow with its steps (DESIGN 4: O(units + R x features))."""

from __future__ import annotations

import gc
import sys

import torch
from torch import Tensor, nn

import deadrelu

from .plays import error

STEPS, FROM = 20_000, 13_000
"""The second: when all that is kept is: updates of a calm stretch, and 256 looks at the input, one in 50 steps."""


def in_use() -> tuple[int, int, int]:
    """Return live Python memory blocks, live tensors and their bytes."""
    gc.collect()
    # Other tests may leave sparse ones, which have no size, and fakes.
    tensors = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter) and t.layout == torch.strided]
    return sys.getallocatedblocks(), len(tensors), sum(t.nbytes for t in tensors)


def test_a_long_run_takes_constant_memory() -> None:
    """20,000 steps of a small net: what is held after 13,000 steps is what is held in the end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data = torch.randn(64, 16, 4, generator=torch.Generator().manual_seed(1))
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(STEPS):
            optimizer.zero_grad()
            error(model(data[step % 64])).backward()
            optimizer.step()
            if step == FROM:
                before = in_use()
        after = in_use()
    assert after[0] - before[0] < 2_000, "Python objects: less than one in four steps"
    assert after[1] - before[1] <= 2, "tensors"
    assert after[2] - before[2] <= 1024, "bytes of tensors"
    assert monitor.report().samples == STEPS * 16
