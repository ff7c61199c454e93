"""Screens: which function turns a report into text. Result types ask here, so that they know no renderer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import RegistryError

_SCREENS: dict[str, str] = {}


def register_screen(format: str, target: str) -> None:
    """Let `target`, written `package.module:function`, render reports as `format`.

    The module is imported when the first report is rendered, not now.

    Raises:
        RegistryError: `format` has a screen already.
    """
    if format in _SCREENS:
        raise RegistryError(f"screen {format!r} is {_SCREENS[format]} already; register another name")
    _SCREENS[format] = target


def render(format: str, report: Any) -> str:
    """Return `report` as text in the given format.

    Raises:
        RegistryError: no screen of that name is registered.
    """
    try:
        module, function = _SCREENS[format].split(":")
    except KeyError:
        raise RegistryError(f"no screen {format!r}; registered are {', '.join(sorted(_SCREENS))}") from None
    return str(getattr(import_module(module), function)(report))
