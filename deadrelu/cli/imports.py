"""Imports: the Python object that `pkg.mod:name` stands for."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
from typing import Any

from ..errors import InputError
from .blame import blame

_REFERENCE = re.compile(r"[^\W\d]\w*(\.\w+)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_reference(text: str) -> bool:
    """Return whether `text` has the form `pkg.mod:name`, with dots allowed in the name."""
    return _REFERENCE.fullmatch(text) is not None


def import_object(reference: str) -> Any:
    """Return the object that `pkg.mod:name` names; modules of the current directory can be imported.

    Raises:
        InputError: the reference is malformed, the module cannot be imported, or it has no such name.
    """
    if not is_reference(reference):
        raise InputError(f"{reference!r} is not a Python reference; write it as pkg.mod:name (a module, not a file)")
    module_name, name = reference.split(":")
    found: Any = _import_module(module_name, reference)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{reference}: {_missing(found, part)}")
        found = getattr(found, part)
    return found


def call_object(function: Any, reference: str, role: str) -> Any:
    """Return `function()`; `role` says in messages what the call was for.

    Raises:
        InputError: it needs arguments, or it raised.
    """
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(
            f"{reference} cannot be called without arguments ({error}); name a {role} that needs none"
        ) from None
    except ValueError:  # builtins without a signature: the call itself will tell
        pass
    try:
        return function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: the user's code does not decide our exit status
        raise InputError(f"the {role} {reference} raised {blame(error)}; mend it and try again") from error


def _import_module(name: str, reference: str) -> Any:
    # As under `python -m`. A console script has its own folder there instead, and no user's module lies in it.
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(missing + ".")):
            raise InputError(f"{reference}: {_no_module(name, missing)}") from None
        raise InputError(f"importing {name} raised {blame(error)}; mend it and try again") from error


def _no_module(name: str, missing: str) -> str:
    if name.endswith(".py"):
        return f"{name} is a file name; write the module, {name[:-3]}:..."
    return f"no module named {missing!r} in the current directory or on the Python path; check the name, or cd to it"


def _missing(owner: Any, name: str) -> str:
    where = f"module {owner.__name__}" if inspect.ismodule(owner) else repr(owner)
    close = difflib.get_close_matches(name, [n for n in dir(owner) if not n.startswith("_")], n=3)
    advice = f"did you mean {' or '.join(close)}?" if close else "check the name"
    return f"{where} has no {name!r}; {advice}"
