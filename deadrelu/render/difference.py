"""Difference: what tells two states of a model apart, on a terminal and as Markdown."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ..differences import Difference, LayerDifference, SiteDifference
from ..interventions import MEANING
from .canvas import DEAD, SEVERITY_STYLES, SOFT, Canvas
from .markdown import escaped
from .page import plain, prose, prose_width, section
from .table import GAP, INDENT, Column, grid, indented
from .verdict import Severity
from .words import clean, count, listing, many, percent, spoken

SHOWN = 12
UNITS = 8
NAME_WIDTH = 28
_PARTS = (
    ("weights", "its own weights"),
    ("bias", "its own bias"),
    ("own", "both of them"),
    ("upstream", "what comes in"),
)


def to_text(found: Difference) -> str:
    """Return it as plain text, as wide as the terminal (80 columns where there is none)."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    canvas = Canvas(shutil.get_terminal_size((80, 24)).columns, ascii=not encoding.lower().startswith("utf"))
    return "\n".join(line.plain for line in difference_page(found, canvas))


def show_difference(found: Difference, console: Console, *, all_sites: bool = False) -> None:
    """Print it on a console, in colour where it takes colour."""
    canvas = Canvas(console.width, ascii=console.options.ascii_only)
    console.print(Text("\n").join(difference_page(found, canvas, all_sites=all_sites)), soft_wrap=True)


def difference_page(found: Difference, canvas: Canvas, *, all_sites: bool = False) -> list[Text]:
    """Draw the screen, line by line; no line is wider than the canvas."""
    severity: Severity = "weakened" if found.deaths else "healthy"
    if found.evidence == "weights":
        severity = "notice" if _weight_signs(found) else "undecided"
    lines: list[Text] = []
    for line in canvas.wrap(headline(found), prose_width(canvas, INDENT)):
        start = " " * INDENT if lines else f" {canvas.mark(severity)} "
        lines.append(Text().append(start + line, SEVERITY_STYLES[severity]))
    lines += prose(scope(found), canvas)
    table = _sites(found, canvas, all_sites) if found.sites else _layers(found, canvas, all_sites)
    if table:
        lines += [Text(), *table]
    for label, paragraphs in _sections(found):
        lines += [Text(), *section(label, [plain(text) for text in paragraphs], canvas)]
    return lines


def headline(found: Difference) -> str:
    """Say in a sentence what happened."""
    if found.evidence == "weights":
        signs = _weight_signs(found)
        if signs:
            return f"{'; '.join(signs)}."
        read = any(layer.old_silence is not None and layer.new_silence is not None for layer in found.layers)
        lost = "all its weights or its gradient" if read else "all its weights"
        return f"No unit lost {lost} between the two; who fires is not known without a model and data."
    died, back = found.deaths, found.revivals
    if not died and not back:
        return "No unit died between the two, and none came back."
    came = f"{many(back, 'silent unit')} came back" if back else "none came back"
    return f"{many(died, 'unit')} died between the two, {came}." if died else f"No unit died between the two; {came}."


def scope(found: Difference) -> str:
    """Say what was compared, and on what."""
    names = [
        clean(name) + (f" (step {count(step)})" if step is not None else "")
        for name, step in zip((found.old, found.new), found.steps, strict=True)
    ]
    compared = f"{names[0]} against {names[1]}"
    if found.evidence == "weights":
        return f"{compared}: {many(len(found.layers), 'layer')}, weights and optimizer state alone; no data was run."
    units = sum(site.units for site in found.sites)
    text = f"{compared}: {many(units, 'unit')} of {many(len(found.sites), 'site')} on {many(found.samples, 'sample')}"
    return f"{text}; interventions on {count(found.probed)} of them." if found.probed else f"{text}."


def _weight_signs(found: Difference) -> list[str]:
    zeroed = sum(len(layer.zeroed) for layer in found.layers)
    silenced = sum(len(layer.silenced) for layer in found.layers)
    signs = [f"{many(zeroed, 'unit')} lost all weights"] if zeroed else []
    return signs + ([f"{many(silenced, 'unit')} stopped to have a gradient"] if silenced else [])


