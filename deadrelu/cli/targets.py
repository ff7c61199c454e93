"""Targets: the model that TARGET and --model stand for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import CheckpointError, InputError, ModelError
from .imports import call_object, import_object, is_reference
from .weights import read_weights

CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_NAMED = 3


def load_target(target: str, factory: str | None = None) -> nn.Module:
    """Return the model: `pkg.mod:factory` alone, or a checkpoint's state_dict in the model that `factory` builds.

    Raises:
        InputError: it is neither, or the factory cannot be used.
        CheckpointError: the checkpoint cannot be read, or does not fit the model.
    """
    path = Path(target).expanduser()
    if path.suffix.lower() not in CHECKPOINTS:
        return _from_factory_alone(target, factory, path)
    if factory is None:
        if not path.exists():
            raise CheckpointError(f"{path}: no such file; check the path")
        raise InputError(
            f"{path} holds weights but not the model; name what builds it: --model pkg.mod:factory "
            "(a callable without arguments that returns an nn.Module)"
        )
    state = _state_dict(read_weights(path), path)
    model = build_model(factory)
    load_state(model, state, path)
    return model


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


def load_state(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Copy `state` into `model`; wrapper prefixes (`module.`, `_orig_mod.`) are looked through on both sides.

    Raises:
        CheckpointError: a key is missing or unexpected, or a shape differs; the first few are named.
    """
    expected = model.state_dict()
    renamed = _renamed(state, list(expected))
    try:
        result = model.load_state_dict(renamed, strict=False)
    except Exception as error:
        raise _misfit(model, path, [_few(_differences(renamed, expected)) or str(error)]) from None
    troubles = []
    if result.missing_keys:
        troubles.append(f"{len(result.missing_keys)} missing in the file: {_few(result.missing_keys)}")
    if result.unexpected_keys:
        troubles.append(f"{len(result.unexpected_keys)} unknown to the model: {_few(result.unexpected_keys)}")
    if troubles:
        raise _misfit(model, path, troubles)


def _differences(state: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    tensors = [(k, v, expected[k]) for k, v in state.items() if isinstance(v, Tensor) and k in expected]
    return [
        f"{key[:80]} is {list(held.shape)} in the file and {list(wanted.shape)} in the model"
        for key, held, wanted in tensors
        if isinstance(wanted, Tensor) and not is_lazy(wanted) and held.shape != wanted.shape
    ]


def _from_factory_alone(target: str, factory: str | None, path: Path) -> nn.Module:
    if is_reference(target) and not path.exists():
        if factory is not None:
            raise InputError(f"{target} is a factory already; --model goes with a checkpoint, drop one of the two")
        return build_model(target)
    if path.exists():
        raise CheckpointError(f"{path}: not a known checkpoint format; expected a file {'/'.join(CHECKPOINTS)}")
    raise InputError(
        f"TARGET {target!r} is no file and no Python reference; expected a checkpoint ({'/'.join(CHECKPOINTS)}) "
        "or pkg.mod:factory"
    )


def _state_dict(held: Any, path: Path) -> Mapping[str, Any]:
    if isinstance(held, Mapping):
        for name in _WRAPPERS:
            inner = held.get(name)
            if isinstance(inner, Mapping) and _looks_like_state(inner):
                return inner
        if _looks_like_state(held):
            return held
        keys = _few([str(key) for key in held])
        what = f"a dict with the keys {keys}" if keys else "an empty dict"
    else:
        what = _kind(held)
    raise CheckpointError(
        f"{path} holds {what}; expected a state_dict (names to tensors), bare or under {', '.join(_WRAPPERS)}"
    )


def _looks_like_state(held: Mapping[Any, Any]) -> bool:
    return any(isinstance(v, Tensor) for v in held.values()) and all(isinstance(k, str) for k in held)


def _renamed(state: Mapping[str, Any], expected: list[str]) -> OrderedDict[str, Any]:
    bare = {_bare(name): name for name in expected}
    known = set(expected)
    renamed: OrderedDict[str, Any] = OrderedDict()
    for key, value in state.items():
        name = key if key in known else bare.get(_bare(key), key)
        renamed[key if name in state and name != key else name] = value
    versions = getattr(state, "_metadata", None)
    if isinstance(versions, Mapping):  # versions of the modules, by their path: how old files are told apart
        renamed._metadata = OrderedDict((_bare(str(k)), v) for k, v in versions.items())  # type: ignore[attr-defined]
    return renamed


def _bare(name: str) -> str:
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while parts and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def _few(names: list[str]) -> str:
    shown = ", ".join(name[:120] for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def _misfit(model: nn.Module, path: Path, troubles: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{path} does not fit {type(model).__name__}: {'; '.join(troubles)}; let --model build the model of that file"
    )


def _kind(held: object) -> str:
    return "None" if held is None else f"an object of type {type(held).__name__}"
