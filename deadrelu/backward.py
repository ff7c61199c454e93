"""backward: runs the backward pass of a loss for the hooks on its way, and leaves no gradient behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .errors import DataError


def backward(value: Any, parameters: Iterable[torch.Tensor]) -> None:
    """Run the backward pass of a scalar loss; `.grad` and the hooks of every leaf it reaches stay as they were.

    Not `autograd.grad`, which reentrant checkpointing refuses; and the engine itself rather than `autograd.backward`,
    inside of which no function mode would see a checkpointed block run again.

    Raises:
        DataError: the loss is no scalar tensor that depends on the model.
    """
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise DataError(f"loss returned {shape}; expected one number, such as a mean over the batch")
    if not value.requires_grad:
        raise DataError("loss does not depend on a tensor that requires a gradient; unfreeze the model or drop loss=")
    leaves = {id(t): t for t in (*parameters, *_leaves(value))}
    # Hooks after accumulation may hold an optimizer step fused into the backward pass.
    grads = [(t, t.grad) for t in leaves.values()]
    hooks = [(h, dict(h)) for t in leaves.values() for h in (t._post_accumulate_grad_hooks, t._backward_hooks) if h]
    try:
        for tensor, _ in grads:
            tensor.grad = None
        for held, _ in hooks:
            held.clear()
        torch.autograd.graph._engine_run_backward(
            (value,), (torch.ones_like(value),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
    finally:
        for tensor, grad in grads:
            tensor.grad = grad
        for held, before in hooks:
            held.update(before)


def _leaves(value: torch.Tensor) -> Iterable[torch.Tensor]:
    """Yield the leaf tensors of a graph, those of no module included."""
    pending, seen = [value.grad_fn], set()
    while pending:
        node: Any = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        pending.extend(parent for parent, _ in node.next_functions)
