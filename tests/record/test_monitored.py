"""Real training under Monitor: what its record says when the run is over is what Monitor said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.tensorboard import SummaryWriter

import deadrelu
from deadrelu.errors import DeadReluWarning, InputError
from deadrelu.record.codes import DEAD
from deadrelu.record.reader import read_run


def train(steps: int = 320, spike: float = 6.0, **how: Any) -> tuple[deadrelu.Monitor, deadrelu.Report]:
    """Train a small network whose learning rate is far too high for 15 steps; return its monitor, closed."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    inputs, labels = torch.randn(256, 20), torch.randint(0, 5, (256,))
    with deadrelu.Monitor(net, optimizer, window=40, **how) as monitor:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = spike if 100 <= step < 115 else 0.05
            rows = torch.randint(0, 256, (64,))
            optimizer.zero_grad()
            cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    return monitor, monitor.report()


@pytest.mark.parametrize("steps", [320, 333, 3, 1])
def test_the_record_says_what_monitor_says(tmp_path: Path, steps: int) -> None:
    """Also where the last window is not full, and for a run of one step."""
    monitor, report = train(steps, log_dir=tmp_path)
    run = read_run(tmp_path)
    assert run.finished
    assert run.report.to_dict() == report.to_dict()
    assert str(run.report) == str(report)
    assert list(run.deaths) == [d.to_dict() for d in monitor.deaths]
    assert list(run.events) == [e.to_dict() for e in monitor.events]
    assert run.steps[-1] == steps - 1
    assert [t.site for t in run.sites] == [s.site for s in report]
    for track, site in zip(run.sites, report, strict=True):
        assert track.dead_fraction[-1] == site.dead_fraction
        assert ((run.cells(track.site).codes[-1, 0] == DEAD) == site.dead).all()
    if steps > 300:
        assert len(run.steps) == -(-steps // 40)
        assert len(monitor.deaths) > 0
        # The largest of each window: a spike that is over when the window ends is seen all the same.
        spiked = [6.0 if i == 100 // 40 else 0.05 for i in range(len(run.steps))]
        assert run.rates["0"].tolist() == pytest.approx(spiked, rel=1e-6)
        assert np.isfinite(run.sites[0].bias_drift).all()


def test_into_the_users_writer(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    _, report = train(writer=writer)
    writer.close()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    assert read_run(tmp_path).report.to_dict() == report.to_dict()


def test_a_record_changes_no_training(tmp_path: Path) -> None:
    """Bit for bit the same deaths and numbers with and without."""
    assert train(log_dir=tmp_path)[1].to_dict() == train()[1].to_dict()


def test_a_disk_that_fails_ends_the_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, events: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deadrelu.record.sinks.EventFile.add", refuse)
    with pytest.warns(DeadReluWarning, match="cannot be written any more"):
        _, report = train(log_dir=tmp_path)
    assert report.to_dict() == train()[1].to_dict()


def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train(log_dir=tmp_path / "file")
