"""Folders: what save_pretrained and the Trainer of transformers write, and accelerate: weights, config, optimizer."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from .json_text import parse_object
from .layout import find_step, lay_out
from .names import Opaque
from .optimizer import OptimizerState, find_optimizers
from .refusals import Unreadable, refusing
from .regions import Region
from .safetensors import read_safetensors
from .stored import StoredTensor
from .torch_files import read_torch

WEIGHTS = tuple(
    f"{stem}{suffix}"
    for stem in ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
    for suffix in (".safetensors.index.json", ".safetensors", ".bin.index.json", ".bin")
)
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
_LONGEST_NAME = 255
_LARGEST_JSON = 256 << 20
_SAVED_BY = "model.save_pretrained(folder)"

Tensors = dict[str, StoredTensor | Opaque]


class Folder:
    """The files of one folder; every name that leads out of it is refused.

    Attributes:
        weights: by name. ordered: in the model's own order.
        optimizers: those of `optimizer.pt`, or accelerate's `optimizer.bin`.
        config, step, step_name: of `config.json` and `trainer_state.json`.
        unread: the files that were left alone, one sentence each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unread: list[str] = []
        names = _listed(path)
        found = next((name for name in WEIGHTS if name in names), None)
        if found is None:
            _refuse_others(path, names)
            raise Unreadable(_no_weights(names))
        self.weights, self.ordered, used = self._read_weights(found)
        self.optimizers: list[OptimizerState] = []
        for name in sorted(n for n in names if n in _OPTIMIZERS or (n.startswith("optimizer_") and n.endswith(".bin"))):
            with refusing(path / name, "torch.save(optimizer.state_dict(), path)"):
                self.optimizers += find_optimizers(read_torch(self._region(name)), name)
            used.add(name)
        self.config = self._read_json("config.json") if "config.json" in names else None
        state = self._read_json("trainer_state.json") if "trainer_state.json" in names else {}
        self.step, self.step_name = find_step(state)
        if found.startswith("adapter_"):
            self.unread.append("the model that these adapter weights belong to is elsewhere")
        left = sorted(names - used - {"config.json", "trainer_state.json"})
        self.unread += [f"{name}: left alone" for name in left[:100]]

    def _read_weights(self, name: str) -> tuple[Tensors, bool, set[str]]:
        if not name.endswith(".index.json"):
            return *self._read_file(name), {name}
        table = self._read_json(name).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise Unreadable(f"{name} holds no weight_map; copy or save the folder again")
        shards: dict[str, list[str]] = {}
        for weight, shard in table.items():
            if not isinstance(shard, str):
                raise Unreadable(f"{name} gives no file for {weight[:80]!r}; copy or save the folder again")
            if len(shard) > _LONGEST_NAME:
                raise Unreadable(f"it names the file {shard[:80]!r}..., longer than any file system has; copy it again")
            shards.setdefault(shard, []).append(weight)
        weights: Tensors = {}
        ordered = True
        for shard, wanted in shards.items():
            held, in_order = self._read_file(shard)
            ordered = ordered and in_order
            lacking = next((weight for weight in wanted if weight not in held), None)
            if lacking is not None:
                raise Unreadable(f"{shard[:80]} lacks the weight {lacking[:80]!r} that {name} promises; copy it again")
            weights.update((weight, held[weight]) for weight in held if table.get(weight) == shard)
        return weights, ordered and len(shards) == 1, {name, *shards}

    def _read_file(self, name: str) -> tuple[Tensors, bool]:
        """Return the weights in one file, and whether they stand in the order of the model."""
        with refusing(self._inside(name), _SAVED_BY):
            region = self._region(name)
            if name.endswith(".safetensors"):
                return read_safetensors(region)[0], False
            layout = lay_out(read_torch(region, _SAVED_BY))
            self.unread += layout.unread
            return dict(layout.weights), True

    def _read_json(self, name: str) -> dict[str, Any]:
        with refusing(self._inside(name), _SAVED_BY):
            region = self._region(name)
            if region.length > _LARGEST_JSON:
                raise Unreadable(f"it is {region.length >> 20} MiB of JSON, which no checkpoint needs")
            return parse_object(region.read(), "it")

    def _region(self, name: str) -> Region:
        return Region.whole(self._inside(name))

    def _inside(self, name: str) -> Path:
        """Return the path of a file of this folder, or of the cache that the folder is a snapshot of."""
        if name in ("", "..") or name != PurePosixPath(name).name or "\\" in name or "\0" in name or ":" in name:
            raise Unreadable(f"it names the file {name[:80]!r}, which is outside of the folder; that is refused")
        path = self.path / name
        home = self.path.resolve()
        target = path.resolve()
        if home in target.parents:
            return path
        # The download cache of the hub: <model>/snapshots/<revision>/<file> -> <model>/blobs/<hash>
        if home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs":
            return path
        raise Unreadable(
            f"{name[:80]} is a link that leads out of the folder; that is refused: put the file itself there"
        )


def _listed(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if not entry.is_dir()}


def _refuse_others(path: Path, names: set[str]) -> None:
    if ".metadata" in names:
        raise Unreadable(
            "it is a folder of torch.distributed.checkpoint, which unpickles its metadata and is not read; if you "
            "trust it, convert it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pt"
        )
    parts = [entry for entry in (path, path / "checkpoint") if any(entry.glob("*_model_states.pt"))]
    if "zero_to_fp32.py" in names or parts:
        raise Unreadable(
            "it is a folder of DeepSpeed, whose weights are split over ranks; if you trust it, convert it: "
            "python zero_to_fp32.py FOLDER weights"
        )


def _no_weights(names: set[str]) -> str:
    foreign = next((name for name in sorted(names) if name.endswith((".h5", ".msgpack", ".onnx", ".gguf"))), None)
    if foreign is not None:
        return (
            f"it is a folder with the weights of another framework ({foreign[:80]}); convert them: "
            "AutoModel.from_pretrained(folder, ...).save_pretrained(new)"
        )
    return f"it is a folder without weights; expected a Hugging Face folder with {', '.join(WEIGHTS[:4])} or the like"
