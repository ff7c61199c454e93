"""What was written is what is read: whole runs, odd runs, several runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadrelu.errors import InputError
from deadrelu.record.codes import DEAD, LOWEST, UNSEEN
from deadrelu.record.names import CHANNELS
from deadrelu.record.reader import read_run, runs
from deadrelu.record.run import Run
from deadrelu.record.writer import RecordWriter

from .played import HOSTILE, WINDOW, Played, death, play, site


def check(run: Run, played: Played, *, finished: bool = True) -> None:
    """Compare a run with the windows that it was recorded from, value by value."""
    assert run.finished == finished
    assert run.steps.tolist() == [w.last for w in played.windows]
    assert run.rates.keys() == {g for w in played.windows for g in w.rates}
    for group, rates in run.rates.items():
        assert rates.tolist() == [w.rates[group] for w in played.windows]
    same(run.dead_fraction, [w.dead_fraction for w in played.windows])
    assert [d["confirmed"] for d in run.deaths] == [d["confirmed"] for d in played.report.deaths]
    assert list(run.deaths) == list(played.report.deaths)
    assert list(run.events) == list(played.report.events)
    assert [s.site for s in run.sites] == list(dict.fromkeys(s.site for w in played.windows for s in w.sites))
    for track in run.sites:
        check_site(run, played, track.site)
    if finished:
        assert run.report.to_dict() == played.report.to_dict()
        assert run.report.confidence == played.report.confidence
        assert str(run.report) == str(played.report)


def check_site(run: Run, played: Played, name: str) -> None:
    track = next(t for t in run.sites if t.site == name)
    found = [next((s for s in w.sites if s.site == name), None) for w in played.windows]
    seen = [(w.last, s) for w, s in zip(played.windows, found, strict=True) if s is not None]
    first = seen[0][1]
    assert (track.op, track.source, track.producers) == (first.op, first.source, first.producers)
    assert (track.units, track.can_die) == (first.units, first.can_die)
    mortal = first.can_die and first.units
    same(track.dead_fraction, [s.dead.mean() if s is not None and mortal else None for s in found])
    same(track.silent_fraction, [(s.dead | s.silent).mean() if s is not None and mortal else None for s in found])
    if first.bias is not None and first.units:
        same(track.bias_drift, [None if s is None else np.mean(s.bias - first.bias) for s in found])
    if first.grad_flow is not None and first.units:
        same(track.grad_flow, [None if s is None else math.sqrt(np.mean(s.grad_flow**2)) for s in found])
    cells = run.cells(name)
    assert cells.steps.tolist() == [step for step, _ in seen]
    assert cells.codes.shape == (len(seen), len(CHANNELS), first.units)
    for row, (_, told) in zip(cells.codes, seen, strict=True):
        assert ((row == DEAD) == told.dead).all()
        assert ((row[0] == LOWEST) == (told.silent & ~told.dead)).all()
        if told.bias is None:
            assert (row[2][~told.dead] == UNSEEN).all()
    for channel, values in (("grad", "grad_flow"), ("bias", "bias")):
        scale = cells.scale(channel)
        if scale is not None:
            codes = cells.on(channel, scale)
            back = scale.values()[codes]
            truth = np.stack([getattr(s, values) for _, s in seen])
            alive = (codes != DEAD) & (truth != 0)
            step = (scale.high / scale.low) ** (1 / 253) - 1 if channel == "grad" else (scale.high - scale.low) / 253
            error = np.abs(back - truth)[alive] / (np.abs(truth)[alive] if channel == "grad" else 1.0)
            assert error.size == 0 or error.max() <= 2.01 * step


def same(found: np.ndarray, expected: list[float | None]) -> None:
    np.testing.assert_allclose(found, [math.nan if v is None else v for v in expected], rtol=1e-12, atol=1e-15)


@given(
    sites=st.lists(
        st.tuples(st.sampled_from([*HOSTILE, "fc1", "fc2"]), st.sampled_from([0, 1, 2, 5, 70])),
        min_size=1,
        max_size=4,
        unique_by=lambda found: found[0],
    ),
    windows=st.integers(1, 9),
    every_death=st.integers(0, 3),
    seed=st.integers(0, 99),
    finish=st.booleans(),
    can_die=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_run(tmp_path_factory: pytest.TempPathFactory, sites, windows, every_death, seed, finish, can_die) -> None:
    """Hostile names, sites without units, runs of one window, without deaths, of kinds that cannot die."""
    played = play(sites, windows, seed=seed, every_death=every_death, can_die=can_die)
    run = played.recorded(tmp_path_factory.mktemp("run"), finish=finish)
    check(run, played, finished=finish)
    if not finish:
        told = run.report
        assert told.samples == played.samples[-1]
        assert told.dead == played.report.dead
        assert told.silent == played.report.silent
        assert told.dead_fraction == played.report.dead_fraction
        for found, truth in zip(told, played.report, strict=True):
            assert (found.dead == truth.dead).all()
            assert (found.undecided == truth.undecided).all()
            assert (found.op, found.producers, found.can_die) == (truth.op, truth.producers, truth.can_die)


def test_a_site_that_comes_later_and_one_that_goes(tmp_path: Path) -> None:
    played = play((("a", 3), ("b", 2), ("late", 4)), 6, every_death=0)
    for number, window in enumerate(played.windows):
        held = [s for s in window.sites if (s.site != "late" or number >= 3) and (s.site != "b" or number < 4)]
        played.windows[number] = replace(window, sites=tuple(held))
    run = played.recorded(tmp_path)
    check(run, played)
    assert run.cells("late").steps.tolist() == [w.last for w in played.windows[3:]]
    assert np.isnan(run.sites[2].dead_fraction[:3]).all()


def test_a_site_that_changes_its_width_is_the_new_one(tmp_path: Path) -> None:
    """As after a surgery on the model: what was before does not fit the rows of what is now."""
    narrow, wide = play((("a", 3),), 3, every_death=0), play((("a", 7),), 3, every_death=0, start=3 * WINDOW)
    both = Played(narrow.windows + wide.windows, narrow.samples + wide.samples, wide.report)
    run = both.recorded(tmp_path)
    assert run.steps.tolist() == [w.last for w in both.windows]
    assert [t.units for t in run.sites] == [7]
    assert run.cells("a").steps.tolist() == [w.last for w in wide.windows]


def test_nothing_measured(tmp_path: Path) -> None:
    """NaN throughout, no gradients, no biases, no learning rates."""
    rng = np.random.default_rng(0)
    nan = np.full(4, np.nan)
    told = site("a", rng, np.zeros(4, bool), activation_rate=nan, silent=np.zeros(4, bool), grad_flow=None, bias=None)
    played = play((("a", 4),), 2, every_death=0)
    played.windows[:] = [replace(w, sites=(told,), rates={}, dead_fraction=None) for w in played.windows]
    run = played.recorded(tmp_path, finish=False)
    assert run.rates == {}
    assert np.isnan(run.dead_fraction).all()
    assert np.isnan(run.sites[0].grad_flow).all()
    assert (run.cells("a").codes == UNSEEN).all()
    assert run.cells("a").scale("bias") is None
    assert run.report["a"].grad_flow is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38, 1e-38])
def test_numbers_that_are_none(tmp_path: Path, bad: float) -> None:
    """A gradient or a bias that is NaN or infinite costs its own cells and nothing else."""
    values = np.array([0.5, bad, -0.25, 0.125])
    rng = np.random.default_rng(0)
    silent = np.zeros(4, bool)
    told = site("a", rng, silent, silent=silent, grad_flow=np.abs(values), bias=values)
    played = play((("a", 4),), 3, every_death=0)
    played.windows[:] = [replace(w, sites=(told,), rates={"0": bad}) for w in played.windows]
    run = played.recorded(tmp_path)
    cells = run.cells("a")
    scale = cells.scale("bias")
    assert scale is not None
    back = scale.values()[cells.on("bias", scale)[-1]]
    step = (scale.high - scale.low) / 253
    assert np.abs(back - values)[[0, 2, 3]].max() <= 2 * step
    assert run.report.to_dict() == played.report.to_dict()


def test_infinities_of_the_report_come_back(tmp_path: Path) -> None:
    """JSON has neither NaN nor infinity; the screens tell them apart."""
    played = play((("a", 4),), 2, every_death=0)
    (told,) = played.report.sites
    told.max_z[:] = [np.inf, np.nan, -np.inf, 1.0]
    run = played.recorded(tmp_path)
    np.testing.assert_array_equal(run.report["a"].max_z, told.max_z)
    np.testing.assert_array_equal(run.report["a"].dormant_score, told.dormant_score)
    assert str(run.report) == str(played.report)


def test_several_runs(tmp_path: Path) -> None:
    plays = {"a": play(seed=1), "b/c": play(seed=2, windows=3), "b/d": play(seed=3, windows=1)}
    for name, played in plays.items():
        played.recorded(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("not an event file")
    found = runs(tmp_path)
    assert [run.name for run in found] == ["a", "b/c", "b/d"]
    for run in found:
        check(run, plays[run.name])
    with pytest.raises(InputError, match=r"holds 3 runs \(a, b/c, b/d\)"):
        read_run(tmp_path)
    (alone,) = runs(tmp_path / "b" / "c")
    assert alone.name == "c"
    (file,) = (tmp_path / "a").iterdir()
    check(read_run(file), plays["a"])


def test_a_long_run_is_thinned_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaths and events are never thinned, the last window is there, what is left is evenly spaced."""
    monkeypatch.setattr("deadrelu.record.thinning.stride.__defaults__", (20,))
    monkeypatch.setattr("deadrelu.record.thinning.is_kept.__defaults__", (20,))
    played = play((("a", 5), ("b", 40)), 150, every_death=2)
    run = played.recorded(tmp_path / "whole")
    assert run.thinned is not None
    assert run.thinned.startswith("every 8th window is kept")
    assert run.steps.tolist() == [*(played.windows[i].last for i in range(0, 150, 8)), played.windows[-1].last]
    assert list(run.deaths) == list(played.report.deaths)
    assert run.report.to_dict() == played.report.to_dict()
    assert run.cells("b").steps.tolist() == run.steps.tolist()
    cut = played.recorded(tmp_path / "cut", finish=False)
    assert list(cut.deaths) == list(played.report.deaths)
    assert list(cut.events) == list(played.report.events)
    assert cut.report.dead == played.report.dead, "deaths after the last record count"


