"""One status per unit: evidence, order, what cannot die, and kinds that a user registers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from nets import through
from torch import nn

import deadrelu
from deadrelu.errors import RegistryError
from deadrelu.kinds import unregister_kind


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
