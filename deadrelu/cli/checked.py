"""Checked: data in the model's dtype, without NaN or inf, whole or as it streams by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ..errors import DataError, DeadReluError
from .blame import blame

_CHUNK = 1 << 24
_NAMED = 3

Part = Literal["batch", "item"]


def to_tensor(value: Any, origin: str) -> Tensor:
    """Return an array or tensor as a tensor, without a copy where that is possible.

    Raises:
        DataError: no tensor can hold it, or it is not plain and dense.
    """
    if isinstance(value, np.ndarray):
        return _from_array(value, origin)
    if not isinstance(value, Tensor):
        raise DataError(f"{origin} is an object of type {type(value).__name__}; expected a tensor or an array")
    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        raise DataError(f"{origin} is a sparse, quantized or meta tensor; save it as a plain dense one")
    return value.detach()


def conform(tensor: Tensor, dtype: torch.dtype, origin: str, part: Part = "batch") -> Tensor:
    """Return `tensor`, shape (rows, ...) or one item, in `dtype` if it is floating; integers stay as they are.

    Raises:
        DataError: NaN or inf in it (in `dtype`); it says in how many rows and which.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    cast = tensor.to(dtype) if tensor.is_floating_point() else tensor
    rows = cast if part == "batch" and cast.ndim else cast[None]
    bad = _bad_rows(rows)
    if not bad:
        return cast
    kind = str(cast.dtype).removeprefix("torch.")
    if part == "item":
        raise DataError(f"{origin} holds NaN or inf as {kind}; clean it or leave it out")
    named = ", ".join(map(str, bad[:_NAMED])) + (", ..." if len(bad) > _NAMED else "")
    raise DataError(
        f"{origin}: {len(bad)} of {len(rows)} rows hold NaN or inf as {kind} "
        f"(counted from 0: {named}); clean them or leave them out"
    )


def conform_all(held: Any, dtype: torch.dtype, origin: str, part: Part = "batch") -> Any:
    """Return `held` with `conform` applied to every array and tensor in its tuples, lists and dicts."""
    if isinstance(held, np.ndarray) and held.dtype.kind in "biufc":
        held = _from_array(held, origin)
    if isinstance(held, Tensor):
        return conform(held, dtype, origin, part) if held.layout == torch.strided else held
    if isinstance(held, tuple) and hasattr(held, "_fields"):
        return type(held)(*(conform_all(value, dtype, origin, part) for value in held))
    if type(held) in (tuple, list):
        return type(held)(conform_all(value, dtype, origin, part) for value in held)
    if isinstance(held, Mapping):
        return {key: conform_all(value, dtype, f"{origin}, {key!r}", part) for key, value in held.items()}
    return held


def guarded(call: Callable[[], Any], origin: str) -> Any:
    """Return `call()`; what the user's own data code raises becomes a DataError that names its line."""
    try:
        return call()
    except (StopIteration, DeadReluError):
        raise
    except Exception as error:
        raise DataError(f"{origin} raised {blame(error)}; mend it and try again") from error


class CheckedIterable:
    """Somebody else's iterable of batches (or items), each conformed as it comes."""

    def __init__(self, held: Iterable[Any], dtype: torch.dtype, origin: str, part: Part = "batch") -> None:
        self._held = held
        self._dtype = dtype
        self._origin = origin
        self._part = part

    def __iter__(self) -> Iterator[Any]:
        running = guarded(lambda: iter(self._held), self._origin)
        index = 0
        while True:
            try:
                value = guarded(lambda: next(running), self._origin)
            except StopIteration:
                return
            yield conform_all(value, self._dtype, f"{self._origin}, {self._part} {index}", self._part)
            index += 1


class CheckedSized(CheckedIterable):
    """The same where the number of batches is known."""

    def __len__(self) -> int:
        return len(self._held)  # type: ignore[arg-type]


class CheckedDataset(Dataset[Any]):
    """Items of somebody else's map-style dataset, each conformed as it comes."""

    def __init__(self, held: Dataset[Any], dtype: torch.dtype, origin: str) -> None:
        self._held = held
        self._dtype = dtype
        self._origin = origin

    def __len__(self) -> int:
        return int(guarded(lambda: len(self._held), self._origin))  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        item = guarded(lambda: self._held[index], self._origin)
        return conform_all(item, self._dtype, f"{self._origin}, item {index}", "item")


class CheckedStream(IterableDataset[Any]):
    """Items of somebody else's iterable dataset, each conformed as it comes."""

    def __init__(self, held: IterableDataset[Any], dtype: torch.dtype, origin: str) -> None:
        self._items = CheckedIterable(held, dtype, origin, "item")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)


def _from_array(array: np.ndarray[Any, Any], origin: str) -> Tensor:
    if array.dtype.kind not in "biufc":
        raise DataError(f"{origin} has dtype {array.dtype}; expected numbers")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not (array.flags.c_contiguous and array.flags.writeable):  # torch refuses some layouts and warns of read-only
        array = array.copy(order="C")
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise DataError(f"{origin} has dtype {array.dtype}, which torch lacks; save it as float32 or int64") from None


def _bad_rows(rows: Tensor) -> list[int]:
    """Return the indices of the rows that hold NaN or inf, looking at a bounded part at a time."""
    step = max(1, _CHUNK // max(1, rows[:1].numel()))
    bad: list[int] = []
    for start in range(0, len(rows), step):
        finite = torch.isfinite(rows[start : start + step])
        if not bool(finite.all()):
            clean = finite.reshape(len(finite), -1).all(dim=1)
            bad.extend((torch.nonzero(~clean).flatten() + start).tolist())
    return bad
