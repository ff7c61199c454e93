"""Draw what `alternatives.py` and `growth.py` wrote with --out, as docs/overhead.svg and docs/growth.svg.

    python benchmarks/plots.py FILE... [--folder docs]

What is drawn is told from the file. Colours follow the reader's light or dark scheme; the card brings its background.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 880
PAD = 28
STYLE = """
svg { --card: #ffffff; --edge: #d0d7de; --ink: #1f2328; --muted: #59636e; --grid: #e4e8ec;
  --own: #1a7f37; --other: #8c98a4; --noise: #c4ccd4; --whisker: #1f2328 }
@media (prefers-color-scheme: dark) { svg { --card: #0d1117; --edge: #30363d; --ink: #e6edf3; --muted: #9198a1;
  --grid: #21262d; --own: #3fb950; --other: #6e7985; --noise: #3d444d; --whisker: #e6edf3 } }
text { font-family: -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; font-size: 12.5px;
  fill: var(--ink); font-variant-numeric: tabular-nums }
.card { fill: var(--card); stroke: var(--edge) }
.title { font-size: 17px; font-weight: 600 }
.head { font-size: 13.5px; font-weight: 600 }
.muted { fill: var(--muted) }
.small { fill: var(--muted); font-size: 11.5px }
.strong { font-weight: 600 }
.grid { stroke: var(--grid) }
.base { stroke: var(--muted) }
.own { fill: var(--own) } .other { fill: var(--other) } .noise { fill: var(--noise) }
.whisker { stroke: var(--whisker); stroke-opacity: .55; stroke-width: 1.5 }
.curve { stroke: var(--own); stroke-width: 2; fill: none }
.guide { stroke: var(--muted); stroke-dasharray: 3 4 }
"""
NOISE = "no tool (a second copy)"
SHORT = {  # what a label has room for
    "deadrelu.Monitor(max_overhead=0.02)": "deadrelu, max_overhead=0.02",
    "deadrelu.Monitor": "deadrelu, defaults",
    "naive hook: (y > 0).float().mean().item()": "naive hook: (y > 0).mean().item()",
}


class Canvas:
    """The text of an SVG in the making."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """Add words, y at their base line."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Add a straight line."""
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def bar(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Add a rectangle with slightly round corners."""
        size = f'width="{width:.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} rx="2" class="{kind}"/>')

    def curve(self, points: Iterable[tuple[float, float]]) -> None:
        """Add a line through points, and the points."""
        points = list(points)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" class="curve"/>')
        self._parts += (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="own"/>' for x, y in points)

    def svg(self, height: float, title: str, description: str) -> str:
        """Return the SVG, on its card."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
                f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="title description">',
                f'<title id="title">{escape(title)}</title>',
                f'<desc id="description">{escape(description)}</desc>',
                f"<style>{STYLE}</style>",
                f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="10" class="card"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


def logarithmic(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return where a value goes on a logarithmic axis that spans low..high; what is outside goes to its end."""
    scale = (end - start) / math.log(high / low)
    return lambda value: start + scale * math.log(min(max(value, low), high) / low)


def ran_on(document: dict[str, Any], times: str) -> str:
    """Say how it was measured."""
    threads = document["threads"]
    where = f"{document['device']}, {threads} thread{'s' * (threads > 1)}, torch {document['torch'].partition('+')[0]}"
    return f"{times}; {where}{'; a quick look' * document['quick']}"


# -- alternatives ------------------------------------------------------------------------------------------------------

LABELS, GAP = 238, 20
BAR, PITCH = 14, 24


def alternatives(document: dict[str, Any]) -> str:
    """Return the bars of `alternatives.py`: a panel for each case, two in a row."""
    cases = document["cases"]
    highest = max(row["high"] for case in cases for row in case["rows"] if not row["missing"])
    canvas = Canvas()
    title = "What watching a training step costs"
    canvas.text(PAD, 40, title, "title")
    how = ran_on(document, f"whole step / plain step, log scale; median and middle half of {document['rounds']} rounds")
    canvas.text(PAD, 61, how, "small")
    wide = (WIDTH - 2 * PAD - LABELS - GAP) / 2
    count = len(cases[0]["rows"]) - 1
    tall = 66 + PITCH * count
    end = 1.05 * highest
    ticks = [2**i for i in range(math.floor(math.log2(end)) + 1)]
    remarks: list[str] = []
    for i, case in enumerate(cases):
        left, top = PAD + LABELS + (i % 2) * (wide + GAP), 84 + (i // 2) * tall
        at = logarithmic(0.94, end, left, left + wide - 88)
        if i % 2 == 0:
            labels(canvas, case["rows"][1:], top + 44)
        panel(canvas, case, (left, top), at, ticks, remarks)
    bottom = 84 + tall * math.ceil(len(cases) / 2) + 8
    for i, remark in enumerate(remarks):
        canvas.text(PAD, bottom + 16 * i, f"{'*' * (i + 1)} {remark}", "small")
    return canvas.svg(bottom + 16 * len(remarks) + 8, title, f"{how}. {' '.join(map(told, cases))}")


def labels(canvas: Canvas, rows: Sequence[dict[str, Any]], top: float) -> None:
    """Name the bars of a row of panels."""
    for i, row in enumerate(rows):
        name = row["contender"]
        kind = {"own": "strong", "noise": "muted"}.get(kind_of(name), "")
        canvas.text(PAD + LABELS - 14, top + PITCH * i + BAR - 2.5, SHORT.get(name, name), kind, "end")


def panel(
    canvas: Canvas,
    case: dict[str, Any],
    corner: tuple[float, float],
    at: Callable[[float], float],
    ticks: Sequence[float],
    remarks: list[str],
) -> None:
    """Draw the bars of one case."""
    left, top = corner
    name, _, what = case["case"].partition(" (")
    seconds = sorted(case["rows"][0]["seconds"])[len(case["rows"][0]["seconds"]) // 2]
    canvas.text(left, top + 12, name, "head")
    canvas.text(
        left, top + 27, f"{what.rstrip(')')}; {1e3 * seconds:.{1 if seconds > 1e-3 else 2}f} ms a step", "small"
    )
    rows = case["rows"][1:]
    first, last = top + 38, top + 44 + PITCH * len(rows) - 6
    for tick in ticks:
        canvas.line(at(tick), first, at(tick), last, "base" if tick == 1 else "grid")
        canvas.text(at(tick), last + 14, f"{tick}×", "small", "middle")
    for i, row in enumerate(rows):
        bar(canvas, row, top + 44 + PITCH * i, at, remarks)


def bar(canvas: Canvas, row: dict[str, Any], top: float, at: Callable[[float], float], remarks: list[str]) -> None:
    """Draw one contender."""
    base = top + BAR - 2.5
    if row["missing"]:
        canvas.text(at(1) + 7, base, row["missing"], "small")
        return
    start, end = sorted((at(1), at(row["median"])))
    kind = kind_of(row["contender"])
    canvas.bar(start, top, max(end - start, 2), BAR, kind)
    canvas.line(at(row["low"]), top + BAR / 2, at(row["high"]), top + BAR / 2, "whisker")
    x = max(at(row["median"]), at(row["high"])) + 6
    ratio = written(row["median"])
    note = row["note"]
    if len(note) > len("1 step in 1024"):
        if note not in remarks:
            remarks.append(note)
        ratio += "*" * (remarks.index(note) + 1)
        note = ""
    canvas.text(x, base, ratio, "strong" if kind == "own" else "")
    if note:
        canvas.text(x + 7.6 * len(ratio) + 3, base, note, "small")


def kind_of(contender: str) -> str:
    """Return the class that a contender is drawn in."""
    return "noise" if contender == NOISE else "own" if contender.startswith("deadrelu") else "other"


def written(ratio: float) -> str:
    """Return a ratio in as many digits as tell something."""
    return f"{ratio:.{3 if ratio < 1.1 else 2 if ratio < 10 else 1}f}×"


def told(case: dict[str, Any]) -> str:
    """Say in words what a panel shows."""
    rows = (f"{r['contender']} {r['missing'] or written(r['median'])}" for r in case["rows"][1:])
    return f"{case['case']}: {', '.join(rows)}."


# -- growth ------------------------------------------------------------------------------------------------------------


def growth(document: dict[str, Any]) -> str:
    """Return the curves of `growth.py`, a panel for each axis, on logarithmic axes."""
    axes = document["axes"]
    points = [p for axis in axes for p in axis["points"] if p["added"] > 0]
    if not points:
        raise SystemExit("Monitor added nothing that could be measured; run growth.py again on a quiet machine")
    logs = [math.log10(p["added"]) for p in points]
    powers = range(math.floor(min(logs)), math.ceil(max(logs)) + 1)
    canvas = Canvas()
    title = "How the cost of deadrelu.Monitor grows"
    canvas.text(PAD, 40, title, "title")
    how = ran_on(document, f"microseconds added to a step; median and middle half of {document['pairs']} pairs")
    canvas.text(PAD, 61, how, "small")
    top, bottom, left = 118.0, 312.0, PAD + 40
    up = logarithmic(10 ** powers[0], 10 ** powers[-1], bottom, top)
    wide = (WIDTH - PAD - left - 3 * GAP) / len(axes)
    for i, axis in enumerate(axes):
        curve(canvas, axis, left + i * (wide + GAP), wide, up, powers)
    for power in powers:
        canvas.text(left - 8, up(10**power) + 4, f"{10**power:,} µs", "small", "end")
    canvas.line(PAD, 353, PAD + 28, 353, "guide")
    canvas.text(PAD + 36, 357, "proportional growth, slope 1", "small")
    slopes = ", ".join(f"{axis['axis']} {axis['slope']:.2f}" for axis in axes if axis["slope"] is not None)
    return canvas.svg(376, title, f"{how}. Slopes on logarithmic axes: {slopes}.")


def curve(
    canvas: Canvas,
    axis: dict[str, Any],
    left: float,
    wide: float,
    up: Callable[[float], float],
    powers: Sequence[int],
) -> None:
    """Draw one axis."""
    low, high = 10 ** powers[0], 10 ** powers[-1]
    points = [p for p in axis["points"] if p["added"] > 0]
    values = [p["value"] for p in axis["points"]]
    along = logarithmic(values[0], values[-1], left + 14, left + wide - 14)
    slope = "" if axis["slope"] is None else f"slope {axis['slope']:.2f}".replace("-", "−")
    canvas.text(left, 92, axis["axis"], "head")
    canvas.text(left + wide, 92, slope, "strong", "end")
    canvas.text(left, 108, axis["held"], "small")
    for power in powers:
        canvas.line(left, up(10**power), left + wide, up(10**power), "grid")
    if points:
        first = points[0]
        # The part of the proportional line that is inside of the panel.
        last = min(values[-1], first["value"] * high / first["added"])
        canvas.line(
            along(first["value"]),
            up(first["added"]),
            along(last),
            up(first["added"] * last / first["value"]),
            "guide",
        )
    for p in points:
        canvas.line(along(p["value"]), up(max(p["low"], low)), along(p["value"]), up(p["high"]), "whisker")
    canvas.curve((along(p["value"]), up(p["added"])) for p in points)
    for value in (values[0], values[-1]):
        canvas.text(along(value), up(low) + 18, f"{value:,}", "small", "middle")
    for p in {id(p): p for p in points[:1] + points[-1:]}.values():
        canvas.text(along(p["value"]), up(max(p["high"], p["added"])) - 8, f"{p['added']:.0f}", "strong", "middle")


DRAWN: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "alternatives": ("overhead.svg", alternatives),
    "growth": ("growth.svg", growth),
}


def main() -> None:
    """Draw every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what a benchmark wrote with --out")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where the plots go; docs without it")
    options = parser.parse_args()
    for file in options.files:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            name, draw = DRAWN[document["what"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            parser.error(f"{file}: {type(error).__name__}: {error}; expected what alternatives.py or growth.py wrote")
        place = options.folder / name
        place.write_text(draw(document), encoding="utf-8")
        print(place)


if __name__ == "__main__":
    main()
