"""Drift: what moved the margin of each pre-activation, decomposed on a few reference rows.

The margin is F(z) = mean + 2 std over the rows: a unit dies when the upper tail of z goes under zero, and weight decay
can kill a unit without moving its mean at all. From one capture to the next, with W, b, X before and W', b', X' after,

    dF = [F(W'X + b') - F(WX + b)] own step  +  [F(W'X' + b') - F(W'X + b')] input

exactly, so the parts telescope over a run, without a copy of the weights: kept are X, WX and b. The own step is split
into weight and bias (the mean over both orders, their Shapley values), the weight's part into the optimizer's decay and
the rest; the input's part into the features that died and the rest. The *kick* is the own step of one update.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from . import tracing
from .feeders import Feeder, Picks, feeder, is_layer
from .sites import Site
from .tracing import Layout

QUANTITIES = ("weight", "decay", "bias", "upstream", "input", "margin", "std", "own", "kick", "rate", "turn")
"""What a capture measures of each unit: the five parts since the capture before (in units of z), the margin, the
standard deviation of z, the own step in mean z since then and by the update of this step, the activation rate, and how
far that update turned the unit: the spread of its own step over rows, over that of z (or of the layer before a norm).
"""


def margin(z: torch.Tensor) -> torch.Tensor:
    """Return F(z) = mean + 2 std over rows (rows, units), shape (units,).

    >>> margin(torch.tensor([[0.0], [1.0], [2.0]])).tolist()
    [3.0]
    """
    return z.mean(0) + 2 * z.std(0)


@dataclass(slots=True)
class Kept:
    """What stays of a capture until the next: x, A(x), b and what else was in z."""

    x: torch.Tensor
    ax: torch.Tensor
    b: torch.Tensor
    rest: torch.Tensor


@dataclass(slots=True)
class Follower:
    """Follows one site through the captures."""

    site: Site
    feeder: Feeder
    layout: Layout
    inner: Feeder | None = None
    inner_rows: torch.Tensor | None = None
    inner_before: torch.Tensor | None = None
    kept: Kept | None = None
    picks: Picks | None = None
    rows: torch.Tensor | None = None
    out: torch.Tensor | None = None
    shape: torch.Size | None = None
    now: Kept | None = None
    row: torch.Tensor | None = None
    captures: list[torch.Tensor] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Captures:
    """The captures of one site in a window, on the host: `values` is (captures, len(QUANTITIES), units)."""

    steps: list[int]
    values: NDArray[np.float64]


class Drift:
    """Captures reference rows of every site that a single layer feeds most directly."""

    def __init__(self, model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
        self.followers: dict[str, Follower] = {}
        self.groups = Groups(model, optimizers)
        self.armed = False
        self._modules = {path: module for module, path in tracing.module_paths(model).items()}
        self._generator = torch.Generator().manual_seed(0)
        self._hooks: list[Any] = []
        self._batch: int | None = None
        self._ran: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def follow(self, site: Site, layout: Layout, nearest: str | None, capturing: bool) -> None:
        """Begin to follow a site whose nearest layer has this path; that layer may have run a moment ago."""
        if site.name in self.followers or nearest is None:
            return
        made = feeder(nearest, self._modules.get(nearest), site.units)
        if made is None:
            return
        f = self.followers[site.name] = Follower(site, made, layout)
        before = [p for p in site.producers if p != nearest]
        if made.is_norm and len(before) == 1:
            f.inner = feeder(before[0], self._modules.get(before[0]), site.units)
        if capturing:
            for layer in (f.inner, f.feeder):
                if layer is not None and layer.path in self._ran:
                    self._pick(f, layer, *self._ran[layer.path])

    def remember(self, path: str, module: nn.Module, x: Any, out: Any) -> None:
        """Keep what a layer saw until the traced forward pass ends; what comes after may overwrite its output."""
        if (
            is_layer(module)
            and isinstance(x, torch.Tensor)
            and isinstance(out, torch.Tensor)
            and out.is_floating_point()
        ):
            self._ran[path] = (x, out.detach().clone())

    def arm(self, batch: int | None) -> None:
        """Look at the layers in the forward pass that begins."""
        self.armed, self._batch = True, batch
        by_module: dict[nn.Module, list[Follower]] = {}
        for f in self.followers.values():
            f.picks = f.rows = f.out = f.now = f.row = f.inner_rows = f.shape = None
            for layer in (f.feeder, f.inner):
                if layer is not None:
                    by_module.setdefault(layer.module, []).append(f)
        for module, followers in by_module.items():
            self._hooks.append(module.register_forward_hook(self._look(followers), with_kwargs=True))

    def disarm(self) -> None:
        """Take the hooks of a capture back."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._ran.clear()
        self.armed = False

    def _look(self, followers: list[Follower]) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            x = args[0] if args else next(iter(kwargs.values()), None)
            if not (isinstance(x, torch.Tensor) and isinstance(out, torch.Tensor) and out.is_floating_point()):
                return
            for f in followers:
                self._pick(f, f.feeder if f.feeder.module is module else f.inner, x, out)

        return hook

    def _pick(self, f: Follower, layer: Feeder | None, x: torch.Tensor, out: torch.Tensor) -> None:
        """Take the reference rows of one layer, the same for a norm and the layer before it."""
        if layer is None or (f.rows is not None if layer is f.feeder else f.inner_rows is not None):
            return
        if f.shape is not None and out.shape != f.shape:  # pooled or joined since: not the same rows
            f.picks = f.inner_rows = None
        if f.picks is None:
            layout = tracing.refit(f.layout, tuple(out.shape), self._batch)
            f.picks = Picks.draw(tracing.plan(layout), self._generator, out.device) if layout else None
        if f.picks is None:
            return
        f.shape = out.shape
        with torch.no_grad():
            rows = layer.rows(x.detach(), out.detach(), f.picks)
            if layer is f.feeder:
                f.rows, f.out = rows, f.picks.of(out)
            else:
                f.inner_rows = rows

    def take(self, site: Site, z: torch.Tensor, rate: torch.Tensor, step: int) -> None:
        """Take the reference rows of a pre-activation of this activation rate, and what became of those before."""
        f = self.followers.get(site.name)
        if f is None or f.now is not None or f.picks is None or f.rows is None or f.out is None:
            return
        if z.shape != f.shape:  # pooled or cut since the layer: its rows are not those of z
            return
        with torch.no_grad():
            wide = torch.float32 if z.dtype in (torch.float16, torch.bfloat16) else z.dtype
            x = f.rows.to(wide)
            ax = f.feeder.apply(x.to(f.feeder.weight.dtype)).to(wide)
            bias = f.feeder.bias
            b = torch.zeros_like(ax[0]) if bias is None else bias.detach().to(wide, copy=True)
            if f.inner is not None and f.inner_rows is not None:
                f.inner_before = f.inner.apply(f.inner_rows.to(f.inner.weight.dtype)).to(wide)
            f.now = Kept(x, ax, b, f.picks.of(z).detach().to(wide) - f.out.detach().to(wide))
            z0 = ax + b + f.now.rest
            f.row = torch.zeros(len(QUANTITIES), site.units, dtype=wide, device=z.device)
            f.row[5], f.row[6] = margin(z0), z0.std(0)
            f.row[9] = rate
            if f.kept is not None and len(f.kept.x) > 1:
                self._parts(f, f.kept, f.now, f.row)
        f.steps.append(step)

    def _parts(self, f: Follower, old: Kept, new: Kept, row: torch.Tensor) -> None:
        moved = f.feeder.apply(old.x.to(f.feeder.weight.dtype)).to(old.ax.dtype)
        before = margin(old.ax + old.b + old.rest)
        weight_first, both = margin(moved + old.b + old.rest), margin(moved + new.b + old.rest)
        bias_first = margin(old.ax + new.b + old.rest)
        weight = ((weight_first - before) + (both - bias_first)) / 2
        decayed = self.groups.decayed(f.feeder.weight)
        if decayed:
            row[1] = margin(old.ax - decayed / 2 * (old.ax + moved) + old.b + old.rest) - before
        row[0], row[2] = weight - row[1], both - before - weight
        starved = both
        if not f.feeder.is_norm:
            starved = margin(self._starved(f.feeder, old.x, new.x) + new.b + old.rest)
            row[3] = starved - both
        row[4] = row[5] - starved
        row[7] = (moved + new.b - old.ax - old.b).mean(0)

    @staticmethod
    def _starved(layer: Feeder, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return A(x) of the old rows without the features that are zero throughout the new ones."""
        features = (0, *range(2, old.ndim))
        gone = (new == 0).all(0) if old.ndim == 2 else (new == 0).all(dim=features)
        keep = (~gone).to(old.dtype).reshape(1, -1, *([1] * (old.ndim - 2)))
        return layer.apply((old * keep).to(layer.weight.dtype)).to(old.dtype)

    def after_update(self) -> None:
        """Measure the own step that the update of a captured step made."""
        for f in self.followers.values():
            if f.now is None or f.row is None:
                continue
            with torch.no_grad():
                moved = f.feeder.apply(f.now.x.to(f.feeder.weight.dtype)).to(f.now.ax.dtype)
                step = (moved - f.now.ax).mean(0)
                spread = (f.now.ax + f.now.rest).std(0)
                f.row[10] = torch.where(spread > 0, (moved - f.now.ax).std(0) / spread, 0.0)
                if f.feeder.bias is not None:
                    step = step + f.feeder.bias.detach() - f.now.b
                f.row[8] = step
                if f.inner is not None and f.inner_rows is not None and f.inner_before is not None:
                    after = f.inner.apply(f.inner_rows.to(f.inner.weight.dtype)).to(step.dtype)
                    spread = f.inner_before.std(0)
                    turned = torch.where(spread > 0, (after - f.inner_before).std(0) / spread, 0.0)
                    f.row[10] = torch.maximum(f.row[10], turned)
            f.captures.append(f.row)
            # The weights have moved on: A(x) of the next comparison is the one before this update, as captured.
            f.kept, f.now, f.row = f.now, None, None
            self.groups.reset(f.feeder.weight)

    def close(self) -> dict[str, Captures]:
        """Return the captures since the last call, on the host."""
        found = {}
        for name, f in self.followers.items():
            steps, f.steps = f.steps[: len(f.captures)], f.steps[len(f.captures) :]
            if f.captures:
                found[name] = Captures(steps, torch.stack(f.captures).cpu().double().numpy())
            f.captures = []
        return found


class Groups:
    """What the optimizers do to a parameter: its learning rate, and how much of it decay took away."""

    def __init__(self, model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._where: dict[int, tuple[Optimizer, int]] = {}
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._sum: dict[tuple[int, int], float] = {}
        self._mark: dict[int, float] = {}
        self._peak: dict[tuple[int, int], float] = {}
        self._before: dict[tuple[int, int], float] = {}
        self.rates: dict[tuple[int, int], float] = {}
        for o, optimizer in enumerate(self._optimizers):
            for g, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    self._where[id(parameter)] = (optimizer, g)
                    self._sum.setdefault((o, g), 0.0)

    def after_update(self, optimizer: Optimizer) -> None:
        """Note the learning rates of an update, and what decay it did."""
        o = self._optimizers.index(optimizer)
        for g, group in enumerate(optimizer.param_groups):
            lr = float(group["lr"])
            self.rates[o, g] = lr
            self._before[o, g] = self._peak.get((o, g), lr)
            self._peak[o, g] = max(self._before[o, g], lr)
            self._sum[o, g] = self._sum.get((o, g), 0.0) + lr * _decay(optimizer, group)

    def name(self, parameter: torch.Tensor | None) -> str | None:
        """Return the name of a parameter in the model."""
        return self._names.get(id(parameter))

    def peak(self, parameter: torch.Tensor | None) -> tuple[float, float]:
        """Return (largest learning rate since the last call, before the last update; that of the last update)."""
        key = self._key(parameter)
        if key is None or key not in self.rates:
            return math.nan, math.nan
        return self._before[key], self.rates[key]

    def next_peak(self) -> None:
        """Begin a new stretch for `peak`, with the last update in it."""
        self._peak = dict(self.rates)

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
    if isinstance(optimizer, SGD):
        # Decay passes through the momentum buffer: booked plainly, it would be a tenth of the truth.
        return decay / (1 - float(group.get("momentum", 0.0)))
    return decay if isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay") else 0.0
