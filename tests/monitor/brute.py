"""The oracle of death dating: what every unit did at every step is written down in full, and read by a slow loop.

Derived from the words of the design alone (sections 2, 3, 5.1, 5.2, 6.3); nothing here knows how Monitor works.
A test says which forwards are training forwards (`with diary.forward():`) and when an update happened
(`diary.update()`); plain hooks, written for that model, hand over the pre-activations z.

Words that the design leaves open, and what is assumed here:
- Evidence of a silence is counted from the step after the last firing, whole steps at a time, so that micro-batches
  and one batch of the same rows are the same ("merge by + or max").
- A site that a step did not execute neither fires nor is silent there.
- A unit with a small known past rate r needs ln(alpha) / ln(1 - r/10) silent samples. How a recorder comes to know r
  is its own affair, so such units are compared one-sidedly (`steady` is False): a death that is told must be true, and
  may be told later than after n samples. r is the sample rate; it matters under r = 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from oracle import FLAT
from replicas.tape import to_samples
from torch import Tensor, nn

NEEDED = 2995
ALPHA = 0.05
STEADY = 0.05


@dataclass(frozen=True)
class Ear:
    """Where the pre-activation of a site can be heard: output or input of a module, one letter per dimension of it."""

    path: str
    layout: str = "nu"
    side: str = "out"
    op: str = "relu"


@dataclass(frozen=True)
class Page:
    """One site in one step: rows seen, rows with an active position per unit, largest z per unit (NaN aside)."""

    rows: int
    fired: NDArray[np.int64]
    top: NDArray[np.float64]


@dataclass(frozen=True)
class Life:
    """One confirmed death, as the "deaths" of the design have it; `steady` says that it must be told exactly."""

    site: str
    unit: int
    last_fired: int | None
    confirmed: int
    revived: int | None
    born_dead: bool
    max_z_before: float
    max_z_after: float
    steady: bool


@dataclass
class Diary:
    """What each site did, step by step."""

    model: nn.Module
    ears: dict[str, Ear]
    steps: list[dict[str, Page]] = field(default_factory=list)
    rows: int = 0
    _now: dict[str, list[NDArray[np.float64]]] | None = None
    _done: dict[str, list[Page]] = field(default_factory=dict)
    _batch: int = 0

    def __post_init__(self) -> None:
        for site, ear in self.ears.items():
            module = self.model.get_submodule(ear.path)
            if ear.side == "out":
                module.register_forward_hook(lambda _, __, z, site=site: self._hear(site, z))
            else:
                module.register_forward_pre_hook(lambda _, args, site=site: self._hear(site, args[0]))

    def _hear(self, site: str, z: Tensor) -> None:
        if self._now is not None:
            z = z.detach().to("cpu", torch.float64, copy=True)
            self._now.setdefault(site, []).append(to_samples(z, self.ears[site].layout, self._batch))

    @contextmanager
    def forward(self, rows: int = 0) -> Iterator[None]:
        """Write down one training forward; `rows` is needed only where a layout folds the samples."""
        self._now, self._batch = {}, rows
        try:
            yield
        finally:
            heard, self._now = self._now, None
        for site, calls in heard.items():
            z = np.concatenate(calls, axis=1)  # calls of one forward add positions, not samples
            active = FLAT[self.ears[site].op][0](z)  # NaN compares as inactive, +inf as active
            self._done.setdefault(site, []).append(Page(len(z), active.any(axis=1).sum(axis=0), _top(z)))
        self.rows += max((len(calls[0]) for calls in heard.values()), default=0)

    def update(self) -> None:
        """Close the step: the forwards since the last update belong to it."""
        self.steps.append({site: _merge(pages) for site, pages in self._done.items()})
        self._done = {}

    def deaths(self, site: str, needed: int = NEEDED) -> list[Life]:
        """Return the confirmed deaths of a site, unit by unit, in order of time."""
        units = next(len(step[site].fired) for step in self.steps if site in step)
        return [life for unit in range(units) for life in self._lives(site, unit, needed)]

    def silent(self, site: str, unit: int) -> list[bool | None]:
        """Return per step whether the unit was silent; None where the site was not executed."""
        return [bool(step[site].fired[unit] == 0) if site in step else None for step in self.steps]

    def samples(self, site: str, first: int, last: int) -> int:
        """Return the rows that the site saw in the steps from `first` to `last`, both included."""
        return sum(step[site].rows for step in self.steps[first : last + 1] if site in step)

    def _lives(self, site: str, unit: int, needed: int) -> list[Life]:
        found: list[Life] = []
        last_fired: int | None = None
        first_silent: int | None = None
        silence = 0
        dead = False
        for t, step in enumerate(self.steps):
            if site not in step:
                continue
            if step[site].fired[unit] > 0:
                if dead:
                    found[-1] = _with_revival(found[-1], t)
                    needed *= 2
                last_fired, first_silent, silence, dead = t, None, 0, False
                continue
            first_silent = t if first_silent is None else first_silent
            silence += step[site].rows
            if silence >= needed and not dead:
                dead = True
                found.append(self._life(site, unit, last_fired, first_silent, t))
        return found

    def _life(self, site: str, unit: int, last_fired: int | None, first_silent: int, confirmed: int) -> Life:
        born = last_fired is None
        before = math.nan if born else float(self.steps[last_fired][site].top[unit])
        after = float(self.steps[first_silent][site].top[unit])
        return Life(
            site, unit, last_fired, confirmed, None, born, before, after, born or self._steady(site, unit, last_fired)
        )

    def _steady(self, site: str, unit: int, until: int) -> bool:
        """Return whether the unit fired on a good part of the samples in each of the 20 steps before its death."""
        pages = [step[site] for step in self.steps[: until + 1] if site in step][-20:]
        living = [page.fired[unit] / page.rows for page in pages if page.fired[unit]]
        return bool(min(living) >= STEADY)


def _with_revival(life: Life, step: int) -> Life:
    return Life(**{**{name: getattr(life, name) for name in Life.__dataclass_fields__}, "revived": step})


def _top(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.fmax.reduce(z, axis=(0, 1), initial=np.nan)  # NaN only where every value is NaN


def _merge(pages: list[Page]) -> Page:
    top = pages[0].top
    for page in pages[1:]:
        top = np.fmax(top, page.top)
    return Page(sum(page.rows for page in pages), np.sum([page.fired for page in pages], axis=0), top)


def needed_at_rate(rate: float) -> int:
    """Return the silent samples that a unit with the known past rate needs, ceil(ln(alpha) / ln(1 - rate/10))."""
    return math.ceil(math.log(ALPHA) / math.log1p(-rate / 10))


def compare(monitor: Any, diary: Diary, needed: int = NEEDED) -> list[Life]:
    """Compare every death that Monitor told with the diary, and the diary's with Monitor's; return the diary's."""
    told = {(d.site, d.unit, d.last_fired): d for d in monitor.deaths}
    assert len(told) == len(monitor.deaths), "one record per confirmed death"
    assert {d.site for d in monitor.deaths} <= set(diary.ears), "a death at a site that the test does not know"
    lives = [life for site in diary.ears for life in diary.deaths(site, needed)]
    for death in monitor.deaths:
        _must_be_true(death, diary, needed)
    for life in lives:
        key = (life.site, life.unit, life.last_fired)
        if life.steady:
            assert key in told, f"not told: {life}"
            _must_equal(told[key], life)
    return lives


