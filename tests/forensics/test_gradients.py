"""What the optimizer state says: planted silence is found and dated, and nothing is claimed of what lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deadrelu.checkpoint import open_checkpoint
from deadrelu.findings import findings, silent_layers
from deadrelu.forensics import examine

from .course import AGE, BORN, SHOT, Course, of


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
    assert silent_layers(report) == ("0",)
    screen = " ".join(str(report).split())
    assert "No unit of layer 0 has had a gradient of late" in screen
    assert "claims no single unit" in screen


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


def test_ages_on_the_screen_are_estimates_with_their_errors(shot: Course, tmp_path: Path) -> None:
    """In the table what is estimated, below it between what all of them lie."""
    report = shot.saved(tmp_path / "a.pt")
    (found, _) = findings(report)
    dated = of(report, "0", "no_gradient").values()
    assert (found.youngest, found.oldest) == (min(c["steps"] for c in dated), max(c["steps"] for c in dated))
    assert (found.least, found.most) == (min(c["low"] for c in dated), max(c["high"] for c in dated))
    screen = " ".join(str(report).split())
    assert f"layer 0 {found.least} to {found.most} updates (unit by unit in the JSON)" in screen
