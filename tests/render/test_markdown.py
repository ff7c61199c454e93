"""A report as Markdown: golden texts, and names that try to be markup."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from deadrelu import screens
from deadrelu.render.markdown import escaped, to_markdown
from deadrelu.render.story import tell
from deadrelu.render.verdict import judge

from .handmade import HOSTILE, report, site
from .trained import CASES, death, event, trained


@pytest.mark.parametrize("case", ["spike", "healthy", "born_dead"])
def test_golden(case: str, golden: Callable[[str, str], None]) -> None:
    golden(f"training.{case}.md", to_markdown(CASES[case]))


def test_golden_audit(golden: Callable[[str, str], None]) -> None:
    golden("audit.md", to_markdown(report(site("fc1", 64), site("fc2", 32, dead=9, undecided=1), site("out", 8))))


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_the_screen_says(case: str) -> None:
    text = to_markdown(CASES[case])
    story = tell(CASES[case])
    assert text.startswith(f"## {escaped(story.verdict.headline)}\n")
    for telling in story.events:
        assert escaped(telling.text) in text
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def test_of_an_audit_and_through_the_registry() -> None:
    found = report(site("fc2", 32, dead=9))
    text = screens.render("markdown", found)
    assert escaped(judge(found).headline) in text
    assert "What happened" not in text


MARKUP = ["<script>alert(1)</script>", "a|b", "*a*", "_a_", "`a`", "[a](javascript:x)", "# a", "~~a~~", "&lt;", HOSTILE]


@pytest.mark.parametrize("name", MARKUP)
def test_no_name_is_markup(name: str) -> None:
    text = to_markdown(
        trained(
            site(name, 8, dead=3),
            deaths=[death(name, i, 40) for i in range(3)],
            events=[event(name, range(3), (40, 40), remedy=f"look at {name}")],
        )
    )
    assert "<" not in text
    assert re.sub(r"\\.", "", text).count("`") == 0
    (row,) = [line for line in text.splitlines() if line.startswith("| ") and "relu" in line]
    assert row.count("|") == 8
    assert all(line == "" or line[0] in "#-|t" or line.startswith("and ") for line in text.splitlines())


def test_many_sites_are_summed_up() -> None:
    text = to_markdown(report(*(site(f"act{i}", 64, dead=5) for i in range(40))))
    assert text.count("\n| act") == 12
    assert "and 28 more sites with such units" in text
