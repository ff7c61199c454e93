"""Training programs save under many names: what is the model, what the optimizer, what the step, what neither."""

from __future__ import annotations

import argparse
import enum
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deadrelu.checkpoint import bare, open_checkpoint
from deadrelu.checkpoint.prefixes import strip
from deadrelu.errors import CheckpointError

from .writers import assert_equal, model, opened, save, trained


def state() -> dict[str, Tensor]:
    return dict(model().state_dict())


def prefixed(prefix: str, held: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in (held or state()).items()}


WRAPPED: dict[str, Any] = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "arch": "resnet18", "best_acc1": torch.tensor(70.1)},
    "model_state_dict": lambda s: {"epoch": 3, "model_state_dict": s, "loss": 0.5},
    "model": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1), "iter_num": 10},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 199},
    "module, as DeepSpeed has it": lambda s: {"module": s, "optimizer": None, "global_steps": 3},
    "a name of its own": lambda s: {"encoder": s, "note": "text"},
    "nested": lambda s: {"model": {"state_dict": s, "config": {}}, "epoch": 1},
    "parts, nested": lambda s: {"model": {"0": {k[2:]: v for k, v in s.items() if k[0] == "0"}} | rest(s)},
    "module.": lambda s: {"model": prefixed("module.", s)},
    "_orig_mod.": lambda s: prefixed("_orig_mod.", s),
    "both": lambda s: prefixed("_orig_mod.module.", s),
    "fsdp": lambda s: prefixed("_fsdp_wrapped_module._checkpoint_wrapped_module.", s),
    "beside its running mean": lambda s: {"state_dict": s, "state_dict_ema": {k: v * 2 for k, v in s.items()}},
    "two that are equally named": lambda s: {"model": s, "model_ema": {k: v * 2 for k, v in s.items()}},
    "a defaultdict": lambda s: defaultdict(list, s),
}


def rest(held: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in held.items() if name[0] != "0"}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_weights_are_found(form: str, zipped: bool, tmp_path: Path) -> None:
    """Ground truth: the tensors that were saved, under the names of the model."""
    expected = state()
    checkpoint = opened(WRAPPED[form](expected), tmp_path / "net.pt", zipped=zipped)
    assert_equal(checkpoint, expected)


def test_two_models_keep_their_names(tmp_path: Path) -> None:
    a, b = state(), {name: tensor + 1 for name, tensor in state().items()}
    checkpoint = opened({"generator": a, "discriminator": b, "iter": torch.tensor(9)}, tmp_path / "gan.pt")
    assert_equal(checkpoint, prefixed("generator.", a) | prefixed("discriminator.", b))
    assert (checkpoint.step, checkpoint.step_name) == (9, "iter")


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"global_step": 500, "epoch": 3}, (500, "global_step")),
        ({"epoch": 3}, (3, "epoch")),
        ({"step": torch.tensor(12), "epoch": 1}, (12, "step")),
        ({"iteration": np.int64(8)}, (8, "iteration")),
        ({"epoch": np.float32(2.0)}, (2, "epoch")),
        ({"epoch": 2.5}, (None, None)),
        ({"step": -1}, (None, None)),
        ({"step": 10**4000}, (None, None)),
        ({"step": True}, (None, None)),
        ({"step": "many"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_the_step(held: dict[str, Any], expected: tuple[int | None, str | None], tmp_path: Path) -> None:
    checkpoint = opened({"model": state(), **held}, tmp_path / "net.pt")
    assert (checkpoint.step, checkpoint.step_name) == expected


class Options:
    """What users leave among the arguments of a run."""

    def __init__(self) -> None:
        self.values = [1, 2]


class Mode(enum.Enum):
    """An option with names."""

    FAST = "fast"


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    """Objects outside of weights and optimizer become placeholders that know the name of their class alone."""
    held: dict[str, Any] = {
        "model": state(),
        "mode": Mode.FAST,
        "args": argparse.Namespace(lr=0.1, out=Path("/tmp/x")),
        "options": Options(),
        "best": np.float64(0.5),
        "history": np.arange(5),
        "random": np.random.get_state(),
        "names": {"a", "b"},
        "act": nn.ReLU,
    }
    checkpoint = opened(held, tmp_path / "net.pt")
    assert_equal(checkpoint, held["model"])
    assert checkpoint.others["best"] == "0.5"
    assert checkpoint.others["options"] == f"an object of {Options.__module__}.Options, not built"
    assert checkpoint.others["history"] == "an object of numpy.ndarray, not built"
    named = {line.partition(":")[0] for line in checkpoint.unread}
    assert named == {"args", "options", "history", "act", "mode"}


def test_a_weight_of_a_form_that_is_not_read(tmp_path: Path) -> None:
    held = {
        **state(),
        "sparse": torch.eye(3).to_sparse(),
        "extra": Options(),
        "z": torch.ones(2, dtype=torch.cfloat).conj(),
    }
    checkpoint = opened(held, tmp_path / "net.pt")
    assert_equal(checkpoint, state())
    assert checkpoint.unread == ("3 weights of a form that is not read: sparse, extra, z",)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({}, "an empty dict"),
        ([1, 2], "type list"),
        (None, "None"),
        ({"epoch": 3}, "keys epoch"),
        ({"model": {}, "optimizer": {"state": {}, "param_groups": []}}, "keys model, optimizer"),
        (Options(), "Options"),
        ({"model": nn.Linear(2, 2)}, "torch.nn.modules.linear.Linear"),
    ],
)
def test_no_weights(held: Any, expected: str, tmp_path: Path) -> None:
    save(held, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="expected a state_dict") as caught:
        open_checkpoint(tmp_path / "net.pt")
    assert expected in str(caught.value)


