"""The decomposition of the margin: its parts sum exactly to the observed change, whatever layer feeds the site."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import deadrelu
from deadrelu.captures import QUANTITIES, Capture, Captures
from deadrelu.feeders import Picks, feeder
from deadrelu.kernels import Plan
from deadrelu.kinds import KINDS
from deadrelu.sites import Site


def mlp(bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=bias), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))


class Residual(nn.Module):
    """A site whose z is a norm's output plus a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = (
            nn.Conv2d(2, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, stride=1, padding=1),
            nn.BatchNorm2d(6),
        )
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x.reshape(-1, 2, 1, 3).expand(-1, -1, 5, -1)))
        return self.head(self.relu(self.norm(self.conv(x)) + x).mean((2, 3)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": mlp,
    "no bias": lambda: mlp(False),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)),
    "residual": Residual,
    "conv1d": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 7, 2, padding=1, groups=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_parts_sum_to_the_change(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: DESIGN 6.4: exact, telescoping over windows."""
    torch.manual_seed(0)
    model = MODELS[name]().double()
    model(torch.randn(4, 6, dtype=torch.float64))
    seen: dict[str, list[Captures]] = {}
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.5, weight_decay=0.01)
    with deadrelu.Monitor(model, optimizer, window=10, strict=True) as monitor:
        close = monitor._drift.close

        def keep() -> dict[str, Captures]:
            found = close()
            for site, captures in found.items():
                seen.setdefault(site, []).append(captures)
            return found

        monkeypatch.setattr(monitor._drift, "close", keep)
        for _ in range(40):
            x = torch.randn(64, 6, dtype=torch.float64)
            optimizer.zero_grad()
            (model(x) - x[:, :2].sin()).square().mean().backward()
            optimizer.step()
    assert seen
    for windows in seen.values():
        values = np.concatenate([w.values for w in windows])  # (captures, quantities, units)
        parts, margins = values[:, :5].sum(1), values[:, QUANTITIES.index("margin")]
        np.testing.assert_allclose(parts[1:], np.diff(margins, axis=0), atol=1e-12)
        assert np.abs(np.diff(margins, axis=0)).max() > 1e-3


def test_own_parts_against_a_copy_of_the_weights() -> None:
    """The weight and bias parts are the Shapley values over {weight, bias} with the old rows (brute force)."""
    torch.manual_seed(1)
    layer = nn.Linear(5, 4).double()
    old = copy.deepcopy(layer)
    x = torch.randn(64, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.weight += torch.randn_like(layer.weight)
        layer.bias -= 1

    def value(weight: nn.Linear, bias: nn.Linear) -> torch.Tensor:
        return margin(x @ weight.weight.T + bias.bias).detach()

    weight = ((value(layer, old) - value(old, old)) + (value(layer, layer) - value(old, layer))) / 2
    bias = ((value(old, layer) - value(old, old)) + (value(layer, layer) - value(layer, old))) / 2
    site = Site("relu", KINDS["relu"], 4, None, None)
    drift = deadrelu.drift.Drift(layer, [])
    follower = drift.followers["relu"] = deadrelu.drift.Follower(site, feeder("fc", layer, 4), None)  # type: ignore[arg-type]
    zero = torch.zeros(64, 4, dtype=torch.float64)
    rate = torch.ones(4, dtype=torch.float64)
    follower.x = x
    old_z = x @ old.weight.detach().T
    follower.measured.before = {
        "mean now": old_z.mean(0).numpy(),
        "std now": old_z.std(0).numpy(),
        "bias": old.bias.detach().numpy(),
    }
    follower.measured.last = Capture(6, old_z, old.bias.detach(), zero, rate, 1)
    follower.rows, follower.out, follower.shape = x, layer(x).detach(), torch.Size((64, 4))
    follower.picks = Picks({0: torch.arange(64)}, 1)
    drift.take(site, layer(x).detach(), 64 * rate, 64, 7)
    drift.after_update()
    (captures,) = drift.close().values()
    assert captures.steps == [7]
    np.testing.assert_allclose(captures.values[0, 0], weight)
    np.testing.assert_allclose(captures.values[0, 2], bias)
    np.testing.assert_allclose(captures.values[0, 4], 0, atol=1e-12)
    np.testing.assert_allclose(captures.values[0, 5], value(layer, layer))
    np.testing.assert_allclose(captures.values[0, QUANTITIES.index("rate")], 1)


def margin(z: torch.Tensor) -> torch.Tensor:
    """F(z) = mean + 2 std over rows."""
    return z.mean(0) + 2 * z.std(0)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), bias=False),
        nn.Conv2d(4, 8, 3, groups=2, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", groups=4),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv1d(4, 6, 3, stride=2, padding=2),
        nn.Conv3d(4, 3, 2, padding=1),
    ],
    ids=str,
)
def test_patches_give_the_output_of_a_convolution(conv: nn.Module) -> None:
    """A row of `apply` is the convolution's output at the picked place."""
    torch.manual_seed(2)
    dims = {3: 1, 4: 2, 5: 3}[conv.weight.ndim]
    x = torch.randn(5, 4, *([7, 6, 5][:dims]))
    y = conv(x).detach()
    plan = Plan(None, (1,), (0,), tuple(range(2, y.ndim)), tuple(y.shape))
    picks = Picks.draw(plan, torch.Generator().manual_seed(0), y.device)
    made = feeder("conv", conv, y.shape[1])
    assert picks is not None
    assert made is not None
    rows = made.apply(made.rows(x, y, picks))
    if conv.bias is not None:
        rows = rows + conv.bias.detach()
    torch.testing.assert_close(rows, picks.of(y))
