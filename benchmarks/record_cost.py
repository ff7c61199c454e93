"""What a record costs: writing one window of it, and reading it back, at the scale that the tab must bear.

    python benchmarks/record_cost.py [--quick]

Writing is compared with what a SummaryWriter takes for one histogram per layer of the same window, pair by pair.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from paired import Setting, cells, measure, setting_from
from torch.utils.tensorboard import SummaryWriter

from deadrelu.record.reader import read_run
from deadrelu.record.writer import RecordWriter
from deadrelu.render.view import View
from deadrelu.summaries import SiteSummary, Summary

SHAPES = ((3, 64), (3, 512), (50, 256), (24, 4096))
SCALE = (24, 4096, 2000)
WINDOWS = 20


def windows(sites: int, units: int, count: int) -> list[Summary]:
    """Make some windows of a run; a tenth of the units is dead."""
    rng = np.random.default_rng(0)
    dead = rng.random((sites, units)) < 0.1
    made = []
    for number in range(count):
        rate = np.where(dead, 0.0, 10 ** rng.uniform(-3, 0, (sites, units)))
        bias = rng.normal(scale=0.1, size=(sites, units))
        told = tuple(
            SiteSummary(
                site=f"layer{i}.relu",
                op="relu",
                source=None,
                producers=(f"layer{i}.fc",),
                can_die=True,
                dead=dead[i],
                silent=dead[i],
                activation_rate=rate[i],
                grad_flow=rate[i] * 1e-3,
                max_z=bias[i],
                bias=bias[i],
                update_ratio=rate[i] * 1e-3,
            )
            for i in range(sites)
        )
        made.append(Summary(50 * number, 50 * number + 49, told, {"0": 0.1}, float(dead.mean())))
    return made


def histograms(writer: Any, made: list[Summary]) -> Callable[[], None]:
    """Return the work of a histogram per layer and window, as add_histogram writes it."""

    def work() -> None:
        for summary in made:
            for site in summary.sites:
                writer.add_histogram(site.site, site.activation_rate, summary.last)
        writer.flush()

    return work


def records(record: RecordWriter, made: list[Summary]) -> Callable[[], None]:
    """Return the work of recording these windows."""

    def work() -> None:
        for summary in made:
            record.write(summary)

    return work


def writing(setting: Setting, folder: Path) -> None:
    """Print what a window takes, into a file of its own and into a SummaryWriter."""
    print("| sites x units | into | histograms, ms a window | record, ms a window | ratio | middle half |")
    print("|---|---|--:|--:|--:|---|")
    for number, (sites, units) in enumerate(SHAPES):
        made = windows(sites, units, WINDOWS)
        for own in (True, False):
            place = folder / f"{number}{own}"
            plain, users = SummaryWriter(str(place / "plain")), SummaryWriter(str(place / "users"))
            record = RecordWriter(place / "own") if own else RecordWriter(writer=users)
            times = measure(histograms(plain, made), records(record, made), setting)
            into = "log_dir" if own else "writer"
            print(f"| {sites} x {units} | {into} | {cells(times, WINDOWS)} |", flush=True)
            for writer in (record, plain, users):
                writer.close()
            shutil.rmtree(place)


def reading(setting: Setting, folder: Path) -> None:
    """Print what reading a run of the stated scale takes."""
    sites, units, count = (*SCALE[:2], 200) if setting.quick else SCALE
    record = RecordWriter(folder / "run")
    (made,) = windows(sites, units, 1)
    for number in range(count):
        record.write(Summary(50 * number, 50 * number + 49, made.sites, made.rates, made.dead_fraction))
    record.close()
    size = sum(path.stat().st_size for path in (folder / "run").iterdir())
    print(f"\n{sites} sites x {units} units x {count} records, {size / 1e6:.0f} MB, read from the event file\n")
    print("| what | median s |\n|---|--:|")
    times: dict[str, list[float]] = {"the run": [], "its document": [], "a site, with its cells": []}
    for number in range(3):
        steps = [time.perf_counter()]
        view = View(read_run(folder / "run"))
        steps.append(time.perf_counter())
        assert view.document["finished"] is False
        steps.append(time.perf_counter())
        site = f"layer{number}.relu"
        assert view.site(site)["units"] == units
        assert sum(len(view.cells(site, channel)) for channel in ("rate", "grad", "bias")) == 3 * units * count
        steps.append(time.perf_counter())
        for (_, column), start, end in zip(times.items(), steps, steps[1:], strict=False):
            column.append(end - start)
    for what, column in times.items():
        print(f"| {what} | {statistics.median(column):.2f} |")


def main() -> None:
    """Measure writing, then reading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    setting = setting_from(parser, pairs=15, quick_pairs=5)
    with tempfile.TemporaryDirectory() as folder:
        writing(setting, Path(folder))
        reading(setting, Path(folder))


if __name__ == "__main__":
    main()
