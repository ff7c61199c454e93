"""Feeder: the layer whose parameters move a pre-activation most directly, seen on a few reference rows.

z = A(x) + b + rest, where A is the linear part of a Linear or convolution (x: rows or patches of its input) or the
scale of a norm (x: its normalised input, for then the norm is nearest), b its bias, and rest what is added on the way,
such as a residual branch. With A as it stands now and x as it was, `apply` tells what the layer's own step did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .kernels import Plan

ROWS = 64
_HOST = torch.device("cpu")  # where indices are worked out, whatever the default device
_PLACES = 4
"""Shapes of tensors in which the rows are found again, for one shape of the output."""
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.RMSNorm,
)


@dataclass(frozen=True, slots=True)
class Feeder:
    """A layer that feeds a site.

    Attributes:
        path: its name in the model.
        module: a Linear, a convolution, or a norm with a weight per unit.
        is_norm: it is a norm.
    """

    path: str
    module: nn.Module
    is_norm: bool

    @property
    def weight(self) -> torch.Tensor:
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        return getattr(self.module, "bias", None)

    def rows(self, x: torch.Tensor, picks: Picks) -> torch.Tensor:
        """Return a copy of the reference rows of the input x, (rows, ...), that made the rows `picks` of the output."""
        if isinstance(self.module, nn.Linear):
            if picks.whole:
                return x.clone()  # what comes after may overwrite it
            return picks.of(x)
        assert isinstance(self.module, _CONVOLUTIONS)
        return picks.patches(self.module, x)

    def normalised(self, out: torch.Tensor) -> torch.Tensor:
        """Return what a norm scaled to make the rows `out` of its output, (rows, units); 0 where its scale is 0."""
        scale = self.weight.detach()
        shifted = out if self.bias is None else out - self.bias.detach()
        return (shifted / scale).masked_fill_(scale == 0, 0)

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        """Return A(x) of reference rows with the weight as it stands, (rows, units), in the rows' precision."""
        kind = rows.device.type
        if torch.is_autocast_enabled(kind):  # which would round the products, and those after the update not
            with torch.autocast(kind, enabled=False):
                return self._apply(rows)
        return self._apply(rows)

    def _apply(self, rows: torch.Tensor) -> torch.Tensor:
        weight = self.weight.detach().to(rows.dtype)
        if self.is_norm:
            return rows * weight
        if rows.ndim == 2:
            return F.linear(rows, weight)
        groups = int(self.module.groups)  # type: ignore[arg-type]
        if groups == 1:
            return F.linear(rows.flatten(1), weight.flatten(1))
        grouped = rows.reshape(len(rows), groups, -1).transpose(0, 1)
        return (grouped @ weight.reshape(groups, len(weight) // groups, -1).mT).transpose(0, 1).flatten(1)


def _padding(conv: Convolution, d: int) -> tuple[int, int]:
    """Return how far an axis of positions is padded, before and after it."""
    if conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
        return conv.padding[d], conv.padding[d]  # as it stands: the list below is of when the layer was made
    before, after = conv._reversed_padding_repeated_twice[2 * (len(conv.kernel_size) - 1 - d) :][:2]
    return before, after


def _inside(at: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Return where in an axis of this size the padded index `at` reads."""
    if mode == "circular":
        return at % size
    if mode == "reflect":
        at = at.abs()
        return torch.where(at >= size, 2 * (size - 1) - at, at)
    return at.clamp(0, size - 1)


def feeder(path: str, module: nn.Module | None, units: int) -> Feeder | None:
    """Return the feeder that a module makes for a site of `units` units, None if it cannot be one."""
    # A parametrised weight is computed when it is asked for, and asking may move its state (spectral norm).
    if module is None or hasattr(module, "parametrizations"):
        return None
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter):
        return None
    if isinstance(module, _NORMS) and weight.ndim == 1:
        return Feeder(path, module, True) if len(weight) == units else None
    if type(module) is nn.Linear or type(module) in _CONVOLUTIONS:
        return Feeder(path, module, False) if weight.shape[0] == units else None
    return None


def is_layer(module: nn.Module) -> bool:
    """True if a module may be a feeder."""
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_NORMS))


@dataclass(frozen=True, slots=True)
class Picks:
    """Which (sample, position) pairs of a tensor are the reference rows.

    Attributes:
        index: per axis that is no unit axis, one index per row, on the host.
        unit_axis: the axis of the units.
        whole: every row is one of them.
    """

    index: dict[int, torch.Tensor]
    unit_axis: int
    whole: bool = False
    _places: dict[tuple[Any, ...], Places] = field(default_factory=dict)

    @classmethod
    def draw(cls, plan: Plan, generator: torch.Generator) -> Picks | None:
        """Draw rows at random; None if the units do not lie along one axis of the tensor as it is, or of one row."""
        if plan.expand is not None or len(plan.units) != 1 or not plan.batch:
            return None
        if plan.sample_count * plan.position_count < 2:  # of which there is no deviation, and so no margin
            return None
        if plan.sample_count <= ROWS and not plan.positions and len(plan.batch) == 1:
            return cls({plan.batch[0]: torch.arange(plan.sample_count, device=_HOST)}, plan.units[0], whole=True)
        rows = min(ROWS, plan.sample_count * plan.position_count)
        # Few samples and several positions of each: a convolution's input is padded once per sample.
        few = rows if not plan.positions else min(plan.sample_count, 16)
        chosen = torch.randint(plan.sample_count, (few,), generator=generator, device=_HOST).repeat(-(-rows // few))[
            :rows
        ]
        index = {}
        for axis in (*plan.batch, *plan.positions):
            drawn = torch.randint(plan.shape[axis], (rows,), generator=generator, device=_HOST)
            index[axis] = chosen if axis in plan.batch else drawn
        return cls(index, plan.units[0])

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of a tensor, (rows, units)."""
        if self.whole:
            return tensor.T if self.unit_axis == 0 else tensor
        if type(tensor) is not torch.Tensor:  # its elements may lie elsewhere
            index = {axis: at.to(tensor.device) for axis, at in self.index.items()}
            picked = tensor[tuple(index.get(axis, slice(None)) for axis in range(tensor.ndim))]
            return picked.T if self.unit_axis == 0 else picked
        return self._found((tensor.shape, tensor.stride()), Places.rows, self, tensor)

    def patches(self, conv: Convolution, x: torch.Tensor) -> torch.Tensor:
        """Return the patches of x that a convolution multiplies for the rows, (rows, channels, *kernel)."""
        if x.ndim == len(conv.kernel_size) + 1:  # without a batch axis
            x = x[None]
        key = (x.shape, x.stride(), conv, conv.stride, conv.padding, conv.dilation)
        return self._found(key, Places.patches, conv, self, x)

    def _found(self, key: tuple[Any, ...], find: Callable[..., Places], *args: Any) -> torch.Tensor:
        """Return the rows of the last of `args`, a tensor, where they are for all that have this key."""
        places = self._places.get(key)
        if places is None:
            if len(self._places) >= _PLACES:
                del self._places[next(iter(self._places))]
            places = self._places[key] = find(*args)
        return places.of(args[-1])


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where some rows lie in the memory of a tensor.

    Attributes:
        index: elements, counted from the first one of the tensor, flat.
        outside: which of them are padding with zeros, flat; None if none is.
        shape: (rows, units), or (rows, channels, *kernel).
        span: elements that the tensor reaches over.
    """

    index: torch.Tensor
    outside: torch.Tensor | None
    shape: tuple[int, ...]
    span: int

    @classmethod
    def rows(cls, picks: Picks, tensor: torch.Tensor) -> Places:
        """Work out where the rows of a tensor like this one lie."""
        units, step = tensor.shape[picks.unit_axis], tensor.stride(picks.unit_axis)
        index = (torch.arange(units, device=_HOST) * step)[None]
        for axis, at in picks.index.items():
            index = index + at[:, None] * tensor.stride(axis)
        span = _span(tensor)
        return cls(_there(_small(index, span), tensor), None, tuple(index.shape), span)

    @classmethod
    def patches(cls, conv: Convolution, picks: Picks, x: torch.Tensor) -> Places:
        """Work out where the patches of an input like x lie, (samples, channels, *positions)."""
        dims, axes = len(conv.kernel_size), sorted(picks.index)
        rows = len(picks.index[axes[0]])
        shape = (rows, x.shape[1], *conv.kernel_size)
        at = picks.index[axes[0]].reshape(-1, *([1] * (dims + 1))) * x.stride(0)
        at = at + torch.arange(x.shape[1], device=_HOST).reshape(1, -1, *([1] * dims)) * x.stride(1)
        outside = torch.zeros((), dtype=torch.bool, device=_HOST)
        for d in range(dims):
            taps = torch.arange(conv.kernel_size[d], device=_HOST) * conv.dilation[d]
            before, after = _padding(conv, d)
            place = picks.index[axes[1 + d]][:, None] * conv.stride[d] - before + taps
            size = x.shape[2 + d]
            broad = (rows, 1, *(len(taps) if e == d else 1 for e in range(dims)))
            if conv.padding_mode == "zeros" and (before or after):
                outside = outside | ((place < 0) | (place >= size)).reshape(broad)
            at = at + _inside(place, size, conv.padding_mode).reshape(broad) * x.stride(2 + d)
        beyond = outside.expand(shape).flatten().nonzero()[:, 0]
        span = _span(x)
        index = _there(_small(at.expand(shape), span), x)
        return cls(index, _there(beyond, x) if len(beyond) else None, shape, span)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of a tensor, copied."""
        found = tensor.as_strided((self.span,), (1,)).index_select(0, self.index)
        if self.outside is not None:
            found.index_fill_(0, self.outside, 0)
        return found.view(self.shape)


def _span(tensor: torch.Tensor) -> int:
    """Return how many elements of memory a tensor reaches over."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _small(index: torch.Tensor, span: int) -> torch.Tensor:
    """Return an index, flat, in as few bytes as will do."""
    return index.flatten().to(torch.int32 if span < 1 << 31 else torch.int64)


def _there(index: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Return an index on the device of a tensor, for which nobody waits."""
    return index.to(tensor.device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Own:
    """What feeds a site most directly.

    Attributes:
        names: names of its parameters in the model, the weight first.
        group: (optimizer, group) whose learning rate scales the updates of the weight, None if there is none.
        upstream: the site before it, None if there is none.
    """

    names: tuple[str, ...]
    group: tuple[int, int] | None
    upstream: str | None
