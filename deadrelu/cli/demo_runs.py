"""Demo runs: two networks on real digits, each trained at a healthy and at a killing learning rate, and audited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from .. import auditing
from ..errors import InputError
from ..report import Report
from . import demo_models
from .demo_digits import Split, features, images

_BATCH = 32
_SEED = 5


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: its name (`healthy` or `killed`), the network, and what was found in it."""

    name: str
    learning_rate: float
    network: nn.Module
    accuracy: float
    report: Report


@dataclass(frozen=True, slots=True)
class Pair:
    """A healthy and a killed run of one architecture; `key` names its factory in `demo_models`."""

    key: str
    title: str
    split: Split
    healthy: Run
    killed: Run


@dataclass(frozen=True, slots=True)
class _Plan:
    key: str
    title: str
    factory: Callable[[], nn.Module]
    digits: Callable[[], Split]
    epochs: int
    healthy: float
    killing: float


# Killing rates at which training still looks sound. Over seven seeds 30 to 34 of the MLP's second 64 units died, at 89
# to 96 % accuracy, and 10 to 26 of the CNN's second 32 channels, at 96 to 99 %; at the healthy rates 0 to 3, and none.
_PLANS = (
    _Plan("mlp", "MLP: 20 features, 64 and 64 hidden units", demo_models.mlp, features, 20, 1e-3, 5e-2),
    _Plan("cnn", "CNN: 8x8 images, 16 and 32 channels", demo_models.cnn, images, 8, 1e-3, 2e-2),
)


def pairs() -> Iterator[Pair]:
    """Train and audit, one pair at a time: nothing differs within a pair but the learning rate of Adam.

    Raises:
        DataError: scikit-learn is not installed.
    """
    for plan in _PLANS:
        split = plan.digits()
        with one_thread():
            healthy = _run("healthy", plan, split, plan.healthy)
            killed = _run("killed", plan, split, plan.killing)
        yield Pair(plan.key, plan.title, split, healthy, killed)


def open_folder(folder: Path) -> None:
    """Make sure that files can be written to `folder`, before the training.

    Raises:
        InputError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".deadrelu").touch()
        (folder / ".deadrelu").unlink()
    except OSError as error:
        raise InputError(
            f"--out {folder}: cannot be written ({error.strerror}); name a folder that you may write to"
        ) from None


def save(pair: Pair, folder: Path) -> list[Path]:
    """Write both state_dicts and the held-out inputs, and return the paths: healthy, killed, inputs.

    Raises:
        InputError: a file cannot be written.
    """
    paths = [folder / f"{pair.key}_{name}" for name in ("healthy.pt", "killed.pt", "held_out.npy")]
    try:
        torch.save(pair.healthy.network.state_dict(), paths[0])
        torch.save(pair.killed.network.state_dict(), paths[1])
        np.save(paths[2], pair.split.held_out.numpy())
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise InputError(f"--out {folder}: cannot be written ({error}); name another folder") from None
    return paths


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more threads, and lose a factor of ten where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run(name: str, plan: _Plan, split: Split, learning_rate: float) -> Run:
    network = train(plan.factory, split, epochs=plan.epochs, learning_rate=learning_rate)
    report = auditing.audit(network, split.held_out, exhaustive=True)
    return Run(name, learning_rate, network, accuracy_of(network, split), report)


def train(
    factory: Callable[[], nn.Module], split: Split, *, epochs: int, learning_rate: float, seed: int = _SEED
) -> nn.Module:
    """Return the network that `factory` builds, trained with Adam in batches of 32.

    The random state of the caller is as before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the accelerators' states as well
        network = factory()
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(split.training), _BATCH):
                optimizer.zero_grad()
                loss = cross_entropy(network(split.inputs[rows]), split.labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return network


def accuracy_of(network: nn.Module, split: Split) -> float:
    """Return the share of the held-out digits that a network reads right, in 0..1."""
    with torch.no_grad():
        right = network(split.held_out).argmax(dim=1) == split.labels[split.training :]
    return float(right.float().mean())
