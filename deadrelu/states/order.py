"""Order: the checkpoints that paths stand for, in the order in which a training wrote them."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import SUFFIXES
from ..differences import Order
from ..errors import InputError
from .state import State

_DIGITS = re.compile(r"\d+")
# What trainers write beside the weights, in files of the same kinds.
_BESIDE = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state.*|random_states.*)\.(pt|pth|bin)")
_FOLDER = ("config.json", "model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class Ordered:
    """States in order.

    Attributes:
        states: the states.
        steps: the step of each, None if it has none.
        by: by what they were put in order.
        words: the same in words.
    """

    states: tuple[State, ...]
    steps: tuple[int | None, ...]
    by: Order
    words: str


def find_checkpoints(paths: Sequence[str | Path]) -> list[Path]:
    """Return the checkpoints that files, patterns (`runs/*.pt`) and folders stand for, each once.

    A folder is a checkpoint itself if it is one of Hugging Face, else all that lie directly in it.

    Raises:
        InputError: a path or pattern stands for none.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir() and not _is_checkpoint(path):
            inside = [p for p in sorted(path.iterdir()) if _is_checkpoint(p)]
            if not inside:
                raise InputError(f"{given}: no checkpoint lies in this folder; expected {', '.join(SUFFIXES)}")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            matched = [Path(p) for p in sorted(glob.glob(str(path)))] if glob.has_magic(str(path)) else []
            if not matched:
                raise InputError(f"{given}: no such file; name checkpoints, a pattern such as 'runs/*.pt', or a folder")
            found.update(dict.fromkeys(matched))
    return list(found)


def put_in_order(states: Iterable[State]) -> Ordered:
    """Return states in the order of the steps inside, else of the numbers in their names, else of the names.

    Steps count only if all states have one, under one name, and no two the same. Of the numbers in a name that one
    counts which differs throughout, the last if several do.
    """
    held = list(states)
    checkpoints = [state.checkpoint for state in held]
    inside = [None if c is None else c.step for c in checkpoints]
    names = {c.step_name for c in checkpoints if c is not None}
    if len(names) == 1 and None not in inside and len(set(inside)) == len(inside):
        return _sorted(held, inside, "step", f"the {next(iter(names))} inside")
    numbers = _numbers([state.name for state in held])
    if numbers is not None:
        return _sorted(held, numbers, "number", "the number in the name")
    order = sorted(range(len(held)), key=lambda i: natural(held[i].name))
    return Ordered(tuple(held[i] for i in order), tuple(inside[i] for i in order), "name", "the name")


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key that sorts `step9` before `step10`.

    >>> sorted(["step10.pt", "step9.pt"], key=natural)
    ['step9.pt', 'step10.pt']
    """
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part)


def _numbers(names: Sequence[str]) -> list[int | None] | None:
    rows = [[int(digits) for digits in _DIGITS.findall(Path(name).name)] for name in names]
    if len(names) < 2 or len({len(row) for row in rows}) != 1:
        return None
    columns = [column for column in zip(*rows, strict=True) if len(set(column)) == len(names)]
    return list(columns[-1]) if columns else None


def _sorted(states: list[State], keys: Sequence[int | None], by: Order, words: str) -> Ordered:
    order = sorted(range(len(states)), key=lambda i: keys[i] or 0)
    return Ordered(tuple(states[i] for i in order), tuple(keys[i] for i in order), by, words)


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in (*_FOLDER, *_INDICES))
    return path.suffix.lower() in SUFFIXES and _BESIDE.fullmatch(path.name) is None
