"""Drift: what moved the margin of each pre-activation, decomposed on a few reference rows.

The margin is F(z) = mean + 2 std over the rows: a unit dies when the upper tail of z goes under zero, and weight decay
can kill a unit without moving its mean at all. From one capture to the next, with W, b, X before and W', b', X' after,

    dF = [F(W'X + b') - F(WX + b)] own step  +  [F(W'X' + b') - F(W'X + b')] input

exactly, so the parts telescope over a run, without a copy of the weights: kept are X, WX and b. The own step is split
into weight and bias (the mean over both orders, their Shapley values), the weight's part into the optimizer's decay and
the rest; the input's part into the features that died and the rest. The *kick* is the own step of one update.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from . import tracing
from .captures import INNER, MOVED, NOW, SHRUNK, STARVED, STEP, TURNED, Capture, Captured, Captures
from .feeders import Feeder, Picks, feeder, is_layer
from .groups import Groups
from .intake import Intake
from .sites import Site
from .tracing import Layout

_SHAPES = 4
"""Shapes of a layer's output whose reference rows are remembered; each may hold as much as the rows themselves."""


@dataclass(slots=True, eq=False)
class Rows:
    """What a capture keeps of a site for the next one.

    Attributes:
        x: the reference rows of its layer's input, (rows, ...).
        ax: A(x) when they were captured, (rows, units).
        rest: what else was in z, None for nothing.
    """

    x: torch.Tensor
    ax: torch.Tensor
    rest: torch.Tensor | None

    def plus_rest(self, ax: torch.Tensor) -> torch.Tensor:
        """Return A(x) with the rest."""
        return ax if self.rest is None else ax + self.rest


@dataclass(slots=True, eq=False)
class Follower:
    """Follows one site through the captures; the first lines last, the others are of the step that is captured.

    Attributes:
        site, feeder, layout, columns: the site, its layer, what the tracer knew of its z, and where its units stand.
        starves: its layer is fed by others, whose features may die.
        inner: the layer before a norm.
        direct: z was the output of the layer itself when captured last.
        picks: the reference rows, of an output of this `shape`.
        made, version: the output of the layer, and how often it was written until then.
        x, out, inner_x: the rows of what the layer was given, and made of it, and of what the inner layer was given.
        rest, active, pairs: what else was in z, and how many of its pairs were active, (units,).
        dtype: what is computed in.
        rows, now, inner_ax: what the rows became.
    """

    site: Site
    feeder: Feeder
    layout: Layout
    columns: slice
    starves: bool
    inner: Feeder | None = None
    direct: bool = False
    drawn: dict[tuple[torch.Size, int | None], Picks | None] = field(default_factory=dict)
    before: Rows | None = None

    picks: Picks | None = None
    made: weakref.ref[torch.Tensor] | None = None
    version: int = 0
    x: torch.Tensor | None = None
    out: torch.Tensor | None = None
    shape: torch.Size | None = None
    inner_x: torch.Tensor | None = None
    inner_ax: torch.Tensor | None = None
    rest: torch.Tensor | None = None
    active: torch.Tensor | None = None
    pairs: int = 0
    dtype: torch.dtype = torch.float32
    rows: Rows | None = None
    now: Capture | None = None

    def forget(self) -> None:
        """Forget the step that was captured."""
        self.picks = self.made = self.x = self.out = self.shape = None
        self.inner_x = self.inner_ax = self.rest = self.active = self.rows = self.now = None

    @property
    def picked(self) -> bool:
        """True if the rows of its layer were taken."""
        return (self.out if self.feeder.is_norm else self.x) is not None

    def layers(self) -> tuple[Feeder, ...]:
        """Return the layers whose rows are taken."""
        return (self.feeder,) if self.inner is None else (self.feeder, self.inner)


