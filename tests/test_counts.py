"""Counts of one site: whatever the batches, the same numbers; merged calls; NaN; what was not seen is not zero."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from deadrelu.counts import SiteCounter, UnitCounts
from deadrelu.kinds import KINDS, Kind
from deadrelu.tracing.layout import Layout, batch, plan, position, unit

fixed = settings(derandomize=True, deadline=None, max_examples=100)
CPU = torch.device("cpu")
RELU, GELU = KINDS["relu"], KINDS["gelu"]


def counter(units: int = 5) -> SiteCounter:
    return SiteCounter(units, CPU)


def tokens(rows: int, length: int, units: int = 5) -> Layout:
    return Layout((batch(rows), position(length), unit(units)))


def whole(rows: int, length: int, seed: int) -> Tensor:
    """Return whole numbers in float64, NaN and infinities among them, of which every sum is exact."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randint(-9, 5, (rows, length, 5), generator=rng).double()
    z[..., 1] = -1  # silent
    z[..., 2].masked_fill_(torch.rand(rows, length, generator=rng) < 0.5, torch.nan)
    z[..., 3].masked_fill_(torch.rand(rows, length, generator=rng) < 0.3, torch.inf)
    return z


def see(to: SiteCounter, z: Tensor, kind: Kind = RELU, layout: Layout | None = None, rows: int | None = None) -> None:
    """Count one call of a batch of `rows`: pre-activation, output, and a gradient of the same numbers."""
    made = plan(layout or tokens(*z.shape))
    to.observe(z, kind, made, rows)
    to.observe_output(z.relu(), kind, made)
    to.observe_gradient(z.nan_to_num(0, 9, -9), made)


def assert_same(a: UnitCounts, b: UnitCounts) -> None:
    for field in dataclasses.fields(UnitCounts):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def slow(z: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (active, active samples) of (samples, positions, units)."""
    on = np.nan_to_num(z.numpy(), nan=-1) > 0
    return on.sum((0, 1)), on.any(1).sum(0)


@fixed
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    length=st.integers(1, 4),
    seed=st.integers(0, 999),
    kind=st.sampled_from([RELU, GELU, KINDS["relu6"]]),
)
def test_split_batches_are_one_batch(sizes: list[int], length: int, seed: int, kind: Kind) -> None:
    """Source: DESIGN 4: counts merge by + or max; whole numbers in float64, so that every number is equal, not near."""
    z = whole(sum(sizes), length, seed)
    one, many = counter(), counter()
    see(one, z, kind)
    one.end_forward()
    for part in z.split(sizes):
        see(many, part, kind)
        many.end_forward()
    assert_same(one.host(), many.host())
    assert many.calls == len(sizes)


@fixed
@given(rows=st.integers(1, 6), lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 999))
def test_merged_calls_are_one_call_of_more_positions(rows: int, lengths: list[int], seed: int) -> None:
    """Source: DESIGN 2: a recurrent cell's calls of one forward pass add positions, not samples."""
    z = whole(rows, sum(lengths), seed)
    one, many = counter(), counter()
    see(one, z)
    for part in z.split(lengths, dim=1):
        see(many, part)
    for each in (one, many):
        each.end_forward()
    assert_same(one.host(), many.host())


@fixed
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6), length=st.integers(1, 4), seed=st.integers(0, 999))
def test_calls_on_parts_of_a_batch_are_one_call_on_all_of_it(sizes: list[int], length: int, seed: int) -> None:
    """Source: DESIGN 2: a sample is a row of the batch, also where a forward pass cuts the batch into parts."""
    z = whole(sum(sizes), length, seed)
    one, many = counter(), counter()
    see(one, z, rows=len(z))
    for part in z.split(sizes):
        see(many, part, rows=len(z))
    for each in (one, many):
        each.end_forward()
    assert_same(one.host(), many.host())


@fixed
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    lengths=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_parts_of_a_batch_in_several_calls_are_one_call_on_all_of_it(
    sizes: list[int], lengths: list[int], seed: int
) -> None:
    """Source: DESIGN 2: a cell shared by several steps, each of which cuts the batch into the same parts."""
    z = whole(sum(sizes), sum(lengths), seed)
    one, many = counter(), counter()
    see(one, z, rows=len(z))
    for call in z.split(lengths, dim=1):
        for part in call.split(sizes):
            see(many, part, rows=len(z))
    for each in (one, many):
        each.end_forward()
    assert_same(one.host(), many.host())


