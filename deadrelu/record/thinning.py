"""Thinning: which windows of a run are recorded, and which sites in each, so that a record stays bounded."""

from __future__ import annotations

from collections.abc import Sequence

RECORDS = 2000
"""Recorded windows that a view shows at most."""

RECORD_BYTES = 24 * (3 * 4096 + 1024)
"""What the sites may take of each recorded window, on the average: 24 sites of 4,096 units."""

SLOW_RECORD_BYTES = RECORD_BYTES // 4
"""The same where Python computes the checksums, some 8 MB a second: in the user's own writer."""

SITE_BYTES = 1024
"""What a site takes besides its cells."""


def stride(windows: int, bound: int = RECORDS) -> int:
    """Return the power of two by which so many windows are thinned: the smallest that leaves at most `bound`.

    >>> stride(2000), stride(2001), stride(9000)
    (1, 2, 8)
    """
    step = 1
    while windows > step * bound:
        step *= 2
    return step


def is_kept(index: int, bound: int = RECORDS) -> bool:
    """Return whether the window of that index, from 0, is recorded.

    What is written stays written, so every window is recorded until there are `bound`, then every second until there
    are twice as many windows, and so on: `bound` records, and half as many for each doubling of the run. Those at
    multiples of the present stride are evenly spaced, and at most `bound`.

    >>> [i for i in range(14) if is_kept(i, 4)]
    [0, 1, 2, 3, 4, 6, 8, 12]
    """
    return index % stride(index + 1, bound) == 0


def said(windows: int, waiting: int, bound: int = RECORD_BYTES) -> str | None:
    """Return in words what a record of so many windows leaves out, None if nothing.

    Args:
        windows: windows of the run.
        waiting: the most sites that did not fit into a recorded window.
        bound: the bytes that a recorded window has for its sites.
    """
    parts = []
    every = stride(windows)
    if every > 1:
        ordinal = {2: "2nd"}.get(every, f"{every}th")
        parts.append(f"every {ordinal} window is kept (bound: {RECORDS:,} records)")
    if waiting:
        parts.append(f"units are kept in turns, site by site (bound: {bound // 1024} KiB a record)")
    return "; ".join(parts) or None


class Turns:
    """Who may write into a record: every site if all fit, else one after the other.

    What a wide site takes beyond the bound is saved by the records after it.
    """

    def __init__(self, bound: int = RECORD_BYTES) -> None:
        self._bound = bound
        self._credit = 0
        self._next = 0

    def take(self, sizes: Sequence[int]) -> list[int]:
        """Return which of the sites, whose cells take so many bytes each, write into this record; in their order."""
        self._credit = min(self._bound, self._credit + self._bound)
        chosen = []
        start = self._next % len(sizes) if sizes else 0
        for site in (*range(start, len(sizes)), *range(start)):
            if self._credit <= 0:
                break
            self._credit -= sizes[site] + SITE_BYTES
            self._next = site + 1
            chosen.append(site)
        return sorted(chosen)
