"""A case of test_shapes.py: a model of a few lines, with the layout of its pre-activation written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from replicas.tape import to_samples

Layout = (
    str | Callable[[Tensor], Tensor]
)  # letters as in replicas/tape.py, or a function to (samples, positions, units)


class Net(nn.Module):
    """act(call(self, x)), with the parts as attributes."""

    def __init__(
        self, parts: dict[str, Any], call: Callable[[Any, Tensor], Tensor], act: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.act = act
        for name, part in parts.items():
            setattr(self, name, part)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.call(self, x))


@dataclass(frozen=True)
class Case:
    """One shape of z; `shape` is that of a row, which `batch_dim` puts into a batch (None: unbatched)."""

    name: str
    shape: tuple[int, ...]
    layout: Layout
    units: int
    parts: Callable[[], dict[str, Any]]
    call: Callable[[Any, Tensor], Tensor]
    batch_dim: int | None = 0
    kill: str = "a.bias"
    dead: tuple[int, ...] = (0, 2)
    words: int | None = None
    producers: tuple[str, ...] = ("a",)
    act: Callable[[Tensor], Tensor] = F.relu

    def model(self) -> Net:
        """Return the model with the planted units at a bias of -1000."""
        torch.manual_seed(0)
        model = Net(self.parts(), self.call, self.act).eval()
        with torch.no_grad():
            model.get_parameter(self.kill).view(-1)[list(self.dead)] = -1e3
        return model

    def batch(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return one batch."""
        shape = (rows, *self.shape)
        if self.words is not None:
            return torch.randint(self.words, shape, generator=generator)
        x = torch.randn(shape, generator=generator)
        return x[0] if self.batch_dim is None else x.movedim(0, self.batch_dim).contiguous()

    def record(self, model: Net, batches: list[Tensor]) -> list[NDArray[np.float64]]:
        """Return z of each batch as (samples, positions, units)."""
        found = []
        with torch.no_grad():
            for x in batches:
                z = model.call(model, x)
                if isinstance(self.layout, str):
                    rows = 1 if self.batch_dim is None else x.shape[self.batch_dim]
                    found.append(to_samples(z, self.layout, rows, self.units))
                else:
                    found.append(self.layout(z).double().numpy().copy())
        return found


def part(**parts: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    """Return a maker of fresh parts."""
    return lambda: {name: make() for name, make in parts.items()}


def only(module: Callable[..., nn.Module], *args: Any, **options: Any) -> Callable[[], dict[str, Any]]:
    """Return a maker of one part, `a`."""
    return part(a=lambda: module(*args, **options))


def plain(m: Any, x: Tensor) -> Tensor:
    """Call the part `a`."""
    z: Tensor = m.a(x)
    return z


LINEAR, CONV = only(nn.Linear, 6, 8), only(nn.Conv2d, 3, 8, 3, padding=1)
TWO_LINEARS = part(a=lambda: nn.Linear(6, 8), b=lambda: nn.Linear(6, 8))
TWO_CONVS = part(a=lambda: nn.Conv2d(3, 8, 3, padding=1), b=lambda: nn.Conv2d(3, 8, 1))
IMAGE, TOKENS = (3, 4, 5), (5, 6)
