"""States: all that an audit must leave bit for bit as it was, in a form that can be compared."""

from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def tensor_state(t: torch.Tensor | None) -> Any:
    if t is None:
        return None
    value = t.detach().clone(memory_format=torch.contiguous_format)  # numpy would pin the storage of t itself
    return t.dtype, tuple(t.shape), t.requires_grad, t.is_inference(), value.numpy().tobytes()


def gradient_state(p: torch.Tensor) -> Any:
    return id(p.grad) if p.grad is not None else None, tensor_state(p.grad)


def hook_state(owner: object) -> dict[str, list[Any]]:
    """Return every hook dictionary of a module (or of torch.nn.modules.module) as its ordered (key, function) pairs."""
    tables = {k: v for k, v in vars(owner).items() if "hook" in k and isinstance(v, dict)}
    return {name: list(table.items()) for name, table in tables.items()}


def module_state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        state[f"{name} module"] = (id(module), type(module), module.training, sorted(vars(module)))
        state[f"{name} hooks"] = hook_state(module)
        state[f"{name} own"] = (list(module._parameters), list(module._buffers), list(module._modules))
    for name, p in model.named_parameters(remove_duplicate=False):
        own = (p._backward_hooks, getattr(p, "_post_accumulate_grad_hooks", None))
        state[f"{name} parameter"] = (id(p), p.data_ptr(), tensor_state(p), gradient_state(p), p.is_leaf)
        state[f"{name} tensor hooks"] = tuple(list(h.items()) if h else None for h in own)
    for name, b in model.named_buffers(remove_duplicate=False):
        state[f"{name} buffer"] = tensor_state(b)
    return state


def torch_state() -> dict[str, Any]:
    return {
        "torch rng": torch.get_rng_state().numpy().tobytes(),
        "numpy rng": [v.tobytes() if isinstance(v, np.ndarray) else v for v in np.random.get_state()],
        "python rng": random.getstate(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "defaults": (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()),
        "function modes": [id(m) for m in _get_current_function_mode_stack()],
        "dispatch modes": [id(m) for m in _get_current_dispatch_mode_stack()],
        "global hooks": hook_state(torch.nn.modules.module),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "mkldnn": (torch.backends.mkldnn.enabled, torch.get_float32_matmul_precision()),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "functions": (F.relu, torch.relu, F.gelu, torch.Tensor.relu_, nn.ReLU.forward, nn.Module.__call__),
        "gc": gc.isenabled(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    assert [k for k in before if before[k] != after[k]] == []