def _must_be_true(death: Any, diary: Diary, needed: int) -> None:
    """A death that is told happened: it fired, then was silent for n samples or more, until it fired again."""
    silent = diary.silent(death.site, death.unit)
    assert death.killed_by_step == death.last_fired, death
    assert death.born_dead == (death.last_fired is None), death
    assert death.resolution == 1, death
    start = 0 if death.born_dead else death.last_fired + 1
    if not death.born_dead:
        assert silent[death.last_fired] is False, death
    firing = [t for t, quiet in enumerate(silent) if t >= start and quiet is False]
    assert death.revived == (firing[0] if firing else None), death
    assert death.revived is None or death.confirmed < death.revived, death
    assert diary.samples(death.site, start, death.confirmed) >= needed, death


def _must_equal(death: Any, life: Life) -> None:
    for name in ("last_fired", "confirmed", "revived", "born_dead"):
        assert getattr(death, name) == getattr(life, name), (name, death, life)


def compare_numbers(monitor: Any, diary: Diary, needed: int = NEEDED) -> int:
    """Compare the largest z before and after each death with the diary's; return how many deaths were compared."""
    told = {(d.site, d.unit, d.last_fired): d for d in monitor.deaths}
    compared = 0
    for life in (life for site in diary.ears for life in diary.deaths(site, needed)):
        death = told.get((life.site, life.unit, life.last_fired))
        if death is None or life.born_dead:
            continue
        _close(death.max_z_before, life.max_z_before, ("max_z_before", death, life))
        _close(death.max_z_after, life.max_z_after, ("max_z_after", death, life))
        compared += 1
    return compared


def _close(found: float | None, wanted: float, said: object) -> None:
    if not math.isfinite(wanted):
        assert found is None or not math.isfinite(found), said
        return
    assert found is not None, said
    assert math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-6), said
