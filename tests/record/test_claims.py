"""Several processes and one folder: the ranks of a distributed run, and runs that know nothing of each other."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deadrelu.errors import InputError
from deadrelu.record.claims import Claim, place
from deadrelu.record.reader import read_run
from deadrelu.record.writer import RecordWriter

from .played import play

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("fcntl", reason="needs the locks of POSIX")

RANK = """
import json, sys
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
import deadrelu

rank, ranks, port, folder, how = *map(int, sys.argv[1:4]), *sys.argv[4:]
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
model = nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
users = SummaryWriter(folder) if how == "writer" else None
where = {"writer": users} if users else {"log_dir": folder + str(rank) if how == "own" else folder}
torch.manual_seed(rank)
with deadrelu.Monitor(model, optimizer, window=5, strict=True, **where) as monitor:
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.randn(16, 4) + rank).square().mean().backward()
        optimizer.step()
print(json.dumps(monitor.report().to_dict()))
torch.distributed.destroy_process_group()
"""

HOLDER = """
import sys
sys.path.insert(0, "tests")
from record.played import play
from deadrelu.record.writer import RecordWriter
played = play(windows=3)
writer = RecordWriter(sys.argv[1])
played.record(writer, finish=False)
print("ready", flush=True)
sys.stdin.read()
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


def trained(folder: Path, how: str, ranks: int = 2) -> list[dict[str, object]]:
    """Train on several ranks; return what each monitor reported."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [[sys.executable, "-c", RANK, *map(str, (rank, ranks, port, folder, how))] for rank in range(ranks)]
    running = [subprocess.Popen(w, env=environment(), stdout=subprocess.PIPE, text=True) for w in words]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0] * ranks
    return [json.loads(text.splitlines()[-1]) for text in said]


@contextmanager
def holder(folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has recorded three windows and is not done."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], env=environment(**more), cwd=ROOT, **pipes
    ) as found:
        assert found.stdout is not None
        assert found.stdout.readline() == "ready\n"
        try:
            yield found
        finally:
            found.kill()


@pytest.mark.parametrize("how", ["log_dir", "writer"])
def test_of_the_ranks_of_a_run_the_lowest_records(tmp_path: Path, how: str) -> None:
    reports = trained(tmp_path / "run", how)
    assert reports[0] != reports[1], "else this shows nothing"
    assert read_run(tmp_path / "run").report.to_dict() == reports[0]


def test_ranks_with_folders_of_their_own_all_record(tmp_path: Path) -> None:
    reports = trained(tmp_path / "run", "own")
    for rank, report in enumerate(reports):
        folder = tmp_path / f"run{rank}"
        assert read_run(folder).report.to_dict() == report
        assert [path.suffix for path in folder.iterdir()] == [".deadrelu"], "nothing is left behind"


def test_a_higher_rank_says_once_that_it_records_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    played = play(windows=4)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    with holder(tmp_path, RANK="1", WORLD_SIZE="4"), caplog.at_level(logging.INFO, "deadrelu"):
        writer = RecordWriter(tmp_path)
        played.record(writer)
        writer.close()
        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert "rank 2 records nothing" in caplog.text
        assert len(read_run(tmp_path).steps) == 3
    monkeypatch.setenv("RANK", "1")  # the lower rank was killed: its locks went with it
    writer = RecordWriter(tmp_path)
    played.record(writer)
    writer.close()
    assert read_run(tmp_path).finished


def test_two_runs_that_know_nothing_of_each_other(tmp_path: Path) -> None:
    """The second is refused as long as the first lives, and goes on where it was killed."""
    played = play(windows=4)
    with holder(tmp_path) as first:
        second = RecordWriter(tmp_path)
        with pytest.raises(InputError, match="another process records into"):
            played.record(second)
        second.close()
        assert len(read_run(tmp_path).steps) == 3
        first.send_signal(signal.SIGKILL)
        first.wait()
        played.recorded(tmp_path)
    assert read_run(tmp_path).report.to_dict() == played.report.to_dict()


def test_two_jobs_in_one_folder_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with holder(tmp_path, RANK="0", WORLD_SIZE="2"), pytest.raises(InputError, match="a folder of its own"):
        RecordWriter(tmp_path)


def test_monitors_of_one_process_share_their_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is closed must not take away what the other still holds."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    first, second = Claim(tmp_path), Claim(tmp_path)
    first.release()
    code = "import sys; from pathlib import Path; from deadrelu.record.claims import Claim; Claim(Path(sys.argv[1]))"
    asked = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment(), capture_output=True)
    assert b"another process records" in asked.stderr
    second.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rank", "ranks", "found"),
    [("3", "8", (3, 8)), ("0", "1", (0, 1)), ("5", None, (0, 1)), ("x", "2", (0, 1)), ("9", "8", (0, 1))],
)
def test_the_place_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, rank: str, ranks: str | None, found: tuple[int, int]
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("WORLD_SIZE", ranks)
    assert place() == found
