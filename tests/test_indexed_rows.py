"""Which rows of a batch an index takes: samples, as long as none can come twice.

Ground truth: the shape of what is taken, from the semantics of advanced indexing; DESIGN 2 for samples that are lost.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deadrelu


class Indexed(nn.Module):
    def __init__(self, index: Any) -> None:
        super().__init__()
        self.index, self.fc, self.act = index, nn.Linear(5, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x)[self.index])


@pytest.mark.parametrize(
    ("index", "samples", "positions"),
    [
        (torch.tensor([3, 1, 7]), 3, 18),
        ([0, 2], 2, 12),
        (torch.tensor([-1, 0]), 2, 12),
        (torch.arange(8) > 2, 5, 30),
        ((torch.tensor([3, 1, 7]), torch.tensor([0, 5, 5])), 3, 3),
        ((torch.tensor([3, 1]), slice(2)), 2, 4),
        ((slice(None), torch.tensor([3, 3])), 8, 16),
        (torch.tensor([-1, 7]), None, 12),
        ([1, 1], None, 12),
        (torch.tensor([[3, 1, 7]]), None, 18),
        ((torch.tensor([3, 1, 7]), torch.tensor([[0, 1, 2], [3, 4, 5]])), None, 6),
        (torch.arange(48).view(8, 6) % 2 == 0, None, 24),
    ],
    ids=str,
)
def test_rows_that_are_taken_once_are_samples(index: Any, samples: int | None, positions: int) -> None:
    """Of 8 samples of 6 tokens; where a sample may come twice, or no axis holds samples, they are lost."""
    report = deadrelu.audit(Indexed(index), torch.randn(8, 6, 5))
    (site,) = report.sites
    assert (site.units, site.samples, site.positions) == (4, samples or 1, positions)
    assert report.coverage.batch_lost == (() if samples else ("act",))
