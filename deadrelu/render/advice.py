"""Advice: what dead units do to the network, and what can be done about them.

An audit sees which units are dead and not why; the words here claim no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..report import Report
from .tally import BOTTLENECK_FROM, WEAKENED_FROM, Effect, Tally
from .words import count, listing, many, rounded, spoken

_LEFT = rounded(1 - BOTTLENECK_FROM)
_LITTLE = rounded(WEAKENED_FROM)
_ONE: dict[Effect, str] = {
    "cut off": "{name} is cut off: nothing gets through, unless a residual path leads around it.",
    "bottleneck": "{name} is a bottleneck: {left} of {units} units are left.",
    "weakened": "{name} is weakened: {left} of {units} units are left.",
    "harmless": "{name} has width to spare: losing under " + _LITTLE + " is harmless.",
}
_SEVERAL: dict[Effect, str] = {
    "cut off": "{name} are cut off: nothing gets through, unless residual paths lead around them.",
    "bottleneck": "{name} are bottlenecks: " + _LEFT + " of their width or less is left.",
    "weakened": "{name} are weakened: they lost " + _LITTLE + " of their width or more.",
    "harmless": "{name} have width to spare: losing under " + _LITTLE + " is harmless.",
}


def named(tallies: Iterable[Tally], limit: int = 3) -> str:
    """Return the names of some sites as a list in words, long ones cut in the middle."""
    return listing(spoken([t.name for t in tallies]), limit)


def meaning(sites: Sequence[Tally]) -> tuple[str, ...]:
    """Say what the dead units of these sites do to the network, the worst first, and what it is to be dead."""
    lines = effects(sites)
    if any(t.dead > t.nan for t in sites):
        lines += ("A dead unit has one constant output (ReLU: 0) and no gradient: training on rarely revives it.",)
    return lines


def effects(sites: Sequence[Tally]) -> tuple[str, ...]:
    """Say what the dead units of these sites do to the network, the worst first."""
    lines = []
    if any(t.nan for t in sites):
        lines.append(
            "NaN counts as not firing, and whatever comes after it is suspect as well. Which units are really dead "
            "will show once the NaN is gone."
        )
    for effect in _ONE:
        hit = [t for t in sites if t.effect == effect]
        if hit:
            words = _ONE[effect] if len(hit) == 1 else _SEVERAL[effect]
            left = hit[0].units - hit[0].dead
            lines.append(words.format(name=named(hit, 2), left=count(left), units=count(hit[0].units)))
    return tuple(lines)


def actions(report: Report, sites: Sequence[Tally]) -> tuple[str, ...]:
    """Say what can be done; nothing if no unit is dead."""
    lines = []
    nan = sorted((t for t in sites if t.nan), key=lambda t: t.order)
    if nan:
        lines.append(
            f"Find the first NaN before anything else: it shows at {named(nan[:1])}. Check the input and the weights "
            "before it with torch.isfinite."
        )
    worst = [t for t in sites if t.effect in ("cut off", "bottleneck", "weakened")]
    if worst:
        lines += _against_death(report, sites, worst)
    elif any(t.effect == "harmless" for t in sites):
        lines.append("Nothing now. Look again later in training: what counts is whether the number grows.")
    return tuple(lines)


def _against_death(report: Report, sites: Sequence[Tally], worst: Sequence[Tally]) -> list[str]:
    lines = []
    first = min((t for t in sites if t.silent), key=lambda t: t.order)
    starved = sum(t.starved for t in sites if t is not first)
    if first.starved:
        lines.append(f"Check the data and what comes before {named([first])}: it is fed zeros where it should not be.")
    elif starved:
        lines.append(
            f"Begin with {named([first])}, the first in the network: {many(starved, 'silent unit')} further on "
            f"{'is' if starved == 1 else 'are'} fed nothing but zeros."
        )
    unknown = (
        "" if report.mode == "training" else f": a frequent cause; {_article(report.mode)} cannot tell which it was"
    )
    lines.append(f"Lower the peak learning rate (to a third, a tenth) or add a warm-up{unknown}.")
    producers = list(dict.fromkeys(p for t in worst for p in t.producers))
    where = f" of {listing(spoken(producers, 'module'), 2)}" if producers else ""
    lines.append(f"Check the biases (norm betas too){where}: strongly negative ones keep units off.")
    lines.append("Put LeakyReLU, GELU or SiLU there: they leave every unit a gradient.")
    lines.append("To save this model, re-initialise the dead units (report[site].dead) and train on, or prune them.")
    return lines


def _article(mode: str) -> str:
    return f"an {mode}" if mode[0] in "aeiou" else f"a {mode}"
