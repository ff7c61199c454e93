"""The reference kernels against loops in numpy, for random layouts, dtypes and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import indices, layouts
from numpy.typing import NDArray

from deadrelu.kernels import Plan, Sums, reference
from deadrelu.kernels.reference import engaged_count, magnitude, maximum, square_sum
from deadrelu.kinds import KINDS, Kind
from deadrelu.tracing.layout import BATCH, UNIT, Layout, batch, plan, position, unit

fixed = settings(derandomize=True, deadline=None, max_examples=150)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DEVICES = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
SHAPES = (
    "relu",  # one bound
    "relu6",  # two
    "hardshrink",  # two intervals
    "logsigmoid",  # open to the left
    "silu",  # bounds that no float16 hits
)

Array = NDArray[np.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_device = pytest.mark.parametrize("device", DEVICES)


def values(layout: Layout, dtype: torch.dtype, seed: int, *, strange: bool, device: str = "cpu") -> torch.Tensor:
    """Return pre-activations with ties at zero; `strange`: also NaN and infinities, and a unit of nothing but NaN."""
    rng = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(layout.shape, generator=rng, dtype=torch.float64)
    pick = torch.randint(0, 12, layout.shape, generator=rng)
    z[pick == 0] = 0.0
    if strange:
        for code, value in ((1, torch.nan), (2, torch.inf), (3, -torch.inf)):
            z[pick == code] = value
        z[indices(layout, UNIT) == 1] = torch.nan
    return z.to(dtype).to(device)


def by_unit(layout: Layout, x: torch.Tensor) -> dict[tuple[int, int], Array]:
    """Return the values of each (sample, unit), found one element at a time."""
    found: dict[tuple[int, int], list[float]] = {}
    samples, units = indices(layout, BATCH).flatten().tolist(), indices(layout, UNIT).flatten().tolist()
    for sample, one, value in zip(samples, units, x.double().cpu().flatten().tolist(), strict=True):
        found.setdefault((sample, one), []).append(value)
    return {key: np.array(listed) for key, listed in found.items()}


def pooled(layout: Layout, x: torch.Tensor) -> list[Array]:
    """Return the values of each unit."""
    found = by_unit(layout, x)
    return [np.concatenate([v for (_, u), v in found.items() if u == one]) for one in range(layout.units or 1)]


def inside(kind: Kind, value: Array, dtype: torch.dtype) -> NDArray[np.bool_]:
    """Return where values lie in an interval; torch rounds a bound to the dtype of what it is compared with."""
    on = np.zeros(value.shape, bool)
    for low, high in kind.intervals:
        low, high = (float(torch.tensor(end, dtype=dtype)) for end in (low, high))
        on |= (value >= low if low == -np.inf else value > low) & (value <= high if high == np.inf else value < high)
    return on


@every_device
@every_dtype
@pytest.mark.parametrize("name", SHAPES)
@settings(fixed, max_examples=25)
@given(layout=layouts(), seed=st.integers(0, 99), strange=st.booleans())
def test_engaged_count(name: str, dtype: torch.dtype, device: str, layout: Layout, seed: int, strange: bool) -> None:
    """Source: DESIGN 2 (active), one element at a time: equal to the last count."""
    z, kind = values(layout, dtype, seed, strange=strange, device=device), KINDS[name]
    found = engaged_count(z, kind, plan(layout))
    expected = np.zeros((layout.samples or 1, layout.units or 1))
    for key, value in by_unit(layout, z).items():
        expected[key] = inside(kind, value, dtype).sum()
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.cpu().numpy(), expected)


@every_device
@every_dtype
@fixed
@given(layout=layouts(), seed=st.integers(0, 99), strange=st.booleans())
def test_maximum(dtype: torch.dtype, device: str, layout: Layout, seed: int, strange: bool) -> None:
    """The largest value but NaN, NaN where there is no other; exact, and float64 from the start."""
    z = values(layout, dtype, seed, strange=strange, device=device)
    found = maximum(z, plan(layout))
    expected = [np.fmax.reduce(value) for value in pooled(layout, z)]
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found.cpu().numpy(), expected)


@every_device
@every_dtype
@pytest.mark.parametrize("name", ["silu", "relu"])
@settings(fixed, max_examples=50)
@given(layout=layouts(), seed=st.integers(0, 99), strange=st.booleans())
def test_magnitude(name: str, dtype: torch.dtype, device: str, layout: Layout, seed: int, strange: bool) -> None:
    """The sum of |h|; of a kind that declares h >= 0, of h. NaN and infinity are not hidden."""
    h, kind = values(layout, dtype, seed, strange=strange, device=device), KINDS[name]
    h = h.relu() if kind.nonnegative else h
    found = magnitude(h, kind, plan(layout))
    expected = [np.abs(value).sum() for value in pooled(layout, h)]
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-14 if dtype == torch.float64 else 1e-6)


@every_device
@every_dtype
@settings(fixed, max_examples=50)
@given(layout=layouts(), seed=st.integers(0, 99), strange=st.booleans(), scale=st.sampled_from([1.0, 1e-4, 1e4]))
def test_square_sum(dtype: torch.dtype, device: str, layout: Layout, seed: int, strange: bool, scale: float) -> None:
    """The sum of g^2 in float64: no square under- or overflows in half precision."""
    g = values(layout, dtype, seed, strange=strange, device=device) * scale
    found = square_sum(g, plan(layout))
    with np.errstate(invalid="ignore"):
        expected = [np.square(value).sum() for value in pooled(layout, g)]
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-13)
    quick = square_sum(g, plan(layout), quick=True)
    np.testing.assert_allclose(quick.cpu().numpy(), expected, rtol=1e-13 if dtype == torch.float64 else 1e-6)


IMAGES = Layout((batch(6), unit(5), position(4), position(3)))
TOKENS = Layout((batch(6), position(8), unit(10)))
FOLDED = Layout((batch(6) + position(8), unit(10)))
PLAIN = Layout((batch(60), unit(7)))
LATER = Layout((position(8), batch(6), unit(10)))


def every_number(z: torch.Tensor, layout: Layout) -> list[Array]:
    made, kind = plan(layout), KINDS["gelu"]
    return [
        found.double().numpy()
        for found in (
            engaged_count(z, KINDS["relu"], made),
            engaged_count(z, kind, made),
            maximum(z, made),
            magnitude(z, kind, made),
            square_sum(z, made),
        )
    ]


def assert_equal(found: list[Array], expected: list[Array]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


@pytest.mark.parametrize("block", [1, 59, 60, 61, 120, 359, 360, 361, 480, 10**6])
@pytest.mark.parametrize(
    "layout", [IMAGES, TOKENS, FOLDED, PLAIN, LATER], ids=["image", "tokens", "folded", "plain", "later"]
)
def test_blocks_change_no_number(layout: Layout, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of one row, of whole rows, one element too few or too many, of everything."""
    z = values(layout, torch.float64, 3, strange=True)
    monkeypatch.setattr(reference, "BLOCK", 10**9)
    expected = every_number(z, layout)
    monkeypatch.setattr(reference, "BLOCK", block)
    assert_equal(every_number(z, layout), expected)


