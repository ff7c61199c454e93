"""The real training that several tests look at, made once."""

from __future__ import annotations

import logging

import pytest

from .runs import Run, train


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train once, with a spike of the learning rate."""
    pytest.importorskip("sklearn")
    log = logging.getLogger("deadrelu")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        return train(tmp_path_factory.mktemp("run"))
    finally:
        log.setLevel(before)
