"""Proven: what `prove` showed of a model, as a report."""

from __future__ import annotations

import math

import numpy as np

from ..proofs import Proof, SiteProof
from ..report import Coverage, Report, SiteReport
from .unseen import unseen_site


def proof_report(proof: Proof) -> Report:
    """Return a proof as a report: `dead` are the units that no input of the declared domain makes fire.

    No input was run: rates and `max_z` are unknown. A unit that is not dead here is not thereby alive. Each claim names
    the domain, and the bound `upper` of the pre-activation. Sites without bounds are in `coverage.unsupported`.
    """
    unsupported = [*proof.unfollowed, *((site, f"no bound: {reason}") for site, reason in proof.unbounded)]
    if proof.lost is not None:
        unsupported.insert(0, ("model", f"nothing is claimed: {proof.lost}"))
    return Report(
        mode="audit",
        evidence="proved",
        samples=0,
        sites=tuple(_site(site, proof) for site in proof),
        coverage=Coverage(sites=len(proof.sites), unsupported=tuple(dict.fromkeys(unsupported))),
    )


def _site(site: SiteProof, proof: Proof) -> SiteReport:
    claims = (
        {
            "unit": unit,
            "claim": "interval_bound",
            "level": "proved",
            "steps": None,
            "low": None,
            "high": None,
            "upper": float(site.upper[unit]) if math.isfinite(site.upper[unit]) else None,
            "domain": proof.domain,
        }
        for unit in np.flatnonzero(site.dead).tolist()
    )
    return unseen_site(
        site.site,
        op=site.op,
        source=site.source,
        producers=site.producers,
        unit_dim=site.unit_dim,
        can_die=site.can_die,
        dead=site.dead,
        claims=claims,
    )
