"""Builders: what a call in a pickle gives, made from plain values; no function that the file names is called."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .keys import FEW, check_key, check_keys
from .names import DTYPES, INERT_CALLS, INERT_NAMES, MOVED, STANDARD, STORAGES, Global, Opaque, Refused
from .refusals import Damaged
from .stored import Storage, StoredTensor, view_of

_CODE = re.compile(r"[biufc][0-9]{1,2}")
_DIRECT = 64
_TEXT = 64
_LONGEST_NAME = 1000


@dataclass(eq=False, slots=True)
class StorageRef:
    """A storage as a pickle refers to it: the elements from `base` on, read as `dtype`."""

    storage: Storage
    dtype: torch.dtype
    base: int = 0


@dataclass(eq=False, slots=True)
class _NumpyType:
    code: str
    order: str = "="


def resolve(module: str, name: str) -> Global | torch.dtype:
    """Return what a name stands for on the stack of the machine.

    Raises:
        Refused: it belongs to Python's own library, and is none of those known to be harmless.
        Damaged: no name is so long.
    """
    if max(len(module), len(name)) > _LONGEST_NAME:
        raise Damaged
    found = Global(MOVED.get(module, module), name)
    if found.module == "torch" and name in DTYPES:
        return DTYPES[name]
    key = (found.module, name)
    if key in _CALLS or key in INERT_CALLS or key in INERT_NAMES:
        return found
    if not module or found.module.partition(".")[0] in STANDARD:
        raise Refused(found.path)
    return found


def call(function: object, arguments: object) -> Any:
    """Return what stands for `function(*arguments)`.

    Raises:
        Refused: the function is none of those known to be harmless.
        Damaged: the arguments are not what its writer gives it.
    """
    if not isinstance(arguments, tuple):
        raise Damaged
    if isinstance(function, Opaque):
        raise Refused(function.name)
    if not isinstance(function, Global):
        raise Damaged
    key = (function.module, function.name)
    if key in _CALLS:
        return _CALLS[key](*arguments)
    if key == ("copyreg", "_reconstructor"):  # protocol 0 and 1: an object of the first argument's class
        return new(arguments[0] if arguments else None)
    if key in INERT_CALLS:
        named = arguments[0] if arguments and function.name == "_reconstruct" else function
        return Opaque(named.path if isinstance(named, Global) else function.path)
    if _is_enum(function, arguments):
        return Opaque(function.path)
    raise Refused(function.path)


def _is_enum(function: Global, arguments: tuple[Any, ...]) -> bool:
    """Return whether this is how a member of a user's enum is written: its class, called with one plain value."""
    foreign = function.module.partition(".")[0] not in ("torch", "numpy")
    named = function.name.rpartition(".")[2][:1].isupper()
    return foreign and named and len(arguments) == 1 and isinstance(arguments[0], (str, int, float))


def new(cls: object, arguments: tuple[Any, ...] = ()) -> Any:
    """Return what stands for a new object of `cls`: a tensor for a Parameter, a placeholder for everything else."""
    if not isinstance(cls, Global):
        raise Damaged
    if (cls.module, cls.name) == ("torch.nn.parameter", "Parameter"):
        return _parameter(*arguments)
    if (cls.module, cls.name) == ("collections", "OrderedDict"):
        return OrderedDict()
    return Opaque(cls.path)


def build(target: object, state: object) -> None:
    """Give `target` the `state` that the file holds for it: little of it matters, and none of it is code.

    Raises:
        Damaged: such an object takes no state.
    """
    if isinstance(target, Opaque):
        attributes = state[0] if isinstance(state, tuple) and state else state
        target.is_module = isinstance(attributes, dict) and {"_parameters", "_modules"} <= attributes.keys()
    elif isinstance(target, OrderedDict):
        versions = state.get("_metadata") if isinstance(state, dict) else None
        if isinstance(versions, dict):
            target._metadata = versions  # type: ignore[attr-defined]
    elif isinstance(target, _NumpyType):
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            target.order = state[1]
    else:
        raise Damaged


def cost(arguments: object) -> int:
    """Return how much work a call with these arguments may be, in operations: what it may copy.

    Without it a few bytes that call for a copy of one large list, again and again, would fill any memory.
    """
    if not isinstance(arguments, tuple):
        return 0
    inner = [part for given in arguments if isinstance(given, tuple) and len(given) <= _DIRECT for part in given]
    return sum(map(_extent, (*arguments, *inner)))


def _extent(held: object) -> int:
    if isinstance(held, (str, bytes)):
        return len(held) // _TEXT
    return len(held) if isinstance(held, (list, tuple, dict, set, frozenset)) else 0


