"""DeadReLUCallback for Lightning."""

from __future__ import annotations

from typing import Any

from .base import MonitorCallback

try:
    import lightning.pytorch as pl
except ImportError as error:
    raise ImportError(
        "deadrelu.integrations.lightning needs the package lightning: pip install 'deadrelu[lightning]'"
    ) from error


class DeadReLUCallback(MonitorCallback, pl.Callback):
    """Runs a `deadrelu.Monitor` while a Lightning Trainer fits a module.

    ```python
    watch = DeadReLUCallback()
    Trainer(callbacks=[watch]).fit(module, loader)
    print(watch.report())
    ```

    A step is an update of the weights: accumulated batches make one, one that the gradient scaler skipped is none, and
    neither validation nor the sanity check count. Checkpoints carry the record, so that a resumed fit continues it.
    `stop_when` sets `trainer.should_stop`, which keeps to `min_epochs` and `min_steps`. An exception closes
    the monitor.

    Args:
        options: those of `Monitor`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._resumed: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach, after the sanity check; `trainer.optimizers` are the real ones, which Lightning's wrappers step."""
        monitor = self._attach(pl_module, trainer.optimizers)
        if self._resumed:
            monitor.load_state_dict(self._resumed)
            self._resumed = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the training if `stop_when` came true."""
        if self._stopping:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Detach."""
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Detach."""
        self.close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Detach from a fit that a tuner has broken off."""
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the record, for the checkpoint that is being written."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the record of a checkpoint for the fit that is about to begin."""
        self._resumed = state_dict
