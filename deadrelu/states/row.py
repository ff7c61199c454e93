"""Row: the checkpoints of one training, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..auditing import Patterns
from ..batches import Forward
from ..differences import Moment, Series, SiteDifference, Timeline
from ..errors import InputError
from ..report import Report
from .layers import counted, layer_of, layers_of, memory_of, rows_of
from .looking import PROBE, Looking
from .order import Ordered, put_in_order
from .pair import Pair
from .state import Source, State, require_alike, state_of

ABOVE = 0.1
Mask = NDArray[np.bool_]


def timeline(
    checkpoints: Iterable[Source],
    *,
    model: nn.Module | None = None,
    data: Any = None,
    forward: Forward | None = None,
    batch_size: int = 128,
    batch_dim: int = 0,
    exhaustive: bool = False,
    max_samples: int | None = None,
    device: str | torch.device | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    probe: int = PROBE,
    above: float = ABOVE,
    given_order: bool = False,
    progress: bool = False,
) -> Timeline:
    """Say how the units of a model fared over a row of checkpoints, and which is the first bad one.

    With data, each checkpoint is audited on it, and between neighbours the causes of deaths come from interventions, as
    in `diff`. Without, units count whose weights are all zero and whose bias is not positive (proved silent), and those
    without a recent gradient by the optimizer's state.

    Args:
        checkpoints: what `diff` takes for a state, two or more.
        model: a module of their architecture; it is not changed.
        data, forward, batch_size, batch_dim, exhaustive, max_samples, device, include, exclude, progress: as for
            `deadrelu.audit`. Data that can be read only once is kept in memory.
        probe: run the interventions on so many samples of the data.
        above: a checkpoint is bad if the silent fraction of a site rose by more than this over its lowest value before.
        given_order: keep the order given; otherwise they are put in the order of their steps, or of their names.

    Raises:
        InputError: something in the arguments cannot be used.
        CheckpointError: a checkpoint cannot be read, or they are of different architectures.
        DataError, ModelError: see `deadrelu.audit`.
    """
    looking = Looking(
        data=data,
        forward=forward,
        batch_size=batch_size,
        batch_dim=batch_dim,
        exhaustive=exhaustive,
        max_samples=max_samples,
        device=device,
        include=include,
        exclude=exclude,
        probe=probe,
        progress=progress,
    )
    states = [state_of(source) for source in checkpoints]
    return follow(states, model, None if data is None else looking, above=above, given_order=given_order)


def follow(
    states: Sequence[State],
    template: nn.Module | None,
    looking: Looking | None,
    *,
    above: float = ABOVE,
    given_order: bool = False,
) -> Timeline:
    """Return how units fared over a row of states: on data, if `looking` says on which; else by what is in the files.

    Args:
        template: a module of their architecture, for a state that has none of its own.
        above, given_order: as for `timeline`.

    Raises:
        See `timeline`.
    """
    if len(states) < 2:
        raise InputError(f"{len(states)} checkpoint given; a timeline needs two or more")
    if not 0 <= above < 1:
        raise InputError(f"above is {above}; expected a fraction, 0 <= above < 1")
    steps = tuple(state.step for state in states)
    ordered = Ordered(tuple(states), steps, "given", "the order given") if given_order else put_in_order(states)
    for state in ordered.states[1:]:
        require_alike(ordered.states[0], state)
    if looking is None:
        names = None if template is None else [name for name, _ in template.named_parameters()]
        return _assembled(ordered, list(_without_data(ordered.states, names)), "weights", 0, above)
    frames = list(_with_data(ordered.states, template, looking.repeatable()))
    return _assembled(ordered, frames, "data", frames[-1].samples, above)


@dataclass(frozen=True, slots=True)
class _Frame:
    """One checkpoint: which units of which series are silent, and what told it from the one before."""

    silent: dict[str, Mask | None]
    units: dict[str, int]
    samples: int = 0
    differences: tuple[SiteDifference, ...] = ()
    notes: tuple[str, ...] = ()
    unread: str | None = None


def _with_data(states: Sequence[State], model: nn.Module | None, looking: Looking) -> Iterator[_Frame]:
    before: tuple[nn.Module, Report] | None = None
    for state in states:
        module = state.module(model)
        report = looking.audit(module)
        differences: tuple[SiteDifference, ...] = ()
        notes: tuple[str, ...] = ()
        if before is not None:
            pair = Pair((before[0], module), (before[1], report), looking)
            differences = pair.compare()
            notes = tuple(pair.notes)
        able = [site for site in report if site.can_die]
        silent: dict[str, Mask | None] = {site.site: site.silent for site in able}
        yield _Frame(silent, {site.site: site.units for site in able}, report.samples, differences, notes)
        before = module, report


def _without_data(states: Sequence[State], parameters: Sequence[str] | None) -> Iterator[_Frame]:
    for state in states:
        memory = memory_of(state, parameters)
        silent: dict[str, Mask | None] = {}
        units: dict[str, int] = {}
        unread: dict[str, None] = {}
        for name in layers_of(state):
            layer = layer_of(name)
            units[layer] = len(rows_of(state, name))
            silent[layer], why = counted(state, name, memory)
            if why is not None:
                unread[f"{layer}: {why}"] = None
        yield _Frame(silent, units, unread=next(iter(unread), None))


def _assembled(ordered: Ordered, frames: list[_Frame], evidence: Any, samples: int, above: float) -> Timeline:
    names = list(dict.fromkeys(name for frame in frames for name in frame.units))
    if not names:
        raise InputError("nothing in these checkpoints can die: no activation with a flat side, no weight with rows")
    series = [_series(name, frames) for name in names]
    rises = [one.rises() for one in series]
    bad = (i for i in range(len(frames)) if any((rise[i] or 0.0) > above for rise in rises))
    first = next(bad, None)
    ranked = sorted(
        range(len(names)), key=lambda i: (-_at(rises[i], first), -series[i].rise, -(series[i].silent[-1] or 0))
    )
    moments = _moments(ordered, frames, [names[i] for i in ranked])
    return Timeline(
        moments=tuple(moments),
        series=tuple(series[i] for i in ranked),
        order=ordered.by,
        order_name=ordered.words,
        evidence=evidence,
        samples=samples,
        above=above,
        first_bad=first,
        notes=(*dict.fromkeys(note for frame in frames for note in frame.notes), *_unread(frames)),
    )


def _unread(frames: list[_Frame]) -> Iterator[str]:
    """Say once in how many checkpoints the optimizer's state told nothing of some layer, and why."""
    reasons = [frame.unread for frame in frames if frame.unread is not None]
    if reasons:
        where = f"{len(reasons)} of {len(frames)} checkpoints"
        yield f"{where} have layers whose optimizer state tells nothing: {reasons[0]}"


