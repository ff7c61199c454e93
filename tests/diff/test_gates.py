"""`--fail-above` on `diff` and `timeline`: what is silent in the new state, or in the last checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from deadrelu.cli.app import app

SOURCE = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
"""
DATA = ("--model", "rack:net", "--data", "x.npy")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checkpoints: 0, 2 and 4 of 8 units of the first site are silent, those of the last without weights too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "rack.py").write_text(SOURCE, encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    np.save("x.npy", torch.randn(64, 4, generator=generator).numpy())
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(net[0].bias, 1.0), nn.init.constant_(net[2].bias, 5.0)
    for name, silent in (("s1", 0), ("s2", 2), ("s3", 4)):
        with torch.no_grad():
            net[0].weight[:silent], net[0].bias[:silent] = 0, -1
        torch.save(net.state_dict(), f"{name}.pt")


def run(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, list(words))
    return found.exit_code, " ".join(found.stderr.split())


@pytest.mark.parametrize("data", [DATA, ()], ids=["data", "weights"])
@pytest.mark.parametrize("command", ["diff", "timeline"])
def test_what_is_over_a_gate_is_the_share_of_the_last_state(command: str, data: tuple[str, ...]) -> None:
    """4 of 16 units with data (two sites), 4 of 18 without (three layers); 2 of them were silent before."""
    files = ("s2.pt", "s3.pt") if command == "diff" else ("s1.pt", "s2.pt", "s3.pt")
    name, whole = ("1", 16) if data else ("0", 18)
    assert run(command, *files, *data, "--fail-above", "25%")[0] == 0
    status, said = run(command, *files, *data, "--fail-above", "20%")
    assert (status, f"4 of {whole} units" in said) == (1, True)
    assert run(command, *files, *data, "--fail-above", f"{name}=50%")[0] == 0
    status, said = run(command, *files, *data, "--fail-above", "90%", "--fail-above", f"{name}=49%")
    assert (status, f"{name}: 4 of 8 units (50 %)" in said) == (1, True)


@pytest.mark.parametrize("command", ["diff", "timeline"])
def test_gates_that_cannot_be_used(command: str) -> None:
    files = ("s1.pt", "s2.pt")
    for gate, said in (("fc*=1%", "no site has such a name; there are 0, 2, 4"), ("x", "is not a fraction")):
        status, line = run(command, *files, "--fail-above", gate)
        assert status == 2
        assert said in line


def test_what_the_optimizer_does_not_tell_is_said_and_not_counted_as_alive() -> None:
    """An optimizer without a memory: without data nothing is known of any unit, but of those without weights."""
    for name in ("s1", "s2"):
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, f"{name}.pt")
    for command in ("diff", "timeline"):
        status, said = run(command, "s1.pt", "s2.pt", "--fail-above", "1%")
        assert status == 0
        assert "does not count what is not known: which units of 0, 2 have a gradient" in said
        assert "nothing to compare" in said
