"""examine: what a checkpoint says of each unit by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import CheckpointError, InputError
from ..findings import PROVED, UNKNOWN
from ..report import Coverage, Report, SiteReport
from .derived import Effective
from .evidence import Evidence
from .layers import Layer, find_layers
from .memory import Memory
from .unseen import unseen_site

Patterns = Iterable[str] | str | None

_NO_OPTIMIZER = "the file holds no state of one, which would date when each unit last had a gradient"


def examine(checkpoint: Checkpoint, *, include: Patterns = None, exclude: Patterns = None) -> Report:
    """Say of each unit what the checkpoint says by itself: no data is seen, no model is built, nothing is run.

    One site per layer whose output may go to a rectifier, with the op `unknown`: a checkpoint holds no activation.
    That one follows directly is supposed. `dead` holds only the units whose weights then prove it, so that
    `dead_fraction` is a lower bound; everything else that is known is in `claims`, each with its level. A unit without
    a claim is not thereby alive.

    Claims (each with `unit`, `claim`, `level`, `steps`, `low`, `high`, and `layer`: the module that says so):
        `zero_row` (proved): all weights are 0 and the bias is not positive.
        `norm_bound` (proved): no input of the norm before it makes it fire, if that norm feeds it directly.
        `no_gradient`, `never_gradient` (optimizer): see `deadrelu.optimizer_state`; it may fire all the same.
        `no_variance`, `never_variance` (optimizer): the input of its BatchNorm has not varied for `steps` forwards in
            train mode, if the norm's momentum is `momentum`.
        `negative_row` (heuristic): neither a weight nor the bias is positive: silent if no input is ever negative.
        `likely_rare` (heuristic): beta is far under 0 for the size of gamma; `probability`, and Cantelli's bound.

    Args:
        checkpoint: what `open_checkpoint` returned.
        include, exclude: patterns (`fnmatch`) of layer names.

    Returns:
        A `Report` of mode `checkpoint`; what was declined, and why, is in `coverage.unsupported`.

    Raises:
        CheckpointError: a weight holds NaN or inf, or there is no layer.
        InputError: the patterns leave out every layer.
    """
    checkpoint.require_finite()
    weights = Effective(checkpoint.weights)
    layers, declined = find_layers(weights)
    if not layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in declined[:2])
        raise CheckpointError(
            f"{checkpoint.path}: it holds no layer whose units could be told ({reasons or 'no weights'}); expected "
            "weights of Linear, convolutions or BatchNorm; with --model and --data any model can be audited"
        )
    chosen = [layer for layer in layers if _wanted(layer.name, _listed(include), _listed(exclude))]
    if not chosen:
        raise InputError(f"the patterns leave out all {len(layers)} layers, such as {layers[0].name}; loosen them")
    memory = Memory(checkpoint, weights) if checkpoint.optimizers else None
    found = [(layer, Evidence(layer, weights, memory)) for layer in chosen]
    said = [item for _, evidence in found for item in evidence.declined]
    if memory is None:
        said.append(("optimizer", _NO_OPTIMIZER))
    unread = [("file", text) for text in checkpoint.unread if not text.endswith("left alone")]
    sites = tuple(_site(layer, evidence) for layer, evidence in found)
    aimed = "optimizer" if any(evidence.read for _, evidence in found) else "heuristic"
    return Report(
        mode="checkpoint",
        evidence="proved" if any(site.dead.any() for site in sites) else aimed,  # type: ignore[arg-type]
        samples=0,
        sites=sites,
        coverage=Coverage(sites=len(sites), unsupported=tuple(dict.fromkeys([*said, *declined, *unread]))),
    )


def _site(layer: Layer, evidence: Evidence) -> SiteReport:
    dead = np.zeros(layer.units, dtype=bool)
    dead[[c["unit"] for c in evidence.claims if c["level"] == "proved" and c["claim"] in PROVED]] = True
    return unseen_site(
        layer.name,
        op=UNKNOWN,
        source=None,
        producers=(layer.name,) if layer.norm is None else (layer.name, layer.norm.name),
        unit_dim=layer.unit_dim if len(layer.module.shape) < 3 else 1,
        can_die=True,
        dead=dead,
        claims=evidence.claims,
    )


def _listed(patterns: Patterns) -> Sequence[str]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    kept = not include or any(fnmatchcase(name, pattern) for pattern in include)
    return kept and not any(fnmatchcase(name, pattern) for pattern in exclude)