def _at(rises: list[float | None], index: int | None) -> float:
    return 0.0 if index is None else rises[index] or 0.0


def _series(name: str, frames: list[_Frame]) -> Series:
    units = next(frame.units[name] for frame in frames if name in frame.units)
    masks = [frame.silent.get(name) for frame in frames]
    lived: Mask | None = None
    born = 0
    survival: list[float | None] = []
    for mask in masks:
        if mask is not None:
            if lived is None:
                born = int((~mask).sum())
            lived = ~mask if lived is None else lived & ~mask
        survival.append(float(lived.sum() / born) if mask is not None and lived is not None and born else None)
    silent = tuple(None if mask is None else float(mask.mean()) for mask in masks)
    return Series(name, units, silent, tuple(survival))


def _moments(ordered: Ordered, frames: list[_Frame], names: list[str]) -> Iterator[Moment]:
    fired: dict[str, Mask] = {}
    before: dict[str, Mask | None] = {}
    for i, (state, step, frame) in enumerate(zip(ordered.states, ordered.steps, frames, strict=True)):
        moment = Moment(state.name, step, tuple(_total(frame.silent.get(name)) for name in names))
        births = deaths = revivals = 0
        for name in names:
            mask, earlier = frame.silent.get(name), before.get(name)
            if mask is None:
                continue
            known = fired.get(name, np.zeros_like(mask))
            if i and earlier is not None:
                deaths += int((mask & ~earlier).sum())
                births += int((~mask & ~known).sum())
                revivals += int((~mask & earlier & known).sum())
            fired[name] = known | ~mask
        before = frame.silent
        yield replace(
            moment,
            births=births,
            deaths=deaths,
            revivals=revivals,
            causes={d.site: d.causes for d in frame.differences if d.causes},
            revived_by={d.site: d.revived_by for d in frame.differences if d.revived_by},
        )


def _total(mask: Mask | None) -> int | None:
    return None if mask is None else int(mask.sum())
