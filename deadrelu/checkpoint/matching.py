"""Matching: which parameter a key of the optimizer's state belongs to, as far as names, order and shapes prove it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from .optimizer import Key, OptimizerState
from .prefixes import bare
from .tensors import Values

How = Literal["names", "order", "shapes"]
Shape = tuple[int, ...]

_USUAL = re.compile(r"optimizers?|optims?|opts?|state_?dict|states?|models?|nets?|[^a-z0-9]")

# What optimizers keep in the shape of the parameter itself.
_SHAPED = "exp_avg exp_avg_sq momentum_buffer square_avg sum exp_inf prev ax acc_delta state1".split()


@dataclass(frozen=True, slots=True)
class ParameterStates:
    """The state of each parameter whose key is certain.

    Attributes:
        states: parameter name -> what the optimizer keeps for it. Empty for one that never had a gradient.
        groups: parameter name -> the index of its group.
        how: by what they were matched.
        uncertain: parameter name -> why its state is not known; one sentence.
        unmatched: how many keys of the optimizer belong to no parameter for certain.
        possible: whether the optimizer can hold these parameters at all, as far as shapes tell.
    """

    states: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, int]
    how: How
    uncertain: Mapping[str, str]
    unmatched: int
    possible: bool = True


def match(optimizer: OptimizerState, shapes: Mapping[str, Shape], *, ordered: bool) -> ParameterStates:
    """Return the state of each parameter in `shapes` (name -> shape), as far as it is certain.

    `ordered`: the parameters stand in the order of the model's own `parameters()`; then the keys of each group follow
    it, and a key is certain if the first and the last place that the shapes leave for it are the same. Otherwise a key
    is certain if no second parameter has its shape. "Certain" supposes that the optimizer was given its parameters in
    the order of the model, which is what `model.parameters()` and every filter of it do.
    """
    by_name = _by_name(optimizer, shapes)
    if by_name is not None:
        return _result(optimizer, shapes, by_name, "names", "the optimizer's names do not hold it")
    groups = [[(key, _shape(optimizer.state.get(key))) for key in group["params"]] for group in optimizer.groups]
    if ordered:
        found = _by_order(groups, list(shapes.items()))
        if found is None:
            why = "the shapes in the optimizer do not fit the weights in their order"
            return replace(_result(optimizer, shapes, {}, "order", why), possible=False)
        return _result(optimizer, shapes, found, "order", "other parameters of its shape could have this state")
    lost = "the file has lost the order of the parameters, and others have its shape"
    return _result(optimizer, shapes, _by_shape(groups, shapes), "shapes", lost)


def named_alike(optimizer: str, model: str) -> bool:
    """Return whether an optimizer is named after a model.

    >>> named_alike("optimizerG_state_dict", "netG_state_dict"), named_alike("opt_d", "generator")
    (True, False)
    """
    first, second = (_USUAL.sub("", name.lower()) for name in (optimizer, model))
    return bool(first and second) and (first.startswith(second) or second.startswith(first))


def _by_name(optimizer: OptimizerState, shapes: Mapping[str, Shape]) -> dict[Key, str] | None:
    named = optimizer.names or {key: key for key in optimizer.parameters() if isinstance(key, str)}
    if not named:
        return None
    known = {bare(name): name for name in shapes}
    found: dict[Key, str] = {}
    for key, name in named.items():
        parameter = name if name in shapes else known.get(bare(name))
        shape = _shape(optimizer.state.get(key))
        if parameter is not None and shape in (None, shapes[parameter]):
            found[key] = parameter
    return found if len(set(found.values())) == len(found) else None


def _by_order(groups: list[list[tuple[Key, Shape | None]]], wanted: list[tuple[str, Shape]]) -> dict[Key, str] | None:
    """Return the certain keys; None if a group does not fit at all."""
    taken: dict[int, tuple[int, int]] = {}  # place among the parameters -> (group, key within it)
    while True:
        before = len(taken)
        for index, group in enumerate(groups):
            free = [place for place in range(len(wanted)) if taken.get(place, (index, 0))[0] == index]
            first = _places(group, free, wanted)
            last = _places(group[::-1], free[::-1], wanted)
            if first is None or last is None:
                return None
            for position, (low, high) in enumerate(zip(first, last[::-1], strict=True)):
                if low == high:
                    taken[low] = (index, position)
        if len(taken) == before:
            return {groups[index][position][0]: wanted[place][0] for place, (index, position) in taken.items()}


def _places(
    group: list[tuple[Key, Shape | None]], free: list[int], wanted: list[tuple[str, Shape]]
) -> list[int] | None:
    """Return the earliest place in `free` for each key of `group`, in order; None if they do not fit."""
    places = []
    at = 0
    for _, shape in group:
        while at < len(free) and shape is not None and wanted[free[at]][1] != shape:
            at += 1
        if at == len(free):
            return None
        places.append(free[at])
        at += 1
    return places


def _by_shape(groups: list[list[tuple[Key, Shape | None]]], shapes: Mapping[str, Shape]) -> dict[Key, str]:
    holders: dict[Shape, list[str]] = {}
    for name, shape in shapes.items():
        holders.setdefault(shape, []).append(name)
    keys = [(key, shape) for group in groups for key, shape in group if shape is not None]
    counts: dict[Shape, int] = {}
    for _, shape in keys:
        counts[shape] = counts.get(shape, 0) + 1
    return {key: holders[shape][0] for key, shape in keys if counts[shape] == 1 and len(holders.get(shape, ())) == 1}


def _shape(values: Mapping[str, Any] | None) -> Shape | None:
    if not isinstance(values, Values):
        return None
    return next((shape for name in _SHAPED if name in values and (shape := values.shape(name)) is not None), None)


def _result(
    optimizer: OptimizerState, shapes: Mapping[str, Shape], found: dict[Key, str], how: How, why: str
) -> ParameterStates:
    group_of = {key: index for index, group in enumerate(optimizer.groups) for key in group["params"]}
    certain = {name: key for key, name in found.items()}
    return ParameterStates(
        states={name: optimizer.state.get(certain[name], {}) for name in shapes if name in certain},
        groups={name: group_of[certain[name]] for name in shapes if name in certain and certain[name] in group_of},
        how=how,
        uncertain={name: why for name in shapes if name not in certain},
        unmatched=len(group_of) - len(found),
    )
