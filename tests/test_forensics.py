"""What a checkpoint says by itself: planted silence is found and dated, and nothing is claimed of what lives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replicas import REPLICAS, Replica
from torch import nn

from deadrelu.checkpoint import open_checkpoint
from deadrelu.errors import CheckpointError, InputError
from deadrelu.findings import findings
from deadrelu.forensics import examine, proof_report
from deadrelu.forensics.layers import find_layers
from deadrelu.proofs import prove
from deadrelu.report import Report

SHOT, BORN = [1, 4], [7, 8]
AGE = 120


class Course:
    """A small net under training, with the update of every unit's last gradient, as autograd gives it."""

    def __init__(self, make: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer] | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
        self.optimizer = (make or (lambda p: torch.optim.Adam(p, lr=1e-3)))(self.model.parameters())
        self.updates = 0
        self.last = np.full(64, -1)
        self._generator = torch.Generator().manual_seed(1)

    def shift(self, units: list[int], by: float = -1e3) -> None:
        with torch.no_grad():
            self.model[0].bias[units] += by  # type: ignore[index, operator]

    def train(self, updates: int) -> None:
        for _ in range(updates):
            x = torch.randn(32, 20, generator=self._generator)
            y = x[:, :1].sin() + 0.3 * torch.randn(32, 1, generator=self._generator)
            self.optimizer.zero_grad()
            (self.model(x) - y).square().mean().backward()
            weight = self.model[0].weight
            if weight.grad is not None:  # type: ignore[union-attr]
                self.last[(weight.grad != 0).any(1).numpy()] = self.updates  # type: ignore[union-attr, operator]
            self.optimizer.step()
            self.updates += 1

    def saved(self, path: Path) -> Report:
        held = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.updates}
        torch.save(held, path)
        return examine(open_checkpoint(path))


@pytest.fixture(scope="module")
def shot() -> Course:
    """Units 7, 8 dead from birth; 1, 4 shot after 1,000 updates."""
    course = Course()
    course.shift(BORN)
    course.train(1000)
    course.shift(SHOT)
    course.train(AGE)
    return course


def of(report: Report, site: str, claim: str) -> dict[int, dict[str, Any]]:
    return {c["unit"]: c for c in report[site].claims if c["claim"] == claim}


def test_planted_deaths_are_found_and_dated(shot: Course, tmp_path: Path) -> None:
    """Ground truth: the last update in which autograd gave each unit a gradient."""
    report = shot.saved(tmp_path / "a.pt")
    assert [s.site for s in report] == ["0", "2"]
    lost, never = of(report, "0", "no_gradient"), of(report, "0", "never_gradient")
    assert sorted(never) == BORN
    assert {unit for unit in range(64) if shot.last[unit] == -1} == set(BORN)
    assert set(SHOT) <= set(lost)
    for unit, claim in lost.items():
        true = shot.updates - 1 - shot.last[unit]
        assert claim["level"] == "optimizer"
        assert claim["low"] <= true + 60
        assert true <= claim["high"]
    for unit in SHOT:
        assert lost[unit]["low"] <= AGE <= lost[unit]["high"]
    assert not report["2"].claims


def test_no_gradient_is_never_called_dead(shot: Course, tmp_path: Path) -> None:
    report = shot.saved(tmp_path / "a.pt")
    assert report.dead == 0
    assert not report["0"].silent.any()
    assert report.mode == "checkpoint"
    assert report.evidence == "optimizer"
    assert report["0"].op == "unknown"
    assert np.isnan(report["0"].activation_rate).all()
    assert "dead" not in str(report).split("how sure")[1]
    assert "may fire all the same" in " ".join(str(report).split())


@pytest.mark.parametrize(
    "make",
    [
        None,
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=1e-3),
        lambda p: torch.optim.RMSprop(p, lr=1e-4),
    ],
)
def test_a_healthy_net_gives_no_claim(make: Any, tmp_path: Path) -> None:
    course = Course(make)
    course.shift(list(range(64)), by=2.0)
    course.train(300)
    alive = course.last >= course.updates - 5
    assert alive.all()
    report = course.saved(tmp_path / "a.pt")
    assert [s.claims for s in report] == [(), ()]
    assert not any(found.claimed for found in findings(report))


