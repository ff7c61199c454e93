"""Chronicle: the host's record of a run - lives, trajectories, deaths and events - written window by window."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .captures import Captures
from .causes import KICK, Evidence, judge
from .counts import SiteCounter, UnitCounts
from .deaths import PARTS, Death, Event
from .drift import Drift
from .events import death_events, explosion_event, revival_events, risk_event
from .feeders import Own
from .lifetimes import NEVER, Lifetimes, Turn
from .trajectories import Trajectories
from .windows import Observed, Slot, Window

Array = NDArray[np.float64]


class Chronicle:
    """What became of every unit. Memory is O(units + deaths)."""

    def __init__(self, window: Window, drift: Drift, resolution: int) -> None:
        self.deaths: list[Death] = []
        self.events: list[Event] = []
        self.lives = Lifetimes()
        self.quiet: NDArray[np.bool_] = np.empty(0, bool)
        self.counts: dict[str, UnitCounts] = {}
        self.upstream: dict[str, frozenset[str]] = {}
        self._window = window
        self._drift = drift
        self._resolution = resolution
        self._paths = Trajectories()
        self._rates: dict[int, dict[str, tuple[float, float]]] = {}
        self._top: Array = np.empty(0)  # largest z at the last step with a firing
        self._next: Array = np.empty(0)  # largest z at the step after it
        self._fed: dict[str, tuple[NDArray[np.int64], int]] = {}  # samples that fired, samples, of the whole run
        self._held: dict[int, Death] = {}
        self._warned: dict[str, NDArray[np.bool_]] = {}
        self._largest: dict[str, list[float]] = {}
        self._exploded: set[str] = set()
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

    def note_rates(self, step: int) -> None:
        """Remember the learning rates at a captured update."""
        followers = self._drift.followers
        self._rates[step] = {name: self._drift.groups.peak(f.feeder.weight) for name, f in followers.items()}
        self._drift.groups.next_peak()

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

    def look(self, explain: Callable[[list[Death]], None]) -> list[Event]:
        """Take in the window that ends, and return what happened in it; `explain` may add to the deaths in it."""
        captures = self._drift.close()
        observed = self._window.close()
        self._grow()
        self._count()
        turns = self.lives.update(observed.steps, observed.fired, observed.samples)
        self._follow(captures, observed)
        self.quiet = np.logical_not(observed.fired.any(0))
        died, revived = self._turns(turns, observed)
        self._reaches(observed)
        explain(died)
        self.lives.expect(self._known_rates())
        events = death_events(died) + revival_events(revived) + self._risks(int(observed.steps[-1]), observed)
        self.events += events
        return events

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

    def _count(self) -> None:
        for name, slot in self._window.slots.items():
            counts = slot.counter.host()
            if not counts.samples:
                continue
            self.counts[name] = counts
            fed, seen = self._fed.get(name, (0, 0))
            self._fed[name] = (fed + counts.active_samples, seen + counts.samples)
            slot.counter = SiteCounter(slot.site.units, slot.ring[0])

    def _risks(self, step: int, observed: Observed) -> list[Event]:
        """Return who is about to die, or to overflow; each unit once until it is out of danger."""
        events = []
        for name, slot in self._window.slots.items():
            if name in self._paths and slot.site.kind.can_die:
                left = self._paths.sinking(name)
                danger = np.isfinite(left) & ~self.lives.dead[slot.units]
                fresh = danger & ~self._warned.get(name, np.zeros_like(danger))
                self._warned[name] = danger
                if fresh.any():
                    units = [int(unit) for unit in np.flatnonzero(fresh)]
                    steps = float(np.median(left[fresh]))
                    events.append(risk_event(name, step, units, steps, self._mover(name, fresh)))
            if self._explodes(name, observed.top[:, slot.units]):
                top = np.nanmax(observed.top[:, slot.units], 0)
                events.append(explosion_event(name, step, int(top.argmax()), float(top.max())))
        return events

    def _mover(self, name: str, units: NDArray[np.bool_]) -> str | None:
        """Return the parameter that lowered the margin of these units most."""
        feeder = self._drift.followers[name].feeder
        weight, _, bias, _, _ = self._paths.parts(name)[:, units].sum(1)
        return (
            self._drift.groups.name(feeder.bias if bias < weight else feeder.weight) if min(weight, bias) < 0 else None
        )

    def _explodes(self, name: str, top: Array) -> bool:
        """True once, when the largest z is a thousand times the first and doubled in each of three windows."""
        finite = top[np.isfinite(top)]
        largest = self._largest.setdefault(name, [])
        largest.append(float(finite.max()) if len(finite) else np.nan)
        if len(largest) < 4 or largest[0] <= 0 or name in self._exploded:
            return False
        grows = all(later > 2 * before for before, later in pairwise(largest[-4:]))
        if grows and largest[-1] > 1e3 * largest[0]:
            self._exploded.add(name)
        del largest[1:-4]
        return name in self._exploded

    def _known_rates(self) -> Array:
        rates = np.full(self._window.units, np.nan)
        for name, (fed, seen) in self._fed.items():
            rates[self._window.slots[name].units] = fed / seen
        return rates

    def _reaches(self, observed: Observed) -> None:
        """Keep the largest z at the last firing of each unit, and at the step after it."""
        for fired, top, samples in zip(observed.fired, observed.top, observed.samples, strict=True):
            seen = samples > 0
            after = seen & ~fired & ~np.isnan(self._top) & np.isneginf(self._next)
            self._next[after] = top[after]
            self._top[fired] = top[fired]
            self._next[fired] = -np.inf  # not seen yet

    def _follow(self, captures: dict[str, Captures], observed: Observed) -> None:
        fired = {}
        for name, found in captures.items():
            ends = np.searchsorted(observed.steps, found.steps, side="right")
            here = observed.fired[:, self._window.slots[name].units]
            fired[name] = [np.asarray(here[a:b].any(0)) for a, b in pairwise([0, *ends])]
        rates = {name: [self._rates[step][name] for step in found.steps] for name, found in captures.items()}
        self._paths.follow(captures, fired, rates)
        self._rates.clear()

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
            resolution=self._resolution,
        )
        if not born:
            death.max_z_before, death.max_z_after = self._around(turn, observed)
        self._explain(slot, death)
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

    def _explain(self, slot: Slot, death: Death) -> None:
        """Add what killed a unit, as far as it was followed."""
        name = slot.site.name
        follower = self._drift.followers.get(name)
        after = death.max_z_after
        non_finite = after is not None and not np.isfinite(after)
        stretch = None
        if name in self._paths and death.last_fired is not None:
            stretch = self._paths.stretch(name, death.unit, death.last_fired)
        if stretch is None or follower is None:
            death.cause, _ = judge(Evidence(born_dead=death.born_dead, non_finite=non_finite))
            return
        parts = dict(zip(("weight", "decay", "bias", "upstream", "input"), map(float, stretch.parts), strict=True))
        death.shares = {name: parts[name] for name in PARTS}
        death.shares["input"] += parts["upstream"]
        death.margin_before, death.margin_after = stretch.before, stretch.after
        death.kick, death.lr = stretch.kick, stretch.lr if np.isfinite(stretch.lr) else None
        above = self._sites_upstream(name)
        death.cause, part = judge(
            Evidence(
                non_finite=non_finite,
                shares=parts,
                kick=stretch.kick,
                steady=stretch.steady,
                raw_input=not above,
                raw_moved=self._raw_moved(name, set()),
                upstream_kick=self._upstream_kick(name, (stretch.first, stretch.last), set()),
                upstream_dead=self._upstream_dead(above),
                is_norm=follower.feeder.is_norm,
            )
        )
        if part is not None:
            parameter = follower.feeder.bias if part == "bias" else follower.feeder.weight
            death.parameter = self._drift.groups.name(parameter)
        elif death.cause in ("upstream_death", "input_shift", "learning_rate"):
            death.origin = next(iter(above), None)
            death.lr = None  # its own kick is not the one to blame

    def own(self, site: str) -> Own:
        """Return what feeds a site most directly."""
        follower, groups = self._drift.followers[site], self._drift.groups
        layers = [layer for layer in (follower.feeder, follower.inner) if layer is not None]
        names = [groups.name(p) for layer in layers for p in (layer.weight, layer.bias)]
        above = self._sites_upstream(site)
        group = groups.places.get(id(follower.feeder.weight))
        return Own(tuple(name for name in names if name is not None), group, above[0] if above else None)

    def last_firings(self) -> set[int]:
        """Return the steps after which a unit is silent that is not confirmed dead yet."""
        waiting = self.quiet & ~self.lives.dead
        return set(self.lives.last_fired[waiting].tolist())

    def _sites_upstream(self, name: str) -> list[str]:
        fed_by = self.upstream.get(name, frozenset())
        sites = (s.site for s in self._window.slots.values())
        return [s.name for s in sites if s.name != name and s.lineage and s.lineage <= fed_by]

    def _upstream_dead(self, above: list[str]) -> float:
        """Return the share of units upstream that are silent now."""
        parts = [self._window.slots[name].units for name in above]
        units = sum(part.stop - part.start for part in parts)
        silent = self.quiet | self.lives.dead
        return sum(int(silent[part].sum()) for part in parts) / units if units else 0.0

    def _upstream_kick(self, name: str, stretch: tuple[int, int], seen: set[str]) -> float:
        """Return the largest median kick of the sites upstream in the stretch, over any number of layers."""
        kicks = [0.0]
        for above in self._sites_upstream(name):
            if above in seen:
                continue
            seen.add(above)
            kicks.append(self._paths.largest_kick(above, *stretch))
            kicks.append(self._upstream_kick(above, stretch, seen))
        return max(kicks)

    def _raw_moved(self, name: str, seen: set[str]) -> bool:
        """True if the model's input, which the first sites upstream see, moved by half a std z in the stretch."""
        above = self._sites_upstream(name)
        if above:
            fresh = [a for a in above if a not in seen]
            seen.update(fresh)
            return any(self._raw_moved(a, seen) for a in fresh)
        if name not in self._paths:
            return False
        std = self._paths.std(name)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = np.abs(self._paths.parts(name)[4])[std > 0] / std[std > 0]
        return bool(len(moved)) and float(np.median(moved)) > 5 * KICK
