"""Notices: what is said, once, of a training of which nothing is seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable

from .calls import in_capture

_CAPTURED = (
    "a step becomes a CUDA graph: nothing is seen of its replays, which run no hooks; let some steps run "
    'without the graph, or let torch.compile(model, mode="reduce-overhead") make the graphs, which are seen'
)
_UNHOOKED = (
    "nothing is seen of the model: it, or another of its class, was compiled before the monitor was there, and that "
    "code is used again; construct the monitor before a compiled model is first called, or call "
    "torch.compiler.reset() after constructing it"
)
_UNSEEN = (
    "an update came without a forward pass that counts; expected one in training mode with gradients: pass the model "
    "that is called, and construct the monitor before a compiled model is first called"
)
_UNMET = (
    "a step has ended in which no activation was met, not {} either; if it should have run, what runs is not the code "
    "of the modules (a graph made of them by torch.cuda.make_graphed_callables or torch.fx, or their functions called "
    "by themselves): let the modules run, or pass the model that does"
)
_NOT_UPDATED = (
    "{} came without an update; expected one in each step: pass the optimizer that is stepped, "
    "Monitor(model, optimizer), or call monitor.step() after each update (the hooks of an optimizer whose step is "
    "compiled do not run)"
)


class Notices:
    """Says the first of these, and no other after it.

    Args:
        say: takes the message.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = False

    def unseen(self, *, unhooked: bool) -> None:
        """An update came without a forward pass; unhooked: compiled code runs that has no hooks."""
        self._once(_CAPTURED if in_capture() else _UNHOOKED if unhooked else _UNSEEN)

    def unmet(self, activation: str) -> None:
        """A step ended in which no activation was met, nor before, not even this one."""
        self._once(_UNMET.format(activation))

    def not_updated(self, passes: str) -> None:
        """So many forward passes came without an update."""
        self._once(_NOT_UPDATED.format(passes))

    def _once(self, message: str) -> None:
        if not self._said:
            self._said = True
            self._say(message)
