"""The report of a checkpoint alone, and of a proof."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deadrelu.forensics import proof_report
from deadrelu.proofs import prove
from deadrelu.report import Report

from .course import Course


def test_the_report_survives_json(shot: Course, tmp_path: Path) -> None:
    report = shot.saved(tmp_path / "a.pt")
    told = json.loads(report.to_json())
    assert Report.from_dict(told).to_dict() == report.to_dict()
    assert set(told["sites"][0]["claims"][0]) >= {"unit", "claim", "level", "steps", "low", "high"}
    assert "gradient" in report.to_html()


def test_a_proof_as_a_report() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.GELU())
    with torch.no_grad():
        model[0].bias[[2, 5]] = -1e3
    report = proof_report(prove(model, input_shape=(4,), input_range=(-1, 1)))
    assert report.evidence == "proved"
    assert np.flatnonzero(report["1"].dead).tolist() == [2, 5]
    assert [c["unit"] for c in report["1"].claims] == [2, 5]
    assert all(c["upper"] < 0 and "-1 to 1" in c["domain"] for c in report["1"].claims)
    assert report["3"].dead_fraction is None
    assert "-1 to 1" in " ".join(str(report).split())
