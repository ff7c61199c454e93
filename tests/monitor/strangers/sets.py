"""The set on which a training script is played twice: bare, and watched by a Monitor and the brute-force diary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import deadrelu

from ..brute import Diary, Ear, Life, compare, compare_numbers

Told = tuple[int, int | None, int, int | None, bool]
ROWS, STEPS = 300, 40
DEATHS = {(1, 5, 15, None, False), (2, 8, 18, 25, False)}
"""(unit, last_fired, confirmed, revived, born_dead) of what `Set.update` plants, at 300 rows a step."""


@dataclass
class Set:
    """What a script trains on; it says which forwards count and where a step ends, and is otherwise plain training.

    Attributes:
        on: play with Monitor and diary.
        plants: the additive parameters whose units 1 and 2 are silenced, by site.
        expected: deaths that there must be, by site; by default `DEATHS` wherever something is planted.
        record: every loss, and in the end every tensor of the model.
    """

    on: bool
    diary: Diary | None = None
    monitor: Any = None
    plants: dict[str, str] = field(default_factory=dict)
    expected: dict[str, set[Told]] | None = None
    record: list[bytes] = field(default_factory=list)
    steps: int = 0
    _model: nn.Module | None = None
    _generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))

    def watch(
        self,
        model: nn.Module,
        optimizer: Any,
        sites: dict[str, tuple[Ear, str | None]],
        *,
        lift: float = 0.7,
        heard: nn.Module | None = None,
        **options: Any,
    ) -> None:
        """Begin. `sites` has where to hear each site, and the additive parameter that silences its units, if any.

        `heard` is the module whose layers the ears name, where the model is a wrapper around it.
        """
        self._model = heard if heard is not None else model
        self.plants = {site: lever for site, (_, lever) in sites.items() if lever is not None}
        with torch.no_grad():
            for lever in self.plants.values():
                self._model.get_parameter(lever).abs_().add_(lift)
        if self.on:
            self.diary = Diary(self._model, {site: ear for site, (ear, _) in sites.items()})
            self.monitor = deadrelu.Monitor(model, optimizer, strict=True, window=8, **options)

    def forward(self, rows: int = ROWS) -> AbstractContextManager[None]:
        """Return the context of one forward pass that counts."""
        return self.diary.forward(rows) if self.diary is not None else nullcontext()

    def update(self, *losses: Tensor) -> None:
        """End a step, behind its update; units 1 die of update 5, units 2 of update 8 to live again from step 25 on."""
        self.record += [loss.detach().double().numpy().tobytes() for loss in losses]
        if self.diary is not None:
            self.diary.update()
        for when, unit, value in ((5, 1, -1e3), (8, 2, -1e3), (24, 2, 2.0)):
            if self.steps == when:
                self.put(unit, value)
        self.steps += 1

    @torch.no_grad()
    def put(self, unit: int, value: float) -> None:
        """Set one unit of every plant behind the optimizer's back."""
        for lever in self.plants.values():
            self._model.get_parameter(lever)[unit] = value

    def batches(self, *shape: int, rows: int = ROWS) -> Iterator[Tensor]:
        """Return batches without end."""
        while True:
            yield torch.randn(rows, *shape, generator=self._generator)

    def end(self) -> list[Life]:
        """Compare what was told with the diary; return the diary's deaths."""
        for tensor in (*self._model.parameters(), *self._model.buffers()):
            self.record.append(tensor.detach().double().numpy().tobytes())
        if self.monitor is None:
            return []
        self.monitor.close()
        lives = compare(self.monitor, self.diary)
        report = self.monitor.report()
        assert {site.site for site in report} == set(self.diary.ears), [site.site for site in report]
        assert report.samples == self.diary.rows
        for site in report:
            dead = {life.unit for life in lives if life.site == site.site and life.steady and life.revived is None}
            assert dead <= set(site.dead.nonzero()[0].tolist()), site.site
        compare_numbers(self.monitor, self.diary)
        return lives


Script = Callable[[Set], None]


def play(script: Script) -> tuple[list[Life], Set]:
    """Play a script bare and watched, which must be the same training; return the diary's deaths and the set."""
    sets = []
    for on in (False, True):
        torch.manual_seed(0)
        each = Set(on)
        try:
            script(each)
            lives = each.end()
        finally:
            if each.monitor is not None:
                each.monitor.close()
        each.record.append(torch.get_rng_state().numpy().tobytes())
        sets.append(each)
    bare, watched = sets
    assert len(bare.record) == len(watched.record)
    for i, (a, b) in enumerate(zip(bare.record, watched.record, strict=True)):
        assert a == b, f"the training differs, first in record {i} of {len(bare.record)}"
    return lives, watched


def planted(lives: list[Life], site: str) -> set[Told]:
    """Return the deaths of one site as `DEATHS` has them."""
    return {(x.unit, x.last_fired, x.confirmed, x.revived, x.born_dead) for x in lives if x.site == site}


def error(output: Tensor) -> Tensor:
    """Return a loss that a model with any output has."""
    return (output.double() - 1).square().mean() / math.e


MLP = {"1": (Ear("0"), "0.bias"), "3": (Ear("2"), "2.bias")}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(inplace=True), nn.Linear(7, 2))


MLP = {"1": (Ear("0"), "0.bias"), "3": (Ear("2"), "2.bias")}


def sgd(model: nn.Module, lr: float = 0.01, **options: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, **options)


def plain(on: Set, model: nn.Module, optimizer: torch.optim.Optimizer, *shape: int, rows: int = 300) -> None:
    """The loop of every tutorial."""
    for _, x in zip(range(STEPS), on.batches(*shape, rows=rows), strict=False):
        optimizer.zero_grad()
        with on.forward(len(x)):
            out = model(x)
        loss = error(out)
        loss.backward()
        optimizer.step()
        on.update(loss)
