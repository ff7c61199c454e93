"""Checkpoint: what a file or folder holds, found without running any code of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from .matching import ParameterStates, match, named_alike
from .optimizer import OptimizerState
from .refusals import on_one_line
from .tensors import Weights

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_CHUNK = 1 << 24
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The contents of a checkpoint. Tensors are mapped, and read when they are asked for.

    Attributes:
        path: the file or folder.
        format: `state_dict`, `training dictionary`, `Lightning`, `safetensors`, `Hugging Face` or `pt2`.
        weights: by name, without wrapper prefixes (`module.`, `_orig_mod.`).
        models: where there are several (a generator and a discriminator): the names in front of their weights.
        optimizers: the state of each optimizer, in the order of the file.
        step: the training step (or the epoch, where there is no step), None if it is not there.
        step_name: under which name `step` was found, such as `global_step` or `epoch`.
        config: the `config.json` of a Hugging Face folder.
        others: what else is there, name -> a few words.
        unread: what could not be read or was left alone, one sentence each.
    """

    path: Path
    format: str
    weights: Weights
    models: tuple[str, ...] = ()
    optimizers: tuple[OptimizerState, ...] = ()
    step: int | None = None
    step_name: str | None = None
    config: dict[str, Any] | None = None
    others: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def optimizer(self) -> OptimizerState | None:
        """The optimizer, if there is exactly one."""
        return self.optimizers[0] if len(self.optimizers) == 1 else None

    def parameter_names(self) -> list[str]:
        """Return the weights that can be parameters: floating, no statistics of a norm, each tied tensor once."""
        tied = self.weights.tied()
        return [
            name
            for name in self.weights
            if name not in tied
            and name.rpartition(".")[2] not in _BUFFERS
            and (self.weights.dtype(name).is_floating_point or self.weights.dtype(name).is_complex)
        ]

    def parameter_states(
        self, optimizer: OptimizerState | None = None, parameters: Sequence[str] | None = None
    ) -> ParameterStates | None:
        """Return what the optimizer keeps for each parameter, by the parameter's name; None if there is no optimizer.

        `optimizer`: by default the only one. `parameters`: the names of `model.named_parameters()`, in that order,
        where the model is at hand; else the weights that can be parameters are taken, in the order of the file if that
        is the model's. Names that the checkpoint lacks are left out.
        """
        chosen = optimizer or self.optimizer
        if chosen is None:
            return None
        names = self.parameter_names() if parameters is None else [name for name in parameters if name in self.weights]
        if self.models and parameters is None:
            names = self._of_model(chosen, names)
        shapes = {name: self.weights.shape(name) for name in names}
        return match(chosen, shapes, ordered=parameters is not None or self.weights.ordered)

    def _of_model(self, optimizer: OptimizerState, names: list[str]) -> list[str]:
        """Return the parameters of the one model that an optimizer goes with, by shapes or by name; else all."""
        parts = {model: [name for name in names if name.startswith(f"{model}.")] for model in self.models}
        fits = {model: self._matched(optimizer, part) for model, part in parts.items()}
        possible = [model for model, fit in fits.items() if fit.possible]
        alike = [model for model in possible if named_alike(optimizer.name, model)]
        chosen = possible if len(possible) == 1 else alike
        whole = len(chosen) == 1 and not fits[chosen[0]].unmatched and not fits[chosen[0]].uncertain
        return parts[chosen[0]] if whole else names

    def _matched(self, optimizer: OptimizerState, names: Sequence[str]) -> ParameterStates:
        return match(optimizer, {name: self.weights.shape(name) for name in names}, ordered=self.weights.ordered)

    def non_finite(self) -> dict[str, int]:
        """Return, for each weight that holds NaN, or inf where only parameters are (`weight`, `bias`), how many.

        Every weight is read once, a chunk at a time.
        """
        counts = {}
        for name in self.weights:
            if not (self.weights.dtype(name).is_floating_point or self.weights.dtype(name).is_complex):
                continue
            infinite = name.rpartition(".")[2] in ("weight", "bias")  # a mask may well hold -inf
            bad = sum(_count_bad(chunk, infinite) for chunk in _chunks(self.weights[name]))
            if bad:
                counts[name] = bad
        return counts

    def require_finite(self) -> None:
        """Raise CheckpointError, naming the weights, if `non_finite` finds any."""
        counts = self.non_finite()
        if counts:
            named = on_one_line(", ".join(f"{name[:120]} ({count})" for name, count in list(counts.items())[:_NAMED]))
            more = f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else ""
            raise CheckpointError(
                f"{self.path}: {len(counts)} of {len(self.weights)} tensors hold NaN or inf: {named}{more}; "
                "the training had diverged when it was saved: take an earlier checkpoint"
            )


def _chunks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if not tensor.is_contiguous():
        yield tensor
        return
    flat = tensor.view(-1)
    for first in range(0, len(flat), _CHUNK):
        yield flat[first : first + _CHUNK]


def _count_bad(chunk: torch.Tensor, infinite: bool) -> int:
    if chunk.dtype.itemsize == 1 or chunk.dtype is getattr(torch, "complex32", None):  # few ops know these dtypes
        chunk = chunk.to(torch.complex64 if chunk.is_complex() else torch.float32)
    bad = ~chunk.isfinite() if infinite else chunk.isnan()
    return int(bad.sum())
