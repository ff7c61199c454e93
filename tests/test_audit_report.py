"""What a report says: sites in order and their names, JSON by the contract, the same for any batches."""

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