def test_a_frozen_layer_is_declined(tmp_path: Path) -> None:
    course = Course(lambda p: torch.optim.Adam(list(p)[2:], lr=1e-3))
    course.model[0].requires_grad_(False)
    course.train(100)
    report = course.saved(tmp_path / "a.pt")
    assert not report["0"].claims
    reasons = dict(report.coverage.unsupported)
    assert "frozen" in reasons["0.weight"]


def test_a_whole_silent_layer_is_said_and_not_claimed_unit_by_unit(tmp_path: Path) -> None:
    course = Course()
    course.train(300)
    course.shift(list(range(64)))
    course.train(150)
    report = course.saved(tmp_path / "a.pt")
    assert not report["0"].claims
    assert "dead throughout" in dict(report.coverage.unsupported)["0"]


def test_without_an_optimizer_it_says_so(tmp_path: Path) -> None:
    torch.save(Course().model.state_dict(), tmp_path / "a.pt")
    report = examine(open_checkpoint(tmp_path / "a.pt"))
    assert report.evidence == "heuristic"
    assert dict(report.coverage.unsupported)["optimizer"].startswith("the file holds no state")
    assert "Nothing in the weights" in str(report)


def test_lightning_and_folders_say_the_same(shot: Course, tmp_path: Path) -> None:
    whole = shot.saved(tmp_path / "a.pt")["0"].claims
    state = {f"net.{name}": value for name, value in shot.model.state_dict().items()}
    lightning = {
        "pytorch-lightning_version": "2.6.0",
        "global_step": shot.updates,
        "state_dict": state,
        "optimizer_states": [shot.optimizer.state_dict()],
        "callbacks": {},
    }
    torch.save(lightning, tmp_path / "last.ckpt")
    report = examine(open_checkpoint(tmp_path / "last.ckpt"))
    assert [c | {"layer": "0"} for c in report["net.0"].claims] == list(whole)
    folder = tmp_path / "hf"
    folder.mkdir()
    pytest.importorskip("safetensors.torch").save_file(state, folder / "model.safetensors")
    torch.save(shot.optimizer.state_dict(), folder / "optimizer.pt")
    report = examine(open_checkpoint(folder))
    assert {c["unit"] for c in report["net.0"].claims} >= {*SHOT, *BORN}


def test_two_optimizers(shot: Course, tmp_path: Path) -> None:
    """One state per part of the model, as in a GAN: each is matched on its own, and none to two."""
    other = Course()
    other.model = nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 1))
    other.optimizer = torch.optim.Adam(other.model.parameters(), lr=1e-3)
    other.last = np.full(48, -1)
    other.train(100)
    held = {
        "generator": shot.model.state_dict(),
        "discriminator": other.model.state_dict(),
        "optimizers": [shot.optimizer.state_dict(), other.optimizer.state_dict()],
    }
    torch.save(held, tmp_path / "gan.pt")
    report = examine(open_checkpoint(tmp_path / "gan.pt"))
    assert {c["unit"] for c in report["generator.0"].claims} >= {*SHOT, *BORN}
    assert not report["discriminator.0"].claims


# What the weights say


def alone(tmp_path: Path, model: nn.Module, **options: Any) -> Report:
    torch.save(model.state_dict(), tmp_path / "w.pt")
    return examine(open_checkpoint(tmp_path / "w.pt"), **options)


@pytest.mark.parametrize(("bias", "dead"), [(-1.0, [2]), (0.0, [2]), (1.0, [])])
def test_rows_of_zeros(bias: float, dead: list[int], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, bias
    report = alone(tmp_path, model)
    assert np.flatnonzero(report["0"].dead).tolist() == dead
    assert sorted(of(report, "0", "zero_row")) == dead
    assert (report.evidence == "proved") == bool(dead)


def test_transposed_convolutions_have_their_units_in_the_second_dimension(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3))
    with torch.no_grad():
        model[0].weight[:, 5], model[0].bias[5] = 0, -1
    report = alone(tmp_path, model)
    assert report["0"].units == 6
    assert np.flatnonzero(report["0"].dead).tolist() == [5]


