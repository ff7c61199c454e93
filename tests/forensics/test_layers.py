"""Which units a checkpoint has, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from replicas import REPLICAS, Replica
from torch import nn

from deadrelu.checkpoint import open_checkpoint
from deadrelu.errors import CheckpointError, InputError
from deadrelu.forensics import examine
from deadrelu.forensics.layers import find_layers

from .course import alone


def test_what_is_no_layer_is_listed(tmp_path: Path) -> None:
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(9, 4, padding_idx=0),
            "rnn": nn.LSTM(4, 6),
            "attention": nn.MultiheadAttention(4, 2),
            "fc": nn.Linear(6, 8),
            "act": nn.PReLU(8),
            "head": nn.utils.parametrizations.weight_norm(nn.Linear(8, 2)),
            "norm": nn.LayerNorm(4),
        }
    )
    report = alone(tmp_path, model)
    assert [site.site for site in report] == ["attention.out_proj", "head"]
    reasons = dict(report.coverage.unsupported)
    for name, word in {
        "table": "embedding",
        "rnn": "LSTM",
        "attention": "attention",
        "fc": "PReLU",
        "norm": "norm",
    }.items():
        assert word in reasons[name]
    assert report.dead == 0


@pytest.mark.parametrize("replica", REPLICAS, ids=lambda replica: replica.name)
def test_units_of_real_architectures(replica: Replica, tmp_path: Path) -> None:
    """Ground truth: the modules themselves. Of freshly drawn weights nothing is claimed."""
    torch.manual_seed(0)
    model = replica.build()
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    checkpoint = open_checkpoint(tmp_path / "w.pt")
    layers = {layer.name: layer for layer in find_layers(checkpoint.weights)[0]}
    for name, module in model.named_modules():
        if name in layers and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            dim = int(isinstance(module, nn.modules.conv._ConvTransposeNd))
            assert (layers[name].unit_dim, layers[name].units) == (dim, module.weight.shape[dim])
    if layers:
        assert not [claim for site in examine(checkpoint) for claim in site.claims]


def test_nan_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(CheckpointError, match=r"weight \(9\)"):
        alone(tmp_path, model)


def test_no_layer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no layer whose units"):
        alone(tmp_path, nn.LSTM(3, 3))


def test_patterns(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    assert [s.site for s in alone(tmp_path, model, exclude="2")] == ["0"]
    with pytest.raises(InputError, match="all 2 layers"):
        alone(tmp_path, model, include=["fc*"])


@pytest.mark.parametrize("name", ["\u00b2.weight", "9" * 5000 + ".weight", ".weight", "a..weight", "0.\u0661.weight"])
def test_strange_names(name: str, tmp_path: Path) -> None:
    torch.save({name: torch.ones(4, 3), "z.weight": torch.ones(2, 4)}, tmp_path / "w.pt")
    assert len(examine(open_checkpoint(tmp_path / "w.pt"))) == 2
