"""The formulas of inductor's kernels, as plain torch: equal to a look at each element."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from elements import CASES, KIND_LIST, assert_engaged, assert_sizes, sums
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import indices, layouts
from tensors import DTYPES, IMAGES_ONLY, MEMORY, as_written, inside, matrix, plain, values, with_strange_units

from deadrelu.kernels import Plan, inductor
from deadrelu.kernels.inductor import Inductor
from deadrelu.kernels.roles import dense
from deadrelu.kinds import INF, KINDS, Kind
from deadrelu.tracing.layout import BATCH, UNIT, Layout, plan

DEVICES = [torch.device(name) for name in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))]
every_device = pytest.mark.parametrize("device", DEVICES, ids=str)
RELU = KINDS["relu"]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Inductor:
    """Kernels that compute by the formulas themselves."""
    monkeypatch.setattr(inductor, "lowered", as_written)
    return Inductor(forced="asked for")


def is_read(z: torch.Tensor, made: Plan) -> bool:
    """True if a count of such a tensor is made by inductor."""
    return dense(z, made) is not None and (made.position_count > 1 or (z.shape[0] % 8 == 0 and z.shape[0] > 8))


@every_device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "unit", "memory"), [*CASES, ((24, 100), 1, "turned"), ((64, 3), 1, "contiguous")])
def test_every_memory(
    written: Inductor, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], unit: int, memory: str
) -> None:
    """Source: DESIGN 2 (active), by numpy in float64: counts, samples, marks and largest equal; sums near."""
    z = with_strange_units(values(shape, dtype, seed=len(memory)), unit)
    z = {**MEMORY, **IMAGES_ONLY}[memory](z)
    made, flat = plain(shape, unit), matrix(z, unit)
    z = z.to(device)
    if not is_read(z, made):
        to = sums(made.unit_count, z.device)
        assert written.engaged(z, RELU, made, to) is None
        assert not to.count.any()
        return
    for kind in KIND_LIST[:4]:
        assert_engaged(written, z, flat, kind, made)
    assert_sizes(written, z, flat, made)


def test_every_memory_reads_most() -> None:
    """The test above would pass if nothing were read: of its cases these are."""
    read = 0
    for shape, unit, memory in CASES:
        z = {**MEMORY, **IMAGES_ONLY}[memory](torch.zeros(shape))
        read += is_read(z, plain(shape, unit))
    assert read > 30


@every_device
@pytest.mark.parametrize("kind", KIND_LIST, ids=lambda kind: kind.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "unit"), [((24, 100), 1), ((11, 5, 4, 4), 1), ((3, 9, 70), 2)])
def test_every_kind_at_its_bounds(
    written: Inductor, device: torch.device, kind: Kind, dtype: torch.dtype, shape: tuple[int, ...], unit: int
) -> None:
    """The bounds themselves and their neighbours among the numbers of a dtype, NaN and both infinities."""
    ends = torch.tensor([end for pair in kind.intervals for end in pair], dtype=torch.float64).to(dtype)
    up, down = torch.tensor(INF, dtype=dtype), torch.tensor(-INF, dtype=dtype)
    strange = torch.tensor([torch.nan, INF, -INF, 0.0, -0.0], dtype=dtype)
    picks = torch.cat((ends, torch.nextafter(ends, up), torch.nextafter(ends, down), strange))
    z = picks[torch.randint(len(picks), shape, generator=torch.Generator().manual_seed(3))]
    assert_engaged(written, z.to(device), matrix(z, unit), kind, plain(shape, unit))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(layout=layouts(), seed=st.integers(0, 99), kind=st.sampled_from(KIND_LIST), dtype=st.sampled_from(DTYPES))
def test_every_layout(layout: Layout, seed: int, kind: Kind, dtype: torch.dtype) -> None:
    """Units and samples of several factors, in any order: what is read is right, the rest is declined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inductor, "lowered", as_written)
        z, made = values(layout.shape, dtype, seed), plan(layout)
        found = sums(made.unit_count)
        seen = Inductor(forced="asked for").engaged(z, kind, made, found)
    if seen is None:
        assert not found.count.any()
        return
    units, samples = indices(layout, UNIT).flatten(), indices(layout, BATCH).flatten()
    on = inside(kind, z.double().reshape(-1).numpy(), dtype)
    fired = np.zeros((layout.samples or 1, layout.units or 1), bool)
    count = np.zeros(layout.units or 1)
    for yes, unit, sample in zip(on.tolist(), units.tolist(), samples.tolist(), strict=True):
        fired[sample, unit] |= yes
        count[unit] += yes
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_array_equal(seen.fired, fired)
    np.testing.assert_array_equal(found.samples, fired.sum(0))


