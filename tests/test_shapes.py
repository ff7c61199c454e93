"""The unit axis in every shape of the pre-activation, and the rule of every kind of activation.

Ground truth: layouts written by hand (replicas/shapes), counted by the oracle (oracle.py); rules of DESIGN 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import compare, expect
from replicas.shapes import CASES, INNER, Case
from torch import Tensor, nn

import deadrelu
from deadrelu.report import Report, SiteReport

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def only_site(report: Report) -> SiteReport:
    """Return the one site of a report."""
    (site,) = report
    return site


def batches(case: Case, *sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [case.batch(rows, generator) for rows in sizes]


@every
@pytest.mark.parametrize(
    "sizes", [(5, 4, 2), (1, 1, 1), (8,), (1, 5, 3)], ids=["uneven", "rows-of-one", "one-batch", "one-row-first"]
)
def test_units_and_numbers(case: Case, sizes: tuple[int, ...]) -> None:
    """Planted dead units are found at their index, every number is the oracle's, whatever the batches."""
    model, data = case.model(), batches(case, *sizes)
    expected = expect("relu", case.record(model, data))
    report = deadrelu.audit(model, data, exhaustive=True, batch_dim=case.batch_dim or 0)
    site = only_site(report)
    assert (site.site, site.op) == ("relu()", "relu")
    assert expected.dead.any()
    assert not expected.dead.all()
    compare(site, expected)
    assert report.coverage.batch_lost == ()


@every
def test_unit_dim(case: Case) -> None:
    """`unit_dim` is the dimension of z that holds the units, the first of them where a view split the unit axis."""
    if not isinstance(case.layout, str):
        pytest.skip("units in several dimensions, out of order")
    site = only_site(deadrelu.audit(case.model(), batches(case, 5), batch_dim=case.batch_dim or 0))
    dims = re.findall(r"\([a-z]+\)|[a-z]", case.layout)
    assert site.unit_dim == next(i for i, dim in enumerate(dims) if "u" in dim)


@every
def test_producers(case: Case) -> None:
    """The op with parameters that made z is named: its module, or its parameter."""
    found = only_site(deadrelu.audit(case.model(), batches(case, 5), batch_dim=case.batch_dim or 0)).producers
    for module in case.producers:
        assert any(name == module or name.startswith(f"{module}.") for name in found), found


@pytest.mark.parametrize("case", INNER, ids=lambda case: case.name)
def test_folded_otherwise(case: Case) -> None:
    """Where the samples are not the outer part of a folded axis: right numbers, or the loss is stated (DESIGN 2)."""
    model, data = case.model(), batches(case, 5, 4, 2)
    expected = expect("relu", case.record(model, data))
    report = deadrelu.audit(model, data, exhaustive=True, batch_dim=case.batch_dim or 0)
    site = only_site(report)
    assert site.positions * site.samples == 0 or site.positions == expected.positions
    np.testing.assert_array_equal(site.dead, expected.dead)
    np.testing.assert_allclose(site.activation_rate, expected.activation_rate, atol=1e-6)
    if report.coverage.batch_lost:
        assert report.coverage.batch_lost == ("relu()",)
        assert site.samples == 3
    else:
        compare(site, expected)


