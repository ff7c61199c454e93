"""The oracle of death dating itself, on stories written by hand (DESIGN 2, 3, 5.2, 6.3)."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from .brute import Diary, Ear, compare, compare_numbers, needed_at_rate


class Script(nn.Module):
    """One unit whose pre-activation the test writes: z is the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def tell(story: str, rows: int = 10, needed: int = 30) -> list[tuple[int | None, int, int | None, bool]]:
    """Read a story, a letter a step: `x` fires, `.` is silent, ` ` sees nothing."""
    model = nn.Sequential(Script(), nn.ReLU())
    diary = Diary(model, {"1": Ear("0")})
    for letter in story:
        if letter != " ":
            with diary.forward():
                model(torch.full((rows, 1), 1.0 if letter == "x" else -1.0))
        diary.update()
    return [(life.last_fired, life.confirmed, life.revived, life.born_dead) for life in diary.deaths("1", needed)]


@pytest.mark.parametrize(
    ("story", "deaths"),
    [
        ("xxxxxxxx", []),
        ("xx..", []),
        ("xx...", [(1, 4, None, False)]),
        ("xx.....", [(1, 4, None, False)]),
        ("...", [(None, 2, None, True)]),
        ("..x..x..x", []),
        ("x...x", [(0, 3, 4, False)]),
        ("x...x.....", [(0, 3, 4, False)]),  # three silent steps were enough once; after the revival it takes six
        ("x...x......", [(0, 3, 4, False), (4, 10, None, False)]),
        ("...x......x", [(None, 2, 3, True), (3, 9, 10, False)]),
        ("...x......x...........", [(None, 2, 3, True), (3, 9, 10, False)]),  # then twelve
        ("...x......x............", [(None, 2, 3, True), (3, 9, 10, False), (10, 22, None, False)]),
        ("x .. .", [(0, 5, None, False)]),
    ],
)
def test_stories(story: str, deaths: list[tuple[int | None, int, int | None, bool]]) -> None:
    """Source: DESIGN 5.2 (fields) and 3 (n = 30 here, three steps of ten rows; doubled by each revival)."""
    assert tell(story) == deaths


def test_numbers_of_a_death() -> None:
    """The largest z at the last firing step and at the first silent one; NaN is inactive, +inf is active."""
    model = nn.Sequential(Script(), nn.ReLU())
    diary = Diary(model, {"1": Ear("0")})
    steps = [[0.5, -1.0], [0.25, 0.75], [-0.5, -2.0], [-7.0, -8.0], [float("nan"), -9.0]]
    for values in steps:
        for value in values:  # two micro-batches a step
            with diary.forward():
                model(torch.full((5, 1), value))
        diary.update()
    (life,) = diary.deaths("1", 30)
    assert (life.last_fired, life.confirmed, life.max_z_before, life.max_z_after) == (1, 4, 0.75, -0.5)
    assert diary.rows == 50
    with diary.forward():
        model(torch.tensor([[math.inf]]))
    diary.update()
    (life,) = diary.deaths("1", 30)
    assert life.revived == 5


def test_calls_of_one_forward_are_positions() -> None:
    """A module that runs twice in one forward shows twice the positions of the same samples (DESIGN 2)."""
    model = nn.Sequential(Script(), nn.ReLU())
    diary = Diary(model, {"1": Ear("0")})
    with diary.forward():
        model(torch.tensor([[1.0], [-1.0]]))
        model(torch.tensor([[1.0], [-1.0]]))
    model(torch.ones(7, 1))  # outside: not a training forward
    diary.update()
    page = diary.steps[0]["1"]
    assert (page.rows, page.fired.tolist(), page.top.tolist(), diary.rows) == (2, [1], [1.0], 2)


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 2995), (0.005, 5990), (0.001, 29957)])
def test_samples_for_a_rare_unit(rate: float, needed: int) -> None:
    """Source: DESIGN 3, ln(alpha) / ln(1 - r/10); the numbers by hand: 2.99573 / -ln(1 - r/10), rounded up."""
    assert abs(needed_at_rate(rate) - needed) <= 1


def record(**changes: object) -> SimpleNamespace:
    """Return what a Monitor would tell of the story `xx...` (ten rows a step, n = 30)."""
    fields = {"site": "1", "unit": 0, "last_fired": 1, "killed_by_step": 1, "confirmed": 4, "revived": None}
    rest = {"born_dead": False, "resolution": 1, "max_z_before": 1.0, "max_z_after": -1.0}
    return SimpleNamespace(**{**fields, **rest, **changes})


@pytest.mark.parametrize(
    "deaths",
    [
        [],
        [record(last_fired=0, killed_by_step=0)],
        [record(killed_by_step=2)],
        [record(confirmed=3)],
        [record(confirmed=5)],
        [record(born_dead=True)],
        [record(last_fired=None, killed_by_step=None, born_dead=True)],
        [record(revived=4)],
        [record(site="2")],
        [record(), record()],
        [record(), record(last_fired=0, killed_by_step=0)],
    ],
    ids=lambda deaths: f"{len(deaths)}",
)
def test_the_comparison_can_fail(deaths: list[SimpleNamespace]) -> None:
    """Every wrong record is found; the right one is not."""
    model = nn.Sequential(Script(), nn.ReLU())
    diary = Diary(model, {"1": Ear("0")})
    for value in (1.0, 1.0, -1.0, -1.0, -1.0, -1.0):
        with diary.forward():
            model(torch.full((10, 1), value))
        diary.update()
    assert len(compare(SimpleNamespace(deaths=[record()]), diary, 30)) == 1
    with pytest.raises(AssertionError):
        compare_numbers(SimpleNamespace(deaths=[record(max_z_before=0.5)]), diary, 30)
    with pytest.raises(AssertionError):
        compare(SimpleNamespace(deaths=deaths), diary, 30)
