"""Replay: an update of the whole network done again at smaller learning rates, on a copy, to see who lives.

Nearly every optimizer moves the parameters in proportion to its learning rate, so that the update at a fraction c of it
is before + c (after - before). What those do that do not (`Groups.scaling`) is not replayed.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .batches import tensors_in
from .causes import KICK
from .counts import SiteCounter
from .deaths import Death
from .feeders import Own
from .guards import Hook
from .hooks import Watcher
from .snapshots import Batch, Snapshots, Update
from .untouched import eager

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]
LOWEST = 2.0**-12
"""The smallest fraction of an update that is tried."""
CLOSE = 1.05
"""The ratio of a fraction that kills to one that spares at which the search ends."""
TRIALS = 64
"""Fractions tried at most for one update."""
CREDIT, EARNED = 240, 0.05
"""Forward passes that a run may spend on replays from its start, and what every step adds."""
HALF = 0.5
"""A death that nothing else explains is the learning rate's if half of the update would not have killed, or if one
update threw the unit."""
MANY = 3
"""Units that die by one update: fewer are replayed only while half of the credit is left."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_BESIDE = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")
_WEIGHTS = tuple(f"torch.nn.utils.{name}" for name in ("prune", "weight_norm", "spectral_norm"))


class ReplayError(Exception):
    """A model cannot be run on a copy without touching what is its own."""


def safe_fractions(alive: Callable[[float], Mask], trials: int = TRIALS) -> Array:
    """Return, per unit, the fraction of an update at which it begins to be silent, (units,), in 0..1.

    Halves the fraction until a unit lives, then bisects between the last that spares and the first that kills. What
    one layer's step silences on fixed inputs, it silences at an interval of fractions (DESIGN 6.5), so that what lies
    below is safe. NaN for a unit that is silent before the update, lives after the whole of it, or was not pinned
    down within `trials`.

    >>> safe_fractions(lambda c: np.array([c < 0.3, True, False])).round(2).tolist()
    [0.3, nan, nan]
    """
    candidates = alive(0.0) & ~alive(1.0)
    tried = 2
    low, high = np.zeros(len(candidates)), np.ones(len(candidates))
    fraction, falling = 0.5, candidates.copy()
    while fraction >= LOWEST and falling.any() and tried < trials:
        lives = alive(fraction)
        tried += 1
        low[falling & lives] = fraction
        high[falling & ~lives] = fraction
        falling &= ~lives
        fraction /= 2
    wide = candidates & (low > 0)
    while tried < trials and (wide & (high > CLOSE * low)).any():
        middle = np.sqrt(low * high)
        # The bracket that holds most units first.
        values, counts = np.unique(middle[wide & (high > CLOSE * low)], return_counts=True)
        fraction = float(values[counts.argmax()])
        lives = alive(fraction)
        tried += 1
        inside = wide & (low < fraction) & (fraction < high)
        low[inside & lives] = fraction
        high[inside & ~lives] = fraction
    found = wide & (high <= CLOSE * low)
    return np.where(found, np.sqrt(low * high), np.nan)


