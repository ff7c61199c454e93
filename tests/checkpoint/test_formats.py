"""Every format, written by the library that owns it and read back bit for bit."""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deadrelu.checkpoint import open_checkpoint, read_saved
from deadrelu.checkpoint.names import DTYPES
from deadrelu.errors import CheckpointError

from .writers import assert_equal, model, opened, save, trained


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def values(dtype: torch.dtype) -> torch.Tensor:
    """Return (5, 7) numbers of any dtype, made from bytes that are valid in all of them."""
    raw = torch.arange(5 * 7 * dtype.itemsize, dtype=torch.int64).remainder(2 if dtype is torch.bool else 60)
    return raw.to(torch.uint8).view(dtype).view(5, 7)


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy())


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype is b.dtype and a.shape == b.shape and raw(a) == raw(b)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_state_dict(zipped: bool, protocol: int) -> None:
    """Every pickle protocol that torch.save takes, both containers; the order of the file is that of the model."""
    state = model().state_dict()
    checkpoint = opened(state, Path("net.pt"), zipped=zipped, pickle_protocol=protocol)
    assert checkpoint.format == "state_dict"
    assert_equal(checkpoint, state)
    assert list(checkpoint.weights) == list(state)
    assert checkpoint.weights.ordered
    assert checkpoint.weights._metadata == state._metadata  # type: ignore[attr-defined]
    assert (checkpoint.optimizers, checkpoint.step, checkpoint.unread) == ((), None, ())


@pytest.mark.parametrize("zipped", [True, False])
def test_every_dtype_and_stride(zipped: bool) -> None:
    """Ground truth: the bytes of the tensors that were saved. Views of one storage, transposed, sliced, expanded,
    with an offset, empty, and scalars."""
    base = torch.arange(24.0)
    state: dict[str, Any] = {
        "transposed": base.view(4, 6).t(),
        "sliced": base.view(4, 6)[1:3, ::2],
        "scalar": base[7],
        "expanded": base[3:4].expand(5, 1).unsqueeze(-1),
        "empty": torch.empty(0, 3),
        "parameter": nn.Parameter(torch.ones(3)),
        "empty parameter": nn.Parameter(torch.empty(0)),
    }
    names = (
        DTYPES if zipped else {n: d for n, d in DTYPES.items() if not n.startswith(("float8", "uint")) or n == "uint8"}
    )
    state |= {f"of {name}": values(dtype) for name, dtype in names.items()}
    checkpoint = opened(state, Path("net.pt"), zipped=zipped)
    for name, tensor in state.items():
        assert same(checkpoint.weights[name], tensor.detach()), name
        assert checkpoint.weights.shape(name) == tuple(tensor.shape)
        assert checkpoint.weights.dtype(name) is tensor.dtype
    assert set(checkpoint.weights) == set(state)


def test_a_large_tensor_is_mapped_and_never_written_through() -> None:
    tensor = torch.arange(1_000_000, dtype=torch.float32)
    path = save({"w": tensor, "v": tensor[3:]}, "net.pt")
    before = path.read_bytes()
    checkpoint = open_checkpoint(path)
    assert torch.equal(checkpoint.weights["v"], tensor[3:])
    checkpoint.weights["w"].zero_()
    assert torch.equal(checkpoint.weights["w"], tensor)
    assert path.read_bytes() == before


