"""Cases whose answer is known from a paper, a closed form or a plain formula (DESIGN 10, the rows without training)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import beta
from torch import nn

import deadrelu

NETS, CHUNK, PACK = 200_000, 50_000, 4
Floats = NDArray[np.float64]


class ManyNets(nn.Module):
    """`nets` independent nets 1-N-...-N without biases, side by side: He normal, ReLU after each of the `hidden` maps.

    A convolution of one position holds them exactly: PACK nets a group, zeros between the nets of a group. (One net a
    group is the same thing, four times slower.)
    """

    def __init__(self, nets: int, width: int, hidden: int, rng: torch.Generator) -> None:
        super().__init__()
        channels, groups = nets * width, nets // PACK
        first = nn.Conv1d(1, channels, 1, bias=False)
        nn.init.normal_(first.weight, std=math.sqrt(2.0), generator=rng)
        layers: list[nn.Module] = [first, nn.ReLU()]
        for _ in range(hidden - 1):
            conv = nn.Conv1d(channels, channels, 1, groups=groups, bias=False)
            weight = torch.zeros(groups, PACK, width, PACK, width)
            for net in range(PACK):
                weight[:, net, :, net, :].normal_(std=math.sqrt(2.0 / width), generator=rng)
            conv.weight = nn.Parameter(weight.view(channels, PACK * width, 1))
            layers += [conv, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def born_dead_fraction(maps: int, width: int) -> float:
    """Return the share of NETS nets of `maps` linear maps whose last hidden layer is silent at x = -1 and x = +1."""
    rng = torch.Generator().manual_seed(1903_06733)
    hidden, dead = maps - 1, 0
    for _ in range(NETS // CHUNK):
        model = ManyNets(CHUNK, width, hidden, rng)
        report = deadrelu.audit(model, torch.tensor([-1.0, 1.0]).view(2, 1, 1), exhaustive=True)
        last = report.sites[-1]
        assert (len(report.sites), last.units, last.samples) == (
            hidden,
            CHUNK * width,
            2,
        )
        dead += int(last.dead.reshape(CHUNK, width).all(axis=1).sum())
    return dead / NETS


def lu_tolerance(p: float) -> float:
    """Return 4 standard errors of a share of NETS draws, at least the rounding of the table (DESIGN 10)."""
    return max(4 * math.sqrt(p * (1 - p) / NETS), 0.003)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_born_dead_three_maps(width: int) -> None:
    """Source: Lu et al. 2019 (arXiv:1903.06733); for L = 3 the closed form 4^-N (3 - 2^(1-N))."""
    p = 4.0**-width * (3 - 2.0 ** (1 - width))
    assert born_dead_fraction(3, width) == pytest.approx(p, abs=lu_tolerance(p))


@pytest.mark.parametrize(("width", "p"), [(2, 0.880), (3, 0.580), (5, 0.129)])
def test_born_dead_ten_maps(width: int, p: float) -> None:
    """Source: Lu et al. 2019 (arXiv:1903.06733), L = 10; the values of DESIGN 10."""
    assert born_dead_fraction(10, width) == pytest.approx(p, abs=lu_tolerance(p))


@pytest.mark.parametrize("init", ["normal", "uniform"])
@pytest.mark.parametrize(("n", "tolerance"), [(4, 0.0036), (9, 0.0027), (19, 0.0020)])
def test_correlated_inputs(n: int, tolerance: float, init: str) -> None:
    """Inputs x_i = e_0 + e_i: a unit is silent on all n with probability 1/(n+1), for any iid symmetric weights.

    Source: z_i = w_0 + w_i <= 0 for all i says that -w_0 is the largest of n + 1 iid draws; 4 standard errors at
    200,000 units.
    """
    rng = torch.Generator().manual_seed(n)
    model = nn.Sequential(nn.Linear(n + 1, 200_000, bias=False), nn.ReLU())
    if init == "normal":
        nn.init.normal_(model[0].weight, generator=rng)
    else:
        nn.init.uniform_(model[0].weight, -1, 1, generator=rng)
    x = torch.cat([torch.ones(n, 1), torch.eye(n)], dim=1)
    report = deadrelu.audit(model, x, exhaustive=True)
    assert report.evidence == "exhaustive"
    assert report.dead_fraction == pytest.approx(1 / (n + 1), abs=tolerance)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_silent_on_the_corners_of_the_box(d: int) -> None:
    """torch's default Linear(d, 400000) on [-1, 1]^d: silent on the 2^d corners is silent on the box, unit by unit.

    Source: max of w.x + b over the box is b + sum |w|; both uniform on (-1, 1)/sqrt(d) gives the fraction 1/(2(d+1)!).
    In float64, where a tie has no chance.
    """
    units = 400_000
    torch.manual_seed(d)
    model = nn.Sequential(nn.Linear(d, units), nn.ReLU()).double()
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * d).reshape(2**d, d).double()
    report = deadrelu.audit(model, corners, exhaustive=True)
    weight, bias = (p.detach().numpy() for p in model[0].parameters())
    upper = bias + np.abs(weight).sum(axis=1)
    np.testing.assert_array_equal(report["1"].dead, upper <= 0)
    np.testing.assert_allclose(report["1"].max_z, upper, rtol=0, atol=1e-12)
    p = 1 / (2 * math.factorial(d + 1))
    assert report.dead_fraction == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / units))


def mlp(activation: Callable[[], nn.Module], kill_all: bool = False) -> nn.Sequential:
    torch.manual_seed(11)
    model = nn.Sequential(
        nn.Linear(6, 40),
        activation(),
        nn.Linear(40, 30),
        activation(),
        nn.Linear(30, 3),
    )
    with torch.no_grad():
        model[0].bias[::5] = -100.0  # silent under ReLU, and the largest |h| by far under LeakyReLU
        model[0].bias[1::5] -= 1.5  # low, not zero
        if kill_all:
            model[2].bias.fill_(-1e4)
    return model.double()


def cnn(activation: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(12)
    model = nn.Sequential(nn.Conv2d(2, 24, 3), activation(), nn.Conv2d(24, 20, 3, stride=2), activation())
    with torch.no_grad():
        model[0].bias[:6] -= torch.linspace(0.5, 2.0, 6)
        model[2].bias[3] = -100.0
    return model.double()


def outputs(model: nn.Sequential, index: int, x: torch.Tensor) -> Floats:
    """Return h of a module as (everything but the units, units)."""
    with torch.no_grad():
        h = model[: index + 1](x).movedim(1, -1).flatten(0, -2)
    return h.double().numpy()


def sokar_score(h: Floats) -> Floats:
    """Equation 1 of Sokar et al. 2023: mean |h_i| over the mean of it across the layer; an all-zero layer scores 0."""
    mean = np.abs(h).mean(axis=0)
    return np.zeros_like(mean) if mean.sum() == 0 else mean / mean.mean()


DORMANCY = {
    "relu": lambda: (mlp(nn.ReLU), torch.randn(101, 6)),
    "relu, in place": lambda: (mlp(lambda: nn.ReLU(inplace=True)), torch.randn(101, 6)),
    "an all-zero layer": lambda: (mlp(nn.ReLU, kill_all=True), torch.randn(101, 6)),
    "leaky relu": lambda: (mlp(nn.LeakyReLU), torch.randn(101, 6)),
    "relu6": lambda: (mlp(nn.ReLU6), 5 * torch.randn(101, 6)),
    "gelu": lambda: (mlp(nn.GELU), torch.randn(101, 6)),
    "tanh": lambda: (mlp(nn.Tanh), torch.randn(101, 6)),
    "cnn, relu": lambda: (cnn(nn.ReLU), torch.randn(33, 2, 9, 9)),
    "cnn, elu": lambda: (cnn(nn.ELU), torch.randn(33, 2, 9, 9)),
}


@pytest.mark.parametrize("case", DORMANCY)
def test_sokar_dormancy(case: str) -> None:
    """Equal masks against the plain formula at every tau of the paper; the batches must not be averaged one by one.

    Source: Sokar et al. 2023 (arXiv:2302.12902), definition 3.1.
    """
    torch.manual_seed(0)
    model, x = DORMANCY[case]()
    x = x.double()
    report = deadrelu.audit(model, x, batch_size=16, exhaustive=True)
    assert [s.site for s in report.sites] == ["1", "3"]
    for site in report.sites:
        score = sokar_score(outputs(model, int(site.site), x))
        np.testing.assert_allclose(site.dormant_score, score, rtol=1e-9, atol=1e-12)
        for tau in (0.0, 0.025, 0.1, 0.5):
            np.testing.assert_array_equal(site.dormant(tau), score <= tau)


def test_an_all_zero_layer_is_all_dormant() -> None:
    """Source: DESIGN 10. Without the convention the score would be 0/0, and no unit would be dormant."""
    report = deadrelu.audit(
        mlp(nn.ReLU, kill_all=True),
        torch.randn(64, 6, dtype=torch.float64),
        exhaustive=True,
    )
    assert report["3"].dormant(0.0).all()
    assert report["3"].dead.all()
    assert not report["1"].dormant().all()


def clopper_pearson(k: NDArray[np.int64], n: int, alpha: float = 0.05) -> Floats:
    """Return the one-sided upper bound of a rate after k hits in n draws, from scipy's beta quantile."""
    upper = np.ones(len(k))
    upper[k < n] = beta.ppf(1 - alpha, k[k < n] + 1, n - k[k < n])
    return upper