def test_wide_sites_take_turns(tmp_path: Path) -> None:
    wide = (("small", 8), ("wide", 150_000), ("other", 60_000))
    played = play(wide, 16, every_death=0)
    writer = RecordWriter(tmp_path)
    sizes = []
    for summary, samples in zip(played.windows, played.samples, strict=True):
        writer.write(summary, samples)
        (file,) = tmp_path.iterdir()
        sizes.append(file.stat().st_size)
    assert writer.thinned is not None
    writer.close()
    run = read_run(tmp_path)
    assert run.thinned == writer.thinned
    assert "in turns" in run.thinned
    assert len(run.steps) == 16
    assert sizes[-1] / 16 < 400_000, "bounded on the average"
    counts = {name: len(run.cells(name).steps) for name, _ in wide}
    assert min(counts.values()) >= 4
    assert max(counts.values()) - min(counts.values()) <= 1
    assert np.isfinite(run.sites[1].dead_fraction).all(), "the lines of every site are in every record"
    rows = {int(step): row for step, row in zip(run.cells("wide").steps, run.cells("wide").codes, strict=True)}
    for window in played.windows:
        if window.last in rows:
            assert ((rows[window.last][0] == LOWEST) == window.sites[1].silent).all()


def test_a_revival_after_the_window_of_its_death(tmp_path: Path) -> None:
    """An unfinished run tells a death with its revival, and a unit that died again as dead."""
    played = play((("a", 2),), 3, every_death=0)
    first = death("a", 1, 5)
    back = replace(first, revived=60)
    again = death("a", 1, 110)
    for number, of in enumerate(({"deaths": (first,)}, {"revived": (back,)}, {"deaths": (again,)})):
        played.windows[number] = replace(played.windows[number], **of)
    run = played.recorded(tmp_path, finish=False)
    assert [d["revived"] for d in run.deaths] == [60, None]
    assert [d["killed_by_step"] for d in run.deaths] == [5, 110]
