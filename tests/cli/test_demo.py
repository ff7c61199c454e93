"""`deadrelu demo`: trained for real, judged for real, and its next command works when pasted."""

from __future__ import annotations

import json
import logging
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from deadrelu.cli import demo_models
from deadrelu.cli.demo_digits import Split, features
from deadrelu.cli.demo_runs import Pair, pairs
from deadrelu.cli.demo_watched import MISTAKES, Mistake, train, watched
from deadrelu.report import Report

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


@pytest.fixture(scope="module")
def digits() -> Split:
    return features()


SEEDS = (0, 3, 5)


@pytest.fixture(scope="module", params=MISTAKES, ids=lambda mistake: mistake.key)
def watchings(request: pytest.FixtureRequest, digits: Split) -> tuple[Mistake, list[tuple[torch.nn.Module, Report]]]:
    """Return a mistake, and the runs that make it, of several seeds."""
    threads, log = torch.get_num_threads(), logging.getLogger("deadrelu")
    torch.set_num_threads(1)
    runs = [train(request.param, digits, seed=seed) for seed in SEEDS]
    torch.set_num_threads(threads)
    assert log.level == logging.NOTSET
    return request.param, runs


def test_a_mistake_kills_and_is_named(watchings: tuple[Mistake, list[tuple[torch.nn.Module, Report]]]) -> None:
    """Nearly all deaths are of the mistake, by the parameter that made it, at the step that made it."""
    mistake, runs = watchings
    for _, report in runs:
        assert report.mode == "training"
        stayed = [death for death in report.deaths if death["revived"] is None]
        assert len(stayed) == report.dead
        if mistake.cause is None:
            assert report.dead <= 2
            continue
        named = [death for death in stayed if death["cause"] == mistake.cause]
        assert len(stayed) >= 8
        assert len(named) >= 0.75 * len(stayed)
        assert {death["site"] for death in named} == {"relu2"}
        if mistake.cause == "bias_drift":
            assert {death["parameter"] for death in named} == {"fc2.bias"}
        else:
            of_the_spike = [d for d in named if mistake.spike[0] <= d["killed_by_step"] < mistake.spike[1]]
            assert len(of_the_spike) >= 0.9 * len(named)
            assert {death["lr"] for death in of_the_spike} == {mistake.spike_rate}


def test_what_the_monitor_calls_dead_is_dead(
    watchings: tuple[Mistake, list[tuple[torch.nn.Module, Report]]], digits: Split
) -> None:
    """Source: a plain forward of the training digits at the end, counting the units whose output is 0 for all of them.

    The last update came after the last look: it may have moved a unit.
    """
    for network, report in watchings[1]:
        x = digits.inputs[: digits.training]
        with torch.no_grad():
            for layer, site in zip((network.relu1, network.relu2), report, strict=True):
                index = list(network.children()).index(layer)
                silent = (network[: index + 1](x) == 0).all(dim=0).numpy()
                assert (site.dead & ~silent).sum() <= 1
                assert (silent & ~site.dead & ~site.undecided).sum() <= 2


def test_the_mistake_is_all_that_differs(digits: Split) -> None:
    """A mistake that never comes is the sound run, bit for bit."""
    sound, spike = MISTAKES[0], MISTAKES[1]
    late = Mistake("late", "", spike=(10**6, 10**6 + 1), spike_rate=spike.spike_rate)
    for name, value in train(sound, digits)[0].state_dict().items():
        assert torch.equal(value, train(late, digits)[0].state_dict()[name])


