"""Groups: what the optimizers do to each parameter - its learning rate, and how much of it decay takes away."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import ASGD, LBFGS, SGD, Adafactor, AdamW, Optimizer, Rprop

_DECOUPLED = (AdamW, Adafactor, *([torch.optim.Muon] if hasattr(torch.optim, "Muon") else []))
"""Shrink a weight by lr * decay, beside what its gradient does."""
_OUT_OF_PROPORTION = (Adafactor, ASGD, LBFGS, Rprop)
"""Do not move the parameters in proportion to `lr` as it stands: it is bounded, a late one, or a first one only."""


RECENT, SPIKE = 10, 3.0
"""Updates after which a rate that was that many times as large may still be what killed: what it has thrown gets large
gradients."""
_CHANGES = 64
"""Changes of a rate that are remembered."""


class Groups:
    """The parameter groups of the optimizers.

    Attributes:
        rates: learning rate of the last update, by (optimizer, group).
        largest: the largest since `next_window`.
    """

    def __init__(self, model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._where: dict[int, tuple[Optimizer, int]] = {}
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._sum: dict[tuple[int, int], float] = {}
        self._mark: dict[int, float] = {}
        self._peak: dict[tuple[int, int], float] = {}
        self._before: dict[tuple[int, int], float] = {}
        self._changes: dict[tuple[int, int], deque[tuple[int, float]]] = {}  # from which step on, to what
        self._raw: list[Any] = []
        self._present: dict[tuple[int, int], float] = {}
        self._constant = False
        self.rates: dict[tuple[int, int], float] = {}
        self.largest: dict[tuple[int, int], float] = {}
        for o, optimizer in enumerate(self._optimizers):
            for g, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    self._where[id(parameter)] = (optimizer, g)
                    self._sum.setdefault((o, g), 0.0)

    def after_update(self, optimizer: Optimizer, step: int, *, wait: bool) -> None:
        """Note the learning rates of an update, and what decay it did; `wait`: for a device that holds a rate."""
        o = self._optimizers.index(optimizer)
        for g, group in enumerate(optimizer.param_groups):
            lr = group["lr"]
            if not isinstance(lr, float):
                on_device = isinstance(lr, torch.Tensor) and lr.device.type != "cpu"
                lr = self.rates[o, g] if on_device and not wait and (o, g) in self.rates else float(lr)
            key = o, g
            decay = _decay(optimizer, group)
            if decay:
                self._sum[key] = self._sum.get(key, 0.0) + lr * decay
            if lr == self.rates.get(key) == self._before.get(key) == self.largest.get(key):
                continue  # as ever: every step passes here
            if lr != self.rates.get(key):
                self._changes.setdefault(key, deque(maxlen=_CHANGES)).append((step, lr))
            self.rates[key] = lr
            before = self._before[key] = self._peak.get(key, lr)
            if lr >= before:
                self._peak[key] = lr
            if lr > self.largest.get(key, -math.inf):
                self.largest[key] = lr

    @property
    def places(self) -> dict[int, tuple[int, int]]:
        """The (optimizer, group) of each parameter, by its id."""
        return {key: (self._optimizers.index(o), g) for key, (o, g) in self._where.items()}

    def present(self) -> dict[tuple[int, int], float]:
        """Return the learning rates as they stand, by (optimizer, group); the last known one if it is on a device.

        The same object as before if nothing has changed.
        """
        raw = [group["lr"] for optimizer in self._optimizers for group in optimizer.param_groups]
        if self._constant and raw == self._raw:
            return self._present
        found = {}
        for o, optimizer in enumerate(self._optimizers):
            for g, group in enumerate(optimizer.param_groups):
                lr = group["lr"]
                if isinstance(lr, torch.Tensor) and lr.device.type != "cpu":
                    lr = self.rates.get((o, g), math.nan)
                found[o, g] = float(lr)
        self._raw, self._present = raw, found
        self._constant = all(type(lr) is float for lr in raw)  # a tensor changes in place
        return found

    def scaling(self, parameter: torch.Tensor) -> tuple[int, int] | None:
        """Return the (optimizer, group) whose learning rate scales the updates of a parameter; None if none does."""
        if any(isinstance(optimizer, _OUT_OF_PROPORTION) for optimizer in self._optimizers):
            return None  # the whole network is replayed
        return self._key(parameter)

    def name(self, parameter: torch.Tensor | None) -> str | None:
        """Return the name of a parameter in the model."""
        return self._names.get(id(parameter))

    def beneath(self, paths: Iterable[str]) -> tuple[tuple[str, ...], tuple[int, int] | None]:
        """Return the parameters of these modules, or these parameters, by name, biases last, and what scales the first.

        A weight that a parametrization, a mask or a norm computes is there by what it is computed from.
        """
        wanted = tuple(paths)
        found = [
            (name, key)
            for key, name in self._names.items()
            if any(name == path or name.startswith(f"{path}.") for path in wanted if path)
        ]
        found.sort(key=lambda pair: pair[0].rpartition(".")[2] == "bias")
        held = next((self._where[key] for _, key in found if key in self._where), None)
        if held is None or any(isinstance(optimizer, _OUT_OF_PROPORTION) for optimizer in self._optimizers):
            return tuple(name for name, _ in found), None
        return tuple(name for name, _ in found), (self._optimizers.index(held[0]), held[1])

    def peak(self, parameter: torch.Tensor | None) -> tuple[float, float]:
        """Return (largest learning rate since the last call, before the last update; that of the last update)."""
        key = self._key(parameter)
        if key is None or key not in self.rates:
            return math.nan, math.nan
        return self._before[key], self.rates[key]

    def spike(self, step: int, rate: float | None = None) -> tuple[int, float] | None:
        """Return (step, rate) of the largest spike in the few updates up to this one, None if there was none.

        That is a rate that was many times the one before it, and, unless it is this update's own, many times that one,
        too. `rate` may be longer ago.
        """
        found: tuple[int, float] | None = None
        for changes in self._changes.values():
            known = [change for change in changes if change[0] <= step]
            ends = [*(start for start, _ in known[1:]), step + 1]
            for (_, before), (start, lr), end in zip(known, known[1:], ends[1:], strict=False):
                last, own = end - 1, lr == known[-1][1]
                near = (start if own else last) >= step - RECENT or lr == rate
                if near and lr > SPIKE * before and (own or lr > SPIKE * known[-1][1]):
                    found = max(found or (last, lr), (last, lr), key=lambda one: one[::-1])
        return found

    def next_peak(self) -> None:
        """Begin a new stretch for `peak`, with the last update in it."""
        self._peak = dict(self.rates)

    def next_window(self) -> None:
        """Begin a new stretch for `largest`."""
        self.largest = {}

    def decayed(self, parameter: torch.Tensor) -> float:
        """Return the sum of lr * decay since `reset`."""
        key = self._key(parameter)
        return 0.0 if key is None else self._sum.get(key, 0.0) - self._mark.get(id(parameter), 0.0)

    def reset(self, parameter: torch.Tensor) -> None:
        """Begin a new sum for `decayed`, from before the update that was noted last."""
        key = self._key(parameter)
        if key is not None:
            last = self.rates.get(key, 0.0) * _decay(
                self._optimizers[key[0]], self._optimizers[key[0]].param_groups[key[1]]
            )
            self._mark[id(parameter)] = self._sum.get(key, 0.0) - last

    def _key(self, parameter: torch.Tensor | None) -> tuple[int, int] | None:
        found = self._where.get(id(parameter))
        return None if found is None else (self._optimizers.index(found[0]), found[1])


def _decay(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """Return the share of lr by which an update shrinks a weight; 0 where decay is mixed into adaptive moments."""
    decay = float(group.get("weight_decay", 0.0) or 0.0)
    if not decay:
        return 0.0
    if isinstance(optimizer, SGD):
        # Decay passes through the momentum buffer: booked plainly, it would be a tenth of the truth.
        momentum, dampening = float(group.get("momentum", 0.0)), float(group.get("dampening", 0.0))
        return decay * (1 - dampening if momentum else 1.0) / (1 - momentum)
    return decay if isinstance(optimizer, _DECOUPLED) or group.get("decoupled_weight_decay") else 0.0