def dtype_of_storage(named: object) -> torch.dtype | None:
    """Return the dtype of `torch.FloatStorage` and its like, None for a kind that is not read (quantized)."""
    if not isinstance(named, Global) or named.module not in ("torch", "torch.storage", "torch.cuda"):
        raise Damaged
    if named.name in STORAGES:
        return getattr(torch, STORAGES[named.name])  # type: ignore[no-any-return]
    if named.name.endswith("Storage"):
        return None
    raise Damaged


def _tensor(ref: object, offset: object, size: object, stride: object, *rest: object) -> StoredTensor | Opaque:
    if isinstance(ref, Opaque):
        return ref
    if not isinstance(ref, StorageRef):
        raise Damaged
    if len(rest) > 2 and rest[2]:  # {"conj": True}: the numbers stored are not those of the tensor
        return Opaque("a tensor that is conjugated or negated when it is read")
    return view_of(ref.storage, ref.dtype, offset, size, stride, base=ref.base)


def _tensor_v3(ref: object, offset: object, size: object, stride: object, *rest: object) -> StoredTensor | Opaque:
    if len(rest) < 3 or not isinstance(ref, StorageRef):
        raise Damaged
    if not isinstance(rest[2], torch.dtype):
        return Opaque("a tensor of a dtype that this torch does not know")
    return view_of(ref.storage, rest[2], offset, size, stride)


def _parameter(data: object, *rest: object) -> StoredTensor | Opaque:
    if isinstance(data, StoredTensor):
        data.parameter = True
    elif not isinstance(data, Opaque):
        raise Damaged
    return data


def _subclass(rebuild: object, cls: object, arguments: object, *rest: object) -> Any:
    """A tensor with attributes of its own, or of a subclass: the plain tensor that it is made of."""
    if not isinstance(rebuild, Global) or rebuild.module != "torch._utils":
        raise Refused(_path(rebuild)) if isinstance(rebuild, Global) else Damaged
    return call(rebuild, arguments)


def _ordered(pairs: object = ()) -> OrderedDict[Any, Any]:
    made: OrderedDict[Any, Any] = OrderedDict()
    chosen = 0
    for pair in _items(pairs.items() if isinstance(pairs, dict) else pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise Damaged
        chosen += check_key(pair[0])
        if chosen > FEW:
            raise Damaged
        made[pair[0]] = pair[1]
    return made


def _default(factory: object = None, *rest: object) -> OrderedDict[Any, Any]:
    return _ordered(*rest)


def _set(items: object = ()) -> set[Any] | Opaque:
    return Opaque("builtins.set") if check_keys(_items(items)) > FEW else set(_items(items))


def _frozen(items: object = ()) -> frozenset[Any] | Opaque:
    return Opaque("builtins.frozenset") if check_keys(_items(items)) > FEW else frozenset(_items(items))


def _items(values: Any) -> Any:
    if isinstance(values, (list, tuple, set, frozenset)) or type(values) is type({}.items()):
        return values
    raise Damaged


def _size(sizes: object = ()) -> tuple[Any, ...]:
    return tuple(_items(sizes))


def _device(*parts: object) -> str:
    if any(not isinstance(part, (str, int)) for part in parts):
        raise Damaged
    return ":".join(map(str, parts))


def _attribute(holder: object, name: object, *rest: object) -> Opaque:
    """`getattr(Class, "method")` names a method; nothing is looked up."""
    return Opaque(f"{_path(holder)}.{name if isinstance(name, str) else '?'}")


def _encode(text: object, encoding: object = "utf-8", *rest: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Damaged
    return text.encode(str(encoding))


def _complex(real: object = 0, imaginary: object = 0) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise Damaged
    return complex(real, imaginary)


def _numpy_type(code: object = None, *rest: object) -> _NumpyType | Opaque:
    known = isinstance(code, str) and _CODE.fullmatch(code)
    return _NumpyType(str(code)) if known else Opaque("numpy.dtype")


def _numpy_scalar(kind: object = None, data: object = None) -> int | float | bool | complex | Opaque:
    if not isinstance(kind, _NumpyType) or not isinstance(data, bytes):
        return Opaque("numpy scalar")
    dtype = np.dtype(kind.order.replace("|", "=") + kind.code)
    if dtype.itemsize != len(data):
        raise Damaged
    value = np.frombuffer(data, dtype)[0].item()
    return value if isinstance(value, (int, float, bool, complex)) else Opaque("numpy scalar")


def _path(held: object) -> str:
    return held.path if isinstance(held, Global) else held.name if isinstance(held, Opaque) else "?"


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _default,
    ("collections", "Counter"): _ordered,
    ("collections", "deque"): lambda items=(), *rest: list(_items(items)),
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozen,
    ("builtins", "complex"): _complex,
    ("builtins", "getattr"): _attribute,
    ("_codecs", "encode"): _encode,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("numpy", "dtype"): _numpy_type,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}
