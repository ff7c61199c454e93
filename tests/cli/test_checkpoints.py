"""`deadrelu audit TARGET --model F --data SPEC` for every format of TARGET, and for targets that cannot be audited."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deadrelu.checkpoint import load_state
from deadrelu.errors import CheckpointError

from .shop import DEAD, deadrelu, refused, rows

pytestmark = pytest.mark.usefixtures("workplace")


def network() -> nn.Sequential:
    """Return the network of `shop:blank` with its units 1 and 5 dead by their bias."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model.load_state_dict(torch.load("net.pt", weights_only=True))
    return model


def state(prefix: str = "") -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in network().state_dict().items()}


def trained() -> dict[str, Any]:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
    model(rows()).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 4}


def safetensors(path: str) -> None:
    pytest.importorskip("safetensors.torch").save_file(state(), path)


def folder(path: str, prefix: str = "") -> None:
    """Two shards and their index, as transformers writes them."""
    Path(path).mkdir()
    held = state(prefix)
    table = {}
    for index, names in enumerate((list(held)[:2], list(held)[2:])):
        torch.save({name: held[name] for name in names}, f"{path}/shard{index}.bin")
        table |= dict.fromkeys(names, f"shard{index}.bin")
    Path(f"{path}/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    Path(f"{path}/config.json").write_text("{}")


def exported(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network(), (rows(),)), path)


def lightning(path: str) -> None:
    held = {"pytorch-lightning_version": "2.6.0", "global_step": 3, "callbacks": {}, "loops": {}}
    torch.save({**held, "state_dict": state("net."), "hyper_parameters": {"place": Path("x")}}, path)


FORMATS: dict[str, Callable[[str], None]] = {
    "net.pth": lambda path: torch.save(state(), path),
    "old.bin": lambda path: torch.save(state(), path, _use_new_zipfile_serialization=False),
    "last.pt": lambda path: torch.save(trained(), path),
    "last.pth.tar": lambda path: torch.save(trained(), path),
    "last.ckpt": lightning,
    "net.safetensors": safetensors,
    "folder": folder,
    "program.pt2": exported,
}


@pytest.mark.parametrize("path", FORMATS)
def test_every_format(path: str) -> None:
    """Ground truth: the biases of units 1 and 5 in the file are -1000; the factory alone has none dead."""
    FORMATS[path](path)
    result = deadrelu("audit", path, "--model", "shop:blank", "--data", "x.npy", "--exhaustive", "--json", "-")
    assert result.exit_code == 0, result.stderr
    (site,) = json.loads(result.stdout)["sites"]
    assert site["dead"] == DEAD
    assert result.stderr == ""


def test_what_was_left_out_is_said() -> None:
    """A LightningModule holds the model beside its loss and metrics."""
    torch.save({"state_dict": {**state("net."), "loss.weight": torch.ones(3)}}, "last.ckpt")
    result = deadrelu("audit", "last.ckpt", "--model", "shop:blank", "--data", "x.npy")
    assert result.exit_code == 0
    assert "what the file calls 'net'; 1 other tensors there were left out" in result.stderr


def test_a_prefix_that_only_the_model_has() -> None:
    """`shop:Net` has the network under `body.`; the file has it bare."""
    result = deadrelu("audit", "net.pt", "--model", "shop:Net", "--data", "x.npy", "--exhaustive", "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["sites"][0]["dead"] == DEAD


def test_two_models_in_one_file_are_not_guessed_between() -> None:
    torch.save({"state_dict": {**state("student."), **state("teacher.")}}, "bad.ckpt")
    line = refused("audit", "bad.ckpt", "--model", "shop:blank", "--data", "x.npy")
    assert "4 missing in the file: 0.weight" in line


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight


def test_a_tied_weight_may_be_there_once() -> None:
    """Safetensors cannot hold one tensor under two names, so that save_pretrained drops the second."""
    model = Tied()
    assert load_state(model, {"first.weight": torch.ones(3, 3)}, Path("x.pt")) is None
    assert model.second.weight.sum() == 9
    with pytest.raises(CheckpointError, match=r"missing in the file: first\.weight, second\.weight"):
        load_state(model, {}, Path("x.pt"))


def test_versions_follow_a_prefix() -> None:
    """BatchNorm's version in the file tells whether a missing num_batches_tracked is an error."""
    held = nn.ModuleDict({"net": nn.Sequential(nn.BatchNorm1d(3))}).state_dict()
    del held["net.0.num_batches_tracked"]
    with pytest.raises(CheckpointError, match=r"1 missing in the file: 0\.num_batches_tracked"):
        load_state(nn.Sequential(nn.BatchNorm1d(3)), held, Path("x.pt"))
    held._metadata["net.0"]["version"] = 1
    assert load_state(nn.Sequential(nn.BatchNorm1d(3)), held, Path("x.pt")) is None


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_numbers_of_another_kind(dtype: torch.dtype) -> None:
    """Quantized or foreign numbers copied into floating weights would be another network."""
    held = state()
    held["0.weight"] = held["0.weight"].to(dtype)
    torch.save(held, "bad.pt")
    line = refused("audit", "bad.pt", "--model", "shop:blank", "--data", "x.npy")
    assert f"0.weight is {str(dtype).removeprefix('torch.')} in the file and float32 in the model" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("path", ["bad.pt", "bad.safetensors", "bad"])
def test_weights_that_are_not_finite(path: str, value: float) -> None:
    """A network of NaN fires nowhere, and every unit of it would be called dead."""
    held = state()
    held["2.bias"][1] = value
    if path == "bad.safetensors":
        pytest.importorskip("safetensors.torch").save_file(held, path)
    else:
        Path("bad").mkdir(exist_ok=True)
        torch.save(held, path if path == "bad.pt" else "bad/pytorch_model.bin")
    line = refused("audit", path, "--model", "shop:blank", "--data", "x.npy")
    assert "1 of 4 tensors hold NaN or inf: 2.bias (1)" in line


@pytest.mark.parametrize("path", ["bad.pt", "bad.pth.tar", "bad.bin", "bad.ckpt", "bad.safetensors", "bad.pt2", "bad"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02cposix\nsystem\n(X\x01\0\0\0atR.", b"noise" * 99])
def test_bad_files_of_every_name(path: str, content: bytes, workplace: Path) -> None:
    """Exit status 2, one line, nothing left behind."""
    Path(path).write_bytes(content)
    before = sorted(workplace.rglob("*"))
    assert path in refused("audit", path, "--model", "shop:blank", "--data", "x.npy")
    assert [p for p in sorted(workplace.rglob("*")) if "__pycache__" not in p.parts] == before


def test_an_entry_of_an_exported_program_that_is_code() -> None:
    """The file of one weight, or before torch 2.8 that of all of them."""
    exported("program.pt2")
    inner = io.BytesIO()
    torch.save({"w": print}, inner)
    with zipfile.ZipFile("program.pt2") as old, zipfile.ZipFile("bad.pt2", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            new.writestr(name, inner.getvalue() if name.endswith(("weight_0", "_state_dict.pt")) else content)
    line = refused("audit", "bad.pt2", "--model", "shop:blank", "--data", "x.npy")
    assert "'builtins.print'" in line
