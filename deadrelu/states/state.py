"""State: the weights of a model at one time, from a module, a mapping or a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import Checkpoint, bare, load_state, open_checkpoint
from ..errors import CheckpointError, InputError, ModelError
from ..replays import ReplayError, copied
from ..tracing import unwrapped

Source = Any
"""An nn.Module, the path of a checkpoint, an open `Checkpoint`, a mapping of names to tensors, or a `State`."""

_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A model's weights at one time.

    Attributes:
        name: what it is called on screens.
        weights: by name.
        checkpoint: the file they are in, None if they are in memory.
        build: returns the model with these weights, where that is known already.
    """

    name: str
    weights: Mapping[str, Tensor]
    checkpoint: Checkpoint | None = None
    build: Callable[[], nn.Module] | None = None

    @property
    def step(self) -> int | None:
        """The training step found in the file."""
        return None if self.checkpoint is None else self.checkpoint.step

    def module(self, model: nn.Module | None) -> nn.Module:
        """Return a model in this state: its own, or a copy of `model` with these weights.

        Raises:
            InputError: neither is there.
            CheckpointError: the weights hold NaN or inf, or do not fit.
        """
        if self.checkpoint is not None:
            self.checkpoint.require_finite()
        if self.build is not None:
            return unwrapped(self.build())
        if model is None:
            raise InputError(f"{self.name} holds weights but no model to run data through; pass model=...")
        made = separate(model)
        load_state(made, self.weights, self.name, "pass the model of that state")
        return made


def state_of(source: Source, name: str | None = None) -> State:
    """Return the state that `source` is or holds.

    Raises:
        InputError: it is of no kind that holds weights.
        CheckpointError: its file cannot be read.
    """
    if isinstance(source, State):
        return source
    if isinstance(source, nn.Module):
        inner = unwrapped(source)
        return State(name or type(inner).__name__, values_of(inner), build=lambda: inner)
    if isinstance(source, Checkpoint):
        return State(name or str(source.path), source.weights, source)
    if isinstance(source, (str, Path)):
        return state_of(open_checkpoint(Path(source).expanduser()), name or str(source))
    if isinstance(source, Mapping) and source and all(isinstance(v, Tensor) for v in source.values()):
        return State(name or "state_dict", source)
    raise InputError(
        f"a state is a {type(source).__name__}; expected an nn.Module, the path of a checkpoint, or a state_dict"
    )


def separate(model: nn.Module) -> nn.Module:
    """Return a copy of a model that shares no parameter or buffer with it.

    Raises:
        ModelError: it cannot be copied.
    """
    inner = unwrapped(model)
    try:
        return copied(inner)
    except ReplayError:  # it carries hooks, such as those of spectral_norm, which a plain copy takes along
        pass
    try:
        return copy.deepcopy(inner)
    except Exception as error:  # whatever a part of the model raises when it is copied
        raise ModelError(
            f"{type(inner).__name__} cannot be copied ({type(error).__name__}: {error}); pass a factory's new model"
        ) from error


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model by name, tied ones under each of their names."""
    held = dict(model.named_parameters(remove_duplicate=False))
    return held | dict(model.named_buffers(remove_duplicate=False))


def require_alike(old: State, new: State) -> None:
    """Refuse states of different architectures.

    Raises:
        CheckpointError: a weight has another shape in the other, or only one of them has it.
    """
    before, after = _shapes(old), _shapes(new)
    wrong = [
        f"{name} is {list(shape)} in one and {list(after[name])} in the other"
        for name, shape in before.items()
        if name in after and after[name] != shape
    ]
    for shapes, others, which in ((before, after, "first"), (after, before, "second")):
        alone = [name for name in shapes if name not in others]
        if alone:
            more = f" and {len(alone) - _NAMED} more" if len(alone) > _NAMED else ""
            wrong.append(f"only the {which} has {', '.join(name[:120] for name in alone[:_NAMED])}{more}")
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise CheckpointError(
            f"{old.name} and {new.name} are of different architectures: {'; '.join(wrong[:_NAMED])}{more}; "
            "compare two states of one model"
        )


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what can be a parameter; buffers such as counters and masks come and go."""
    weights = state.weights
    shape = getattr(weights, "shape", None)
    if callable(shape):
        names = state.checkpoint.parameter_names() if state.checkpoint is not None else list(weights)
        return {bare(name): tuple(shape(name)) for name in names}
    return {
        bare(name): tuple(t.shape) for name, t in weights.items() if isinstance(t, nn.Parameter) or _floats(name, t)
    }


def _floats(name: str, tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and name.rpartition(".")[2] not in ("running_mean", "running_var")
