"""Transfers: numbers on their way from the device that counted them to the host.

From a CUDA device they come by themselves, into pinned memory, while the training goes on: who reads them some steps
later waits for nothing. Anywhere else they are there at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Transfer:
    """Tensors that have set out for the host as they are now, joined: one after the other, or along an axis.

    Args:
        tensors: one at least, of whatever devices and dtypes, without a history.
        axis: along which they are joined; None to flatten them.
    """

    __slots__ = ("_array", "_axis", "_event", "_parts", "_pinned")

    def __init__(self, tensors: Sequence[torch.Tensor], axis: int | None = None) -> None:
        self._axis = axis
        self._array: Array | None = None
        self._pinned: torch.Tensor | None = None
        self._parts: list[Transfer] = []
        if all(tensor.is_cpu for tensor in tensors):
            self._array = np.concatenate([tensor.numpy() for tensor in tensors], axis, dtype=np.float64)
        elif len({tensor.device for tensor in tensors}) > 1:
            self._parts = [Transfer([tensor], 0) for tensor in tensors]
        else:
            flat = axis is None
            self._send(torch.cat([tensor.flatten() for tensor in tensors] if flat else list(tensors), axis or 0))

    def _send(self, tensor: torch.Tensor) -> None:
        if not tensor.is_cuda:
            self._array = tensor.cpu().double().numpy()
            return
        self._pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        self._pinned.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(tensor.device))

    def array(self) -> Array:
        """Return the numbers; waits for the device if it has not come to them yet."""
        if self._parts:
            return np.concatenate([part.array() for part in self._parts], self._axis)
        if self._pinned is not None:
            self._event.synchronize()
            self._array, self._pinned = self._pinned.double().numpy(), None
        assert self._array is not None
        return self._array
