"""Batches: any form of data, cut into batches and handed to a model the way its forward wants them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .errors import DataError

_LABELS = frozenset(("label", "labels", "target", "targets", "y"))

Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Batches to be read once.

    Attributes:
        batches: an iterable of batches.
        total: number of batches, None if that is not known.
        generators: the generators that reading advances, to be put back afterwards.
        cast: floating inputs are to take the model's dtype; arrays do so in any case where they are float64.
    """

    batches: Iterable[Any]
    total: int | None
    generators: tuple[torch.Generator, ...] = ()
    cast: bool = False


def source(data: Any, *, batch_size: int, batch_dim: int, max_samples: int | None) -> Source:
    """Return the batches of a tensor, an array, several of them in parallel, a Dataset, or an iterable of batches.

    A tensor or Dataset that `max_samples` cuts is sampled at random (fixed seed): a scan that stops early must be in
    random order. An iterable is read in its own order until `max_samples` is reached.

    Raises:
        DataError: the data is none of these, is empty, or holds something that is no number.
    """
    if not _counts(batch_size):
        raise DataError(f"batch_size is {batch_size!r}; expected a whole number, 1 or more")
    if max_samples is not None and not _counts(max_samples):
        raise DataError(f"max_samples is {max_samples!r}; expected a whole number, 1 or more, or None for all")
    arrays = _parallel(data)
    if arrays is not None:
        return _cut(data, arrays, batch_size, batch_dim, max_samples)
    if isinstance(data, Dataset) and not isinstance(data, DataLoader):
        return _from_dataset(data, batch_size, max_samples)
    if isinstance(data, (str, bytes)) or not (isinstance(data, Iterable) or hasattr(data, "__getitem__")):
        raise DataError(
            f"data is a {type(data).__name__}; expected a tensor, a numpy array, a Dataset or an iterable of batches"
        )
    return Source(data, _length(data), _generators(data))


def _length(data: Any) -> int | None:
    """Return how many items data holds, None if it cannot tell: a DataLoader asks a stream, which has no length."""
    try:
        return len(data) if isinstance(data, Sized) else None
    except (TypeError, NotImplementedError):
        return None


