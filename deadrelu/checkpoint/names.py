"""Names: the globals of a pickle, sorted by what they stand for; none of them is ever imported.

A name is one of four things. *Built* (builders.py): a tensor, a container, a number, made here from checked
arguments. *Inert call*: something that training programs call when they are unpickled and that no weight depends on
(paths, dates, numpy arrays); a placeholder takes its place. *Foreign*: a class of the user or of a package, as found
among hyper-parameters; a placeholder as well, as long as the file does not call it (an enum's member is written as a
call of its class, and allowed). Everything else, all of Python's
own library included, is refused: no program needs it in a checkpoint.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from .refusals import Unreadable


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, as the file writes it."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Return it with a dot between."""
        return f"{self.module}.{self.name}"


class Opaque:
    """Stands for an object that was not built. It knows the name of its class, and whether it was an nn.Module."""

    __slots__ = ("is_module", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_module = False


class Refused(Unreadable):
    """The file names something that could run code."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
}

# The dtypes of this torch; a file may name one that only a later torch has, which is then a placeholder.
DTYPES: dict[str, torch.dtype] = {
    name: dtype
    for name in (
        "float64 float32 float16 bfloat16 double float half int64 int32 int16 int8 uint8 uint16 uint32 uint64 long int "
        "short bool complex128 complex64 complex32 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz "
        "float8_e8m0fnu"
    ).split()
    if isinstance(dtype := getattr(torch, name, None), torch.dtype)
}

_TENSORS_NOT_READ = (
    "_rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_qtensor _rebuild_nested_tensor "
    "_rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass "
    "_rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor"
).split()

INERT_CALLS = {
    *(("torch._utils", name) for name in _TENSORS_NOT_READ),
    *(
        ("pathlib", name)
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    *(("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(("builtins", name) for name in ("bytearray", "bytes", "range", "slice")),
    ("copyreg", "_reconstructor"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("functools", "partial"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.random._pickle", "__generator_ctor"),
    ("numpy.random._pickle", "__bit_generator_ctor"),
    ("numpy.random._pickle", "__randomstate_ctor"),
    ("torch.serialization", "_get_layout"),
}

INERT_NAMES = {
    *(("builtins", n) for n in "object list dict tuple int float str bool type NoneType abs min max len sum".split()),
    *(("typing", n) for n in "Any Union Optional List Dict Tuple".split()),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("uuid", "UUID"),
}

STANDARD = {*sys.stdlib_module_names, "__builtins__", "commands", "nt", "org", "java"}
MOVED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "pathlib._local": "pathlib",
    "torch.tensor": "torch._tensor",
    "numpy.core.multiarray": "numpy._core.multiarray",
}
