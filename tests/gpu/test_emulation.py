"""The emulated GPU is as strict as a real one: what would fail, wait or be garbage there does so here."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .emulated import Device

on = torch.device("cuda", 0)


def values() -> Tensor:
    return torch.arange(6.0, device="cuda")


def test_tensors_are_plain_ones_that_say_they_are_on_the_device(emulation: Device) -> None:
    for tensor in (values(), values()[2:], values().view(2, 3).T, torch.zeros(3).cuda(), torch.randn(2, device=on)):
        assert type(tensor) is Tensor
        assert tensor.device == on
        assert tensor.is_cuda
    model = nn.Linear(2, 2).to("cuda")
    assert model.weight.device == on
    assert isinstance(model.weight, nn.Parameter)
    assert values().view(2, 3).T.add(1).cpu().tolist() == [[1, 4], [2, 5], [3, 6]]


def test_views_share_memory_and_versions(emulation: Device) -> None:
    whole = values()
    part = whole[2:4]
    part.mul_(10)
    assert whole.tolist() == [0, 1, 20, 30, 4, 5]
    assert whole._version == part._version == 1


MIXED: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda t: t + torch.ones(6),
    "in place": lambda t: t.add_(torch.ones(6)),
    "out": lambda t: torch.amax(t[None], 0, out=torch.empty(6)),
    "cat": lambda t: torch.cat((t, torch.ones(6))),
    "linear": lambda t: F.linear(t, torch.ones(2, 6)),
    "foreach": lambda t: torch._foreach_add_([t], [torch.ones(6)]),
    "numpy": lambda t: t.numpy(),
    "asarray": lambda t: np.asarray(t),
}


@pytest.mark.parametrize("how", MIXED)
def test_what_mixes_host_and_device_is_refused(emulation: Device, how: str) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        MIXED[how](values())


def test_a_number_of_the_host_may_be_mixed_in(emulation: Device) -> None:
    assert (values() + torch.tensor(2.0)).tolist()[0] == 2


WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda t: t[1].item(),
    "bool": lambda t: bool(t[1] > 0),
    "float": lambda t: float(t[1]),
    "tolist": lambda t: t.tolist(),
    "nonzero": lambda t: t.nonzero(),
    "mask": lambda t: t[t > 2],
    "masked_select": lambda t: t.masked_select(t > 2),
    "equal": lambda t: torch.equal(t, t.clone()),
    "unique": lambda t: t.unique(),
    "cpu": lambda t: t.cpu(),
    "copy to pageable memory": lambda t: torch.empty(6).copy_(t, non_blocking=True),
    "copy to pinned memory": lambda t: torch.empty(6, pin_memory=True).copy_(t),
    "copy to the device": lambda t: torch.ones(6).to("cuda"),
    "tensor": lambda t: torch.tensor([1.0, 2.0], device="cuda"),
    "as_tensor": lambda t: torch.as_tensor(1.0, device="cuda"),
    "index of the host": lambda t: t[torch.tensor([1, 2])],
    "an element that is set": lambda t: t.__setitem__(2, 7.0),
    "synchronize": lambda t: torch.cuda.synchronize(),
    "stream": lambda t: torch.cuda.current_stream().synchronize(),
}
SILENT: dict[str, Callable[[Tensor], Any]] = {
    "full": lambda t: torch.full((2,), 3.0, device="cuda"),
    "where with numbers": lambda t: torch.where(t > 2, 0.0, t),
    "masked_fill": lambda t: t.masked_fill(t > 2, 0.0),
    "index_select": lambda t: t.index_select(0, torch.zeros(2, dtype=torch.int64, device="cuda")),
    "copy that need not block": lambda t: torch.ones(6).to("cuda", non_blocking=True),
    "device to device": lambda t: torch.empty(6, device="cuda").copy_(t),
    "another dtype": lambda t: t.double().half(),
    "backward": lambda t: t.clone().requires_grad_().mul(2).sum().backward(),
}


@pytest.mark.parametrize("how", WAITS)
def test_what_waits(emulation: Device, how: str) -> None:
    WAITS[how](values())
    assert emulation.waits
    assert not emulation.waits[-1].own
    assert any("test_emulation" in call for call in emulation.waits[-1].stack)


@pytest.mark.parametrize("how", SILENT)
def test_what_does_not_wait(emulation: Device, how: str) -> None:
    SILENT[how](values())
    assert [str(wait) for wait in emulation.waits] == []


@pytest.mark.parametrize("how", WAITS)
def test_what_waits_is_illegal_while_a_graph_is_captured(emulation: Device, how: str) -> None:
    given = values()
    with emulation.capture(), pytest.raises(RuntimeError):
        WAITS[how](given)


def test_a_copy_that_does_not_block_comes_late(emulation: Device) -> None:
    """Until an event behind it has passed, there is garbage; the value is that of the time of the copy."""
    given, host, event = values(), torch.empty(6, pin_memory=True), torch.cuda.Event()
    host.copy_(given, non_blocking=True)
    event.record()
    given.zero_()
    assert host.tolist() != [0, 1, 2, 3, 4, 5]
    assert not event.query()
    for _ in range(100):
        given.add_(1)
    assert host.tolist() != [0, 1, 2, 3, 4, 5], "nobody has asked"
    assert event.query()
    assert host.tolist() == [0, 1, 2, 3, 4, 5]
    assert not emulation.waits


def test_an_event_that_has_not_passed_is_waited_for(emulation: Device) -> None:
    given, host, event = values(), torch.empty(6, pin_memory=True), torch.cuda.Event()
    host.copy_(given, non_blocking=True)
    event.record()
    event.synchronize()
    assert host.tolist() == [0, 1, 2, 3, 4, 5]
    assert [wait.reason for wait in emulation.waits] == ["Event.synchronize"]


def test_copies_that_are_taken_too_early_are_refused(emulation: Device) -> None:
    """By way of pageable memory, as those to another dtype or to strided memory go, into a target nobody waits for."""
    for target in (torch.empty(6, dtype=torch.float64, pin_memory=True), torch.empty(12, pin_memory=True)[::2]):
        with pytest.raises(RuntimeError, match="too early"):
            target.copy_(values(), non_blocking=True)


def test_times_are_known_once_events_have_passed(emulation: Device) -> None:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    values()
    end.record()
    with pytest.raises(RuntimeError, match="not ready"):
        start.elapsed_time(end)
    end.synchronize()
    assert start.elapsed_time(end) >= 0
    with emulation.capture(), pytest.raises(RuntimeError):
        start.record()


def test_memory_is_taken_down(emulation: Device) -> None:
    gc.collect()
    before = emulation.memory.live
    held = torch.empty(1000, device="cuda")
    view = held[10:]
    assert torch.cuda.memory_allocated() - before == 4000
    del held
    assert emulation.memory.live - before == 4000, "a view keeps it"
    del view
    assert emulation.memory.live == before
    assert emulation.memory.peak >= before + 4000


def test_launches_are_counted(emulation: Device) -> None:
    given, other = values(), values()
    before = emulation.launches
    given.view(2, 3).T[0].detach()
    torch.empty(4, device="cuda")
    assert emulation.launches == before, "views and memory are none"
    torch._foreach_add_([given, other], 1)
    given.amax(0)
    assert emulation.launches == before + 2
    assert emulation.own == 0


def test_random_numbers_come_from_the_device(emulation: Device) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = torch.randn(4, device="cuda")
    assert torch.equal(torch.get_rng_state(), state)
    torch.cuda.manual_seed_all(3)
    assert torch.randn(4, device="cuda").tolist() == first.tolist()


def test_backward_runs_in_another_thread(emulation: Device) -> None:
    """As on a GPU: what is set for the thread of the training does not hold in hooks there."""
    import threading

    threads = []
    z = values().requires_grad_()
    y = z * 2
    y.register_hook(lambda g: threads.append(threading.get_ident()))
    y.sum().backward()
    assert threads != [threading.get_ident()]
    assert z.grad.tolist() == [2.0] * 6


def test_nothing_is_left_of_it() -> None:
    """Outside of the block there is no GPU."""
    assert torch.cuda.is_available() is (torch.version.cuda is not None and torch.cuda.device_count() > 0)
    if torch.version.cuda is None:
        with pytest.raises((AssertionError, RuntimeError)):
            torch.zeros(2, device="cuda")