def test_an_optimizer_alone_is_no_model(tmp_path: Path) -> None:
    save(trained()[1].state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(CheckpointError, match="state of an optimizer and no weights"):
        open_checkpoint(tmp_path / "optimizer.pt")


def test_versions_of_modules_follow_their_names(tmp_path: Path) -> None:
    """BatchNorm's version tells whether a missing num_batches_tracked is an error."""
    network = nn.Sequential(nn.BatchNorm1d(3))
    held = nn.DataParallel(network).state_dict()
    checkpoint = opened(held, tmp_path / "net.pt")
    assert checkpoint.weights._metadata["0"] == {"version": 2}  # type: ignore[attr-defined]
    assert network.load_state_dict(checkpoint.weights)  # type: ignore[arg-type]


def test_a_real_module_named_module_stays() -> None:
    assert strip(["module.a", "module.b"]) == {"module.a": "a", "module.b": "b"}
    assert strip(["module.a", "head.b"]) == {"module.a": "module.a", "head.b": "head.b"}
    assert strip(["net._orig_mod.a", "net.a"]) == {"net._orig_mod.a": "net._orig_mod.a", "net.a": "net.a"}
    assert bare("module.module._orig_mod.a") == "a"


def test_tied_weights_and_size(tmp_path: Path) -> None:
    shared = torch.ones(10, 4)
    held = OrderedDict(first=shared, bias=torch.ones(4), second=shared, part=shared[2:])
    checkpoint = opened(held, tmp_path / "net.pt")
    assert checkpoint.weights.tied() == {"second": "first"}
    assert checkpoint.parameter_names() == ["first", "bias", "part"]
    assert checkpoint.weights.nbytes == 4 * (40 + 4 + 32)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    """NaN anywhere, inf in a weight or bias; a mask may hold -inf. All dtypes that can hold them."""
    held = state()
    held["4.bias"][2] = float("nan")
    held["0.weight"][0, 0, 0] = float("inf")
    held["mask"] = torch.full((3,), float("-inf"))
    held["half.weight"] = torch.full((2, 2), float("nan"), dtype=torch.bfloat16)
    held["small.weight"] = torch.full((2,), float("nan")).to(torch.float8_e4m3fn)
    held["turned"] = torch.full((2, 3), float("nan")).t()
    checkpoint = opened(held, tmp_path / "net.pt")
    expected = {"0.weight": 3, "4.bias": 1, "half.weight": 4, "small.weight": 2, "turned": 6}
    assert checkpoint.non_finite() == expected
    with pytest.raises(CheckpointError, match=r"5 of 13 tensors hold NaN or inf: 0.weight \(3\), 4.bias \(1\), half"):
        checkpoint.require_finite()
    clean = opened(state(), tmp_path / "clean.pt")
    assert clean.non_finite() == {}
    clean.require_finite()


def test_what_stands_beside_the_weights_of_a_bare_state_dict(tmp_path: Path) -> None:
    """`{**model.state_dict(), "opt": ..., "step": ...}`: the optimizer counts, and so does the step."""
    model = torch.nn.Linear(30, 20)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 30)).sum().backward()
    optimizer.step()
    torch.save({**model.state_dict(), "opt": optimizer.state_dict(), "step": 7}, tmp_path / "w.pt")
    found = open_checkpoint(tmp_path / "w.pt")
    assert (found.step, found.step_name, list(found.weights)) == (7, "step", ["weight", "bias"])
    assert found.optimizer is not None
    assert str(found.optimizer.guess).startswith("Adam")
