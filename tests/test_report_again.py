"""A report made from its JSON again: equal, or refused with one line."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
from render.handmade import HOSTILE, report, site
from render.trained import CASES

from deadrelu.errors import InputError
from deadrelu.report import Confidence, Report

REPORTS = {
    **CASES,
    "audit": report(site("fc1", 64), site(HOSTILE, 32, dead=9, undecided=1, nan=2, infinite=3, grad_dead=4)),
    "none": report(),
}


@pytest.mark.parametrize("case", REPORTS)
def test_again(case: str) -> None:
    told = json.loads(json.dumps(REPORTS[case].to_dict(), allow_nan=False))
    again = Report.from_dict(told)
    assert again.to_dict() == REPORTS[case].to_dict() == told
    assert again.confidence is None
    for found, truth in zip(again, REPORTS[case], strict=True):
        assert found.status == truth.status
        assert found.activation_rate.dtype == np.float64


def test_the_confidence_is_handed_in() -> None:
    """The JSON does not hold it, and the screens speak of it."""
    known = Confidence(1e-3, 0.05, 2995, 2995, 0, 0.001, 0.002)
    assert Report.from_dict(CASES["spike"].to_dict(), confidence=known).confidence is known


@pytest.mark.parametrize("told", [{}, {"schema": "deadrelu.report/2"}, [], None, "x", {"schema": "deadrelu.report/1"}])
def test_no_report(told: Any) -> None:
    with pytest.raises(InputError, match=r"no report of schema deadrelu\.report/1"):
        Report.from_dict(told)


def places(told: Any) -> list[tuple[Any, Any]]:
    found = []
    for key, value in told.items() if isinstance(told, dict) else enumerate(told):
        found.append((told, key))
        if isinstance(value, (dict, list)):
            found += places(value)
    return found


def test_whatever_is_wrong_is_refused_or_shown() -> None:
    """A value of another type, a key that is gone: the screens never meet what is no report."""
    rng = random.Random(0)
    whole = REPORTS["spike"].to_dict()
    whole["sites"] = [REPORTS["audit"].to_dict()["sites"][0]]
    junk = (None, True, -1, 3, 10**40, 1.5, float("nan"), "x", [], {}, [None], [-1], [10**9], ["x"])
    refused = 0
    for _ in range(300):
        told = copy.deepcopy(whole)
        held, key = rng.choice(places(told))
        if rng.random() < 0.8:
            held[key] = rng.choice(junk)
        else:
            del held[key]
        try:
            again = Report.from_dict(told)
        except InputError:
            refused += 1
            continue
        assert str(again)
        again.to_dict()
    assert refused > 100