@pytest.mark.parametrize(
    "call",
    [lambda m, x: m.a(x[x[..., 0] > 0]), lambda m, x: m.a(x).mean(0)],
    ids=["packed-tokens", "mean-over-the-batch"],
)
def test_lost_batch_axis_is_stated(call: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Tokens picked by a mask belong to no row any more: a call counts as one sample, and coverage says so."""
    case = Case("lost", (5, 6), lambda z: z.reshape(1, -1, 8), 8, lambda: {"a": nn.Linear(6, 8)}, call)
    model, data = case.model(), batches(case, 5, 4, 2)
    report = deadrelu.audit(model, data, exhaustive=True)
    assert report.coverage.batch_lost == ("relu()",)
    compare(only_site(report), expect("relu", case.record(model, data)))


def test_clamp_with_a_tensor_as_bound() -> None:
    """clamp(min=tensor(0.)) is the same rectifier as clamp(min=0) (DESIGN 6.1: whatever its spelling)."""
    case = Case(
        "clamp", (6,), "nu", 8, lambda: {"a": nn.Linear(6, 8)}, lambda m, x: m.a(x), act=lambda z: z.clamp(ZERO_BOUND)
    )
    model, data = case.model(), batches(case, 5, 4)
    site = only_site(deadrelu.audit(model, data, exhaustive=True))
    assert site.op == "clamp"
    compare(site, expect("clamp", case.record(model, data)))


def test_model_that_maps_over_its_rows() -> None:
    """torch.vmap: seen, or listed as unsupported; never an error about a batch that the model accepts."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.head(torch.vmap(self.inner)(x)))

    torch.manual_seed(0)
    report = deadrelu.audit(Model(), [torch.randn(5, 6)], exhaustive=True)
    assert report["relu()"].units == 4
    sites = {site.site for site in report}
    assert "inner.1" in sites or any(name.startswith("inner") for name, _ in report.coverage.unsupported)


def test_no_unit_axis_left() -> None:
    """The mean over the channels has no unit axis: one unit, `unit_dim` None (SiteReport)."""
    case = Case("none", (3, 4, 4), "npp", 1, lambda: {"a": nn.Conv2d(3, 8, 3)}, lambda m, x: m.a(x).mean(1), dead=())
    model, data = case.model(), batches(case, 5, 4)
    site = only_site(deadrelu.audit(model, data, exhaustive=True))
    assert site.unit_dim is None
    compare(site, expect("relu", case.record(model, data)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_floats(dtype: torch.dtype) -> None:
    """The counts are exact in any floating type."""
    case = next(case for case in CASES if case.name == "conv2d")
    model, data = case.model().to(dtype), [x.to(dtype) for x in batches(case, 5, 4)]
    compare(only_site(deadrelu.audit(model, data, exhaustive=True)), expect("relu", case.record(model, data)))


def test_tensor_with_batch_dim_is_cut_along_it() -> None:
    """A tensor (time, rows, features) with batch_dim=1 holds 11 samples."""
    case = next(case for case in CASES if case.name == "linear-time-first")
    model, (data,) = case.model(), batches(case, 11)
    report = deadrelu.audit(model, data, batch_size=4, batch_dim=1, exhaustive=True)
    assert report.samples == 11
    compare(only_site(report), expect("relu", case.record(model, [data])))


ZERO_BOUND = torch.tensor(0.0)

LOW, HIGH, TAILS, NORMAL, ZERO = range(5)  # the planted units of `planted`


def planted(rows: int = 40) -> Tensor:
    """Return z (rows, 5): stuck low, stuck high, on both tails by turns, normal, exactly zero."""
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    turns = torch.where(torch.arange(rows) % 2 == 0, 50.0, -50.0)
    z[:, LOW], z[:, HIGH], z[:, TAILS], z[:, ZERO] = z[:, LOW] - 50, z[:, HIGH] + 50, z[:, TAILS] + turns, 0
    return z


class Through(nn.Module):
    """act(x), each feature through a weight of its own that is exactly 1: z equals x, bit for bit, NaN and inf too."""

    def __init__(self, act: Callable[[Tensor], Tensor], units: int = 5) -> None:
        super().__init__()
        self.scale = nn.Conv1d(units, units, 1, groups=units, bias=False, dtype=torch.float64)
        nn.init.ones_(self.scale.weight)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.scale(x.unsqueeze(-1)))


KINDS: tuple[tuple[str, Callable[[], nn.Module], Callable[[Tensor], Tensor], str, set[int]], ...] = (
    ("relu", nn.ReLU, F.relu, "dead", {LOW, ZERO}),
    ("relu6", nn.ReLU6, F.relu6, "dead", {LOW, HIGH, TAILS, ZERO}),
    ("hardtanh", nn.Hardtanh, F.hardtanh, "dead", {LOW, HIGH, TAILS}),
    ("threshold", lambda: nn.Threshold(0.1, 20.0), lambda z: F.threshold(z, 0.1, 20.0), "dead", {LOW, ZERO}),
    ("hardswish", nn.Hardswish, F.hardswish, "dead", {LOW}),
    ("hardsigmoid", nn.Hardsigmoid, F.hardsigmoid, "dead", {LOW, HIGH, TAILS}),
    ("leaky_relu", nn.LeakyReLU, F.leaky_relu, "stuck_negative", {LOW, ZERO}),
    (
        "prelu",
        lambda: nn.PReLU(dtype=torch.float64),
        lambda z: F.prelu(z, torch.tensor([0.25], dtype=torch.float64)),
        "stuck_negative",
        {LOW, ZERO},
    ),
    ("rrelu", nn.RReLU, F.rrelu, "stuck_negative", {LOW, ZERO}),
    ("elu", nn.ELU, F.elu, "saturated", {LOW}),
    ("celu", nn.CELU, F.celu, "saturated", {LOW}),
    ("selu", nn.SELU, F.selu, "saturated", {LOW}),
    ("gelu", nn.GELU, F.gelu, "saturated", {LOW}),
    ("silu", nn.SiLU, F.silu, "saturated", {LOW}),
    ("mish", nn.Mish, F.mish, "saturated", {LOW}),
    ("softplus", nn.Softplus, F.softplus, "saturated", {LOW}),
    ("sigmoid", nn.Sigmoid, torch.sigmoid, "saturated", {LOW, HIGH, TAILS}),
    ("tanh", nn.Tanh, torch.tanh, "saturated", {LOW, HIGH, TAILS}),
)


@pytest.mark.parametrize(("op", "module", "function", "status", "stuck"), KINDS, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("spelling", ["module", "function"])
def test_rule_of_each_kind(
    spelling: str,
    op: str,
    module: Callable[[], nn.Module],
    function: Callable[[Tensor], Tensor],
    status: str,
    stuck: set[int],
) -> None:
    """Flat kinds die (at either end, or at both by turns), leaky ones get stuck, smooth ones saturate (DESIGN 2)."""
    model = Through(module() if spelling == "module" else function).eval()
    z = planted()
    report = deadrelu.audit(model, [z[:25], z[25:]], exhaustive=True)
    site = only_site(report)
    assert site.op == op
    assert site.site == ("act" if spelling == "module" else f"{op}()")
    compare(site, expect(op, [z[:, None, :].numpy()]))
    for name in ("dead", "saturated", "stuck_negative"):
        found = set(np.flatnonzero(getattr(site, name)).tolist())
        assert found == (stuck if name == status else set()), name
    assert site.can_die == (status == "dead")
    assert (site.dead_fraction is None) == (status != "dead")


@pytest.mark.parametrize(
    ("act", "status", "stuck"),
    [
        (nn.Hardtanh(-2.0, 0.5), "dead", {LOW, HIGH, TAILS}),
        (nn.Hardtanh(-60.0, 60.0), "always_on", {LOW, HIGH, TAILS, NORMAL, ZERO}),
        (nn.Threshold(-1.0, -1.0), "dead", {LOW}),
        (nn.LeakyReLU(0.0), "dead", {LOW, ZERO}),
        (nn.CELU(2.0), "saturated", {LOW}),
        (nn.ELU(5.0), "saturated", {LOW}),
        (nn.Softplus(10.0), "saturated", {LOW}),
        (nn.GELU("tanh"), "saturated", {LOW}),
        (lambda z: z.clamp(0, 6), "dead", {LOW, HIGH, TAILS, ZERO}),
        (lambda z: -F.relu(-z), "dead", {HIGH, ZERO}),
    ],
    # a function's own words hold its address, which differs from process to process
    ids=lambda value: "function" if callable(value) and not isinstance(value, nn.Module) else str(value),
)
def test_arguments_of_kinds(act: Callable[[Tensor], Tensor], status: str, stuck: set[int]) -> None:
    """The flat region is where the arguments put it (PyTorch documentation of each); a leak of 0 makes a ReLU."""
    z = planted()
    site = only_site(deadrelu.audit(Through(act).eval(), [z[:25], z[25:]], exhaustive=True))
    assert {unit for unit in range(5) if site.status[unit] == status} == stuck


def test_half_slopes_of_smooth_kinds() -> None:
    """A slope just over 1e-3 is not saturated, one just under it is: sigmoid around z = +-6.9058 (slope s(1 - s))."""
    edge = float(np.log((1 + np.sqrt(1 - 4e-3)) / (1 - np.sqrt(1 - 4e-3))))
    z = torch.tensor([[edge - 1e-3, edge + 1e-3, 1e-3 - edge, -edge - 1e-3]], dtype=torch.float64).repeat(6, 1)
    site = only_site(deadrelu.audit(Through(nn.Sigmoid(), 4), [z], exhaustive=True))
    np.testing.assert_array_equal(site.saturated, [False, True, False, True])


@pytest.mark.parametrize("function", [nn.GLU(1), lambda z: F.glu(z, dim=1)], ids=["module", "function"])
def test_glu_scores_the_gate(function: Callable[[Tensor], Tensor]) -> None:
    """GLU is a * sigmoid(b): the units are those of b, saturated where the sigmoid is (DESIGN 2)."""
    gate = planted()
    values = torch.randn(gate.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = Through(function, 10)
    site = only_site(deadrelu.audit(model, [torch.cat([values, gate], 1)], exhaustive=True))
    assert (site.op, site.units, site.can_die) == ("glu", 5, False)
    np.testing.assert_array_equal(np.flatnonzero(site.saturated), [LOW, HIGH, TAILS])
    np.testing.assert_allclose(site.max_z, gate.max(0).values)


@pytest.mark.parametrize(
    "maxout",
    [
        lambda z: z.view(-1, 3, 2).max(-1).values,
        lambda z: z.view(-1, 3, 2).amax(2),
        lambda z: torch.max(z.reshape(z.shape[0], 3, 2), dim=2)[0],
    ],
    ids=["max", "amax", "torch.max"],
)
def test_maxout_piece_that_never_wins_is_dead(maxout: Callable[[Tensor], Tensor]) -> None:
    """Goodfellow et al. 2013 (arXiv:1302.4389): the units are the pieces; one that never is the maximum is dead."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return maxout(self.fc(x))

    torch.manual_seed(0)
    model, x = Model(), torch.randn(50, 6)
    with torch.no_grad():
        model.fc.bias[[1, 4]] = -1e3
        z = model.fc(x).view(50, 3, 2)
    wins = (z == z.amax(2, keepdim=True)).double().mean(0).flatten()
    site = only_site(deadrelu.audit(model, [x[:30], x[30:]], exhaustive=True))
    assert (site.op, site.units, site.producers) == ("maxout", 6, ("fc",))
    np.testing.assert_array_equal(np.flatnonzero(site.dead), [1, 4])
    np.testing.assert_allclose(site.activation_rate, wins.numpy(), atol=1e-6)


def test_nan_is_inactive_and_inf_is_active() -> None:
    """DESIGN 2. Units: NaN always; NaN or -inf; NaN, once +inf; +inf always; NaN, once 1; 1 always."""
    inf, nan = float("inf"), float("nan")
    rows = [[nan, nan, nan, inf, nan, 1.0], [nan, -inf, inf, inf, 1.0, 1.0], [nan, nan, nan, inf, nan, 1.0]]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding.from_pretrained(torch.tensor(rows))
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.table(x))

    site = only_site(deadrelu.audit(Model(), [torch.tensor([0, 1]), torch.tensor([2])], exhaustive=True))
    assert site.units == 6
    np.testing.assert_array_equal(site.dead, [True, True, False, False, False, False])
    np.testing.assert_array_equal(site.always_on, [False, False, False, True, False, True])
    np.testing.assert_allclose(site.activation_rate, [0, 0, 1 / 3, 1, 1 / 3, 1])
    np.testing.assert_allclose(site.sample_rate, [0, 0, 1 / 3, 1, 1 / 3, 1])
    np.testing.assert_array_equal(site.max_z, [nan, -inf, inf, inf, 1, 1])


def test_units_behind_a_dead_layer_are_input_dead() -> None:
    """All inputs of the second layer are 0 (DESIGN 2): its units are input-dead, dead or always on by their bias."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(-1e3)
        model[2].bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    report = deadrelu.audit(model, [torch.randn(5, 6), torch.randn(3, 6)], exhaustive=True)
    np.testing.assert_array_equal(report["1"].dead, [True] * 4)
    np.testing.assert_array_equal(report["1"].input_dead, [False] * 4)
    np.testing.assert_array_equal(report["3"].input_dead, [True] * 3)
    assert report["3"].status == ("dead", "dead", "always_on")
