"""Layers whose weight is computed: by a parametrization, a norm, a mask, or held by nobody but the model itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import deadrelu

from .stage import digits

SPIKE = 83


class Functional(nn.Module):
    """No layer at all, but parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(64, 32), nn.Linear(32, 10)
        self.b1, self.w1, self.b2, self.w2 = (p for a in layers for p in (a.bias, a.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, self.w1, self.b1)), self.w2, self.b2)


def changed(change: Callable[[nn.Linear], Any]) -> nn.Module:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    change(model[0])
    return model


NETS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "functional": (Functional, "w1", "w1"),
    "weight_norm": (lambda: changed(parametrizations.weight_norm), "0.parametrizations.weight.original0", "0.bias"),
    "spectral_norm": (lambda: changed(parametrizations.spectral_norm), "0.parametrizations.weight.original", "0.bias"),
    "old spectral_norm": (lambda: changed(nn.utils.spectral_norm), "0.weight_orig", "0.bias"),
    "pruned": (
        lambda: changed(lambda layer: prune.random_unstructured(layer, "weight", 0.3)),
        "0.weight_orig",
        "0.bias",
    ),
}
"""How each is built, the first of what its weight is made of, and what is edited."""


def train(
    net: str,
    edit: Callable[[nn.Module, int], None] = lambda model, step: None,
    spike: float = 0.01,
    *,
    watch: bool = True,
) -> tuple[Any, list[Tensor]]:
    """Return the monitor, and every tensor of the model in the end."""
    torch.manual_seed(0)
    data, labels = digits()
    data = 1 + 0.3 * data
    model = NETS[net][0]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with deadrelu.Monitor(model, optimizer, window=10, strict=True) if watch else nullcontext() as monitor:
        for step in range(160):
            rows = torch.randint(len(data), (64,), generator=torch.Generator().manual_seed(step))
            optimizer.param_groups[0]["lr"] = spike if step == SPIKE else 0.01
            optimizer.zero_grad()
            F.cross_entropy(model(data[rows]), labels[rows]).backward()
            optimizer.step()
            edit(model, step)
    return monitor, [*model.parameters(), *model.buffers()]


@pytest.mark.parametrize("net", NETS)
def test_a_spike_is_found_by_doing_it_again(net: str) -> None:
    """The margin is not taken apart, but the update that killed is known, and which rates would have spared."""
    monitor, _ = train(net, spike=20.0)
    deaths = [d for d in monitor.deaths if d.killed_by_step == SPIKE]
    assert len(deaths) >= 3
    told = [d for d in deaths if d.cause == "learning_rate"]
    assert len(told) >= 0.8 * len(deaths)
    for death in told:
        assert (death.cause_evidence, death.lr, death.origin) == ("intervention", 20.0, None)
        assert death.parameter == NETS[net][1]
        assert death.safe_lr is not None
        assert 0 < death.safe_lr < 20


@pytest.mark.parametrize("by_data", [False, True], ids=["no_grad", "data"])
@pytest.mark.parametrize("net", NETS)
def test_an_edit_is_named(net: str, by_data: bool) -> None:
    def edit(model: nn.Module, step: int) -> None:
        parameter = model.get_parameter(NETS[net][2])
        if step == 43:
            with torch.no_grad():
                (parameter.data if by_data else parameter)[:24] -= 50.0

    deaths = [d for d in train(net, edit)[0].deaths if d.killed_by_step == 43]
    assert len(deaths) >= 4
    assert {(d.unit < 24, d.cause, d.parameter) for d in deaths} == {(True, "unknown", NETS[net][2])}


@pytest.mark.parametrize("net", NETS)
def test_training_is_untouched_by_replays(net: str) -> None:
    """Buffers of a norm that iterates, too."""
    watched = train(net, spike=20.0)[1]
    bare = train(net, spike=20.0, watch=False)[1]
    assert all(torch.equal(a, b) for a, b in zip(watched, bare, strict=True))
