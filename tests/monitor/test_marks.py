"""Marks: what the graph behind a pre-activation tells of the layers that made it."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from deadrelu.taps.marks import Mark, Marks


@pytest.fixture
def layers() -> tuple[nn.Linear, nn.Linear, Tensor]:
    return nn.Linear(4, 4), nn.Linear(4, 4), torch.randn(3, 4)


def marked(z: Tensor) -> Mark:
    mark = Mark.of(z)
    assert mark is not None
    return mark


Layers = tuple[nn.Linear, nn.Linear, Tensor]


def test_a_mark_is_that_of_the_nearest_parameters(layers: Layers) -> None:
    a, b, x = layers
    mark, added = marked(a(x)), marked(a(x).relu() + b(x) * 2)
    for z, fits in ((a(x), True), (b(x), False), (a(b(x)), True), (b(a(x)), False), (-a(x), False), (x, False)):
        assert mark.on(z) is fits
    for z, fits in ((a(x).relu() + b(x) * 2, True), (a(x).relu() + a(x) * 2, False), (b(x).relu() + b(x) * 2, False)):
        assert added.on(z) is fits
    assert mark.keys == marked(a(b(x))).keys != marked(b(x)).keys


def test_a_cast_weight_is_that_parameter(layers: Layers) -> None:
    a, b, x = layers
    with torch.autocast("cpu", torch.bfloat16):
        mark = marked(a(b(x)))
        assert mark.on(a(x))
        assert not mark.on(b(x))


def test_what_autograd_does_not_know_has_no_mark(layers: Layers) -> None:
    a, _, x = layers
    mark = marked(a(x))
    with torch.no_grad():
        z = a(x)
    for unknown in (x, z):
        assert Mark.of(unknown) is None
        assert not mark.on(unknown)
    assert marked(torch.randn(4, requires_grad=True) * 2).entries == ()


def test_marks_of_several_sites(layers: Layers) -> None:
    """What both have says nothing: here a gain that multiplies what either layer made."""
    a, b, x = layers
    gain = nn.Parameter(torch.ones(4))
    one, other = Marks(), Marks()
    assert one.learn(marked(a(x) * gain))
    assert not one.learn(marked(a(x) * gain))
    assert other.learn(marked(b(x) * gain))
    assert not one.fit(b(x) * gain)
    Marks.compare([one, other])
    assert not one.vague
    assert [one.fit(z * gain) for z in (a(x), b(x))] == [True, False]
    assert [other.fit(z * gain) for z in (a(x), b(x))] == [False, True]
    assert other.learn(marked(a(x) * gain))
    Marks.compare([one, other])
    assert one.vague
    assert other.vague


def test_marks_of_which_there_are_too_many_say_nothing(layers: Layers) -> None:
    a, _, x = layers
    marks = Marks()
    z = a(x)
    for times in range(8):
        assert marks.learn(marked(z)), times
        assert marks.fit(z)
        z = -z
    assert marks.known
    assert marks.learn(marked(z))
    assert not marks.known
    assert not marks.fit(z)


def test_a_mark_keeps_no_parameter() -> None:
    layer = nn.Linear(4, 4)
    held = weakref.ref(layer.bias)
    mark = marked(layer(torch.randn(3, 4)))
    assert not mark.lost
    del layer
    assert held() is None
    assert mark.lost
    assert not mark.on(nn.Linear(4, 4)(torch.randn(3, 4)))
