"""Layout: where, in the object that a training program saved, its weights, optimizers and step are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .names import Global, Opaque
from .optimizer import OptimizerState, find_optimizers, is_optimizer
from .refusals import Damaged, Unreadable
from .stored import StoredTensor
from .torch_files import whole_module

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "module", "net", "network", "weights", "params")
STEPS = (
    "global_step step steps iteration iterations iter iter_num n_iter num_updates num_steps total_steps "
    "current_step epoch epochs last_epoch current_epoch"
).split()
_DEEPEST = 8
_LONGEST_NAMES = 64 << 20
_NAMED = 3
_OTHERS = 200


@dataclass(slots=True)
class Layout:
    """What was found in one object.

    Attributes:
        kind: `state_dict`, `training dictionary` or `Lightning`.
        weights: as the file names them.
        models: the names in front of the weights, where there are several models; else empty.
        versions: of the modules, as torch keeps them beside a state_dict.
        step, step_name: the number of the first name of `STEPS` that the file has, and that name.
        others: what else is there: name to a few words.
        unread: what could not be read, one sentence each.
    """

    kind: str
    weights: dict[str, StoredTensor]
    models: tuple[str, ...] = ()
    versions: object = None
    optimizers: list[OptimizerState] = field(default_factory=list)
    step: int | None = None
    step_name: str | None = None
    others: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def lay_out(held: Any) -> Layout:
    """Return what `held`, the object of a file of torch.save, consists of.

    Raises:
        Unreadable: there are no weights in it, or it is a module.
    """
    if isinstance(held, Opaque):
        raise Unreadable(whole_module(held.name) if held.is_module else _no_weights(held))
    if not isinstance(held, dict):
        raise Unreadable(_no_weights(held))
    if is_optimizer(held):
        raise Unreadable("it holds the state of an optimizer and no weights; expected the checkpoint of the model")
    states = {key: value for key, value in held.items() if isinstance(value, dict) and any(_leaves(value))}
    optimizers, unread = _optimizers(held)
    states = {key: value for key, value in states.items() if key not in optimizers and not is_optimizer(value)}
    own = sum(value.numel for value in held.values() if isinstance(value, StoredTensor))
    nested = sum(tensor.numel for value in states.values() for _, tensor in _leaves(value))
    wrapper = next((name for name in WRAPPERS if name in states), None)
    if wrapper is None and own > nested:
        return _bare(held, optimizers, unread)
    if not states:
        raise Unreadable(_no_weights(held))
    kind = "Lightning" if "pytorch-lightning_version" in held else "training dictionary"
    found = Layout(kind, {}, optimizers=[state for part in optimizers.values() for state in part])
    found.unread += unread
    taken = {wrapper} if wrapper is not None else _take_alike(states, found)
    if wrapper is not None:
        _take(states[wrapper], "", found)
    found.step, found.step_name = find_step(held)
    _list_others(held, {*taken, *optimizers}, found)
    return found


def find_step(held: dict[Any, Any]) -> tuple[int | None, str | None]:
    """Return the training step in `held` and the name under which it is there; (None, None) if there is none."""
    for name in STEPS:
        value = held.get(name)
        if isinstance(value, StoredTensor) and value.numel == 1 and not value.dtype.is_complex:
            value = value.load().item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value < 1 << 63:
            return value, name
    return None, None


def _optimizers(held: dict[Any, Any]) -> tuple[dict[Any, list[OptimizerState]], list[str]]:
    found: dict[Any, list[OptimizerState]] = {}
    unread = []
    for key, value in held.items():
        try:
            states = list(find_optimizers(value, _shown(key)))
        except Damaged:
            unread.append(f"{_shown(key)}: the state of an optimizer in a form that is not known")
            continue
        if states:
            found[key] = states
    return found, unread


def _bare(held: dict[Any, Any], optimizers: dict[Any, list[OptimizerState]], unread: list[str]) -> Layout:
    """A state_dict, with or without more beside its weights: an optimizer, a step."""
    found = Layout("state_dict", {}, optimizers=[state for part in optimizers.values() for state in part])
    found.unread += unread
    found.step, found.step_name = find_step(held)
    own = OrderedDict((key, value) for key, value in held.items() if not isinstance(value, dict))
    _take(own, "", found)
    found.versions = getattr(held, "_metadata", None)
    taken = {key for key, value in held.items() if isinstance(value, (StoredTensor, Opaque))}
    _list_others(held, {*taken, *optimizers}, found)
    return found


def _take(state: dict[Any, Any], prefix: str, found: Layout) -> None:
    for _ in range(_DEEPEST):  # {"model": {"state_dict": ...}}
        inner = next(
            (name for name in WRAPPERS if isinstance(state.get(name), dict) and any(_leaves(state[name]))), None
        )
        if inner is None or any(isinstance(value, StoredTensor) for value in state.values()):
            break
        state = state[inner]
    characters = 0
    for name, tensor in _leaves(state):
        characters += len(prefix) + len(name)
        if prefix + name in found.weights:
            raise Unreadable(f"it holds the weight {(prefix + name)[:80]!r} twice; save it again")
        if characters > _LONGEST_NAMES:
            raise Unreadable("the names of its weights are longer than any program writes; save the weights again")
        found.weights[prefix + name] = tensor
    found.versions = getattr(state, "_metadata", None)
    missing = [_shown(name) for name, value in state.items() if isinstance(value, Opaque)]
    if missing:
        found.unread.append(f"{len(missing)} weights of a form that is not read: {_few(missing)}")


def _take_alike(states: dict[Any, dict[Any, Any]], found: Layout) -> set[Any]:
    """No usual name: one state is the model, several (a generator and a discriminator) keep their name in front."""
    alike = {name: state for name, state in states.items() if any(t.shape for _, t in _leaves(state))} or states
    for name, state in alike.items():
        _take(state, f"{_shown(name)}." if len(alike) > 1 else "", found)
    if len(alike) > 1:
        found.versions = None
        found.models = tuple(map(_shown, alike))
    return set(alike)


def _leaves(held: dict[Any, Any]) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors of a dict, of dicts in it too, by dotted names; each dict once."""
    seen = {id(held)}
    waiting: list[tuple[str, Iterator[tuple[Any, Any]]]] = [("", iter(held.items()))]
    while waiting:
        prefix, items = waiting[-1]
        for key, value in items:
            if isinstance(key, (str, int)) and isinstance(value, StoredTensor):
                yield f"{prefix}{key}", value
            elif isinstance(key, (str, int)) and isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                if len(waiting) < _DEEPEST:
                    waiting.append((f"{prefix}{key}.", iter(value.items())))
                    break
        else:
            waiting.pop()


