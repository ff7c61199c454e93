"""Records that nobody vouches for: whatever stands in them, they are shown or refused with one InputError."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deadrelu.errors import InputError
from deadrelu.record import names
from deadrelu.record.files import Files
from deadrelu.record.frames import frames, pack
from deadrelu.record.protos import Shelf, event
from deadrelu.record.reader import read_run
from deadrelu.render.markdown import to_markdown
from deadrelu.render.view import View

from .played import play

JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**30, 2**63, 1.5, -1e308, 1e308, "", "x", "\ud800", [], {}, [[]], [None], {"a": 1}, [1, 2],
)  # fmt: skip
KINDS = ("sites", "window", "happened", "report")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, float, Any]]]:
    """Return the rows of a small record by tag."""
    folder = tmp_path_factory.mktemp("whole")
    play((("fc1", 3), ("fc2", 2)), 4, every_death=1).recorded(folder)
    files = Files(folder)
    files.update()
    found = files.rows(sorted(files.tags()))
    return {tag: [(row.step, row.wall_time, row.content) for row in held] for tag, held in found.items()}


def written(folder: Path, rows: dict[str, list[tuple[int, float, Any]]]) -> Path:
    """Write rows as a record, whatever they hold."""
    shelf = Shelf()
    frames = [
        pack(event(step, wall, [shelf.own(tag, content)]).SerializeToString())
        for tag, held in rows.items()
        for step, wall, content in held
    ]
    folder.mkdir(exist_ok=True)
    (folder / "events.out.tfevents.1.x").write_bytes(b"".join(frames))
    return folder


def shown(folder: Path) -> bool:
    """Read and show a record in every way; return False if it was refused."""
    refusal = ""
    try:
        run = read_run(folder)
        view = View(run)
        json.dumps(view.document, allow_nan=False)
        for site in view.sites.values():
            json.dumps(site, allow_nan=False)
            for channel, scale in site["channels"].items():
                if scale is not None:
                    assert len(view.cells(site["site"], channel)) == len(site["steps"]) * site["units"]
        assert str(run.report)
        assert to_markdown(run.report)
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal
    return not refusal


def test_it_is_a_record_as_long_as_nothing_is_changed(tmp_path: Path, rows: Any) -> None:
    assert shown(written(tmp_path / "run", rows))


def spoil(rng: random.Random, told: Any) -> Any:
    """Replace, drop or double something in a JSON value."""
    places: list[tuple[Any, Any]] = []

    def walk(held: Any) -> None:
        for key, value in held.items() if isinstance(held, dict) else enumerate(held):
            places.append((held, key))
            if isinstance(value, (dict, list)):
                walk(value)

    walk(told)
    held, key = rng.choice(places)
    how = rng.random()
    if how < 0.75:
        held[key] = rng.choice(JUNK)
    elif how < 0.9:
        del held[key]
    elif isinstance(held, list):
        held.insert(key, held[key])
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_json(tmp_path: Path, rows: Any, kind: str) -> None:
    rng = random.Random(kind)
    tag = getattr(names, kind.upper())
    refused = 0
    for number in range(120):
        spoilt = {t: list(held) for t, held in rows.items()}
        if kind in ("happened", "window") and number % 2:
            del spoilt[names.REPORT]
        place = rng.randrange(len(spoilt[tag]))
        step, wall, content = spoilt[tag][place]
        text = zlib.decompress(content) if kind == "report" else content
        told = spoil(rng, json.loads(text))
        data = json.dumps(told).encode()
        spoilt[tag][place] = step, wall, zlib.compress(data) if kind == "report" else data
        refused += not shown(written(tmp_path / "run", spoilt))
    assert refused > 10, "the damage was noticed"


def test_spoilt_arrays(tmp_path: Path, rows: Any) -> None:
    rng = random.Random(0)
    makers = (
        lambda a: a[:0],
        lambda a: a[:, :1],
        lambda a: a.ravel(),
        lambda a: np.full_like(a, 255),
        lambda a: np.concatenate([a, a]),
        lambda a: a.astype(np.float64) * np.nan,
        lambda a: -np.abs(a.astype(np.float64)),
        lambda a: b"text",
    )
    arrays = [tag for tag in rows if tag == names.LINES or tag.startswith(names.CELLS)]
    refused = 0
    for _ in range(70):
        spoilt = {t: list(held) for t, held in rows.items() if t != names.REPORT or rng.random() < 0.5}
        tag = rng.choice(arrays)
        place = rng.randrange(len(spoilt[tag]))
        step, wall, content = spoilt[tag][place]
        spoilt[tag][place] = step, wall, rng.choice(makers)(content)
        refused += not shown(written(tmp_path / "run", spoilt))
    assert 0 < refused < 70, refused


@pytest.mark.parametrize("gone", ["sites", "window", "lines", "happened", "report", "cells"])
def test_a_tag_is_gone(tmp_path: Path, rows: Any, gone: str) -> None:
    left = {tag: held for tag, held in rows.items() if not tag.startswith(f"deadrelu_record/{gone}")}
    assert shown(written(tmp_path / "run", left)) == (gone != "sites")


def test_a_report_that_unpacks_to_more_than_memory(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadrelu.record.ending._MOST_BYTES", 1 << 16)
    bomb = {**rows, names.REPORT: [(*rows[names.REPORT][0][:2], zlib.compress(bytes(1 << 20)))]}
    assert not shown(written(tmp_path / "run", bomb))


def test_a_site_with_more_units_than_memory(tmp_path: Path, rows: Any) -> None:
    (step, wall, content), *_ = rows[names.SITES]
    told = json.loads(content)
    told["sites"][0]["units"] = 10**12
    assert not shown(written(tmp_path / "run", {**rows, names.SITES: [(step, wall, json.dumps(told).encode())]}))


def test_random_bytes_flipped(tmp_path: Path) -> None:
    """Checksums tell: a flipped byte costs its own record, or what comes after it."""
    play((("fc1", 3), ("fc2", 2)), 4, every_death=1).recorded(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    rng = random.Random(0)
    read = 0
    for _ in range(90):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 5))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(data))
        read += shown(tmp_path)
    assert read > 0, "most flips leave a part that reads"


def test_not_an_event_file_at_all(tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"\0" * 100, b"hello\n" * 50, random.Random(0).randbytes(3000))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "events.out.tfevents.1").write_bytes(data)
        with pytest.raises(InputError, match="no record of a run"):
            read_run(folder)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A header that is no header ends the reading of its file; a spoilt entry costs itself: both are said."""
    play((("fc1", 3), ("fc2", 2)), 4, every_death=1).recorded(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    with file.open("rb") as handle:
        starts = [frame.start for frame in frames(handle, 0, len(whole))]
    assert read_run(tmp_path).damage is None

    def spoilt(at: int) -> None:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

    spoilt(starts[-3])
    run = read_run(tmp_path)
    assert run.damage == f"{file.name} is damaged at byte {starts[-3]}: what follows cannot be read"
    assert run.damage in View(run).document["thinned"]
    spoilt(starts[-2] + 20)
    assert read_run(tmp_path).damage == "1 damaged entry was left out"
    spoilt(starts[1] + 3)
    with pytest.raises(InputError, match=f"no record of a run can be read in it: .* damaged at byte {starts[1]}"):
        read_run(tmp_path)
    file.write_bytes(whole[: starts[-1] + 5])  # still being written
    assert read_run(tmp_path).damage is None
