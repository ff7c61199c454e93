"""Chronicle: the host's record of a run - lives, trajectories, deaths and events - written window by window."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .captures import Captures
from .coroner import Coroner
from .counts import SiteCounter, UnitCounts
from .deaths import Death, Event
from .drift import Drift
from .edits import Edits
from .events import death_events, revival_events
from .layer_states import LayerStates
from .lifetimes import NEVER, Lifetimes, Turn
from .risks import Risks
from .schedule import Schedule
from .sinking import sinks
from .snapshots import Update
from .summaries import SiteSummary, Summary
from .trajectories import Trajectories
from .windows import Observed, Slot, Window

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """What a window has left, on its way to the host.

    Attributes:
        captures, rates: of its captured steps.
        largest: the largest learning rates.
        observed: of its steps.
        counted, counts: of the sites with these names.
        layers: what is recorded of the layers, None if it is not.
    """

    captures: Callable[[], Captures]
    rates: Array
    largest: dict[tuple[int, int], float]
    observed: Callable[[], Observed]
    counted: list[str]
    counts: Callable[[], list[UnitCounts]]
    layers: LayerStates | None


class Chronicle:
    """What became of every unit. Memory is O(units + deaths).

    Attributes:
        deaths, events: so far, in order.
        lives: how long each unit has been silent.
        quiet: the units that were silent in the last window.
        counts: the last counts of each site.
        sinks: the largest z of some units sank in the last window.
    """

    def __init__(
        self, window: Window, drift: Drift, edits: Edits, fed_by: Mapping[str, frozenset[str]], schedule: Schedule
    ) -> None:
        self.deaths: list[Death] = []
        self.events: list[Event] = []
        self.lives = Lifetimes()
        self.quiet: NDArray[np.bool_] = np.empty(0, bool)
        self.sinks = False
        self.counts: dict[str, UnitCounts] = {}
        self._window = window
        self._drift = drift
        self._schedule = schedule
        self._paths = Trajectories()
        self.coroner = Coroner(window, drift, self._paths, edits, fed_by)
        self._risks = Risks(window, drift)
        self._top: Array = np.empty(0)  # largest z at the last step with a firing
        self._next: Array = np.empty(0)  # largest z at the step after it
        self._fed: dict[str, tuple[NDArray[np.int64], int]] = {}  # samples that fired, samples, of the whole run
        self._held: dict[int, Death] = {}
        self._largest: dict[tuple[int, int], float] = {}  # learning rates of the last window
        self._counted: dict[str, UnitCounts] = {}  # of the last window
        self._last: tuple[Observed, tuple[Death, ...], tuple[Death, ...], tuple[Event, ...]] | None = None
        self._left: Left | None = None
        self._layers: LayerStates | None = None
        self._known = (0, 0)  # sites, and those that are followed, when it was asked where they stand
        self._stand = np.empty(0, np.intp), np.empty(0, np.intp)
        self._resumed: dict[str, dict[str, NDArray[Any]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the lives and the deaths so far, as tensors and plain values."""
        sites = {}
        for name, slot in self._window.slots.items():
            if slot.units.stop <= len(self._top):
                arrays = {**self.lives.state(slot.units), "top": self._top[slot.units], "next": self._next[slot.units]}
                sites[name] = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
        return {
            "sites": sites,
            "deaths": [d.to_dict() for d in self.deaths],
            "events": [e.to_dict() for e in self.events],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue: a site takes up its units' lives when it is met again."""
        self._resumed = {name: {k: v.numpy() for k, v in held.items()} for name, held in state["sites"].items()}
        self.deaths[:] = [Death(**death) for death in state["deaths"]]
        self.events[:] = [Event.from_dict(event) for event in state["events"]]

    @property
    def kick(self) -> float:
        """The largest usual kick of the last window: what nine in ten units of a site stay below."""
        return self._paths.kick

    def samples(self, slot: Slot) -> int:
        """Return the samples that a site saw in the run."""
        return int(self.lives.samples[slot.start]) if slot.site.units else 0

    def dead_fraction(self) -> float | None:
        """Return dead units / units of kinds that can die, None if there are none."""
        able = [s.units for s in self._window.slots.values() if s.site.kind.can_die and s.start < len(self.lives.dead)]
        total = sum(part.stop - part.start for part in able)
        return sum(int(self.lives.dead[part].sum()) for part in able) / total if total else None

    def shortest_silence(self) -> int | None:
        """Return the samples of silence of the units that are silent and not confirmed dead: the least of them."""
        waiting = np.zeros(len(self.quiet), bool)
        for slot in self._window.slots.values():
            if slot.site.kind.can_die and slot.units.stop <= len(waiting):
                waiting[slot.units] = True
        waiting &= self.quiet & ~self.lives.dead
        return int(self.lives.silence()[waiting].min()) if waiting.any() else None

    def close(self, update: Update | None, *, recorded: bool) -> bool:
        """End the window, so that its numbers leave for the host; returns whether they are there already.

        Recorded: its `summary` will be asked for, with what there is of the layers; `update` is the last one kept.
        `look` takes them in: before there is another site, and before the window that follows ends.
        """
        captures, rates = self._drift.close()
        largest = self._drift.groups.largest
        self._drift.groups.next_window()
        counted = [slot for slot in self._window.slots.values() if slot.counter.samples]
        counters = [slot.counter for slot in counted]
        counts = SiteCounter.leaving(counters)
        SiteCounter.clear(counters)
        names = [slot.site.name for slot in counted]
        layers = LayerStates(self._drift.followers, update) if recorded else None
        self._left = Left(captures, rates, largest, self._window.close(), names, counts, layers)
        return not self._window.distant

    def look(self, explain: Callable[[list[Death]], None]) -> list[Event]:
        """Take in the window that has ended, and return what happened in it; `explain` may add to the deaths in it."""
        left, self._left = self._left, None
        assert left is not None
        captures, rates, observed = left.captures(), left.rates, left.observed()
        self._largest, self._layers = left.largest, left.layers
        self._grow()
        self._count(dict(zip(left.counted, left.counts(), strict=True)))
        turns = self.lives.update(observed.steps, observed.fired, observed.samples)
        self._follow(captures, rates, observed)
        self.quiet = ~np.logical_or.reduce(observed.fired)
        self.sinks = sinks(observed.top, (slot.units for slot in self._window.slots.values()))
        died, revived = self._turns(turns, observed)
        self._reaches(observed)
        explain(died)
        self.lives.expect(self._known_rates())
        events = death_events(died, self._drift.groups.spike, self.coroner.edited) + revival_events(revived)
        events += self._risks.look(captures, observed, self.lives.dead)
        self.events += events
        self._last = (observed, tuple(died), tuple(revived), tuple(events))
        return events

    def summary(self, update: Update | None) -> Summary | None:
        """Return what the last window tells of every site, None before the first; `update` is the last one kept."""
        if self._last is None:
            return None
        observed, died, revived, events = self._last
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of units of which nothing but NaN was seen
            top = np.nanmax(np.where(np.isneginf(observed.top), np.nan, observed.top), 0)
        groups = self._drift.groups
        several = len({o for o, _ in groups.rates}) > 1
        largest = self._largest or groups.rates
        layers = self._layers or LayerStates(self._drift.followers, update)
        return Summary(
            first=int(observed.steps[0]),
            last=int(observed.steps[-1]),
            sites=tuple(self._site(slot, top, layers) for slot in self._window.slots.values()),
            rates={f"{o}/{g}" if several else str(g): rate for (o, g), rate in largest.items()},
            dead_fraction=self.dead_fraction(),
            deaths=died,
            revived=revived,
            events=events,
        )

    def _site(self, slot: Slot, top: Array, layers: LayerStates) -> SiteSummary:
        site, units, name = slot.site, slot.units, slot.site.name
        unknown = np.full(site.units, np.nan)
        counts = self._counted.get(name)
        flow = None
        if counts is not None and counts.grad_square is not None:
            flow = np.sqrt(counts.grad_square / counts.grad_positions)
        return SiteSummary(
            site=name,
            op=site.kind.name,
            source=site.source,
            producers=tuple(site.producers),
            can_die=site.kind.can_die,
            dead=self.lives.dead[units].copy() & site.kind.can_die,
            silent=self.quiet[units].copy(),
            activation_rate=unknown if counts is None else counts.active / max(1, counts.positions),
            grad_flow=flow,
            max_z=top[units],
            margin=self._paths.margin(name).copy() if name in self._paths else None,
            bias=layers.bias(name),
            update_ratio=layers.ratio(name),
        )

    def _grow(self) -> None:
        more = self._window.units - len(self._top)
        if not more:
            return
        known = len(self._top)
        self.lives.add_units(more)
        self._top = np.append(self._top, np.full(more, np.nan))
        self._next = np.append(self._next, np.full(more, np.nan))
        for slot in self._window.slots.values():
            state = self._resumed.pop(slot.site.name, None) if slot.start >= known else None
            if state is None or len(state["top"]) != slot.site.units:
                continue
            self.lives.resume(slot.units, state)
            self._top[slot.units], self._next[slot.units] = state["top"], state["next"]
            for death in self.deaths:
                if death.site == slot.site.name and death.revived is None:
                    self._held[slot.start + death.unit] = death

    def _count(self, counted: dict[str, UnitCounts]) -> None:
        self._counted = counted
        for name, counts in counted.items():
            self.counts[name] = counts
            fed, seen = self._fed.get(name, (0, 0))
            self._fed[name] = (fed + counts.active_samples, seen + counts.samples)

    def _known_rates(self) -> Array:
        rates = np.full(self._window.units, np.nan)
        for name, (fed, seen) in self._fed.items():
            rates[self._window.slots[name].units] = fed / seen
        return rates

    def _reaches(self, observed: Observed) -> None:
        """Keep the largest z at the last firing of each unit, and at the step after it."""
        on = observed.fired[-1]
        np.copyto(self._top, observed.top[-1], where=on)
        np.copyto(self._next, -np.inf, where=on)  # not seen yet
        units = np.flatnonzero(~on & (~self.quiet | np.isneginf(self._next)))
        if not len(units):  # of those that have been silent for long both are known
            return
        fired, top, seen = observed.fired[:, units], observed.top[:, units], observed.samples[:, units] > 0
        columns, any_fired = np.arange(len(units)), fired.any(0)
        last = np.where(any_fired, len(fired) - 1 - fired[::-1].argmax(0), -1)
        self._top[units] = np.where(any_fired, top[last, columns], self._top[units])
        seen &= np.arange(len(seen))[:, None] > last
        waits = any_fired | (~np.isnan(self._top[units]) & np.isneginf(self._next[units]))
        after = np.where(seen.any(0), top[seen.argmax(0), columns], -np.inf)
        self._next[units] = np.where(waits, after, self._next[units])

    def _follow(self, captures: Captures, rates: Array, observed: Observed) -> None:
        fired = np.zeros(captures.seen.shape, bool)
        if len(fired):
            columns, units = self._places(captures)
            since = np.zeros(len(units), bool)
            ends = observed.steps.searchsorted(captures.steps, side="right")
            for i, (start, end) in enumerate(pairwise([0, *ends])):
                since |= np.logical_or.reduce(observed.fired[start:end])[units]
                fired[i, columns] = since
                since &= ~captures.seen[i, columns]
        self._paths.follow(captures, fired, rates)

    def _places(self, captures: Captures) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return where the units of the sites that are followed stand among the captured ones, and among all.

        One that was traced only has done nothing yet.
        """
        slots, followed = self._window.slots, captures.columns
        if self._known != (len(slots), len(followed)):
            met = [(part, slots[name].units) for name, part in followed.items() if name in slots]
            columns, units = (np.concatenate([np.r_[part] for part in parts]) for parts in zip(*met, strict=True))
            self._known, self._stand = (len(slots), len(followed)), (columns, units)
        return self._stand

    # -- turns -----------------------------------------------------------------------------------------------------

    def _turns(self, turns: list[Turn], observed: Observed) -> tuple[list[Death], list[Death]]:
        died, revived = [], []
        slots = sorted(self._window.slots.values(), key=lambda s: s.start)
        starts = [s.start for s in slots]
        for turn in turns:
            slot = slots[int(np.searchsorted(starts, turn.unit, side="right")) - 1]
            if not slot.site.kind.can_die:
                continue
            if turn.alive:
                death = self._held.pop(turn.unit)
                death.revived = turn.step
                revived.append(death)
                continue
            death = self._death(slot, turn, observed)
            self._held[turn.unit] = death
            self.deaths.append(death)
            died.append(death)
        return died, revived

    def _death(self, slot: Slot, turn: Turn, observed: Observed) -> Death:
        born = turn.last_fired == NEVER
        unit = turn.unit - slot.start
        last = None if born else turn.last_fired
        death = Death(
            site=slot.site.name,
            unit=unit,
            last_fired=last,
            killed_by_step=last,
            confirmed=turn.step,
            born_dead=born,
            resolution=self._schedule.every if last is None else self._schedule.resolution(last),
        )
        if not born:
            death.max_z_before, death.max_z_after = self._around(turn, observed)
        self.coroner.explain(death, self.quiet | self.lives.dead)
        return death

    def _around(self, turn: Turn, observed: Observed) -> tuple[float, float]:
        """Return the largest z of a unit at its last firing and at the step after it, in this window or before."""
        at = int(np.searchsorted(observed.steps, turn.last_fired))
        inside = turn.last_fired >= observed.steps[0]
        top = observed.top[at, turn.unit] if inside else self._top[turn.unit]
        after = self._next[turn.unit]
        if inside or np.isneginf(after):
            first = at + 1 if inside else 0
            seen = np.flatnonzero(observed.samples[first:, turn.unit])
            after = observed.top[first + seen[0], turn.unit] if len(seen) else np.nan
        return float(top), float(after)

    def last_firings(self) -> set[int]:
        """Return the steps after which a unit is silent that is not confirmed dead yet."""
        waiting = self.quiet & ~self.lives.dead
        return set(self.lives.last_fired[waiting].tolist())
