"""Ending: the final report of a run as the bytes that its record keeps, and back."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from ..plain import column
from ..report import Confidence, Report
from .plainly import refuse, to_json

_MOST_BYTES = 1 << 30
_COLUMNS = ("activation_rate", "sample_rate", "rate_upper", "max_z", "dormant_score", "grad_flow")


def packed(report: Report) -> bytes:
    """Return a report as bytes: its JSON, and what JSON leaves out, compressed."""
    known = None if report.confidence is None else asdict(report.confidence)
    told = {"report": report.to_dict(), "confidence": known, "infinite": list(_infinite(report))}
    return zlib.compress(to_json(told), 1)


def unpacked(data: bytes) -> Report:
    """Return the report that `packed` made bytes of.

    Raises:
        InputError, KeyError, TypeError, ValueError, IndexError, zlib.error: they are no such bytes.
    """
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _MOST_BYTES)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(f"the report takes more than {_MOST_BYTES} bytes, or ends early")
    told = json.loads(text, parse_constant=refuse)
    report = Report.from_dict(told["report"], confidence=_confidence(told["confidence"]))
    for site, name, units, sign in told["infinite"]:
        if name in _COLUMNS:
            getattr(report.sites[site], name)[np.array(units, np.intp)] = math.copysign(math.inf, sign)
    return report


def _confidence(told: dict[str, Any] | None) -> Confidence | None:
    if told is None:
        return None
    known = Confidence(**told)
    sure = [known.rate, known.alpha, known.needed, known.seen, known.missing]
    column([*sure, known.bound, known.joint_bound], 7)
    if None in sure or not 0 < known.rate < 1 or not 0 < known.alpha < 1:
        raise ValueError("what the report says of its confidence is no such thing")
    return known


def _infinite(report: Report) -> Iterator[tuple[int, str, list[int], int]]:
    """Yield where a report holds infinities, which its JSON does not tell from NaN."""
    for place, site in enumerate(report.sites):
        for name in _COLUMNS:
            values: Any = getattr(site, name)
            for sign in (1, -1):
                units = [] if values is None else np.flatnonzero(values == sign * math.inf).tolist()
                if units:
                    yield place, name, units, sign
