"""Changes planted into a real network, and what `diff` says did it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import deadrelu
from deadrelu.errors import CheckpointError, DataError, InputError

DYING = (1, 4, 6)
DATA = torch.randn(400, 6, generator=torch.Generator().manual_seed(3))


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))


def lowered(net: nn.Sequential) -> None:
    net[2].bias[list(DYING)] -= 50


def turned(net: nn.Sequential) -> None:
    """All weights negative on inputs that are >= 0, the bias a little under zero as it may well be."""
    net[2].weight[list(DYING)] = -net[2].weight[list(DYING)].abs() * 30


def starved(net: nn.Sequential) -> None:
    """The first layer dies; units of the second whose bias is not positive follow."""
    net[0].bias -= 50


def both(net: nn.Sequential) -> None:
    lowered(net)
    turned(net)


def several(net: nn.Sequential) -> None:
    lowered(net)
    starved(net)


@pytest.mark.parametrize(
    ("plant", "cause", "sufficient", "undoes"),
    [
        (lowered, "bias", ("bias",), {"weights": 0, "bias": 3, "own": 3, "upstream": 0}),
        (turned, "weights", ("weights",), {"weights": 3, "bias": 0, "own": 3, "upstream": 0}),
        (starved, "upstream", ("upstream",), {"weights": 0, "bias": 0, "own": 0, "upstream": 3}),
        (both, "either", ("weights", "bias"), {"weights": 0, "bias": 0, "own": 3, "upstream": 0}),
        (several, "several", ("bias", "upstream"), {"weights": 0, "bias": 0, "own": 0, "upstream": 0}),
    ],
)
def test_a_planted_change_is_named(
    plant: Callable[[nn.Sequential], None], cause: str, sufficient: tuple[str, ...], undoes: dict[str, int]
) -> None:
    old = mlp()
    with torch.no_grad():
        old[2].bias.fill_(2.0)  # all fire, fed or not
        old[2].bias[list(DYING)] = -0.01
        old[2].weight[list(DYING)] = old[2].weight[list(DYING)].abs() + 0.1
    new = copy.deepcopy(old)
    with torch.no_grad():
        plant(new)
    found = deadrelu.diff(old, new, data=DATA)["3"]
    assert tuple(death.unit for death in found.deaths) == DYING
    for death in found.deaths:
        assert death.cause == cause
        assert death.sufficient == sufficient
        assert death.shares is not None
        assert sum(death.shares.values()) == pytest.approx(death.max_z[1] - death.max_z[0], abs=1e-4)
    assert found.causes == {cause: 3}
    assert found.revived_by == undoes
    assert found.own == {"weights": ("2.weight",), "bias": ("2.bias",)}


def test_max_z_and_statuses_are_those_of_the_audits() -> None:
    old, new = mlp(), mlp()
    with torch.no_grad():
        lowered(new)
    found = deadrelu.diff(old, new, data=DATA)
    before, after = deadrelu.audit(old, DATA), deadrelu.audit(new, DATA)
    for site in found:
        silent = [set(np.flatnonzero(report[site.site].silent).tolist()) for report in (before, after)]
        assert {death.unit for death in site.deaths} == silent[1] - silent[0]
        assert set(site.revivals) == silent[0] - silent[1]
        assert set(site.still) == silent[0] & silent[1]
        assert site.silent == (len(silent[0]), len(silent[1]))
    assert {death.status for death in found["3"].deaths} == {"undecided"}
    assert {d.status for d in deadrelu.diff(old, new, data=DATA, exhaustive=True)["3"].deaths} == {"dead"}


def test_revivals() -> None:
    old, new = mlp(), mlp()
    with torch.no_grad():
        lowered(old)
    found = deadrelu.diff(old, new, data=DATA)
    assert found["3"].revivals == DYING
    assert (found.deaths, found.revivals, found.probed) == (0, 3, 0)


class Normed(nn.Module):
    """A residual block with BatchNorm: what is a unit's own includes the norm behind its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.stem(x))
        h = torch.relu(self.norm(self.conv(h)) + h)
        return self.head(h.mean((2, 3)))


def test_own_parameters_through_a_norm_and_a_residual_add() -> None:
    torch.manual_seed(0)
    old = Normed().eval()
    new = copy.deepcopy(old)
    with torch.no_grad():
        new.norm.bias[2] -= 100
        new.norm.weight[3] *= -1
    found = deadrelu.diff(old, new, data=torch.randn(64, 1, 6, 6))["relu()#1"]
    assert [(death.unit, death.cause) for death in found.deaths] == [(2, "bias")]
    assert set(found.own["weights"]) == {
        *("conv.weight", "norm.weight", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked")
    }
    assert found.own["bias"] == ("norm.bias",)


def test_spectral_norm_hooks_and_tied_weights() -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
            self.b = nn.Linear(6, 6)
            self.c = nn.Linear(6, 6)
            self.c.weight = self.b.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x))))))

    old = Net().eval()
    with torch.no_grad():
        old.b.bias.fill_(1.0)
        old.c.bias.fill_(3.0)
    new = copy.deepcopy(old)
    with torch.no_grad():
        new.c.bias[2] -= 100
    found = deadrelu.diff(old, new, data=DATA)
    assert [(site.site, d.unit, d.cause) for site in found for d in site.deaths] == [("relu()#2", 2, "bias")]


def test_one_shot_data_and_loaders() -> None:
    old, new = mlp(), mlp()
    with torch.no_grad():
        lowered(new)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(DATA), batch_size=50, shuffle=True)
    expected = [death.unit for death in deadrelu.diff(old, new, data=DATA)["3"].deaths]
    for data in (list(DATA.split(64)), iter(DATA.split(64)), loader, DATA.numpy()):
        found = deadrelu.diff(old, new, data=data)["3"]
        assert [death.unit for death in found.deaths] == expected
        assert found.causes == {"bias": len(expected)}


