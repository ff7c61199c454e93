"""deadrelu: which units of a PyTorch model are dead, since when, what killed them, and how sure that is.

The names below are loaded on first use: `import deadrelu` imports neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .screens import register_screen

if TYPE_CHECKING:
    from .auditing import audit as audit
    from .deaths import Death as Death
    from .deaths import Event as Event
    from .errors import DeadReluError as DeadReluError
    from .errors import DeadReluWarning as DeadReluWarning
    from .errors import TrainingStopped as TrainingStopped
    from .kinds import Kind as Kind
    from .kinds import register_kind as register_kind
    from .monitor import Monitor as Monitor
    from .report import Report as Report
    from .report import SiteReport as SiteReport
    from .states import diff as diff
    from .states import timeline as timeline

__version__ = "0.1.0"

_HOME = {
    "Death": "deaths",
    "DeadReluError": "errors",
    "DeadReluWarning": "errors",
    "Event": "deaths",
    "Kind": "kinds",
    "Monitor": "monitor",
    "Report": "report",
    "SiteReport": "report",
    "TrainingStopped": "errors",
    "audit": "auditing",
    "diff": "states",
    "register_kind": "kinds",
    "timeline": "states",
}

__all__ = sorted([*_HOME, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]

register_screen("text", "deadrelu.render.terminal:to_text")
register_screen("html", "deadrelu.render.html:to_html")
register_screen("markdown", "deadrelu.render.markdown:to_markdown")
register_screen("diff", "deadrelu.render.difference:to_text")
register_screen("timeline", "deadrelu.render.timeline:to_text")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
