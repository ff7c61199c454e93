"""Prefixes that wrappers of a module put into the names of its weights, and names without them."""

from __future__ import annotations

from collections.abc import Iterable

_WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


def bare(name: str) -> str:
    """Return `name` without wrapper prefixes: `module.` in front, `_orig_mod.` and its like anywhere.

    >>> bare("module._orig_mod.net.0._orig_mod.weight")
    'net.0.weight'
    """
    return _without_module(_unwrapped(name))


def strip(names: Iterable[str]) -> dict[str, str]:
    """Return a new name for each of `names`: as `bare`, but `module.` goes only if all have it, as DDP would write it.

    Names that would fall together all stay as they are.

    >>> strip(["module.a", "module.b"])
    {'module.a': 'a', 'module.b': 'b'}
    >>> strip(["module.a", "head.b"])
    {'module.a': 'module.a', 'head.b': 'head.b'}
    """
    made = {name: _unwrapped(name) for name in names}
    while made and all(name.startswith("module.") for name in made.values()):
        made = {name: shorter.removeprefix("module.") for name, shorter in made.items()}
    return made if len(set(made.values())) == len(made) else {name: name for name in made}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_module(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name
