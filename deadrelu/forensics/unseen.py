"""Unseen: a site of which no activation was run, as a part of a report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..report import SiteReport, Status


def unseen_site(
    site: str,
    *,
    op: str,
    source: str | None,
    producers: tuple[str, ...],
    unit_dim: int | None,
    can_die: bool,
    dead: NDArray[np.bool_],
    claims: Iterable[dict[str, Any]],
) -> SiteReport:
    """Return the report of a site from claims alone: no samples, and rates, largest z and gradients unknown.

    `dead`, shape (units,), is what the claims prove; all other units are `active` for want of a word for "not known".
    """
    unknown = np.full(len(dead), np.nan)
    no = np.zeros(len(dead), dtype=bool)
    status: tuple[Status, ...] = tuple("dead" if one else "active" for one in dead.tolist())
    return SiteReport(
        site=site,
        op=op,
        source=source,
        producers=producers,
        unit_dim=unit_dim,
        units=len(dead),
        can_die=can_die,
        samples=0,
        positions=0,
        status=status,
        activation_rate=unknown,
        sample_rate=unknown,
        rate_upper=unknown,
        max_z=unknown,
        dormant_score=unknown,
        grad_flow=None,
        grad_dead=no,
        input_dead=no,
        claims=tuple(claims),
    )
