"""Compiled kernels: equal to a look at each element, whatever the dtype, the memory, the kind and the values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from elements import CASES, KIND_LIST, assert_engaged, assert_sizes, sums
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import indices, layouts
from tensors import DTYPES, IMAGES_ONLY, MEMORY, inside, matrix, plain, values, with_strange_units

from deadrelu.kernels import Plan, reference
from deadrelu.kernels.choice import Choice
from deadrelu.kernels.native import Native
from deadrelu.kinds import INF, KINDS, Kind
from deadrelu.tracing.layout import BATCH, UNIT, Layout, plan


@pytest.fixture(scope="module")
def native(built: Path) -> Native:
    """The kernels, compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(built))
        patch.setenv("DEADRELU_KERNELS", "native")
        patch.delenv("CC", raising=False)
        found = Choice().ready(0)
    assert found is not None
    return found


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Threads for every tensor, however small."""
    before = torch.get_num_threads()
    monkeypatch.setattr("deadrelu.kernels.native._ALONE", 0)
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def one_stride(z: torch.Tensor, made: Plan) -> bool:
    """True if the positions of a sample and unit are equally far apart in memory, in some order."""
    at = torch.as_strided(torch.arange(z.untyped_storage().nbytes() // z.element_size()), z.shape, z.stride())
    first = at[tuple(slice(None) if i in made.positions else 0 for i in range(z.ndim))].flatten().sort().values
    return len(first) < 3 or len(first.diff().unique()) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "unit", "memory"), CASES, ids=str)
def test_every_memory(
    native: Native, threads: int, dtype: torch.dtype, shape: tuple[int, ...], unit: int, memory: str
) -> None:
    """Source: DESIGN 2 (active), by numpy in float64: counts, samples, marks and largest equal; sums near."""
    z = with_strange_units(values(shape, dtype, seed=len(memory)), unit)
    z = {**MEMORY, **IMAGES_ONLY}[memory](z)
    made, flat = plain(shape, unit), matrix(z, unit)
    if not one_stride(z, made):
        assert native.engaged(z, KINDS["relu"], made, sums(made.unit_count)) is None
        return
    for kind in KIND_LIST[:4]:
        assert_engaged(native, z, flat, kind, made)
    assert_sizes(native, z, flat, made)
    finite = z.nan_to_num(0, 9, -9)
    assert_sizes(native, finite, matrix(finite, unit), made)


@pytest.mark.parametrize("kind", KIND_LIST, ids=lambda kind: kind.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "unit"), [((19, 100), 1), ((11, 5, 4, 4), 1), ((3, 9, 70), 2), ((5, 4, 12, 11), 1)])
def test_every_kind_at_its_bounds(
    native: Native, kind: Kind, dtype: torch.dtype, shape: tuple[int, ...], unit: int
) -> None:
    """The bounds themselves and their neighbours among the numbers of a dtype, NaN and both infinities."""
    ends = torch.tensor([end for pair in kind.intervals for end in pair], dtype=torch.float64).to(dtype)
    up, down = torch.tensor(INF, dtype=dtype), torch.tensor(-INF, dtype=dtype)
    strange = torch.tensor([math.nan, INF, -INF, 0.0, -0.0], dtype=dtype)
    picks = torch.cat((ends, torch.nextafter(ends, up), torch.nextafter(ends, down), strange))
    rng = torch.Generator().manual_seed(3)
    z = picks[torch.randint(len(picks), shape, generator=rng)]
    assert_engaged(native, z, matrix(z, unit), kind, plain(shape, unit))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(layout=layouts(), seed=st.integers(0, 99), kind=st.sampled_from(KIND_LIST), dtype=st.sampled_from(DTYPES))
def test_every_layout(native: Native, layout: Layout, seed: int, kind: Kind, dtype: torch.dtype) -> None:
    """Units and samples of several factors, in any order: what is read is right, the rest is declined."""
    z = values(layout.shape, dtype, seed)
    made, units, samples = plan(layout), indices(layout, UNIT).flatten(), indices(layout, BATCH).flatten()
    found = sums(made.unit_count)
    seen = native.engaged(z, kind, made, found)
    if seen is None:
        assert not found.count.any()
        return
    on = inside(kind, z.double().reshape(-1).numpy(), dtype)
    fired = np.zeros((layout.samples or 1, layout.units or 1), bool)
    count = np.zeros(layout.units or 1)
    for yes, unit, sample in zip(on.tolist(), units.tolist(), samples.tolist(), strict=True):
        fired[sample, unit] |= yes
        count[unit] += yes
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_array_equal(seen.fired, fired)
    np.testing.assert_array_equal(found.samples, fired.sum(0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_common_layouts_are_read(native: Native, dtype: torch.dtype) -> None:
    """Images, channels last, tokens, rows, heads of one projection: none of these is left to the reference."""
    images, last = torch.zeros(4, 6, 5, 3, dtype=dtype), torch.zeros(4, 5, 3, 6, dtype=dtype).permute(0, 3, 1, 2)
    heads = torch.zeros(4, 7, 2, 3, dtype=dtype).transpose(1, 2)
    for z, made in (
        (images, plain((4, 6, 5, 3), 1)),
        (last, plain((4, 6, 5, 3), 1)),
        (torch.zeros(4, 7, 6, dtype=dtype), plain((4, 7, 6), 2)),
        (torch.zeros(4, 6, dtype=dtype), plain((4, 6), 1)),
        (torch.zeros(28, 6, dtype=dtype), Plan((4, 7, 6), (2,), (0,), (1,), (4, 7, 6))),
        (heads, Plan(None, (1, 3), (0,), (2,), (4, 2, 7, 3))),
        (torch.zeros(5, 6, dtype=dtype), Plan(None, (1,), (), (0,), (5, 6))),  # no batch axis
        (torch.zeros((), dtype=dtype), Plan(None, (), (), (), ())),
    ):
        assert native.engaged(z, KINDS["relu"], made, sums(made.unit_count)) is not None


def test_equal_to_the_reference(native: Native) -> None:
    """Sums of several calls, one implementation after the other: the same rows."""
    made, kind = plain((16, 24, 9, 9), 1), KINDS["gelu"]
    one, other = sums(24), sums(24)
    for seed in range(3):
        z = values((16, 24, 9, 9), torch.float32, seed)
        seen, known = native.engaged(z, kind, made, one), reference.engaged(z, kind, made, other)
        assert seen is not None
        assert torch.equal(seen.fired, known.fired)
        finite = z.nan_to_num(0, 5, -5)
        assert native.squares(finite, made, one)
        reference.squares(finite, made, other)
    for name in ("count", "samples", "top", "largest"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    torch.testing.assert_close(one.square, other.square, rtol=1e-12, atol=0)


def test_the_error_of_sums_is_far_below_a_millionth(native: Native) -> None:
    """Up to 8 numbers are added in float32, at most 3 deep: 3 x 2^-24 = 1.8e-7 is the most that can be lost."""
    rng = torch.Generator().manual_seed(0)
    for shape, unit in (((4096, 40), 1), ((8, 40, 64, 64), 1), ((8, 512, 40), 2)):
        z = torch.empty(shape).exponential_(generator=rng)
        made, to = plain(shape, unit), sums(40)
        assert native.magnitude(z, made, to)
        exact = matrix(z, unit).sum((0, 1))
        assert np.abs(to.magnitude.numpy() / exact - 1).max() < 2e-8


def test_sums_beyond_the_range_of_float32(native: Native) -> None:
    """64 outputs of 3e38 sum to 1.92e40, which float32 does not hold; an infinity stays one."""
    z = torch.full((64, 3), 3e38)
    z[5, 1] = INF
    to, made = sums(3), plain((64, 3), 1)
    assert native.engaged(z, KINDS["relu"], made, to, rectified=True) is not None
    expected = 64 * float(z[0, 0])
    assert to.magnitude.tolist() == [pytest.approx(expected), INF, pytest.approx(expected)]
    assert native.squares(torch.full((64, 3), 1e30), made, to)
    torch.testing.assert_close(to.square, torch.full((3,), 64e60, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_denormals(native: Native, flush: bool, dtype: torch.dtype) -> None:
    """What torch takes for zero while denormals are flushed is a tie then, here as there."""
    tiny = float(torch.finfo(dtype).smallest_normal) / 8
    z = torch.tensor([tiny, -tiny, 0.0, 1.0] * 16, dtype=dtype).view(16, 4)
    made, to = plain((16, 4), 1), sums(4)
    if not torch.set_flush_denormal(flush):
        pytest.skip("this processor cannot flush denormals")
    try:
        assert native.engaged(z, KINDS["relu"], made, to) is not None
        expected = (z > 0).sum(0)
    finally:
        torch.set_flush_denormal(False)
    assert to.count.tolist() == expected.tolist() == [0.0 if flush else 16.0, 0.0, 0.0, 16.0]


@pytest.mark.parametrize("flush", [False, True])
def test_every_number_of_half_precision(native: Native, flush: bool) -> None:
    """All 65,536 numbers of float16 and bfloat16 mean here what they mean to torch."""
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        z = bits.view(dtype).view(1, -1).contiguous()
        made, to = plain(tuple(z.shape), 1), sums(z.shape[1])
        torch.set_flush_denormal(flush)
        try:
            assert native.engaged(z, Kind("any", intervals=((-INF, INF),)), made, to) is not None
        finally:
            torch.set_flush_denormal(False)
        exact = z.double().flatten()
        if dtype == torch.bfloat16 and flush:  # its denormals are denormals of float32, too
            exact = torch.where(exact.abs() < torch.finfo(torch.float32).smallest_normal, to.top, exact)
        torch.testing.assert_close(to.top, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_is_no_memory_is_declined(native: Native) -> None:
    """Other layouts, devices, subclasses and transforms; and tensors whose storage was given back."""
    made = plain((4, 6), 1)

    class Own(torch.Tensor):
        pass

    freed = torch.ones(4, 6)
    freed.untyped_storage().resize_(0)
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = torch.ones(4, 6)
    cases = {
        "subclass": torch.ones(4, 6).as_subclass(Own),  # type: ignore[arg-type]
        "sparse": torch.ones(4, 6).to_sparse(),
        "meta": torch.ones(4, 6, device="meta"),
        "whole": torch.ones(4, 6, dtype=torch.int32),
        "complex": torch.ones(4, 6, dtype=torch.complex64),
        "quantized": torch.quantize_per_tensor(torch.ones(4, 6), 0.1, 0, torch.qint8),
        "negated": torch._neg_view(torch.ones(4, 6)),
        "fake": fake,
        "freed": freed,
        "zero": torch._efficientzerotensor((4, 6)),
        "another shape": torch.ones(4, 7),
        "empty": torch.ones(0, 6),
    }
    for name, z in cases.items():
        assert native.engaged(z, KINDS["relu"], made, sums(6)) is None, name
    with mode:
        assert native.engaged(torch.ones(4, 6), KINDS["relu"], made, sums(6)) is None

    def inner(z: torch.Tensor) -> torch.Tensor:
        assert native.engaged(z, KINDS["relu"], made, sums(6)) is None
        assert native.engaged(torch.ones(4, 6), KINDS["relu"], made, sums(6)) is None
        return z.sum()

    torch.vmap(inner)(torch.ones(3, 4, 6))
    torch.func.grad(inner)(torch.ones(4, 6))


def test_more_intervals_than_two_are_declined(native: Native) -> None:
    kind = Kind("three", intervals=((0.0, 1.0), (2.0, 3.0), (4.0, 5.0)))
    assert native.engaged(torch.ones(4, 6), kind, plain((4, 6), 1), sums(6)) is None


def test_bounds_beyond_the_dtype_are_declined(native: Native) -> None:
    """1e6 is no float16."""
    z = torch.ones(4, 6, dtype=torch.float16)
    assert native.engaged(z, Kind("far", intervals=((1e6, INF),)), plain((4, 6), 1), sums(6)) is None


def test_nothing_is_written(native: Native) -> None:
    """Source: DESIGN 5.1; and a tensor that takes part in autograd is read as any other."""
    z = values((9, 5, 16, 16), torch.float32, 1).requires_grad_()
    before, version = z.detach().clone(), z._version
    made = plain(tuple(z.shape), 1)
    assert native.engaged(z, KINDS["gelu"], made, sums(5)) is not None
    assert native.squares(z, made, sums(5))
    assert torch.equal(z.detach().nan_to_num(7), before.nan_to_num(7))
    assert z._version == version
    assert z.grad_fn is None


def test_a_look_of_one_plan_serves_other_memory(native: Native) -> None:
    """What was worked out for a plan is not taken for a tensor of other strides or another dtype."""
    made, kind = plain((9, 5, 6, 6), 1), KINDS["relu"]
    for dtype in DTYPES:
        for make in (MEMORY["contiguous"], IMAGES_ONLY["channels last"], MEMORY["transposed"]):
            z = make(values((9, 5, 6, 6), dtype, 2))
            assert_engaged(native, z, matrix(z, 1), kind, made)
