"""What any TensorBoard shows of a record, with nothing installed: names, numbers, histograms, text."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from deadrelu.record.names import CELLS, PLUGIN
from deadrelu.record.pages import EDGES

from .played import HOSTILE, Played, play

COLUMNS = ("dead_fraction", "bias_drift", "grad_flow")
STOCK = re.compile(
    r"deadrelu/dead_fraction|deadrelu/log10_lr|deadrelu/report|deadrelu_causes/\w+|deadrelu_units/(?P<a>.*)|"
    r"deadrelu_layers/(dead_fraction|bias_drift|grad_flow)/(?P<b>.*)",
    re.DOTALL,
)


def accumulated(played: Played, folder: Path) -> EventAccumulator:
    played.recorded(folder)
    found = EventAccumulator(
        str(folder), tensor_size_guidance=dict.fromkeys((PLUGIN, "scalars", "histograms", "text"), 0)
    )
    return found.Reload()


def series(found: EventAccumulator, tag: str) -> dict[int, np.ndarray]:
    return {event.step: make_ndarray(event.tensor_proto) for event in found.Tensors(tag)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, EventAccumulator]:
    played = play((("fc1", 6), ("fc2", 400)), 12, every_death=1)
    return played, accumulated(played, tmp_path_factory.mktemp("run"))


def test_the_names_are_these_and_no_others(run: tuple[Played, EventAccumulator]) -> None:
    """Section 7 of the design; no scalar is of a unit."""
    names = run[1].AllSummaryMetadata()
    stock = {tag for tag, about in names.items() if about.plugin_data.plugin_name != PLUGIN}
    assert stock == {
        "deadrelu/dead_fraction",
        "deadrelu/log10_lr",
        "deadrelu/report",
        "deadrelu_causes/learning_rate",
        *(
            f"deadrelu_layers/{column}/{s}"
            for column in ("dead_fraction", "bias_drift", "grad_flow")
            for s in ("fc1", "fc2")
        ),
        *(f"deadrelu_units/{s}" for s in ("fc1", "fc2")),
    }
    own = {tag: about for tag, about in names.items() if about.plugin_data.plugin_name == PLUGIN}
    assert all(about.data_class == 2 for about in own.values()), "DATA_CLASS_TENSOR"
    assert all(json.loads(about.plugin_data.content)["schema"] == "deadrelu.record/1" for about in own.values())


def test_scalars(run: tuple[Played, EventAccumulator]) -> None:
    played, found = run
    last = [w.last for w in played.windows]
    told = series(found, "deadrelu/dead_fraction")
    assert list(told) == last
    assert [float(v) for v in told.values()] == pytest.approx([w.dead_fraction for w in played.windows])
    rates = series(found, "deadrelu/log10_lr")
    assert [float(v) for v in rates.values()] == pytest.approx([math.log10(w.rates["0"]) for w in played.windows])
    fractions = series(found, "deadrelu_layers/dead_fraction/fc1")
    assert [float(v) for v in fractions.values()] == pytest.approx([w.sites[0].dead.mean() for w in played.windows])
    causes = [float(v) for v in series(found, "deadrelu_causes/learning_rate").values()]
    assert causes == sorted(causes)
    assert causes[-1] == len(played.report.deaths)


def test_histograms_count_every_unit_that_was_measured(run: tuple[Played, EventAccumulator]) -> None:
    played, found = run
    assert len(EDGES) == 30
    for (step, table), window in zip(series(found, "deadrelu_units/fc2").items(), played.windows, strict=True):
        assert step == window.last
        assert table.shape == (29, 3)
        expected, edges = np.histogram(window.sites[1].activation_rate, EDGES)
        np.testing.assert_allclose(table[:, 0], edges[:-1])
        np.testing.assert_allclose(table[:, 1], edges[1:])
        assert np.abs(table[:, 2] - expected).sum() <= 2, "a rate on an edge may go either way"
        assert table[:, 2].sum() == 400


def test_plugin_data_is_one_tensor_a_site_and_record(run: tuple[Played, EventAccumulator]) -> None:
    played, found = run
    cells = sorted(tag for tag in found.AllSummaryMetadata() if tag.startswith(CELLS))
    assert len(cells) == 2
    for tag, units in zip(cells, (6, 400), strict=True):
        arrays = series(found, tag)
        assert list(arrays) == [w.last for w in played.windows]
        assert {(a.dtype, a.shape) for a in arrays.values()} == {(np.dtype(np.uint8), (3, units))}


def test_the_last_text_is_the_report(run: tuple[Played, EventAccumulator]) -> None:
    _, found = run
    texts = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("deadrelu/report")]
    assert texts[-1].startswith("## ")
    assert "died in" in texts[-1]
    assert texts[0].startswith("```\nstep ")


def test_hostile_names_cost_nothing(tmp_path: Path) -> None:
    played = play(tuple((name, 3) for name in HOSTILE), 3, every_death=1)
    found = accumulated(played, tmp_path)
    names = [tag for tag in found.AllSummaryMetadata() if not tag.startswith("deadrelu_record/")]
    assert all(STOCK.fullmatch(tag) for tag in names)
    assert all(tag.isprintable() for tag in names)
    assert len([tag for tag in names if tag.startswith("deadrelu_units/")]) == len(HOSTILE)
    markdown = found.Tensors("deadrelu/report")[-1].tensor_proto.string_val[0].decode()
    assert "<script" not in markdown


def test_a_histogram_is_not_written_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadrelu.record.writer.HISTOGRAMS", 4)
    found = accumulated(play((("a", 3),), 40, every_death=0), tmp_path)
    assert len(found.Tensors("deadrelu_units/a")) <= 12
    assert len(found.Tensors("deadrelu_layers/grad_flow/a")) == 40
