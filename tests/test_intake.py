"""Whether the model's own input has moved, told by a few of its features on captured steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from deadrelu.intake import Intake

MODULE = torch.nn.Identity()


def moved(first: Any, last: Any) -> float:
    intake = Intake()
    for step, inputs in ((10, first), (20, last)):
        intake.take(step, MODULE, inputs)
    return intake.moved(10, 20)


def images(seed: int = 0) -> Tensor:
    return torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        (lambda x: x, 0, 0.2),
        (lambda x: x + 3, 2.5, 3.5),
        (lambda x: 8 * x, 2.8, 3.2),
        (lambda x: x / 8, 2.8, 3.2),
        (lambda x: 0 * x, math.inf, math.inf),
        (lambda x: x * math.nan, 0, 0),
    ],
    ids=["other rows", "brighter", "stretched", "dim", "gone", "nan"],
)
def test_moves(change: Callable[[Tensor], Tensor], least: float, most: float, layout: torch.memory_format) -> None:
    found = moved((images().to(memory_format=layout),), (change(images(1)).to(memory_format=layout),))
    assert least <= found <= most


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 3)),  # nothing varies
        (torch.arange(6), torch.arange(6) + 100),  # token ids
        (torch.randn(4, 3), torch.randn(4, 5) + 9),  # other features
        (torch.tensor(1.0), torch.tensor(2.0)),  # a time, a temperature
        (torch.randn(0, 3), torch.randn(4, 3)),
        ({"ids": torch.arange(4)}, None),
    ],
)
def test_nothing_is_told_of_what_cannot_be_compared(first: Any, last: Any) -> None:
    assert moved(first, last) == 0


def test_only_inputs_of_one_module_are_compared() -> None:
    intake = Intake()
    intake.take(0, MODULE, torch.randn(64, 3))
    intake.take(10, torch.nn.Identity(), torch.randn(64, 3) + 100)
    intake.take(20, MODULE, torch.randn(64, 3))
    assert intake.moved(0, 10) == 0
    assert intake.moved(0, 20) < 0.5
    assert intake.moved(11, 15) == 0


def test_memory_is_bounded_whatever_the_inputs() -> None:
    intake = Intake()
    for step in range(600):
        intake.take(step, MODULE, torch.zeros(2, 100_000))
    assert sum(look.features.numel() for look in intake._looks) <= 256 * 2 * 256
