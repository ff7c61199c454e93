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
from .tracing import Layout, Recall, Trace, Tracer, plan, site_layout, unmapped


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
class Reading:
    """What the trace and the shape of a pre-activation say.

    Attributes:
        layout: what its dimensions hold.
        guessed: the unit axis was guessed.
        plan: how it is reduced.
        lost: its batch axis was lost.
        after: what is known of what the activation makes of it.
    """

    layout: Layout
    guessed: bool
    plan: Plan
    lost: bool
    after: Trace


class Readings:
    """What pre-activations say, worked out once for each trace and shape."""

    def __init__(self) -> None:
        self._known: Recall[tuple[Trace, torch.Size, int | None, bool], Reading] = Recall()

    def of(self, z: torch.Tensor, trace: Trace, tracer: Tracer) -> tuple[torch.Tensor, Reading]:
        """Return z, out of any torch.vmap, and what its trace and its shape say."""
        batch, unbatched = tracer.batch, tracer.unbatched
        key = (trace, z.shape, batch, unbatched)
        known = self._known.get(key)
        if known is not None and not torch._C._functorch.is_functorch_wrapped_tensor(z):
            return z, known
        layout, guessed = site_layout(trace, tuple(z.shape), batch, unbatched=unbatched)
        inner, layout = unmapped(z, layout, batch)
        lost = layout.samples is None and not unbatched and batch != 1
        after = Trace(layout, (), frozenset(mark for mark in trace.lineage if isinstance(mark, str)))
        reading = Reading(layout, guessed, plan(layout), lost, tracer.traces.one(after))
        return inner, self._known.put(key, reading) if inner is z else reading


@dataclass(slots=True)
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


def in_capture() -> bool:
    """True while a CUDA graph is captured: nothing may wait, and replays run no hooks."""
    return torch.cuda._initialized and torch.cuda.is_current_stream_capturing()


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
