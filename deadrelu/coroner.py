"""Coroner: what killed a unit, judged by its trajectory and by what happened upstream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .causes import MOVED, Evidence, judge
from .deaths import PARTS, Death
from .drift import Drift
from .edits import Edits
from .feeders import Own
from .trajectories import Trajectories
from .windows import Window


@dataclass(frozen=True, slots=True)
class Before:
    """What stands between a site and the activations before it, or the model's input.

    Attributes:
        sites: the nearest sites whose output reaches it, in the order of the model.
        layers: further layers that its input came through: norms, embeddings, attention, one more Linear.
        past: some of them are fed by no layer: a part of its input went past all sites, as a residual stream does.
    """

    sites: tuple[str, ...]
    layers: frozenset[str]
    past: bool


class Coroner:
    """Explains deaths.

    Args:
        window, drift, paths, edits: what was seen.
        fed_by: per layer, the layers whose output reaches it.

    Attributes:
        edited: after which update the parameter was edited that killed a unit, by site and unit.
    """

    def __init__(
        self, window: Window, drift: Drift, paths: Trajectories, edits: Edits, fed_by: Mapping[str, frozenset[str]]
    ) -> None:
        self.edited: dict[tuple[str, int], int] = {}
        self._edits = edits
        self._fed_by = fed_by
        self._window = window
        self._drift = drift
        self._paths = paths
        self._before: dict[str, Before] = {}
        self._known = (0, 0)

    def explain(self, death: Death, silent: NDArray[np.bool_]) -> None:
        """Add what killed a unit, as far as it was followed; `silent` tells of all units which are, (units,)."""
        name = death.site
        follower = self._drift.followers.get(name)
        after = death.max_z_after
        non_finite = after is not None and not np.isfinite(after)
        stretch = None
        if name in self._paths and death.last_fired is not None:
            stretch = self._paths.stretch(name, death.unit, death.last_fired)
        if stretch is None or follower is None:
            death.cause, _ = judge(Evidence(born_dead=death.born_dead, non_finite=non_finite))
            if death.cause == "unknown" and death.last_fired is not None:
                at = death.last_fired
                edit = self._edits.blamed(at, at, self.own(name).names, death.unit, bias=None, fall=0.0)
                if edit is not None:
                    death.parameter, self.edited[name, death.unit] = edit.name, edit.step
            return
        parts = dict(zip(("weight", "decay", "bias", "upstream", "input"), map(float, stretch.parts), strict=True))
        death.shares = {name: parts[name] for name in PARTS}
        death.shares["input"] += parts["upstream"]
        death.margin_before, death.margin_after = stretch.before, stretch.after
        death.kick, death.lr = stretch.kick, stretch.lr if np.isfinite(stretch.lr) else None
        # An edit before the silence was measured is in the parts, also where the unit had not fired for a while.
        span = stretch.first, max(death.last_fired or 0, stretch.last - 1)
        names, bias = self.own(name).names, self._drift.groups.name(follower.feeder.bias)
        fall = stretch.before - stretch.after
        edit = self._edits.blamed(*span, names, death.unit, bias=bias, fall=fall)
        if edit is not None and not non_finite and death.shares["input"] > min(death.shares.values()):
            death.cause, death.parameter, death.lr = "bias_drift" if edit.pull else "unknown", edit.name, None
            self.edited[name, death.unit] = edit.step
            return
        before = self._what_is_before(name)
        if not before.sites:  # features that vanish from the data have not died
            parts["input"], parts["upstream"] = parts["input"] + parts["upstream"], 0.0
        fatal = stretch.first, stretch.last
        death.cause, part = judge(
            Evidence(
                non_finite=non_finite,
                shares=parts,
                kick=stretch.kick,
                steady=stretch.steady,
                raw_input=not before.sites and not before.layers,
                raw_moved=self._raw_moved(name, fatal, set()),
                upstream_kick=self._upstream_kick(name, fatal, set()),
                upstream_dead=0.0 if before.past else self._upstream_dead(before.sites, silent),
                is_norm=follower.feeder.is_norm,
            )
        )
        if part is not None:
            parameter = follower.feeder.bias if part == "bias" else follower.feeder.weight
            death.parameter = self._drift.groups.name(parameter)
        elif death.cause in ("upstream_death", "input_shift", "learning_rate"):
            death.origin = next(iter(before.sites), None)
            death.lr = None  # its own kick is not the one to blame
        elif death.cause == "non_finite":
            death.parameter = self._edits.spoilt(*span, names, death.unit)

    def own(self, site: str) -> Own:
        """Return what feeds a site most directly."""
        follower, groups = self._drift.followers.get(site), self._drift.groups
        if follower is None:  # no single layer holds its weight as a parameter
            return Own(*groups.beneath(self._window.slots[site].site.producers), None)
        layers = [layer for layer in (follower.feeder, follower.inner) if layer is not None]
        names = [groups.name(p) for layer in layers for p in (layer.weight, layer.bias)]
        above = self._what_is_before(site).sites
        group = groups.scaling(follower.feeder.weight)
        return Own(tuple(name for name in names if name is not None), group, above[0] if above else None)

    def _what_is_before(self, name: str) -> Before:
        """Return what is before a site, worked out anew once more of the model is known."""
        if self._known != (len(self._window.slots), len(self._fed_by)):
            self._known = len(self._window.slots), len(self._fed_by)
            self._before.clear()
        if name not in self._before:
            self._before[name] = self._search(name)
        return self._before[name]

    def _search(self, name: str) -> Before:
        """Go up layer by layer, and on from those that no activation follows."""
        others = [s.site for s in self._window.slots.values() if s.site.name != name and s.site.lineage]
        seen: set[str] = set()
        fresh = set(self._window.slots[name].site.producers)
        while fresh:
            reached = set().union(*(self._fed_by.get(layer, ()) for layer in fresh))
            fresh = reached - seen
            seen |= fresh
            fresh -= {mark for site in others if site.lineage <= seen for mark in site.lineage}
        above = [site for site in others if site.lineage <= seen]
        layers = seen.difference(*(site.lineage for site in above))
        past = any(not self._fed_by.get(layer) for layer in layers)
        return Before(tuple(site.name for site in above), frozenset(layers), past)

    def _upstream_dead(self, above: tuple[str, ...], silent: NDArray[np.bool_]) -> float:
        """Return the share of units upstream that are silent."""
        parts = [self._window.slots[name].units for name in above]
        units = sum(part.stop - part.start for part in parts)
        return sum(int(silent[part].sum()) for part in parts) / units if units else 0.0

    def _upstream_kick(self, name: str, span: tuple[int, int], seen: set[str]) -> float:
        """Return the largest median kick of the sites upstream in this span of steps, over any number of layers.

        Layers without a site have no kick that is known. A rate that throws them throws the layer behind them, too.
        """
        before = self._what_is_before(name)
        kicks = [self._paths.largest_kick(name, *span) if before.layers else 0.0]
        for above in before.sites:
            if above in seen:
                continue
            seen.add(above)
            kicks.append(self._paths.largest_kick(above, *span))
            kicks.append(self._upstream_kick(above, span, seen))
        return max(kicks)

    def _raw_moved(self, name: str, span: tuple[int, int], seen: set[str]) -> bool:
        """True if the model's input, which the first sites upstream see, moved by a std z in this span of steps.

        Sixty-four rows of it are drawn at each capture: that alone seems to move it by up to half as much. Behind
        layers without a site the input itself is looked at, for they may have moved as well.
        """
        before = self._what_is_before(name)
        if before.sites:
            fresh = [a for a in before.sites if a not in seen]
            seen.update(fresh)
            return any(self._raw_moved(a, span, seen) for a in fresh)
        if before.layers:
            return self._drift.intake.moved(*span) > MOVED
        if name not in self._paths:
            return False
        std = self._paths.std(name)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = np.abs(self._paths.parts(name)[4])[std > 0] / std[std > 0]
        return bool(len(moved)) and float(np.median(moved)) > MOVED
