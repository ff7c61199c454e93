"""HTML page: the modules and the style of the tab, and a packed document, as one file that asks nobody for anything."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .words import clean

STATIC = Path(__file__).resolve().parent.parent / "board" / "static"
DIGITS = 6

# The browser itself forbids the page to load anything, whatever stands in it.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="deadrelu">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}
</style>
<script type="importmap">{modules}</script>
</head>
<body>
<div id="deadrelu"></div>
<noscript>{plain}<p>The plots need JavaScript.</p></noscript>
<script type="application/json" id="deadrelu-data">{data}</script>
<script type="module">import {{ show }} from "deadrelu/file.js"; show();</script>
</body>
</html>
"""
_IMPORT = re.compile(r'(from\s+")\./([a-z_]+\.js")')
# Modules that only a page beside a server needs.
_SERVED = {"index.js", "host.js"}


def page(title: str, paragraphs: Iterable[str], data: dict[str, Any]) -> str:
    """Return the text of the file.

    Args:
        title: what the window is called.
        paragraphs: what is read where no script runs, such as the verdict.
        data: JSON types, for `file.js`.
    """
    return _PAGE.format(
        policy=_POLICY,
        title=_escaped(title),
        style=(STATIC / "style.css").read_text(encoding="utf-8"),
        modules=_modules(),
        plain="".join(f"<p>{_escaped(text)}</p>" for text in paragraphs),
        data=_embedded(data),
    )


def packed(document: Any) -> str:
    """Return JSON types as base64 of gzip; numbers keep six significant digits, which is more than a screen shows."""
    text = json.dumps(_rounded(document), separators=(",", ":"), allow_nan=False)
    return packed_bytes(text.encode("ascii"))


def packed_bytes(data: bytes) -> str:
    """Return bytes as base64 of gzip, the same text for the same bytes at any time."""
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode("ascii")


def _modules() -> str:
    """Return an import map that holds the modules themselves. They import one another by name: data has no folder."""
    found = {}
    for file in sorted(STATIC.glob("*.js")):
        if file.name not in _SERVED:
            text = _IMPORT.sub(r"\1deadrelu/\2", file.read_text(encoding="utf-8"))
            code = base64.b64encode(text.encode("utf-8")).decode("ascii")
            found[f"deadrelu/{file.name}"] = f"data:text/javascript;base64,{code}"
    return _embedded({"imports": found})


def _embedded(data: Any) -> str:
    # A "<" could end the script element that the JSON stands in.
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _escaped(text: str) -> str:
    return html.escape(clean(text))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value
