"""Memory: what the optimizers of a checkpoint keep for each parameter, by the parameter's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint import Checkpoint
from ..optimizer_state import Remembered
from .derived import Effective

_UNKNOWN = "which entry of the optimizer's state is its own is not certain"
_TWICE = "more than one optimizer could hold it"


class Memory:
    """The states of all optimizers, as far as it is certain whose they are.

    Attributes:
        steps: updates made, as the checkpoint tells, for optimizers that do not count; None if it does not.
    """

    def __init__(self, checkpoint: Checkpoint, weights: Effective) -> None:
        self._checkpoint = checkpoint
        self._weights = weights
        self._held: dict[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {}
        self._uncertain: dict[str, str] = {}
        self._twice: set[str] = set()
        for optimizer in checkpoint.optimizers:
            states = checkpoint.parameter_states(optimizer)
            if states is None:
                continue
            for name, state in states.states.items():
                if name in self._held:
                    self._twice.add(name)
                group = states.groups.get(name)
                self._held[name] = (state, None if group is None else optimizer.groups[group])
            whole = states.unmatched == 0  # then what is left over is held by none
            self._uncertain.update({n: why for n, why in states.uncertain.items() if not whole})
        by_epoch = checkpoint.step_name is None or "epoch" in checkpoint.step_name
        self.steps = None if by_epoch else checkpoint.step

    def of(self, name: str) -> Remembered | str:
        """Return a parameter with its state, or why that is not known; of a derived weight, what it is made of."""
        name = self._weights.main(name)
        if name in self._twice:
            return _TWICE
        if name in self._held:
            state, group = self._held[name]
            return Remembered(self._checkpoint.weights[name], state, group)
        if name in self._uncertain:
            return f"{_UNKNOWN}: {self._uncertain[name]}"
        return Remembered(self._checkpoint.weights[name])
