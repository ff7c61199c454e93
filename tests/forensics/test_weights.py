"""What weights and norms say of each unit, and what they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deadrelu.checkpoint import open_checkpoint
from deadrelu.forensics import examine

from .course import alone, of


@pytest.mark.parametrize(("bias", "dead"), [(-1.0, [2]), (0.0, [2]), (1.0, [])])
def test_rows_of_zeros(bias: float, dead: list[int], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, bias
    report = alone(tmp_path, model)
    assert np.flatnonzero(report["0"].dead).tolist() == dead
    assert sorted(of(report, "0", "zero_row")) == dead
    assert (report.evidence == "proved") == bool(dead)


def test_transposed_convolutions_have_their_units_in_the_second_dimension(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3))
    with torch.no_grad():
        model[0].weight[:, 5], model[0].bias[5] = 0, -1
    report = alone(tmp_path, model)
    assert report["0"].units == 6
    assert np.flatnonzero(report["0"].dead).tolist() == [5]


def test_a_layer_of_zeros_is_no_death(tmp_path: Path) -> None:
    """Residual branches and new heads are made to start at zero."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 6))
    nn.init.zeros_(model[2].weight), nn.init.zeros_(model[2].bias)
    report = alone(tmp_path, model)
    assert report.dead == 0
    assert "start at zero" in dict(report.coverage.unsupported)["2"]


@pytest.mark.parametrize("beta", [-1.0, 0.5, 3.0])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("gamma", [-1.5, 0.0, 1.5])
def test_a_row_of_zeros_behind_a_batch_norm(beta: float, shift: float, gamma: float, tmp_path: Path) -> None:
    """Ground truth: the model run in eval and in train mode, with the rectifier behind the norm and before it."""
    torch.manual_seed(0)
    for norm_first in (True, False):
        tail = [nn.BatchNorm2d(4), nn.ReLU()] if norm_first else [nn.ReLU(), nn.BatchNorm2d(4)]
        model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), *tail)
        norm = model[1 if norm_first else 2]
        with torch.no_grad():
            model[0].weight[1] = 0
            norm.weight[1], norm.bias[1], norm.running_mean[1] = gamma, beta, shift
        held = {("1" if k.startswith("2") else k[0]) + k[1:]: v for k, v in model.state_dict().items()}
        torch.save(held, tmp_path / "w.pt")
        report = examine(open_checkpoint(tmp_path / "w.pt"))
        fires = False
        for mode in (False, True):
            h = torch.randn(8, 3, 6, 6)
            for layer in model.train(mode):
                h = layer(h)
                fires = fires or (isinstance(layer, nn.ReLU) and bool((h[:, 1] > 0).any()))
        if norm_first or gamma != 0:
            assert not (fires and report["0"].dead[1])
        if norm_first:
            assert bool(report["0"].dead[1]) == (not fires)


def test_channels_that_are_likely_rare(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    with torch.no_grad():
        model[1].bias[2] = -5
    report = alone(tmp_path, model)
    (claim,) = report["0"].claims
    assert (claim["unit"], claim["claim"], claim["level"], claim["layer"]) == (2, "likely_rare", "heuristic", "1")
    assert claim["cantelli"] == pytest.approx(1 / 26)
    assert report.dead == 0


def test_rows_without_a_positive_number_are_no_proof(tmp_path: Path) -> None:
    """Whether inputs are negative is not in the file; and in a narrow layer it is chance."""
    model = nn.Sequential(nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight[3].abs_().neg_(), model[0].bias[3].abs_().neg_()
        model[2].weight.abs_().neg_(), model[2].bias.abs_().neg_()
    report = alone(tmp_path, model)
    assert report.dead == 0
    assert [(c["unit"], c["level"], c["given"]) for c in report["0"].claims] == [
        (3, "heuristic", "no input is ever negative")
    ]
    assert not report["2"].claims


def test_a_norm_that_a_sequential_puts_before_a_linear(tmp_path: Path) -> None:
    """Ground truth: sup z = b + w.beta + sqrt(d) |w gamma| bounds what any input can reach."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8), nn.ReLU())
    bound = 4 * model[1].weight.detach().norm(dim=1)
    with torch.no_grad():
        model[1].bias[0] = -1.001 * bound[0]
        model[1].bias[1] = -0.9 * bound[1]
    report = alone(tmp_path, model)
    assert np.flatnonzero(report["1"].dead).tolist() == [0]
    assert report["1"].claims[0]["given"] == "0 feeds it directly"
    assert not (model(1e4 * torch.randn(20_000, 16))[:, 0] > 0).any()


def test_channels_that_stopped_varying(tmp_path: Path) -> None:
    """ReLU, then BatchNorm: a channel shot 300 train-mode forwards ago, dated by its running variance."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.BatchNorm1d(12), nn.Linear(12, 1))
    with torch.no_grad():
        for forward in range(500):
            if forward == 200:
                model[0].bias[3] = -1e3
            model(torch.randn(64, 6))
    report = alone(tmp_path, model)
    found = of(report, "0", "no_variance")
    assert list(found) == [3]
    assert found[3]["low"] <= 300 <= found[3]["high"]
    assert found[3]["momentum"] == 0.1
