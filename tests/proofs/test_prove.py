"""prove: what it certifies never fires, what it bounds stays within its bounds, and it certifies what it should."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu
from deadrelu.proofs import Proof, maximising_corner, prove
from deadrelu.proofs.enclosure import Enclosure
from deadrelu.proofs.shadow import Shadow, living_tensors
from deadrelu.proofs.table import HANDLERS

from .randomnets import SHAPE, network, points


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def broken(proof: Proof, model: nn.Module, data: Tensor) -> list[str]:
    """Return where an audit of the model on points of the box contradicts the proof."""
    report = deadrelu.audit(model, data, exhaustive=True)
    assert [site.site for site in report.sites] == [site.site for site in proof]
    found = []
    for site in proof:
        seen = report[site.site]
        assert seen.units == site.units
        over = np.flatnonzero(np.nan_to_num(seen.max_z, nan=-np.inf) > site.upper)
        quiet = seen.silent | seen.saturated | seen.stuck_negative
        found += [f"{site.site}[{unit}]: {seen.max_z[unit]} over {site.upper[unit]}" for unit in over]
        found += [f"{site.site}[{unit}] fires" for unit in np.flatnonzero(site.silent & ~quiet)]
    return found


# -- soundness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_random_networks_stay_within_their_bounds(seed: int) -> None:
    model = network(seed)
    low, high = (-0.2, 0.3) if seed % 2 else (0.0, 1.0)
    proof = prove(model, input_shape=SHAPE, input_range=(low, high))
    assert proof.lost is None
    assert proof.unfollowed == ()
    assert all(np.isfinite(site.upper).all() for site in proof)
    data = points(torch.full(SHAPE, low), torch.full(SHAPE, high), 1500, seed)
    assert broken(proof, model, data) == []


def test_the_random_networks_have_something_to_certify() -> None:
    sites = [site for seed in range(10) for site in prove(network(seed), input_shape=SHAPE, input_range=(0, 1))]
    assert sum(int(site.silent.sum()) for site in sites) > 100
    assert len({site.op for site in sites if site.silent.any()}) > 3


def test_certified_units_are_silent_on_a_million_points() -> None:
    """DESIGN 10: 10^6 random points of the domain, and each unit's own maximising corner."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU())
    with torch.no_grad():
        model[0].bias -= 0.6
        model[2].bias -= 0.3
    proof = prove(model, input_shape=(4,), input_range=(-1, 1))
    assert [int(site.dead.sum()) > 2 for site in proof] == [True, True]
    assert not all(site.dead.all() for site in proof)
    data = points(-torch.ones(4), torch.ones(4), 1_000_000, 1)
    with torch.no_grad():
        first = model[0](data)
        second = model[2](first.relu())
    for site, z in zip(proof, (first, second), strict=True):
        assert not bool((z[:, torch.from_numpy(site.dead)] > 0).any())
        assert bool((z.amax(0) <= torch.from_numpy(site.upper)).all())
        assert bool((z.amin(0) >= torch.from_numpy(site.lower)).all())
    for unit in range(40):
        [corner] = maximising_corner(model, "1", unit, input_shape=(4,), input_range=(-1, 1)) or [None]
        assert corner is not None
        top = float(model[0](corner)[unit].detach())
        assert (top <= 0) >= proof["1"].dead[unit]
        assert top == pytest.approx(float(proof["1"].upper[unit]), abs=1e-5)


@pytest.mark.parametrize("op", ["addmm", "convolution", "native_batch_norm", "hardtanh"])
def test_an_unsound_bound_would_be_caught(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = HANDLERS[op]

    def narrow(call):
        found = honest(call)
        middle, half = (found.low + found.high) / 2, (found.high - found.low) / 2
        return Enclosure(middle - 0.1 * half, middle + 0.1 * half)

    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU())
    model.eval()
    data = points(torch.zeros(SHAPE), torch.ones(SHAPE), 1500, 0)
    assert broken(prove(model, input_shape=SHAPE, input_range=(0, 1)), model, data) == []
    monkeypatch.setitem(HANDLERS, op, narrow)
    if op == "hardtanh":
        model[4].weight.data *= 50.0
    assert broken(prove(model, input_shape=SHAPE, input_range=(0, 1)), model, data) != []


