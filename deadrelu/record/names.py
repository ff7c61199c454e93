"""Names: what a record consists of - tags, channels, columns - for whoever writes or reads one.

A record is the plugin data of a TensorBoard run, five kinds of tags, each with one value per recorded window:

- `deadrelu_record/sites`: JSON, the session and every site so far; written when a site appears.
- `deadrelu_record/window`: JSON, what there is to say of a window as a whole.
- `deadrelu_record/lines`: float64 (sites, COLUMNS), what there is to say of each site.
- `deadrelu_record/cells/<number of the site>`: uint8 (CHANNELS, units), see `codes.py`.
- `deadrelu_record/happened`: JSON, deaths, revivals and events; never thinned.

At the end of a run `deadrelu_record/report` holds the whole report, as JSON in zlib's format.
"""

from __future__ import annotations

PLUGIN = "deadrelu"
SCHEMA = "deadrelu.record/1"

SITES = "deadrelu_record/sites"
WINDOW = "deadrelu_record/window"
LINES = "deadrelu_record/lines"
HAPPENED = "deadrelu_record/happened"
REPORT = "deadrelu_record/report"
CELLS = "deadrelu_record/cells/"

CHANNELS = ("rate", "grad", "bias")
COLUMNS = (
    "dead_fraction",
    "silent_fraction",
    "bias_drift",
    "grad_flow",
    "update_ratio",
    "grad_low",
    "grad_high",
    "bias_low",
    "bias_high",
)
"""The last four are the ends of the scales that the cells of this window are written on."""

OWN_SUFFIX = ".deadrelu"
"""How the name of an event file ends that holds a record and nothing else."""

OWN_FOLDER = "deadrelu"
"""Where a record goes inside of a run folder that holds somebody else's event files."""


def cells_tag(number: int) -> str:
    """Return the tag of the cells of a site."""
    return f"{CELLS}{number}"
