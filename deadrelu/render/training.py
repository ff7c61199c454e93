"""Training: the terminal screen of a run that was watched, the verdict first."""

from __future__ import annotations

from rich.text import Text

from ..report import Report
from .canvas import SOFT, STANDING_STYLES, STRONG, Canvas
from .course import Course, timeline
from .page import (
    LABEL_WIDTH,
    Paragraph,
    heading,
    plain,
    prose_width,
    section,
    sites_shown,
)
from .story import Story, over_time, tell
from .table import INDENT
from .words import count

TIMELINE_WIDTH = 64


def training_page(report: Report, canvas: Canvas, *, all_sites: bool = False) -> list[Text]:
    """Draw the screen of a training report, line by line; no line is wider than the canvas.

    After the verdict: deaths over time, their causes, the worst sites, the events with their remedies, how sure it is.
    """
    story = tell(report)
    table, keys = sites_shown(report, canvas, all_sites=all_sites)
    lines = _opening(story, canvas)
    if table:
        lines += [Text(), *table]
    verdict = story.verdict
    parts: tuple[tuple[str, list[Paragraph]], ...] = (
        ("meaning", [plain(line) for line in verdict.meaning]),
        ("events", _events(story)),
        ("what to do", [plain(line, bullet="- ") for line in verdict.actions]),
        ("how sure", _evidence(story)),
        ("also", [plain(note.text) for note in verdict.notes if note.topic not in keys]),
        ("not seen", [plain(line) for line in verdict.unseen]),
    )
    for label, paragraphs in parts:
        if paragraphs:
            lines += [Text(), *section(label, paragraphs, canvas)]
    return lines


def training_brief(report: Report, canvas: Canvas) -> list[Text]:
    """Draw the verdict, deaths over time, their causes, and what to do about the largest event that has a remedy."""
    story = tell(report)
    lines = _opening(story, canvas)
    remedies = [event.remedy for event in story.events if event.remedy][:1]
    if story.causes and remedies:
        lines += [Text(), *section("what to do", [plain(remedies[0])], canvas)]
    return lines


def _opening(story: Story, canvas: Canvas) -> list[Text]:
    """Draw the verdict, deaths over time and their causes."""
    lines = heading(story.verdict, canvas)
    if story.course.steps:
        lines += [Text(), *_when(story.course, canvas)]
    if story.causes:
        lines += [Text(), *section("of what", _causes(story), canvas)]
    return lines


def _when(course: Course, canvas: Canvas) -> list[Text]:
    """Draw deaths over steps: bars, the steps at both ends, and a sentence with the numbers."""
    indent = INDENT + LABEL_WIDTH
    found = timeline(course.steps, course.end, min(prose_width(canvas, indent), TIMELINE_WIDTH))
    last = count(course.end)
    axis = f"0{last:>{max(len(found.bars) - 1, len(last) + 1)}}"
    start = Text(" " * INDENT).append(f"{'when':<{LABEL_WIDTH}}", SOFT)
    lines = [start.append_text(canvas.spark(found.heights)), Text(" " * indent).append(axis, SOFT)]
    return lines + section("", [plain(over_time(course, found))], canvas)


def _causes(story: Story) -> list[Paragraph]:
    width = max(len(count(number)) for number, _ in story.causes)
    return [plain(text, bullet=f"{count(number):>{width}} ") for number, text in story.causes]


def _events(story: Story) -> list[Paragraph]:
    lines = []
    for event in story.events:
        lines.append(plain(event.text, bullet="- "))
        if event.remedy:
            lines.append(plain(event.remedy, bullet="  "))
    return lines + ([plain(story.more)] if story.more else [])


def _evidence(story: Story) -> list[Paragraph]:
    lines: list[Paragraph] = [(c.standing, STANDING_STYLES[c.standing], f": {c.text}") for c in story.verdict.claims]
    for lead, text in (("dates", story.dates), ("causes", story.reasons)):
        if text:
            lines.append((lead, STRONG, f": {text}"))
    return lines
