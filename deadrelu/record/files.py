"""Files: the event files of one folder, read as far as they are whole, and on from there when they have grown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .frames import Frame, frames, is_broken
from .names import CELLS, REPORT, SITES
from .protos import content, number, told
from .source import Curve, Row, looks_like_loss, loss_tag

_LATER = (CELLS, REPORT)
"""What is read when it is asked for: the rest of a record is small."""

_CURVES = 64


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an event lies."""

    path: Path
    start: int


class Files:
    """A `Source` over event files. `update` takes in what is new; nothing is read twice but cells.

    Once a file is gone, or was written anew, nothing that was read before is held on to.

    Args:
        path: an event file, or a folder of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    @property
    def is_record(self) -> bool:
        """There is a record in these files."""
        return SITES in self._rows

    def update(self) -> bool:
        """Take in what was written since; return whether there was anything.

        Raises:
            InputError: a file cannot be read.
        """
        paths = event_files(self.path)
        gone = any(path not in paths or _size(path) < end for path, end in self._read.items())
        if gone:
            self._forget()
        grown = [self._take_in(path) for path in paths]
        return gone or any(grown)

    def _forget(self) -> None:
        self._damaged: set[_Place] = set()
        self._broken: dict[Path, int] = {}
        self._read: dict[Path, int] = {}
        self._rows: dict[str, list[Row]] = {}
        self._places: dict[str, list[_Place]] = {}
        self._curves: dict[str, list[tuple[int, float]]] = {}

    def tags(self) -> frozenset[str]:
        """Return the tags of the record."""
        return frozenset((*self._rows, *self._places))

    def rows(self, tags: Sequence[str], most: int | None = None) -> dict[str, list[Row]]:
        """Return the rows of each of the tags, in the order in which they were written.

        Raises:
            InputError: a file cannot be read any more.
        """
        found = {tag: _last(self._rows[tag], most) for tag in tags if tag in self._rows}
        for tag in tags:
            if tag in self._places:
                found[tag] = self._fetch(tag, _last(self._places[tag], most))
        return found

    def loss(self) -> Curve | None:
        """Return the loss among the user's scalars."""
        tag = loss_tag(self._curves)
        if tag is None:
            return None
        points = dict(self._curves[tag])
        steps = sorted(points)
        return Curve(tag, np.array(steps, np.int64), np.array([points[step] for step in steps], np.float64))

    def damage(self) -> str | None:
        """Return in words what cannot be read of the files, None if there is no such thing."""
        parts = [
            f"{path.name} is damaged at byte {at}: what follows cannot be read" for path, at in self._broken.items()
        ]
        if self._damaged:
            count = len(self._damaged)
            parts.append(f"{count} damaged {'entry was' if count == 1 else 'entries were'} left out")
        return "; ".join(parts) or None

    def _take_in(self, path: Path) -> bool:
        start = self._read.get(path, 0)
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                end = start
                for frame in frames(file, start, size):
                    end = frame.end
                    self._sort(path, frame)
                if is_broken(file, end, size):
                    self._broken[path] = end
        except OSError as error:
            raise _unreadable(path, error) from None
        self._read[path] = end
        return end != start

    def _sort(self, path: Path, frame: Frame) -> None:
        event = told(frame.data)
        if event is None:
            self._damaged.add(_Place(path, frame.start))
            return
        checked = False
        for value in event.values:
            tag = value.tag
            if tag.startswith(_LATER):
                places = self._places.setdefault(tag, [])
                if not places or places[-1].start != frame.start or places[-1].path != path:
                    places.append(_Place(path, frame.start))
                continue
            if not checked and not frame.is_whole:
                self._damaged.add(_Place(path, frame.start))
                return
            checked = True
            if tag.startswith("deadrelu_record/"):
                held = content(value)
                if held is not None:
                    self._rows.setdefault(tag, []).append(Row(event.step, event.wall_time, held))
            elif looks_like_loss(tag) and (tag in self._curves or len(self._curves) < _CURVES):
                point = number(value)
                if point is not None:
                    self._curves.setdefault(tag, []).append((event.step, point))

    def _fetch(self, tag: str, places: Sequence[_Place]) -> list[Row]:
        rows: list[Row] = []
        for path, group in groupby(places, lambda place: place.path):
            rows += self._rows_at(path, [place.start for place in group], tag)
        return rows

    def _rows_at(self, path: Path, starts: Sequence[int], tag: str) -> list[Row]:
        rows: list[Row] = []
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                for start in starts:
                    frame = next(frames(file, start, size), None)
                    if frame is None or not frame.is_whole:
                        self._damaged.add(_Place(path, start))
                    else:
                        rows += _rows_of(tag, frame)
        except OSError as error:
            raise _unreadable(path, error) from None
        return rows


def event_files(path: Path) -> list[Path]:
    """Return the event files of a folder, the oldest first as TensorBoard has it; a file is itself, nothing is none.

    Raises:
        InputError: the folder cannot be read.
    """
    if not path.is_dir():
        return [path] if path.exists() else []
    try:
        return sorted(found for found in path.iterdir() if "tfevents" in found.name and found.is_file())
    except OSError as error:
        raise _unreadable(path, error) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _rows_of(tag: str, frame: Frame) -> list[Row]:
    event = told(frame.data)
    if event is None:
        return []
    found = [content(value) for value in event.values if value.tag == tag]
    return [Row(event.step, event.wall_time, held) for held in found if held is not None]


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror or error}); check the path")


def _last(rows: list[Any], most: int | None) -> list[Any]:
    return rows if most is None or len(rows) <= most else rows[-most:] if most else []