def _sections(found: Difference) -> list[tuple[str, list[str]]]:
    dying = sorted((site for site in found.sites if site.deaths), key=lambda site: -len(site.deaths))[:SHOWN]
    parts = [
        ("what did it", [_reasons(site) for site in dying if site.causes]),
        ("rates", [text for site in dying if (text := _rates(site))]),
        ("moved most", _movers(found) if not found.sites else []),
        ("how sure", [_evidence(found)]),
        ("note", [*(clean(note) for note in found.notes), *_unread(found)]),
    ]
    return [(label, texts) for label, texts in parts if texts]


def _reasons(site: SiteDifference) -> str:
    died = len(site.deaths)
    causes = "; ".join(f"{count(n)} {MEANING.get(cause, cause)}" for cause, n in site.causes.items())  # type: ignore[call-overload]
    revived = ", ".join(f"{words} {count(site.revived_by[part])}" for part, words in _PARTS if part in site.revived_by)
    return f"{spoken([site.site])[0]}: {causes}. Of {many(died, 'death')}, taking back alone undoes: {revived}."


def _rates(site: SiteDifference) -> str:
    safe = [death.safe_fraction for death in site.deaths if death.safe_fraction is not None]
    own = [death.fraction[0] for death in site.deaths if death.fraction is not None]
    if not safe and not own:
        return ""
    rates = [death.safe_lr for death in site.deaths if death.safe_lr is not None]
    spared = f"all {len(safe)} that were pinned down live under {min(safe):.3g} of the update" if safe else ""
    spared += f", a learning rate of {min(rates):.3g}" if rates else ""
    alone = f"the own step at fixed inputs silences the first from {min(own):.3g} of it on" if own else ""
    return f"{spoken([site.site])[0]}: {'; '.join(filter(None, (spared, alone)))}."


def _movers(found: Difference) -> list[str]:
    lines = []
    for layer in found.layers:
        drop, gone = layer.bias_drop, layer.silenced
        words = [f"the bias of unit {drop[0]} fell by {-drop[1]:.3g} of its weights' norm"] if drop else []
        if layer.zeroed:
            words.append(f"weights all zero now: {_units(layer.zeroed)}")
        if gone:
            words.append(f"no gradient any more: {_units(gone)}")
        if words:
            lines.append(f"{spoken([layer.layer], 'layer')[0]}: {'; '.join(words)}")
    return lines[:SHOWN] + ([f"and {count(len(lines) - SHOWN)} more layers"] if len(lines) > SHOWN else [])


def _unread(found: Difference) -> list[str]:
    layers = [layer for layer in found.layers if layer.unread is not None]
    if found.sites or not layers:
        return []
    first = layers[0]
    which = f"{many(len(layers), 'layer')}, such as {clean(first.layer)}"
    return [f"the optimizer's state in {clean(found.new)} tells nothing of {which}: {clean(first.unread or '')}"]


def _units(units: Sequence[int]) -> str:
    return f"units {listing([str(unit) for unit in units], UNITS)}" if len(units) > 1 else f"unit {units[0]}"


def _evidence(found: Difference) -> str:
    if found.evidence == "weights":
        return (
            "weights: how far each unit moved, on the scale of its own weights; what it does on data is not known. "
            "No gradient does not mean that a unit never fires."
        )
    undecided = sum(death.status == "undecided" for site in found.sites for death in site.deaths)
    text = "intervention: parts of the states were exchanged in runs of the whole network on the same rows"
    if not found.probed:
        text = "data: both states were run on the same data"
    return f"{text}; {many(undecided, 'death')} rest on too few samples to be sure." if undecided else f"{text}."