def _counts(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _parallel(data: Any) -> dict[Any, torch.Tensor] | None:
    """Return the tensors of data that is one tensor, or a tuple or dict of tensors of equal length; else None."""
    if isinstance(data, (torch.Tensor, np.ndarray)):
        return {0: _tensor(data)}
    if isinstance(data, tuple) and data and all(isinstance(v, (torch.Tensor, np.ndarray)) for v in data):
        # Several of one shape are batches rather than inputs and labels, and a tuple is an iterable of batches.
        alike = len(data) > 1 and data[0].ndim > 1 and len({tuple(v.shape) for v in data}) == 1
        return None if alike else {i: _tensor(v) for i, v in enumerate(data)}
    if isinstance(data, Mapping) and data and all(isinstance(v, (torch.Tensor, np.ndarray)) for v in data.values()):
        return {k: _tensor(v) for k, v in data.items()}
    return None


def _tensor(value: torch.Tensor | np.ndarray[Any, Any]) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if value.dtype.kind not in "biuf":
        raise DataError(f"data is an array of {value.dtype}; expected numbers")
    # A copy: torch refuses read-only arrays, and a model may write into its input.
    return torch.from_numpy(np.array(value))


def _cut(
    data: Any, arrays: dict[Any, torch.Tensor], batch_size: int, batch_dim: int, max_samples: int | None
) -> Source:
    for value in arrays.values():
        if value.ndim == 0 or not -value.ndim <= batch_dim < value.ndim:
            raise DataError(
                f"data has shape {tuple(value.shape)}, without a dimension {batch_dim}; "
                "expected samples along batch_dim"
            )
    lengths = {v.shape[batch_dim] for v in arrays.values()}
    if len(lengths) > 1:
        raise DataError(
            f"the arrays of data hold {' and '.join(map(str, sorted(lengths)))} samples; expected as many in each "
            "(a list or generator is read as batches)"
        )
    n = lengths.pop()
    if n == 0:
        raise DataError("data holds no samples; expected at least one")
    order = None
    if max_samples is not None and max_samples < n:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:max_samples]
        n = max_samples

    def pick(value: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        if order is None:
            return value.narrow(batch_dim, start, stop - start)
        return value.index_select(batch_dim, order[start:stop].to(value.device))

    def batches() -> Iterator[Any]:
        for start in range(0, n, batch_size):
            parts = {k: pick(v, start, min(start + batch_size, n)) for k, v in arrays.items()}
            if isinstance(data, tuple):
                yield tuple(parts.values())
            else:
                yield parts if isinstance(data, Mapping) else parts[0]

    return Source(batches(), -(-n // batch_size), cast=True)


def _from_dataset(data: Dataset[Any], batch_size: int, max_samples: int | None) -> Source:
    if isinstance(data, IterableDataset) or not isinstance(data, Sized):
        loader: DataLoader[Any] = DataLoader(data, batch_size)
        return Source(loader, None)
    n = len(data)
    if n == 0:
        raise DataError("the Dataset is empty; expected at least one sample")
    order: Any = None
    if max_samples is not None and max_samples < n:
        n = max_samples
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n].tolist()
    loader = DataLoader(data, batch_size, sampler=order)
    return Source(loader, -(-n // batch_size))


def _generators(data: Any) -> tuple[torch.Generator, ...]:
    found = [getattr(data, "generator", None), getattr(getattr(data, "sampler", None), "generator", None)]
    return tuple(g for g in found if isinstance(g, torch.Generator))


def prepared(batch: Any, device: torch.device | None, dtype: torch.dtype | None, cast: bool) -> Any:
    """Return a copy of the batch (a model may write into its input) with its arrays as tensors, on `device`.

    Floating tensors become `dtype` if `cast`; float64 arrays do so in any case, numpy having no other habit.
    """
    if isinstance(batch, np.ndarray):
        return prepared(_tensor(batch), device, dtype, cast or batch.dtype == np.float64)
    if isinstance(batch, torch.Tensor):
        wanted = dtype if cast and batch.is_floating_point() else None
        return batch.to(device=device, dtype=wanted, copy=True)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(prepared(v, device, dtype, cast) for v in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(prepared(v, device, dtype, cast) for v in batch)
    if isinstance(batch, Mapping):
        return {k: prepared(v, device, dtype, cast) for k, v in batch.items()}
    moved = getattr(batch, "to", None)
    return moved(device) if device is not None and callable(moved) else batch


def tensors_in(batch: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a batch, in order."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors_in(value)
    elif hasattr(batch, "__dict__"):  # graph batches keep their tensors as attributes
        yield from (v for v in vars(batch).values() if isinstance(v, torch.Tensor))


def _is_label(value: Any) -> bool:
    """One number or word per sample, or none at all."""
    return value.ndim <= 1 if isinstance(value, torch.Tensor) else isinstance(value, (str, int, float, tuple, list))


class Caller:
    """Hands a batch to a model: inputs first, what its forward does not accept is dropped."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        self._forward = forward
        self._required = self._accepted = 0
        self._names: set[str] | None = set()
        self._labels: frozenset[str] = frozenset()
        self._keeps_last = False
        try:
            parameters = inspect.signature(model.forward).parameters.values()
        except (TypeError, ValueError):  # a forward in C, which says nothing of itself
            self._required, self._accepted, self._names = 1, 1, None
            return
        for p in parameters:
            if p.kind is p.VAR_KEYWORD:
                self._names = None
            elif p.kind is p.VAR_POSITIONAL:
                self._accepted = 1 << 30
            else:
                if self._names is not None:
                    self._names.add(p.name)
                if p.kind is not p.KEYWORD_ONLY:
                    self._accepted += 1
                    self._required += p.default is p.empty

    def settle(self, model: nn.Module, batch: Any) -> None:
        """Try the model once, unobserved, where a batch may hold more than the model takes: labels it refuses."""
        if self._forward is not None:
            return
        if isinstance(batch, (tuple, list)) and len(self._positional(list(batch))) < min(len(batch), self._accepted):
            if not self._runs(model, batch):  # what was taken for a label may be an input that this batch needs
                self._keeps_last = True
                self._keeps_last = self._runs(model, batch)
        elif self._doubtful(batch) and not self._runs(model, batch):
            self._accepted = min(self._accepted, max(self._required, 1))
            self._labels = _LABELS

    def _runs(self, model: nn.Module, batch: Any) -> bool:
        args, kwargs = self.inputs(batch)
        try:
            model(*args, **kwargs)
        except Exception:  # whatever it is, the model will say it again
            return False
        return True

    def _doubtful(self, batch: Any) -> bool:
        if isinstance(batch, Mapping):
            return self._names is None and not _LABELS.isdisjoint(batch)
        return isinstance(batch, (tuple, list)) and len(self._positional(list(batch))) > max(self._required, 1)

    def inputs(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword inputs that the model's forward gets; the whole batch for a forward given.

        Raises:
            DataError: nothing in the batch is an input that the forward accepts.
        """
        if self._forward is not None:
            return (batch,), {}
        if isinstance(batch, Mapping):
            accepted = {
                k: v for k, v in batch.items() if (self._names is None or k in self._names) and k not in self._labels
            }
            if not accepted:
                raise DataError(
                    f"a batch has the keys {', '.join(map(str, batch)) or 'none'}; forward accepts "
                    f"{', '.join(sorted(self._names or ())) or 'none'}; "
                    "rename them or pass forward=lambda model, batch: ..."
                )
            return (), accepted
        if isinstance(batch, (tuple, list)):
            return tuple(self._positional(list(batch))), {}
        return (batch,), {}

    def _positional(self, values: list[Any]) -> list[Any]:
        if not values:
            raise DataError("a batch is an empty list; expected inputs first, then labels if any")
        kept = values[: self._accepted]
        # What stands last may be a label, not the optional input (a mask) that forward has room for.
        last = len(kept) == len(values) > max(self._required, 1) and not self._keeps_last
        if last and _is_label(kept[-1]):
            kept = kept[:-1]
        return kept

    def __call__(self, model: nn.Module, batch: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the model on one batch, from which `inputs` took `args` and `kwargs`."""
        return self._forward(model, batch) if self._forward is not None else model(*args, **kwargs)
