"""Hugging Face folders, whole and in shards, with the optimizer and the state of a trainer beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from versions import told

from deadrelu.checkpoint import open_checkpoint

from .writers import assert_equal, save, trained


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tiny() -> Any:
    """Return a tiny GPT-2: tied embeddings, biases, LayerNorm."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=40, n_positions=8)
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_a_hugging_face_folder(shard: str) -> None:
    """Source: transformers' save_pretrained, whole and in shards. A tied weight is saved once."""
    network = tiny()
    network.save_pretrained("folder", max_shard_size=shard)
    assert (len(list(Path("folder").glob("*.safetensors"))) > 1) == (shard == "20KB")
    checkpoint = open_checkpoint("folder")
    assert checkpoint.format == "Hugging Face"
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "lm_head.weight"}
    assert_equal(checkpoint, state)
    assert checkpoint.config == json.loads(Path("folder/config.json").read_text())
    assert checkpoint.config["architectures"] == ["GPT2LMHeadModel"]


def test_a_folder_of_bin_shards_with_a_trainer() -> None:
    """Older transformers wrote `.bin` shards; the Trainer puts optimizer.pt and trainer_state.json beside them."""
    network, optimizer = trained()
    state = network.state_dict()
    names = list(state)
    Path("run").mkdir()
    table = {}
    for index, part in enumerate((names[:3], names[3:])):
        shard = f"pytorch_model-0000{index + 1}-of-00002.bin"
        save({name: state[name] for name in part}, f"run/{shard}")
        table |= dict.fromkeys(part, shard)
    index_text = {"metadata": {"total_size": 1}, "weight_map": table}
    Path("run/pytorch_model.bin.index.json").write_text(json.dumps(index_text))
    Path("run/config.json").write_text('{"hidden_act": "relu"}')
    Path("run/trainer_state.json").write_text('{"epoch": 2.5, "global_step": 300, "log_history": [{"loss": 1.0}]}')
    save(optimizer.state_dict(), "run/optimizer.pt")
    Path("run/training_args.bin").write_bytes(b"never opened")
    Path("run/scheduler.pt").write_bytes(b"never opened")
    checkpoint = open_checkpoint("run")
    assert_equal(checkpoint, state)
    assert (checkpoint.step, checkpoint.step_name) == (300, "global_step")
    assert checkpoint.config == {"hidden_act": "relu"}
    assert checkpoint.optimizer is not None
    assert (checkpoint.optimizer.guess, checkpoint.optimizer.name) == (told("AdamW"), "optimizer.pt")
    assert checkpoint.unread == ("scheduler.pt: left alone", "training_args.bin: left alone")
    states = checkpoint.parameter_states(parameters=[name for name, _ in network.named_parameters()])
    assert states is not None
    for name, parameter in network.named_parameters():
        assert torch.equal(states.states[name]["exp_avg"], optimizer.state[parameter]["exp_avg"])


def test_a_snapshot_in_the_download_cache() -> None:
    """The hub's cache holds links: <model>/snapshots/<revision>/<file> -> <model>/blobs/<hash>."""
    torch_files = pytest.importorskip("safetensors.torch")
    Path("cache/blobs").mkdir(parents=True)
    Path("cache/snapshots/abc").mkdir(parents=True)
    torch_files.save_file({"w": torch.ones(3)}, "cache/blobs/123")
    os.symlink("../../blobs/123", "cache/snapshots/abc/model.safetensors")
    assert torch.equal(open_checkpoint("cache/snapshots/abc").weights["w"], torch.ones(3))