def test_a_layer_of_zeros_is_no_death(tmp_path: Path) -> None:
    """Residual branches and new heads are made to start at zero."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 6))
    nn.init.zeros_(model[2].weight), nn.init.zeros_(model[2].bias)
    report = alone(tmp_path, model)
    assert report.dead == 0
    assert "start at zero" in dict(report.coverage.unsupported)["2"]


@pytest.mark.parametrize("beta", [-1.0, 0.5, 3.0])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("gamma", [-1.5, 0.0, 1.5])
def test_a_row_of_zeros_behind_a_batch_norm(beta: float, shift: float, gamma: float, tmp_path: Path) -> None:
    """Ground truth: the model run in eval and in train mode, with the rectifier behind the norm and before it."""
    torch.manual_seed(0)
    for norm_first in (True, False):
        tail = [nn.BatchNorm2d(4), nn.ReLU()] if norm_first else [nn.ReLU(), nn.BatchNorm2d(4)]
        model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), *tail)
        norm = model[1 if norm_first else 2]
        with torch.no_grad():
            model[0].weight[1] = 0
            norm.weight[1], norm.bias[1], norm.running_mean[1] = gamma, beta, shift
        held = {("1" if k.startswith("2") else k[0]) + k[1:]: v for k, v in model.state_dict().items()}
        torch.save(held, tmp_path / "w.pt")
        report = examine(open_checkpoint(tmp_path / "w.pt"))
        fires = False
        for mode in (False, True):
            h = torch.randn(8, 3, 6, 6)
            for layer in model.train(mode):
                h = layer(h)
                fires = fires or (isinstance(layer, nn.ReLU) and bool((h[:, 1] > 0).any()))
        if norm_first or gamma != 0:
            assert not (fires and report["0"].dead[1])
        if norm_first:
            assert bool(report["0"].dead[1]) == (not fires)


def test_channels_that_are_likely_rare(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    with torch.no_grad():
        model[1].bias[2] = -5
    report = alone(tmp_path, model)
    (claim,) = report["0"].claims
    assert (claim["unit"], claim["claim"], claim["level"], claim["layer"]) == (2, "likely_rare", "heuristic", "1")
    assert claim["cantelli"] == pytest.approx(1 / 26)
    assert report.dead == 0


def test_rows_without_a_positive_number_are_no_proof(tmp_path: Path) -> None:
    """Whether inputs are negative is not in the file; and in a narrow layer it is chance."""
    model = nn.Sequential(nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight[3].abs_().neg_(), model[0].bias[3].abs_().neg_()
        model[2].weight.abs_().neg_(), model[2].bias.abs_().neg_()
    report = alone(tmp_path, model)
    assert report.dead == 0
    assert [(c["unit"], c["level"], c["given"]) for c in report["0"].claims] == [
        (3, "heuristic", "no input is ever negative")
    ]
    assert not report["2"].claims


def test_a_norm_that_a_sequential_puts_before_a_linear(tmp_path: Path) -> None:
    """Ground truth: sup z = b + w.beta + sqrt(d) |w gamma| bounds what any input can reach."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8), nn.ReLU())
    bound = 4 * model[1].weight.detach().norm(dim=1)
    with torch.no_grad():
        model[1].bias[0] = -1.001 * bound[0]
        model[1].bias[1] = -0.9 * bound[1]
    report = alone(tmp_path, model)
    assert np.flatnonzero(report["1"].dead).tolist() == [0]
    assert report["1"].claims[0]["given"] == "0 feeds it directly"
    assert not (model(1e4 * torch.randn(20_000, 16))[:, 0] > 0).any()


