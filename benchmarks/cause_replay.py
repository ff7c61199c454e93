"""Is the cause that Monitor names the true one? Replays of organic deaths at lower rates, and planted causes.

    python benchmarks/cause_replay.py [--quick] [--threads N] [--seeds N]

Organic runs are classifiers of the digits whose learning rate is too high. Each is trained under Monitor, then again
from the same state at a tenth, a thirtieth and a hundredth of its learning rate, for as many times the steps (DESIGN
6.4). A death whose unit is alive at the end of some rung was the learning rate's; one that happens on every rung was a
drift. Planted runs (`plants.py`) have one known cause each. Two tables come out, as Markdown.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

import torch
import torch.nn.functional as F
from digits import digits
from plants import PLANTS, named
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import deadrelu
from deadrelu.deaths import Death

BATCH = 128
LADDER = (10, 30, 100)
OWN = ("bias_drift", "weight_drift", "weight_decay")


@dataclass(frozen=True)
class Run:
    """Organic runs that differ in their seed only: an optimizer at a learning rate, on 64 units a layer."""

    optimizer: str
    lr: float
    norm: bool
    depth: int
    seeds: int

    @property
    def group(self) -> str:
        """Return the row of the table it belongs to."""
        return self.optimizer + (" + BatchNorm" if self.norm else "")

    def model(self, seed: int) -> nn.Sequential:
        """Return the network of one seed, in training mode."""
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for _ in range(self.depth):
            layers += [nn.Linear(64, 64), *([nn.BatchNorm1d(64)] if self.norm else []), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 10)).train()

    def optimize(self, model: nn.Module, slower: int = 1) -> Optimizer:
        """Return the optimizer of the run, at its learning rate or a part of it."""
        return MAKERS[self.optimizer](model.parameters(), lr=self.lr / slower)


class Many(nn.Module):
    """The networks of all seeds side by side: one step of a replay trains them all, each as if it were alone."""

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.kinds = [type(layer) for layer in models[0]]
        stacks = [zip(*(layer.parameters() for layer in layers), strict=True) for layers in zip(*models, strict=True)]
        self.layers = nn.ModuleList(
            nn.ParameterList(nn.Parameter(torch.stack([p.detach() for p in ps])) for ps in each) for each in stacks
        )

    def forward(self, x: torch.Tensor, fires: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the outputs, (seeds, 10, samples); `fires` is told which units fire, (seeds, units) by site."""
        seeds = len(self.layers[0][0])
        z = x.T.expand(seeds, -1, -1)
        for i, (kind, layer) in enumerate(zip(self.kinds, self.layers, strict=True)):
            if kind is nn.Linear:
                z = torch.baddbmm(layer[1][..., None], layer[0], z)
            elif kind is nn.BatchNorm1d:
                flat = z.reshape(1, -1, z.shape[-1])
                z = F.batch_norm(flat, None, None, layer[0].flatten(), layer[1].flatten(), training=True).view_as(z)
            else:
                if fires is not None:
                    fires[str(i)] = (z > 0).any(-1)
                z = z.relu()
        return z


MAKERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": lambda p, lr: SGD(p, lr=lr, momentum=0.9),
    "adam": Adam,
    "adamw": lambda p, lr: AdamW(p, lr=lr, weight_decay=0.1),
}
RATES = {  # too high, so that units die; the norm takes more
    "sgd": {False: (0.5, 1.0), True: (3.0, 10.0)},
    "momentum": {False: (0.1, 0.2), True: (0.5, 2.0)},
    "adam": {False: (0.02, 0.05), True: (0.1, 0.3)},
    "adamw": {False: (0.02, 0.05), True: (0.1, 0.3)},
}


def runs(quick: bool, seeds: int) -> Iterator[Run]:
    """Return the organic runs."""
    for optimizer, norm, depth in product(MAKERS, (False, True), (3,) if quick else (2, 3, 5)):
        for lr in RATES[optimizer][norm]:
            yield Run(optimizer, lr, norm, depth, seeds)


Data = tuple[torch.Tensor, torch.Tensor]


