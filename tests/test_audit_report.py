"""What a report says: statuses, evidence, JSON, order and names, coverage, gradient flow, user-registered kinds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import deadrelu
from deadrelu.errors import RegistryError
from deadrelu.kinds import unregister_kind

REPORT_KEYS = {
    "schema": str, "mode": str, "evidence": str, "samples": int, "units": int, "units_can_die": int, "dead": int,
    "dead_fraction": (float, type(None)), "silent_fraction": (float, type(None)),
    "sites": list, "deaths": list, "events": list, "coverage": dict,
}  # fmt: skip
INDICES = {
    "dead", "undecided", "rare", "always_on", "saturated", "stuck_negative", "grad_dead", "input_dead",
}  # fmt: skip
NUMBERS = {"activation_rate", "sample_rate", "rate_upper", "max_z", "dormant_score"}
SITE_KEYS = INDICES | NUMBERS | {
    "site", "op", "source", "producers", "unit_dim", "units", "can_die", "samples", "positions", "dead_fraction",
    "grad_flow", "claims",
}  # fmt: skip
COVERAGE_KEYS = {"sites", "uncalled", "unsupported", "merged", "batch_lost"}


def through(units: int, activation: nn.Module | None = None) -> nn.Sequential:
    """Return a net whose unit i sees input i: its pre-activations are the data, exactly."""
    model = nn.Sequential(nn.Linear(units, units, bias=False), activation or nn.ReLU())
    model[0].weight.data.copy_(torch.eye(units))
    return model


def silent_and_not(n: int) -> torch.Tensor:
    """Return (n, 4): unit 0 never fires, 1 once, 2 on every second sample, 3 always."""
    x = -torch.ones(n, 4)
    x[n // 3, 1] = 1.0
    x[::2, 2] = 1.0
    x[:, 3] = 1.0
    return x


@pytest.mark.parametrize(
    ("n", "status", "missing"),
    [(1, "undecided", 2_994), (2_994, "undecided", 1), (2_995, "dead", 0), (6_000, "dead", 0)],
)
def test_evidence_of_silence(n: int, status: str, missing: int) -> None:
    """Source: DESIGN 3: at p = 1e-3, alpha = 0.05 silence suffices from n = ceil(ln .05 / ln .999) = 2,995 samples."""
    report = deadrelu.audit(through(2), torch.tensor([[-1.0, 1.0]]).expand(n, 2), batch_size=1_000)
    site = report["1"]
    assert site.status == (status, "always_on")
    assert report.evidence == "statistical"
    assert report.dead == int(status == "dead")
    assert (report.silent, report.silent_fraction) == (1, 0.5)
    assert site.rate_upper[0] == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)
    assert report.confidence is not None
    assert (report.confidence.needed, report.confidence.seen, report.confidence.missing) == (2_995, n, missing)
    assert report.confidence.bound == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)
    assert report.confidence.joint_bound == pytest.approx(1 - 0.025 ** (1 / n), rel=1e-9)


def test_a_declared_data_set_decides() -> None:
    """Source: DESIGN 3: with `exhaustive=True` every silent unit is dead, however few the samples."""
    report = deadrelu.audit(through(4), silent_and_not(12), exhaustive=True)
    assert report.evidence == "exhaustive"
    assert report["1"].status[0] == "dead"
    assert not report["1"].undecided.any()
    assert (report.dead, report.dead_fraction, report.silent_fraction) == (1, 0.25, 0.25)


def test_statuses_and_their_order() -> None:
    """Source: DESIGN 5.2: dead, undecided, rare, always_on, saturated, stuck_negative, active; first that holds."""
    report = deadrelu.audit(through(4), silent_and_not(3_000), batch_size=500)
    assert report["1"].status == ("dead", "rare", "active", "always_on")
    report = deadrelu.audit(through(4, nn.LeakyReLU()), silent_and_not(3_000), batch_size=500)
    site = report["1"]
    assert site.status[0] == "stuck_negative"
    assert (site.can_die, site.dead_fraction, report.dead_fraction) == (False, None, None)
    x = 40 * silent_and_not(3_000)
    site = deadrelu.audit(through(4, nn.Sigmoid()), x, batch_size=500)["1"]
    assert site.status == ("saturated",) * 4  # at -40 and at 40 alike
    site = deadrelu.audit(through(4, nn.GELU()), x, batch_size=500)["1"]
    assert site.status[0] == "saturated"
    assert not site.saturated[1:].any()  # the slope of GELU at 40 is 1


def test_kinds_that_cannot_die_are_listed_and_not_counted() -> None:
    """Source: DESIGN 5.2: every activation executed, rectifier or not; fractions are of the kinds that can die."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3), nn.SiLU())
    with torch.no_grad():
        model[2].bias[2] = -100.0
    report = deadrelu.audit(model, torch.randn(60, 4), exhaustive=True)
    assert [(s.op, s.can_die) for s in report.sites] == [("tanh", False), ("relu", True), ("silu", False)]
    assert (report.units, report.units_can_die, report.dead) == (16, 5, 1)
    assert report.dead_fraction == 0.2
    nothing = deadrelu.audit(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), torch.randn(60, 4))
    assert (nothing.dead_fraction, nothing.silent_fraction, nothing.dead) == (None, None, 0)