def test_the_common_layouts_are_read(written: Inductor) -> None:
    """Images, channels last, tokens, rows, heads of one projection, no batch axis."""
    for z, made in (
        (torch.zeros(4, 6, 5, 3), plain((4, 6, 5, 3), 1)),
        (torch.zeros(4, 5, 3, 6).permute(0, 3, 1, 2), plain((4, 6, 5, 3), 1)),
        (torch.zeros(4, 7, 6), plain((4, 7, 6), 2)),
        (torch.zeros(1, 7, 6), plain((1, 7, 6), 2)),
        (torch.zeros(16, 6), plain((16, 6), 1)),
        (torch.zeros(28, 6), Plan((4, 7, 6), (2,), (0,), (1,), (4, 7, 6))),
        (torch.zeros(4, 7, 2, 3), Plan(None, (2, 3), (0,), (1,), (4, 7, 2, 3))),
        (torch.zeros(5, 6), Plan(None, (1,), (), (0,), (5, 6))),
    ):
        assert written.engaged(z, RELU, made, sums(made.unit_count)) is not None


def test_counts_beyond_the_integers_of_float32(written: Inductor) -> None:
    """2^24 + 3 positions of one unit, all engaged: float32 would count 2^24."""
    many = (1 << 24) + 3
    z = torch.ones(1, dtype=torch.bfloat16).expand(2 * many).clone().view(1, 2, many)
    to = sums(2)
    assert written.engaged(z, RELU, plain((1, 2, many), 1), to) is not None
    assert to.count.tolist() == [float(many)] * 2


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_is_no_memory_is_declined(written: Inductor) -> None:
    """Other layouts, subclasses, transforms, addresses at odd places; and tensors whose storage was given back."""
    made, freed = plain((16, 6), 1), torch.ones(16, 6)
    freed.untyped_storage().resize_(0)
    cases = {
        "subclass": torch.ones(16, 6).as_subclass(type("Own", (torch.Tensor,), {})),
        "sparse": torch.ones(16, 6).to_sparse(),
        "meta": torch.ones(16, 6, device="meta"),
        "whole": torch.ones(16, 6, dtype=torch.int32),
        "negated": torch._neg_view(torch.ones(16, 6)),
        "freed": freed,
        "one past a sixteenth": torch.ones(97)[1:].view(16, 6),
        "another shape": torch.ones(16, 7),
        "empty": torch.ones(0, 6),
    }
    for name, z in cases.items():
        assert written.engaged(z, RELU, made, sums(6)) is None, name
    far = Kind("far", intervals=((1e6, INF),))  # 1e6 is no float16
    assert written.engaged(torch.ones(16, 6, dtype=torch.float16), far, made, sums(6)) is None

    def inner(z: torch.Tensor) -> torch.Tensor:
        assert written.engaged(z, RELU, made, sums(6)) is None
        return z.sum()

    torch.vmap(inner)(torch.ones(3, 16, 6))
    torch.func.grad(inner)(torch.ones(16, 6))
    assert not written.reason
    assert written.engaged(torch.ones(16, 6), RELU, made, sums(6)) is not None
