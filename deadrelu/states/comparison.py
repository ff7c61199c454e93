"""Comparison: what tells two states of a model apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..auditing import Patterns
from ..batches import Forward
from ..differences import Difference
from ..errors import InputError
from ..optimizer_state.remembered import number
from .layers import layer_differences, memory_of
from .looking import PROBE, Looking
from .pair import Pair
from .state import Source, State, require_alike, state_of


def diff(
    old: Source,
    new: Source,
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
    update: bool = False,
    lr: float | None = None,
    progress: bool = False,
) -> Difference:
    """Say which units died between two states of a model, and which part of the change did it.

    With data, each state is audited on it, and for the units that fired in the old state and are silent in the new one
    parts of the new state (a unit's own weights, its own bias, what comes in) are put into the old one and taken back,
    in all eight coalitions, in runs of the whole network. Without data, it says what moved, unit by unit, and what the
    optimizers' states say of gradients.

    Args:
        old, new: each an nn.Module, the path of a checkpoint, an open `Checkpoint`, or a state_dict.
        model: a module of their architecture, where neither is one; it is not changed.
        data, forward, batch_size, batch_dim, exhaustive, max_samples, device, include, exclude, progress: as for
            `deadrelu.audit`. Data that can be read only once is kept in memory.
        probe: run the interventions on so many samples of the data.
        update: the two are one update apart: also say at which learning rates the units would have lived.
        lr: the learning rate of that update; by default the one in the old state's optimizer.

    Raises:
        InputError: something in the arguments cannot be used.
        CheckpointError: a checkpoint cannot be read, or the states are of different architectures.
        DataError, ModelError: see `deadrelu.audit`.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    >>> net.load_state_dict({"0.weight": torch.ones(2, 1), "0.bias": torch.ones(2)})
    <All keys matched successfully>
    >>> lowered = {"0.weight": torch.ones(2, 1), "0.bias": torch.tensor([1.0, -9.0])}
    >>> [(death.unit, death.cause) for death in diff(net, lowered, data=torch.rand(64, 1))["1"].deaths]
    [(1, 'bias')]
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
    template = next((m for m in (model, new, old) if isinstance(m, nn.Module)), None)
    return compare(state_of(old), state_of(new), template, None if data is None else looking, update=update, lr=lr)


def compare(
    before: State,
    after: State,
    template: nn.Module | None,
    looking: Looking | None,
    *,
    update: bool = False,
    lr: float | None = None,
) -> Difference:
    """Return what tells two states apart: on data, if `looking` says on which; else by weights and optimizers alone.

    Args:
        template: a module of their architecture, for a state that has none of its own.
        update, lr: as for `diff`.

    Raises:
        See `diff`.
    """
    require_alike(before, after)
    if lr is not None and not update:
        raise InputError("lr is the learning rate of an update; say update=True as well")
    if looking is None:
        if update:
            raise InputError("the learning rates of an update are found by running it; give data as well")
        return _without_data(before, after, template)
    looking = looking.repeatable()
    models = before.module(template), after.module(template)
    reports = looking.audit(models[0]), looking.audit(models[1])
    pair = Pair(models, reports, looking)
    rates = _learning_rates(before, models[0], lr) if update else None
    found = pair.compare(rates)
    return replace(
        _without_data(before, after, models[1]),
        evidence="intervention",
        samples=reports[1].samples,
        probed=pair.probed,
        sites=found,
        lr=lr if lr is not None or not rates else _common(rates),
        notes=(*pair.notes, *(_apart(before, after) if update else ())),
    )


def _apart(old: State, new: State) -> Iterable[str]:
    """Say so if the steps inside contradict that the states are one update apart."""
    held = (old.checkpoint, new.checkpoint)
    named = {None if checkpoint is None else checkpoint.step_name for checkpoint in held}
    if old.step is None or new.step is None or not named <= {"global_step", "step"} or len(named) > 1:
        return
    if new.step - old.step != 1:
        yield f"the steps inside are {new.step - old.step} apart, not one update: its rates are those of one large step"


def _without_data(old: State, new: State, model: nn.Module | None) -> Difference:
    parameters = None if model is None else [name for name, _ in model.named_parameters()]
    layers = layer_differences(old, new, parameters)
    notes = [] if layers else ["no weight with a row per unit was found in both states"]
    for state in (old, new):
        broken = {} if state.checkpoint is None else state.checkpoint.non_finite()
        if broken:
            notes.append(f"{state.name} holds NaN or inf in {', '.join(list(broken)[:3])}: the training had diverged")
    return Difference(old.name, new.name, (old.step, new.step), "weights", 0, 0, (), layers, notes=tuple(notes))


def _learning_rates(old: State, model: nn.Module, lr: float | None) -> dict[str, float]:
    names = [name for name, _ in model.named_parameters()]
    if lr is not None:
        return dict.fromkeys(names, lr)
    memory = memory_of(old, names)
    if memory is None or old.checkpoint is None or old.checkpoint.optimizer is None:
        return {}
    groups = old.checkpoint.optimizer.groups
    found = {name: number(groups[group].get("lr")) for name, group in memory.groups.items()}
    return {name: rate for name, rate in found.items() if rate is not None}


def _common(rates: dict[str, float]) -> float | None:
    values = set(rates.values())
    return values.pop() if len(values) == 1 else None
