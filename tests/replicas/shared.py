"""Activations that many layers share, heads that many inputs share, and experts that may get no token at all.

One `self.relu` for a whole network; RetinaNet's head over a feature pyramid (Lin et al. 2017, arXiv:1708.02002);
a mixture of experts after transformers.models.mixtral; a subclass of nn.ReLU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, images, note, sequences, vectors


class MyReLU(nn.ReLU):
    """A subclass with a forward of its own is the activation module still."""

    def forward(self, input: Tensor) -> Tensor:
        return input.clamp(min=0)


class OneForAll(nn.Module):
    """The activation is called in a loop, each time with another layer: as many sites as layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 5), nn.Linear(5, 8)])
        self.act = nn.ReLU(inplace=True)
        self.mine = MyReLU()
        self.last = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            note(self, f"act#{i}" if i else "act", x, "nu")
            x = self.act(x)
        x = self.last(x)
        note(self, "mine", x, "nu")
        return self.mine(x)


class Pyramid(nn.Module):
    """One head reads three maps of different sizes: one site, three calls, pixels weigh alike."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        x = self.stem(x)
        for _ in range(3):
            z = self.head[0](x)
            note(self, "head.1", z, "nupp")
            found.append(self.head[2](self.head[1](z)))
            x = F.max_pool2d(x, 2)
        return found


class FromBatchFirst(nn.Module):
    """The model itself transposes (batch, time, features) for a time-first encoder, as tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x.transpose(0, 1)).mean(0)


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.act = nn.Linear(8, 9), nn.Linear(9, 8), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.act(self.w1(x)))


class MixtureOfExperts(nn.Module):
    """Tokens go to the expert that the sign of their first two features names; expert 3 never gets one."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Expert() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 8)
        route = (tokens[:, 0] > 0).long() + (tokens[:, 1] > 1.5).long()
        out = torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            (chosen,) = torch.where(route == i)
            out.index_add_(0, chosen, expert(tokens[chosen]))
        return out.view_as(x)


REPLICAS = (
    Replica(
        "one-relu-for-all",
        OneForAll,
        vectors(),
        (
            Want("act", "relu", 8, ("layers.0",), "layers.0.bias", (1,)),
            Want("act#1", "relu", 5, ("layers.1",), "layers.1.bias", (4,)),
            Want("act#2", "relu", 8, ("layers.2",), "layers.2.bias", (0, 2)),
            Want("mine", "clamp", 6, ("last",), "last.bias", (5,)),
        ),
    ),
    Replica("pyramid-head", Pyramid, images(), (Want("head.1", "relu", 6, ("head.0",), "head.0.bias", (1, 5)),)),
    Replica(
        "encoder-time-first-inside",
        FromBatchFirst,
        sequences(),
        (Want("encoder.relu()", "relu", 10, ("encoder.linear1",), "encoder.linear1.bias", (2,)),),
        listen={"encoder.relu()": ("encoder.linear1", "pnu")},
    ),
)
