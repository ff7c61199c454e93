"""Which checkpoints paths stand for, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deadrelu.errors import InputError
from deadrelu.states import State, find_checkpoints, put_in_order, state_of


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_files_patterns_and_folders(tmp_path: Path) -> None:
    a, b, _ = touch(tmp_path, "a.pt", "b.ckpt", "notes.txt")
    touch(tmp_path, "optimizer.pt", "rng_state_0.pth", "training_args.bin")
    inner = tmp_path / "checkpoint-500"
    inner.mkdir()
    touch(inner, "config.json", "model.safetensors")
    assert find_checkpoints([str(tmp_path)]) == [a, b, inner]
    assert find_checkpoints([str(inner)]) == [inner]
    assert find_checkpoints([str(tmp_path / "*.pt"), str(a)]) == [a, tmp_path / "optimizer.pt"]
    assert find_checkpoints([str(b), str(a)]) == [b, a]


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "epoch[1].pt")
    assert find_checkpoints([str(file)]) == [file]


@pytest.mark.parametrize("name", ["nothing.pt", "*.pt", "empty"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        find_checkpoints([str(tmp_path / name)])


def states(*names: str) -> list[State]:
    return [State(name, {"weight": torch.zeros(1, 1)}) for name in names]


@pytest.mark.parametrize(
    ("names", "expected", "by"),
    [
        (("s10.pt", "s9.pt", "s100.pt"), ["s9.pt", "s10.pt", "s100.pt"], "number"),
        (("v2_e10.pt", "v2_e9.pt"), ["v2_e9.pt", "v2_e10.pt"], "number"),
        (("e9-loss0.5.pt", "e10-loss0.5.pt"), ["e9-loss0.5.pt", "e10-loss0.5.pt"], "number"),
        (("b.pt", "last.pt", "a.pt"), ["a.pt", "b.pt", "last.pt"], "name"),
        (("e2.pt", "last.pt", "e10.pt"), ["e2.pt", "e10.pt", "last.pt"], "name"),
    ],
)
def test_names(names: tuple[str, ...], expected: list[str], by: str) -> None:
    found = put_in_order(states(*names))
    assert [state.name for state in found.states] == expected
    assert found.by == by


def test_steps_inside_come_first(tmp_path: Path) -> None:
    for name, step in (("a.pt", 30), ("b.pt", 9), ("c.pt", 100)):
        torch.save({"model": {"weight": torch.zeros(1, 1)}, "global_step": step}, tmp_path / name)
    found = put_in_order([state_of(tmp_path / name) for name in ("a.pt", "b.pt", "c.pt")])
    assert found.steps == (9, 30, 100)
    assert found.words == "the global_step inside"


def test_steps_that_repeat_do_not_count(tmp_path: Path) -> None:
    for name in ("s2.pt", "s1.pt"):
        torch.save({"model": {"weight": torch.zeros(1, 1)}, "epoch": 0}, tmp_path / name)
    found = put_in_order([state_of(tmp_path / name) for name in ("s2.pt", "s1.pt")])
    assert (found.by, found.steps) == ("number", (1, 2))
