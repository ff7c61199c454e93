"""untouched: runs a model without leaving a trace on it, also after an exception."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

COPY_LIMIT = 1 << 28
"""Bytes of parameters up to which they are copied, for the rare forward that writes them: 256 MiB."""


@contextmanager
def untouched(model: nn.Module, generators: Iterable[torch.Generator] = ()) -> Iterator[None]:
    """Put back buffers, parameters, `.training`, `.grad`, `requires_grad` and random states when the block ends.

    Modules are set to eval mode by their flag alone: a `train()` or `eval()` that a model overrides may merge weights
    or freeze layers, and could not be taken back.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_states(generators))
        stack.enter_context(_tensors(model))
        stack.enter_context(_eager())
        training = {module: module.training for module in model.modules()}
        stack.callback(_set_training, training)
        for module in training:
            module.training = False
        yield


def _set_training(flags: dict[nn.Module, bool]) -> None:
    for module, flag in flags.items():
        module.training = flag


@contextmanager
def _random_states(generators: Iterable[torch.Generator]) -> Iterator[None]:
    own = [(g, g.get_state()) for g in generators]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(_devices()):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in own:
            generator.set_state(state)


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


@contextmanager
def _tensors(model: nn.Module) -> Iterator[None]:
    """Copies of the buffers, which forwards do write, and of the parameters of all but large models."""
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    state = [(module, dict(module._parameters), dict(module._buffers)) for module in modules]
    # A first forward may build what is missing: attributes and submodules.
    parts = [(module, dict(module.__dict__), dict(module._modules)) for module in modules]
    buffers = {id(b): b for _, _, held in state for b in held.values() if b is not None}
    parameters = {id(p): p for _, held, _ in state for p in held.values() if p is not None}
    written = list(buffers.values())
    if sum(p.nbytes for p in parameters.values()) <= COPY_LIMIT:
        written += parameters.values()
    copies = [(t, t.data, t.detach().clone()) for t in written]
    flags = [(p, p.grad, p.requires_grad) for p in parameters.values()]
    try:
        yield
    finally:
        for module, attributes, children in parts:
            _restore(module.__dict__, attributes)
            _restore(module._modules, children)
        for module, own, held in state:
            _restore(module._parameters, own)
            _restore(module._buffers, held)
        with torch.no_grad():
            for tensor, storage, copy in copies:
                if tensor.data_ptr() != storage.data_ptr() or tensor.shape != storage.shape:
                    tensor.data = storage
                if not torch.equal(tensor, copy):
                    tensor.copy_(copy)
        for parameter, grad, required in flags:
            parameter.grad = grad
            parameter.requires_grad_(required)


def _restore(current: dict[str, Any], before: dict[str, Any]) -> None:
    if len(current) != len(before) or any(current.get(name) is not tensor for name, tensor in before.items()):
        current.clear()
        current.update(before)


@contextmanager
def _eager() -> Iterator[None]:
    """Compiled parts run eagerly: what a graph fused cannot be observed."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing the compiler takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def placed(model: nn.Module, device: torch.device | None) -> Iterator[torch.device | None]:
    """Run `model` on `device` inside of the block; its own tensors come back untouched. Yields where inputs belong."""
    tensors = [*model.parameters(), *model.buffers()]
    home = next((t.device for t in tensors), None)
    if device is None or all(t.device == device for t in tensors):
        yield device if device is not None else home
        return
    data = [(t, t.data) for t in tensors]
    try:
        for tensor, values in data:
            tensor.data = values.to(device)
        yield device
    finally:
        for tensor, values in data:
            tensor.data = values
