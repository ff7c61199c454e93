"""What trainers wrap around a model, and models whose weights, inputs or control flow are shared or change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .tape import Replica, Want, note, vectors


class Block(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        note(self, "act", x, "nu")
        return self.act(x)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(x))
        note(self, "relu()", x, "nu")
        return F.relu(x)


class Checkpointed(Plain):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = cast(Tensor, checkpoint(block, x, use_reentrant=self.use_reentrant))
        x = self.head(x)
        note(self, "relu()", x, "nu")
        return F.relu(x)


class Tied(nn.Module):
    """Two Linear layers with one weight and a bias each: two producers, two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        note(self, "relu()", x, "nu")
        x = self.b(F.relu(x))
        note(self, "relu()#1", x, "nu")
        return F.relu(x)


class Siamese(nn.Module):
    """One trunk reads both inputs: one site, two calls. Inputs by keyword, as a dict batch."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Block()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.trunk(left) - self.trunk(right)).abs().sum(-1)


class Undecided(nn.Module):
    """Which branch runs depends on the batch: on its number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.even, self.odd, self.never = Block(), Block(), Block(), Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.even(x) if x.shape[0] % 2 == 0 else self.odd(x)


def _pair(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {side: torch.randn(rows, 8, generator=generator) for side in ("left", "right")}


def _compiled(model: nn.Module) -> Callable[..., Any]:
    return torch.compile(model, backend="eager")


_PLAIN = (
    Want("blocks.0.act", "relu", 8, ("blocks.0.fc",), "blocks.0.fc.bias", (1, 2)),
    Want("blocks.1.act", "relu", 8, ("blocks.1.fc",), "blocks.1.fc.bias", (7,)),
    Want("relu()", "relu", 6, ("head",), "head.bias", (0,)),
)

REPLICAS = (
    Replica("plain", Plain, vectors(), _PLAIN),
    Replica("data-parallel", Plain, vectors(), _PLAIN, wrap=nn.DataParallel),
    Replica("compiled", Plain, vectors(), _PLAIN, wrap=_compiled),
    Replica("checkpointed-reentrant", lambda: Checkpointed(True), vectors(), _PLAIN),
    Replica("checkpointed", lambda: Checkpointed(False), vectors(), _PLAIN),
    Replica(
        "tied-weights",
        Tied,
        vectors(),
        (Want("relu()", "relu", 8, ("a",), "a.bias", (0,)), Want("relu()#1", "relu", 8, ("b",), "b.bias", (1,))),
    ),
    Replica("siamese", Siamese, _pair, (Want("trunk.act", "relu", 8, ("trunk.fc",), "trunk.fc.bias", (4, 5)),)),
    Replica(
        "branches",
        Undecided,
        vectors(),
        (
            Want("stem.act", "relu", 8, ("stem.fc",), "stem.fc.bias", (3,)),
            Want("odd.act", "relu", 8, ("odd.fc",), "odd.fc.bias", (0, 1)),
            Want("even.act", "relu", 8, ("even.fc",), "even.fc.bias", (6,)),
        ),
        uncalled=("never.act",),
    ),
)