def firing(counts: NDArray[np.int64], n: int) -> torch.Tensor:
    """Return inputs (n, units), +1 in `counts[i]` random rows of column i and -1 elsewhere."""
    rng = np.random.default_rng(5)
    x = -np.ones((n, len(counts)), dtype=np.float32)
    for unit, count in enumerate(counts):
        x[rng.permutation(n)[:count], unit] = 1.0
    return torch.from_numpy(x)


def through(units: int) -> nn.Sequential:
    """Return a net whose unit i sees input i: its pre-activations are the data, exactly."""
    model = nn.Sequential(nn.Linear(units, units, bias=False), nn.ReLU())
    model[0].weight.data.copy_(torch.eye(units))
    return model


@pytest.mark.parametrize("n", [2_995, 1_000, 400, 20_000])
def test_rare_against_the_plain_formula(n: int) -> None:
    """Rare: fires, yet the Clopper-Pearson upper bound is under 1 %.

    Source: DESIGN 2 and 3; bounds from scipy. At 400 samples one firing leaves it at 1.18 %: none is rare.
    """
    counts = np.unique(np.concatenate([np.arange(30), [n // 200, n // 150, n // 110, n // 100, n // 50, n - 1, n]]))
    report = deadrelu.audit(through(len(counts)), firing(counts, n), batch_size=512)
    site, upper = report["1"], clopper_pearson(counts, n)
    assert (np.abs(upper - 0.01) > 1e-6).all()
    np.testing.assert_array_equal(site.sample_rate, counts / n)
    np.testing.assert_allclose(site.rate_upper, upper, rtol=1e-7)
    np.testing.assert_array_equal(site.rare, (counts > 0) & (upper < 0.01))
    np.testing.assert_array_equal(site.silent, counts == 0)
    np.testing.assert_array_equal(site.always_on, counts == n)


def test_the_bounds_that_the_design_prints() -> None:
    """Source: DESIGN 3: n = 2,995, k = 0, 1, 5, 20 give .00099974, .0015829, .0035070, .0096888."""
    report = deadrelu.audit(through(4), firing(np.array([0, 1, 5, 20]), 2_995))
    printed = [round(bound, digits) for bound, digits in zip(report["1"].rate_upper, (8, 7, 7, 7), strict=True)]
    assert printed == [0.00099974, 0.0015829, 0.0035070, 0.0096888]
    assert report["1"].status == ("dead", "rare", "rare", "rare")


def test_rare_counts_samples_and_not_positions() -> None:
    """Unit 0 fires on all 200 positions of 5 samples of 3,000; unit 1 on one position of every sample.

    Source: DESIGN 3: the pixels of an image are not independent, so the bound is that of the sample rate.
    """
    n, length = 3_000, 200
    x = -torch.ones(n, 2, length)
    x[::600, 0] = 1.0
    x[:, 1, 7] = 1.0
    model = nn.Sequential(nn.Conv1d(2, 2, 1, bias=False), nn.ReLU())
    model[0].weight.data.copy_(torch.eye(2).unsqueeze(-1))
    site = deadrelu.audit(model, x, batch_size=500)["1"]
    assert site.status == ("rare", "active")
    assert (site.samples, site.positions) == (n, n * length)
    np.testing.assert_allclose(site.sample_rate, [5 / n, 1.0])
    np.testing.assert_allclose(site.activation_rate, [5 / n, 1 / length])
    np.testing.assert_allclose(site.rate_upper, clopper_pearson(np.array([5, n]), n), rtol=1e-7)