class Mixed(nn.Module):
    """Modules, functions, in-place forms, a reused module and the same function twice, executed in this order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 5, 1)
        self.first = nn.Conv2d(3, 6, 3)
        self.never = nn.ReLU6()
        self.head = nn.Sequential(nn.Linear(5, 7), nn.Hardtanh(0.0, 6.0), nn.Linear(7, 2))
        self.tail = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.last(x)).mean((2, 3))
        x = torch.relu(self.head(x))
        return F.relu(self.tail(x)) + self.tail(x).clamp(min=0)


ORDER = [
    ("relu", "relu", 6, ("first",)),
    ("relu#1", "relu", 5, ("last",)),
    ("head.1", "relu6", 7, ("head.0",)),
    ("relu()", "relu", 2, ("head.2",)),
    ("relu()#1", "relu", 2, ("tail",)),
    ("clamp()", "clamp", 2, ("tail",)),
]


def mixed_report(**options: Any) -> deadrelu.Report:
    x = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return deadrelu.audit(Mixed(), x, batch_size=16, **options)


def test_sites_in_order_of_execution() -> None:
    """Source: DESIGN 2: `#1` counts further sites of a path and function; a functional site names its file."""
    report = mixed_report()
    assert [(s.site, s.op, s.units, s.producers) for s in report.sites] == ORDER
    assert (report.coverage.sites, report.coverage.uncalled, len(report)) == (6, ("never",), 6)
    for site in report:
        if "()" in site.site:
            assert site.source is not None
            name, line = site.source.rsplit(":", 1)
            assert name.endswith("test_audit_report.py")
            assert int(line) > 1
        else:
            assert site.source is None
    assert [s.unit_dim for s in report] == [1, 1, 1, 1, 1, 1]
    assert report["relu"].positions == 40 * 9
    assert report["head.1"].positions == 40


class Wrapper(nn.Module):
    """What engines and samplers of other libraries look like."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "another library's": Wrapper,
    "two": lambda model: Wrapper(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_has_the_names_of_the_bare_one(wrapper: str) -> None:
    """Source: DESIGN 2: `module.` and `_orig_mod.` are stripped."""
    x = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    report = deadrelu.audit(WRAPPERS[wrapper](Mixed()), x, batch_size=16)
    assert [(s.site, s.op, s.units, s.producers) for s in report.sites] == ORDER
    assert report.coverage.uncalled == ("never",)


def test_names_and_attributes() -> None:
    """Source: DESIGN 5.1 and 5.4: what `report["..."]` gives, and what a wrong name says."""
    report = mixed_report(loss=lambda output, batch: output.sum())
    site = report["head.1"]
    assert site.dead.dtype == bool
    assert site.dead.shape == (7,)
    for name in NUMBERS:
        assert getattr(site, name).shape == (7,), name
    assert site.grad_flow is not None
    assert site.grad_flow.shape == (7,)
    assert len(site.status) == 7
    with pytest.raises(KeyError, match=r"no site 'heads\.1'.*head\.1.*clamp\(\)"):
        report["heads.1"]


def no_constant(text: str) -> None:
    raise AssertionError(f"{text} in JSON")


@pytest.mark.parametrize("loss", [None, lambda output, batch: output.sum()])
def test_json_is_the_contract(loss: Any) -> None:
    """Source: DESIGN 5.2, key by key; a round trip through json, which must hold no NaN and no Infinity."""
    report = mixed_report(loss=loss)
    found = json.loads(report.to_json(), parse_constant=no_constant)
    assert found == report.to_dict()
    assert list(found) == list(REPORT_KEYS)
    for key, types in REPORT_KEYS.items():
        assert isinstance(found[key], types), key
    assert (found["schema"], found["mode"], found["deaths"], found["events"]) == ("deadrelu.report/1", "audit", [], [])
    assert set(found["coverage"]) == COVERAGE_KEYS
    assert found["coverage"] == {"sites": 6, "uncalled": ["never"], "unsupported": [], "merged": [], "batch_lost": []}
    for site in found["sites"]:
        assert set(site) == SITE_KEYS
        for name in INDICES:
            assert all(type(i) is int and 0 <= i < site["units"] for i in site[name]), name
            assert site[name] == sorted(site[name])
        for name in NUMBERS | ({"grad_flow"} if loss else set()):
            assert [type(v) for v in site[name]] == [float] * site["units"], name
        assert (site["grad_flow"] is None) == (loss is None)
        assert [type(site[k]) for k in ("site", "op", "producers", "claims")] == [str, str, list, list]
        assert [type(site[k]) for k in ("units", "samples", "positions", "can_die")] == [int, int, int, bool]
        one_status = [i for name in INDICES - {"grad_dead", "input_dead"} for i in site[name]]
        assert len(one_status) == len(set(one_status))
    assert found["units"] == sum(s["units"] for s in found["sites"])
    assert found["dead"] == sum(len(s["dead"]) for s in found["sites"])


def test_json_of_what_cannot_die_and_of_infinities(tmp_path: Any) -> None:
    """Source: DESIGN 5.2: `dead` [], `dead_fraction` null; non-finite numbers become null; the file is the text."""
    x = torch.tensor([[math.inf, -math.inf, 1.0], [0.0, -math.inf, math.nan]])
    report = deadrelu.audit(nn.Sequential(nn.LeakyReLU(), nn.Linear(3, 1)), x)
    text = report.to_json(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text(encoding="utf-8").strip() == text.strip()
    site = json.loads(text, parse_constant=no_constant)["sites"][0]
    assert (site["dead"], site["dead_fraction"], site["can_die"]) == ([], None, False)
    assert site["max_z"] == [None, None, 1.0]


class Whole(nn.Module):
    """Integer weights and data in float64: every sum is exact, whatever the batches."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv1d(2, 6, 2).double()
        self.map = nn.Linear(6, 5).double()
        for p in self.parameters():
            p.data = torch.randint(-3, 4, p.shape, generator=rng).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.map(F.relu(self.conv(x)).amax(-1)))


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 1_000),
    loss=st.sampled_from([None, lambda output, batch: output.sum()]),
)
def test_split_batches_are_one_batch(sizes: list[int], seed: int, loss: Any) -> None:
    """Source: counts merge by + or max (DESIGN 4); integers in float64, so that every number is equal and not near."""
    x = torch.randint(-4, 5, (sum(sizes), 2, 4), generator=torch.Generator().manual_seed(seed)).double()
    one = deadrelu.audit(Whole(seed), [x], exhaustive=True, loss=loss).to_dict()
    many = deadrelu.audit(Whole(seed), list(x.split(sizes)), exhaustive=True, loss=loss).to_dict()
    for a, b in zip(one["sites"], many["sites"], strict=True):
        for name in ("grad_flow", "dormant_score"):  # a division or a root of equal sums
            if a[name] is not None:
                np.testing.assert_allclose(np.array(a.pop(name), float), np.array(b.pop(name), float), rtol=1e-12)
    assert one == many


class Cell(nn.Module):
    """A recurrent cell called T times: one site."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.map, self.relu = nn.Linear(7, 4), nn.ReLU()
        self.map.bias.data[1] = -100.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.relu(self.map(torch.cat([x[:, t], h], dim=1)))
        return h


def test_merged_calls() -> None:
    """Source: DESIGN 2: the calls of a recurrent cell add positions, not samples, and are listed in coverage.merged."""
    report = deadrelu.audit(Cell(), torch.randn(30, 5, 3), batch_size=7, exhaustive=True)
    site = report["relu"]
    assert (len(report), site.samples, site.positions) == (1, 30, 150)
    assert site.dead.nonzero()[0].tolist() == [1]
    assert report.coverage.merged == (("relu", 5),)
    assert report.to_dict()["coverage"]["merged"] == [{"site": "relu", "calls": 5}]


class Late(nn.Module):
    """Fires in one of two steps only: the sample rate counts a sample once, whichever call fired."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.relu = through(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.map(x[:, :1])) + self.relu(self.map(x[:, 1:]))


def test_sample_rate_of_merged_calls() -> None:
    """Source: DESIGN 2: samples with at least one active position / samples; here 3 of 4, at 4 of 8 positions."""
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    for batch_size in (4, 1):
        site = deadrelu.audit(Late(), x, batch_size=batch_size, exhaustive=True)["relu"]
        assert (site.samples, site.positions) == (4, 8)
        assert (site.sample_rate.tolist(), site.activation_rate.tolist()) == ([0.75], [0.5])


class Opaque(nn.Module):
    """Holds parts that cannot be seen into, beside one that can."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.head, self.relu = part, nn.Linear(4, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.part(x)
        return self.relu(self.head(y[0] if isinstance(y, tuple) else y))


OPAQUE: dict[str, Callable[[], nn.Module]] = {
    "nn.LSTM": lambda: nn.LSTM(4, 4, batch_first=True),
    "nn.GRU": lambda: nn.GRU(4, 4, batch_first=True),
    "nn.RNN with relu": lambda: nn.RNN(4, 4, nonlinearity="relu", batch_first=True),
}


@pytest.mark.parametrize("part", OPAQUE)
def test_fused_recurrence_is_listed_as_unsupported(part: str) -> None:
    """Source: DESIGN 6.1: fused, therefore listed with a reason, never silently missing."""
    report = deadrelu.audit(Opaque(OPAQUE[part]()), torch.randn(10, 3, 4))
    assert [s.site for s in report.sites] == ["relu"]
    assert [module for module, _ in report.coverage.unsupported] == ["part"]
    assert len(report.coverage.unsupported[0][1]) > 10
    assert report.to_dict()["coverage"]["unsupported"][0]["module"] == "part"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_part_is_listed_as_unsupported() -> None:
    """Source: DESIGN 6.1: what cannot be seen is listed in coverage."""
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    report = deadrelu.audit(Opaque(scripted), torch.randn(10, 4))
    assert [s.site for s in report.sites] == ["relu"]
    assert "part" in [module for module, _ in report.coverage.unsupported]


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_fused_cells_are_listed_as_unsupported(kind: Any) -> None:
    """Source: as above; the cells' gates are fused into one call too."""
    model = Opaque(kind(4, 4))
    report = deadrelu.audit(model, torch.randn(10, 4))
    assert "relu" in [s.site for s in report.sites]
    assert [module for module, _ in report.coverage.unsupported] == ["part"]


class ByHand(nn.Module):
    """Two layers written out, so that autograd can be asked for dL/dz: convolution, then Linear."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.conv, self.relu = nn.Conv1d(2, 6, 3), nn.ReLU(inplace=inplace)
        self.map, self.act, self.head = nn.Linear(6, 5), nn.LeakyReLU(0.1, inplace=inplace), nn.Linear(5, 2)
        with torch.no_grad():
            self.conv.bias[1] = -100.0  # dead
            self.map.weight[:, 3] = 0.0  # active, but nobody listens: gradient-dead

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(x)).mean(-1)
        return self.head(self.act(self.map(x)))

    def flow(self, batches: list[torch.Tensor], loss: Callable[..., torch.Tensor]) -> list[np.ndarray]:
        """Return the root mean square of dL/dz per unit, over the (sample, position) pairs of all batches."""
        squares = [torch.zeros(6), torch.zeros(5)]
        pairs = [0, 0]
        for x in batches:
            z1 = self.conv(x).detach().requires_grad_()
            z2 = self.map(F.relu(z1).mean(-1))
            z2.retain_grad()
            loss(self.head(F.leaky_relu(z2, 0.1)), x).backward()
            for i, grad in enumerate((z1.grad.movedim(1, -1).flatten(0, 1), z2.grad)):
                squares[i] += grad.square().sum(0)
                pairs[i] += len(grad)
        self.zero_grad()
        return [(s / n).sqrt().numpy() for s, n in zip(squares, pairs, strict=True)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_grad_flow_against_autograd(mean: bool, inplace: bool, frozen: bool) -> None:
    """Source: DESIGN 2: RMS of dL/dz at the pre-activation, L the loss of its batch; also in a frozen model."""

    def loss(output: torch.Tensor, _batch: Any) -> torch.Tensor:
        return output.square().mean() if mean else output.square().sum()

    batches = list(torch.randn(45, 2, 9, generator=torch.Generator().manual_seed(3)).split(16))
    model = ByHand(inplace)
    want = model.flow(batches, loss)
    model.requires_grad_(not frozen)
    report = deadrelu.audit(model, batches, loss=loss, exhaustive=True)
    for site, flow in zip((report["relu"], report["act"]), want, strict=True):
        np.testing.assert_allclose(site.grad_flow, flow, rtol=1e-4, atol=1e-9)
    assert report["relu"].grad_flow is not None
    assert report["relu"].grad_flow[1] == 0
    assert report["relu"].grad_dead.nonzero()[0].tolist() == [3]  # unit 1 is dead, not gradient-dead
    assert not report["act"].grad_dead.any()


def test_without_a_loss_there_is_no_gradient() -> None:
    """Source: DESIGN 2: zero never stands for unknown."""
    site = deadrelu.audit(ByHand(False), torch.randn(20, 2, 9), exhaustive=True)["relu"]
    assert site.grad_flow is None
    assert not site.grad_dead.any()
    assert site.to_dict()["grad_flow"] is None


def test_input_dead() -> None:
    """Source: DESIGN 2: all inputs are 0. Behind a wholly dead layer every unit is; a zero weight row alone is not."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
        model[2].bias.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]))
        model[4].weight[2] = 0.0
    report = deadrelu.audit(model, torch.randn(30, 3), exhaustive=True)
    assert report["1"].dead.all()
    assert not report["1"].input_dead.any()
    assert report["3"].input_dead.all()
    assert report["3"].status == ("always_on", "dead", "always_on", "dead", "always_on")
    assert not report["5"].input_dead.any()