def test_random_states_are_untouched() -> None:
    """Source: DESIGN 5.1: nothing changes outside."""
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    threads = torch.get_num_threads()
    next(pairs())
    next(watched())
    assert torch.get_num_threads() == threads
    assert logging.getLogger("deadrelu").level == logging.NOTSET
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
    monkeypatch.setenv("COLUMNS", "160")
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
        "runs",
    ]
    records_tell_the_same(Path("my demo/runs"), result.stdout)
    command = shlex.split(result.stdout.strip().splitlines()[-1])
    assert command[:2] == ["deadrelu", "audit"]
    report = json.loads(deadrelu(*command[1:], "--json", "-").stdout)
    text = " ".join(result.stdout.split())
    assert f"{report['dead']} of its {report['units_can_die']} channels dead" in text
    assert re.search(r"healthy, lr 0\.001: 9\d\.\d % of the held-out digits right", text)
    tells_of_the_mistakes(result.stdout)


def records_tell_the_same(runs: Path, screen: str) -> None:
    """The commands that are printed for the records are those of a folder with a run for each mistake."""
    assert shlex.join(["deadrelu", "report", str(runs)]) in screen
    assert shlex.join(["deadrelu", "board", str(runs)]) in screen
    assert sorted(run.name for run in runs.iterdir()) == sorted(mistake.key for mistake in MISTAKES)
    told = json.loads(deadrelu("report", str(runs), "--json", "-").stdout)["runs"]
    for mistake in MISTAKES:
        part = " ".join(screen[screen.index(mistake.said) :].split())
        died = {(death["site"], death["unit"]) for death in told[mistake.key]["deaths"]}
        assert f"{len(died)} of 128 units" in part if died else "No unit died" in part


def tells_of_the_mistakes(screen: str) -> None:
    """The three watched runs are there, in order, each with its verdict; their numbers are those of the last words."""
    parts = [screen.index(mistake.said) for mistake in MISTAKES]
    assert parts == sorted(parts)
    sound, spike, drift = (
        " ".join(screen[a:b].split()) for a, b in zip(parts, [*parts[1:], screen.index("What you see")], strict=True)
    )
    assert "died" not in sound.split("No unit died")[0]
    assert re.search(r"died in relu2.*of too high a learning rate", spike)
    assert re.search(r"\d+ too high a learning rate \(relu2\)", spike)
    assert re.search(r"died in relu2.*of a falling bias", drift)
    assert "fc2.bias falls step after step" in drift
    told = re.search(r"(\d+) units of two updates that were too long, (\d+) of a bias", " ".join(screen.split()))
    assert told is not None
    assert f" {told[1]} too high a learning rate" in spike
    assert f" {told[2]} a falling bias" in drift


def test_every_saved_network_has_its_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("mlp", "cnn"):
        torch.save(getattr(demo_models, key)().state_dict(), f"{key}.pt")
        np.save(f"{key}.npy", np.zeros((3, 20) if key == "mlp" else (3, 1, 8, 8)))
        words = ["audit", f"{key}.pt", "--model", f"deadrelu.cli.demo_models:{key}", "--data", f"{key}.npy"]
        assert deadrelu(*words).exit_code == 0


def test_an_earlier_record_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard would draw two sessions of one folder as one run."""
    monkeypatch.setattr("deadrelu.cli.demo_watched.MISTAKES", MISTAKES[:1])
    for _ in range(2):
        (only,) = watched(tmp_path)
        assert len(list((tmp_path / only.mistake.key).iterdir())) == 1
    (tmp_path / "sound" / "notes.txt").write_text("mine")
    list(watched(tmp_path))
    assert (tmp_path / "sound" / "notes.txt").read_text() == "mine"


def test_a_record_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadrelu.cli.demo_runs.pairs", lambda: iter(()))
    (tmp_path / "runs").write_text("not a folder")
    assert "runs" in refused("demo", "--out", str(tmp_path))


def test_without_out_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    result = deadrelu("demo")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if not line.startswith("deadrelu demo --out"))
    tells_of_the_mistakes(result.stdout)
    assert "deadrelu demo --out" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadrelu.cli.demo_runs.pairs", lambda: pytest.fail("trained"))
    (tmp_path / "file").write_text("not a folder")
    assert "--out" in refused("demo", "--out", str(tmp_path / "file"))
    assert "--out" in refused("demo", "--out", str(tmp_path / "file" / "below"))