def test_nothing_is_changed() -> None:
    old, new = mlp(), mlp(1)
    before = [{name: t.clone() for name, t in net.state_dict().items()} for net in (old, new)]
    random = torch.get_rng_state()
    deadrelu.diff(old, new, data=DATA, update=True, lr=0.1)
    assert torch.equal(torch.get_rng_state(), random)
    for net, state in zip((old, new), before, strict=True):
        assert net.training
        assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_learning_rates_of_one_update() -> None:
    """The step is redone at 0.98 and 1.02 of the rates that `diff` names: its own at fixed inputs, and the whole."""
    old = mlp().double()
    data = DATA.double()
    new = copy.deepcopy(old)
    new.zero_grad()
    (new(data) + 3).square().mean().backward()
    lr = 2.0
    steps = {name: parameter.grad.clone() for name, parameter in new.named_parameters() if parameter.grad is not None}
    torch.optim.SGD(new.parameters(), lr=lr).step()
    found = deadrelu.diff(old, new, data=data, update=True, lr=lr, probe=400)
    assert found.deaths > 3
    assert found.lr == lr

    def fires(rate: float, site: str, names: tuple[str, ...] | None) -> np.ndarray:
        net = copy.deepcopy(old)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter -= rate * steps[name] * (names is None or name in names)
        return deadrelu.audit(net, data)[site].activation_rate > 0

    checked = 0
    for site in found:
        own = (*site.own.get("weights", ()), *site.own.get("bias", ()))
        for death in site.deaths:
            if death.lr is not None:
                low, high = death.lr
                checked += 1
                assert fires(low * (1 - 1e-6), site.site, own)[death.unit]
                assert not fires(low * (1 + 1e-6), site.site, own)[death.unit]
                assert high is None or fires(high * (1 + 1e-6), site.site, own)[death.unit]
            if death.safe_lr is not None:
                assert fires(death.safe_lr * 0.97, site.site, None)[death.unit]
                assert not fires(death.safe_lr * 1.03, site.site, None)[death.unit]
    assert checked > 2


def test_no_interval_where_z_bends() -> None:
    torch.manual_seed(0)
    old = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU())
    new = copy.deepcopy(old)
    with torch.no_grad():
        new[0].weight *= -1
        new[1].bias[3] -= 40
    (death,) = deadrelu.diff(old, new, data=DATA, update=True)["2"].deaths
    assert death.fraction is None
    assert death.safe_fraction is not None
    assert death.safe_lr is None


def test_old_hooks_that_make_a_weight_are_copied() -> None:
    """After a forward pass, those of `spectral_norm` hold a weight that Python cannot copy; it is made anew."""

    def build() -> nn.Sequential:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 8)), nn.ReLU())

    old, new = build(), build()
    with torch.no_grad():
        new[0].bias[2] -= 100
    for net in (old, new):
        net(DATA)
    found = deadrelu.diff(old, new, data=DATA)
    assert [(death.unit, death.cause) for death in found["1"].deaths] == [(2, "bias")]


def test_a_model_that_cannot_be_copied_is_compared_all_the_same() -> None:
    """A hook of its own keeps an output, and with it a graph, which Python cannot copy."""

    def build() -> nn.Sequential:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        net[0].kept = []  # type: ignore[assignment]
        net[0].register_forward_hook(lambda module, args, out: module.kept.append(out))
        return net

    old, new = build(), build()
    with torch.no_grad():
        new[0].bias[2] -= 100
    for net in (old, new):
        net(DATA)
    found = deadrelu.diff(old, new, data=DATA)
    assert [(death.unit, death.cause) for death in found["1"].deaths] == [(2, None)]
    (note,) = found.notes
    assert "cannot be copied" in note


def test_a_mixture_that_the_model_refuses_is_said_so() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert (self.net[2].weight[0, 0] > 0) == (self.net[2].bias[0] > 0), "torn apart"
            return self.net(x)

    old = Careful()
    with torch.no_grad():
        old.net[2].weight[0], old.net[2].bias[0] = 1.0, 1.0
    new = copy.deepcopy(old)
    with torch.no_grad():
        new.net[2].weight[0], new.net[2].bias[0] = -1.0, -100.0
    found = deadrelu.diff(old, new, data=DATA)
    assert [(death.unit, death.cause) for death in found["net.3"].deaths] == [(0, None)]
    (note,) = found.notes
    assert "refused a mixture" in note
    assert "torn apart" in note


def test_refusals() -> None:
    net = mlp()
    with pytest.raises(CheckpointError, match=r"different architectures: 0.weight is \[16, 6\] in one and \[3, 6\]"):
        deadrelu.diff(net, nn.Sequential(nn.Linear(6, 3), nn.ReLU()), data=DATA)
    with pytest.raises(InputError, match="pass model="):
        deadrelu.diff(net.state_dict(), net.state_dict(), data=DATA)
    with pytest.raises(InputError, match="give data as well"):
        deadrelu.diff(net, net, update=True)
    with pytest.raises(InputError, match="update=True"):
        deadrelu.diff(net, net, data=DATA, lr=0.1)
    with pytest.raises(InputError, match="a state is a int"):
        deadrelu.diff(net, 3)
    with pytest.raises(DataError, match="refused batch 0"):
        deadrelu.diff(net, net, data=torch.randn(4, 5))
    state = nn.Sequential(nn.Linear(6, 3)).state_dict()
    with pytest.raises(CheckpointError, match="does not fit Sequential"):
        deadrelu.diff(state, state, model=net, data=DATA)
