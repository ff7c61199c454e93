"""Drift: what moved the margin of each pre-activation, decomposed on a few reference rows.

The margin is F(z) = mean + 2 std over the rows: a unit dies when the upper tail of z goes under zero, and weight decay
can kill a unit without moving its mean at all. From one capture to the next, with W, b, X before and W', b', X' after,

    dF = [F(W'X + b') - F(WX + b)] own step  +  [F(W'X' + b') - F(W'X + b')] input

exactly, so the parts telescope over a run, without a copy of the weights: kept are X, WX and b. The own step is split
into weight and bias (the mean over both orders, their Shapley values), the weight's part into the optimizer's decay and
the rest; the input's part into the features that died and the rest. The *kick* is the own step of one update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from . import tracing
from .captures import Capture, Captures, Measured
from .feeders import Feeder, Picks, feeder, is_layer
from .groups import Groups
from .sites import Site
from .tracing import Layout


@dataclass(slots=True)
class Follower:
    """Follows one site through the captures; the first lines last, the others are of the step that is captured."""

    site: Site
    feeder: Feeder
    layout: Layout
    inner: Feeder | None = None
    drawn: dict[tuple[torch.Size, int | None], Picks | None] = field(default_factory=dict)
    x: torch.Tensor | None = None
    measured: Measured = field(default_factory=Measured)
    window: list[Capture] = field(default_factory=list)

    picks: Picks | None = None
    rows: torch.Tensor | None = None
    out: torch.Tensor | None = None
    shape: torch.Size | None = None
    inner_rows: torch.Tensor | None = None
    inner_ax: torch.Tensor | None = None
    now: Capture | None = None

    def forget(self) -> None:
        """Forget the step that was captured."""
        self.picks = self.rows = self.out = self.shape = self.inner_rows = self.inner_ax = self.now = None


class Drift:
    """Captures reference rows of every site that a single layer feeds most directly."""

    def __init__(
        self, model: nn.Module, optimizers: Iterable[Optimizer], guard: Callable[[Any], Any] = lambda hook: hook
    ) -> None:
        self._guard = guard
        self.followers: dict[str, Follower] = {}
        self.groups = Groups(model, optimizers)
        self.rates: dict[int, dict[str, tuple[float, float]]] = {}
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
            and x.layout == out.layout == torch.strided
        ):
            self._ran[path] = (x, out.detach().clone())

    def arm(self, batch: int | None) -> None:
        """Look at the layers in the forward pass that begins."""
        self.armed, self._batch = True, batch
        by_module: dict[nn.Module, list[Follower]] = {}
        for f in self.followers.values():
            f.forget()
            for layer in (f.feeder, f.inner):
                if layer is not None:
                    by_module.setdefault(layer.module, []).append(f)
        for module, followers in by_module.items():
            # Before a tap on the same layer, which takes the rows that are picked here.
            hook = self._guard(self._look(followers))
            self._hooks.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))

    def disarm(self) -> None:
        """Take the hooks of a capture back."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._ran.clear()
        self.armed = False

    def _look(self, followers: list[Follower]) -> Any:
        # Once removed in the middle of a call, a hook is no longer given the keyword arguments.
        def hook(module: nn.Module, args: Any, *rest: Any) -> None:
            out = rest[-1]
            x = args[0] if args else next(iter(rest[0].values()), None) if len(rest) > 1 else None
            if not (isinstance(x, torch.Tensor) and isinstance(out, torch.Tensor) and out.is_floating_point()):
                return
            if x.layout != torch.strided or out.layout != torch.strided:
                return
            with torch._C.DisableTorchFunction():  # our own arithmetic is not the model's
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
            key = (out.shape, self._batch)
            if key not in f.drawn:
                layout = tracing.refit(f.layout, tuple(out.shape), self._batch)
                f.drawn[key] = Picks.draw(tracing.plan(layout), self._generator, out.device) if layout else None
            f.picks = f.drawn[key]
        if f.picks is None:
            return
        f.shape = out.shape
        with torch.no_grad():
            rows = layer.rows(x.detach(), out.detach(), f.picks)
            if f.picks.whole and not layer.is_norm:
                rows = rows.clone()  # what comes after may overwrite it
            if layer is f.feeder:
                f.rows, f.out = rows, f.picks.of(out).clone() if f.picks.whole else f.picks.of(out)
            else:
                f.inner_rows = rows

    def take(self, site: Site, z: torch.Tensor, active: torch.Tensor, pairs: int, step: int) -> None:
        """Take the reference rows of a pre-activation, of whose `pairs` so many were active per unit, (units,)."""
        f = self.followers.get(site.name)
        if f is None or f.now is not None or f.picks is None or f.rows is None or f.out is None:
            return
        if z.shape != f.shape:  # pooled or cut since the layer: its rows are not those of z
            return
        wide = torch.float32 if z.dtype in (torch.float16, torch.bfloat16) else z.dtype
        with torch.no_grad():
            x, bias = f.rows.to(wide), f.feeder.bias
            ax = f.feeder.apply(x)
            b = torch.zeros_like(ax[0]) if bias is None else bias.detach().to(wide, copy=True)
            rest = f.picks.of(z).to(wide) - f.out.to(wide)
            f.now = now = Capture(step, ax, b, rest, active, pairs)
            if f.x is not None and len(f.x) > 1:
                now.moved = f.feeder.apply(f.x)
                now.decayed = self.groups.decayed(f.feeder.weight)
                now.starved = None if f.feeder.is_norm else self._starved(f.feeder, f.x, x)
            f.rows = x
            if f.inner is not None and f.inner_rows is not None:
                f.inner_ax = f.inner.apply(f.inner_rows.to(wide))

    @staticmethod
    def _starved(layer: Feeder, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor | None:
        """Return A(x) of the old rows without the features that are zero throughout the new ones; None if none is."""
        lives = (new != 0).any(0) if old.ndim == 2 else (new != 0).flatten(2).any(2).any(0)
        if lives.device.type == "cpu" and bool(lives.all()):
            return None
        return layer.apply(old * lives.to(old.dtype).reshape(1, -1, *([1] * (old.ndim - 2))))

    def after_update(self) -> None:
        """Note what the update of a captured step made of its rows."""
        for f in self.followers.values():
            now = f.now
            if now is None or f.rows is None:
                continue
            f.x = f.rows
            with torch.no_grad():
                now.after = f.feeder.apply(f.x)
                bias = f.feeder.bias
                now.b_after = now.b if bias is None else bias.detach().to(now.b.dtype, copy=True)
                if f.inner is not None and f.inner_rows is not None and f.inner_ax is not None:
                    now.inner = (f.inner_ax, f.inner.apply(f.inner_rows.to(f.inner_ax.dtype)))
            f.window.append(now)
            f.forget()
            self.groups.reset(f.feeder.weight)

    def note_rates(self, step: int) -> None:
        """Remember the learning rates at a captured update."""
        self.rates[step] = {name: self.groups.peak(f.feeder.weight) for name, f in self.followers.items()}
        self.groups.next_peak()

    def close(self) -> dict[str, Captures]:
        """Return the captures since the last call, on the host."""
        found = {}
        for name, f in self.followers.items():
            captures, f.window = f.window, []
            if captures:
                found[name] = f.measured.window(captures)
        return found
