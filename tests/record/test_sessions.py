"""Several writers in one folder: a run begun anew, a run resumed from a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deadrelu.record.reader import Following, read_run
from deadrelu.record.writer import RecordWriter

from .played import WINDOW, play


def test_a_run_begun_anew_replaces_the_old_one(tmp_path: Path) -> None:
    """The old one was longer, finished, and had other sites: nothing of it is left."""
    old = play((("a", 4), ("gone", 3)), 9, seed=1)
    old.recorded(tmp_path)
    new = play((("b", 2), ("a", 4)), 3, seed=2)
    run = new.recorded(tmp_path, finish=False)
    assert not run.finished
    assert run.steps.tolist() == [w.last for w in new.windows]
    assert [t.site for t in run.sites if len(run.cells(t.site).steps)] == ["a", "b"]
    assert list(run.deaths) == list(new.report.deaths)
    assert run.report["a"].dead.tolist() == new.report["a"].dead.tolist()
    assert run.cells("a").codes[:, 0].tolist() == fresh(new, tmp_path / "other").codes[:, 0].tolist()


def fresh(played, folder: Path):
    return played.recorded(folder, finish=False).cells("a")


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    """It was cut off after window 6 and resumed from a checkpoint at the end of window 4."""
    whole = play((("a", 5), ("b", 3)), 12, seed=3)
    first = RecordWriter(tmp_path)
    whole.record(first, finish=False, last=6)
    first.close()
    again = RecordWriter(tmp_path)
    whole.record(again, first=4)
    again.close()
    run = read_run(tmp_path)
    assert run.steps.tolist() == [w.last for w in whole.windows]
    assert run.report.to_dict() == whole.report.to_dict()
    alone = whole.recorded(tmp_path / "alone")
    for name in ("a", "b"):
        assert run.cells(name).codes[:, 0].tolist() == alone.cells(name).codes[:, 0].tolist()


def test_a_resumed_run_that_is_cut_off_again(tmp_path: Path) -> None:
    whole = play((("a", 5), ("b", 3)), 12, seed=3)
    for first, last in ((0, 6), (4, 9), (7, 11)):
        writer = RecordWriter(tmp_path)
        whole.record(writer, finish=False, first=first, last=last)
        writer.close()
    run = read_run(tmp_path)
    assert run.steps.tolist() == [w.last for w in whole.windows[:11]]
    told = [d.to_dict()["confirmed"] for w in whole.windows[:11] for d in w.deaths]
    assert [d["confirmed"] for d in run.deaths] == told
    assert not run.finished


def test_an_old_report_does_not_end_a_new_run(tmp_path: Path) -> None:
    """The report of the first run lies at a later step than anything the second has reached."""
    play((("a", 2),), 8).recorded(tmp_path)
    assert not play((("a", 2),), 2).recorded(tmp_path, finish=False).finished


def test_a_report_before_the_end_does_not_end_the_run(tmp_path: Path) -> None:
    """`finish`, and then the training goes on: what was said last counts."""
    played = play((("a", 2),), 4)
    writer = RecordWriter(tmp_path)
    played.record(writer, last=2)
    assert read_run(tmp_path).finished
    played.record(writer, first=2, finish=False)
    assert not read_run(tmp_path).finished
    writer.finish(played.report)
    writer.close()
    assert read_run(tmp_path).report.to_dict() == played.report.to_dict()


def test_the_windows_of_a_resumed_run_are_counted_on(tmp_path: Path, monkeypatch) -> None:
    """Thinning goes by the whole run: 30 windows, then 30 of a second session, at most 20 shown and the last."""
    monkeypatch.setattr("deadrelu.record.thinning.stride.__defaults__", (20,))
    monkeypatch.setattr("deadrelu.record.thinning.is_kept.__defaults__", (20,))
    whole = play((("a", 5),), 60, seed=3)
    for first, last in ((0, 30), (30, 60)):
        writer = RecordWriter(tmp_path)
        whole.record(writer, finish=last == 60, first=first, last=last)
        writer.close()
    run = read_run(tmp_path)
    assert len(run.steps) <= 21
    assert run.steps[0] == WINDOW - 1
    assert run.steps[-1] == whole.windows[-1].last
    assert run.report.to_dict() == whole.report.to_dict()


def test_a_clock_that_is_set_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = play((("a", 5),), 6, every_death=1)
    writer = RecordWriter(tmp_path)
    played.record(writer, finish=False, last=2)
    monkeypatch.setattr("deadrelu.record.writer.time.time", lambda: 1e9)
    played.record(writer, first=2)
    writer.close()
    run = read_run(tmp_path)
    assert run.steps.tolist() == [w.last for w in played.windows]
    assert run.report.to_dict() == played.report.to_dict()


def test_a_folder_that_is_emptied_while_it_is_followed(tmp_path: Path) -> None:
    """Training is started again from nothing: of the run before nothing is left, and nothing of it is asked for."""
    old, new = play((("a", 4),), 9, seed=1, every_death=1), play((("a", 4),), 2, seed=2, every_death=1)
    folder = tmp_path / "runs" / "a"
    old.recorded(folder)
    following = Following(tmp_path / "runs")
    following.update()
    assert following.finished()
    shutil.rmtree(folder)
    assert following.update()
    assert following.runs() == []
    writer = RecordWriter(folder)
    new.record(writer, finish=False)
    assert following.update()
    (run,) = following.runs()
    assert (run.finished, run.steps.tolist()) == (False, [w.last for w in new.windows])
    assert list(run.deaths) == list(new.report.deaths)
    assert len(run.cells("a").steps) == 2
    writer.close()