def batches(data: Data) -> Iterator[Data]:
    """Return the batches of a run without end, epoch by epoch in a new order."""
    x, y = data
    generator = torch.Generator().manual_seed(0)
    while True:
        for rows in torch.randperm(len(x), generator=generator)[: len(x) // BATCH * BATCH].split(BATCH):
            yield x[rows], y[rows]


def train(model: nn.Module, optimizer: Optimizer, stream: Iterable[Data]) -> None:
    """Train one network, or many, on all batches of a stream."""
    for x, y in stream:
        out = model(x)
        if isinstance(model, Many):
            loss = F.cross_entropy(out, y.expand(len(out), -1)) * len(out)
        else:
            loss = F.cross_entropy(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@dataclass(frozen=True)
class Verdict:
    """One death with its run and the rung of the ladder that saved it, None if none did."""

    run: Run
    seed: int
    death: Death
    saved_by: int | None


def watched(run: Run, seed: int, data: Data, steps: int) -> list[Death]:
    """Train the run of a seed under Monitor and return the deaths that a lower rate might have prevented."""
    model = run.model(seed)
    optimizer = run.optimize(model)
    with deadrelu.Monitor(model, optimizer, strict=True) as monitor:
        train(model, optimizer, islice(batches(data), steps))
    return [death for death in monitor.deaths if not death.born_dead and death.revived is None]


@torch.no_grad()
def firing(models: Many, data: Data) -> dict[str, torch.Tensor]:
    """Return which units fire on the data, (seeds, units) by site."""
    fires: dict[str, torch.Tensor] = {}
    models(data[0], fires)
    return fires


def play(run: Run, data: Data, steps: int, ladder: Sequence[int]) -> list[Verdict]:
    """Train a run under Monitor, and replay it at lower rates until every death is told."""
    start = firing(Many([run.model(seed) for seed in range(run.seeds)]), data)
    deaths = [
        (seed, death)
        for seed in range(run.seeds)
        for death in watched(run, seed, data, steps)
        # A unit that starts out silent has no life that a lower rate could save.
        if start[death.site][seed, death.unit]
    ]
    saved: dict[int, int] = {}
    for slower in ladder:
        if len(saved) == len(deaths):
            break
        again = Many([run.model(seed) for seed in range(run.seeds)])
        train(again, run.optimize(again, slower), islice(batches(data), steps * slower))
        fires = firing(again, data)
        for i, (seed, death) in enumerate(deaths):
            if fires[death.site][seed, death.unit]:
                saved.setdefault(i, slower)
    return [Verdict(run, seed, death, saved.get(i)) for i, (seed, death) in enumerate(deaths)]


# -- tables ------------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def share(part: int, whole: int) -> str:
    """Return part / whole in words."""
    return f"{part / whole:.0%} ({part} of {whole})" if whole else "none"


def organic_tables(verdicts: Sequence[Verdict], ladder: Sequence[int]) -> str:
    """Return the confusion of verdict and replay, the agreement by optimizer, and the kicks."""
    rungs = (*ladder, None)
    count = Counter((v.death.cause, v.saved_by) for v in verdicts)
    causes = sorted({v.death.cause for v in verdicts})
    head = ["verdict", *(f"alive at lr/{rung}" if rung else "dead on all rungs" for rung in rungs)]
    confusion = table(head, ([cause, *(count[cause, rung] for rung in rungs)] for cause in causes))
    groups = {v.run.group: [w for w in verdicts if w.run.group == v.run.group] for v in verdicts}
    agreement = table(
        ["runs", "learning-rate deaths named so", "drifts named so", "agreement"],
        ([name, *agreed(group)] for name, group in [*groups.items(), ("all", list(verdicts))]),
    )
    sides = {"right": [v for v in verdicts if right(v)], "wrong": [v for v in verdicts if right(v) is False]}
    kicks = table(
        ["verdict", "deaths", "kick, quantiles .1 .25 .5 .75 .9"],
        (
            [f"{side}: {cause}", sum(v.death.cause == cause for v in of), kick_quantiles(of, cause)]
            for side, of in sides.items()
            for cause in sorted({v.death.cause for v in of})
        ),
    )
    return f"{confusion}\n\n{agreement}\n\n{kicks}"


def right(verdict: Verdict) -> bool | None:
    """Return whether verdict and replay agree; None where the replay says nothing of that cause."""
    if verdict.death.cause in ("learning_rate", "non_finite"):
        return verdict.saved_by is not None
    # The first death of a chain is judged on its own; what it starved died of it at any rate.
    return verdict.saved_by is None if verdict.death.cause in (*OWN, "input_shift") else None


def agreed(verdicts: Sequence[Verdict]) -> tuple[str, str, str]:
    """Return the share of learning-rate deaths and of drifts that were named so, and of both."""
    told = [v for v in verdicts if right(v) is not None]
    high = [v for v in told if v.saved_by is not None]
    low = [v for v in told if v.saved_by is None]
    return tuple(share(sum(map(bool, map(right, part))), len(part)) for part in (high, low, told))


def kick_quantiles(verdicts: Sequence[Verdict], cause: str) -> str:
    """Return five quantiles of the kick of one cause in words."""
    known = sorted(v.death.kick for v in verdicts if v.death.cause == cause and v.death.kick is not None)
    if len(known) < 2:
        return " ".join(f"{v:.3g}" for v in known)
    cuts = statistics.quantiles(known, n=20, method="inclusive")
    return " ".join(f"{cuts[i]:.3g}" for i in (1, 4, 9, 14, 17))


def planted_table(seeds: int) -> str:
    """Play every plant and return who was named."""
    rows = []
    for plant in PLANTS:
        found = sum((named(plant, seed) for seed in range(seeds)), Counter[str]())
        others = ", ".join(f"{cause} {n}" for cause, n in found.most_common() if cause != plant.cause)
        rows.append([plant.name, plant.cause, share(found[plant.cause], found.total()), others])
    return table(["plant", "cause", "named", "named instead"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Replays of organic deaths at lower rates, and planted causes.")
    parser.add_argument("--quick", action="store_true", help="one depth, 100 steps and two rungs")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice without it")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of every run")
    options = parser.parse_args()
    logging.getLogger("deadrelu").setLevel(logging.ERROR)
    if options.threads:
        torch.set_num_threads(options.threads)
    steps, ladder = (100, LADDER[:2]) if options.quick else (300, LADDER)
    print(planted_table(options.seeds), flush=True)
    data = digits()
    verdicts = [v for run in runs(options.quick, options.seeds) for v in play(run, data, steps, ladder)]
    print(f"\n{organic_tables(verdicts, ladder)}")


if __name__ == "__main__":
    main()
