"""Canvas: the space, characters and colours that a terminal screen is drawn with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.text import Text

from .claims import Standing
from .tally import Effect
from .verdict import Severity
from .words import ELLIPSIS, elide

NARROWEST = 40
PROSE_WIDTH = 120
"""Longer lines of running text are hard to read."""

# Hues of the palettes of Okabe & Ito and of Tol, which stay apart under every common form of colour blindness and are
# legible on white and on black. A colour never stands alone: marks, bars and words say the same.
DEAD = "#d55e00"
UNDECIDED = "#b8860b"
CALM = "#0072b2"
SOFT = "dim"
STRONG = "bold"

SEVERITY_STYLES: dict[Severity, str] = {
    "healthy": f"bold {CALM}",
    "notice": f"bold {UNDECIDED}",
    "harmless": f"bold {CALM}",
    "undecided": f"bold {UNDECIDED}",
    "weakened": f"bold {DEAD}",
    "bottleneck": f"bold {DEAD}",
    "cut off": f"bold {DEAD}",
    "NaN": f"bold {DEAD}",
}
EFFECT_STYLES: dict[Effect, str] = {
    "": SOFT,
    "undecided": UNDECIDED,
    "harmless": CALM,
    "weakened": DEAD,
    "bottleneck": f"bold {DEAD}",
    "cut off": f"bold {DEAD}",
    "NaN": f"bold reverse {DEAD}",
}
STANDING_STYLES: dict[Standing, str] = {
    "proved": "bold #117733",
    "exhaustive": "bold #0072b2",
    "statistical": "bold #aa4499",
    "optimizer": "bold #44aa99",
    "heuristic": "italic #888888",
    "seen": "bold",
    "undecided": f"bold {UNDECIDED}",
}
_MARKS: dict[Severity, tuple[str, str]] = {
    "healthy": ("✓", "+"),
    "notice": ("○", "o"),
    "harmless": ("○", "o"),
    "undecided": ("?", "?"),
    "weakened": ("▲", "!"),
    "bottleneck": ("▲", "!"),
    "cut off": ("✗", "X"),
    "NaN": ("✗", "X"),
}
_EIGHTHS = " ▏▎▍▌▋▊▉"
_HEIGHTS = ("·▁▂▃▄▅▆▇█", ".:-=+*%@#")


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where a screen is drawn.

    Attributes:
        width: cells of a line; screens keep within it from 40 on, two reports side by side from 60 on.
        ascii: the output takes nothing but ASCII.
    """

    width: int = 80
    ascii: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", max(self.width, NARROWEST))

    def mark(self, severity: Severity) -> str:
        """Return the one-cell sign of a severity."""
        return _MARKS[severity][self.ascii]

    def spell(self, text: str) -> str:
        """Return a text in characters that the output can take."""
        if not self.ascii:
            return text
        return text.replace(ELLIPSIS, "...").encode("ascii", "backslashreplace").decode("ascii")

    def names(self, names: Sequence[str], width: int) -> list[str]:
        """Return names that fit `width` cells and stay distinct where that is possible."""
        ellipsis = self.spell(ELLIPSIS)
        cut = elide([self.spell(name) for name in names], width, ellipsis=ellipsis, measure=cell_len)
        return [name if cell_len(name) <= width else chop_cells(name, width)[0] for name in cut]

    def bar(self, dead: float, silent: float, cells: int) -> Text:
        """Draw the dead and the undecided share of a width: solid and shaded, what is left as dots.

        What is there takes at least a trace, what is not all leaves at least one dot.
        """
        if self.ascii:
            solid = _whole(dead, cells)
            head, used = "#" * solid, solid
        else:
            eighths = _whole(dead, 8 * cells)
            full, part = divmod(eighths, 8)
            head = "█" * full + (_EIGHTHS[part] if part else "")
            used = full + bool(part)
        shaded = max(_whole(silent, cells) - used, 0) if silent > dead else 0
        if silent > dead and not shaded and used < cells:
            shaded = 1
        bar = Text().append(head, DEAD)
        bar.append(("?" if self.ascii else "▒") * shaded, UNDECIDED)
        bar.append(("." if self.ascii else "·") * (cells - used - shaded), SOFT)
        return bar

    def spark(self, heights: Sequence[float]) -> Text:
        """Draw heights in 0..1 as bars of one cell each; what is not nothing never looks like nothing."""
        line = Text()
        for height in heights:
            line.append(_HEIGHTS[self.ascii][_whole(height, 8)], DEAD if height else SOFT)
        return line

    def wrap(self, text: str, width: int) -> list[str]:
        """Break a text into lines of at most `width` cells, at spaces but never before a per cent sign."""
        lines = [""]
        for word in re.split(r" +(?!%)", self.spell(text)):
            for piece in chop_cells(word, width) if cell_len(word) > width else [word]:
                room = width - cell_len(lines[-1])
                if lines[-1] and cell_len(piece) + 1 > room:
                    lines.append(piece)
                else:
                    lines[-1] += f" {piece}" if lines[-1] else piece
        return lines


def _whole(fraction: float, steps: int) -> int:
    if fraction <= 0.0:
        return 0
    return steps if fraction >= 1.0 else min(max(round(fraction * steps), 1), steps - 1)
