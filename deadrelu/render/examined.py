"""Examined: a checkpoint without data or model, in plain words. "No gradient" is never called "never fires"."""

from __future__ import annotations

from collections.abc import Sequence

from ..findings import Findings, findings, silent_layers
from ..report import Report
from .claims import Claim
from .remarks import unseen
from .tally import WEAKENED_FROM
from .verdict import Severity, Verdict
from .words import clean, count, listing, many, percent, spoken

_SUPPOSED = (
    "A checkpoint does not hold its activations: that a rectifier (ReLU or the like) follows a layer is supposed."
)
_DATA = (
    "Audit it on data, which alone shows whether a unit fires: add --model pkg.mod:factory and --data SPEC "
    "(deadrelu.audit)."
)
_EARLIER = "Compare with a checkpoint from before: the updates since the last gradient say how far back."
_BETTER_STATE = "Keep the optimizer's state in the checkpoint: it dates when each unit last had a gradient."
_LAYERS_NAMED = 3
_UNITS_NAMED = 8


def judged(report: Report) -> Verdict:
    """Put the report of a checkpoint alone into words."""
    found = findings(report)
    return Verdict(
        severity=_severity(report, found),
        headline=_headline(report, found),
        scope=f"checkpoint: {many(len(found), 'layer')}, {many(report.units, 'unit')}, no data seen",
        meaning=(*_whole(report), *_which(found), _SUPPOSED),
        actions=_actions(report, found),
        claims=_claims(found),
        notes=(),
        unseen=unseen(report),
    )


def worst(found: Sequence[Findings]) -> list[Findings]:
    """Return the layers in the order in which they deserve a look."""
    return sorted(found, key=lambda f: (-f.silent_fraction, -int(f.silent.sum()), -f.heuristic))


