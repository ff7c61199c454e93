"""Layer states: what the layer that feeds each site holds when a window ends, for the record of the run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from .drift import Follower
from .snapshots import Update
from .transfers import Transfer

Array = NDArray[np.float64]


class LayerStates:
    """The biases of the layers, and how far an update moved their weights: on their way to the host, together.

    Args:
        followers: who feeds each site, by its name.
        update: the update, None if none was kept.
    """

    def __init__(self, followers: Mapping[str, Follower], update: Update | None) -> None:
        self._tensors: list[torch.Tensor] = []
        self._size = 0
        self._biases: dict[str, slice] = {}
        self._moves: dict[str, slice] = {}
        for name, follower in followers.items():
            bias = follower.feeder.bias
            lengths = None if update is None else update.lengths((follower.inner or follower.feeder).weight)
            if bias is not None:
                self._biases[name] = self._add(bias.detach().double())
            if lengths is not None:
                self._moves[name] = self._add(lengths)
        self._numbers = Transfer(self._tensors) if self._tensors else None
        self._tensors = []

    def _add(self, tensor: torch.Tensor) -> slice:
        self._tensors.append(tensor)
        start, self._size = self._size, self._size + tensor.numel()
        return slice(start, self._size)

    def bias(self, site: str) -> Array | None:
        """Return the bias of the layer that feeds a site, (units,); None if it has none."""
        part = self._biases.get(site)
        return None if part is None or self._numbers is None else self._numbers.array()[part]

    def ratio(self, site: str) -> Array | None:
        """Return |W' - W| / |W| of each unit of that layer, or of the one before a norm, NaN where W is zero.

        (units,); None if it was not kept.
        """
        part = self._moves.get(site)
        if part is None or self._numbers is None:
            return None
        moved, length = self._numbers.array()[part].reshape(2, -1)
        ratio: Array = np.full(len(length), np.nan)
        np.divide(moved, length, out=ratio, where=length > 0)
        return ratio
