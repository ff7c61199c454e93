"""A folder to work in, with a user's module `shop` whose network has units 1 and 5 of 8 dead by their bias."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from .shop import DEAD, SOURCE, rows


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter a folder that holds `shop.py`, `x.npy` and `net.pt`; what was imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEADRELU_DEBUG", raising=False)
    (tmp_path / "shop.py").write_text(SOURCE, encoding="utf-8")
    np.save("x.npy", rows().numpy())
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    torch.nn.init.constant_(model[0].bias, 0.5)
    with torch.no_grad():
        model[0].bias[DEAD] = -1e3
    torch.save(model.state_dict(), "net.pt")
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
