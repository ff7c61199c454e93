"""Targets: the model that TARGET and --model stand for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..checkpoint import SUFFIXES, Checkpoint, bare, open_checkpoint
from ..errors import CheckpointError, InputError, ModelError
from .configured import build_configured, load_renamed
from .exits import say
from .imports import call_object, import_object, is_reference

_NAMED = 3
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
        note = load_state(model, checkpoint.weights, path)
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


def load_state(model: nn.Module, state: Mapping[str, Any], path: Path) -> str | None:
    """Copy `state` into `model`, and return what a reader should know about it, None if nothing.

    Names are looked through wrapper prefixes (`module.`, `_orig_mod.`) on both sides, and through one prefix that the
    whole model has in the file (`net.` of a LightningModule) or the whole file in the model.

    Raises:
        CheckpointError: a key is missing or unexpected, a shape differs, or numbers are of another kind; the first few
            are named.
    """
    expected = model.state_dict()
    renamed = _renamed(state, list(expected))
    note = None
    if not renamed.keys() >= expected.keys():
        renamed, note = _shifted(renamed, list(expected))
    wrong = _differences(renamed, expected)
    try:
        result = model.load_state_dict(renamed, strict=False)
    except Exception as error:
        raise _misfit(model, path, [_few(wrong) or str(error)]) from None
    troubles = [_few(wrong)] if wrong else []
    missing = _not_tied(result.missing_keys, expected)
    if missing:
        troubles.append(f"{len(missing)} missing in the file: {_few(missing)}")
    if result.unexpected_keys:
        troubles.append(f"{len(result.unexpected_keys)} unknown to the model: {_few(result.unexpected_keys)}")
    if troubles:
        raise _misfit(model, path, troubles)
    return note


def _differences(state: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    tensors = [(k, v, expected[k]) for k, v in state.items() if isinstance(v, Tensor) and k in expected]
    found = []
    for key, held, wanted in tensors:
        if not isinstance(wanted, Tensor) or is_lazy(wanted):
            continue
        if held.shape != wanted.shape:
            found.append(f"{key[:80]} is {list(held.shape)} in the file and {list(wanted.shape)} in the model")
        elif wanted.is_floating_point() and not held.is_floating_point():  # copying would take quantized for real
            found.append(f"{key[:80]} is {_dtype(held)} in the file and {_dtype(wanted)} in the model")
    return found


def _not_tied(missing: Iterable[str], expected: Mapping[str, Any]) -> list[str]:
    """Return those of `missing` that share their memory with no name that was loaded: tied weights are saved once."""
    missing = list(missing)
    loaded = {_memory(v) for k, v in expected.items() if k not in missing and isinstance(v, Tensor) and not is_lazy(v)}
    return [
        key
        for key in missing
        if not isinstance(expected.get(key), Tensor) or is_lazy(expected[key]) or _memory(expected[key]) not in loaded
    ]


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    if not tensor.numel() or tensor.device.type == "meta":
        return (id(tensor),)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()


def _from_factory_alone(target: str, factory: str | None) -> nn.Module:
    if is_reference(target):
        if factory is not None:
            raise InputError(f"{target} is a factory already; --model goes with a checkpoint, drop one of the two")
        return build_model(target)
    raise InputError(f"TARGET {target!r} is no file and no Python reference; expected {_KNOWN}, or pkg.mod:factory")


def _renamed(state: Mapping[str, Any], expected: list[str]) -> OrderedDict[str, Any]:
    plain = {bare(name): name for name in expected}
    known = set(expected)
    renamed: OrderedDict[str, Any] = OrderedDict()
    for key, value in state.items():
        name = key if key in known else plain.get(bare(key), key)
        renamed[key if name in state and name != key else name] = value
    return _with_versions(renamed, state, bare)


def _shifted(state: OrderedDict[str, Any], expected: list[str]) -> tuple[OrderedDict[str, Any], str | None]:
    """Return `state` with one prefix taken off or put on, if that makes it fit, and a note about what was left out."""
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]  # old files lack it
    longest = max(needed, key=len, default="")
    fits = [
        prefix
        for prefix in (name.removesuffix(longest) for name in state if longest and name.endswith(f".{longest}"))
        if all(prefix + name in state for name in needed)
    ]
    if len(fits) == 1:
        (prefix,) = fits
        inner = OrderedDict((name, state[prefix + name]) for name in expected if prefix + name in state)
        left = len(state) - len(inner)
        note = f"the model is what the file calls {prefix[:-1]!r}; {left} other tensors there were left out"
        return _with_versions(inner, state, lambda path: path.removeprefix(prefix)), note if left else None
    first = next(iter(state), "")
    over = [name.removesuffix(first) for name in expected if first and name.endswith(f".{first}")]
    for prefix in over:
        if {prefix + name for name in state} == set(expected):
            outer = OrderedDict((prefix + name, value) for name, value in state.items())
            return _with_versions(outer, state, lambda path, p=prefix: p + path if path else p[:-1]), None  # type: ignore[misc]
    return state, None


def _with_versions(
    made: OrderedDict[str, Any], state: Mapping[str, Any], rename: Callable[[str], str]
) -> OrderedDict[str, Any]:
    versions = getattr(state, "_metadata", None)
    if isinstance(versions, Mapping):  # versions of the modules, by their path: how old files are told apart
        made._metadata = OrderedDict((rename(str(k)), v) for k, v in versions.items())  # type: ignore[attr-defined]
    return made


def _few(names: list[str]) -> str:
    shown = ", ".join(name[:120] for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def _misfit(model: nn.Module, path: Path, troubles: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{path} does not fit {type(model).__name__}: {'; '.join(troubles)}; let --model build the model of that file"
    )


def _kind(held: object) -> str:
    return "None" if held is None else f"an object of type {type(held).__name__}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
