"""The devices of these checks: a real GPU, skipped where there is none, and an emulated one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from .emulated import Device, emulated, load

REFUSED = load()  # now: before any test has run a backward pass, for autograd counts devices in its first one


class Gpu:
    """A GPU. What only an emulated one knows is asked of `device`, None for a real one."""

    def __init__(self, device: Device | None) -> None:
        self.device = device

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Inside of the block it is an error if deadrelu waits for the device."""
        if self.device is None:
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")
            return
        before = len(self.device.waits)
        yield
        waited = [str(wait) for wait in self.device.waits[before:] if wait.own]
        assert not waited, "\n".join(waited)

    def held(self) -> int:
        """Return the bytes that are allocated."""
        gc.collect()
        return torch.cuda.memory_allocated()

    def peak(self, step: Callable[[], None]) -> int:
        """Return the most bytes that are allocated at any time of a step, over those before it."""
        before = torch.cuda.memory_allocated()
        if self.device is None:
            torch.cuda.reset_peak_memory_stats()
            step()
            return torch.cuda.max_memory_allocated() - before
        self.device.memory.peak = before
        step()
        return self.device.memory.peak - before

    @contextmanager
    def capture(self) -> Iterator[Any]:
        """Inside of the block a CUDA graph is captured."""
        if self.device is not None:
            with self.device.capture():
                yield None
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            yield graph


@pytest.fixture(params=["emulated", "real"])
def gpu(request: pytest.FixtureRequest) -> Iterator[Gpu]:
    """Each GPU that there is."""
    if request.param == "real":
        if not torch.cuda.is_available():
            pytest.skip("there is no GPU")
        yield Gpu(None)
        return
    if REFUSED:
        pytest.skip(REFUSED)
    with emulated() as device:
        yield Gpu(device)


@pytest.fixture
def emulation() -> Iterator[Device]:
    """The emulated GPU alone."""
    if REFUSED:
        pytest.skip(REFUSED)
    with emulated() as device:
        yield device


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny nets: a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
