"""The examples in the package's docstrings do what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module
from types import ModuleType

import pytest

import deadrelu

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(deadrelu.__path__, "deadrelu.")
    if not module.name.endswith("__main__")  # runs the command line when imported
)
EXTRAS = "deadrelu.integrations."
"""Each module below needs the framework that it is for, which is installed by its own extra."""


def load(name: str) -> ModuleType:
    """Import a module; skip where only the framework of an integration is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        missing = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
        if name.startswith(EXTRAS) and (missing.name or "").split(".")[0] == name.removeprefix(EXTRAS):
            pytest.skip(f"{missing.name} is not installed")
        raise


def run(name: str) -> doctest.TestResults:
    return doctest.testmod(load(name), optionflags=doctest.ELLIPSIS)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str) -> None:
    """What a failing example printed stands in the captured output."""
    assert run(name).failed == 0


def test_examples_are_found() -> None:
    """A search that finds no example would pass every test above."""
    assert run("deadrelu.rates").attempted >= 8
