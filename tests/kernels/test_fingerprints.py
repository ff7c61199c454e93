"""Fingerprints: whether parameters hold what they held, with and without compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deadrelu import kernels
from deadrelu.fingerprints import Fingerprints
from deadrelu.kernels.choice import Choice

Edit = Callable[[Tensor], object]


@pytest.fixture(params=["native", "reference"], autouse=True)
def choice(request: pytest.FixtureRequest, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to compare."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    monkeypatch.setenv("DEADRELU_KERNELS", request.param)
    native = Choice().ready(0)
    assert isinstance(native, kernels.Native) == (request.param == "native")
    monkeypatch.setattr(kernels.CHOICE, "native", native)


def parameters(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return a bias, weights of two and four axes, a wide one, channels last, one number, and nothing."""
    torch.manual_seed(0)
    shapes = [(37,), (16, 24), (16, 8, 3, 3), (2000, 700), (), (0, 5)]
    made = [torch.randn(shape).to(dtype) for shape in shapes]
    made.append(torch.randn(16, 8, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last))
    return [nn.Parameter(t) for t in made]


EDITS: dict[str, Edit] = {
    "filled": lambda p: p.data.fill_(-7.0),
    "scaled": lambda p: p.data.mul_(-3.0),
    "replaced": lambda p: setattr(p, "data", p.data - 1.0),
    "one row": lambda p: p.data.view(-1)[: max(1, p.numel() // 8)].sub_(5.0),
    "one byte of the first element": lambda p: p.data.view(torch.uint8).view(-1)[:1].bitwise_xor_(1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex128])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_raises_no_version_is_told(edit: str, dtype: torch.dtype) -> None:
    """Of each parameter by itself, and no longer once it is what is held."""
    held = [p for p in parameters(dtype) if p.dim() and p.numel() and p.is_contiguous()]
    prints = Fingerprints(held)
    prints.keep()
    assert prints.changed() == []
    for i, p in enumerate(held):
        version = p._version
        EDITS[edit](p)
        assert p._version == version
        assert prints.changed() == [i]
        prints.keep()
        assert prints.changed() == []


def test_every_element_of_a_vector_and_a_row_of_each_matrix() -> None:
    for p in parameters()[:3]:
        prints = Fingerprints([p])
        prints.keep()
        for unit in range(p.shape[0]):
            p.data[unit] += 1
            assert prints.changed() == [0]
            p.data[unit] -= 1
            prints.keep()


def test_channels_last_and_a_single_number() -> None:
    held = parameters()
    prints = Fingerprints(held)
    prints.keep()
    held[6].data.add_(1)
    held[4].data.add_(1)
    assert prints.changed() == [4, 6]


def test_what_is_put_back_has_not_changed() -> None:
    held = parameters()
    prints = Fingerprints(held)
    prints.keep()
    own = [p.data.clone() for p in held]
    for p in held:
        p.data.zero_()
    for p, was in zip(held, own, strict=True):
        p.data = was  # elsewhere in memory
    assert prints.changed() == []


def test_a_nan_is_what_it_was() -> None:
    p = nn.Parameter(torch.full((9,), torch.nan))
    prints = Fingerprints([p])
    prints.keep()
    assert prints.changed() == []


def test_memory_that_is_given_back_is_not_read() -> None:
    """As where parameters are sharded: the storage is freed between uses."""
    p, other = nn.Parameter(torch.randn(4000, 100)), nn.Parameter(torch.randn(5))
    prints = Fingerprints([p, other])
    prints.keep()
    size = p.untyped_storage().nbytes()
    p.untyped_storage().resize_(0)  # which it can, for nothing of ours holds it in place
    other.data.add_(1)
    assert prints.changed() == [1]
    prints.keep()
    p.untyped_storage().resize_(size)
    assert prints.changed() == []


def test_parameters_whose_memory_is_swapped_all_the_time_are_left_alone() -> None:
    """As an optimizer does that assigns `.data`."""
    p, other = nn.Parameter(torch.randn(30, 4)), nn.Parameter(torch.randn(5))
    prints = Fingerprints([p, other])
    alive = []
    for _ in range(40):
        alive.append(p.data)  # or the allocator hands out the same memory again
        p.data = p.data - 0.1
        prints.keep()
        assert prints.changed() == []
    assert prints.restless == {0}
    other.data.add_(1)
    assert prints.changed() == [1]


def test_what_cannot_be_read_is_left_alone() -> None:
    held = [torch.randn(3, device="meta"), torch.eye(3).to_sparse(), torch.randn(0)]
    prints = Fingerprints(held)
    prints.keep()
    assert prints.changed() == []
    prints.close()
    assert prints.changed() == []


def test_how_a_vector_has_changed() -> None:
    p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.5]))
    prints = Fingerprints([p])
    prints.keep()
    p.data[1] -= 4.0
    assert prints.changed() == [0]
    change = prints.change(0)
    assert change.rows.tolist() == [False, True, False, False]
    assert change.shift is not None
    assert change.shift.tolist() == [0.0, -4.0, 0.0, 0.0]
    assert change.size == pytest.approx(4 / (14.25 / 4) ** 0.5)


@pytest.mark.parametrize("shape", [(20, 6), (500, 30), (300, 4, 3, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_which_rows_of_a_weight_have_changed(shape: tuple[int, ...], channels_last: bool) -> None:
    """Of a wide one those between two that are read and have changed, too; never one beside rows that have not."""
    torch.manual_seed(0)
    weight = torch.randn(shape)
    if channels_last and len(shape) == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    p = nn.Parameter(weight)
    prints = Fingerprints([p])
    prints.keep()
    first, last = shape[0] // 4, shape[0] // 2
    p.data[first:last] *= -2.0
    assert prints.changed() == [0]
    rows = prints.change(0).rows
    sure = -(-shape[0] // 32) + 1
    assert rows[first + sure : last - sure].all()
    assert not rows[:first].any()
    assert not rows[last:].any()
    assert prints.change(0).shift is None
    assert 1.5 < prints.change(0).size < 6


def test_a_parameter_of_another_shape_has_changed_throughout() -> None:
    p = nn.Parameter(torch.randn(5, 3))
    prints = Fingerprints([p])
    prints.keep()
    p.data = torch.randn(7, 3)
    assert prints.changed() == [0]
    assert prints.change(0).rows.tolist() == [True] * 7


def test_memory_that_is_shared_with_others_is_not_read() -> None:
    """A part of a wider tensor: what lies between its rows is not its own."""
    buffer = torch.randn(8, 10)
    p = nn.Parameter(buffer[:, :4])
    prints = Fingerprints([p])
    prints.keep()
    buffer[:, 5] = 9.0
    assert prints.changed() == []
    assert not prints.reads(0)
