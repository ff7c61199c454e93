"""A run that is cut off: at any byte, by a kill in the middle of a write, by a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deadrelu.errors import InputError
from deadrelu.record.reader import Following, read_run
from deadrelu.record.writer import RecordWriter

from .played import play

ROOT = Path(__file__).resolve().parents[2]


def test_cut_at_every_byte_of_its_tail(tmp_path: Path) -> None:
    """Whatever is left reads, and of the windows no more than the last is lost."""
    played = play((("fc1", 3),), 3)
    writer = RecordWriter(tmp_path / "whole")
    ends = []
    for summary, samples in zip(played.windows, played.samples, strict=True):
        writer.write(summary, samples)
        (file,) = (tmp_path / "whole").iterdir()
        ends.append(file.stat().st_size)
    writer.finish(played.report)
    writer.close()
    data = file.read_bytes()
    (tmp_path / "cut").mkdir()
    cut = tmp_path / "cut" / file.name
    for size in [*range(ends[1], ends[2]), *range(ends[2], len(data), 19), len(data) - 1, len(data)]:
        cut.write_bytes(data[:size])
        run = read_run(cut.parent)
        whole = sum(end <= size for end in ends)
        assert run.steps.tolist() == [w.last for w in played.windows[:whole]]
        deaths = [d.to_dict() for w in played.windows[:whole] for d in w.deaths]
        assert len(run.deaths) == len(deaths)
        for track in run.sites if size % 8 == 0 else ():
            assert len(run.cells(track.site).steps) == whole
        if run.finished:
            assert run.report.to_dict() == played.report.to_dict()
    assert run.finished


def test_a_file_without_a_window_is_no_record(tmp_path: Path) -> None:
    played = play(windows=1)
    played.recorded(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InputError, match="no record of a run"):
        read_run(tmp_path)


def test_zeros_after_the_end_as_after_a_power_cut(tmp_path: Path) -> None:
    played = play(windows=3)
    played.recorded(tmp_path, finish=False)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + bytes(5000))
    assert read_run(tmp_path).steps.tolist() == [w.last for w in played.windows]


FOREVER = """
import sys
from tests.record.played import play
from deadrelu.record.writer import RecordWriter
played = play((("a", 3000), ("b", 2000)), 40)
if sys.argv[2] == "own":
    writer = RecordWriter(sys.argv[1])
else:
    from torch.utils.tensorboard import SummaryWriter
    writer = RecordWriter(writer=SummaryWriter(sys.argv[1]))
for n, summary in enumerate(played.windows):
    writer.write(summary, n)
    print(n, flush=True)
while True:
    writer.write(summary, n)
"""


@pytest.mark.parametrize("how", ["own", "summary_writer"])
def test_killed_in_the_middle(tmp_path: Path, how: str) -> None:
    """kill -9: every window whose write had returned is there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", FOREVER, str(tmp_path / "run"), how], env=environment, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    for _ in range(25):
        returned = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    child.wait()
    returned += len(child.stdout.read().split())
    child.stdout.close()
    run = read_run(tmp_path / "run")
    played = play((("a", 3000), ("b", 2000)), 40)
    assert len(run.steps) >= returned + 1
    deaths = [d.to_dict() for w in played.windows[: returned + 1] for d in w.deaths]
    assert [d["confirmed"] for d in run.deaths[: len(deaths)]] == [d["confirmed"] for d in deaths]
    assert not run.finished


class Full:
    """A file on a disk that takes half of what is written and no more."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def write(self, data: bytes) -> int:
        self.held.write(bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.held, name)


def test_a_full_disk_raises_and_leaves_a_file_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a window written is worse than none: what comes after it would never be read."""
    played = play(windows=6)
    writer = RecordWriter(tmp_path)
    for number, (summary, samples) in enumerate(zip(played.windows, played.samples, strict=True)):
        if number == 3:
            monkeypatch.setattr(writer._sink._file, "_file", Full(writer._sink._file._file))
            with pytest.raises(OSError, match="No space left"):
                writer.write(summary, samples)
            monkeypatch.undo()
        else:
            writer.write(summary, samples)
    writer.finish(played.report)
    (file,) = tmp_path.iterdir()
    run = read_run(file)
    assert run.steps.tolist() == [w.last for n, w in enumerate(played.windows) if n != 3]
    assert run.report.to_dict() == played.report.to_dict()


def test_following_a_run_that_grows(tmp_path: Path) -> None:
    """What is new is taken in once; a window that is half there waits for its other half."""
    played = play(windows=4)
    played.recorded(tmp_path / "whole")
    (file,) = (tmp_path / "whole").iterdir()
    data = file.read_bytes()
    (tmp_path / "growing").mkdir()
    following = Following(tmp_path / "growing")
    assert not following.update()
    assert following.runs() == []
    assert not following.finished()
    growing = tmp_path / "growing" / file.name
    seen = 0
    for size in [*range(0, len(data), 700), len(data)]:
        growing.write_bytes(data[:size])
        following.update()
        for run in following.runs():
            assert len(run.steps) >= seen
            seen = len(run.steps)
    (run,) = following.runs()
    assert following.finished()
    assert run.report.to_dict() == played.report.to_dict()
    assert not following.update()
    assert following.runs()[0] is run, "nothing new, nothing read"
    play(windows=1, seed=5).recorded(tmp_path / "growing" / "another", finish=False)
    assert following.update()
    assert [run.name for run in following.runs()] == ["growing", "another"]
    assert not following.finished()


def test_reading_takes_no_longer_than_what_is_new(tmp_path: Path) -> None:
    """A second look at a record that did not grow reads no frame of it."""
    play((("a", 2000),), 30).recorded(tmp_path)
    following = Following(tmp_path)
    following.update()
    start = time.perf_counter()
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and start else None)
    assert not following.update()
    assert sum("tfevents" in path for path in opened) == 1
    start = 0.0
