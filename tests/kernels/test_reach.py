"""The largest z of each unit, written into a row: equal to a look at each element, and never beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensors import DTYPES, IMAGES_ONLY, MEMORY, SHAPES, matrix, plain, values, with_strange_units
from torch import nn

import deadrelu
from deadrelu import kernels
from deadrelu.kernels.choice import Choice
from deadrelu.kernels.native import Native, Reach
from deadrelu.taps.shortcuts import Beat

GUARD = 123.0


@pytest.fixture(scope="module")
def chosen(built: Path) -> Choice:
    """A choice with compiled kernels."""
    choice = Choice()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(built))
        patch.setenv("DEADRELU_KERNELS", "native")
        patch.delenv("CC", raising=False)
        assert choice.ready(0) is not None
    return choice


@pytest.fixture(scope="module")
def native(chosen: Choice) -> Native:
    assert chosen.native is not None
    return chosen.native


def row_for(z: torch.Tensor, units: int) -> torch.Tensor:
    """Return a row among guards."""
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    return torch.full((units + 8,), GUARD, dtype=wide)


def made_for(native: Native, z: torch.Tensor, unit: int) -> Reach:
    made = native.reach(z, plain(tuple(z.shape), unit), row_for(z, z.shape[unit])[4:-4])
    assert made is not None
    return made


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory", [*MEMORY, *IMAGES_ONLY])
@pytest.mark.parametrize(("shape", "unit"), SHAPES, ids=str)
def test_every_memory(
    native: Native,
    dtype: torch.dtype,
    memory: str,
    shape: tuple[int, ...],
    unit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Source: numpy's maximum in float64, which is NaN where an element is; with and without NaN."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # with more, large tensors are left to torch
    if memory in IMAGES_ONLY and len(shape) != 4:
        return
    strange = with_strange_units(values(shape, dtype, seed=len(memory)), unit)
    for z in (strange, strange.nan_to_num(-7.0)):
        z = {**MEMORY, **IMAGES_ONLY}[memory](z)
        row = row_for(z, shape[unit])
        made = native.reach(z, plain(shape, unit), row[4:-4])
        if made is None:  # positions that no single stride enumerates
            assert native.maximum(z, plain(shape, unit)) is None
            continue
        assert made.into(z, row[4:-4].data_ptr())
        flat = matrix(z, unit).reshape(-1, shape[unit])
        np.testing.assert_array_equal(row[4:-4], np.maximum.reduce(flat))
        assert (row[:4] == GUARD).all()
        assert (row[-4:] == GUARD).all()


@pytest.mark.parametrize("at", [0, 1, 62, 63, 64, 129, 255, -1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_nan_of_either_sign(native: Native, dtype: torch.dtype, sign: float, at: int) -> None:
    for shape, unit in (((256, 3), 1), ((2, 3, 256), 1), ((1, 256, 3), 2), ((4, 3, 8, 8), 1), ((3, 3, 601), 1)):
        z = torch.linspace(-5, 5, math.prod(shape)).reshape(shape).to(dtype)
        column = z.select(unit, 1).flatten()
        column[at] = math.copysign(math.nan, sign)
        z.select(unit, 1).copy_(column.view(z.select(unit, 1).shape))
        row = row_for(z, 3)
        assert made_for(native, z, unit).into(z, row[4:-4].data_ptr())
        assert row[4:-4].isnan().tolist() == [False, True, False]


def test_what_is_another_kind_is_declined(native: Native) -> None:
    z = torch.randn(8, 6)
    made, row = made_for(native, z, 1), row_for(z, 6)
    address = row[4:-4].data_ptr()
    given_back = torch.randn(8, 6)
    given_back.untyped_storage().resize_(0)
    turned = torch.complex(torch.randn(8, 12), torch.randn(8, 12))[:, ::1].conj().imag[:, :6]
    same = torch._neg_view(torch.randn(8, 6))
    assert same.is_neg()
    for other in (z.double(), z.half(), torch.randn(6, 8).T, given_back, turned, same):
        assert not made.into(other, address)
    refused = []

    def inside(x: torch.Tensor) -> torch.Tensor:
        refused.append(not made.into(x, address))
        return x

    torch.func.vmap(inside)(torch.randn(2, 8, 6))
    torch.func.grad(lambda x: inside(x).sum())(torch.randn(8, 6))
    assert refused == [True, True]
    assert (row == GUARD).all()
    assert made.into(z, address)


def test_a_row_of_another_kind_is_declined(native: Native) -> None:
    z = torch.randn(8, 6)
    made = plain((8, 6), 1)
    for row in (
        torch.empty(6, dtype=torch.float64),
        torch.empty(5),
        torch.empty(12)[::2],
        torch.empty(6, device="meta"),
    ):
        assert native.reach(z, made, row) is None
    assert native.reach(z.double(), made, torch.empty(6)) is None
    assert native.reach(z, made, torch.empty(6)) is not None


def test_many_threads_leave_large_tensors_to_torch(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    large, row = torch.randn(1 << 12, 64), torch.empty(64)
    for threads, expected in ((1, True), (4, False)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert (native.reach(large, plain((1 << 12, 64), 1), row) is not None) == expected
        assert native.reach(large[:64], plain((64, 64), 1), row) is not None


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "rows":
        return nn.Sequential(nn.Linear(20, 33), nn.ReLU(), nn.Linear(33, 40), nn.ReLU(inplace=True), nn.Linear(40, 3))
    stem = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 12, 3), nn.ReLU())
    return nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))


def train(kind: str, dtype: torch.dtype) -> dict[str, Any]:
    """Train with deaths, batches of two sizes, and a batch with a NaN; return what the monitor found."""
    model = network(kind).to(dtype)
    if kind != "rows":
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    shape = (20,) if kind == "rows" else (3, 6, 6)
    rng = torch.Generator().manual_seed(1)
    found: dict[str, Any] = {"tops": []}
    with deadrelu.Monitor(model, optimizer, window=20, strict=True) as monitor:
        for step in range(160):
            x = torch.randn(64 if step % 5 else 24, *shape, generator=rng).to(dtype)
            if step == 130:
                x[3] = math.nan
            y = torch.randint(3, (len(x),), generator=rng)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if step != 130:
                loss.backward()
            if step == 50:
                with torch.no_grad():
                    for layer in model.modules():
                        if isinstance(layer, (nn.Linear, nn.BatchNorm2d)) and len(layer.weight) > 8:
                            layer.bias[::3] = -20
            optimizer.step()
            last = monitor.last_window
            if monitor.steps % 20 == 0 and last is not None:
                found["tops"].append([site.max_z.tolist() for site in last.sites])
    sites = monitor.report().to_dict()["sites"]
    for site in sites:
        del site["grad_flow"]  # a sum of squares, in another order
    return {**found, "sites": sites, "deaths": [(d.site, d.unit, d.killed_by_step) for d in monitor.deaths]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["rows", "images"])
def test_a_training_is_told_alike(
    kind: str, dtype: torch.dtype, chosen: Choice, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same largest z of every unit and window, the same deaths at the same steps, as by plain torch."""
    monkeypatch.setattr(kernels.CHOICE, "native", None)
    expected = train(kind, dtype)
    asked: list[bool] = []
    into = Reach.into

    def noted(self: Reach, z: torch.Tensor, row: int) -> bool:
        asked.append(into(self, z, row))
        return asked[-1]

    monkeypatch.setattr(Reach, "into", noted)
    monkeypatch.setattr(kernels.CHOICE, "native", native)
    found = train(kind, dtype)
    assert sum(asked) > 100
    assert expected["deaths"]
    assert repr(found) == repr(expected)  # NaN equals NaN


def test_kernels_that_come_later_are_taken_up(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.CHOICE, "native", None)
    by_torch: list[int] = []
    keep = Beat.keep

    def noted(self: Beat, z: torch.Tensor, number: int) -> None:
        by_torch.append(number)
        keep(self, z, number)

    monkeypatch.setattr(Beat, "keep", noted)
    model = network("rows")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with deadrelu.Monitor(model, optimizer, window=50, strict=True) as monitor:
        for step in range(48):
            if step == 20:
                monkeypatch.setattr(kernels.CHOICE, "native", native)
                assert len(by_torch) > 20
                by_torch.clear()
            optimizer.zero_grad()
            model(torch.randn(16, 20)).sum().backward()
            optimizer.step()
        assert len(by_torch) == 2  # once for each site
        monitor.close()
        assert len(monitor.report().sites) == 2
