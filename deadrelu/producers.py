"""ProducerInputs: whether the inputs of an op with parameters were ever anything but zero."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray


def _any(x: torch.Tensor) -> torch.Tensor:
    """True if an element is not 0. On a CPU the first row mostly settles it."""
    if x.device.type == "cpu" and x.ndim and (first := x[0].ne(0).any()):
        return first
    return x.ne(0).any()


class ProducerInputs:
    """Per producer and group of inputs, remembers whether a non-zero input was seen; looks no further once all were."""

    def __init__(self) -> None:
        self._fed: dict[str, torch.Tensor] = {}
        self._settled: set[str] = set()

    def asks(self, name: str) -> bool:
        """True if the inputs of a producer are still worth a look."""
        return name not in self._settled

    def observe(self, name: str, x: torch.Tensor, groups: int, dim: int) -> None:
        """Look at the input of a producer whose features lie along `dim`, in `groups` equal groups."""
        if not self.asks(name) or not x.numel():
            return
        if groups == 1:
            fed = _any(x.detach()).reshape(1)
        else:
            rows = x.detach().movedim(dim, 0).reshape(groups, -1)
            fed = rows.ne(0).any(1)
        held = self._fed.get(name)
        self._fed[name] = fed if held is None or len(held) != len(fed) else held | fed

    def settle(self) -> None:
        """Between two forward passes: note the producers that need no further look."""
        for name in [n for n in self._fed if n not in self._settled]:
            if bool(self._fed[name].all()):
                self._settled.add(name)

    def dead(self, producers: Iterable[str], units: int) -> NDArray[np.bool_]:
        """Return the units (units,) all of whose producers saw only zeros."""
        masks = []
        for name in producers:
            fed = self._fed.get(name)
            if fed is None:
                return np.zeros(units, dtype=bool)
            starved = ~fed.cpu().numpy()
            if len(starved) > 1 and units % len(starved) == 0:
                masks.append(np.repeat(starved, units // len(starved)))
            else:
                masks.append(np.full(units, bool(starved.all())))
        return np.logical_and.reduce(masks) if masks else np.zeros(units, dtype=bool)
