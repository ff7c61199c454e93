"""What a stranger's training does to the inside of Monitor: branches, odd inputs, and what must not outlive its use."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import deadrelu
from deadrelu.feeders import Convolution, Picks, feeder


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def update(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def test_a_site_that_runs_in_steps_that_are_not_observed_only() -> None:
    torch.manual_seed(0)
    models = nn.ModuleDict({"a": mlp(), "b": mlp()})
    optimizer = torch.optim.SGD(models.parameters(), 0.01)
    with deadrelu.Monitor(models, optimizer, strict=True, every=2) as monitor:
        for step in range(160):
            update(models["a" if step % 2 == 0 else "b"], optimizer, torch.randn(64, 8))
            if step == 31:
                models["a"][0].bias.data[3] = -100.0
    assert [(d.site, d.unit, d.last_fired, d.resolution) for d in monitor.deaths] == [("a.1", 3, 30, 2)]


def test_a_site_that_runs_in_steps_that_are_not_captured_only() -> None:
    torch.manual_seed(0)
    models = nn.ModuleDict({"a": mlp(), "b": mlp()})
    optimizer = torch.optim.SGD(models.parameters(), 0.01)
    with deadrelu.Monitor(models, optimizer, strict=True) as monitor:
        for step in range(160):
            update(models["a" if step % 2 == 0 else "b"], optimizer, torch.randn(64, 8))
            if step == 31:
                models["b"][0].bias.data[3] = -100.0
    report = monitor.report()
    assert [s.site for s in report.sites] == ["a.1", "a.3", "b.1", "b.3"]
    assert report["b.1"].dead.nonzero()[0].tolist() == [3]
    assert report["b.1"].activation_rate[3] == 0
    assert 0.2 < report["b.1"].activation_rate.mean() < 0.8


class Turns(nn.Module):
    """Takes one way and the other in turn."""

    def __init__(self, ways: int) -> None:
        super().__init__()
        self.ways = nn.ModuleList([mlp() for _ in range(ways)])
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        self.turn += 1
        way: Tensor = self.ways[(self.turn - 1) % len(self.ways)](x)
        return way


@pytest.mark.parametrize("ways", [2, 3])
def test_ways_that_alternate_are_all_found(ways: int) -> None:
    torch.manual_seed(0)
    model = Turns(ways)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    killed = 33
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(60 + 50 * ways):
            update(model, optimizer, torch.randn(64, 8))
            if step == killed:
                for way in model.ways:
                    way[0].bias.data[3] = -100.0
    last = {step % ways: step for step in range(killed + 1)}
    for way in range(ways):
        found = [(d.last_fired, d.confirmed) for d in monitor.deaths if (d.site, d.unit) == (f"ways.{way}.1", 3)]
        assert found == [(last[way], last[way] + 47 * ways)]
    assert monitor.report().coverage.uncalled == ()


class Checkpointed(nn.Module):
    """Blocks whose activations are not kept; `alive` says how many outputs of layers are there at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8)) for _ in range(4)])
        self.made: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []
        for block in self.blocks:
            block[0].register_forward_hook(lambda module, args, out: self.made.append(weakref.ref(out)))

    def forward(self, x: Tensor) -> Tensor:
        self.made.clear()
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        self.alive.append(sum(made() is not None for made in self.made))
        return x


def test_captures_keep_no_activation_alive() -> None:
    """Where activations are computed twice, to save their memory, a captured step must not hold on to all of them."""
    torch.manual_seed(0)
    model = Checkpointed()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with deadrelu.Monitor(model, optimizer, strict=True):
        for _ in range(30):
            update(model, optimizer, torch.randn(16, 8))
    assert model.alive[1:] == [0] * 29