def test_blocks_cut_along_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut is made where it costs nothing, and a block never exceeds the bound while it holds more than a row."""
    monkeypatch.setattr(reference, "BLOCK", 130)
    z = torch.zeros(IMAGES.shape)
    assert [len(part) for part in reference._blocks(z, plan(IMAGES))] == [2, 2, 2]
    later = torch.zeros(LATER.shape)
    assert [part.shape for part in reference._blocks(later, plan(LATER))] == [later.shape]


def strided(z: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the same values, every second element of a larger one, which holds NaN beside them."""
    wide = torch.full((*z.shape[:-1], 2 * z.shape[-1]), torch.nan, dtype=z.dtype)
    wide[..., ::2] = z
    return wide[..., ::2]


MEMORY: dict[str, Any] = {
    "channels last": lambda z: z.contiguous(memory_format=torch.channels_last),
    "transposed": lambda z: z.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": strided,
    "expanded": lambda z: z[:1].expand(z.shape),
    "negative bit": lambda z: torch._neg_view(-z),
}


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("block", [61, 10**9])
@pytest.mark.parametrize("layout", [IMAGES, Layout((batch(6), position(2) + unit(5), position(4), unit(1)))])
def test_memory_format_changes_no_number(
    layout: Layout, block: int, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a tensor lies in memory: the numbers of its contiguous copy."""
    monkeypatch.setattr(reference, "BLOCK", block)
    z = MEMORY[memory](values(layout, torch.float64, 4, strange=True))
    assert memory in ("expanded", "negative bit") or not z.is_contiguous() or layout is not IMAGES
    assert_equal(every_number(z, layout), every_number(z.clone(memory_format=torch.contiguous_format), layout))


def test_many_positions_are_counted_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 holds every integer up to 2^24 = 16,777,216; a tensor of that many positions is not made here."""
    made, z = plan(TOKENS), torch.ones(TOKENS.shape)
    for positions, dtype in (((1 << 24) - 1, torch.float32), (1 << 24, torch.float64)):
        monkeypatch.setattr(Plan, "position_count", property(lambda _, n=positions: n))
        for name in ("relu", "gelu"):
            assert engaged_count(z, KINDS[name], made).dtype == dtype


def test_a_number_is_one_unit() -> None:
    """A tensor without dimensions."""
    z = torch.tensor(2.5, dtype=torch.float64)
    counts, gelu_counts, top, size, square = every_number(z, Layout(()))
    assert counts.tolist() == gelu_counts.tolist() == [[1.0]]
    assert (top.tolist(), size.tolist(), square.tolist()) == ([2.5], [2.5], [6.25])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_half_precision_sums(dtype: torch.dtype) -> None:
    """10,000 outputs of 60,000 sum to 6e8, and their squares to 3.6e13, in every dtype."""
    z = torch.full((100, 100, 2), 6e4, dtype=torch.float64).to(dtype)
    made, size = plan(Layout((batch(100), position(100), unit(2)))), float(z[0, 0, 0])
    np.testing.assert_allclose(magnitude(z, KINDS["relu"], made), 1e4 * size, rtol=1e-6)
    np.testing.assert_allclose(square_sum(z, made), 1e4 * size**2, rtol=1e-12)


def test_nothing_is_written_and_no_gradient_flows() -> None:
    """Source: DESIGN 5.1: an audit changes nothing; and no number keeps the graph of a forward pass alive."""
    z = values(TOKENS, torch.float32, 5, strange=True).requires_grad_()
    before, version = z.detach().clone(), z._version
    made = plan(TOKENS)
    for found in (
        engaged_count(z, KINDS["relu"], made),
        maximum(z, made),
        magnitude(z, KINDS["silu"], made),
        square_sum(z, made),
    ):
        assert not found.requires_grad
    assert torch.equal(z.detach().nan_to_num(7), before.nan_to_num(7))
    assert z._version == version


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("rows", "units"), [(512, 2), (1000, 24), (4096, 16), (513, 20), (640, 100), (3, 5), (64, 1)])
def test_few_units_side_by_side_are_folded(rows: int, units: int, dtype: torch.dtype) -> None:
    """Rows folded into one another give the largest elements of torch, NaN and infinities included."""
    z = torch.randn(rows, units, generator=torch.Generator().manual_seed(rows)).to(dtype)
    z[rows // 2, 0], z[1, -1], z[2, units // 2] = torch.nan, torch.inf, -torch.inf
    flat = Plan(None, (1,), (0,), (), tuple(z.shape))
    assert flat.slender == (rows >= 512)
    torch.testing.assert_close(reference.top(z, flat), z.amax(0), rtol=0, atol=0, equal_nan=True)
    if rows % 64 == 0:
        image = z.view(rows // 64, 8, 8, units).permute(0, 3, 1, 2)
        plan = Plan(None, (1,), (0,), (2, 3), tuple(image.shape))
        for held in (image, image.contiguous()):
            torch.testing.assert_close(reference.top(held, plan), z.amax(0), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["relu", "relu6"])
@pytest.mark.parametrize("strange", [False, True])
def test_a_small_tensor_is_counted_as_any_other(name: str, strange: bool) -> None:
    """Whether or not its largest elements are known; 64 x 300 elements are no small tensor, half of them are."""
    layout = Layout((batch(64), unit(300)))
    z = values(layout, torch.float32, 5, strange=strange)
    whole, made = plan(layout), plan(Layout((batch(64), unit(150))))
    expected, *found = Sums(300, z.device), *(Sums(150, z.device) for _ in range(4))
    large = reference.engaged(z, KINDS[name], whole, expected)
    for i, sums in enumerate(found):
        half = z[:, i % 2 * 150 :][:, :150]
        seen = reference.engaged(half, KINDS[name], made, sums, half.amax(0) if i < 2 else None)
        np.testing.assert_array_equal(seen.fired, large.fired[:, i % 2 * 150 :][:, :150])
        np.testing.assert_array_equal(sums.rows[:3], expected.rows[:3, i % 2 * 150 :][:, :150])
        assert seen.count is not None
        np.testing.assert_array_equal(seen.count, sums.count)
