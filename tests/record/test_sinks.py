"""Where a record goes: its own file, or the user's writer; and what is in the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from deadrelu.errors import InputError
from deadrelu.record.reader import read_run, runs
from deadrelu.record.writer import RecordWriter

from .played import play


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*tfevents*") if path.is_file())


def summary_writer(folder: Path) -> Any:
    return SummaryWriter(str(folder))


def tensorboardx_writer(folder: Path) -> Any:
    return pytest.importorskip("tensorboardX").SummaryWriter(str(folder))


@pytest.mark.parametrize("make", [summary_writer, tensorboardx_writer])
def test_the_users_own_writer(tmp_path: Path, make: Any) -> None:
    """One event file, the user's scalars beside the record, the loss found among them, the writer still open."""
    played = play(windows=5)
    users = make(tmp_path)
    record = RecordWriter(writer=users)
    for number, (summary, samples) in enumerate(zip(played.windows, played.samples, strict=True)):
        users.add_scalar("train/loss", 1.0 / (1 + number), summary.last)
        users.add_scalar("val/loss", 7.0, summary.last)
        record.write(summary, samples)
        assert len(read_run(tmp_path).steps) == number + 1, "in the file when write returns"
    record.finish(played.report)
    record.close()
    users.add_scalar("after", 1.0, 999)
    users.close()
    assert len(files(tmp_path)) == 1
    run = read_run(tmp_path)
    assert run.report.to_dict() == played.report.to_dict()
    assert run.loss is not None
    assert run.loss.tag == "train/loss"
    assert run.loss.steps.tolist() == [w.last for w in played.windows]
    assert run.loss.values.tolist() == pytest.approx([1.0 / (1 + n) for n in range(5)])


def test_a_slow_writer_gets_less(tmp_path: Path) -> None:
    """Python computes its checksums, while training waits: what a file of its own takes whole goes in turns."""
    played = play(tuple((f"fc{i}", 4096) for i in range(12)), 4, every_death=0)
    users = summary_writer(tmp_path / "users")
    record = RecordWriter(writer=users)
    played.record(record)
    assert record.thinned == "units are kept in turns, site by site (bound: 78 KiB a record)"
    assert read_run(tmp_path / "users").thinned == record.thinned
    users.close()
    assert played.recorded(tmp_path / "own").thinned is None


@pytest.mark.parametrize("make", [summary_writer, tensorboardx_writer])
def test_a_writer_that_was_closed_before(tmp_path: Path, make: Any) -> None:
    """What comes is appended to its file: a second one would hide the first from one of TensorBoard's readers."""
    played = play(windows=5)
    users = make(tmp_path)
    record = RecordWriter(writer=users)
    played.record(record, finish=False, last=3)
    users.close()
    played.record(record, first=3)
    record.close()
    assert len(files(tmp_path)) == 1
    assert read_run(tmp_path).report.to_dict() == played.report.to_dict()


def test_a_folder_with_somebody_elses_files(tmp_path: Path) -> None:
    """The record goes into a folder inside of it, and finds the loss outside."""
    played = play(windows=3)
    users = summary_writer(tmp_path / "run")
    record = RecordWriter(tmp_path / "run")
    for summary in played.windows:
        users.add_scalar("Loss", 0.5, summary.last)
    users.flush()
    played.record(record)
    record.close()
    users.close()
    assert len(list((tmp_path / "run").glob("*tfevents*"))) == 1
    run = read_run(tmp_path / "run")
    assert run.name == "deadrelu"
    assert run.report.to_dict() == played.report.to_dict()
    assert run.loss is not None
    assert run.loss.tag == "Loss"
    assert [found.name for found in runs(tmp_path)] == ["run/deadrelu"]


def test_one_folder_for_two_monitors(tmp_path: Path) -> None:
    """The one that came last writes; the other is told, and does not spoil it. So does a cell that is run again."""
    one, other = RecordWriter(tmp_path), RecordWriter(tmp_path)
    played = play(windows=2)
    played.record(other)
    with pytest.raises(InputError, match="another monitor records into log_dir"):
        one.write(played.windows[0])
    assert read_run(tmp_path).report.to_dict() == played.report.to_dict()
    users = summary_writer(tmp_path / "shared")
    one, other = RecordWriter(writer=users), RecordWriter(writer=users)
    played.record(other)
    with pytest.raises(InputError, match="another monitor records into this SummaryWriter"):
        one.write(played.windows[0])
    users.close()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log_dir= .* or writer="):
        RecordWriter()
    with pytest.raises(InputError, match="not both"):
        RecordWriter(tmp_path, writer=object())
    with pytest.raises(InputError, match="writer is a object; expected a SummaryWriter"):
        RecordWriter(writer=object())
    with pytest.raises(InputError, match="no local folder"):
        RecordWriter("s3://bucket/run")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        RecordWriter(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        RecordWriter(tmp_path / "file" / "below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        RecordWriter(tmp_path)
    tmp_path.chmod(0o700)


def test_nothing_is_written_before_the_first_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the folder is that of the construction, wherever the process is by then."""
    monkeypatch.chdir(tmp_path)
    record = RecordWriter("here")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert files(tmp_path) == []
    record.finish(play(windows=1).report)
    record.close()
    record.close()
    assert [path.parent.name for path in files(tmp_path)] == ["here"]
    run = read_run(tmp_path / "here")
    assert run.finished
    assert len(run.steps) == 0


def test_a_writer_that_writes_nothing(tmp_path: Path) -> None:
    """As Lightning's loggers give to every rank but the first: whatever it is asked for does nothing."""

    asked: set[str] = set()

    class Dummy:
        def __getattr__(self, name: str) -> Any:
            asked.add(name)
            return lambda *args, **kwargs: None

    record = RecordWriter(writer=Dummy())
    play(windows=3).record(record)
    record.close()
    assert asked
    assert files(tmp_path) == []