class Drift:
    """Captures reference rows of every site that a single layer feeds most directly."""

    def __init__(
        self, model: nn.Module, optimizers: Iterable[Optimizer], guard: Callable[[Any], Any] = lambda hook: hook
    ) -> None:
        self._guard = guard
        self.followers: dict[str, Follower] = {}
        self.groups = Groups(model, optimizers)
        self.captured = Captured()
        self.intake = Intake()
        self._rates: list[NDArray[np.float64]] = []
        self._modules = {path: module for module, path in tracing.module_paths(model).items()}
        self._generator = torch.Generator().manual_seed(0)
        self._looks: list[tuple[nn.Module, Callable[..., None]]] = []
        self._hooks: list[Any] = []
        self._batch: int | None = None
        self._ran: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def follow(self, site: Site, layout: Layout, nearest: str | None, *, fed: bool, capturing: bool) -> None:
        """Begin to follow a site whose nearest layer has this path; that layer may have run a moment ago.

        Fed: ops with parameters come before that layer.
        """
        if site.name in self.followers or nearest is None:
            return
        made = feeder(nearest, self._modules.get(nearest), site.units)
        if made is None:
            return
        columns = self.captured.add_site(site.name, site.units)
        f = self.followers[site.name] = Follower(site, made, layout, columns, fed and not made.is_norm)
        before = [p for p in site.producers if p != nearest]
        if made.is_norm and len(before) == 1:
            f.inner = feeder(before[0], self._modules.get(before[0]), site.units)
        self._looks.clear()
        if capturing:
            for layer in reversed(f.layers()):
                if layer.path in self._ran:
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
        self._batch = batch
        for f in self.followers.values():
            f.forget()
        if not self._looks:
            by_module: dict[nn.Module, list[tuple[Follower, Feeder]]] = {}
            for f in self.followers.values():
                for layer in f.layers():
                    by_module.setdefault(layer.module, []).append((f, layer))
            self._looks = [(module, self._guard(self._look(met))) for module, met in by_module.items()]
        for module, hook in self._looks:
            # Before a tap on the same layer, which takes the rows that are picked here.
            self._hooks.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))

    def disarm(self) -> None:
        """Take the hooks of a capture back."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._ran.clear()
        for f in self.followers.values():
            f.made = None

    def _look(self, met: list[tuple[Follower, Feeder]]) -> Any:
        # Once removed in the middle of a call, a hook is no longer given the keyword arguments.
        def hook(module: nn.Module, args: Any, *rest: Any) -> None:
            out = rest[-1]
            x = args[0] if args else next(iter(rest[0].values()), None) if len(rest) > 1 else None
            if not (isinstance(x, torch.Tensor) and isinstance(out, torch.Tensor) and out.is_floating_point()):
                return
            if x.layout != torch.strided or out.layout != torch.strided:
                return
            with torch._C.DisableTorchFunction():  # our own arithmetic is not the model's
                for f, layer in met:
                    self._pick(f, layer, x, out)

        return hook

    def _pick(self, f: Follower, layer: Feeder, x: torch.Tensor, out: torch.Tensor) -> None:
        """Take the reference rows of one layer, the same for a norm and the layer before it."""
        if f.picked if layer is f.feeder else f.inner_x is not None:
            return
        if f.shape is not None and out.shape != f.shape:  # pooled or joined since: not the same rows
            f.picks = f.inner_x = None
        if f.picks is None:
            f.picks = self._draw(f, out)
        if f.picks is None:
            return
        f.shape = out.shape
        if layer is not f.feeder:
            f.inner_x = layer.rows(x.detach(), f.picks)
            return
        # Nothing may live longer for being looked at: where activations are not kept, there is no room for them.
        f.made = None if out.is_inference() else weakref.ref(out)
        f.version = 0 if f.made is None else out._version
        if layer.is_norm or not f.direct:
            picked = f.picks.of(out.detach())
            f.out = picked.clone() if f.picks.whole else picked  # what comes after may overwrite it
        if not layer.is_norm:
            f.x = layer.rows(x.detach(), f.picks)

    def _draw(self, f: Follower, out: torch.Tensor) -> Picks | None:
        key = (out.shape, self._batch)
        if key not in f.drawn:
            if len(f.drawn) >= _SHAPES:
                del f.drawn[next(iter(f.drawn))]
            layout = tracing.refit(f.layout, tuple(out.shape), self._batch)
            f.drawn[key] = Picks.draw(tracing.plan(layout), self._generator) if layout else None
        return f.drawn[key]

    def take(self, site: Site, z: torch.Tensor, active: torch.Tensor, pairs: int) -> None:
        """Take the reference rows of a pre-activation, of whose `pairs` so many were active per unit, (units,)."""
        f = self.followers.get(site.name)
        if f is None or f.active is not None or f.picks is None or not f.picked:
            return
        if z.shape != f.shape:  # pooled or cut since the layer: its rows are not those of z
            return
        f.direct = f.made is not None and f.made() is z and z._version == f.version
        if not f.direct and f.out is None:  # it was until now: seen again from the next capture on
            return
        f.dtype = torch.float32 if z.dtype in (torch.float16, torch.bfloat16) else z.dtype
        f.rest = None if f.direct or f.out is None else f.picks.of(z.detach()).to(f.dtype) - f.out.to(f.dtype)
        f.active, f.pairs = active, pairs

    def end_forward(self) -> None:
        """Note what the layers make of the rows that were taken: of all together, for code is fast once it has run."""
        self.disarm()
        with torch._C.DisableTorchFunction():
            for f in self.followers.values():
                if f.active is not None and f.now is None:
                    self._measure(f, f.active)

    def _measure(self, f: Follower, active: torch.Tensor) -> None:
        x = f.feeder.normalised(f.out) if f.feeder.is_norm and f.out is not None else f.x
        assert x is not None
        x, bias = x.to(f.dtype), f.feeder.bias
        ax = f.feeder.apply(x)
        f.rows = Rows(x, ax, f.rest)
        b = torch.zeros_like(ax[0]) if bias is None else bias.detach().to(f.dtype, copy=True)
        f.now = Capture(f.columns, {NOW: f.rows.plus_rest(ax)}, active, f.pairs, b)
        if f.before is not None:
            self._compare(f, f.before, f.now.variants, x)
        if f.inner is not None and f.inner_x is not None:
            f.inner_x = f.inner_x.to(f.dtype)
            f.inner_ax = f.inner.apply(f.inner_x)

    def _compare(self, f: Follower, old: Rows, variants: dict[int, torch.Tensor], x: torch.Tensor) -> None:
        """Add what the layer now makes of the rows of the capture before."""
        moved = f.feeder.apply(old.x)
        variants[MOVED] = old.plus_rest(moved)
        decayed = self.groups.decayed(f.feeder.weight)
        if decayed:
            variants[SHRUNK] = old.plus_rest(old.ax - decayed / 2 * (old.ax + moved))
        lives = self._lives(x) if f.starves else None
        if lives is not None:
            kept = lives.to(old.x.dtype).reshape(1, -1, *([1] * (old.x.ndim - 2)))
            variants[STARVED] = old.plus_rest(f.feeder.apply(old.x * kept))

    @staticmethod
    def _lives(x: torch.Tensor) -> torch.Tensor | None:
        """Return which features are not 0 in every row, None where it is known that all are not."""
        axes, near = (0, *range(2, x.ndim)), x.device.type == "cpu"
        if near and bool(x.sum(axes).all()):  # what is 0 throughout has the sum 0, which takes a fraction of the time
            return None
        lives = x.ne(0).any(axes)
        return None if near and bool(lives.all()) else lives

    def after_update(self, step: int) -> None:
        """Note what the update of a captured step made of its rows, and at what learning rates."""
        seen = [(f, f.now, f.rows) for f in self.followers.values() if f.now is not None and f.rows is not None]
        ours: list[tuple[Capture, int]] = []
        made, were, biases = [], [], []
        for f, now, rows in seen:
            ours.append((now, STEP))
            made.append(f.feeder.apply(rows.x))
            were.append(rows.ax)
            if f.inner is not None and f.inner_x is not None and f.inner_ax is not None:
                now.variants[INNER] = f.inner_ax
                ours.append((now, TURNED))
                made.append(f.inner.apply(f.inner_x))
                were.append(f.inner_ax)
            bias = f.feeder.bias
            biases.append(now.bias if bias is None else bias.detach().to(now.bias.dtype))
        for (now, variant), turned in zip(ours, _minus(made, were), strict=True):
            now.variants[variant] = turned
        taken = [now for _, now, _ in seen]
        for (f, now, rows), fall in zip(seen, _minus(biases, [now.bias for now in taken]), strict=True):
            f.before, now.fall = rows, fall
            f.forget()
            self.groups.reset(f.feeder.weight)
        if taken:
            self.captured.add(step, taken)
            self._rates.append(np.array([self.groups.peak(f.feeder.weight) for f in self.followers.values()]))
        self.groups.next_peak()

    def close(self) -> tuple[Callable[[], Captures], NDArray[np.float64]]:
        """Return what tells the captures since the last call, once they are on the host, and the learning rates.

        These are (captures, 2, units): the largest one of the weight's since the capture before, and that of the update
        that followed; NaN if no optimizer holds it.
        """
        captures, rates = self.captured.close(), self._rates
        self._rates = []
        widths = [f.site.units for f in self.followers.values()]
        if all(len(known) == len(widths) for known in rates):
            table = np.array(rates).reshape(len(rates), len(widths), 2)
            return captures, table.repeat(widths, 1).swapaxes(1, 2)
        told = np.full((len(rates), 2, sum(widths)), np.nan)
        for i, known in enumerate(rates):  # a site that joined later has none
            told[i, :, : sum(widths[: len(known)])] = np.repeat(known, widths[: len(known)], 0).T
        return captures, told


def _minus(made: list[torch.Tensor], were: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the differences of tensors, for all sites in one launch."""
    return torch._foreach_sub(made, were) if made else ()
