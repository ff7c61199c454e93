"""What the tests write: a small model that has trained, and files of it by the real libraries."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deadrelu.checkpoint import Checkpoint, open_checkpoint


def model() -> nn.Sequential:
    """Return a network with parameters, buffers of two dtypes, and modules without either."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def trained(
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW, steps: int = 3, **settings: Any
) -> Any:
    """Return the model and the optimizer after a few steps."""
    network = model()
    stepper = optimizer(network.parameters(), lr=0.01, **settings)
    for _ in range(steps):
        stepper.zero_grad()
        network(torch.randn(6, 3, 6, 6)).square().sum().backward()
        stepper.step()
    return network, stepper


def save(what: Any, path: str | Path, *, zipped: bool = True, **options: Any) -> Path:
    """Write `what` by torch.save, in its zip form or the older one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(what, path, _use_new_zipfile_serialization=zipped, **options)
    return Path(path)


def assert_equal(checkpoint: Checkpoint, state: dict[str, Tensor]) -> None:
    """Fail unless the weights are those of `state`: names, dtypes, shapes, every bit."""
    assert set(checkpoint.weights) == set(state)
    for name, tensor in state.items():
        read = checkpoint.weights[name]
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(read, tensor), name


def opened(what: Any, path: Path, **options: Any) -> Checkpoint:
    """Write `what` and open it."""
    return open_checkpoint(save(what, path, **options))