def test_input_dead_is_per_group() -> None:
    """A grouped convolution: the units of a group whose own inputs are all 0 are input-dead, the others are not."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Conv1d(4, 6, 1, groups=2), nn.ReLU())
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-100.0, -100.0, 100.0, 100.0]))
    report = deadrelu.audit(model, torch.randn(30, 2, 5), exhaustive=True)
    assert report["3"].input_dead.tolist() == [True] * 3 + [False] * 3


class Step(nn.Module):
    """An activation that torch does not know: zero up to 1, then the identity."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.where(z > 1, z, 0.0)


def test_a_registered_kind() -> None:
    """Source: DESIGN 2: a user can register a kind; one with slope 0 up to z = 1, one without flat region."""
    x = torch.tensor([[0.5, 1.5, 2.0, 9.0], [1.0, 0.0, 3.0, -9.0]])
    step = deadrelu.Kind("step_at_one", intervals=((1.0, math.inf),), modules=(Step,))
    slow = deadrelu.Kind("arctan", "smooth", intervals=((-8.0, 8.0),), functions=("atan",))
    registered = [deadrelu.register_kind(step).name]
    try:
        registered.append(deadrelu.register_kind(slow).name)
        with pytest.raises(RegistryError, match="step_at_one"):
            deadrelu.register_kind(step)
        with pytest.raises(RegistryError, match="atan"):
            deadrelu.register_kind(deadrelu.Kind("another", functions=("atan",)))
        site = deadrelu.audit(through(4, Step()), x, exhaustive=True)["1"]
        assert (site.op, site.units, site.can_die) == ("step_at_one", 4, True)
        assert site.dead.tolist() == [True, False, False, False]
        np.testing.assert_array_equal(site.activation_rate, [0, 0.5, 1, 0.5])
        report = deadrelu.audit(
            through(4), x, forward=lambda model, batch: torch.atan(model[0](batch)), exhaustive=True
        )
        assert [(s.site, s.op, s.can_die) for s in report.sites] == [("atan()", "arctan", False)]
        assert report["atan()"].saturated.tolist() == [False, False, False, True]
    finally:
        for name in registered:
            unregister_kind(name)
    with pytest.raises(deadrelu.DeadReluError):
        deadrelu.audit(through(4, Step()), x)  # gone: no activation is left
