"""DeadReLUCallback for the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from .base import MonitorCallback

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(
        "deadrelu.integrations.transformers needs the package transformers: pip install 'deadrelu[transformers]'"
    ) from error


class DeadReLUCallback(MonitorCallback, TrainerCallback):
    """Runs a `deadrelu.Monitor` while a transformers Trainer trains.

    ```python
    with DeadReLUCallback() as watch:
        Trainer(model, args, train_dataset=data, callbacks=[watch]).train()
    print(watch.report())
    ```

    A step is an update of the weights: accumulated batches make one, one that the gradient scaler skipped is none, and
    evaluation does not count. `stop_when` sets `control.should_training_stop`. The Trainer tells its callbacks of no
    exception: the `with` removes the hooks then, as does `close()`, or the next training with this callback.

    Args:
        options: those of `Monitor`.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach to the model itself and to the optimizer that steps."""
        self._attach(kwargs["model"], [_real(kwargs["optimizer"])])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the training if `stop_when` came true."""
        if self._stopping:
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Detach."""
        self.close()


def _real(optimizer: Any) -> Optimizer:
    """Return the optimizer that steps: Accelerate's wrapper is an Optimizer by name, and has no step hooks."""
    while any(base.__name__ == "AcceleratedOptimizer" for base in type(optimizer).__mro__):
        optimizer = optimizer.optimizer
    real: Optimizer = optimizer
    return real