class Replay:
    """An update of a model, done again on a copy of it.

    Raises:
        ReplayError: the model cannot be copied without touching what is its own.
    """

    def __init__(self, model: nn.Module, update: Update, *, batch_dim: int, **patterns: Any) -> None:
        self.forwards = 0
        self._update = update
        self._batch_dim = batch_dim
        self._copy = copied(model)
        self._parameters = list(self._copy.parameters())
        self._names = [name for name, _ in self._copy.named_parameters()]
        if len(self._parameters) != len(update.before):
            raise ReplayError("the model has other parameters than then")
        self._devices = sorted({p.device.index or 0 for p in self._parameters if p.device.type == "cuda"})
        self._watcher = Watcher(self._copy, **patterns)

    def fired(self, fraction: float, *, only: Iterable[str] | None = None) -> dict[str, Mask]:
        """Return which units of each site fire on the batches of the update if this fraction of it is done, (units,).

        Args:
            fraction: how much of the update, in 0..1.
            only: names of the parameters that move; all without it.
        """
        chosen = None if only is None else set(only)
        with torch.no_grad():
            update = self._update
            rows = zip(self._names, self._parameters, update.before, update.after, update.scaled, strict=True)
            for name, parameter, before, after, scaled in rows:
                share = 0.0 if chosen is not None and name not in chosen else fraction if scaled else 1.0
                parameter.copy_(after if share == 1 else before if share == 0 else torch.lerp(before, after, share))
        found: dict[str, Mask] = {}
        for batch in self._update.batches:
            for name, fires in self._run(batch).items():
                found[name] = found[name] | fires if name in found else fires
        return found

    def _run(self, batch: Batch) -> dict[str, Mask]:
        self.forwards += 1
        module = self._copy.get_submodule(batch.module)
        tensors = list(tensors_in((batch.args, batch.kwargs)))
        rows = next((int(t.shape[self._batch_dim]) for t in tensors if t.ndim > self._batch_dim), None)
        watcher = self._watcher
        watcher.counters.clear()
        with ExitStack() as stack:
            stack.enter_context(own_randomness(self._devices))
            stack.enter_context(torch.no_grad())
            stack.enter_context(eager())
            for device, dtype in batch.autocast.items():
                stack.enter_context(torch.autocast(device, dtype))
            stack.enter_context(watcher.attached())
            stack.enter_context(watcher)
            watcher.begin(tensors, self._batch_dim, rows)
            module(*batch.args, **batch.kwargs)
            watcher.end()
        counts = SiteCounter.hosts(list(watcher.counters.values()))
        return {name: seen.active > 0 for name, seen in zip(watcher.counters, counts, strict=True)}


