"""Opening: which format a path has, told by its bytes, and the Checkpoint or the plain tensors in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .archive import SIGNATURE, Archive
from .contents import Checkpoint
from .folder import Folder
from .layout import lay_out
from .names import Global, Opaque
from .prefixes import bare, strip
from .pt2 import is_pt2, read_pt2
from .refusals import STATE_DICT, Unreadable, refusing
from .regions import Region
from .safetensors import looks_like_safetensors, read_safetensors
from .stored import StoredTensor
from .tensors import Weights, loaded
from .torch_files import read_torch

_SAVED_BY = {
    ".safetensors": "safetensors.torch.save_file(model.state_dict(), path)",
    ".pt2": "torch.export.save(program, path)",
}
_OVERLAPPING = 8
_ROOM = 1 << 30
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".pt2")


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Return what the checkpoint at `path` holds; no code of it runs, and its tensors are read when asked for.

    Raises:
        CheckpointError: it is missing, damaged, of a kind that only code could bring back, or names code; one line.
    """
    path = Path(path)
    with refusing(path, _SAVED_BY.get(path.suffix.lower(), STATE_DICT)):
        if path.is_dir():
            return _open_folder(path)
        region = Region.whole(path)
        if path.suffix.lower() == ".safetensors" or looks_like_safetensors(region):
            return _open_safetensors(path, region)
        archive = _archive(region)
        if archive is not None and is_pt2(archive):
            return _open_pt2(path, archive)
        return _open_torch(path, region)


def read_saved(path: str | Path, saved_by: str = STATE_DICT) -> Any:
    """Return the tensors of a data file (torch.save, or safetensors: a dict by name), in their containers, all read.

    `saved_by` is how messages say that it should have been written.

    Raises:
        CheckpointError: see `open_checkpoint`; or it holds an object that is not built here.
    """
    path = Path(path)
    with refusing(path, saved_by):
        if path.is_dir():
            raise Unreadable(f"it is a folder; expected a file of {saved_by}")
        region = Region.whole(path)
        if path.suffix.lower() == ".safetensors":
            return loaded(read_safetensors(region)[0], _refuse_placeholder(saved_by))
        return loaded(read_torch(region, saved_by), _refuse_placeholder(saved_by))


def _refuse_placeholder(saved_by: str) -> Any:
    def refuse(held: object) -> None:
        if isinstance(held, (Opaque, Global)):
            name = held.name if isinstance(held, Opaque) else held.path
            if "sparse" in name or "rebuild_" in name:
                raise Unreadable(
                    f"it holds a sparse, quantized or otherwise special tensor ({name[:120]}); "
                    "save it as a plain dense one"
                )
            raise Unreadable(
                f"refused, because it names {name[:200]!r}: building that could run code; nothing of it was run. "
                f"Save tensors alone: {saved_by}"
            )

    return refuse


def _archive(region: Region) -> Archive | None:
    starts = region.length >= len(SIGNATURE) and region.read(0, len(SIGNATURE)) == SIGNATURE
    return Archive(region) if starts else None


def _open_torch(path: Path, region: Region) -> Checkpoint:
    layout = lay_out(read_torch(region))
    return Checkpoint(
        path=path,
        format=layout.kind,
        weights=_weights(layout.weights, ordered=True, versions=layout.versions),
        models=layout.models,
        optimizers=tuple(layout.optimizers),
        step=layout.step,
        step_name=layout.step_name,
        others=layout.others,
        unread=(*layout.unread, *(f"{o.name}: {', '.join(o.unread[:9])}" for o in layout.optimizers if o.unread)),
    )


def _open_safetensors(path: Path, region: Region) -> Checkpoint:
    held, metadata = read_safetensors(region)
    tensors, unread = _split(held)
    return Checkpoint(
        path=path,
        format="safetensors",
        weights=_weights(tensors, ordered=False),
        others={key[:200]: repr(value[:60]) for key, value in metadata.items()},
        unread=unread,
    )


def _open_pt2(path: Path, archive: Archive) -> Checkpoint:
    tensors, unread = _split(read_pt2(archive))
    graph = "the program itself (graph, constants, sample inputs): never looked at, its weights alone"
    return Checkpoint(path=path, format="pt2", weights=_weights(tensors, ordered=True), unread=(graph, *unread))


def _open_folder(path: Path) -> Checkpoint:
    folder = Folder(path)
    tensors, unread = _split(folder.weights)
    return Checkpoint(
        path=path,
        format="Hugging Face",
        weights=_weights(tensors, ordered=folder.ordered),
        optimizers=tuple(folder.optimizers),
        step=folder.step,
        step_name=folder.step_name,
        config=folder.config,
        unread=(*unread, *folder.unread),
    )


def _split(held: Mapping[str, StoredTensor | Opaque]) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    tensors = {name: value for name, value in held.items() if isinstance(value, StoredTensor)}
    unread = tuple(f"{name[:120]}: {value.name}" for name, value in held.items() if isinstance(value, Opaque))
    return tensors, unread


def _weights(tensors: Mapping[str, StoredTensor], *, ordered: bool, versions: Any = None) -> Weights:
    if not tensors:
        raise Unreadable("it holds no weights that can be read; expected a state_dict (names to tensors)")
    _check_overlap(tensors)
    renamed = strip(tensors)
    if isinstance(versions, dict) and any(name != renamed[name] for name in renamed):
        paths = (path for path in versions if isinstance(path, str))
        versions = {bare(f"{path}.").rstrip("."): versions[path] for path in paths}
    return Weights({renamed[name]: tensor for name, tensor in tensors.items()}, ordered=ordered, versions=versions)


def _check_overlap(tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse weights that are far more numbers than the bytes that there are: reading them all would have no end."""
    stored = sum({id(tensor.storage): tensor.storage.nbytes for tensor in tensors.values()}.values())
    described = sum({tensor.place: tensor.numel * tensor.dtype.itemsize for tensor in tensors.values()}.values())
    if described > _OVERLAPPING * stored + _ROOM:
        raise Unreadable(
            f"its weights describe {described:,} bytes and lie in {stored:,}: they overlap without end, which no "
            "program writes; save the weights again"
        )
