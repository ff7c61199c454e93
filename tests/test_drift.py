"""The decomposition of the margin: its parts sum exactly to the observed change, whatever layer feeds the site."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import deadrelu
from deadrelu.captures import QUANTITIES, Captures, _mean_std
from deadrelu.drift import Drift
from deadrelu.feeders import Picks, feeder
from deadrelu.kernels import Plan


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
    seen: dict[str, list[NDArray[np.float64]]] = {}
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.5, weight_decay=0.01)
    with deadrelu.Monitor(model, optimizer, window=10, strict=True) as monitor:
        close = monitor._drift.close

        def keep() -> tuple[Callable[[], Captures], NDArray[np.float64]]:
            captures, rates = close()
            found = captures()
            for site in found.columns:
                seen.setdefault(site, []).append(found.of(site)[1])
            return lambda: found, rates

        monkeypatch.setattr(monitor._drift, "close", keep)
        for _ in range(40):
            x = torch.randn(64, 6, dtype=torch.float64)
            optimizer.zero_grad()
            (model(x) - x[:, :2].sin()).square().mean().backward()
            optimizer.step()
    assert seen
    for windows in seen.values():
        values = np.concatenate(windows)  # (captures, quantities, units)
        parts, margins = values[:, :5].sum(1), values[:, QUANTITIES.index("margin")]
        np.testing.assert_allclose(parts[1:], np.diff(margins, axis=0), atol=1e-12)
        assert np.abs(np.diff(margins, axis=0)).max() > 1e-3


def test_own_parts_against_a_copy_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight and bias parts are the Shapley values over {weight, bias} with the old rows (brute force)."""
    torch.manual_seed(1)
    layer = nn.Linear(5, 4).double()
    model = nn.Sequential(layer, nn.ReLU())
    x = torch.randn(64, 5, dtype=torch.float64)
    old = copy.deepcopy(layer)
    with deadrelu.Monitor(model, window=2, strict=True) as monitor:
        close, kept = monitor._drift.close, []

        def keep() -> tuple[Callable[[], Captures], NDArray[np.float64]]:
            captures, rates = close()
            kept.append((captures(), rates))
            return lambda: kept[-1][0], rates

        monkeypatch.setattr(monitor._drift, "close", keep)
        model(x)
        with torch.no_grad():
            layer.weight += torch.randn_like(layer.weight)
            layer.bias -= 1
        monitor.step()  # the update that was just made, by hand
        model(x)
        monitor.step()

    def value(weight: nn.Linear, bias: nn.Linear) -> torch.Tensor:
        return margin(x @ weight.weight.T + bias.bias).detach()

    weight = ((value(layer, old) - value(old, old)) + (value(layer, layer) - value(old, layer))) / 2
    bias = ((value(old, layer) - value(old, old)) + (value(layer, layer) - value(layer, old))) / 2
    ((captures, rates),) = kept
    steps, values = captures.of("1")
    assert steps == [0, 1]
    assert np.isnan(rates).all()  # no optimizer
    assert not values[0, :5].any()
    np.testing.assert_allclose(values[0, 5], value(old, old))
    np.testing.assert_allclose(values[1, 0], weight)
    np.testing.assert_allclose(values[1, 2], bias)
    np.testing.assert_allclose(values[1, 4], 0, atol=1e-12)
    np.testing.assert_allclose(values[1, 5], value(layer, layer))
    np.testing.assert_allclose(values[1, QUANTITIES.index("rate")], (layer(x) > 0).double().mean(0).numpy())
    own = (x @ (layer.weight - old.weight).T + layer.bias - old.bias).mean(0).detach()
    np.testing.assert_allclose(values[0, QUANTITIES.index("kick")], own)
    np.testing.assert_allclose(values[1, QUANTITIES.index("own")], own)


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
    picks = Picks.draw(plan, torch.Generator().manual_seed(0))
    made = feeder("conv", conv, y.shape[1])
    assert picks is not None
    assert made is not None
    rows = made.apply(made.rows(x, picks))
    if conv.bias is not None:
        rows = rows + conv.bias.detach()
    torch.testing.assert_close(rows, picks.of(y))
    if x.ndim == 4:  # whatever the memory format
        torch.testing.assert_close(made.rows(x.to(memory_format=torch.channels_last), picks), made.rows(x, picks))


@pytest.mark.parametrize(
    ("shape", "units"), [((70, 5), 1), ((9, 6, 4), 2), ((9, 6, 4), 1), ((4, 9, 6), 0), ((3, 4, 5, 6), 1)]
)
def test_picks_find_rows_whatever_the_strides(shape: tuple[int, ...], units: int) -> None:
    """Against one index after the other."""
    torch.manual_seed(3)
    first, *others = (axis for axis in range(len(shape)) if axis != units)
    plan = Plan(None, (units,), (first,), tuple(others), shape)
    picks = Picks.draw(plan, torch.Generator().manual_seed(0))
    assert picks is not None
    x = torch.randn(shape)
    for tensor in (x, x.mT.contiguous().mT, x[:1].expand(shape), torch.randn(2 * x.numel())[1::2].view(shape)):
        last = tensor.movedim(units, -1)
        places = zip(*(picks.index[axis].tolist() for axis in (first, *others)), strict=True)
        assert torch.equal(picks.of(tensor), torch.stack([last[place] for place in places]))


def test_a_feature_has_died_only_if_it_is_zero_in_every_row() -> None:
    x = torch.tensor([[1.0, 0.0, 2.0, torch.nan], [-1.0, 0.0, 3.0, 0.0]])
    lives = Drift._lives(x)
    assert lives is not None
    assert lives.tolist() == [True, False, True, True]
    assert Drift._lives(x[:, [0, 2, 3]]) is None  # though what the first one holds adds up to zero
    patches = torch.zeros(2, 3, 2, 2)
    patches[0, 0, 0], patches[1, 2] = torch.tensor([1.0, -1.0]), 1.0
    lives = Drift._lives(patches)
    assert lives is not None
    assert lives.tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_that_are_alike_have_no_deviation(dtype: torch.dtype) -> None:
    """Exactly none, or an update would be infinitely many of it; else what `torch.std_mean` finds."""
    rng = torch.Generator().manual_seed(0)
    alike = torch.randn(1, 50, generator=rng, dtype=dtype).expand(67, 50)
    several = 1e3 * torch.randn(50, generator=rng, dtype=dtype) + torch.randn(67, 50, generator=rng, dtype=dtype)
    mean, deviation = _mean_std(torch.cat((alike, several), 1))
    assert torch.equal(mean[:50], alike[0])
    assert deviation[:50].count_nonzero() == 0
    expected = torch.std_mean(several.double(), 0)
    torch.testing.assert_close(deviation[50:].double(), expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(mean[50:].double(), expected[1], rtol=1e-6, atol=0)
