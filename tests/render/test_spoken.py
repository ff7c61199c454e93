"""The spoken verdict: the same words as on the other screens, each with where it leads."""

from __future__ import annotations

import json

import pytest

from deadrelu.render.spoken import verdict_view
from deadrelu.render.story import tell
from deadrelu.render.verdict import judge

from .handmade import HOSTILE, report, site
from .trained import CASES, LOWER, death, event, trained

ROLES = {"happened", "change", "meaning", "sure", "unseen"}


@pytest.mark.parametrize("name", list(CASES))
def test_it_says_what_the_terminal_says(name: str) -> None:
    found = verdict_view(CASES[name])
    assert found["headline"] == tell(CASES[name]).verdict.headline
    assert json.loads(json.dumps(found)) == found
    for said in found["sentences"]:
        assert set(said) == {"text", "role", "site", "steps"}
        assert said["role"] in ROLES
        assert said["text"]


@pytest.mark.parametrize(
    ("case", "tone"),
    [
        ("spike", "bad"),
        ("healthy", "good"),
        ("quiet", "warn"),
        ("risk", "warn"),
        ("non_finite", "bad"),
        ("empty", "none"),
    ],
)
def test_the_tone_is_that_of_the_severity(case: str, tone: str) -> None:
    assert verdict_view(CASES[case])["tone"] == tone


def test_an_audit_says_what_to_do_and_claims_no_event() -> None:
    audited = report(site("act", 64, dead=40))
    found = verdict_view(audited)
    assert found["headline"] == judge(audited).headline
    assert {s["role"] for s in found["sentences"]} == {"meaning", "change", "sure"}
    assert all(s["site"] is None for s in found["sentences"])


def test_each_event_leads_to_its_site_and_its_steps() -> None:
    said = [s for s in verdict_view(CASES["spike"])["sentences"] if s["role"] == "happened"]
    assert (said[0]["site"], said[0]["steps"]) == ("relu2", [948, 950])
    assert said[0]["text"].startswith("150 units of relu2 died at steps 948 to 950")
    assert said[0]["text"].endswith(".")


def test_a_remedy_is_said_once_and_not_for_what_came_back() -> None:
    found = trained(
        site("a", 8, dead=2),
        site("b", 8, dead=2),
        deaths=[*(death(s, u, 10, revived=50 if s == "b" else None) for s in "ab" for u in range(2))],
        events=[
            event("a", [0], (10, 10)),
            event("a", [1], (900, 900)),
            event("b", [0, 1], (10, 10), remedy="another remedy"),
        ],
    )
    changes = [s["text"] for s in verdict_view(found)["sentences"] if s["role"] == "change"]
    assert changes == [f"L{LOWER[1:]}."]


def test_what_died_downstream_has_no_remedy_of_its_own() -> None:
    found = trained(
        site("a", 8, dead=2),
        site("b", 8, dead=2),
        deaths=[death("a", 0, 10), death("b", 0, 11, "upstream_death")],
        events=[
            event("a", [0], (10, 10)),
            event("b", [0], (11, 11), "upstream_death", remedy="units upstream died first"),
        ],
    )
    assert [s["site"] for s in verdict_view(found)["sentences"] if s["role"] == "change"] == ["a"]


def test_a_close_call_is_heard_only_where_nothing_died() -> None:
    """It foretold a death some steps ahead, which has not come: what did happen is what there is to change."""
    risk = event("a", [1], (20, 20), "bias_drift", kind="risk", remedy="the margin meets zero in about 7 steps")
    died = event("a", [0], (10, 10))
    for events, first in (((died, risk), LOWER[1:]), ((risk,), "he margin meets zero")):
        deaths = [death("a", 0, 10)] if died in events else []
        found = trained(site("a", 8, dead=len(deaths)), deaths=deaths, events=list(events))
        (change,) = (s["text"] for s in verdict_view(found)["sentences"] if s["role"] == "change")
        assert change[1:].startswith(first)


def test_a_parameter_keeps_its_name() -> None:
    found = trained(
        site("a", 8, dead=1),
        deaths=[death("a", 0, 10, "bias_drift")],
        events=[event("a", [0], (10, 10), "bias_drift", remedy="fc1.bias falls step after step")],
    )
    changes = [s["text"] for s in verdict_view(found)["sentences"] if s["role"] == "change"]
    assert changes == ["fc1.bias falls step after step."]


def test_a_site_is_named_as_the_report_names_it() -> None:
    sites = {s["site"] for s in verdict_view(CASES["hostile"])["sentences"]}
    assert HOSTILE in sites
