"""Fingerprints: some elements of each parameter, to tell whether it is what it was, also where nothing else tells.

A change through `.data` raises no version. Read are parameters in the host's memory that are dense: up to 4096 elements
of a vector, and about one of each row of what has more axes, of 32 rows at most.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .kernels import CHOICE, Kept, Native

_VECTOR, _ROWS = 4096, 32
_MOVES, _OFTEN = 16, 0.05
"""What moves more often, and at more of the steps, belongs to something that swaps the memory of parameters."""
_WORDS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}
"""Types that numpy copies by whole elements, by their bytes; what they hold means nothing here."""

_address = methodcaller("data_ptr")
_content = methodcaller("tobytes")


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """How a parameter differs from what it was.

    Attributes:
        rows: whether each of its rows (units, along the first axis) has changed, (rows,); of one that is not read,
            whether its neighbours have.
        shift: of a vector that is read as a whole, by how much each element has, (rows,); None for others.
        size: root mean square of the change of what has changed, over that of what it was.
    """

    rows: NDArray[np.bool_]
    shift: NDArray[np.float64] | None
    size: float


class Fingerprints:
    """What parameters hold. Memory is O(parameters), of each 4096 elements at most.

    Attributes:
        restless: numbers of the parameters whose memory is swapped all the time, and which are no longer read.
    """

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self.restless: set[int] = set()
        self._moves: Counter[int] = Counter()
        self._looks = 0
        self._reading, self._was = _Reading(dict(enumerate(parameters))), _Reading({})

    def keep(self) -> bool:
        """Note what the parameters hold now; returns whether others are read than the last time."""
        if self._reading.moved():
            self._find()
        new, self._was = self._was is not self._reading, self._reading
        self._reading.keep()
        return new

    def changed(self) -> list[int]:
        """Return the numbers of the parameters that hold something else than when they were kept."""
        self._looks += 1
        if not self._reading.moved():
            return self._reading.changed()
        self._find()
        held, now = self._was.held(), self._reading.contents()  # what lies elsewhere may be the same
        return [number for number, content in held.items() if now.get(number, content) != content]

    def change(self, number: int) -> Change:
        """Return how a parameter that has changed differs from what was kept."""
        return self._reading.change(number, self._was.held()[number])

    def whole(self, number: int) -> bool:
        """Return whether all elements of a parameter are read."""
        return self._reading.whole(number)

    def reads(self, number: int) -> bool:
        """Return whether a parameter is read."""
        return number in self._reading.parameters

    def close(self) -> None:
        """Let go of the parameters."""
        self._reading = self._was = _Reading({})

    def _find(self) -> None:
        """Read the parameters where they are now."""
        moved = self._reading.moved()
        self._moves.update(moved)
        often = max(_MOVES, _OFTEN * self._looks)
        self.restless.update(number for number in moved if self._moves[number] > often)
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
        self._by_number = {number: view for number, view in views.items() if view is not None}
        self._views = list(self._by_number.values())
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

    def whole(self, number: int) -> bool:
        """Return whether all elements of a parameter are read."""
        view = self._by_number.get(number)
        return view is not None and len(view) == self.parameters[number].numel()

    def change(self, number: int, before: bytes) -> Change:
        """Return how a parameter differs from what was read of it."""
        parameter, view = self.parameters[number], self._by_number[number]
        rows = parameter.shape[0] if parameter.ndim else 1
        if len(before) != view.nbytes:  # it has another shape
            return Change(np.ones(rows, bool), None, math.inf)
        differs = np.frombuffer(before, view.dtype) != view
        was, now = (_numbers(content, parameter.dtype) for content in (before, view.tobytes()))
        with np.errstate(all="ignore"):
            shift = now - was
            size = float(np.sqrt(np.square(shift[differs]).mean() / np.square(was).mean()))
        each = np.arange(len(view)) * (view.strides[0] // view.itemsize) // max(1, parameter.numel() // rows)
        vector = parameter.ndim == 1 and self.whole(number)
        return Change(_by_row(each, differs, rows), shift if vector else None, size)


def _numbers(content: bytes, dtype: torch.dtype) -> NDArray[np.float64]:
    """Return what some elements are, complex ones by their size."""
    read = torch.frombuffer(bytearray(content), dtype=dtype)
    found: NDArray[np.float64] = (read.abs() if dtype.is_complex else read).double().numpy()
    return found


def _by_row(each: NDArray[np.intp], differs: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """Return which rows have changed, from the rows that some elements lie in, and whether these differ."""
    read, changed = np.zeros(rows, bool), np.zeros(rows, bool)
    read[each] = True
    changed[each[differs]] = True
    known = np.flatnonzero(read)
    below = known[np.clip(np.searchsorted(known, np.arange(rows), side="right") - 1, 0, None)]
    above = known[np.clip(np.searchsorted(known, np.arange(rows)), None, len(known) - 1)]
    return changed[below] & changed[above]


def _view(parameter: torch.Tensor) -> NDArray[Any] | None:
    """Return some elements of a parameter, in its own memory; None where they cannot be read."""
    if type(parameter) not in (torch.Tensor, torch.nn.Parameter) or parameter.layout != torch.strided:
        return None
    p = parameter.detach()
    size = p.element_size()
    if not p.is_cpu or not p.numel() or not p.data_ptr() or size not in _WORDS:
        return None
    span = 1 + sum((n - 1) * stride for n, stride in zip(p.shape, p.stride(), strict=True))
    if span != p.numel() or (p.storage_offset() + span) * size > p.untyped_storage().nbytes():
        return None  # it shares its memory with others, or has given it back
    # Not by `Tensor.numpy`, after which nobody could resize the storage, as those do who shard parameters.
    memory: Any = (ctypes.c_uint8 * (span * size)).from_address(p.data_ptr())
    memory.of = p.untyped_storage()  # it lives as long as what is read of it
    flat: NDArray[Any] = np.frombuffer(memory, _WORDS[size])
    if p.ndim < 2:
        return flat[:: -(-span // _VECTOR)]
    if span <= _ROWS:
        return flat
    return flat[:: max(span // p.shape[0] + 1, -(-span // _ROWS))]
