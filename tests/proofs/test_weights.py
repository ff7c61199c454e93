"""What weights alone prove: the rows of DESIGN 10 on norms, in float64, and hand-made layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from deadrelu.errors import DataError
from deadrelu.proofs import (
    batch_norm_certificates,
    batch_norm_heuristics,
    negative_rows,
    norm_bounds,
    norm_certificates,
    zero_rows,
)


def units(claims: tuple) -> list[int]:
    return [claim.unit for claim in claims]


def test_zero_rows_need_a_bias_that_is_not_positive() -> None:
    weight = torch.zeros(4, 3)
    weight[3, 1] = 1e-30
    assert units(zero_rows(weight, torch.tensor([-1.0, 0.0, 1e-30, -1.0]))) == [0, 1]
    assert units(zero_rows(weight)) == [0, 1, 2]


def test_a_convolution_counts_all_of_its_kernel() -> None:
    weight = torch.zeros(2, 3, 3, 3)
    weight[1, 2, 2, 2] = -1.0
    assert units(zero_rows(weight)) == [0]
    assert units(negative_rows(weight)) == [1]


def test_no_weight_that_is_not_a_number_is_taken_for_negative() -> None:
    weight = torch.tensor([[-1.0, float("nan")], [-1.0, -2.0]])
    assert units(negative_rows(weight)) == [1]
    assert not zero_rows(weight * 0, torch.tensor([float("nan"), float("nan")]))


def test_negative_rows_never_fire_behind_a_relu() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 300)
    with torch.no_grad():
        layer.weight[:40].clamp_(max=0)
        layer.weight[40:, 0].abs_()
        layer.bias[:30].clamp_(max=0)
        layer.bias[30:40].clamp_(min=1e-6)
    found = units(negative_rows(layer.weight, layer.bias))
    assert found == list(range(30))
    z = layer(torch.randn(100_000, 6).relu() * torch.rand(100_000, 1))
    assert not bool((z[:, found] > 0).any())


@pytest.mark.parametrize("centred", [True, False], ids=["layer-norm", "rms-norm"])
def test_a_norm_bounds_the_linear_behind_it(centred: bool) -> None:
    """DESIGN 10: b = -(1 + 1e-3) S is certified; b = -(1 - 1e-3) S is not, and x = 1e6 P(w * gamma) fires."""
    torch.manual_seed(1)
    d = 16
    norm = nn.LayerNorm(d).double() if centred else nn.RMSNorm(d, eps=1e-5).double()
    w = torch.randn(50, d, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.normal_(1.0, 0.5)
        if centred:
            norm.bias.normal_(0.0, 0.1)
    beta = norm.bias if centred else torch.zeros(d, dtype=torch.float64)
    given = {"norm_weight": norm.weight, "norm_bias": beta, "centred": centred}
    v = w * norm.weight
    direction = (v - v.mean(1, keepdim=True) if centred else v).detach()
    sup = (w @ beta + math.sqrt(d) * direction.norm(dim=1)).detach()  # the formula of DESIGN 6.6, by hand
    assert torch.allclose(norm_bounds(w, **given), sup, rtol=1e-12)
    keep = sup > 0
    assert int(keep.sum()) > 40
    assert set(units(norm_certificates(w, -(1 + 1e-3) * sup, **given))) >= set(keep.nonzero().flatten().tolist())
    assert not set(units(norm_certificates(w, -(1 - 1e-3) * sup, **given))) & set(keep.nonzero().flatten().tolist())
    z = (norm(1e6 * direction) * w).sum(1) - (1 - 1e-3) * sup
    assert bool((z[keep] > 0).all())
    z = (norm(1e6 * direction) * w).sum(1) - (1 + 1e-3) * sup
    assert bool((z[keep] < 0).all())


def test_a_batch_norm_bounds_what_one_outlier_can_do() -> None:
    """DESIGN 10: beta = -(1 + 1e-3) |gamma| sqrt(m - 1) is certified; with 1 - 1e-3 one outlier fires it."""
    m, gamma = 32, torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    edge = gamma.abs() * math.sqrt(m - 1)
    for share, certified in ((1 + 1e-3, [0, 1, 2]), (1 - 1e-3, [])):
        beta = -share * edge
        assert units(batch_norm_certificates(gamma, beta, values=m)) == certified
        norm = nn.BatchNorm1d(3).double().train()
        norm.weight.data, norm.bias.data = gamma.clone(), beta.clone()
        x = torch.zeros(m, 3, dtype=torch.float64)
        x[0] = 1e6 * gamma.sign()
        assert bool((norm(x)[0] > 0).all()) == (not certified)


def test_one_value_per_channel_is_its_own_mean() -> None:
    assert units(batch_norm_certificates(torch.tensor([5.0, 5.0]), torch.tensor([-0.1, 0.1]), values=1)) == [0]


def test_the_heuristic_stands_beside_its_bound_for_any_distribution() -> None:
    gamma, beta = torch.tensor([1.0, -1.0, 0.0, 1.0]), torch.tensor([-3.5, -5.0, -1.0, 3.0])
    claims = batch_norm_heuristics(gamma, beta)
    assert units(claims) == [0, 1, 2]
    assert {claim.level for claim in claims} == {"heuristic"}
    normal = torch.distributions.Normal(0.0, 1.0)
    for claim, r in zip(claims[:2], (3.5, 5.0), strict=True):
        assert claim.probability == pytest.approx(float(normal.cdf(torch.tensor(-r, dtype=torch.float64))), rel=1e-4)
        assert claim.cantelli == pytest.approx(1 / (1 + r * r), rel=1e-6)
    assert (claims[2].probability, claims[2].cantelli) == (0.0, 0.0)
    # The lognormal distribution, standardised, is over its mean by 3.5 deviations 70 times as often as a Gaussian.
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).exp()
    share = float(((x - x.mean()) / x.std() > 3.5).float().mean())
    assert claims[0].probability is not None
    assert claims[0].cantelli is not None
    assert 30 * claims[0].probability < share < claims[0].cantelli


def test_a_claim_becomes_json_without_what_it_does_not_say() -> None:
    [claim] = batch_norm_certificates(torch.tensor([1.0]), torch.tensor([-2.0]), values=2)
    assert set(claim.to_dict()) == {"unit", "claim", "level", "upper"}
    assert claim.to_dict()["upper"] == pytest.approx(-1.0, abs=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: zero_rows(torch.zeros(3)),
        lambda: zero_rows(torch.zeros(3, 2), torch.zeros(2)),
        lambda: norm_certificates(torch.zeros(3, 2), norm_weight=torch.zeros(3)),
        lambda: batch_norm_certificates(torch.ones(2), torch.ones(3), values=4),
        lambda: batch_norm_certificates(torch.ones(2), torch.ones(2), values=0),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call) -> None:
    with pytest.raises(DataError, match="expected"):
        call()
