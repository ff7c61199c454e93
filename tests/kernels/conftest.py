"""One cache of compiled kernels for the tests of this folder; the user's own is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deadrelu.kernels import library
from deadrelu.kernels.choice import Choice


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds compiled kernels; skips where there is no compiler."""
    try:
        library.compiler()
    except library.UnusableError as error:
        pytest.skip(str(error))
    import fcntl  # which is where a compiler is taken, on Linux

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # compiled by one worker, for all of them
        shared = shared.parent
    cache = shared / "compiled"
    cache.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, (shared / "compiled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("DEADRELU_KERNELS", "native")
        patch.delenv("CC", raising=False)
        assert Choice().ready(0) is not None
    return cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; nothing is forced."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEADRELU_KERNELS", raising=False)
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache"
