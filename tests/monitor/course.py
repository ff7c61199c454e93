"""The course of events in the tests of loops: two planted deaths, one of them with a revival."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .brute import Diary, compare
from .plays import put
from .subjects import SUBJECTS, Subject

MLP, CNN = SUBJECTS[0], SUBJECTS[2]
ROWS, STEPS = 300, 40
DEATHS = {(1, 5, 15, None, False), (2, 8, 18, 25, False)}


def edit(model: nn.Module, step: int, lever: str = "0.bias") -> None:
    """Unit 1 dies of update 5, unit 2 of update 8; unit 2 lives again from forward 25 on."""
    for when, unit, value in ((5, 1, -1e3), (8, 2, -1e3), (24, 2, 2.0)):
        if when == step:
            put(model, lever, unit, value)


def batches(subject: Subject = MLP, rows: int = ROWS, seed: int = 1) -> Iterator[Tensor]:
    """Return batches without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield subject.batch(rows, generator)


def check(monitor: Any, diary: Diary, site: str = "1") -> None:
    """Compare with the diary, in which the planted deaths must stand."""
    lives = compare(monitor, diary)
    found = {(x.unit, x.last_fired, x.confirmed, x.revived, x.born_dead) for x in lives if x.site == site and x.steady}
    assert found >= DEATHS, found