def test_channels_that_stopped_varying(tmp_path: Path) -> None:
    """ReLU, then BatchNorm: a channel shot 300 train-mode forwards ago, dated by its running variance."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.BatchNorm1d(12), nn.Linear(12, 1))
    with torch.no_grad():
        for forward in range(500):
            if forward == 200:
                model[0].bias[3] = -1e3
            model(torch.randn(64, 6))
    report = alone(tmp_path, model)
    found = of(report, "0", "no_variance")
    assert list(found) == [3]
    assert found[3]["low"] <= 300 <= found[3]["high"]
    assert found[3]["momentum"] == 0.1


# What is left alone


def test_what_is_no_layer_is_listed(tmp_path: Path) -> None:
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(9, 4, padding_idx=0),
            "rnn": nn.LSTM(4, 6),
            "attention": nn.MultiheadAttention(4, 2),
            "fc": nn.Linear(6, 8),
            "act": nn.PReLU(8),
            "head": nn.utils.parametrizations.weight_norm(nn.Linear(8, 2)),
            "norm": nn.LayerNorm(4),
        }
    )
    report = alone(tmp_path, model)
    assert [site.site for site in report] == ["attention.out_proj"]
    reasons = dict(report.coverage.unsupported)
    for name, word in {
        "table": "embedding",
        "rnn": "LSTM",
        "attention": "attention",
        "fc": "PReLU",
        "head.parametrizations.weight": "computed",
        "norm": "norm",
    }.items():
        assert word in reasons[name]
    assert report.dead == 0


@pytest.mark.parametrize("replica", REPLICAS, ids=lambda replica: replica.name)
def test_units_of_real_architectures(replica: Replica, tmp_path: Path) -> None:
    """Ground truth: the modules themselves. Of freshly drawn weights nothing is claimed."""
    torch.manual_seed(0)
    model = replica.build()
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    checkpoint = open_checkpoint(tmp_path / "w.pt")
    layers = {layer.name: layer for layer in find_layers(checkpoint.weights)[0]}
    for name, module in model.named_modules():
        if name in layers and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            dim = int(isinstance(module, nn.modules.conv._ConvTransposeNd))
            assert (layers[name].unit_dim, layers[name].units) == (dim, module.weight.shape[dim])
    if layers:
        assert not [claim for site in examine(checkpoint) for claim in site.claims]


# Refusals, and the report itself


def test_nan_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(CheckpointError, match=r"weight \(9\)"):
        alone(tmp_path, model)


def test_no_layer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no layer whose units"):
        alone(tmp_path, nn.LSTM(3, 3))


def test_patterns(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    assert [s.site for s in alone(tmp_path, model, exclude="2")] == ["0"]
    with pytest.raises(InputError, match="all 2 layers"):
        alone(tmp_path, model, include=["fc*"])


@pytest.mark.parametrize("name", ["\u00b2.weight", "9" * 5000 + ".weight", ".weight", "a..weight", "0.\u0661.weight"])
def test_strange_names(name: str, tmp_path: Path) -> None:
    torch.save({name: torch.ones(4, 3), "z.weight": torch.ones(2, 4)}, tmp_path / "w.pt")
    assert len(examine(open_checkpoint(tmp_path / "w.pt"))) == 2


def test_the_report_survives_json(shot: Course, tmp_path: Path) -> None:
    report = shot.saved(tmp_path / "a.pt")
    told = json.loads(report.to_json())
    assert Report.from_dict(told).to_dict() == report.to_dict()
    assert set(told["sites"][0]["claims"][0]) >= {"unit", "claim", "level", "steps", "low", "high"}
    assert "gradient" in report.to_html()


def test_a_proof_as_a_report() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.GELU())
    with torch.no_grad():
        model[0].bias[[2, 5]] = -1e3
    report = proof_report(prove(model, input_shape=(4,), input_range=(-1, 1)))
    assert report.evidence == "proved"
    assert np.flatnonzero(report["1"].dead).tolist() == [2, 5]
    assert [c["unit"] for c in report["1"].claims] == [2, 5]
    assert all(c["upper"] < 0 and "-1 to 1" in c["domain"] for c in report["1"].claims)
    assert report["3"].dead_fraction is None
    assert "-1 to 1" in " ".join(str(report).split())
