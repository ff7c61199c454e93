"""Demo watched: one network on real digits, trained three times under a Monitor - soundly, and with two mistakes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..deaths import Cause
from ..errors import InputError
from ..monitor import Monitor
from ..report import Report
from . import demo_models
from .demo_digits import Split, features
from .demo_runs import accuracy_of, one_thread

LEARNING_RATE = 0.05
EPOCHS = 12
BATCH = 32
_SEED = 5


@dataclass(frozen=True, slots=True)
class Mistake:
    """How a run differs from the sound one.

    Attributes:
        key: its name, as in the name of a file.
        said: what is wrong with it, in words.
        cause: the cause of death that it is, None if it is no mistake.
        spike: the steps (first, behind the last) at which the learning rate is `spike_rate`.
        spike_rate: that learning rate.
        pull: what the loss adds times the sum of the biases of `fc2`.
    """

    key: str
    said: str
    cause: Cause | None = None
    spike: tuple[int, int] = (0, 0)
    spike_rate: float = 0.0
    pull: float = 0.0


# Over ten seeds 15 to 28 of the second 64 units died of the spike for good, with 86 to 95 % of the held-out digits
# right afterwards, and 13 to 25 of the pull, with 96 to 97 %; in the sound run none did, with 96 to 98 %.
MISTAKES = (
    Mistake("sound", "sound: a learning rate of 0.05 from start to end"),
    Mistake(
        "spike",
        "two updates at 5 instead of 0.05: a typing mistake in the schedule",
        "learning_rate",
        spike=(150, 152),
        spike_rate=5.0,
    ),
    Mistake("drift", "0.05 * fc2.bias.sum() in the loss: a penalty that lost its square", "bias_drift", pull=0.05),
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A run that is over: what was wrong with it, how good its network is, and what the Monitor tells."""

    mistake: Mistake
    accuracy: float
    report: Report

    @property
    def lost(self) -> int:
        """Units that died of the mistake, by what the Monitor tells."""
        lost = [death for death in self.report.deaths if death["cause"] == self.mistake.cause]
        return len({(death["site"], death["unit"]) for death in lost})


def watched(folder: Path | None = None) -> Iterator[Watched]:
    """Train and watch, one run at a time: nothing differs between them but the mistake.

    Args:
        folder: where the record of each run is left, in a folder of its name; nothing is written without.

    Raises:
        DataError: scikit-learn is not installed.
        InputError: the record of an earlier demo is in the way.
    """
    split = features()
    for mistake in MISTAKES:
        log_dir = None if folder is None else _fresh(folder / mistake.key)
        with one_thread(), _unsaid():
            network, report = train(mistake, split, log_dir=log_dir)
        yield Watched(mistake, accuracy_of(network, split), report)


def _fresh(folder: Path) -> Path:
    """Remove the record that an earlier demo left in `folder`: TensorBoard would draw both runs as one."""
    try:
        for record in folder.glob("events.out.tfevents.*.deadrelu"):
            record.unlink()
    except OSError as error:
        raise InputError(f"--out: {folder} cannot be written ({error.strerror}); name another folder") from None
    return folder


def train(
    mistake: Mistake, split: Split, *, seed: int = _SEED, log_dir: Path | None = None
) -> tuple[nn.Module, Report]:
    """Train the MLP of the demo with SGD and a Monitor; return it and what the Monitor tells.

    The random state of the caller is as before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the accelerators' states as well
        network = demo_models.mlp()
        optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
        biases = network.get_parameter("fc2.bias")
        with Monitor(network, optimizer, log_dir=log_dir) as monitor:
            for step, rows in enumerate(_batches(split)):
                first, end = mistake.spike
                optimizer.param_groups[0]["lr"] = mistake.spike_rate if first <= step < end else LEARNING_RATE
                loss = cross_entropy(network(split.inputs[rows]), split.labels[rows]) + mistake.pull * biases.sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return network, monitor.report()


def _batches(split: Split) -> Iterator[torch.Tensor]:
    for _ in range(EPOCHS):
        yield from torch.split(torch.randperm(split.training), BATCH)


@contextmanager
def _unsaid() -> Iterator[None]:
    """A Monitor logs each event as it happens; here the screen tells them together, after the run."""
    log = logging.getLogger("deadrelu")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
