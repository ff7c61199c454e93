"""Provided: the record of one run as TensorBoard's data provider has it, whichever of its readers is at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorboard.data.provider import RunTagFilter

from ..record.names import OWN_FOLDER, PLUGIN, SITES
from ..record.source import LOSS_POINTS, Curve, Row, loss_tag

_MOST_BYTES = 200 << 20
"""What one answer may hold: the data server's channel takes 256 MiB."""

_ALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a request may read."""

    provider: Any
    context: Any
    experiment_id: str

    def runs(self) -> list[str]:
        """Return the names of the runs that have a record."""
        return sorted(run for run, tags in self._listed(None).items() if SITES in tags)

    def state(self, run: str) -> tuple[Any, ...] | None:
        """Return what changes whenever the record of a run has grown, None if there is no such run."""
        tags = self._listed([run]).get(run, {})
        if SITES not in tags:
            return None
        return tuple(sorted((tag, series.max_step, series.max_wall_time) for tag, series in tags.items()))

    def source(self, run: str) -> Provided:
        """Return the rows of a run's record."""
        return Provided(self, run)

    def _listed(self, runs: Sequence[str] | None) -> dict[str, Any]:
        found: dict[str, Any] = self.provider.list_tensors(
            self.context,
            experiment_id=self.experiment_id,
            plugin_name=PLUGIN,
            run_tag_filter=RunTagFilter(runs=runs),
        )
        return found


@dataclass(frozen=True, slots=True)
class Provided:
    """A `Source` over a data provider. No answer is larger than the data server's channel takes."""

    experiment: Experiment
    run: str

    def tags(self) -> frozenset[str]:
        """Return the tags of the record."""
        return frozenset(self.experiment._listed([self.run]).get(self.run, ()))

    def rows(self, tags: Sequence[str], most: int | None = None) -> dict[str, list[Row]]:
        """Return the rows of each of the tags, in the order in which they were written."""
        if not tags:
            return {}
        last = self._read(tags, 1)
        if most == 1:
            return last
        found = {}
        for tag, rows in last.items():  # one by one: all at once would be too much
            room = max(1, _MOST_BYTES // max(1, *(_bytes(row) for row in rows), 1))
            found.update(self._read([tag], min(room, _ALL if most is None else most)))
        return found

    def loss(self) -> Curve | None:
        """Return the loss among the scalars of the run, or of the run around it."""
        runs = [self.run]
        if self.run.split("/")[-1] == OWN_FOLDER:
            runs.append(self.run.rpartition("/")[0] or ".")
        about: dict[str, Any] = {
            "experiment_id": self.experiment.experiment_id,
            "plugin_name": "scalars",
        }
        provider, context = self.experiment.provider, self.experiment.context
        listed = provider.list_scalars(context, run_tag_filter=RunTagFilter(runs=runs), **about)
        for run in runs:
            tag = loss_tag(listed.get(run, ()))
            if tag is not None:
                only = RunTagFilter(runs=[run], tags=[tag])
                data = provider.read_scalars(context, downsample=LOSS_POINTS, run_tag_filter=only, **about)
                points = data.get(run, {}).get(tag, [])
                steps = np.array([point.step for point in points], np.int64)
                return Curve(tag, steps, np.array([point.value for point in points], np.float64))
        return None

    def damage(self) -> str | None:
        """Return None: TensorBoard does not say what it could not read."""
        return None

    def _read(self, tags: Sequence[str], most: int) -> dict[str, list[Row]]:
        data = self.experiment.provider.read_tensors(
            self.experiment.context,
            experiment_id=self.experiment.experiment_id,
            plugin_name=PLUGIN,
            downsample=most,
            run_tag_filter=RunTagFilter(runs=[self.run], tags=tags),
        )
        return {tag: [_row(datum) for datum in series] for tag, series in data.get(self.run, {}).items()}


def _bytes(row: Row) -> int:
    return len(row.content) if isinstance(row.content, bytes) else row.content.nbytes


def _row(datum: Any) -> Row:
    held = datum.numpy
    if held.dtype == object:
        held = held.item() if held.size == 1 else b""
    return Row(datum.step, datum.wall_time, held)
