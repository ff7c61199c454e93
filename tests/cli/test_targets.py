"""A state_dict finds its model through wrappers and prefixes, and nothing else passes for one."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deadrelu.checkpoint import load_state
from deadrelu.cli.targets import load_target
from deadrelu.errors import CheckpointError

from .shop import DEAD


def reference() -> OrderedDict[str, Any]:
    state: OrderedDict[str, Any] = torch.load("net.pt", weights_only=True)
    return state


def prefixed(state: OrderedDict[str, Any], prefix: str) -> OrderedDict[str, Any]:
    return OrderedDict((prefix + key, value) for key, value in state.items())


WRAPPED: dict[str, Any] = {
    "bare": lambda s: s,
    "plain dict": dict,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {}}},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": torch.tensor(0.5)},
    "module.": lambda s: prefixed(s, "module."),
    "_orig_mod.": lambda s: prefixed(s, "_orig_mod."),
    "module._orig_mod.": lambda s: prefixed(s, "module._orig_mod."),
    "_orig_mod.module.": lambda s: {"state_dict": prefixed(s, "_orig_mod.module.")},
    "a compiled part": lambda s: OrderedDict((k.replace("0.", "0._orig_mod."), v) for k, v in s.items()),
    "other dtype": lambda s: OrderedDict((k, v.double()) for k, v in s.items()),
}


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_prefixes(form: str, zipped: bool) -> None:
    """Ground truth: the tensors that were saved, bit for bit."""
    torch.save(WRAPPED[form](reference()), "wrapped.pt", _use_new_zipfile_serialization=zipped)
    model = load_target("wrapped.pt", "shop:blank")
    for key, value in reference().items():
        assert torch.equal(model.state_dict()[key], value)
    assert (model[0].bias < -999).nonzero().flatten().tolist() == DEAD  # type: ignore[index, operator]


class Shell(nn.Module):
    """A model with a module that is really named `module`, beside another."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)


def test_a_real_module_named_module() -> None:
    """Names that fit as they are stay as they are."""
    source, target = Shell(), Shell()
    load_state(target, source.state_dict(), Path("shell.pt"))
    assert torch.equal(target.module.weight, source.module.weight)
    load_state(nn.DataParallel(target), source.state_dict(), Path("shell.pt"))
    load_state(target, nn.DataParallel(source).state_dict(), Path("shell.pt"))
    assert torch.equal(target.head.weight, source.head.weight)


def test_a_name_twice_is_refused() -> None:
    """`module.0.weight` beside `0.weight`: which one was meant is not ours to guess."""
    state = nn.Sequential(nn.Linear(2, 2)).state_dict()
    state["module.0.weight"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match=r"1 unknown to the model: module\.0\.weight"):
        load_state(nn.Sequential(nn.Linear(2, 2)), state, Path("x.pt"))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_versions_of_modules_survive(prefix: str) -> None:
    """BatchNorm has num_batches_tracked since version 2: a file of version 1 lacks it, one of version 2 may not."""
    model = nn.Sequential(nn.BatchNorm1d(3))
    old = prefixed(model.state_dict(), prefix)
    del old[f"{prefix}0.num_batches_tracked"]
    metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    versions = {prefix + key: dict(value) for key, value in metadata.items() if key}
    old._metadata = OrderedDict(versions)  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"1 missing in the file: 0\.num_batches_tracked"):
        load_state(nn.Sequential(nn.BatchNorm1d(3)), old, Path("x.pt"))
    versions[f"{prefix}0"]["version"] = 1
    load_state(nn.Sequential(nn.BatchNorm1d(3)), old, Path("x.pt"))


def test_lazy_modules_take_their_shape_from_the_file() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    load_state(model, nn.Sequential(nn.Linear(5, 3), nn.ReLU()).state_dict(), Path("x.pt"))
    assert model[0].weight.shape == (3, 5)
