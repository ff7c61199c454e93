"""The examples in the package's docstrings do what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import deadrelu

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(deadrelu.__path__, "deadrelu.")
    if not module.name.endswith("__main__")  # runs the command line when imported
)


def run(name: str) -> doctest.TestResults:
    return doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str) -> None:
    """What a failing example printed stands in the captured output."""
    assert run(name).failed == 0


def test_examples_are_found() -> None:
    """A search that finds no example would pass every test above."""
    assert run("deadrelu.rates").attempted >= 8