def table(found: Sequence[Findings]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return the columns that say something, as (lines of the head, cells), the layer's name first."""
    columns: list[tuple[tuple[str, ...], list[str]]] = [
        (("layer",), [clean(f.site) for f in found]),
        (("units",), [count(f.units) for f in found]),
    ]
    for head, cells in (
        (("proved", "dead"), [f.proved for f in found]),
        (("no", "gradient"), [f.no_gradient for f in found]),
        (("of them", "from birth"), [f.never for f in found]),
        (("for about", "updates"), [_ages(f) for f in found]),
        (("input", "constant"), [f.no_variance for f in found]),
        (("perhaps", "rare"), [f.heuristic for f in found]),
    ):
        if any(cells):
            columns.append((head, [c if isinstance(c, str) else count(c) if c else "" for c in cells]))
    return columns


def rest(found: Sequence[Findings]) -> str:
    """Sum up the layers that are not listed."""
    silent = sum(int(f.silent.sum()) for f in found)
    units = many(sum(f.units for f in found), "unit")
    said = f"{count(silent)} without a gradient, or proved dead" if silent else "nothing is claimed of them"
    return f"{many(len(found), 'other layer')}, {units}: {said}."


def _ages(found: Findings) -> str:
    if found.youngest is None or found.oldest is None:
        return ""
    ages = count(found.youngest)
    if found.oldest > found.youngest:
        ages += f" to {count(found.oldest)}"
    return f"{ages} or more" if found.at_least else ages


def _severity(report: Report, found: Sequence[Findings]) -> Severity:
    if silent_layers(report):
        return "weakened"
    most = max((f.silent_fraction for f in found), default=0.0)
    if most >= WEAKENED_FROM:
        return "weakened"
    if most or any(f.heuristic for f in found):
        return "harmless"
    return "healthy" if report.evidence == "optimizer" else "notice"


def _headline(report: Report, found: Sequence[Findings]) -> str:
    silent = sum(int(f.silent.sum()) for f in found)
    doubtful = sum(f.heuristic for f in found)
    total = many(report.units, "unit")
    whole = silent_layers(report)
    if whole:
        return f"No unit of {listing(spoken(whole, 'layer'), _LAYERS_NAMED)} has had a gradient of late."
    if not silent and doubtful:
        return f"Nothing shows a unit to be dead; {count(doubtful)} of {total} may be rare or silent."
    if not silent:
        if report.evidence == "optimizer":
            return f"Nothing in the weights or the optimizer's memory speaks against any of {total}."
        return f"Nothing in the weights speaks against any of {total}; they cannot say that all fire."
    kinds = [
        words
        for words, number in (
            ("no gradient", sum(f.no_gradient for f in found)),
            ("a constant input", sum(f.no_variance for f in found)),
        )
        if number
    ]
    has = f"{'has' if silent == 1 else 'have'} {' or '.join(kinds)}" if kinds else ""
    dead = f"{'is' if silent == 1 else 'are'} dead by the weights" if any(f.proved for f in found) else ""
    first = worst(found)[0]
    where = f"{spoken([first.site], 'layer')[0]} has the most, {count(int(first.silent.sum()))} of {count(first.units)}"
    share = percent(silent / report.units)
    return f"{count(silent)} of {total} ({share}) {' or '.join(part for part in (has, dead) if part)}: {where}."


def _whole(report: Report) -> list[str]:
    layers = silent_layers(report)
    if not layers:
        return []
    names = listing(spoken(layers, "layer"), _LAYERS_NAMED)
    return [
        f"{names}: frozen, unused, converged, hidden by a spike, or dead throughout; the optimizer's state cannot tell "
        "which, and claims no single unit for it."
    ]


def _which(found: Sequence[Findings]) -> list[str]:
    """Say which units of the worst layers it is; all are in the JSON."""
    hit = [f for f in worst(found) if f.silent.any()][:_LAYERS_NAMED]
    lines = []
    for name, f in zip(spoken([f.site for f in hit], "layer"), hit, strict=True):
        units = [str(unit) for unit in f.silent.nonzero()[0].tolist()]
        lines.append(f"{name}: unit{'s' if len(units) > 1 else ''} {listing(units, _UNITS_NAMED)}.")
    return lines


def _actions(report: Report, found: Sequence[Findings]) -> tuple[str, ...]:
    lines = [_DATA]
    if any(f.no_gradient > f.never for f in found):
        lines.append(_EARLIER)
    if any(module == "optimizer" for module, _ in report.coverage.unsupported):
        lines.append(_BETTER_STATE)
    return tuple(lines)


def _errors(found: Sequence[Findings]) -> str:
    """Say between what the ages lie, layer by layer; of each unit in the JSON."""
    dated = [f for f in worst(found) if f.least is not None][:_LAYERS_NAMED]
    if not dated:
        return ""
    spans = [
        f"{name} {count(f.least or 0)} {f'to {count(f.most)}' if f.most is not None else 'or more'}"
        for name, f in zip(spoken([f.site for f in dated], "layer"), dated, strict=True)
    ]
    return f" The ages are estimates; all lie within: {', '.join(spans)} updates (unit by unit in the JSON)."


def _claims(found: Sequence[Findings]) -> tuple[Claim, ...]:
    proved, gradient = sum(f.proved for f in found), sum(f.no_gradient for f in found)
    never, variance = sum(f.never for f in found), sum(f.no_variance for f in found)
    doubtful = sum(f.heuristic for f in found)
    claims = []
    if proved:
        claims.append(
            Claim(
                "proved",
                f"{many(proved, 'unit')} cannot fire, whatever comes in: the weights forbid it, if a "
                "rectifier follows directly.",
            )
        )
    if gradient:
        born = f", {'it' if never == gradient == 1 else count(never)} not once" if never else ""
        claims.append(
            Claim(
                "optimizer",
                f"no gradient worth the name reached the parameters of {many(gradient, 'unit')}{born}. "
                "Such a unit did not fire, or what reads it passed nothing back: it may fire all the same."
                + _errors(found),
            )
        )
    if variance:
        claims.append(
            Claim(
                "optimizer",
                f"the running variance shows that the norm of {many(variance, 'unit')} gets a constant "
                "input. The dates in the JSON suppose a momentum of 0.1.",
            )
        )
    if doubtful:
        claims.append(
            Claim(
                "heuristic",
                f"{many(doubtful, 'unit')} may be rare or silent, judged by the norm's beta and gamma, "
                "or by the signs of the weights, alone.",
            )
        )
    return tuple(claims)
