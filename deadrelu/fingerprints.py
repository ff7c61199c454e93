"""Fingerprints: some elements of each parameter, to tell whether it is what it was, also where nothing else tells.

A change through `.data` raises no version. Read are parameters in the host's memory: up to 4096 elements of a vector,
and about one of each row of what has more axes, of 128 rows at most.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import methodcaller
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .kernels import CHOICE, Kept, Native

_VECTOR, _ROWS = 4096, 128
_MOVES = 16
"""What moves more often belongs to something that swaps the memory of parameters."""
_WORDS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}
"""Types that numpy copies by whole elements, by their bytes; what they hold means nothing here."""

_address = methodcaller("data_ptr")
_content = methodcaller("tobytes")


class Fingerprints:
    """What parameters hold. Memory is O(parameters), of each 4096 elements at most.

    Attributes:
        restless: numbers of the parameters whose memory is swapped all the time, and which are no longer read.
    """

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self.restless: set[int] = set()
        self._moves: Counter[int] = Counter()
        self._reading = _Reading(dict(enumerate(parameters)))

    def keep(self) -> None:
        """Note what the parameters hold now."""
        if self._reading.moved():
            self._find()
        self._reading.keep()

    def changed(self) -> list[int]:
        """Return the numbers of the parameters that hold something else than when they were kept."""
        reading = self._reading
        if not reading.moved():
            return reading.changed()
        self._find()
        held, now = reading.held(), self._reading.contents()  # what lies elsewhere may be the same
        return [number for number, content in held.items() if now.get(number, content) != content]

    def close(self) -> None:
        """Let go of the parameters."""
        self._reading = _Reading({})

    def _find(self) -> None:
        """Read the parameters where they are now."""
        moved = self._reading.moved()
        self._moves.update(moved)
        self.restless.update(number for number in moved if self._moves[number] > _MOVES)
        read = self._reading.parameters
        self._reading = _Reading({number: p for number, p in read.items() if number not in self.restless})


class _Reading:
    """Parameters that lie where they do.

    Attributes:
        parameters: those that can be read, by their numbers.
    """

    def __init__(self, parameters: Mapping[int, torch.Tensor]) -> None:
        views = {number: _view(p) for number, p in parameters.items()}
        self.parameters = {number: parameters[number] for number, view in views.items() if view is not None}
        self._all = list(self.parameters.values())
        self._addresses = list(map(_address, self._all))
        self._views = [view for view in views.values() if view is not None]
        self._contents: list[bytes] = []
        self._kept: Kept | None = None

    def moved(self) -> list[int]:
        """Return the numbers of those that lie elsewhere now."""
        now = list(map(_address, self._all))
        if now == self._addresses:
            return []
        return [number for number, a, b in zip(self.parameters, now, self._addresses, strict=True) if a != b]

    def keep(self) -> None:
        """Note what they hold."""
        if self._kept is None and isinstance(CHOICE.native, Native):
            self._kept = CHOICE.native.kept(self._views)
        if self._kept is None:
            self._contents = list(map(_content, self._views))
        else:
            self._kept.keep()

    def changed(self) -> list[int]:
        """Return the numbers of those that hold something else now."""
        if self._kept is not None and not self._kept.changed():
            return []
        held = self.held()
        return [number for number, content in self.contents().items() if held.get(number, content) != content]

    def contents(self) -> dict[int, bytes]:
        """Return what each of them holds."""
        return dict(zip(self.parameters, map(_content, self._views), strict=True))

    def held(self) -> dict[int, bytes]:
        """Return what each of them held, empty if it was not noted."""
        if self._kept is None:
            return dict(zip(self.parameters, self._contents, strict=False))
        ends = np.cumsum([view.nbytes for view in self._views]).tolist()
        held, sizes = self._kept.held, [view.nbytes for view in self._views]
        parts = [held[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)]
        return dict(zip(self.parameters, parts, strict=True))


def _view(parameter: torch.Tensor) -> NDArray[Any] | None:
    """Return some elements of a parameter, in its own memory; None where they cannot be read."""
    if type(parameter) not in (torch.Tensor, torch.nn.Parameter) or parameter.layout != torch.strided:
        return None
    p = parameter.detach()
    if not p.is_cpu or not p.numel() or not p.data_ptr() or p.element_size() not in _WORDS:
        return None
    span = 1 + sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    if (p.storage_offset() + span) * p.element_size() > p.untyped_storage().nbytes():  # it was given back
        return None
    # Not by `Tensor.numpy`, after which nobody could resize the storage, as those do who shard parameters.
    memory: Any = (ctypes.c_uint8 * (span * p.element_size())).from_address(p.data_ptr())
    memory.of = p.untyped_storage()  # it lives as long as what is read of it
    flat: NDArray[Any] = np.frombuffer(memory, _WORDS[p.element_size()])
    if p.ndim < 2:
        return flat[:: -(-span // _VECTOR)]
    if span <= _ROWS:
        return flat
    return flat[:: max(span // p.shape[0] + 1, -(-span // _ROWS))]