def test_a_file_of_another_byte_order() -> None:
    """The other byte order is written by turning the bytes of every element around, and saying so."""
    state = {"w": torch.randn(5, 3), "z": torch.randn(4, dtype=torch.complex128), "b": torch.tensor([True, False])}
    save({name: _turned(tensor) for name, tensor in state.items()}, "net.pt")
    with zipfile.ZipFile("net.pt") as old, zipfile.ZipFile("big.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("/byteorder") else old.read(name))
    checkpoint = open_checkpoint("big.pt")
    for name, tensor in state.items():
        assert torch.equal(checkpoint.weights[name], tensor), name


def _turned(tensor: torch.Tensor) -> torch.Tensor:
    width = tensor.dtype.itemsize // (2 if tensor.is_complex() else 1)
    return tensor.view(torch.uint8).view(-1, width).flip(1).reshape(-1).view(tensor.dtype).view(tensor.shape)


def test_a_training_dictionary() -> None:
    network, optimizer = trained()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    held = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 7,
        "loss": torch.tensor(0.25),
        "rng": torch.get_rng_state(),
        "args": {"lr": 0.01, "name": "a run"},
    }
    checkpoint = opened(held, Path("last.pth"))
    assert checkpoint.format == "training dictionary"
    assert_equal(checkpoint, network.state_dict())
    assert (checkpoint.step, checkpoint.step_name) == (7, "epoch")
    assert set(checkpoint.others) == {"scheduler", "epoch", "loss", "rng", "args"}
    assert checkpoint.optimizer is not None
    saved = optimizer.state_dict()
    assert checkpoint.optimizer.groups == saved["param_groups"]
    assert list(checkpoint.optimizer.state) == list(saved["state"])
    for key, kept in saved["state"].items():
        read = checkpoint.optimizer.state[key]
        assert list(read) == list(kept)
        assert all(torch.equal(read[name], kept[name]) for name in kept)


def test_lightning(tmp_path: Path) -> None:
    """Source: Trainer.save_checkpoint, with a module that keeps hyper-parameters of every kind, and callbacks."""
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, width: int, place: Path, act: Any, inner: nn.Module, options: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = model()

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.net(batch[0]).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)
            return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 20)]

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(12, 3, 6, 6)), batch_size=4)
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", monitor="loss", save_on_train_epoch_end=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"values": [1, 2.5, None, {"a": (1, "x")}], "of": Custom()}
        module = Module(3, Path("/data"), nn.GELU, nn.Linear(2, 2), options)
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            callbacks=[keep, EarlyStopping("loss", check_on_train_epoch_end=True)],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
        trainer.save_checkpoint("last.ckpt")
    checkpoint = open_checkpoint("last.ckpt")
    assert checkpoint.format == "Lightning"
    assert_equal(checkpoint, module.state_dict())
    assert (checkpoint.step, checkpoint.step_name) == (6, "global_step")
    assert {"callbacks", "hyper_parameters", "loops", "lr_schedulers"} <= set(checkpoint.others)
    assert checkpoint.optimizer is not None
    assert (checkpoint.optimizer.guess, checkpoint.optimizer.name) == ("SGD", "optimizer_states[0]")
    states = checkpoint.parameter_states()
    assert states is not None
    live = trainer.optimizers[0].state
    for name, parameter in module.named_parameters():
        assert torch.equal(states.states[name]["momentum_buffer"], live[parameter]["momentum_buffer"])
    assert Custom.built == 1  # by this test, and by nothing that read the file


class Custom:
    """A class among hyper-parameters."""

    built = 0

    def __init__(self) -> None:
        Custom.built += 1

    def __setstate__(self, state: Any) -> None:
        Custom.built += 1


def test_safetensors() -> None:
    """Source: the safetensors package, every dtype that it writes; our own reader needs no package."""
    torch_files = pytest.importorskip("safetensors.torch")
    state = {f"layer.{name}": values(d) for name, d in DTYPES.items() if name not in ("complex32", "complex128")}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.empty(3, 0), "odd": torch.arange(3, dtype=torch.uint8)}
    torch_files.save_file(state, "net.safetensors", metadata={"format": "pt", "step": "7"})
    checkpoint = open_checkpoint("net.safetensors")
    assert checkpoint.format == "safetensors"
    assert set(checkpoint.weights) == set(state)
    for name, tensor in torch_files.load_file("net.safetensors").items():
        assert same(checkpoint.weights[name], tensor)
        assert same(checkpoint.weights[name], state[name])
    assert not checkpoint.weights.ordered
    assert checkpoint.others == {"format": "'pt'", "step": "'7'"}
    Path("net.safetensors").rename("net.weights")
    assert set(open_checkpoint("net.weights").weights) == set(state)


