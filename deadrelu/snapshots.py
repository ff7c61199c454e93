"""Snapshots: the parameters before and after some updates, with the inputs of that time, in a bounded memory.

They allow an update to be replayed at another learning rate. Kept are the first updates, those whose learning rate has
risen, and those that are captured anyway; the oldest that no silent unit waits for goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .batches import tensors_in

FIRST = 100
"""Every one of the first updates is kept: a rate that is too high from the start kills in them."""
RISE = 1.1
"""An update whose rate is above the usual by this factor is kept."""
CALM = 0.05
"""How fast the usual rate follows."""
PATIENCE = 50
"""Updates in a row whose rate has risen that are kept: a schedule that rises without end is the usual, then."""
MOST = 200
"""Updates that are kept at most, however small they are."""
BATCHES = 2
"""Batches an update is tried on: its own, and those that follow."""


Key = tuple[int, int]
"""(optimizer, group)."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The inputs of one forward pass that counted, copied.

    Attributes:
        module: path of the outermost module, as in `named_modules`.
        args, kwargs: what it was called with.
        autocast: the dtype that autocast was on with, by device type.
    """

    module: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    autocast: dict[str, torch.dtype]


@dataclass(slots=True, eq=False)
class Update:
    """One update of the parameters.

    Attributes:
        step: the step that it ended.
        before, after: the parameters, in the order of the model.
        batches: the batch of its step and those of the next steps.
        rates: learning rate by (optimizer, group).
        versions: of the parameters right after it, to know that nothing else has moved them since.
        size: bytes that it added to what is held, its later batches among them.
        places: where each parameter stands in the lists, by its id.
        scaled: the parameters whose learning rate is to be lowered: those whose rate had risen, if any had.
    """

    step: int
    before: list[torch.Tensor]
    after: list[torch.Tensor] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    rates: dict[Key, float] = field(default_factory=dict)
    versions: list[int] = field(default_factory=list)
    scaled: list[bool] = field(default_factory=list)
    size: int = 0
    places: dict[int, int] = field(default_factory=dict)

    def lengths(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Return |W' - W| and |W| of each unit (the first axis) of a parameter, (2, units); None if it was not kept."""
        at = self.places.get(id(weight))
        if at is None:
            return None
        before, after = self.before[at].double().flatten(1), self.after[at].double().flatten(1)
        return torch.stack(((after - before).norm(dim=1), before.norm(dim=1)))


