"""Every death is dated to the update, on models of every shape and by every optimizer.

Ground truth: the brute-force diary (brute.py), from DESIGN 2, 3, 5.2 and 6.3. Deaths are planted by setting a bias (or
the beta of a norm) between two updates: after update k a unit is silent from forward k+1 on, so k is the date.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from .brute import NEEDED, Life, compare, compare_numbers
from .plays import OPTIMIZERS, Play, put
from .subjects import SUBJECTS, Subject

STEPS = 64
# After which update each unit's lever is set, and where to. At 300 rows a step n = 2,995 is ten steps, 5,990 is twenty.
STORY = (
    (-1, 0, "low"),
    (6, 1, "low"),
    (11, 2, "low"),
    (22, 1, "high"),
    (30, 1, "low"),
    (40, 0, "high"),
    (50, 3, "low"),
    (55, 3, "high"),
)
# (unit, last_fired, confirmed, revived, born_dead) that the story must bring about at every site
EXPECTED = {
    (0, None, 9, 41, True),
    (1, 6, 16, 23, False),
    (1, 30, 50, None, False),
    (2, 11, 21, None, False),
}


def told(lives: list[Life], site: str) -> set[tuple[Any, ...]]:
    return {(x.unit, x.last_fired, x.confirmed, x.revived, x.born_dead) for x in lives if x.site == site and x.steady}


def act(subject: Subject, play: Play, step: int) -> None:
    """Set the levers that the story sets after this update."""
    for when, unit, where in STORY:
        if when == step:
            for lever in subject.levers.values():
                put(play.model, lever, unit, subject.low if where == "low" else subject.high)


def perform(subject: Subject, optimizer: str, **options: Any) -> tuple[Play, Any]:
    """Play the story under a Monitor."""
    play = Play(subject.model(), subject.ears, OPTIMIZERS[optimizer])
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    act(subject, play, -1)
    with play.watched(**options) as monitor:
        for step in range(STEPS):
            play.step(subject.batch(subject.rows, generator))
            act(subject, play, step)
    return play, monitor


CASES = [(subject, "momentum", 7) for subject in SUBJECTS]
CASES += [(subject, name, 50) for subject in (SUBJECTS[0], SUBJECTS[2]) for name in ("sgd", "adam", "adamw")]
CASES += [(SUBJECTS[0], "sgd", window) for window in (2, 13, 64, 200)]


@pytest.mark.parametrize(("subject", "optimizer", "window"), CASES, ids=lambda x: getattr(x, "name", str(x)))
def test_planted_deaths_and_revivals(subject: Subject, optimizer: str, window: int) -> None:
    """Deaths, a birth, revivals, a second death at twice the n, a silence too short: each dated, none invented."""
    play, monitor = perform(subject, optimizer, window=window)
    lives = compare(monitor, play.diary)
    for site in subject.ears:
        assert told(lives, site) >= EXPECTED, site


@pytest.mark.parametrize("window", [7, 50, 200])
@pytest.mark.parametrize("subject", [SUBJECTS[0], SUBJECTS[2], SUBJECTS[8]], ids=lambda s: s.name)
def test_numbers_of_a_death(subject: Subject, window: int) -> None:
    """max_z_before is the largest z of the last firing step, max_z_after that of the step behind it (DESIGN 5.2, 6.3).

    Also of a unit that fired again in the same window: the state at the death is that of the death.
    """
    play, monitor = perform(subject, "sgd", window=window)
    assert compare_numbers(monitor, play.diary) >= 3 * len(subject.ears)


def test_the_report_tells_the_same() -> None:
    """`dead` of a report in training mode is: confirmed dead at the end, born dead included (DESIGN 5.2)."""
    subject = SUBJECTS[2]
    play, monitor = perform(subject, "momentum", window=7)
    lives = compare(monitor, play.diary)
    report = monitor.report()
    assert report.mode == "training"
    assert report.samples == play.diary.rows
    assert [site.site for site in report] == list(subject.ears)
    for site in report:
        dead = [life.unit for life in lives if life.site == site.site and life.revived is None]
        assert np.flatnonzero(site.dead).tolist() == sorted(dead), site.site
        assert site.samples == play.diary.rows
        assert (site.activation_rate[site.dead] == 0).all()  # of the last window: they died long before
        assert (site.activation_rate[~site.dead & ~site.undecided] > 0).all()
    assert report.dead == sum(int(site.dead.sum()) for site in report)
    assert len(report.to_dict()["deaths"]) == len(monitor.deaths)


def test_both_ends_of_a_kind() -> None:
    """ReLU6 and Hardtanh are flat above, too: active is a slope that is not zero (DESIGN 2); Hardswish is not."""
    subject = next(s for s in SUBJECTS if s.name == "flat-ends")
    play = Play(subject.model(), subject.ears, OPTIMIZERS["sgd"])
    generator = torch.Generator().manual_seed(1)
    with play.watched(window=7) as monitor:
        for step in range(40):
            play.step(subject.batch(subject.rows, generator))
            if step == 12:
                put(play.model, "fc1.bias", 4, 1e3)
                put(play.model, "fc3.bias", 4, 1e3)
                put(play.model, "fc3.bias", 5, -1e3)
            if step == 30:
                put(play.model, "fc1.bias", 4, 0.5)
    lives = compare(monitor, play.diary)
    assert told(lives, "act1") == {(4, 12, 22, 31, False)}
    assert told(lives, "act3") == {(4, 12, 22, None, False), (5, 12, 22, None, False)}
    assert told(lives, "act2") == set()


def watch_rows(subject: Subject, sizes: list[int], edits: Callable[[Play, int], None]) -> tuple[Play, Any]:
    """Play steps of these batch sizes."""
    play = Play(subject.model(), subject.ears, OPTIMIZERS["adam"])
    generator = torch.Generator().manual_seed(3)
    with play.watched(window=16) as monitor:
        for step, rows in enumerate(sizes):
            play.step(subject.batch(rows, generator))
            edits(play, step)
    return play, monitor


def test_batches_of_uneven_size() -> None:
    """Evidence is samples, not steps: the date of confirmation follows the sizes of the batches (DESIGN 3)."""
    sizes = [37, 512, 1, 64, 300] * 16
    sizes[20:23] = [1, 1, 2]

    def edit(play: Play, step: int) -> None:
        if step in (4, 21, 33):
            put(play.model, "0.bias", step % 5, -1e3)

    play, monitor = watch_rows(SUBJECTS[0], sizes, edit)
    lives = compare(monitor, play.diary)
    found = {life.last_fired: life.confirmed for life in lives if life.site == "1" and life.steady}
    for step in (4, 21, 33):
        total = np.cumsum(sizes[step + 1 :])
        assert found[step] == step + 1 + int(np.searchsorted(total, NEEDED))


def test_exactly_n_samples() -> None:
    """2,994 silent samples are too few, 2,995 are enough (DESIGN 3: n = ceil(ln .05 / ln .999))."""

    def edit(play: Play, step: int) -> None:
        if step == 1:
            put(play.model, "0.bias", 2, -1e3)

    for last, dead in ((994, False), (995, True), (996, True)):
        play, monitor = watch_rows(SUBJECTS[0], [100, 100, 1000, 1000, last], edit)
        compare(monitor, play.diary)
        assert any(death.unit == 2 and death.site == "1" for death in monitor.deaths) is dead, last