def _list_others(held: dict[Any, Any], taken: set[Any], found: Layout) -> None:
    for key, value in list(held.items())[:_OTHERS]:
        if key not in taken:
            found.others[_shown(key)] = describe(value)
            if isinstance(value, (Opaque, Global)):
                found.unread.append(f"{_shown(key)}: {describe(value)}")


def describe(value: object) -> str:
    """Return in a few words what `value` is."""
    if isinstance(value, (bool, float)) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 64 else "a large int"
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, StoredTensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, dict):
        count = sum(1 for _ in _leaves(value))
        return f"a dict with {count} tensors" if count else f"a dict of {len(value)} entries"
    if isinstance(value, (Opaque, Global)):
        name = value.name if isinstance(value, Opaque) else value.path
        return f"an object of {name[:120]}, not built"
    return f"a {type(value).__name__}"


def _no_weights(held: object) -> str:
    if isinstance(held, dict):
        modules = [value for value in held.values() if isinstance(value, Opaque) and value.is_module]
        if modules:
            return whole_module(modules[0].name)
        what = f"a dict with the keys {_few([_shown(key) for key in held])}" if held else "an empty dict"
    elif isinstance(held, Opaque):
        what = f"an object of {held.name[:120]}"
    else:
        what = "None" if held is None else f"an object of type {type(held).__name__}"
    return f"it holds {what}; expected a state_dict (names to tensors), bare or under {', '.join(WRAPPERS[:4])}"


def _few(names: list[str]) -> str:
    shown = ", ".join(name[:120] for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def _shown(key: object) -> str:
    return key[:200] if isinstance(key, str) else str(key) if isinstance(key, (int, float)) else describe(key)
