"""Markdown: a report as text that a dashboard or a pull request draws, the verdict first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..findings import findings, without_model
from ..report import Report
from .examined import table, worst
from .page import SITES_SHOWN
from .story import Story, tell
from .tally import Tally, tally, worst_first
from .verdict import judge
from .words import count, elide, percent

_NAME_WIDTH = 80
_ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "\\`*_{}[]#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;", "~": "&#126;"}
)


def to_markdown(report: Report) -> str:
    """Return a report as Markdown. Nothing in a name can be markup, nor HTML."""
    story = tell(report) if report.mode == "training" else None
    verdict = judge(report) if story is None else story.verdict
    sections = (
        ("What happened", () if story is None else _events(story)),
        ("Of what", () if story is None else (f"{count(number)}: {cause}" for number, cause in story.causes)),
        ("What it means", verdict.meaning),
        ("What to do", verdict.actions),
        ("How sure", _evidence(story, ((claim.standing, claim.text) for claim in verdict.claims))),
        ("Also", (note.text for note in verdict.notes)),
        ("Not seen", verdict.unseen),
    )
    parts = [f"## {escaped(verdict.headline)}", escaped(verdict.scope), _table(report)]
    parts += [_section(title, lines) for title, lines in sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Return a text with everything in it that Markdown or HTML would take for markup written out.

    >>> print(escaped("fc_1 <b>|"))
    fc\\_1 &lt;b&gt;&#124;
    """
    return " ".join(text.split()).translate(_ESCAPES)


def _table(report: Report) -> str:
    """Return the worst sites as a table, empty if there is nothing to say of any."""
    if without_model(report):
        return _examined(report)
    sites = [site for site in worst_first(tally(report)) if site.silent or site.flat or site.nan]
    if not sites:
        return ""
    lines = ["| site | op | silent | of | dead | effect | median firing |", "|---|---|--:|--:|--:|---|--:|"]
    names = elide([site.name for site in sites[:SITES_SHOWN]], _NAME_WIDTH)
    lines += [_row(site, name) for site, name in zip(sites, names, strict=False)]
    text = "\n".join(lines)
    rest = len(sites) - SITES_SHOWN
    return f"{text}\n\nand {count(rest)} more sites with such units" if rest > 0 else text


def _examined(report: Report) -> str:
    """Return the layers of a checkpoint without data of which something is claimed."""
    found = [layer for layer in worst(findings(report)) if layer.claimed]
    if not found:
        return ""
    heads, columns = zip(*table(found[:SITES_SHOWN]), strict=True)
    rows = zip(elide(columns[0], _NAME_WIDTH), *columns[1:], strict=True)
    lines = [f"| {' | '.join(' '.join(head) for head in heads)} |", f"|---|{'--:|' * (len(heads) - 1)}"]
    lines += [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows]
    more = len(found) - SITES_SHOWN
    return "\n".join(lines) + (f"\n\nand {count(more)} more layers with such units" if more > 0 else "")


def _row(site: Tally, name: str) -> str:
    cells = (
        name,
        site.op,
        count(site.silent),
        count(site.units),
        percent(site.dead_fraction),
        site.effect,
        percent(site.median_rate),
    )
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def _events(story: Story) -> Sequence[str]:
    told = [f"{event.text} {event.remedy}" if event.remedy else event.text for event in story.events]
    return [*told, story.more] if story.more else told


def _evidence(story: Story | None, claims: Iterable[tuple[str, str]]) -> Sequence[str]:
    lines = [f"{standing}: {text}" for standing, text in claims]
    if story is not None:
        lines += [f"{lead}: {text}" for lead, text in (("dates", story.dates), ("causes", story.reasons)) if text]
    return lines


def _section(title: str, lines: Iterable[str]) -> str:
    found = [f"- {escaped(line)}" for line in lines]
    return "\n".join([f"### {title}", "", *found]) if found else ""
