"""Tensors by name, each read from its file when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .refusals import Unreadable
from .stored import StoredTensor

_DEEPEST = 64


class Weights(Mapping[str, Tensor]):
    """The weights of a checkpoint. `weights[name]` maps or reads that tensor alone; nothing is kept.

    Attributes:
        ordered: iteration follows the order of the model's own modules. Formats that sort by name lose it.
    """

    def __init__(self, stored: Mapping[str, StoredTensor], *, ordered: bool, versions: object = None) -> None:
        self._stored = dict(stored)
        self.ordered = ordered
        if isinstance(versions, dict):  # where torch looks for the versions of modules when it loads a state_dict
            self._metadata = versions

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __repr__(self) -> str:
        return f"<{len(self)} tensors, {self.nbytes:,} bytes>"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._stored[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor without reading it."""
        return self._stored[name].dtype

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors; those that several names share count once."""
        unique = {tensor.place: tensor for tensor in self._stored.values()}
        return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in unique.values())

    def tied(self) -> dict[str, str]:
        """Return, for each name of a tensor that an earlier name holds too, that earlier name."""
        first: dict[Any, str] = {}
        return {
            name: first[tensor.place]
            for name, tensor in self._stored.items()
            if tensor.numel and first.setdefault(tensor.place, name) != name
        }


class Values(Mapping[str, Any]):
    """What an optimizer keeps for one parameter: numbers as they are, tensors read when they are asked for."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        self._held = dict(held)

    def __getitem__(self, name: str) -> Any:
        return loaded(self._held[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __repr__(self) -> str:
        return f"<{', '.join(self._held)}>"

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor without reading it; None for what is no tensor."""
        held = self._held[name]
        return held.shape if isinstance(held, StoredTensor) else None


def loaded(held: Any, refuse: Callable[[Any], None] = lambda held: None) -> Any:
    """Return `held` with every stored tensor in its dicts, lists and tuples read; `refuse` sees every other value.

    Raises:
        Unreadable: containers lie in containers without end.
    """
    return _loaded(held, refuse, {}, 0)


def _loaded(held: Any, refuse: Callable[[Any], None], done: dict[int, Any], depth: int) -> Any:
    if isinstance(held, StoredTensor):
        return held.load()
    if not isinstance(held, (dict, list, tuple)):
        refuse(held)
        return held
    if id(held) in done:  # one list in many places is read once; one in itself has no end
        if done[id(held)] is _UNDER_WAY:
            raise Unreadable("it holds a container that contains itself; save plain tensors")
        return done[id(held)]
    if depth > _DEEPEST:
        raise Unreadable(f"it nests containers more than {_DEEPEST} deep; save plain tensors")
    done[id(held)] = _UNDER_WAY
    made: Any
    if isinstance(held, dict):
        made = {key: _loaded(value, refuse, done, depth + 1) for key, value in held.items()}
    else:
        parts = [_loaded(value, refuse, done, depth + 1) for value in held]
        made = tuple(parts) if isinstance(held, tuple) else parts
    done[id(held)] = made
    return made


_UNDER_WAY = object()
