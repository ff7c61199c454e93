"""untouched: runs a model without leaving a trace on it, also after an exception."""

from __future__ import annotations

import copy
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

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
        stack.enter_context(eager())
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
def aside(model: nn.Module, ours: type) -> Iterator[None]:
    """Let a model run inside of the block, in the mode that it is in, and take back what that has done to it.

    Buffers, frozen parameters, attributes (one level into containers) and random states are put back.
    Hooks run if they are torch's own or an instance of `ours`; those of others may keep a record. Nothing here waits
    for a device.
    """
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    held = [value for module in modules for name, value in vars(module).items() if name not in _PRIVATE]
    inner = [value for part in held for value in _parts(part)]
    generators = {id(g): g for g in (*held, *inner) if isinstance(g, torch.Generator)}
    written = [*model.buffers(), *(p for p in model.parameters() if not p.requires_grad)]
    written += [t for t in (*held, *inner) if isinstance(t, torch.Tensor) and not isinstance(t, nn.Parameter)]
    with ExitStack() as stack:
        stack.enter_context(_random_states(generators.values()))
        stack.enter_context(_versions({id(t): t for t in written}.values()))
        for module in modules:
            stack.callback(_restore, vars(module), dict(vars(module)))
            for name in ("_buffers", "_parameters", "_modules"):
                stack.callback(_restore, getattr(module, name), dict(getattr(module, name)))
            for name in ("_forward_pre_hooks", "_forward_hooks"):
                stack.enter_context(_without(getattr(module, name), ours, front=name == "_forward_pre_hooks"))
        for value in held:
            stack.callback(_refill, value, copy.copy(value) if type(value) in _CONTAINERS else None)
        stack.enter_context(eager())
        yield


_CONTAINERS = (list, dict, set, deque, OrderedDict)
_PRIVATE = frozenset(vars(nn.Module())) - {"training"}


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple, set, deque)) else ()


def _refill(value: Any, before: Any) -> None:
    if before is None or len(value) == len(before) == 0:
        return
    if isinstance(value, dict):
        if list(value) != list(before) or any(value[key] is not part for key, part in before.items()):
            value.clear()
            value.update(before)
    elif isinstance(value, set):
        value.clear()
        value.update(before)
    elif len(value) != len(before) or any(a is not b for a, b in zip(value, before, strict=True)):
        value.clear()
        value.extend(before)


@contextmanager
def _versions(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Put back the values of tensors that are written inside of the block, as if they had never been.

    Not even their versions tell: a backward pass that is still to come may have saved them.
    """
    copies = [(t, t._version, t.detach().clone()) for t in tensors if not (t.is_inference() or nn.parameter.is_lazy(t))]
    with ExitStack() as stack:
        for tensor, _, _ in copies:
            stack.enter_context(_unsafe_preserve_version_counter(tensor))
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, version, values in copies:
                    if tensor._version != version:
                        tensor.copy_(values)


@contextmanager
def _without(hooks: dict[int, Any], ours: type, *, front: bool) -> Iterator[None]:
    """Take the hooks of others away inside of the block; what is hooked in it stays, before the others or behind."""
    before = dict(hooks)
    foreign = {
        key
        for key, hook in before.items()
        if not isinstance(hook, ours) and not (getattr(hook, "__module__", None) or "").startswith("torch.")
    }
    for key in foreign:
        del hooks[key]
    try:
        yield
    finally:
        fresh = {key: hook for key, hook in hooks.items() if key not in before}
        kept = {key: hook for key, hook in before.items() if key in foreign or key in hooks}
        order = (*fresh.items(), *kept.items()) if front else (*kept.items(), *fresh.items())
        hooks.clear()
        hooks.update(order)


@contextmanager
def eager() -> Iterator[None]:
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