def test_a_tie_that_fires_in_float32_is_not_certified() -> None:
    """0.1 + 0.2 - 0.3 is 0 on paper and over 0 in floats: the margin of DESIGN 6.6 keeps it out."""
    layer = nn.Linear(3, 1)
    layer.weight.data = torch.tensor([[0.1, 0.2, -0.3]])
    layer.bias.data = torch.zeros(1)
    model = nn.Sequential(layer, nn.ReLU())
    proof = prove(model, input_shape=(3,), input_range=([0.0, 0.0, 1.0], [1.0, 1.0, 1.0]))
    assert not proof["1"].dead[0]
    assert 0 < proof["1"].upper[0] < 1e-5
    layer.bias.data -= 1e-5
    assert prove(model, input_shape=(3,), input_range=([0.0, 0.0, 1.0], [1.0, 1.0, 1.0]))["1"].dead[0]


def test_ranges_that_float32_rounds_up_are_widened() -> None:
    """float32(0.1) is over 0.1: a unit that fires at float32(0.1) alone is not certified on [0, 0.1]."""
    layer = nn.Linear(1, 1).double()
    layer.weight.data.fill_(1.0)
    layer.bias.data.fill_(-0.1 - 1e-10)
    model = nn.Sequential(layer, nn.ReLU())
    box = {"input_shape": (1,), "input_range": (0, 0.1)}
    assert prove(model, **box)["1"].dead[0]
    assert not prove(nn.Sequential(Widened(), *model), **box, dtype=torch.float32)["2"].dead[0]


class Widened(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def test_memory_that_is_taken_for_constant_is_not_used_again() -> None:
    """Nor is that of a gradient which Python has let go of: in older torch it is the parameter's alone."""
    weight = nn.Parameter(torch.ones(77))
    weight.sum().backward()
    place = weight.grad.untyped_storage()._cdata
    shadow = Shadow(living_tensors())
    weight.grad = None
    later = [torch.empty(77) for _ in range(1000)]
    assert place not in {tensor.untyped_storage()._cdata for tensor in later}
    assert not any(shadow.constant(tensor) for tensor in later)


# -- exactness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_default_linear_is_proved_exactly_where_all_corners_are_silent(d: int) -> None:
    """DESIGN 10: torch's default Linear on [-1, 1]^d; a fraction 1 / (2 (d + 1)!) of the units is dead."""
    torch.manual_seed(d)
    units = 400_000
    model = nn.Sequential(nn.Linear(d, units), nn.ReLU()).double()
    proof = prove(model, input_shape=(d,), input_range=(-1, 1))
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=d)), dtype=torch.float64)
    with torch.no_grad():
        silent = (model[0](corners) <= 0).all(0).numpy()
    assert (proof["1"].dead == silent).all()
    share = 1 / (2 * math.factorial(d + 1))
    assert abs(silent.mean() - share) < 4 * math.sqrt(share * (1 - share) / units)


def test_silent_on_much_data_is_not_provable() -> None:
    """DESIGN 6.6: He MLP 64-128, bias -2, inputs uniform on [0, 1]: 70 to 77 % silent in layer 1 on 20,000 rows."""
    for seed in range(3):
        torch.manual_seed(seed)
        layer = nn.Linear(64, 128)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.constant_(layer.bias, -2.0)
        model = nn.Sequential(layer, nn.ReLU())
        report = deadrelu.audit(model, torch.rand(20_000, 64))
        fraction = report["1"].silent_fraction
        assert fraction is not None
        assert 0.68 <= fraction <= 0.79
        assert prove(model, input_shape=(64,), input_range=(0, 1)).dead == 0


@pytest.mark.parametrize("norm", ["layer", "rms", "rms-by-hand"])
def test_the_linear_behind_a_norm_is_bounded_by_its_length(norm: str) -> None:
    """DESIGN 10 with the model: certified at b = -(1 + 1e-3) S, fires at b = -(1 - 1e-3) S on x = 1e6 P(w * gamma)."""
    torch.manual_seed(2)
    d, units = 16, 30
    head = nn.LayerNorm(d) if norm == "layer" else nn.RMSNorm(d, eps=1e-6) if norm == "rms" else ByHand(d)
    model = nn.Sequential(head, nn.Linear(d, units), nn.ReLU()).double()
    with torch.no_grad():
        head.weight.normal_(1.0, 0.5)
        v = model[1].weight * head.weight
        direction = v - v.mean(1, keepdim=True) if norm == "layer" else v
        shift = model[1].weight @ head.bias if norm == "layer" else torch.zeros(units, dtype=torch.float64)
        sup = shift + math.sqrt(d) * direction.norm(dim=1)
        assert bool((sup > 0).all())
        box = {"input_shape": (5, d), "input_range": (-1e7, 1e7)}
        for share, certified in ((1 + 1e-3, True), (1 - 1e-3, False)):
            model[1].bias.copy_(-share * sup)
            proof = prove(model, **box)
            assert proof["2"].dead.all() == certified
            assert proof["2"].dead.any() == certified
            z = model[1](head(1e6 * direction)).diagonal()
            assert bool((z > 0).all()) != certified


