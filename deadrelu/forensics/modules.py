"""Modules: the tensors of a checkpoint grouped by the module that held them, and what kind of module that was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..checkpoint import Weights

Sort = Literal["layer", "norm", "scale"]
Leaves = Mapping[str, str]
"""The last part of a name -> the whole name."""

ROOT = "(root)"
"""How the module is called whose weights have no path."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_PLAIN = {"weight", "bias", *_STATISTICS}
_GATES = re.compile(r"(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?")
_NORM = re.compile(r"norm|(^|_)(ln|rms|bn|gn)(\d|_|$)")
_HIDDEN = frozenset(f"{leaf}_{part}" for leaf in ("weight", "bias") for part in ("orig", "g", "v", "u", "mask"))
_ADAPTS = re.compile(r"\.lora_[^.]*")

_RECURRENT = "the packed gates of an LSTM, a GRU or an RNN: no units of a rectifier, not read"
_PACKED = "projections of an attention in one tensor: no rectifier follows them"
_DERIVED = "its weight or bias is computed from other tensors, in a way that only its code knows: not read"
_ADAPTER = "an adapter that is added to a layer: its own output is not what an activation sees"
_ADAPTED = "an adapter (LoRA and its like) adds to its output; merge it into the weights first: not read"
_OTHER = "not the weight of a Linear, a convolution or a norm: nothing is said of it"
_NUMBERS = "its weight holds whole or complex numbers (quantized?): not read"
_RANK = "its weight has no units: empty, a single number, or of more dimensions than a convolution has"


@dataclass(frozen=True, slots=True)
class Module:
    """One module, as its names tell.

    Attributes:
        name: its path.
        leaves: `weight`, `bias`, ... -> the name in the checkpoint.
        sort: a layer (two dimensions or more), a norm, or a `scale`: one number per unit without a shift, which may be
            that of a PReLU.
        shape: of the weight; of the statistics where a norm has no weight.
    """

    name: str
    leaves: Leaves
    sort: Sort
    shape: tuple[int, ...]

    @property
    def parent(self) -> str:
        """The path of the module around it."""
        return self.name.rpartition(".")[0]

    @property
    def place(self) -> str:
        """Its own name within that module."""
        return self.name.rpartition(".")[2]

    @property
    def is_batch_norm(self) -> bool:
        """It keeps running statistics."""
        return "running_var" in self.leaves and "running_mean" in self.leaves


def find_modules(weights: Weights) -> tuple[list[Module], list[tuple[str, str]]]:
    """Return the modules in the order of the names, and (module, reason) for what is left alone."""
    grouped: dict[str, dict[str, str]] = {}
    adapted: set[str] = set()
    for name in weights:
        path, leaf = _split(name)
        grouped.setdefault(path, {})[leaf] = name
        owner = _ADAPTS.split(f".{name}", maxsplit=1)
        if len(owner) > 1:
            adapted.update((owner[0][1:], f"{owner[0]}.base_layer"[1:]))
    tied = weights.tied()
    found, declined = [], []
    for path, leaves in grouped.items():
        outcome = _ADAPTED if path in adapted else _module(path or ROOT, leaves, weights, tied)
        if isinstance(outcome, Module):
            found.append(outcome)
        else:
            declined.append((path or ROOT, outcome))
    return found, declined


def _split(name: str) -> tuple[str, str]:
    """Return the path of the module that holds a tensor, and the rest of its name."""
    path, mark, leaf = f".{name}".partition(".parametrizations.")
    if mark:
        return path[1:], mark[1:] + leaf
    path, _, leaf = name.rpartition(".")
    return path, leaf


def _module(path: str, leaves: Leaves, weights: Weights, tied: Mapping[str, str]) -> Module | str:
    reason = _left_alone(path, leaves)
    if reason is not None:
        return reason
    known = {leaf: name for leaf, name in leaves.items() if leaf in _PLAIN}
    main = known.get("weight", known.get("running_var"))
    if main is None:
        return _OTHER
    if not weights.dtype(main).is_floating_point:
        return _NUMBERS
    if main in tied:
        return f"it shares its weight with {tied[main]}"
    shape = weights.shape(main)
    if not 1 <= len(shape) <= 5 or 0 in shape:
        return _RANK
    return Module(path, known, _sort(path, known, shape), shape)


def _left_alone(path: str, leaves: Leaves) -> str | None:
    parts = path.split(".")
    if any(part.startswith(("lora_", "adapter")) for part in parts):
        return _ADAPTER
    if any(_GATES.fullmatch(leaf) for leaf in leaves):
        return _RECURRENT
    if any(leaf.startswith("parametrizations.") or leaf in _HIDDEN for leaf in leaves):
        return _DERIVED
    if "in_proj_weight" in leaves:
        return _PACKED
    return None


def _sort(path: str, leaves: Leaves, shape: tuple[int, ...]) -> Sort:
    if len(shape) > 1:
        return "layer"
    if "running_var" in leaves or "bias" in leaves or _NORM.search(path.lower().rpartition(".")[2]):
        return "norm"
    return "scale"
