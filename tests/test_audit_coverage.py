"""What a report says of calls that were merged, and of parts that cannot be seen into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import through
from torch import nn

import deadrelu


class Cell(nn.Module):
    """A recurrent cell called T times: one site."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.map, self.relu = nn.Linear(7, 4), nn.ReLU()
        self.map.bias.data[1] = -100.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.relu(self.map(torch.cat([x[:, t], h], dim=1)))
        return h


def test_merged_calls() -> None:
    """Source: DESIGN 2: the calls of a recurrent cell add positions, not samples, and are listed in coverage.merged."""
    report = deadrelu.audit(Cell(), torch.randn(30, 5, 3), batch_size=7, exhaustive=True)
    site = report["relu"]
    assert (len(report), site.samples, site.positions) == (1, 30, 150)
    assert site.dead.nonzero()[0].tolist() == [1]
    assert report.coverage.merged == (("relu", 5),)
    assert report.to_dict()["coverage"]["merged"] == [{"site": "relu", "calls": 5}]


class Late(nn.Module):
    """Fires in one of two steps only: the sample rate counts a sample once, whichever call fired."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.relu = through(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.map(x[:, :1])) + self.relu(self.map(x[:, 1:]))


def test_sample_rate_of_merged_calls() -> None:
    """Source: DESIGN 2: samples with at least one active position / samples; here 3 of 4, at 4 of 8 positions."""
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    for batch_size in (4, 1):
        site = deadrelu.audit(Late(), x, batch_size=batch_size, exhaustive=True)["relu"]
        assert (site.samples, site.positions) == (4, 8)
        assert (site.sample_rate.tolist(), site.activation_rate.tolist()) == ([0.75], [0.5])


class Opaque(nn.Module):
    """Holds parts that cannot be seen into, beside one that can."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.head, self.relu = part, nn.Linear(4, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.part(x)
        return self.relu(self.head(y[0] if isinstance(y, tuple) else y))


OPAQUE: dict[str, Callable[[], nn.Module]] = {
    "nn.LSTM": lambda: nn.LSTM(4, 4, batch_first=True),
    "nn.GRU": lambda: nn.GRU(4, 4, batch_first=True),
    "nn.RNN with relu": lambda: nn.RNN(4, 4, nonlinearity="relu", batch_first=True),
}


@pytest.mark.parametrize("part", OPAQUE)
def test_fused_recurrence_is_listed_as_unsupported(part: str) -> None:
    """Source: DESIGN 6.1: fused, therefore listed with a reason, never silently missing."""
    report = deadrelu.audit(Opaque(OPAQUE[part]()), torch.randn(10, 3, 4))
    assert [s.site for s in report.sites] == ["relu"]
    assert [module for module, _ in report.coverage.unsupported] == ["part"]
    assert len(report.coverage.unsupported[0][1]) > 10
    assert report.to_dict()["coverage"]["unsupported"][0]["module"] == "part"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_part_is_listed_as_unsupported() -> None:
    """Source: DESIGN 6.1: what cannot be seen is listed in coverage."""
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    report = deadrelu.audit(Opaque(scripted), torch.randn(10, 4))
    assert [s.site for s in report.sites] == ["relu"]
    assert "part" in [module for module, _ in report.coverage.unsupported]


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_fused_cells_are_listed_as_unsupported(kind: Any) -> None:
    """Source: as above; the cells' gates are fused into one call too."""
    model = Opaque(kind(4, 4))
    report = deadrelu.audit(model, torch.randn(10, 4))
    assert "relu" in [s.site for s in report.sites]
    assert [module for module, _ in report.coverage.unsupported] == ["part"]