def _sites(found: Difference, canvas: Canvas, all_sites: bool) -> list[Text]:
    ranked = sorted(found.sites, key=lambda site: -len(site.deaths) - len(site.revivals))
    shown = ranked if all_sites else [site for site in ranked if site.deaths or site.revivals][:SHOWN]
    if not shown:
        return []
    names = canvas.names([clean(site.site) for site in shown], _name_width(canvas))
    columns = [
        Column("site", ("site",), tuple(Text(name) for name in names), left=True),
        _numbers("died", [len(site.deaths) for site in shown], DEAD),
        _numbers("came back", [len(site.revivals) for site in shown]),
        Column("silent", ("silent",), tuple(Text(f"{a} -> {b} / {s.units}") for s in shown for a, b in [s.silent])),
    ]
    if any(site.causes for site in shown):
        leading = [next((f"{cause} {n}" for cause, n in site.causes.items()), "") for site in shown]
        columns.append(Column("cause", ("most often by",), tuple(Text(text) for text in leading), left=True))
    return indented(grid(_fitting(columns, canvas)))


def _layers(found: Difference, canvas: Canvas, all_sites: bool) -> list[Text]:
    ranked = sorted(found.layers, key=lambda layer: -len(layer.zeroed) - len(layer.silenced))
    shown = list(found.layers) if all_sites else ranked[:SHOWN]
    if not shown:
        return []
    names = canvas.names([clean(layer.layer) for layer in shown], _name_width(canvas))
    columns = [
        Column("layer", ("layer",), tuple(Text(name) for name in names), left=True),
        _numbers("units", [layer.units for layer in shown]),
        Column("move", ("weights moved", "median"), tuple(Text(_share(layer.median_move)) for layer in shown)),
        _numbers("zeroed", [len(layer.zeroed) for layer in shown], DEAD),
    ]
    if any(layer.old_silence is not None or layer.new_silence is not None for layer in shown):
        columns.append(Column("grad", ("without", "gradient"), tuple(Text(_silence(layer)) for layer in shown)))
    return indented(grid(_fitting(columns, canvas)))


def _fitting(columns: list[Column], canvas: Canvas) -> list[Column]:
    """Leave out the last columns until the others fit."""
    fitting = list(columns)
    while len(fitting) > 1 and INDENT + sum(GAP + column.width for column in fitting) - GAP > canvas.width:
        fitting.pop()
    return fitting


def _silence(layer: LayerDifference) -> str:
    ends = [None if side is None else len(side) for side in (layer.old_silence, layer.new_silence)]
    if ends == [None, None]:
        return "-"
    return " -> ".join("?" if end is None else count(end) for end in ends)


def _share(fraction: float | None) -> str:
    return "-" if fraction is None else percent(fraction) if fraction <= 1 else f"{fraction:.3g} x"


def _name_width(canvas: Canvas) -> int:
    return min(NAME_WIDTH, canvas.width // 3)


def _numbers(head: str, values: Sequence[int], style: str = "") -> Column:
    return Column(head, tuple(head.split()), tuple(Text(count(n), style if n else SOFT) for n in values))


def difference_to_markdown(found: Difference) -> str:
    """Return it as Markdown. Nothing in a name can be markup, nor HTML."""
    parts = [f"## {escaped(headline(found))}", escaped(scope(found))]
    rows = [site for site in found.sites if site.deaths or site.revivals]
    if rows:
        lines = [
            "| site | died | came back | silent before | silent now | units | causes |",
            "|---|--:|--:|--:|--:|--:|---|",
        ]
        for site in rows:
            causes = ", ".join(f"{cause} {n}" for cause, n in site.causes.items())
            numbers = (len(site.deaths), len(site.revivals), *site.silent, site.units)
            lines.append(f"| {escaped(clean(site.site))} | {' | '.join(map(count, numbers))} | {escaped(causes)} |")
        parts.append("\n".join(lines))
    for label, texts in _sections(found):
        listed = "\n".join(f"- {escaped(text)}" for text in texts)
        parts.append(f"### {label.capitalize()}\n\n{listed}")
    return "\n\n".join(parts) + "\n"
