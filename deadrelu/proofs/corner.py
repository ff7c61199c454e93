"""Corner: the input of a box that drives one unit highest, where its pre-activation is an affine function of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..calls import Sighting, in_backward
from ..counts import SiteCounter
from ..hooks import Watcher
from .box import Box
from .enclosure import Tensor
from .prover import Bound


class _Lookout(Watcher):
    """Keeps one entry of the pre-activations of a site."""

    def __init__(self, model: nn.Module, site: str, call: int, entry: int) -> None:
        super().__init__(model)
        self.value: Tensor | None = None
        self._at = (site, call, entry)

    def _observe(self, seen: Sighting) -> SiteCounter | None:
        name, call, entry = self._at
        if in_backward() or seen.site.name != name:
            return None
        self._calls[name] = self._calls.get(name, 0) + 1
        if self._calls[name] == call + 1:
            # a copy, because an in-place activation is about to overwrite z
            self.value = seen.z.contiguous().reshape(-1)[entry].clone()
        return None


def highest(
    model: nn.Module, box: Box, bound: Bound, site: str, unit: int, rows: int, **where: Any
) -> list[Tensor] | None:
    """Return one sample (one tensor per input) at which z of a unit reaches its upper bound; None if none is known.

    Args:
        model: in the state that `untouched` leaves it in.
        box: the inputs.
        bound: of the site, from a forward pass of `rows` samples.
        where: batch_dim, device and dtype of the inputs.
    """
    call, entry = bound.peak[unit].tolist()
    args, kwargs = box.inputs(rows, **where)
    inputs = [*args, *kwargs.values()]
    if not all(tensor.is_floating_point() for tensor in inputs):
        return None
    lookout = _Lookout(model, site, call, entry)

    def entry_of(point: list[Tensor]) -> Tensor | None:
        lookout.value = None
        lookout.begin(point, where["batch_dim"], rows)
        with lookout.attached(), lookout:
            model(*point[: len(args)], **dict(zip(kwargs, point[len(args) :], strict=True)))
        return lookout.value

    with torch.enable_grad():
        point = [tensor.detach().requires_grad_() for tensor in inputs]
        value = entry_of(point)
        if value is None or not value.requires_grad:
            return None
        slopes: tuple[Tensor | None, ...] = torch.autograd.grad(value, point, allow_unused=True)
    corner = []
    for side, tensor, slope in zip(box.sides, inputs, slopes, strict=True):
        low, high = (end.to(tensor) for end in (side.low, side.high))
        rises = torch.zeros_like(tensor) if slope is None else slope
        rises = rises.movedim(where["batch_dim"], 0)
        corner.append(torch.where(rises > 0, high, low).movedim(0, where["batch_dim"]))
    top = entry_of(corner)
    reached = float("nan") if top is None else float(top)
    upper, lower = float(bound.upper[unit]), float(bound.lower[unit])
    if not reached >= upper - 1e-4 * (upper - lower) - 1e-6 * abs(upper):
        return None
    sample = _sample_of(slopes, where["batch_dim"])
    return [tensor.movedim(where["batch_dim"], 0)[sample] for tensor in corner]


def _sample_of(slopes: tuple[Tensor | None, ...], batch_dim: int) -> int:
    """The sample that the entry belongs to: the one with a slope."""
    total: Tensor | None = None
    for slope in slopes:
        if slope is not None:
            size = slope.movedim(batch_dim, 0).flatten(1).abs().sum(1)
            total = size if total is None else total + size
    return 0 if total is None else int(total.argmax())