class ByHand(nn.Module):
    """RMSNorm as language models spell it."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


def test_a_norm_of_unbounded_numbers_is_unbounded_in_floats_unless_nothing_is_subtracted() -> None:
    class Net(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm, self.fc = norm, nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.fc(self.norm(torch.special.gammaln(x).nan_to_num())))

    for norm, bounded in ((nn.LayerNorm(6), False), (nn.RMSNorm(6, eps=1e-6), True)):
        proof = prove(Net(norm), input_shape=(6,), input_range=(0, 1))
        assert np.isfinite(proof["relu()"].upper).all() == bounded
        assert "special_gammaln" in str(proof.unfollowed) or "lgamma" in str(proof.unfollowed)


def test_a_batch_norm_in_eval_mode_is_a_line_and_one_without_statistics_is_bounded_by_samuelson() -> None:
    m = 8
    norm = nn.BatchNorm1d(2, track_running_stats=False).double()
    model = nn.Sequential(norm, nn.ReLU())
    box = {"input_shape": (2,), "input_range": (-10, 10)}
    for share, certified in ((1 + 1e-3, True), (1 - 1e-3, False)):
        norm.weight.data = torch.tensor([1.5, -0.5]).double()
        norm.bias.data = -share * norm.weight.data.abs() * math.sqrt(m - 1)
        assert prove(model, **box, batch_size=m)["1"].dead.all() == certified
        x = -10 * torch.ones(m, 2).double() * norm.weight.data.sign()
        x[0] *= -1
        assert bool((norm(x)[0] > 0).all()) != certified
    # Of another batch size the bound is another one.
    norm.bias.data.fill_(-2.0)
    proof = prove(model, **box)
    assert proof.dead == 0
    assert "batch size" in str(proof["1"].reason)
    plain = nn.Sequential(nn.BatchNorm1d(2).double().eval(), nn.ReLU())
    plain[0].bias.data = torch.tensor([-10.1, -9.9]).double()
    assert prove(plain, **box)["1"].dead.tolist() == [True, False]


def test_the_sign_of_what_follows_a_relu_needs_no_bounds() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.fc(torch.relu(torch.special.gammaln(x))))

    model = Net()
    model.fc.weight.data = torch.tensor([[-1.0, -2, 0, -1], [-1, 1e-6, 0, 0], [0, 0, 0, 0]])
    model.fc.bias.data = torch.tensor([0.0, -1.0, 0.0])
    proof = prove(model, input_shape=(4,), input_range=(-5, 5))
    assert proof["relu()#1"].dead.tolist() == [True, False, True]
    assert proof["relu()#1"].reason is not None


@pytest.mark.parametrize(
    ("activation", "silent"),
    [
        (F.relu, [-7.0, -3.0, -1.0, 0.0]),
        (F.relu6, [-7.0, -3.0, -1.0, 0.0, 6.0, 7.0]),
        (F.hardsigmoid, [-7.0, -3.0, 3.0, 6.0, 7.0]),
        (F.hardswish, [-7.0, -3.0]),
        (F.leaky_relu, [-7.0, -3.0, -1.0, 0.0]),
        (lambda z: F.threshold(z, 0.1, 0.0), [-7.0, -3.0, -1.0, 0.0]),
        (lambda z: F.softshrink(z, 0.5), [0.0, 0.3]),
        (torch.tanh, [-7.0, 6.0, 7.0]),
        (lambda z: z.clamp(min=0), [-7.0, -3.0, -1.0, 0.0]),
        (lambda z: torch.maximum(z, torch.zeros_like(z)), [-7.0, -3.0, -1.0, 0.0]),
    ],
)
def test_silence_is_that_of_the_kind(activation, silent: list[float]) -> None:
    """Pre-activations of one value each: certified exactly where an audit finds that they are never engaged."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(1, len(VALUES))
            self.fc.weight.data.zero_()
            self.fc.bias.data = torch.tensor(VALUES)

        def forward(self, x: Tensor) -> Tensor:
            return activation(self.fc(x))

    model = Net()
    [site] = prove(model, input_shape=(1,), input_range=(-1, 1))
    assert [VALUES[unit] for unit in np.flatnonzero(site.silent)] == silent
    report = deadrelu.audit(model, torch.rand(4, 1), exhaustive=True).sites[0]
    assert (site.silent == (report.silent | report.saturated | report.stuck_negative)).all()
    assert (site.dead == report.dead).all()


VALUES = [-7.0, -3.0, -1.0, 0.0, 0.3, 1.0, 3.0, 6.0, 7.0]