def test_the_safetensors_package_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_files = pytest.importorskip("safetensors.torch")
    torch_files.save_file({"w": torch.ones(3)}, "net.safetensors")
    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert torch.equal(open_checkpoint("net.safetensors").weights["w"], torch.ones(3))


def test_pt2() -> None:
    """Source: torch.export.save. Two names of one tensor, a transposed one, an empty one; the graph stays shut."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model().eval()
            self.again = self.body[4]
            self.turned = nn.Parameter(torch.randn(3, 5).t())
            self.register_buffer("none", torch.empty(0, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) + self.again(self.body[:4](x)) + self.turned.sum() + self.none.sum()

    network = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (torch.randn(2, 3, 6, 6),))
        torch.export.save(program, "net.pt2")
    checkpoint = open_checkpoint("net.pt2")
    assert checkpoint.format == "pt2"
    state = dict(program.state_dict)
    assert len(state) >= 9
    assert_equal(checkpoint, state)
    assert any("graph" in line for line in checkpoint.unread)
    assert checkpoint.weights["turned"].stride() == (1, 5)


def test_an_older_pt2() -> None:
    """Torch before 2.8 put a file of torch.save into a plain zip archive."""
    state = model().state_dict()
    inner = io.BytesIO()
    torch.save(dict(state), inner)
    with zipfile.ZipFile("old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", inner.getvalue())
        archive.writestr("version", "8.8")
    assert_equal(open_checkpoint("old.pt2"), state)


def test_kinds_that_only_code_could_bring_back() -> None:
    """Each is refused in one line that says how to convert it, and each conversion gives a file that is read."""
    network = model()
    refusals = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed import checkpoint as dcp
        from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

        torch.jit.script(network).save("script.pt")
        dcp.save({"model": network.state_dict()}, checkpoint_id="dcp")
        save(network, "module.pt")
        save(network, "old_module.pt", zipped=False)
        save({"model": network, "epoch": 3}, "yolo.pt")
        for path in ("script.pt", "dcp", "module.pt", "old_module.pt", "yolo.pt"):
            with pytest.raises(CheckpointError) as caught:
                open_checkpoint(path)
            refusals[path] = str(caught.value)
            assert "\n" not in refusals[path]
            assert "convert it" in refusals[path]
        for path, expected in (("script.pt", "TorchScript"), ("dcp", "dcp_to_torch"), ("yolo.pt", "Sequential")):
            assert expected in refusals[path]
        for path in ("module.pt", "old_module.pt"):
            line = refusals[path].partition("convert it: ")[2]
            exec(line, {"torch": torch, "path": path})
            assert_equal(open_checkpoint("weights.pt"), network.state_dict())
        exec(refusals["script.pt"].partition("convert it: ")[2], {"torch": torch, "path": "script.pt"})
        assert_equal(open_checkpoint("weights.pt"), network.state_dict())
        dcp_to_torch_save("dcp", "weights.pt")
        assert_equal(open_checkpoint("weights.pt"), network.state_dict())


def test_data_files() -> None:
    """`read_saved` gives back the containers of the file with their tensors read."""
    x, y = torch.randn(4, 3), torch.arange(4)
    held = {"x": x, "more": [y, (x, 3.5, None)]}
    read = read_saved(save(held, "data.pt"))
    assert torch.equal(read["x"], x)
    assert torch.equal(read["more"][0], y)
    assert isinstance(read["more"][1], tuple)
    assert read["more"][1][1:] == (3.5, None)
    assert torch.equal(read_saved(save(x, "data.pt", zipped=False)), x)