@fixed
@given(
    parts=st.integers(2, 4), rows=st.integers(1, 4), lengths=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_a_part_whose_calls_all_come_before_the_next_part(parts: int, rows: int, lengths: list[int], seed: int) -> None:
    """Which samples fired together is unknown then: samples and silence are exact, a firing is not lost or invented.

    Source: by numpy; the samples that fired are at least those of the busiest round, at most those of all calls.
    """
    z = whole(parts * rows, sum(lengths), seed)
    to = counter()
    for part in z.split(rows):
        for call in part.split(lengths, dim=1):
            see(to, call, rows=len(z))
    to.end_forward()
    found = to.host()
    active, fired = slow(z)
    calls = np.stack([slow(call)[1] for part in z.split(rows) for call in part.split(lengths, dim=1)])
    rounds = calls.reshape(len(lengths), parts, -1).sum(1)
    assert (found.samples, found.positions) == (len(z), len(z) * sum(lengths))
    np.testing.assert_array_equal(found.active, active)
    np.testing.assert_array_equal(found.active_samples > 0, fired > 0)
    assert (found.active_samples >= rounds.max(0)).all()
    assert (found.active_samples <= np.minimum(len(z), calls.sum(0))).all()


def test_a_part_beside_calls_on_the_whole_batch() -> None:
    """A branch that half of the batch takes, between two calls on all of it: no sample is invented."""
    to, made = counter(1), [Layout((batch(n), unit(1))) for n in (4, 2, 4)]
    for z, layout in zip(([-1.0, -1.0, -1.0, 1.0], [1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]), made, strict=True):
        see(to, torch.tensor(z).unsqueeze(1), layout=layout, rows=4)
    to.end_forward()
    found = to.host()
    assert (found.samples, found.positions, found.active.tolist(), found.active_samples.tolist()) == (4, 10, [4], [3])


@fixed
@given(rows=st.integers(1, 9), length=st.integers(1, 4), seed=st.integers(0, 999), passes=st.integers(1, 3))
def test_counts_against_numpy(rows: int, length: int, seed: int, passes: int) -> None:
    """Source: DESIGN 2 (active, sample, position), by numpy from the whole array."""
    z = whole(rows * passes, length, seed)
    to = counter()
    for part in z.split(rows):
        see(to, part)
        to.end_forward()
    found, (active, fired) = to.host(), slow(z)
    assert (found.samples, found.positions, found.grad_positions) == (len(z), len(z) * length, len(z) * length)
    np.testing.assert_array_equal(found.active, active)
    np.testing.assert_array_equal(found.active_samples, fired)
    np.testing.assert_array_equal(found.max_z, np.fmax.reduce(z.flatten(0, 1).numpy()))
    np.testing.assert_array_equal(found.magnitude, z.relu().flatten(0, 1).numpy().sum(0))
    flow = z.nan_to_num(0, 9, -9).flatten(0, 1).numpy()
    np.testing.assert_array_equal(found.grad_square, np.square(flow).sum(0))
    np.testing.assert_array_equal(found.grad_max, np.abs(flow).max(0))


def test_a_sample_that_fires_in_two_calls_fires_once() -> None:
    """Two calls over the same four samples: unit 0 fires for samples 0, 1 and then 1, 2."""
    to, layout = counter(1), Layout((batch(4), unit(1)))
    for z in ([1.0, 1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]):
        see(to, torch.tensor(z).unsqueeze(1), layout=layout)
    to.end_forward()
    found = to.host()
    assert (found.samples, found.positions, found.active.tolist(), found.active_samples.tolist()) == (4, 8, [4], [3])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_call_that_lost_the_batch_axis_beside_one_that_did_not(order: tuple[int, int]) -> None:
    """It counts as one sample (DESIGN 2): that it fired, it did for some sample, and no sample is invented."""
    calls = [
        (torch.tensor([[1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]]), Layout((batch(3), unit(2)))),
        (torch.tensor([[-1.0, -1.0], [-1.0, 1.0]]), Layout((position(2), unit(2)))),
    ]
    to = counter(2)
    for i in order:
        see(to, calls[i][0], layout=calls[i][1])
    to.end_forward()
    found = to.host()
    assert (found.samples, found.positions) == (3, 5)
    assert (found.active.tolist(), found.active_samples.tolist()) == ([1, 1], [1, 1])


def test_a_forward_pass_without_a_call_counts_nothing() -> None:
    """An expert that gets no token in one batch."""
    to = counter()
    see(to, whole(4, 2, 0))
    for _ in range(3):
        to.end_forward()
    assert to.host().samples == 4


def test_a_forward_pass_that_did_not_end_leaves_no_sample() -> None:
    to = counter()
    see(to, whole(4, 2, 0))
    to.drop_forward()
    see(to, whole(3, 2, 1))
    to.end_forward()
    found = to.host()
    assert found.samples == 3
    np.testing.assert_array_equal(found.active_samples, slow(whole(3, 2, 1))[1])


@pytest.mark.parametrize("kind", [RELU, GELU, KINDS["leaky_relu"]], ids=lambda kind: kind.name)
def test_nothing_but_nan(kind: Kind) -> None:
    """Source: DESIGN 2: NaN counts as inactive; there is no largest pre-activation, and zero would be a lie."""
    to = counter()
    for _ in range(2):
        z = torch.full((3, 2, 5), torch.nan)
        see(to, z, kind)
        to.end_forward()
    found = to.host()
    assert (found.samples, found.positions) == (6, 12)
    assert not found.active.any()
    assert not found.active_samples.any()
    assert np.isnan(found.max_z).all()
    assert np.isnan(found.magnitude).all()


def test_nan_in_one_batch_does_not_hide_the_others() -> None:
    """The largest of what else there was, in any order of batches; and NaN in the sum of outputs stays to be seen."""
    for order in ((0, 1), (1, 0)):
        to, parts = counter(2), (torch.full((2, 2), torch.nan), torch.tensor([[-3.0, 2.0], [-1.0, -5.0]]))
        for i in order:
            see(to, parts[i], layout=Layout((batch(2), unit(2))))
            to.end_forward()
        found = to.host()
        assert found.max_z.tolist() == [-1.0, 2.0]
        assert found.active.tolist() == [0, 1]
        assert np.isnan(found.magnitude).all()


def test_infinity_is_active_and_largest() -> None:
    """Source: DESIGN 2: +inf counts as active; -inf is a pre-activation like any other."""
    to = counter(2)
    to.observe(torch.tensor([[math.inf, -math.inf]]), RELU, plan(Layout((batch(1), unit(2)))))
    to.end_forward()
    found = to.host()
    assert (found.active.tolist(), found.max_z.tolist()) == ([1, 0], [math.inf, -math.inf])


def test_what_was_not_seen_is_not_zero() -> None:
    """Source: DESIGN 2: zero never stands for unknown."""
    empty = counter().host()
    assert (empty.samples, empty.positions, empty.grad_positions) == (0, 0, 0)
    assert np.isnan(empty.max_z).all()
    assert np.isnan(empty.magnitude).all()
    assert empty.grad_square is None
    assert empty.grad_max is None
    to = counter()
    to.observe_gradient(torch.zeros(2, 3, 5), plan(tokens(2, 3)))
    seen = to.host()
    assert seen.grad_square is not None
    assert seen.grad_max is not None
    assert seen.grad_square.tolist() == seen.grad_max.tolist() == [0.0] * 5
    assert seen.grad_positions == 6


CHANGES: dict[str, Callable[[SiteCounter], None]] = {
    "a further call": lambda to: see(to, whole(4, 2, 7)),
    "its end": lambda to: to.end_forward(),
    "a dropped pass": lambda to: to.drop_forward(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_host_takes_a_copy(change: str) -> None:
    """What was read stays as it was, whatever is counted afterwards."""
    to = counter()
    see(to, whole(4, 2, 0))
    to.end_forward()
    see(to, whole(4, 2, 1))
    before = to.host()
    again = to.host()
    CHANGES[change](to)
    assert_same(before, again)


def test_memory_is_that_of_the_units() -> None:
    """Source: DESIGN 9: memory O(units): what is held after a forward pass does not grow with samples or positions."""

    def held(rows: int) -> int:
        to = counter()
        for seed in range(3):
            see(to, whole(rows, 4, seed))
            to.end_forward()
        return sum(v.numel() for v in vars(to).values() if isinstance(v, Tensor))

    assert held(2) == held(200)


def test_counts_beyond_float32_are_exact() -> None:
    """2^24 + 1 positions: the last one would be lost in float32."""
    to = counter(1)
    for samples in (1 << 24, 1):
        to.observe(torch.ones(1, 1).expand(samples, 1), KINDS["relu"], plan(Layout((batch(samples), unit(1)))))
        to.end_forward()
    assert to.host().active.tolist() == [(1 << 24) + 1]
