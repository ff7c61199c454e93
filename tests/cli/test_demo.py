"""`deadrelu demo`: trained for real, judged for real, and its next command works when pasted."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from deadrelu.cli import demo_models
from deadrelu.cli.demo_runs import Pair, pairs

from .shop import deadrelu, refused

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def trained() -> list[Pair]:
    return list(pairs())


def test_the_verdict_is_what_the_networks_show(trained: list[Pair]) -> None:
    """Source: a plain forward of the held-out digits, layer by layer, counting the units whose output is 0 for all."""
    for pair in trained:
        for run in (pair.healthy, pair.killed):
            x, silent = pair.split.held_out, []
            with torch.no_grad():
                for layer in run.network.children():
                    x = layer(x)
                    if isinstance(layer, torch.nn.ReLU):
                        silent.append((x.transpose(0, 1).flatten(1) == 0).all(dim=1).nonzero().flatten().tolist())
            assert [site.dead.nonzero()[0].tolist() for site in run.report] == silent
            assert run.report.evidence == "exhaustive"
            assert run.report.samples == 450
            right = x.argmax(dim=1) == pair.split.labels[pair.split.training :]
            assert run.accuracy == pytest.approx(float(right.float().mean()))


def test_healthy_is_healthy_and_killed_is_killed(trained: list[Pair]) -> None:
    """Wide bounds: the rounding of another machine may lead training elsewhere (see the seeds in demo_runs)."""
    assert [pair.key for pair in trained] == ["mlp", "cnn"]
    for pair in trained:
        healthy, killed = pair.healthy.report.dead_fraction, pair.killed.report.dead_fraction
        assert healthy is not None
        assert killed is not None
        assert healthy < 0.05
        assert 0.1 < killed < 0.9
        assert pair.healthy.accuracy > 0.95
        assert pair.killed.accuracy > 0.7
        assert pair.killed.learning_rate > 10 * pair.healthy.learning_rate


def test_random_states_are_untouched() -> None:
    """Source: DESIGN 5.1: nothing changes outside."""
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    threads = torch.get_num_threads()
    next(pairs())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_two_trainings_agree(trained: list[Pair]) -> None:
    """The seeds are fixed: the same machine shows the same screen twice."""
    again = next(pairs())
    for name, value in trained[0].killed.network.state_dict().items():
        assert torch.equal(again.killed.network.state_dict()[name], value)


def test_the_screen_and_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --out the next command is printed; pasted, it finds what the screen said."""
    monkeypatch.chdir(tmp_path)
    result = deadrelu("demo", "--out", "my demo")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    files = sorted(p.name for p in Path("my demo").iterdir())
    assert files == [
        "cnn_healthy.pt",
        "cnn_held_out.npy",
        "cnn_killed.pt",
        "mlp_healthy.pt",
        "mlp_held_out.npy",
        "mlp_killed.pt",
    ]
    command = shlex.split(result.stdout.strip().splitlines()[-1])
    assert command[:2] == ["deadrelu", "audit"]
    report = json.loads(deadrelu(*command[1:], "--json", "-").stdout)
    text = " ".join(result.stdout.split())
    assert f"{report['dead']} of its {report['units_can_die']} channels dead" in text
    assert re.search(r"healthy, lr 0\.001: 9\d\.\d % of the held-out digits right", text)


def test_every_saved_network_has_its_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("mlp", "cnn"):
        torch.save(getattr(demo_models, key)().state_dict(), f"{key}.pt")
        np.save(f"{key}.npy", np.zeros((3, 20) if key == "mlp" else (3, 1, 8, 8)))
        words = ["audit", f"{key}.pt", "--model", f"deadrelu.cli.demo_models:{key}", "--data", f"{key}.npy"]
        assert deadrelu(*words).exit_code == 0


def test_without_out_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = deadrelu("demo")
    assert result.exit_code == 0
    assert "deadrelu demo --out" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadrelu.cli.demo_runs.pairs", lambda: pytest.fail("trained"))
    (tmp_path / "file").write_text("not a folder")
    assert "--out" in refused("demo", "--out", str(tmp_path / "file"))
    assert "--out" in refused("demo", "--out", str(tmp_path / "file" / "below"))
