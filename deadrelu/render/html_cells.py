"""HTML cells: what a file holds of the units of a recorded run, thinned in time until it fits."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .html_page import packed_bytes

CHANNELS = ("rate", "grad", "bias")
SMALLEST_BOUND, LARGEST_BOUND = 1_400_000, 12_000_000
_BYTES_PER_UNIT = 64  # of each channel, between the two bounds
_SAMPLE = 200_000  # bytes
_TRIED = 12  # codes that would be more than that many times the bound are thinned before any is packed


class RecordedRun(Protocol):
    """A recorded run, as the tab's back end serves it."""

    @property
    def document(self) -> Mapping[str, Any]:
        """The run's document, schema `deadrelu.view/1`."""

    @property
    def sites(self) -> Mapping[str, Mapping[str, Any]]:
        """The document of each site: `site`, `units`, `steps`, `channels`, `death_step`."""

    def cells(self, site: str, channel: str) -> bytes:
        """Return the codes, uint8, (records, units) in C order."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The packed codes of one channel, unit by unit; `differences` from record to record, if those are smaller."""

    packed: str
    differences: bool


@dataclass(frozen=True, slots=True)
class Packed:
    """The sites of a run, ready to be written.

    Attributes:
        sites: per site its document, thinned, and its packed codes per channel.
        every: one of that many recorded windows is kept.
    """

    sites: tuple[tuple[dict[str, Any], dict[str, Codes]], ...]
    every: int


def pack(run: RecordedRun, share: int = 1) -> Packed:
    """Pack the cells of a run, of `share` runs that share a file, into its part of the bound.

    The bound grows with the number of units from 1.4 MB to 12 MB.
    """
    units = sum(int(site["units"]) for site in run.document["sites"]) * len(CHANNELS)
    bound = min(max(units * _BYTES_PER_UNIT, SMALLEST_BOUND), LARGEST_BOUND) // share
    most = max(1, len(run.document["steps"]))
    every = min(most, _guess(run, units * most, bound))
    while True:
        sites = tuple(_pack_site(run, name, every) for name in run.sites)
        size = sum(len(codes.packed) for _, channels in sites for codes in channels.values())
        if size <= bound or every >= most:
            return Packed(sites, every)
        every = min(most, max(every + 1, -(-every * size // bound)))


def _guess(run: RecordedRun, codes: int, bound: int) -> int:
    """Return how much to thin a run of that many codes, from how well its largest site packs.

    To read and pack all sites of a large run takes long: it should be done once.
    """
    if codes <= bound:
        return 1
    name = max(run.document["sites"], key=lambda site: int(site["units"]))["site"]
    every = max(1, codes // (_TRIED * bound))
    site, channels = _pack_site(run, name, every)
    raw = int(site["units"]) * len(site["steps"]) * len(channels)
    packed = sum(len(codes.packed) for codes in channels.values())
    return max(1, math.ceil(codes * packed / max(1, raw) / bound))


def kept(steps: Sequence[int], every: int) -> list[int]:
    """Return which records are kept, the last one always.

    >>> kept([9, 19, 29, 39], 2)
    [1, 3]
    """
    return list(range(len(steps) - 1, -1, -every))[::-1]


def _measured(site: Mapping[str, Any]) -> list[str]:
    return [name for name in CHANNELS if site["channels"].get(name)]


def _pack_site(run: RecordedRun, name: str, every: int) -> tuple[dict[str, Any], dict[str, Codes]]:
    site = run.sites[name]
    steps, units = list(site["steps"]), int(site["units"])
    chosen = kept(steps, every)
    channels = {}
    for channel in _measured(site):
        codes = np.frombuffer(run.cells(name, channel), np.uint8).reshape(len(steps), units)
        channels[channel] = _packed(np.ascontiguousarray(codes[chosen].T))
    return {**site, "steps": [steps[i] for i in chosen]}, channels


def _packed(lines: NDArray[np.uint8]) -> Codes:
    """Pack codes of shape (units, records): as they are, or what changes, modulo 256.

    What drifts packs better as differences, what is noisy does not; a sample tells.
    """
    differences = np.diff(lines, axis=1, prepend=np.zeros((len(lines), 1), np.uint8))
    few = slice(0, max(1, _SAMPLE // max(1, lines.shape[1])))
    smaller = len(zlib.compress(differences[few].tobytes(), 6)) < len(zlib.compress(lines[few].tobytes(), 6))
    return Codes(packed_bytes((differences if smaller else lines).tobytes()), smaller)
