"""Feeder: the layer whose parameters move a pre-activation most directly, seen on a few reference rows.

z = A(x) + b + rest, where A is the linear part of a Linear or convolution (x: rows or patches of its input) or the
scale of a norm (x: its normalised input, for then the norm is nearest), b its bias, and rest what is added on the way,
such as a residual branch. With A as it stands now and x as it was, `apply` tells what the layer's own step did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .kernels import Plan

ROWS = 64
_CONVOLUTIONS: dict[type[nn.Module], Callable[..., torch.Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
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

    def rows(self, x: torch.Tensor, y: torch.Tensor, picks: Picks) -> torch.Tensor:
        """Return the reference rows of x, of shape (rows, ...), that made the rows `picks` of y."""
        if self.is_norm:
            out = picks.of(y)
            scale = self.weight.detach()
            shifted = out if self.bias is None else out - self.bias.detach()
            return torch.where(scale == 0, torch.zeros_like(shifted), shifted / scale)
        if isinstance(self.module, nn.Linear):
            return x[tuple(picks.index[axis] for axis in sorted(picks.index))]
        return self._patches(x, picks)

    def _patches(self, x: torch.Tensor, picks: Picks) -> torch.Tensor:
        conv = self.module
        assert isinstance(conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        padding = conv._reversed_padding_repeated_twice
        patches = []
        axes = sorted(picks.index)
        spans: dict[int, torch.Tensor] = {}
        for at in zip(*(picks.index[axis].tolist() for axis in axes), strict=True):
            sample, place = at[0], at[1:]
            if sample not in spans:
                mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
                # Modes other than zeros pad per dimension and want a batch axis.
                spans[sample] = F.pad(x[sample : sample + 1], padding, mode=mode)[0]
            cut: list[slice] = [slice(None)]
            for p, stride, kernel, dilation in zip(place, conv.stride, conv.kernel_size, conv.dilation, strict=True):
                start = p * stride
                cut.append(slice(start, start + (kernel - 1) * dilation + 1, dilation))
            patches.append(spans[sample][tuple(cut)])
        return torch.stack(patches)

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        """Return A(x) of reference rows with the weight as it stands, (rows, units)."""
        weight = self.weight.detach()
        if self.is_norm:
            return rows * weight
        if isinstance(self.module, nn.Linear):
            return rows @ weight.T
        for kind, convolve in _CONVOLUTIONS.items():
            if isinstance(self.module, kind):
                return convolve(rows, weight, groups=self.module.groups).flatten(1)
        raise TypeError(f"{type(self.module).__name__} feeds no site")  # `feeder` lets none in


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
        index: per axis that is no unit axis, one index per row.
        unit_axis: the axis of the units.
    """

    index: dict[int, torch.Tensor]
    unit_axis: int

    @classmethod
    def draw(cls, plan: Plan, generator: torch.Generator, device: torch.device) -> Picks | None:
        """Draw rows at random; None if the units do not lie along one axis of the tensor as it is."""
        if plan.expand is not None or len(plan.units) != 1 or not plan.batch:
            return None
        rows = min(ROWS, max(2, plan.sample_count * plan.position_count))
        # Few samples and several positions of each: a convolution's input is padded once per sample.
        few = rows if not plan.positions else min(plan.sample_count, 16)
        chosen = torch.randint(plan.sample_count, (few,), generator=generator).repeat(-(-rows // few))[:rows]
        index = {}
        for axis in (*plan.batch, *plan.positions):
            drawn = torch.randint(plan.shape[axis], (rows,), generator=generator)
            index[axis] = (chosen if axis in plan.batch else drawn).to(device)
        return cls(index, plan.units[0])

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of a tensor, (rows, units)."""
        parts = [slice(None) if axis == self.unit_axis else self.index[axis] for axis in range(tensor.ndim)]
        picked = tensor[tuple(parts)]
        return picked.T if self.unit_axis == 0 else picked

    @property
    def rows(self) -> int:
        return len(next(iter(self.index.values())))
