"""Weights that modules compute from other tensors: as the modules compute them, and nothing is claimed of others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from deadrelu.checkpoint import open_checkpoint
from deadrelu.forensics import examine
from deadrelu.forensics.derived import Effective

from .course import Course, alone, of

SHOT = [1, 2]


def _flatten(g: torch.Tensor) -> None:
    with torch.no_grad():
        g[SHOT] = 0


def _old(make: Callable[..., Any], layer: nn.Module, **options: Any) -> None:
    """Call what torch warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(layer, **options)


def _weight_norm(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer)
    _flatten(layer.parametrizations.weight.original0)


def _old_weight_norm(layer: nn.Module) -> None:
    _old(nn.utils.weight_norm, layer)
    _flatten(layer.weight_g)


def _spectral_norm(layer: nn.Module) -> None:
    _flatten(layer.weight)
    parametrizations.spectral_norm(layer)


def _old_spectral_norm(layer: nn.Module) -> None:
    _flatten(layer.weight)
    _old(nn.utils.spectral_norm, layer)


def _prune(layer: nn.Module) -> None:
    mask = torch.ones_like(layer.weight)
    mask[SHOT] = 0
    prune.custom_from_mask(layer, "weight", mask)


WAYS: dict[str, Callable[[nn.Module], None]] = {
    "prune": _prune,
    "weight norm": _weight_norm,
    "old weight norm": _old_weight_norm,
    "spectral norm": _spectral_norm,
    "old spectral norm": _old_spectral_norm,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_weight_is_the_one_that_the_module_uses(way: str, kind: str, tmp_path: Path) -> None:
    """Ground truth: `module.weight` in eval mode. Two units have neither weights nor a positive bias."""
    torch.manual_seed(0)
    layer = nn.Linear(20, 8) if kind == "linear" else nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        layer.bias[:] = 0.5
        layer.bias[SHOT] = -1
    WAYS[way](layer)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(2, 20) if kind == "linear" else torch.randn(2, 4, 6, 6)
    for _ in range(5):  # spectral norm learns its direction in train mode
        layer(x)
    layer.eval()(x)
    report = alone(tmp_path, model)
    found = Effective(open_checkpoint(tmp_path / "w.pt").weights)["0.weight"]
    torch.testing.assert_close(found, layer.weight.detach(), rtol=1e-5, atol=1e-6)
    assert np.flatnonzero(report["0"].dead).tolist() == SHOT
    assert {c["claim"] for c in report["0"].claims} == {"zero_row"}


@pytest.mark.parametrize("dim", [1, 2, None])
def test_weight_norm_along_other_dimensions(dim: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    _old(nn.utils.weight_norm, model[0], dim=dim)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    found = Effective(open_checkpoint(tmp_path / "w.pt").weights)["0.weight"]
    torch.testing.assert_close(found, model[0].weight.detach(), rtol=1e-5, atol=1e-6)


def test_a_transposed_convolution_under_spectral_norm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.spectral_norm(nn.ConvTranspose2d(4, 8, 3)), nn.ReLU(), nn.Conv2d(8, 2, 1))
    report = alone(tmp_path, model.eval())
    found = Effective(open_checkpoint(tmp_path / "w.pt").weights)["0.weight"]
    torch.testing.assert_close(found, model[0].weight.detach(), rtol=1e-5, atol=1e-6)
    assert report["0"].units == 8


def test_a_pruned_bias_counts(tmp_path: Path) -> None:
    """Units without weights are silent if what the mask left of the bias is not positive; unit 0 is not."""
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[0].bias[:] = torch.tensor([1.0, 1.0, -1.0, 1.0])
    prune.custom_from_mask(model[0], "bias", torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert np.flatnonzero(alone(tmp_path, model)["0"].dead).tolist() == [1, 2]


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -2 * x


@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_what_only_code_can_compute_is_declined(leaf: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 0, -1
    parametrize.register_parametrization(model[0], leaf, Doubled())
    report = alone(tmp_path, model)
    assert [site.site for site in report] == ["2"]
    assert "only its code knows" in dict(report.coverage.unsupported)["0"]


@pytest.mark.parametrize(
    "names",
    [
        ("fc.base_layer", "fc.lora_A.default.weight", "fc.lora_B.default.weight"),
        ("fc", "fc.lora_A", "fc.lora_B"),
        ("fc", "fc.lora_A.weight", "fc.lora_B.weight"),
    ],
)
def test_what_an_adapter_adds_to_is_declined(names: tuple[str, str, str], tmp_path: Path) -> None:
    """The row of zeros fires, for an adapter adds to it."""
    base, a, b = names
    weight = torch.ones(4, 6)
    weight[1] = 0
    held = {f"{base}.weight": weight, f"{base}.bias": -torch.ones(4), a: torch.ones(2, 6), b: torch.ones(4, 2)}
    torch.save(held | {"out.weight": torch.ones(2, 4), "out.bias": torch.ones(2)}, tmp_path / "w.pt")
    report = examine(open_checkpoint(tmp_path / "w.pt"))
    assert [site.site for site in report] == ["out"]
    assert "merge" in dict(report.coverage.unsupported)[base]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64, torch.bool])
def test_ingredients_of_other_kinds_are_declined(dtype: torch.dtype, tmp_path: Path) -> None:
    held = {"a.weight_g": torch.ones(4, 1).to(dtype), "a.weight_v": torch.ones(4, 3), "b.weight": torch.ones(2, 4)}
    torch.save(held, tmp_path / "w.pt")
    assert "only its code knows" in dict(examine(open_checkpoint(tmp_path / "w.pt")).coverage.unsupported)["a"]


def test_the_optimizer_of_a_derived_weight_is_read(tmp_path: Path) -> None:
    course = Course()
    parametrizations.weight_norm(course.model[0])
    course.optimizer = torch.optim.Adam(course.model.parameters(), lr=1e-3)
    course.train(300)
    with torch.no_grad():
        course.model[0].bias[SHOT] -= 1e3
    course.train(120)
    lost = of(course.saved(tmp_path / "a.pt"), "0", "no_gradient")
    assert set(SHOT) <= set(lost)
    for unit in SHOT:
        assert lost[unit]["low"] <= 120 <= lost[unit]["high"]
