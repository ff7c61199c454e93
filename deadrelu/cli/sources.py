"""Sources: the data that SPEC stands for."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from ..checkpoint import read_saved
from ..errors import DataError, InputError
from .checked import CheckedDataset, CheckedIterable, CheckedSized, CheckedStream, conform, to_tensor
from .images import ImageFolder
from .imports import call_object, import_object, is_reference

_EXPECTED = (
    "expected a file .npy/.npz/.pt/.safetensors, a folder of images, pkg.mod:callable, or random:SAMPLES,SHAPE "
    "such as random:1000,3,32,32"
)
_RANDOM_NOTE = (
    "random data is weak evidence: what is silent on noise may fire on real inputs, and the other way round; "
    "give real data with --data"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Data for an audit.

    Attributes:
        data: what `deadrelu.audit` takes as `data`.
        note: what a reader of the report must know about it, None if nothing.
        sample_only: it can never be a complete data set.
    """

    data: Any
    note: str | None = None
    sample_only: bool = False


def model_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of the model's first floating parameter or buffer; float32 if it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def open_source(spec: str, dtype: torch.dtype) -> Source:
    """Return the data that `spec` names, floating values in `dtype`.

    Raises:
        InputError: `spec` is of no known form, or its object cannot be imported.
        DataError: it cannot be read, is empty, or holds NaN or inf.
        CheckpointError: a `.pt` or `.safetensors` file is damaged or not safe to read.
    """
    if spec == "random" or spec.startswith("random:"):
        return Source(_random(spec, dtype), note=_RANDOM_NOTE, sample_only=True)
    if not spec:
        raise InputError(f"--data is empty; {_EXPECTED}")
    path = Path(spec).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is not None:
        return Source(_from_file(path, reader, dtype))
    if path.is_dir():
        return Source(ImageFolder(path, dtype))
    if path.exists():
        raise DataError(f"--data {spec}: not a known format; {_EXPECTED}")
    if is_reference(spec):
        return Source(_from_python(spec, dtype))
    raise InputError(f"--data {spec!r}: no such file or folder, and no Python reference; {_EXPECTED}")


def _random(spec: str, dtype: torch.dtype) -> Tensor:
    fields = spec.removeprefix("random").removeprefix(":").split(",")
    try:
        shape = [int(field) for field in fields]
    except ValueError:
        shape = []
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(
            f"--data {spec!r}: the shape is not known; write the number of samples and then the shape of one sample, "
            "such as random:1000,3,32,32"
        )
    generator = torch.Generator().manual_seed(0)
    try:
        return torch.randn(shape, generator=generator).to(dtype)
    except (RuntimeError, MemoryError):
        gigabytes = 4 * math.prod(shape) / 1e9
        raise DataError(f"--data {spec}: {gigabytes:,.1f} GB do not fit in memory; ask for fewer samples") from None


def _from_file(path: Path, reader: Callable[[Path], Any], dtype: torch.dtype) -> Any:
    if not path.exists():
        raise DataError(f"--data {path}: no such file; check the path")
    return _as_rows(reader(path), dtype, str(path))


def _read_npy(path: Path) -> Any:
    # Copy on write: the file is neither loaded whole nor ever changed, and torch wants writable memory.
    return _loaded(path, lambda: np.load(path, mmap_mode="c", allow_pickle=False))


def _read_npz(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is damaged, cut short, or was not written by numpy.savez; copy or save it again")

    def load() -> dict[str, Any]:
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in ("x", "y") if name in archive.files] if "x" in archive.files else archive.files
            return {name: archive[name] for name in names}

    return tuple(_loaded(path, load).values())


def _read_safetensors(path: Path) -> Any:
    columns = read_saved(path, "safetensors.torch.save_file(inputs, path)")
    if "x" in columns:
        return tuple(columns[name] for name in ("x", "y") if name in columns)
    return columns if len(columns) != 1 else next(iter(columns.values()))


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except PermissionError:
        raise DataError(f"{path}: no permission to read it") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make readers raise nearly anything
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are never unpickled here; save plain numbers"
            ) from None
        raise DataError(f"{path} is damaged, cut short, or of another format; copy or save it again") from None


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": lambda path: read_saved(path, "torch.save(inputs, path)"),
    ".safetensors": _read_safetensors,
}


def _as_rows(held: Any, dtype: torch.dtype, origin: str) -> Any:
    """Return one tensor as it is, several of equal length as a tuple (positional inputs) or dict (keyword inputs)."""
    if isinstance(held, (Tensor, np.ndarray)):
        return _column(held, dtype, origin)
    if isinstance(held, Mapping):
        columns = {str(key): _column(value, dtype, f"{origin}, {key!r}") for key, value in held.items()}
    elif isinstance(held, (tuple, list)):
        columns = {str(i): _column(value, dtype, f"{origin}, array {i}") for i, value in enumerate(held)}
    else:
        raise DataError(f"{origin} holds an object of type {type(held).__name__}; expected tensors")
    if not columns:
        raise DataError(f"{origin} holds no arrays; expected the inputs of the model")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in list(lengths.items())[:6])
        raise DataError(f"{origin}: its arrays differ in rows ({listed}); save the inputs as x, labels as y")
    return columns if isinstance(held, Mapping) else tuple(columns.values())


def _column(value: Any, dtype: torch.dtype, origin: str) -> Tensor:
    tensor = to_tensor(value, origin)
    if tensor.ndim == 0:
        raise DataError(f"{origin} is a single number; expected samples along the first dimension")
    if tensor.numel() == 0:
        raise DataError(f"{origin} is empty, shape {tuple(tensor.shape)}; expected at least one sample")
    return conform(tensor, dtype, origin)


def _from_python(spec: str, dtype: torch.dtype) -> Any:
    held = import_object(spec)
    if isinstance(held, type) or (callable(held) and not _is_data(held)):
        held = call_object(held, spec, "data callable")
    if isinstance(held, (Tensor, np.ndarray)) or _is_row_tuple(held) or _is_row_dict(held):
        return _as_rows(held, dtype, spec)
    if isinstance(held, IterableDataset):
        return CheckedStream(held, dtype, spec)
    if isinstance(held, Dataset) or _is_sequence(held):
        return CheckedDataset(held, dtype, spec)
    if isinstance(held, Iterable) and not isinstance(held, (str, bytes, Mapping)):
        return (CheckedSized if _has_len(held) else CheckedIterable)(held, dtype, spec)
    raise DataError(
        f"--data {spec} gave an object of type {type(held).__name__}; expected a DataLoader, a Dataset, a tensor, "
        "or an iterable of batches"
    )


def _is_data(held: object) -> bool:
    return isinstance(held, (Tensor, np.ndarray, Dataset, Iterable))


def _is_row_tuple(held: object) -> bool:
    return isinstance(held, tuple) and bool(held) and all(isinstance(v, (Tensor, np.ndarray)) for v in held)


def _is_row_dict(held: object) -> bool:
    return isinstance(held, Mapping) and bool(held) and all(isinstance(v, (Tensor, np.ndarray)) for v in held.values())


def _is_sequence(held: object) -> bool:
    return hasattr(held, "__getitem__") and hasattr(held, "__len__") and not isinstance(held, Iterable)


def _has_len(held: object) -> bool:
    try:
        len(held)  # type: ignore[arg-type]
    except TypeError:  # a DataLoader over a stream has __len__ and refuses to answer
        return False
    return True
