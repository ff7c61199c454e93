"""Optimizer state: the groups and the tensors per parameter of a checkpoint, and which optimizer wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .names import Global, Opaque
from .refusals import Damaged
from .tensors import Values, loaded

Key = int | str

# (class, keys that a parameter's state has, keys that a group has, keys that neither has); the first row that fits.
_CLASSES: tuple[tuple[str, str, str, str], ...] = (
    ("Adam8bit", "state1 state2", "betas", ""),
    ("NAdam", "exp_avg exp_avg_sq mu_product", "momentum_decay", ""),
    ("Adamax", "exp_avg exp_inf", "betas", ""),
    ("Lion", "exp_avg", "betas", "exp_avg_sq eps"),
    ("Adafactor", "", "beta2_decay", ""),
    ("Adafactor", "", "relative_step", ""),
    ("Adagrad", "sum", "lr_decay", ""),
    ("Adadelta", "square_avg acc_delta", "rho", ""),
    ("RMSprop", "square_avg", "alpha", ""),
    ("Rprop", "prev step_size", "etas", ""),
    ("ASGD", "ax", "lambd", ""),
    ("Muon", "", "ns_steps", ""),
    ("LBFGS", "", "history_size", ""),
    ("SGD", "", "momentum dampening nesterov", ""),
)
_ADAM = {"exp_avg", "exp_avg_sq"}
_PER_GROUP = 64


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """What one optimizer left behind.

    Attributes:
        groups: its param_groups as found (lr, betas, ...); `params` lists the keys of `state`, in order.
        state: per key of a parameter what the optimizer keeps for it; tensors are read when they are asked for. A
            parameter that never had a gradient is missing.
        names: per key the parameter's name, where the file has it; else empty.
        name: where the file holds it, such as `optimizer` or `optimizer_states[0]`.
        guess: the class, as far as the keys tell: `AdamW`, `Adam or AdamW`; None if they tell nothing.
        unread: entries that are no plain values, by name.
    """

    groups: list[dict[str, Any]]
    state: Mapping[Key, Mapping[str, Any]]
    names: Mapping[Key, str]
    name: str
    guess: str | None
    unread: tuple[str, ...] = ()

    def parameters(self) -> Iterator[Key]:
        """Yield the keys of all parameters, in the order of the groups, those without state too."""
        for group in self.groups:
            yield from group["params"]


def find_optimizers(held: object, name: str, depth: int = 0) -> Iterator[OptimizerState]:
    """Yield the states of optimizers in `held`: one, or several in a list or dict.

    Raises:
        Damaged: one has groups and state of a form that no optimizer writes.
    """
    if is_optimizer(held):
        yield _read(held, name)
    elif isinstance(held, (list, tuple)) and depth < 2 and len(held) <= _PER_GROUP:
        for index, part in enumerate(held):
            yield from find_optimizers(part, f"{name}[{index}]", depth + 1)
    elif isinstance(held, dict) and depth < 2 and len(held) <= _PER_GROUP:
        for key, part in held.items():
            if isinstance(key, (str, int)):
                yield from find_optimizers(part, f"{name}.{key}", depth + 1)


def is_optimizer(held: object) -> bool:
    """Return whether `held` has the form of `optimizer.state_dict()`."""
    return isinstance(held, dict) and isinstance(held.get("state"), dict) and isinstance(held.get("param_groups"), list)


def _read(held: Any, name: str) -> OptimizerState:
    unread: dict[str, None] = {}
    groups = [_group(group, unread) for group in held["param_groups"]]
    keys = [key for group in groups for key in group["params"]]
    if len(set(keys)) != len(keys):
        raise Damaged
    state: dict[Key, Values] = {}
    for key, values in held["state"].items():
        if type(key) not in (int, str) or not isinstance(values, dict):
            unread[f"state of {_shown(key)}"] = None
            continue
        state[key] = Values(_plain(values, unread))
    named = {
        key: parameter
        for group in groups
        if isinstance(names := group.get("param_names"), list) and len(names) == len(group["params"])
        for key, parameter in zip(group["params"], names, strict=True)
        if isinstance(parameter, str)
    }
    return OptimizerState(groups, state, named, name, guess_class(groups, state.values()), tuple(unread))


def _group(group: object, unread: dict[str, None]) -> dict[str, Any]:
    if not isinstance(group, dict) or not isinstance(group.get("params"), list):
        raise Damaged
    if any(type(key) not in (int, str) for key in group["params"]):
        raise Damaged
    return {key: loaded(value) for key, value in _plain(group, unread).items()}


def _plain(values: Mapping[Any, Any], unread: dict[str, None]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(key, str) and not isinstance(value, (Opaque, Global)):
            kept[key] = value
        else:
            unread[_shown(key)] = None
    return kept


def guess_class(groups: list[dict[str, Any]], states: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the class of the optimizer that writes such keys, `X or Y` where they do not tell; None if unknown."""
    kept = {key for values in states for key in values}
    options = {key for group in groups for key in group}
    for name, needs, settings, lacks in _CLASSES:
        fits = set(needs.split()) <= kept and set(settings.split()) <= options
        if fits and not set(lacks.split()) & (kept | options):
            return name
    if "betas" not in options or (kept and not kept >= _ADAM):
        return None
    if "amsgrad" not in options:  # RAdam has none, nor has the AdamW that transformers used to bring along
        if "correct_bias" in options:
            return "AdamW"
        return "RAdam" if "decoupled_weight_decay" in options else None
    if "decoupled_weight_decay" in options:
        return "AdamW" if all(group.get("decoupled_weight_decay") for group in groups) else "Adam"
    return "Adam or AdamW"


def _shown(key: object) -> str:
    return key[:80] if isinstance(key, str) else f"a key of type {type(key).__name__}"
