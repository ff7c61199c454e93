"""One cache of compiled kernels for the tests of this folder; the user's own is left alone."""

from __future__ import annotations

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
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
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
