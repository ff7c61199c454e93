"""Loading: a state_dict copied into a model, whatever wrappers have put in front of the names on either side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import CheckpointError
from .prefixes import bare

_NAMED = 3
_FITTING = "expected the weights of that model"


def load_state(model: nn.Module, state: Mapping[str, Any], name: str | Path, advice: str = _FITTING) -> str | None:
    """Copy `state` into `model`, and return what a reader should know about it, None if nothing.

    `name` is what messages call the state, `advice` what they say should be done if it does not fit.

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
        raise _misfit(model, name, [_few(wrong) or str(error).split("\n")[0]], advice) from None
    troubles = [_few(wrong)] if wrong else []
    missing = _not_tied(result.missing_keys, expected)
    if missing:
        troubles.append(f"{len(missing)} missing in the file: {_few(missing)}")
    if result.unexpected_keys:
        troubles.append(f"{len(result.unexpected_keys)} unknown to the model: {_few(result.unexpected_keys)}")
    if troubles:
        raise _misfit(model, name, troubles, advice)
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


def _misfit(model: nn.Module, name: str | Path, troubles: list[str], advice: str) -> CheckpointError:
    return CheckpointError(f"{name} does not fit {type(model).__name__}: {'; '.join(troubles)}; {advice}")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
