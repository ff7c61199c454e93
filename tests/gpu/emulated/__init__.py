"""An emulated GPU, for builds of torch that know none: `with emulated() as device`.

Tensors on it are plain `torch.Tensor`s on cuda:0: what takes them apart (type, device, dispatch keys, autograd with a
thread of its own for the device, autocast, composite ops) is torch's own code. Only the kernels are not: a fallback for
the dispatch key CUDA does each operation on host tensors, and takes down launches, waits and memory.

It is stricter than a GPU in what it can be: addresses on the device cannot be read; what is copied to pinned memory
without blocking is garbage until an event or stream behind the copy has been asked for and has passed, and events pass
a number of kernels late; anything that waits while a graph is captured is an error, as is timing then.

It differs in this: results are those of the CPU's kernels, to the last bit; ops with several kernels of their own count
as one, convolutions and attention take no library's algorithms, and random numbers are the CPU's; there is one stream,
so that nothing races but host and device; a graph is not captured, only what is illegal then is refused; nothing is
known of time.
"""

from __future__ import annotations

from .cuda import emulated
from .device import Device, Wait
from .guard import load

__all__ = ["Device", "Wait", "emulated", "load"]
