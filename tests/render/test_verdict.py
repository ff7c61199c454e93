"""What a report says in words: verdict, advice, evidence, remarks."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest

from deadrelu.render.claims import Standing
from deadrelu.render.tally import tally, worst_first
from deadrelu.render.verdict import Verdict, judge
from deadrelu.report import Coverage, Level, Report

from .handmade import CASES, HOSTILE, report, site

LEVELS = get_args(Level)


def everything(verdict: Verdict) -> str:
    claims = (f"{claim.standing}: {claim.text}" for claim in verdict.claims)
    notes = (note.text for note in verdict.notes)
    parts = (verdict.headline, verdict.scope, *verdict.meaning, *verdict.actions, *claims, *notes, *verdict.unseen)
    return "\n".join(parts)


@pytest.mark.parametrize(
    ("case", "severity", "headline"),
    [
        ("bottleneck", "bottleneck", "214 of 1,280 units (16.7 %) are dead: fc2 lost more than half of its width."),
        ("healthy", "healthy", "No dead units: all 448 that can die fired."),
        ("harmless", "harmless", "2 of 3,904 units (<0.1 %) are dead: every layer keeps over 95 % of its width."),
        ("cut", "cut off", "164 of 224 units (73.2 %) are dead: body.act is dead throughout."),
        ("all_dead", "cut off", "All 1,344 units that can die are dead: b and a are dead throughout."),
        ("single_unit", "cut off", "1 of 1 unit (100 %) is dead: gate is dead throughout."),
        ("half", "bottleneck", "32 of 128 units (25.0 %) are dead: a lost half of its width."),
        ("mixed", "weakened", "10 of 120 units (8.3 %) are dead: se.fc1 lost the most, 6 of 24."),
        (
            "undecided",
            "undecided",
            "No unit can be called dead yet, but 300 of 1,280 units (23.4 %) never fired: too few samples to tell.",
        ),
        (
            "dead_and_undecided",
            "weakened",
            "32 of 768 units (4.2 %) are dead and 90 more undecided: experts.2.act lost the most, 20 of 256.",
        ),
        ("immune", "healthy", "Nothing here can die: gelu has no flat part."),
        (
            "immune_saturated",
            "notice",
            "Nothing here can die: tanh, leaky_relu and sigmoid have no flat part. "
            "Of 394 units, 37 are saturated and 5 are stuck negative.",
        ),
        ("nan", "NaN", "NaN in fc2, fc3 and head: 394 units never saw a number. 384 of 640 units (60.0 %) are dead."),
        ("nan_undecided", "NaN", "NaN in fc1: 12 units never saw a number."),
        ("checkpoint_clean", "healthy", "No dead units were found."),
        ("empty", "notice", "No activation was executed: there is nothing to judge."),
    ],
)
def test_headline(case: str, severity: str, headline: str) -> None:
    """The numbers are those of tests/render/handmade.py, added up by hand."""
    verdict = judge(CASES[case])
    assert (verdict.severity, verdict.headline) == (severity, headline)


@pytest.mark.parametrize(
    ("dead", "effect"),
    [
        *((0, ""), (1, "harmless"), (4, "harmless"), (5, "weakened"), (49, "weakened")),
        *((50, "bottleneck"), (99, "bottleneck"), (100, "cut off")),
    ],
)
def test_does_it_matter_here(dead: int, effect: str) -> None:
    """Dead units against the width of their layer, here 100: harmless under 5 %, a bottleneck from 50 %."""
    assert tally(report(site("a", 100, dead=dead)))[0].effect == effect


def test_worst_first() -> None:
    found = report(
        *(site("fine", 8), site("nan", 64, dead=1, nan=1), site("small", 4, dead=3), site("wide", 512, dead=300)),
        *(site("quiet", 64, undecided=60), site("late", 8)),
    )
    assert [t.name for t in worst_first(tally(found))] == ["nan", "small", "wide", "quiet", "fine", "late"]


@pytest.mark.parametrize("case", CASES)
def test_advice_only_where_something_is_dead(case: str) -> None:
    found = CASES[case]
    nan = any(t.nan for t in tally(found))
    assert bool(judge(found).actions) == (found.dead > 0 or nan)


def test_dead_upstream_comes_first() -> None:
    """Units that are fed nothing but zeros cannot be mended where they are."""
    verdict = judge(CASES["starved"])
    assert verdict.actions[0].startswith("Begin with fc1, the first in the network: 30 silent units further on")


def test_the_first_site_starves() -> None:
    """Nothing in the network is upstream of it: the data are to blame, or what no site sees."""
    found = report(site("fc1", 8, dead=8, input_dead=8), site("fc2", 8, dead=8, input_dead=8))
    assert judge(found).actions[0].startswith("Check the data and what comes before fc1: ")


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_speaks_for_itself(level: Level) -> None:
    """The word of one level never stands in the sentence of another."""
    found = report(site("a", 64, dead=20), site("b", 64), evidence=level)
    (claim,) = judge(found).claims
    assert claim.standing == level
    others = set(get_args(Standing)) - {level, "seen"}
    assert not [word for word in others if re.search(rf"\b{word}\b", claim.text.replace("optimizer state", ""))]


def test_statistical_evidence() -> None:
    """1 - 0.05^(1/10000) = 0.0299 %; over the 1,280 units looked at, 1 - (0.05/1280)^(1/10000) = 0.1014 %."""
    (claim,) = judge(CASES["bottleneck"]).claims
    assert claim.text == (
        "each dead unit fires in under 0.03 % of samples, with 95 % confidence (10,000 samples, none fired); "
        "all 214 at once: under 0.11 %."
    )


def test_undecided_evidence_says_what_is_missing() -> None:
    """2,995 samples are needed and 100 were seen; 1 - 0.05^(1/100) = 2.95 %."""
    (claim,) = judge(CASES["undecided"]).claims
    assert claim.standing == "undecided"
    assert "they may fire in up to 3 % of samples (95 % confidence). Run on 2,895 more, or declare" in claim.text


def test_the_dead_keep_their_bound_beside_undecided_ones() -> None:
    """The bound after the 600 samples of the undecided site is not that of the dead units, which have 2,995 or more."""
    dead, undecided = judge(CASES["dead_and_undecided"]).claims
    assert (dead.standing, undecided.standing) == ("statistical", "undecided")
    assert "under 0.1 % of samples" in dead.text
    assert "2,995 samples or more" in dead.text
    assert "600 samples are too few" in undecided.text


@pytest.mark.parametrize("case", ["bottleneck", "undecided"])
def test_without_a_confidence_no_bound_is_claimed(case: str) -> None:
    verdict = judge(replace(CASES[case], confidence=None))
    assert "%" not in verdict.claims[0].text


def test_remarks() -> None:
    verdict = judge(CASES["mixed"])
    assert {note.topic: note.text for note in verdict.notes} == {
        "saturated": "122 units are saturated: a slope under 0.001 on everything seen (mlp and se.gate).",
        "grad_dead": "7 units are active, yet the gradient is exactly 0 on everything seen (mlp).",
    }
    assert [note.topic for note in judge(CASES["overflow"]).notes] == ["infinite"]


def test_dormant_units_are_news_only_beyond_the_silent_ones() -> None:
    """A dead unit is dormant by definition (its output is constant zero)."""
    assert not judge(report(site("a", 64, dead=3))).notes
    assert [n.topic for n in judge(report(site("a", 64, dead=3, dormant=1))).notes] == ["dormant"]


def test_without_data_no_maximum_is_no_nan() -> None:
    """A checkpoint was read without data: max_z is unknown, which is not NaN."""
    found = report(site("a", 4, dead=1, nan=4, samples=0), evidence="proved", mode="checkpoint")
    assert judge(found).severity == "weakened"


def test_what_was_not_seen() -> None:
    assert judge(CASES["coverage"]).unseen == (
        "Never called: head.act, aux1.act, aux2.act and 2 more.",
        "rnn: fused RNN: its activations never leave the kernel.",
        "scripted: TorchScript.",
        "Batch axis lost, each call counted as one sample: pool.relu().",
        "No unit axis left, counted as one unit each: pool.relu().",
        "Several calls in one forward pass, counted as one site: cell.relu() (5).",
    )
    assert judge(CASES["healthy"]).unseen == ()


def test_parts_with_one_reason_share_a_line() -> None:
    parts = [(f"rnn{i}", "fused") for i in range(5)] + [(f"part{i}", f"reason {i}") for i in range(6)]
    found = report(site("a", 4), coverage=Coverage(sites=1, unsupported=tuple(parts)))
    assert judge(found).unseen == (
        "rnn0, rnn1, rnn2 and 2 more: fused.",
        *(f"part{i}: reason {i}." for i in range(3)),
        "3 more parts of the model could not be seen: see report.coverage.",
    )


def test_names_that_read_as_numbers() -> None:
    """The layers of an nn.Sequential are called 0, 1, 2: `3 lost more than half` would say something else."""
    text = everything(judge(CASES["numbered"]))
    for words in ("site 3 lost more", "site 3 is a bottleneck", "too) of module 2:", "called: module 7", "site 1 (2)"):
        assert words in text


def test_no_statistics_of_nan() -> None:
    """Units that saw nothing but NaN are silent; how often they would fire, nobody can say."""
    (claim,) = judge(CASES["nan"]).claims
    assert claim.text == "no dead unit fired, but neither did one of them see a number."


@pytest.mark.parametrize("case", CASES)
def test_no_word_can_move_a_cursor(case: str) -> None:
    assert all(line.isprintable() for line in everything(judge(CASES[case])).split("\n"))


def test_names_in_sentences_are_short() -> None:
    """A name of 300 characters must not bury what is said about it."""
    assert len(HOSTILE) > 300
    assert len(judge(CASES["hostile"]).headline) < 120


@pytest.mark.parametrize("dead", [0, 1, 5, 128])
def test_headline_counts_are_those_of_the_report(dead: int) -> None:
    found: Report = report(site("a", 128, dead=dead), site("b", 72), coverage=Coverage(sites=2))
    number = re.match(r"(\d+) of 200 units", judge(found).headline)
    assert (int(number[1]) if number else 0) == found.dead == dead


def test_words_need_no_terminal_library() -> None:
    """HTML and Markdown share the verdict: rich stays in the terminal."""
    code = "import sys, deadrelu.render.verdict; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
