"""Layers between the model's input, or an activation, and the next one: embeddings, attention, norms.

They move the input of the layer behind them as the data do. A rate that throws the network is not to be told as data
that moved, and data that moved not as a rate (DESIGN 6.4: "input_shift if the raw data moved; else upstream parameters
moved, and their kick decides").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu

from .stage import digits

SITES = "blocks.0.act", "blocks.1.act"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.fc1, self.act, self.fc2 = nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)

    def forward(self, h: Tensor) -> Tensor:
        n = self.norm1(h)
        h = h + self.attention(n, n, n, need_weights=False)[0]
        return h + self.fc2(self.act(self.fc1(self.norm2(h))))


class Transformer(nn.Module):
    """Of pixels, in 8 patches, or of tokens."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem, self.places = stem, nn.Parameter(0.1 * torch.randn(8, 32))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x) + self.places)).mean(1))


def train(
    stem: nn.Module, data: Callable[[Tensor, int], Tensor], rate: Callable[[int], float] = lambda step: 0.02
) -> deadrelu.Monitor:
    torch.manual_seed(0)
    pixels, labels = digits()
    model = Transformer(stem)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(110):
            optimizer.param_groups[0]["lr"] = rate(step)
            rows = torch.randint(len(pixels), (96,))
            optimizer.zero_grad()
            F.cross_entropy(model(data(pixels[rows].view(-1, 8, 8), step)), labels[rows]).backward()
            optimizer.step()
    return monitor


def named(monitor: deadrelu.Monitor, site: str) -> Counter[str]:
    return Counter(d.cause for d in monitor.deaths if d.site == site and not d.born_dead)


def tokens(x: Tensor, step: int) -> Tensor:
    return (x.mean(2) * 10 + 20).long().clamp(0, 39)


@pytest.mark.parametrize(("of", "at"), [("pixels", 53), ("pixels", 59), ("tokens", 53)])
def test_a_rate_that_throws_the_network(of: str, at: int) -> None:
    """One update at a rate of 100, off the usual grid of captures and on it."""
    stem, data = (nn.Linear(8, 32), lambda x, _: x) if of == "pixels" else (nn.Embedding(40, 32), tokens)
    monitor = train(stem, data, lambda step: 100.0 if step == at else 0.02)
    found = sum((named(monitor, site) for site in SITES), Counter())
    assert found.total() >= 20
    assert found["learning_rate"] >= 0.85 * found.total(), found
    origins = {d.origin for d in monitor.deaths if d.site == SITES[1] and d.parameter is None and not d.born_dead}
    assert origins <= {SITES[0]}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("how", ["dim", "jump"])
def test_data_that_move(how: str, site: str) -> None:
    """The pixels fade away, or all become brighter at once; the rate is sound."""
    moves = {"dim": lambda x, t: x * 0.9 ** max(0, t - 50), "jump": lambda x, t: x + 30 * (t > 50)}
    found = named(train(nn.Linear(8, 32), moves[how]), site)
    assert found.total() >= 5
    assert found["input_shift"] >= 0.9 * found.total(), found


def test_nothing_dies_without_a_plant() -> None:
    for stem, data in ((nn.Linear(8, 32), lambda x, _: x), (nn.Embedding(40, 32), tokens)):
        assert sum(named(train(stem, data), site).total() for site in SITES) <= 1
