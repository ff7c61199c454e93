"""Looking: how data is looked at, the same for every state of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset

from ..auditing import Patterns, audit
from ..batches import Forward, tensors_in
from ..errors import InputError
from ..report import Report
from .mixture import Rows

PROBE = 512
"""Samples that interventions are run on, if not said otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """How data is looked at.

    Attributes:
        data, forward, batch_size, batch_dim, exhaustive, max_samples, device, include, exclude, progress: as for
            `deadrelu.audit`.
        probe: interventions are run on so many samples of the data.

    Raises:
        InputError: `probe` is no number of samples.
    """

    data: Any
    forward: Forward | None = None
    batch_size: int = 128
    batch_dim: int = 0
    exhaustive: bool = False
    max_samples: int | None = None
    device: str | torch.device | None = None
    include: Patterns = None
    exclude: Patterns = None
    probe: int = PROBE
    progress: bool = False

    def __post_init__(self) -> None:
        if self.probe < 1:
            raise InputError(f"probe is {self.probe}; expected a number of samples, 1 or more")

    def repeatable(self) -> Looking:
        """Return the same for data that can be read again and again: what has no length is read once, and kept."""
        data = self.data
        if not isinstance(data, Iterable) or isinstance(data, (Sized, IterableDataset)):
            return self
        kept: list[Any] = []
        samples = 0
        for batch in data:
            kept.append(batch)
            found = (int(t.shape[self.batch_dim]) for t in tensors_in(batch) if t.ndim > self.batch_dim)
            samples += next(found, 1)
            if self.max_samples is not None and samples >= self.max_samples:
                break
        return replace(self, data=kept)

    def audit(self, model: nn.Module) -> Report:
        """Return what the model does on the data."""
        return audit(
            model,
            self.data,
            forward=self.forward,
            batch_size=self.batch_size,
            batch_dim=self.batch_dim,
            exhaustive=self.exhaustive,
            max_samples=self.max_samples,
            device=self.device,
            include=self.include,
            exclude=self.exclude,
            progress=self.progress,
        )

    def rows(self) -> Rows:
        """Return what interventions are run on."""
        samples = self.probe if self.max_samples is None else min(self.probe, self.max_samples)
        device = None if self.device is None else torch.device(self.device)
        return Rows(self.data, samples, self.forward, self.batch_size, self.batch_dim, device)