def test_what_is_kept_of_many_shapes_is_bounded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with deadrelu.Monitor(model, optimizer, strict=True, window=10, snapshot_memory=0) as monitor:
        held = []
        for step in range(100):
            update(model, optimizer, torch.randn(2, 3, 5 + step // 10, 5 + step % 10))
            held.append(_patch_bytes(monitor))
    rows = 64 * (3 + 16) * 9 * 4
    assert 0 < max(held) <= 8 * 2 * rows


def _patch_bytes(monitor: deadrelu.Monitor) -> int:
    drawn = [p for f in monitor._drift.followers.values() for p in f.drawn.values() if p is not None]
    return sum(places.index.nbytes for picks in drawn for places in picks._places.values())


def test_a_nan_in_one_of_several_calls_hides_no_firing() -> None:
    """All units fire in the first half of every step's samples; a NaN among these must not leave the second half."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU())
    model[0].weight.data[:, 0] = model[0].weight.data[:, 0].abs() + 0.1
    with deadrelu.Monitor(model, strict=True) as monitor:
        for step in range(60):
            for half in range(2):
                x = torch.randn(3000, 4)
                if half:
                    x[:, 0] = -1000.0
                elif step in (23, 43):
                    x[0] = torch.nan
                model(x)
            monitor.step()
    assert monitor.deaths == []


def test_shares_of_batches_of_one_sample() -> None:
    """Of one row there is no deviation, and so no margin; a batch of one among others is passed over."""
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(300):
            update(model, optimizer, torch.randn(1 if step % 20 == 0 else 64, 8))
            if 150 < step < 160:
                with torch.no_grad():
                    model[0].bias[3] -= 1.0
    deaths = [d for d in monitor.deaths if (d.site, d.unit) == ("1", 3)]
    assert len(deaths) == 1
    for death in deaths:
        assert death.shares is not None
        moved = death.margin_after - death.margin_before
        assert moved < -5
        assert sum(death.shares.values()) == pytest.approx(moved, abs=1e-4)


def test_only_batches_of_one_sample() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        for step in range(3200):
            update(model, optimizer, torch.randn(1, 8))
            if step == 100:
                model[0].bias.data[3] = -100.0
    (death,) = [d for d in monitor.deaths if (d.site, d.unit) == ("1", 3)]
    assert death.last_fired is None or death.last_fired <= 100
    assert death.shares is None


@pytest.mark.parametrize("whole", [True, False])
def test_inference_mode(whole: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model.eval()
    with deadrelu.Monitor(model, strict=True, count_eval=True) as monitor:
        for step in range(120):
            with torch.inference_mode(whole or step % 3 == 0):
                model(torch.randn(64, 3, 8, 8))
            monitor.step()
            if step == 30:
                model[0].bias.data[2] = -100.0
    assert [(d.site, d.unit, d.last_fired, d.confirmed) for d in monitor.deaths] == [("1", 2, 30, 77)]


def test_a_resumed_run_dates_as_coarsely_as_it_was_observed() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with deadrelu.Monitor(model, optimizer, strict=True, every=4) as first:
        for step in range(63):
            update(model, optimizer, torch.randn(64, 8))
            if step == 57:
                model[0].bias.data[3] = -100.0
        state = first.state_dict()
    with deadrelu.Monitor(model, optimizer, strict=True) as second:
        second.load_state_dict(state)
        for step in range(63, 200):
            update(model, optimizer, torch.randn(64, 8))
            if step == 100:
                model[0].bias.data[5] = -100.0
    found = {d.unit: (d.last_fired, d.resolution) for d in second.deaths if d.site == "1"}
    assert (found[3], found[5]) == ((56, 4), (100, 1))


def _convolutions() -> Iterator[tuple[Convolution, Tensor]]:
    x = torch.randn(3, 4, 9, 8, dtype=torch.double)
    for mode in ("zeros", "reflect", "replicate", "circular"):
        conv = nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2, padding_mode=mode)
        for view in (x, x.contiguous(memory_format=torch.channels_last), x[1:], x[:1].expand(3, -1, -1, -1), x.mT):
            yield conv.double(), view
    yield nn.Conv1d(4, 6, 3, padding="same", bias=False).double(), x[:, :, 0]
    yield nn.Conv3d(4, 6, 2, padding=1).double(), x[..., None].expand(-1, -1, -1, -1, 5)
    edited = nn.Conv2d(4, 8, 3, padding=1).double()
    edited.padding, edited.dilation = (2, 2), (2, 2)  # as segmentation nets make strides into dilation
    yield edited, x


def test_patches_are_what_the_convolution_multiplies() -> None:
    torch.manual_seed(0)
    for conv, x in _convolutions():
        out = conv(x)
        index = {a: torch.randint(out.shape[a], (12,)) for a in range(out.ndim) if a != 1}
        picks, layer = Picks(index, 1), feeder("conv", conv, out.shape[1])
        assert layer is not None
        for _ in range(2):  # found, and remembered
            made = layer.apply(layer.rows(x, picks))
            made = made if conv.bias is None else made + conv.bias
            torch.testing.assert_close(made, picks.of(out))
