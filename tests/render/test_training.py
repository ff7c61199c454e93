"""The screen of a training report, on reports made by hand."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from deadrelu.deaths import Cause, Death, Event
from deadrelu.render.canvas import Canvas
from deadrelu.render.course import follow, timeline
from deadrelu.render.story import CAUSES, EVENTS_SHOWN, tell
from deadrelu.render.terminal import show, to_text
from deadrelu.render.training import training_brief, training_page

from .handmade import HOSTILE, site
from .trained import CASES, LOWER, death, event, trained

WIDTHS = [40, 53, 80, 100, 160, 250]
LOOKED_AT = ("spike", "healthy", "risk", "saved_by_itself", "twice", "intervention", "non_finite", "many", "hostile")


def plain(case: str, width: int, *, ascii: bool = False, all_sites: bool = False) -> list[str]:
    return [line.plain for line in training_page(CASES[case], Canvas(width, ascii), all_sites=all_sites)]


@pytest.mark.parametrize("case", LOOKED_AT)
@pytest.mark.parametrize("width", [80, 160])
def test_golden(case: str, width: int, golden: Callable[[str, str], None]) -> None:
    golden(f"training.{case}.{width}.txt", "\n".join(plain(case, width)) + "\n")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ascii", [False, True])
def test_every_line_fits(case: str, ascii: bool) -> None:
    for width in WIDTHS:
        for all_sites in (False, True):
            for line in plain(case, width, ascii=ascii, all_sites=all_sites):
                assert cell_len(line) <= width
                assert line == line.rstrip()
                assert line.isprintable()
                assert line.isascii() or not ascii


@pytest.mark.parametrize(
    ("case", "severity", "headline"),
    [
        (
            "spike",
            "bottleneck",
            "162 of 768 units (21.1 %) died in relu2 and relu1, most at steps 948 to 950, most of too high a learning "
            "rate; 3 came back; 4 more were born dead.",
        ),
        ("healthy", "healthy", "No unit died: all 320 that can die fire."),
        ("quiet", "undecided", "No unit died, but 3 of 128 units (2.3 %) did not fire of late."),
        ("risk", "notice", "No unit died, but 30 units came close to it."),
        (
            "saved_by_itself",
            "notice",
            "5 of 64 units (7.8 %) died in act at step 10, of too high a learning rate; all came back.",
        ),
        ("born_dead", "harmless", "1 of 64 units (1.6 %) was born dead in act."),
        ("twice", "harmless", "2 of 64 units (3.1 %) died in act at step 300, of several causes."),
        ("non_finite", "NaN", "NaN in act2. 64 of 128 units (50.0 %) died in act2 at step 70, of NaN or infinity."),
        ("immune", "healthy", "Nothing here can die: gelu has no flat part."),
        ("empty", "notice", "No activation was executed: there is nothing to judge."),
    ],
)
def test_headline(case: str, severity: str, headline: str) -> None:
    """The numbers are those of tests/render/trained.py, added up by hand."""
    verdict = tell(CASES[case]).verdict
    assert (verdict.severity, verdict.headline) == (severity, headline)


@pytest.mark.parametrize("seed", range(20))
def test_units_are_counted_once(seed: int) -> None:
    """Against sets of units, over lives with several deaths each."""
    rng = np.random.default_rng(seed)
    deaths, died, born, back = [], set(), set(), set()
    for unit in range(64):
        step, alive = int(rng.integers(0, 50)), True
        for number in range(rng.integers(0, 4)):
            first = number == 0 and rng.random() < 0.3
            alive = bool(rng.random() < 0.6)
            deaths.append(death("act", unit, None if first else step, revived=step + 60 if alive else None))
            (born if first else died).add(unit)
            step += 100
            if not alive:
                break
        if unit in died | born and alive:
            back.add(unit)
    rng.shuffle(deaths)  # type: ignore[arg-type]
    course = follow(trained(site("act", 64, dead=len((died | born) - back)), deaths=deaths))
    assert (course.died, course.born, course.back) == (len(died), len(born - died), len(back))
    assert sum(n for _, n in course.sites) == sum(n for _, n, _ in course.causes) == len(died | born)
    assert len(course.steps) == sum(not d["born_dead"] for d in deaths)


@pytest.mark.parametrize("most", [1, 7, 25, 64])
def test_every_death_stands_in_its_bar(most: int) -> None:
    steps = np.random.default_rng(most).integers(0, 1000, 300).tolist()
    for end in (max(steps), 1234):
        found = timeline(steps, end, most)
        assert len(found.bars) <= most
        assert len(found.bars) * found.steps_each > end
        assert found.bars[found.highest] == max(found.bars)
        expected = np.histogram(steps, np.arange(len(found.bars) + 1) * found.steps_each - 0.5)[0]
        assert list(found.bars) == expected.tolist()


def test_bars_tell_one_death_from_none() -> None:
    assert Canvas(80).spark([0.0, 1e-9, 0.5, 1 - 1e-9, 1.0]).plain == "·▁▄▇█"
    assert Canvas(80, ascii=True).spark([0.0, 1e-9, 0.5, 1 - 1e-9, 1.0]).plain == ".:+@#"


def test_a_healthy_screen_is_short() -> None:
    assert len(plain("healthy", 80)) <= 6
    assert plain("healthy", 80)[0].startswith(" ✓ No unit died")


def test_small_events_in_a_row_are_one_story() -> None:
    """Twelve deaths 40 steps apart in a run of 1,100 steps are one drift, not twelve events."""
    events = [e for e in tell(CASES["spike"]).events if "relu1 died" in e.text]
    assert [e.text for e in events] == ["12 units of relu1 died at steps 300 to 740, of a falling bias:"]


def test_events_far_apart_are_two_stories() -> None:
    events = [event("act", [0], (100, 100)), event("act", [1], (5000, 5000))]
    found = trained(site("act", 8, dead=2), deaths=[death("act", 0, 100), death("act", 1, 5000)], events=events)
    assert len(tell(found).events) == 2


def test_what_a_safe_rate_would_have_saved_stays_with_its_units() -> None:
    events = [event("act", [i], (100 + i,) * 2, safe_lr=0.1, saved=1, remedy=f"lr <= {i}") for i in range(2)]
    found = trained(site("act", 8, dead=2), deaths=[death("act", i, 100 + i) for i in range(2)], events=events)
    assert {e.remedy for e in tell(found).events} == {"lr <= 0.", "lr <= 1."}


def test_the_largest_events_are_told_and_the_rest_summed_up() -> None:
    story = tell(CASES["many"])
    assert len(story.events) == EVENTS_SHOWN
    assert [e.text.split()[0] for e in story.events] == ["59", "58", "57", "56", "55", "54"]
    assert story.more == f"And {sum(range(54)):,} deaths in smaller events: see report.events."


def test_a_risk_that_came_true_is_told_as_a_death() -> None:
    risk = event("act", [0, 1], (90, 90), "bias_drift", kind="risk", remedy="they fall")
    found = trained(site("act", 8, dead=1), deaths=[death("act", 0, 100)], events=[risk, event("act", [0], (100, 100))])
    texts = [e.text for e in tell(found).events]
    assert "1 unit of act came close to dying at step 90 and has not died since:" in texts


def test_dates_say_how_sharp_they_are() -> None:
    assert tell(CASES["spike"]).dates.startswith("exact to the step")
    assert tell(CASES["intervention"]).dates.startswith("exact to 10 steps")
    assert tell(CASES["born_dead"]).dates == tell(CASES["healthy"]).dates == ""


def test_causes_say_how_they_are_known() -> None:
    assert tell(CASES["spike"]).reasons.startswith("read off the trajectory")
    assert tell(CASES["intervention"]).reasons.startswith("shown by intervention")
    both = [death("act", 0, 9), death("act", 1, 9, cause_evidence="intervention")]
    assert "1 read off the trajectory" in tell(trained(site("act", 8, dead=2), deaths=both)).reasons
    assert tell(CASES["born_dead"]).reasons == "", "that it never fired is seen, not concluded"


def test_the_dead_were_not_silent_in_all_that_was_seen() -> None:
    """A unit that fired for half of the run has the bound of its silence, not of the samples of the run."""
    (claim,) = tell(CASES["spike"]).verdict.claims
    assert "2,995 samples or more" in claim.text
    assert "10,000" not in claim.text
    assert "under 0.1 %" in claim.text


def test_remedies_stand_under_their_events() -> None:
    lines = plain("spike", 160)
    at = next(i for i, line in enumerate(lines) if "- 150 units of relu2 died" in line)
    assert lines[at].endswith("(3 came back):")
    assert lines[at + 1].strip() == f"{LOWER}."
    assert lines[at + 1].index("lower") == lines[at].index("150")


def test_without_events_the_advice_is_that_of_an_audit() -> None:
    assert tell(CASES["twice"]).verdict.actions
    assert not tell(CASES["spike"]).verdict.actions


def test_no_revival_is_promised_or_denied() -> None:
    """An audit says that the dead rarely come back; here the record says who did."""
    assert "revives" not in "\n".join(plain("spike", 80))


def test_every_cause_has_words() -> None:
    assert set(CAUSES) == set(get_args(Cause))


def test_records_are_those_of_the_monitor() -> None:
    """The hand-made records have the fields that Monitor writes."""
    assert death("a", 0, 1).keys() == Death("a", 0, 1, 1, 2).to_dict().keys()
    assert event("a", [0], (1, 1)).keys() == Event("death", "a", (1, 1), (0,)).to_dict().keys()


def test_printing_a_training_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((80, 24)))
    assert "died in relu2" in to_text(CASES["spike"]).split("\n")[0]
    stream = io.StringIO()
    show(CASES["spike"], Console(file=stream, width=80))
    assert stream.getvalue().split("\n")[0] == plain("spike", 80)[0]
    assert "died in" not in to_text(replace(CASES["spike"], mode="audit"))


def test_names_are_text_and_no_markup() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False)
    show(CASES["hostile"], console)
    assert "[red]x[/red]" in stream.getvalue()
    assert HOSTILE not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [53, 80, 160])
def test_the_gist(case: str, width: int) -> None:
    """It opens as the whole screen does, up to the causes, and ends with what to do about the largest event."""
    whole, gist = plain(case, width), [line.plain for line in training_brief(CASES[case], Canvas(width))]
    opening = gist[: next((i for i, line in enumerate(gist) if line.startswith("   what to do")), len(gist) + 1) - 1]
    assert whole[: len(opening)] == opening
    assert all(cell_len(line) <= width for line in gist)
    remedies = [event.remedy for event in tell(CASES[case]).events if event.remedy]
    said = "".join("".join(line[15:] for line in gist[len(opening) + 1 :]).split())  # a long name breaks anywhere
    assert said == ("".join(remedies[0].split()) if remedies and tell(CASES[case]).causes else "")
