"""Replicas of awkward real architectures with planted dead units: every site, every unit, every number.

Ground truth: the replicas rearrange their own pre-activations by hand (replicas/tape.py) and the oracle counts them
(oracle.py); the names, producers and planted units stand in the replicas, derived from DESIGN 2 and 6.1.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from oracle import Expected, compare, expect
from replicas import REPLICAS, Replica
from replicas.shared import MixtureOfExperts
from torch import Tensor, nn

import deadrelu
from deadrelu.report import Report

pytestmark = [
    # the model's own warning: reentrant checkpointing under no_grad
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning"),
]

every = pytest.mark.parametrize("replica", REPLICAS, ids=lambda replica: replica.name)


# What these compute for a row depends on the batch around it.
BY_BATCH = ("branches", "skipping", "swapping", "shifting", "recurrent-loop-ragged", "encoder-postnorm-masked")


@dataclasses.dataclass(frozen=True)
class Seen:
    """One replica, audited and recorded."""

    replica: Replica
    report: Report
    expected: dict[str, Expected]
    calls: dict[str, int]


_cache: dict[str, Seen] = {}


def look(replica: Replica) -> Seen:
    """Audit and record a replica, once per session."""
    if replica.name not in _cache:
        model, data = replica.model(), replica.data()
        tape = replica.record(model, data)
        op = {want.site: want.op for want in replica.sites}
        expected = {site: expect(op[site], batches) for site, batches in tape.forwards.items()}
        whole: Any = replica.wrap(model) if replica.wrap else model
        report = deadrelu.audit(whole, data, exhaustive=True, batch_dim=replica.batch_dim)
        _cache[replica.name] = Seen(replica, report, expected, tape.calls)
    return _cache[replica.name]


@every
def test_the_tape_holds_the_planted_units(replica: Replica) -> None:
    """The ground truth itself: the replica runs the expected sites in order, with planted units stuck, others not."""
    seen = look(replica)
    assert sorted(seen.expected) == sorted(want.site for want in replica.sites)
    for want in replica.sites:
        expected = seen.expected[want.site]
        assert expected.units == want.units
        stuck = expected.dead | expected.saturated | expected.stuck_negative
        assert stuck.sum() >= len(want.dead), want.site
        assert not stuck.all(), want.site


@every
def test_sites_and_units(replica: Replica) -> None:
    """Every activation executed is found, under its name, in order of first execution (DESIGN 2, 5.2)."""
    report = look(replica).report
    assert [site.site for site in report] == [want.site for want in replica.sites]
    for site, want in zip(report, replica.sites, strict=True):
        assert (site.site, site.op, site.units) == (want.site, want.op, want.units)


@every
def test_numbers(replica: Replica) -> None:
    """Rates, maxima, dormancy, dead sets: equal to the oracle's in every site (precision = recall = 1)."""
    seen = look(replica)
    for name, expected in seen.expected.items():
        compare(seen.report[name], expected)


@every
def test_producers(replica: Replica) -> None:
    """The ops with parameters that made z are named, found through norms, adds, concatenation and views."""
    for want in replica.sites:
        producers = look(replica).report[want.site].producers
        assert producers, want.site
        for module in want.producers:
            prefix = f"{module}." if module else ""
            assert any(found == module or found.startswith(prefix) for found in producers), (want.site, producers)


@every
def test_coverage(replica: Replica) -> None:
    """Sites with several calls in a forward pass are listed, nothing else is; no batch axis is lost."""
    seen = look(replica)
    coverage = seen.report.coverage
    assert coverage.sites == len(replica.sites)
    assert dict(coverage.merged) == {site: calls for site, calls in seen.calls.items() if calls > 1}
    assert coverage.uncalled == replica.uncalled
    assert coverage.unsupported == ()
    assert coverage.batch_lost == ()


@every
def test_source(replica: Replica) -> None:
    """A functional site carries file:line, a module carries none (DESIGN 2)."""
    for site in look(replica).report:
        if "()" in site.site:
            assert site.source is not None
            file, line = site.source.rsplit(":", 1)
            assert file.endswith(".py")
            assert int(line) > 0
        else:
            assert site.source is None


@every
def test_samples_of_the_report(replica: Replica) -> None:
    """The report counts every row of the data once."""
    assert look(replica).report.samples == 11


@every
def test_split_batches_equal_one_batch(replica: Replica) -> None:
    """Row by row or all at once: the same counts (skipped where the batches differ in more than rows)."""
    if replica.name in (
        "branches",
        "skipping",
        "swapping",
        "shifting",
        "recurrent-loop-ragged",
        "encoder-postnorm-masked",
    ):
        pytest.skip("a batch of another size is another computation here")
    model, batches = replica.model(), replica.data()
    one = audit_one_by_one(replica, model, batches)
    for name, expected in look(replica).expected.items():
        compare(one[name], expected)


