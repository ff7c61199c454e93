"""Folders made to lead astray: shards and links that lead out of them, indices that lie, code in any file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from deadrelu.checkpoint import open_checkpoint
from deadrelu.errors import CheckpointError

from .crafted import SYSTEM, pickle, refusal, write_zip
from .writers import save


def index(path: Path, table: Any) -> None:
    path.mkdir(exist_ok=True)
    save({"w": torch.ones(2)}, path / "shard.bin")
    (path / "pytorch_model.bin.index.json").write_text(table if isinstance(table, str) else json.dumps(table))


@pytest.mark.parametrize(
    ("shard", "expected"),
    [
        ("/etc/passwd", "outside"),
        ("../shard.bin", "outside"),
        ("sub/shard.bin", "outside"),
        ("sub\\shard.bin", "outside"),
        ("..", "outside"),
        (".", "outside"),
        ("", "outside"),
        ("C:shard.bin", "outside"),
        ("shard.bin\0.bin", "outside"),
        ("missing.bin", "no such file"),
        ("x" * 5000, "longer than any file system"),
        (7, "no file"),
        (None, "no file"),
    ],
)
def test_shards_stay_in_their_folder(shard: Any, expected: str, tmp_path: Path) -> None:
    save({"w": torch.ones(2)}, tmp_path / "shard.bin")
    index(tmp_path / "run", {"weight_map": {"w": shard}})
    assert expected in refusal(tmp_path / "run")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    """A link inside of the folder is fine; the target of one that leads out is never opened."""
    save({"w": torch.ones(2)}, tmp_path / "outside.bin")
    index(tmp_path / "run", {"weight_map": {"w": "link.bin"}})
    os.symlink("../outside.bin", tmp_path / "run/link.bin")
    assert "leads out of the folder" in refusal(tmp_path / "run")
    (tmp_path / "run/link.bin").unlink()
    os.symlink("shard.bin", tmp_path / "run/link.bin")
    assert open_checkpoint(tmp_path / "run").weights["w"].tolist() == [1, 1]
    (tmp_path / "run/link.bin").unlink()
    os.symlink("link.bin", tmp_path / "run/link.bin")
    refusal(tmp_path / "run")
    for other in ("config.json", "optimizer.pt", "trainer_state.json"):
        index(tmp_path / other, {"weight_map": {"w": "shard.bin"}})
        os.symlink("../outside.bin", tmp_path / other / other)
        assert "leads out of the folder" in refusal(tmp_path / other)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"weight_map": {"w": "shard.bin", "v": "shard.bin"}}, "lacks the weight 'v'"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({}, "no weight_map"),
        ("[]", "JSON object"),
        ("{", "JSON"),
        ('{"weight_map": {"w": "shard.bin", "w": "shard.bin"}}', "twice"),
        ('{"weight_map": ' + "{" * 100_000, "JSON"),
    ],
)
def test_indices_that_lie(table: Any, expected: str, tmp_path: Path) -> None:
    index(tmp_path / "run", table)
    assert expected in refusal(tmp_path / "run")


@pytest.mark.parametrize("file", ["shard.bin", "optimizer.pt", "config.json", "trainer_state.json"])
def test_every_file_of_a_folder_is_checked(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index(tmp_path / "run", {"weight_map": {"w": "shard.bin"}})
    (tmp_path / "run" / file).write_bytes(pickle(SYSTEM))
    with pytest.raises(CheckpointError, match=file):
        open_checkpoint(tmp_path / "run")
    if not file.endswith(".json"):
        write_zip(SYSTEM, tmp_path / "run" / file)
        with pytest.raises(CheckpointError, match="nothing of it was run"):
            open_checkpoint(tmp_path / "run")
    assert not Path("ran").exists()


def test_folders_of_other_kinds(tmp_path: Path) -> None:
    tmp_path = tmp_path / "alone"  # beside it, other tests come and go
    tmp_path.mkdir()
    assert "without weights" in refusal(tmp_path)
    (tmp_path / "tf_model.h5").write_bytes(b"x")
    assert "another framework" in refusal(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/mp_rank_00_model_states.pt").write_bytes(b"x")
    assert "zero_to_fp32.py" in refusal(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle(SYSTEM))
    assert "dcp_to_torch" in refusal(tmp_path)
    save({"w": torch.ones(2)}, tmp_path / "adapter_model.bin")  # with weights beside them, they are merely left alone
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.weights["w"].tolist() == [1, 1]
    assert "the model that these adapter weights belong to is elsewhere" in checkpoint.unread
