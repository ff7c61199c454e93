"""The documents that the tab and the HTML file draw."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deadrelu.errors import InputError
from deadrelu.record.codes import DEAD, LOWEST, UNSEEN
from deadrelu.record.reader import read_run
from deadrelu.record.writer import RecordWriter
from deadrelu.render.view import View

from .played import HOSTILE, death, play


def view_of(played, folder: Path, **how) -> View:
    return View(played.recorded(folder, **how))


def test_the_document_of_a_run(tmp_path: Path) -> None:
    played = play((("fc1", 6), ("fc2", 4)), 8, every_death=1)
    view = view_of(played, tmp_path / "spike")
    told = json.loads(json.dumps(view.document, allow_nan=False))
    report = played.report
    assert told["schema"] == "deadrelu.view/1"
    assert told["run"] == "spike"
    assert told["steps"] == [w.last for w in played.windows]
    assert told["verdict"]["headline"] in " ".join(str(report).split())
    assert [s["site"] for s in told["sites"]] == ["fc1", "fc2"]
    for site, found in zip(told["sites"], report, strict=True):
        assert (site["op"], site["units"], site["can_die"]) == (found.op, found.units, found.can_die)
        assert site["dead"] == int(found.dead.sum())
        assert site["dead_fraction"][-1] == found.dead_fraction
        assert len(site["silent_fraction"]) == len(site["bias_drift"]) == 8
    assert told["dead_fraction"][-1] == pytest.approx(report.dead_fraction)
    assert told["rates"]["0"] == [w.rates["0"] for w in played.windows]
    assert told["loss"] is None
    assert told["deaths"] == list(report.deaths)
    assert told["events"] == list(report.events)
    assert told["causes"] == dict(Counter(d["cause"] for d in report.deaths))
    assert (told["thinned"], told["finished"], told["evidence"]) == (None, True, "statistical")
    assert told["samples"] == report.samples
    assert told["report"] == {
        name: report.to_dict()[name] for name in ("units", "units_can_die", "dead", "dead_fraction", "silent_fraction")
    }


def test_the_document_of_a_site(tmp_path: Path) -> None:
    """One scale for all records; codes of dead, silent and unseen stay what they are."""
    played = play((("fc1", 6), ("fc2", 4)), 8, every_death=1)
    view = view_of(played, tmp_path)
    told = json.loads(json.dumps(view.site("fc2"), allow_nan=False))
    assert (told["site"], told["units"], told["steps"]) == ("fc2", 4, [w.last for w in played.windows])
    assert told["channels"]["rate"] == {"low": 1e-4, "high": 1.0, "scale": "log"}
    for channel, truth in (("rate", "activation_rate"), ("grad", "grad_flow"), ("bias", "bias")):
        scale = told["channels"][channel]
        codes = np.frombuffer(view.cells("fc2", channel), np.uint8).reshape(8, 4)
        for row, window in zip(codes, played.windows, strict=True):
            found = window.sites[1]
            assert ((row == DEAD) == found.dead).all()
            for code, value, silent in zip(row.tolist(), getattr(found, truth), found.silent, strict=True):
                if code == DEAD:
                    continue
                assert code != UNSEEN
                part = (code - 1) / 253
                if scale["scale"] == "linear":
                    back = scale["low"] + part * (scale["high"] - scale["low"])
                    assert back == pytest.approx(value, abs=1.1 * (scale["high"] - scale["low"]) / 253)
                elif silent:
                    assert code == LOWEST
                elif value > scale["low"]:
                    back = scale["low"] * (scale["high"] / scale["low"]) ** part
                    assert back == pytest.approx(value, rel=1.6 * ((scale["high"] / scale["low"]) ** (1 / 253) - 1))


def test_when_each_unit_died(tmp_path: Path) -> None:
    """The death that holds at the end: not one that was taken back; -1 for a unit that was born dead."""
    played = play((("a", 5),), 3, every_death=0)
    records = [
        death("a", 0, 10),
        death("a", 1, 20, revived=60),
        death("a", 2, 20, revived=60),
        death("a", 2, 90),
        death("a", 3, 0, last_fired=None, killed_by_step=None, born_dead=True, confirmed=24),
    ]
    report = replace(played.report, deaths=tuple(d.to_dict() for d in records))
    view = view_of(replace(played, report=report), tmp_path)
    assert view.site("a")["death_step"] == [10, None, 90, -1, None]


def test_what_is_not_there_is_null(tmp_path: Path) -> None:
    played = play((("a", 3),), 2, every_death=0, bias=None, grad_flow=None, update_ratio=None)
    view = view_of(played, tmp_path)
    (site,) = view.document["sites"]
    assert site["bias_drift"] is None
    assert view.site("a")["channels"]["bias"] is None
    assert set(view.cells("a", "bias")) == {UNSEEN}
    immortal = view_of(play((("a", 3),), 2, can_die=False), tmp_path / "immortal")
    assert immortal.document["sites"][0]["dead_fraction"] == [None, None]
    assert immortal.document["dead_fraction"] == [None, None]


def test_unknown_names(tmp_path: Path) -> None:
    view = view_of(play(), tmp_path)
    with pytest.raises(InputError, match=r"no site 'fc9' in .*; the sites are fc1, fc2"):
        view.site("fc9")
    with pytest.raises(InputError, match="no channel 'z'; the channels are rate, grad, bias"):
        view.cells("fc1", "z")
    assert "fc9" not in view.sites
    assert list(view.sites) == ["fc1", "fc2"]


def test_hostile_names_are_data(tmp_path: Path) -> None:
    view = view_of(play(tuple((name, 2) for name in HOSTILE), 2), tmp_path)
    assert json.loads(json.dumps([s["site"] for s in view.document["sites"]])) == list(HOSTILE)
    for name in HOSTILE:
        assert view.site(name)["site"] == name
        assert len(view.cells(name, "rate")) == 4


def test_a_long_loss_is_thinned(tmp_path: Path) -> None:
    """2,000 points at most, the last among them; what is no number is null."""
    torch_writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(tmp_path))
    writer = RecordWriter(writer=torch_writer)
    play(windows=1).record(writer)
    for step in range(5001):
        torch_writer.add_scalar("loss", float("nan") if step == 5000 else step / 10, step)
    torch_writer.close()
    writer.close()
    loss = View(read_run(tmp_path)).document["loss"]
    assert loss["tag"] == "loss"
    assert len(loss["steps"]) == len(loss["values"]) <= 2000
    assert loss["steps"][-1] == 5000
    assert loss["values"][-1] is None
    assert loss["values"][0] == pytest.approx(loss["steps"][0] / 10)


def test_a_layer_is_as_dead_as_is_known_since(tmp_path: Path) -> None:
    """A death of step 60 that is sure at step 170: in the windows between, nothing was recorded as dead yet."""
    played = play((("a", 4), ("b", 4)), 6, every_death=0)
    late = death("a", 2, 60, confirmed=170)
    born = death("a", 1, None, confirmed=130, born_dead=True, revived=220)
    for window, summary in enumerate(played.windows):
        summary.sites[0].dead[2] = window >= 3
        summary.sites[0].dead[1] = 2 <= window < 4
    played.windows[3] = replace(played.windows[3], deaths=(late,))
    played.windows[4] = replace(played.windows[4], revived=(born,))
    view = view_of(played, tmp_path, finish=False)
    a, b = view.document["sites"]
    assert a["dead_fraction"] == [0.25, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert b["dead_fraction"] == [0.0] * 6
    assert all(silent >= dead for silent, dead in zip(a["silent_fraction"], a["dead_fraction"], strict=True))
    assert view.run.sites[0].dead_fraction.tolist() == [0.0, 0.0, 0.25, 0.5, 0.25, 0.25]
