"""Targets: the model that TARGET and --model stand for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from ..checkpoint import SUFFIXES, Checkpoint, load_state, open_checkpoint
from ..errors import CheckpointError, InputError, ModelError
from .configured import build_configured, load_renamed
from .exits import say
from .imports import call_object, import_object, is_reference

_KNOWN = f"a file {'/'.join(SUFFIXES)} or a Hugging Face folder"


def load_target(target: str, factory: str | None = None) -> nn.Module:
    """Return the model: `pkg.mod:factory` alone, or a checkpoint's weights in the model that builds it.

    That is `factory`: a Python reference, or a Hugging Face folder; None for a checkpoint that is such a folder itself.

    Raises:
        InputError: it is neither, or the factory cannot be used.
        CheckpointError: the checkpoint cannot be read, holds NaN or inf, or does not fit the model.
    """
    if not is_checkpoint(target):
        return _from_factory_alone(target, factory)
    path = Path(target).expanduser()
    checkpoint = opened(path)
    model = _model_of(checkpoint, factory)
    checkpoint.require_finite()
    try:
        note = load_state(model, checkpoint.weights, path, "let --model build the model of that file")
    except CheckpointError:
        renamed = load_renamed(model, checkpoint)
        if renamed is None:
            raise
        return renamed
    if note is not None:
        say(f"note: {note}")
    return model


def is_checkpoint(target: str) -> bool:
    """Return whether TARGET is a file or folder, there or missing, and no Python reference."""
    path = Path(target).expanduser()
    return path.exists() or path.suffix.lower() in SUFFIXES


def _model_of(checkpoint: Checkpoint, factory: str | None) -> nn.Module:
    if factory is not None:
        folder = Path(factory).expanduser()
        if not folder.is_dir():
            return build_model(factory)
        described = opened(folder)
        if described.config is None:
            raise InputError(f"--model {factory} is a folder without config.json; name a factory: pkg.mod:factory")
        return build_configured(replace(checkpoint, config=described.config))
    if checkpoint.config is not None and "model_type" in checkpoint.config:
        return build_configured(checkpoint)
    raise InputError(
        f"{checkpoint.path} holds weights but not the model; name what builds it: --model pkg.mod:factory "
        "(a callable without arguments that returns an nn.Module), or leave out --data for what the weights alone say"
    )


def opened(path: Path) -> Checkpoint:
    """Return the checkpoint at `path`.

    Raises:
        CheckpointError: it cannot be read; see `open_checkpoint`.
    """
    try:
        return open_checkpoint(path)
    except CheckpointError as error:
        if path.is_dir() or path.suffix.lower() in SUFFIXES:
            raise
        raise CheckpointError(f"{error} (its name says no known format; expected {_KNOWN})") from None


def build_model(reference: str) -> nn.Module:
    """Return the module that `pkg.mod:factory` is or returns.

    Raises:
        InputError: it cannot be imported, or raised.
        ModelError: what came back is no nn.Module.
    """
    found = import_object(reference)
    if isinstance(found, nn.Module):
        return found
    if callable(found):
        found = call_object(found, reference, "factory")
    if not isinstance(found, nn.Module):
        raise ModelError(f"{reference} gave {_kind(found)}; expected an nn.Module, or a callable that returns one")
    return found


def _from_factory_alone(target: str, factory: str | None) -> nn.Module:
    if is_reference(target):
        if factory is not None:
            raise InputError(f"{target} is a factory already; --model goes with a checkpoint, drop one of the two")
        return build_model(target)
    raise InputError(f"TARGET {target!r} is no file and no Python reference; expected {_KNOWN}, or pkg.mod:factory")


def _kind(held: object) -> str:
    return "None" if held is None else f"an object of type {type(held).__name__}"
