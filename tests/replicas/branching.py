"""Models whose path depends on the batch, and producers whose output is not always what the activation reads."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, note, vectors


class Skipping(nn.Module):
    """One `self.relu` after three layers; batches of an odd number of rows skip the second (LayerDrop, early exit)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        note(self, "relu", x, "nu")
        x = self.relu(x)
        if x.shape[0] % 2 == 0:
            x = self.fc2(x)
            note(self, "relu#2", x, "nu")
            x = self.relu(x)
        x = self.fc3(x)
        note(self, "relu#1", x, "nu")
        return self.relu(x)


class Swapping(nn.Module):
    """Two layers before one functional call in a loop, in the order that the batch decides."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        odd = x.shape[0] % 2
        for layer in (self.fc1, self.fc2) if odd else (self.fc2, self.fc1):
            x = layer(x)
            note(self, "relu()" if layer is self.fc1 else "relu()#1", x, "nu")
            x = F.relu(x)
        return x


class Shifting(nn.Module):
    """z is the output of the layer itself in the first batch, something else in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        if x.shape[0] % 2 == 0:
            z = z - 1
        note(self, "relu", z, "nu")
        return self.relu(z)


class HalfUsed(nn.Module):
    """The layer is called twice, only the second output meets an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.fc(x)
        z = self.fc(2 * x - 1)
        note(self, "relu()", z, "nu")
        return skip + F.relu(z)


class Overwritten(nn.Module):
    """The output of the layer is changed in place before and after the first activation reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        z[:, 3] = -5
        note(self, "relu", z, "nu")
        y = self.relu(z)
        z.neg_()
        note(self, "gelu()", z, "nu")
        return y + F.gelu(z)


def _replica(name: str, build: Callable[[], nn.Module], *sites: Want) -> Replica:
    return Replica(name, build, vectors(), sites)


REPLICAS = (
    _replica(
        "skipping",
        Skipping,
        Want("relu", "relu", 8, ("fc1",), "fc1.bias", (0,)),
        Want("relu#1", "relu", 8, ("fc3",), "fc3.bias", (1,)),
        Want("relu#2", "relu", 8, ("fc2",), "fc2.bias", (2, 3)),
    ),
    _replica(
        "swapping",
        Swapping,
        Want("relu()", "relu", 8, ("fc1",), "fc1.bias", (0,)),
        Want("relu()#1", "relu", 8, ("fc2",), "fc2.bias", (1, 2)),
    ),
    _replica("shifting", Shifting, Want("relu", "relu", 8, ("fc",), "fc.bias", (5,))),
    _replica("half-used", HalfUsed, Want("relu()", "relu", 8, ("fc",), "fc.bias", (6, 7))),
    _replica(
        "overwritten",
        Overwritten,
        Want("relu", "relu", 8, ("fc",), "fc.bias", (1,)),
        Want("gelu()", "gelu", 8, ("fc",)),
    ),
)