class Replays:
    """Tells deaths which learning rate would have spared them, as far as the update that killed them was kept.

    Attributes:
        refused: why nothing can be replayed, None while it can.
    """

    def __init__(self, model: nn.Module, snapshots: Snapshots, *, batch_dim: int, **patterns: Any) -> None:
        self.refused = snapshots.refused
        self._model: nn.Module | None = model
        self._snapshots = snapshots
        self._options = {"batch_dim": batch_dim, **patterns}
        self._spent = 0

    def explain(self, deaths: Iterable[Death], step: int, own: Callable[[str], Own]) -> None:
        """Add `safe_lr`, and what an intervention shows, to deaths by a learning rate, or by what nothing else tells.

        Args:
            deaths: those that were confirmed just now.
            step: the present step, which earns the credit that replays spend.
            own: tells the parameters that feed a site of that name most directly.
        """
        by_step: dict[int, list[Death]] = {}
        for death in deaths:
            last = death.killed_by_step
            if _open(death) and last is not None and last in self._snapshots.updates:
                by_step.setdefault(last, []).append(death)
        for killed_by, killed in sorted(by_step.items(), key=lambda item: -len(item[1])):
            credit = CREDIT + EARNED * step - self._spent
            enough = credit >= (CREDIT / 8 if len(killed) >= MANY else CREDIT / 2)
            killed = [death for death in killed if own(death.site).group is not None]
            if killed and self.refused is None and self._model is not None and enough:
                self._explain(self._model, killed, self._snapshots.updates[killed_by], int(credit), own)

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _explain(
        self, model: nn.Module, deaths: list[Death], update: Update, credit: int, own: Callable[[str], Own]
    ) -> None:
        try:
            replay = Replay(model, update, **self._options)
        except ReplayError as error:
            self.refused = str(error)
            return

        def alive(fraction: float, only: Iterable[str] | None = None) -> Mask:
            fired = replay.fired(fraction, only=only)
            return np.array([bool(d.site in fired and fired[d.site][d.unit]) for d in deaths])

        trials = min(TRIALS, credit // max(1, len(update.batches)))
        fractions = safe_fractions(alive, trials)
        by_own = np.zeros(len(deaths), bool)
        for site in {d.site for d, fraction in zip(deaths, fractions, strict=True) if np.isfinite(fraction)}:
            here = np.array([d.site == site for d in deaths])
            by_own |= here & ~alive(1.0, own(site).names)
        self._spent += replay.forwards
        for death, fraction, alone in zip(deaths, fractions, by_own, strict=True):
            if np.isfinite(fraction):
                self._tell(death, float(fraction), bool(alone), update, own(death.site))

    @staticmethod
    def _tell(death: Death, fraction: float, alone: bool, update: Update, own: Own) -> None:
        lr = update.rates.get(own.group) if own.group is not None else None
        thrown = death.kick is not None and death.kick > KICK
        if lr is None or (death.cause == "unknown" and fraction > HALF and not thrown):
            return
        if death.cause == "unknown":  # if a parameter was edited, that is not what killed
            death.cause, death.parameter = "learning_rate", None
        death.lr, death.safe_lr = lr, fraction * lr
        death.cause_evidence = "intervention"
        if alone:
            death.parameter, death.origin = death.parameter or own.names[0], None
        elif own.upstream is not None:  # its own parameters alone would not have silenced it
            death.parameter, death.origin = None, own.upstream


def _open(death: Death) -> bool:
    """True if it may have been the learning rate: nothing else tells, or a parameter was edited, perhaps for a while.

    Weights that are swapped for their average, and back, count as edited. What killed by itself is told by the update:
    done again, it leaves the unit silent, though the edit came after it.
    """
    unknown = death.cause == "unknown" and (death.shares is None or death.parameter is not None)
    return death.cause == "learning_rate" or unknown


@contextmanager
def own_randomness(devices: list[int]) -> Iterator[None]:
    """Draw from generators that start anew inside of the block, and leave those of the training as they are."""
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model that shares no parameter, buffer or hook with it.

    Other attributes are shared, lists and dicts of them copied once, so that a reference to a trainer or a data set is
    not followed.

    Raises:
        ReplayError: hooks of others would run, or code that is bound to the model itself.
    """
    modules = set(model.modules())
    tensors: dict[int, torch.Tensor] = {}
    made: dict[nn.Module, nn.Module] = {}

    def tensor(held: torch.Tensor | None) -> torch.Tensor | None:
        if held is None:
            return None
        if id(held) not in tensors:
            clone = held.detach().clone()
            tensors[id(held)] = nn.Parameter(clone, held.requires_grad) if isinstance(held, nn.Parameter) else clone
        return tensors[id(held)]

    def module(held: nn.Module) -> nn.Module:
        if held in made:
            return made[held]
        _check(held, modules)
        clone = made[held] = held.__class__.__new__(held.__class__)
        state = {name: _shallow(value) for name, value in vars(held).items()}
        state["_parameters"] = {name: tensor(p) for name, p in held._parameters.items()}
        state["_buffers"] = {name: tensor(b) for name, b in held._buffers.items()}
        state["_compiled_call_impl"] = None  # which is bound to the model
        for name in (*_HOOKS, *_BESIDE):
            kept = {key: hook for key, hook in getattr(held, name).items() if name in _HOOKS and _makes_weights(hook)}
            state[name] = type(getattr(held, name))(kept)
        vars(clone).update(state)
        vars(clone)["_modules"] = {n: None if child is None else module(child) for n, child in held._modules.items()}
        return clone

    return module(model)


def _makes_weights(hook: object) -> bool:
    """Return whether a hook computes a weight of the module that it is called for, as pruning and the old norms do."""
    return any(made.__module__ in _WEIGHTS for made in type(hook).__mro__)


def _check(module: nn.Module, modules: set[nn.Module]) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise ReplayError("a part of the model is scripted")
    for name in _HOOKS:
        if not all(isinstance(hook, Hook) or _makes_weights(hook) for hook in getattr(module, name).values()):
            raise ReplayError(f"{type(module).__name__} carries hooks that are not the monitor's")
    for name, value in vars(module).items():
        if name == "_modules":
            continue
        for part in (
            value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else (value,)
        ):
            bound = part.__self__ if isinstance(part, MethodType) else part
            if isinstance(bound, nn.Module) and bound in modules:
                raise ReplayError(f"{type(module).__name__}.{name} is bound to a module of the model")


def _shallow(value: Any) -> Any:
    return value.copy() if type(value) in (list, dict, set, OrderedDict, deque) else value