@every
def test_what_is_remembered_of_an_op_is_what_it_would_say_again(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice through the data, there and back: the report does not depend on what ops were seen before."""

    def audited() -> dict[str, Any]:
        batches = replica.data()
        return deadrelu.audit(replica.model(), [*batches, *batches[::-1]], batch_dim=replica.batch_dim).to_dict()

    remembered = audited()
    monkeypatch.setattr("deadrelu.tracing.table.key_of", lambda *_: None)
    assert audited() == remembered


def audit_one_by_one(replica: Replica, model: nn.Module, batches: list[Any]) -> Report:
    """Audit with batches of one row each."""
    dim = replica.batch_dim

    def rows(batch: Any) -> list[Any]:
        if isinstance(batch, Tensor):
            return list(batch.split(1, dim))
        if isinstance(batch, dict):
            return [dict(zip(batch, parts, strict=True)) for parts in zip(*map(rows, batch.values()), strict=True)]
        return list(zip(*map(rows, batch), strict=True))

    singles = [single for batch in batches for single in rows(batch)]
    return deadrelu.audit(model, singles, exhaustive=True, batch_dim=dim)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_with_gradients_counts_once(use_reentrant: bool) -> None:
    """With a loss the blocks run again in backward: no sample twice, dL/dz as without checkpoints (DESIGN 5.1, 8)."""

    def audited(name: str) -> Report:
        replica = next(r for r in REPLICAS if r.name == name)
        data = [batch.requires_grad_() for batch in replica.data()]
        return deadrelu.audit(replica.model(), data, loss=lambda output, _: output.square().sum(), exhaustive=True)

    report, plain = audited("checkpointed-reentrant" if use_reentrant else "checkpointed"), audited("plain")
    assert [site.site for site in report] == [site.site for site in plain]
    expected = look(next(r for r in REPLICAS if r.name == "plain")).expected
    for site in report:
        compare(site, expected[site.site])
        assert site.grad_flow is not None
        np.testing.assert_array_equal(site.grad_flow[site.dead], 0)
        assert (site.grad_flow[~site.dead] > 0).any()
        np.testing.assert_allclose(site.grad_flow, plain[site.site].grad_flow, rtol=1e-6)


def test_experts_that_get_no_token() -> None:
    """Tokens picked for an expert belong to no row: one sample a call, stated; an expert without tokens saw nothing."""
    torch.manual_seed(0)
    model = MixtureOfExperts().eval()
    with torch.no_grad():
        for i, expert in enumerate(model.experts):
            expert.get_parameter("w1.bias")[i] = -1e3
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(rows, 5, 8, generator=generator) for rows in (5, 4, 2)]
    seen: dict[str, list[Tensor]] = {}
    handles = [
        expert.get_submodule("w1").register_forward_hook(
            lambda _, __, z, name=f"experts.{i}.act": seen.setdefault(name, []).append(z.detach().double())
        )
        for i, expert in enumerate(model.experts)
    ]
    with torch.no_grad():
        for batch in data:
            model(batch)
    for handle in handles:
        handle.remove()
    report = deadrelu.audit(model, data, exhaustive=True)
    for site in tuple(report)[:3]:
        compare(site, expect("relu", [z.numpy()[None] for z in seen[site.site] if len(z)]))
        assert site.dead.any()
        assert site.site in report.coverage.batch_lost
    if "experts.3.act" in report.coverage.uncalled:
        return
    unused = report["experts.3.act"]
    assert (unused.samples, unused.positions) == (0, 0)
    assert not unused.dead.any()  # zero never stands for unknown
    assert np.isnan(unused.activation_rate).all()
    assert np.isnan(unused.max_z).all()


def test_fused_recurrent_layers_are_listed_as_unsupported() -> None:
    """nn.RNN runs its relu inside one fused call: not silently missed (DESIGN 6.1)."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(8, 6, nonlinearity="relu", batch_first=True)
            self.cell = nn.RNNCell(6, 6, nonlinearity="relu")
            self.lstm = nn.LSTM(6, 6, batch_first=True)
            self.fc = nn.Linear(6, 5)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.lstm(self.rnn(x)[0])[0][:, -1]
            return self.relu(self.fc(self.cell(y)))

    torch.manual_seed(0)
    report = deadrelu.audit(Model(), [torch.randn(4, 5, 8)])
    assert [site.site for site in report] == ["relu"]
    assert {module for module, _ in report.coverage.unsupported} == {"rnn", "cell", "lstm"}
    assert all(reason for _, reason in report.coverage.unsupported)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_parts_are_listed_as_unsupported() -> None:
    """A scripted block cannot be seen into: listed, while the rest is audited (DESIGN 6.1)."""
    torch.manual_seed(0)
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    model = nn.Sequential(scripted, nn.Linear(8, 5), nn.ReLU())
    report = deadrelu.audit(model, [torch.randn(4, 8)])
    assert [site.site for site in report] == ["2"]
    assert any(module == "0" or module.startswith("0.") for module, _ in report.coverage.unsupported)
