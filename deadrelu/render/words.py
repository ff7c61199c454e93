"""Words: how numbers and names are written on every screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

ELLIPSIS = "…"


def count(number: int) -> str:
    """Return a whole number with thousands separators.

    >>> count(1280)
    '1,280'
    """
    return f"{number:,}"


def many(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it belongs.

    >>> many(1, "unit"), many(1280, "unit")
    ('1 unit', '1,280 units')
    """
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def percent(fraction: float | None) -> str:
    """Return a fraction in 0..1 as per cent with one decimal; what is not nothing never reads as nothing.

    >>> percent(0.1672), percent(0.0001), percent(0.0), percent(0.9999), percent(1.0), percent(None)
    ('16.7 %', '<0.1 %', '0 %', '>99.9 %', '100 %', '-')
    """
    if fraction is None or math.isnan(fraction):
        return "-"
    if fraction in (0.0, 1.0):
        return f"{fraction:.0%}".replace("%", " %")
    if fraction < 0.001:
        return "<0.1 %"
    if fraction > 0.999:
        return ">99.9 %"
    return f"{100 * fraction:.1f} %"


def rounded(fraction: float) -> str:
    """Return a fraction in 0..1 that is a round number anyway, such as a threshold, in whole per cent.

    >>> rounded(0.05)
    '5 %'
    """
    return f"{100 * fraction:.0f} %"


def ceiling(rate: float) -> str:
    """Return an upper bound in 0..1 as per cent with two significant digits, rounded up: a bound stays a bound.

    >>> ceiling(0.00029953), ceiling(0.00118), ceiling(0.0258), ceiling(0.95), ceiling(1.0)
    ('0.03 %', '0.12 %', '2.6 %', '95 %', '100 %')
    """
    value = 100 * min(max(rate, 0.0), 1.0)
    if value == 0.0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(value)))
    step: float = 10.0**digits
    # A bound that is a round number but for the last bits of its float, such as 5.000000000000001, stays that number.
    raised = math.ceil(value * step * (1 - 1e-12)) / step
    written = f"{raised:.{digits}f}"
    return (written.rstrip("0").rstrip(".") if digits else written) + " %"


def clean(name: str) -> str:
    r"""Return a name in which nothing can move the cursor, change colours, hide or turn round the text.

    Whatever is not printable (control characters, bidirectional marks, zero-width and unpaired ones) is written as its
    Python escape. Markup of a target format is left for its screen to escape.

    >>> clean("fc\x1b[31m\u202e")
    'fc\\x1b[31m\\u202e'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def spoken(names: Sequence[str], noun: str = "site", width: int = 40) -> list[str]:
    """Return names as they stand in a sentence: clean, short, and with a noun before what reads as a number.

    >>> spoken(["fc2", "3"])
    ['fc2', 'site 3']
    """
    return [f"{noun} {n}" if n[:1].isdigit() else n for n in elide([clean(name) for name in names], width)]


def listing(items: Sequence[str], limit: int = 3) -> str:
    """Return names as a list in words, the first `limit` of them by name.

    >>> listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c", "d", "e"])
    ('a', 'a and b', 'a, b, c and 2 more')
    """
    shown = list(items[:limit])
    if len(items) > limit:
        return f"{', '.join(shown)} and {count(len(items) - limit)} more"
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def elide(
    names: Sequence[str], width: int, *, ellipsis: str = ELLIPSIS, measure: Callable[[str], int] = len
) -> list[str]:
    """Return the names cut in their middle to at most `width`, where possible at a place that tells them apart.

    All names are cut at the same place: the one nearest to the middle that keeps the most of them distinct.

    Args:
        names: the names that are to be told apart.
        width: the space for each; at least that of the ellipsis.
        ellipsis: what stands for the missing middle.
        measure: the width of a text (in cells, for a terminal).

    >>> elide(["features.1"], 12), elide(["encoder.layers.3.act", "encoder.layers.13.act"], 12)
    (['features.1'], ['encod….3.act', 'encod…13.act'])
    """
    room = max(0, width - measure(ellipsis))
    best: list[str] = []
    distinct = 0
    for head in sorted(range(room + 1), key=lambda h: (abs(2 * h - room), h)):
        cut = [n if measure(n) <= width else _around(n, head, room - head, ellipsis, measure) for n in names]
        if len(set(cut)) > distinct:
            best, distinct = cut, len(set(cut))
        if distinct == len(set(names)):
            break
    return best


def _around(name: str, head: int, tail: int, ellipsis: str, measure: Callable[[str], int]) -> str:
    return _start(name, head, measure) + ellipsis + _start(name[::-1], tail, measure)[::-1]


def _start(text: str, width: int, measure: Callable[[str], int]) -> str:
    """Return the longest beginning of a text that fits, looking at no more characters than needed."""
    end = min(len(text), width)  # no character that is kept is narrower than one cell, save combining ones
    while end and measure(text[:end]) > width:
        end -= 1
    return text[:end]
