"""Marks: what the graph behind a pre-activation tells of the layers that made it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deadrelu.taps.marks import Mark, Marks

Layers = tuple[nn.Linear, nn.Linear, Tensor]


@pytest.fixture
def layers() -> Layers:
    return nn.Linear(4, 4), nn.Linear(4, 4), torch.randn(3, 4)


def test_a_mark_is_that_of_the_nearest_parameters(layers: Layers) -> None:
    a, b, x = layers
    mark, added = Mark.of(a(x)), Mark.of(a(x).relu() + b(x) * 2)
    for z, fits in ((a(x), True), (b(x), False), (a(b(x)), True), (b(a(x)), False), (-a(x), False), (x, False)):
        assert mark.on(z) is fits
    for z, fits in ((a(x).relu() + b(x) * 2, True), (a(x).relu() + a(x) * 2, False), (b(x).relu() + b(x) * 2, False)):
        assert added.on(z) is fits
    assert mark.keys == Mark.of(a(b(x))).keys != Mark.of(b(x)).keys
    assert not mark.through


def test_a_cast_weight_is_that_parameter(layers: Layers) -> None:
    a, b, x = layers
    with torch.autocast("cpu", torch.bfloat16):
        mark = Mark.of(a(b(x)))
        assert mark.on(a(x))
        assert not mark.on(b(x))


def test_what_autograd_does_not_know_has_no_mark(layers: Layers) -> None:
    a, _, x = layers
    mark = Mark.of(a(x))
    with torch.no_grad():
        z = a(x)
    for unknown in (x, z, torch.randn(4, requires_grad=True) * 2):
        assert Mark.of(unknown).entries == ()
        assert not mark.on(unknown)


def test_a_frozen_layer_is_looked_through(layers: Layers) -> None:
    a, b, x = layers
    b.requires_grad_(False)
    mark = Mark.of(b(a(x)))
    assert mark.through
    assert [entry.parameter for entry in mark.entries] == [a.bias, a.weight]


def test_marks_of_several_sites(layers: Layers) -> None:
    """What both have says nothing: here a gain that multiplies what either layer made."""
    a, b, x = layers
    gain = nn.Parameter(torch.ones(4))
    one, other = Marks(), Marks()
    assert not one.tell
    assert one.learn(Mark.of(a(x) * gain))
    assert not one.learn(Mark.of(a(x) * gain))
    assert other.learn(Mark.of(b(x) * gain))
    assert not one.fit(b(x) * gain, closely=False)
    Marks.compare([one, other])
    assert one.tell
    for closely in (False, True):
        assert [one.fit(z * gain, closely=closely) for z in (a(x), b(x))] == [True, False]
        assert [other.fit(z * gain, closely=closely) for z in (a(x), b(x))] == [False, True]
    assert one.fit(a(x) * gain + b(x), closely=False) is False
    assert other.learn(Mark.of(a(x) * gain))
    Marks.compare([one, other])
    assert not one.tell
    assert not other.tell


def test_marks_of_which_there_are_too_many_say_nothing(layers: Layers) -> None:
    a, _, x = layers
    marks, z = Marks(), a(x)
    for times in range(8):
        assert marks.learn(Mark.of(z)), times
        assert marks.fit(z, closely=True)
        z = -z
    assert not marks.many
    assert marks.learn(Mark.of(z))
    assert marks.many
    assert not marks.fit(z, closely=True)


def test_marks_let_parameters_be_swapped(layers: Layers) -> None:
    """`swap_tensors` refuses tensors that something refers to weakly."""
    a, _, x = layers
    mark = Mark.of(a(x))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        a.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert mark.on(a(x.double()))


def test_a_function_with_names_of_its_own(layers: Layers) -> None:
    class Named(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.name, ctx.variable = "mine", "mine"
            return x * 2

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0] * 2

    a, _, x = layers
    z = Named.apply(a(x))  # type: ignore[no-untyped-call]
    assert Mark.of(z).on(Named.apply(a(x)))  # type: ignore[no-untyped-call]
