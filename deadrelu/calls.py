"""Calls: what is known of a module that runs, and of an activation call on its way from input to output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._guards import detect_fake_mode
from torch.autograd import forward_ad

from .counts import SiteCounter
from .kernels import Plan
from .kinds import Kind, is_activation_module
from .sites import Site
from .tracing import Layout, Trace


@dataclass(slots=True)
class Frame:
    """A module that is running."""

    path: str
    module: nn.Module
    inputs: tuple[Any, ...]
    call: ActivationCall | None = None


@dataclass(slots=True)
class ActivationCall:
    """One activation call between its input and its output.

    Attributes:
        counter: where its output is counted, None if it is not.
        kind: what the activation does.
        plan: how z and its output are reduced.
        shape: the shape of z.
        trace: what is known of the output, None if that follows from the op.
    """

    counter: SiteCounter | None
    kind: Kind
    plan: Plan
    shape: torch.Size
    trace: Trace | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One activation call, before it runs.

    Attributes:
        site: the site it belongs to.
        kind: what this call's arguments made of the activation kind.
        function: the torch function, or the kind of a registered module.
        z: the pre-activation.
        layout: what the dimensions of z hold.
        plan: how z is reduced.
        mapped: z was taken out of a torch.vmap.
    """

    site: Site
    kind: Kind
    function: str
    z: torch.Tensor
    layout: Layout
    plan: Plan
    mapped: bool


def gradient_hook(counter: SiteCounter, plan: Plan) -> Callable[[torch.Tensor], None]:
    def hook(g: torch.Tensor) -> None:
        with torch._C.DisableTorchFunction():  # our own arithmetic is not the model's
            counter.observe_gradient(g, plan)

    return hook


_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)  # since torch 2.7


_callback: Callable[[], Any] = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", lambda: None)


def in_compiled() -> bool:
    """True in what compiled code calls, also where that is not compiled itself."""
    return _callback() not in (None, False)


def in_backward() -> bool:
    """True inside of a backward pass, where checkpointed blocks run again."""
    return bool(torch._C._current_graph_task_id() != -1)


def in_transform() -> bool:
    """True where a forward pass is traced, exported or transformed, or computes nothing: it is no training."""
    return (
        torch._C._get_tracing_state() is not None
        or _is_exporting()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or (torch._C._len_torch_dispatch_stack() > 0 and detect_fake_mode() is not None)
    )


def countable(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.layout == torch.strided


def is_activation(frame: Frame, z: torch.Tensor) -> bool:
    """True if the running module is an activation module: a known one, or one that applies a function to its input."""
    if frame.call is not None or is_activation_module(frame.module):
        return True
    own = next(frame.module.parameters(recurse=False), None) is not None
    return not own and any(z is given for given in frame.inputs)


def inside_script(path: str, paths: dict[nn.Module, str]) -> bool:
    return any(
        isinstance(module, torch.jit.ScriptModule) and other != path and path.startswith(f"{other}." if other else "")
        for module, other in paths.items()
    )
