"""Spoken verdict: what a report says, as the `verdict` object of the view that the tab and the HTML file draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..report import Report
from .course import Happening
from .story import EVENTS_SHOWN, Story, tell
from .verdict import Severity, Verdict, judge

_TONES: dict[Severity, str] = {
    "healthy": "good",
    "notice": "warn",
    "harmless": "warn",
    "undecided": "warn",
    "weakened": "bad",
    "bottleneck": "bad",
    "cut off": "bad",
    "NaN": "bad",
}
_CHANGES_SHOWN = 3


def verdict_view(report: Report) -> dict[str, Any]:
    """Return the verdict of a report as JSON types.

    Returns:
        `tone` (`bad`, `warn`, `good`, or `none` where nothing was seen), `headline`, and `sentences`: each has a
        `text`, a `role` (`happened`, `change`, `meaning`, `sure` or `unseen`), and the `site` and `steps` that it is
        about, or None. Texts are free of control characters; their markup is not escaped. `site` is the name as it is.
    """
    if report.mode == "training":
        story = tell(report)
        verdict, sentences = story.verdict, _of_training(story)
    else:
        verdict = judge(report)
        sentences = [*_plain("meaning", verdict.meaning), *_plain("change", verdict.actions)]
    sentences += [_sentence("sure", f"{_opened(claim.standing)}: {claim.text}") for claim in verdict.claims]
    sentences += [_sentence("sure", note.text) for note in verdict.notes]
    sentences += _plain("unseen", verdict.unseen)
    return {
        "tone": _tone(report, verdict),
        "headline": verdict.headline,
        "sentences": sentences,
    }


def _tone(report: Report, verdict: Verdict) -> str:
    return _TONES[verdict.severity] if report.sites else "none"


def _of_training(story: Story) -> list[dict[str, Any]]:
    told = story.course.happenings[:EVENTS_SHOWN]
    sentences = [
        _sentence("happened", f"{telling.text.rstrip(':.')}.", event)
        for telling, event in zip(story.events, told, strict=True)
    ]
    if story.more:
        sentences.append(_sentence("happened", f"{story.more.partition(':')[0].rstrip('.')}."))
    sentences += _changes(story, told)
    if not told:
        sentences += _plain("change", story.verdict.actions)
    sentences += _plain("meaning", story.verdict.meaning)
    known = (("Dates", story.dates), ("Causes", story.reasons))
    return sentences + _plain("sure", (f"{lead}: {text}" for lead, text in known if text))


def _changes(story: Story, told: Iterable[Happening]) -> list[dict[str, Any]]:
    """Return the remedies, each once, of the events that hold: what came back needs none.

    What died because units upstream died is saved with those: it has a remedy of its own only where nothing else has. A
    close call foretold what has not come: it is heard only where nothing died.
    """
    held = [
        (telling, event)
        for telling, event in zip(story.events, told, strict=True)
        if telling.remedy and event.kind != "revival" and event.back < event.count
    ]
    deaths = [pair for pair in held if pair[1].kind == "death"]
    first = [pair for pair in deaths if pair[1].cause != "upstream_death"]
    found: dict[str, Happening] = {}
    for telling, event in first or deaths or held:
        found.setdefault(_opened(telling.remedy), event)
    return [_sentence("change", text, event) for text, event in list(found.items())[:_CHANGES_SHOWN]]


def _opened(text: str) -> str:
    """Begin with a capital, unless the first word may be the name of a parameter."""
    word = text.split(" ", 1)[0]
    return text[0].upper() + text[1:] if len(word) > 1 and word.isalpha() and word != "lr" else text


def _plain(role: str, texts: Iterable[str]) -> list[dict[str, Any]]:
    return [_sentence(role, text) for text in texts]


def _sentence(role: str, text: str, event: Happening | None = None) -> dict[str, Any]:
    """Make one sentence; an event's units stand for its site and steps."""
    steps = None if event is None else [event.first, event.last]
    return {"text": text, "role": role, "site": None if event is None else event.site, "steps": steps}