class Snapshots:
    """A ring of updates.

    Args:
        model: the model.
        groups: the (optimizer, group) of each parameter, by its id.
        memory: bytes that they may take. A model of which not even two updates fit is not kept at all.
    """

    def __init__(self, model: nn.Module, groups: Mapping[int, Key], memory: int) -> None:
        self.updates: OrderedDict[int, Update] = OrderedDict()
        self.refused: str | None = None
        self._parameters = list(model.parameters())
        self._groups = groups
        self._places = {id(parameter): i for i, parameter in enumerate(self._parameters)}
        self._paths = {module: path for path, module in model.named_modules(remove_duplicate=True)}
        self._memory = memory
        self._usual: dict[Key, float] = {}
        self._risen = self._held = 0
        self._open: Update | None = None
        self._batch: Batch | None = None
        self._inputs: tuple[nn.Module, tuple[Any, ...], dict[str, Any]] | None = None
        self._following: list[Update] = []
        self._wanted: frozenset[int] = frozenset()
        if any(nn.parameter.is_lazy(p) for p in self._parameters):
            self.refused = "its parameters are not initialised yet"
        elif 4 * (size := _bytes(self._parameters)) > memory:
            self.refused = f"two updates of its {size / 2**20:.0f} MiB of parameters are over {memory / 2**20:.0f} MiB"

    def begin_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], due: bool) -> None:
        """Take the inputs of the first forward pass of a step; they are copied if it is known already that they count.

        Others are held until the step ends: a learning rate may rise as late as right before the update.
        """
        self._batch, self._inputs = None, (module, args, kwargs)
        if due or self._following:
            batch = self._copy_inputs()
            for update in self._following:
                update.batches.append(batch)
            self._following = [u for u in self._following if len(u.batches) < BATCHES]

    def _copy_inputs(self) -> Batch:
        if self._batch is None:
            assert self._inputs is not None
            module, args, kwargs = self._inputs
            autocast = {d: torch.get_autocast_dtype(d) for d in ("cpu", "cuda") if torch.is_autocast_enabled(d)}
            self._batch = Batch(self._paths.get(module, ""), copied(args), copied(kwargs), autocast)
        return self._batch

    def before_update(self, step: int, rates: Mapping[Key, float], captured: bool) -> None:
        """Keep the parameters before an update, if it is due."""
        if self._open is not None or self._inputs is None:
            return
        risen: set[Key] = set()
        if rates != self._usual:
            risen = {key for key, rate in rates.items() if rate > RISE * self._usual.get(key, rate)}
            for key, rate in rates.items():
                usual = self._usual.get(key, rate)
                self._usual[key] = usual + CALM * (rate - usual)
        self._risen = self._risen + 1 if risen else 0
        if captured or step < FIRST or 0 < self._risen <= PATIENCE:
            last = self.newest
            same = last is not None and last.step == step - 1
            same = same and last is not None and last.versions == [p._version for p in self._parameters]
            before = last.after if same and last is not None else _clones(self._parameters)
            self._open = Update(step, before, batches=[self._copy_inputs()], rates=dict(rates))
            self._open.places = self._places
            self._open.scaled = [not risen or self._groups.get(id(p)) in risen for p in self._parameters]

    def edited(self, step: int, *, late: bool) -> None:
        """Parameters were changed after this step, by something else than an optimizer.

        Late: what the update left was kept after that, and is not known then.
        """
        update = self.updates.get(step)
        if update is not None:
            update.versions = []
            if late:
                self._drop(step)

    def after_update(self) -> None:
        """Keep the parameters after it."""
        update, self._open = self._open, None
        self._inputs = self._batch = None
        if update is None:
            return
        update.after = _clones(self._parameters)
        update.versions = [p._version for p in self._parameters]
        shared = self.updates.get(update.step - 1)
        own = [] if shared is not None and shared.after is update.before else update.before
        inputs = [t for batch in update.batches for t in tensors_in((batch.args, batch.kwargs))]
        update.size = _bytes([*own, *update.after, *BATCHES * inputs])
        self._held += update.size
        self.updates[update.step] = update
        self._following.append(update)
        self._trim()

    def want(self, steps: Iterable[int]) -> None:
        """Hold on to the updates of these steps, after which a unit is silent that is not confirmed dead yet."""
        self._wanted = frozenset(steps)

    def close(self) -> None:
        """Let go of everything."""
        self.refused = "the monitor is closed"
        self.updates.clear()
        self._following.clear()
        self._parameters.clear()
        self._paths.clear()
        self._open = self._batch = self._inputs = None

    @property
    def newest(self) -> Update | None:
        """The last update that was kept."""
        return next(reversed(self.updates.values()), None)

    def _trim(self) -> None:
        while len(self.updates) > MOST or (len(self.updates) > 1 and self._held > self._memory):
            oldest = next((step for step in self.updates if step not in self._wanted), next(iter(self.updates)))
            self._drop(oldest)

    def _drop(self, step: int) -> None:
        gone, heir = self.updates.pop(step), self.updates.get(step + 1)
        kept = _bytes(gone.after) if heir is not None and heir.before is gone.after else 0
        self._held -= gone.size - kept
        if heir is not None:
            heir.size += kept


def _clones(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        if all(tensor.is_cpu for tensor in tensors):
            return list(map(torch.clone, tensors))
        clones = list(map(torch.empty_like, tensors))
        torch._foreach_copy_(clones, list(tensors))  # where each clone would be a launch
        return clones


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def copied(value: Any) -> Any:
    """Return nested inputs with their tensors copied, for the next batch may overwrite them."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(copied, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return value
