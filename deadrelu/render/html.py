"""HTML: recorded runs, or a report without a record, as one file that opens anywhere and needs no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..report import Report
from .html_cells import RecordedRun, pack
from .html_page import packed, page
from .spoken import verdict_view


def write_html(path: str | Path, runs: Sequence[RecordedRun]) -> None:
    """Write recorded runs to one HTML file: the view of the tab, with everything in it.

    The file stays under 2 MB for 3 sites x 512 units x 1,000 records; what is larger is thinned in time, and the page
    says so. The folder must be there.
    """
    Path(path).write_text(runs_to_html(runs), encoding="utf-8")


def runs_to_html(runs: Sequence[RecordedRun]) -> str:
    """Return the text of the file that `write_html` writes."""
    names = [str(run.document["run"]) for run in runs]
    headlines = [f"{name}: {run.document['verdict']['headline']}" for name, run in zip(names, runs, strict=True)]
    data = {"runs": [_embedded(run, len(runs)) for run in runs]}
    return page(f"Dead ReLU: {', '.join(names)[:80]}", headlines or ["No run was recorded."], data)


def to_html(report: Report) -> str:
    """Return a report as the text of an HTML file: the verdict, each site with its units, and what happened."""
    verdict = verdict_view(report)
    paragraphs = [verdict["headline"], *(sentence["text"] for sentence in verdict["sentences"])]
    data = {"report": packed({"verdict": verdict, "report": report.to_dict()})}
    return page(f"Dead ReLU: {report.mode}", paragraphs, data)


def _embedded(run: RecordedRun, share: int) -> dict[str, Any]:
    found = pack(run, share)
    document = dict(run.document)
    if found.every > 1:
        said = f"this file shows one of every {found.every} recorded windows of the units"
        document["thinned"] = "; ".join(filter(None, (document.get("thinned"), said)))
    return {
        "run": document["run"],
        "document": packed(document),
        "sites": [
            {
                "site": site["site"],
                "document": packed(site),
                "cells": {name: {"units": site["units"], **asdict(codes)} for name, codes in channels.items()},
            }
            for site, channels in found.sites
        ],
    }
