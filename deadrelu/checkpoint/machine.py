"""Machine: a pickle, carried out on plain values, so that no code of it, and none that it names, can run.

`pickle` is not used: opcodes come from `pickletools`, which only parses. What is no tensor, number, text or container
becomes a placeholder, or the file is refused (names.py). The machine does not recurse, and its work is bounded.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, cast

from .builders import build, call, cost, new, resolve
from .keys import check_key, check_keys
from .names import Opaque, Refused
from .refusals import Damaged, Unreadable
from .regions import Region, RegionStream

MOST_OPERATIONS = 4_000_000
MOST_BYTES = 256 << 20

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT".split()
)
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_MARKED: dict[str, Callable[[list[Any]], Any]] = {"TUPLE": tuple, "LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))


class Machine:
    """Reads the pickles that follow each other in `region` from byte `start` on.

    `persistent` turns the id of an object that lies elsewhere (a storage) into what stands for it.
    """

    def __init__(self, region: Region, start: int = 0, persistent: Callable[[Any], Any] | None = None) -> None:
        self._stream = RegionStream(region, start, MOST_BYTES)
        self._persistent = persistent
        self._left = MOST_OPERATIONS
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    @property
    def position(self) -> int:
        """The byte after the last pickle that was read."""
        return self._stream.tell()

    def load(self) -> Any:
        """Return the next object: numbers, text, containers, `StoredTensor`s and placeholders.

        Raises:
            Refused: the pickle names or calls what could run code.
            Unreadable: it is too large.
            Damaged: it is none.
        """
        self._stack, self._below, self._memo = [], [], {}
        try:
            for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", self._stream)):
                self._charge(1)
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._do(opcode.name, argument)
        except (IndexError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            raise Damaged from None
        raise Damaged

    def _charge(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise Unreadable(f"it describes more than {MOST_OPERATIONS:,} objects; save the weights without the rest")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
            self._charge(4 if name == "EMPTY_SET" else 0)  # it takes as much memory as five others
        elif name in _GET:
            stack.append(self._memo[argument])
        elif name in _PUT:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise Damaged
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "MARK":
            self._below.append(stack)
            self._stack = []
        elif name in _MARKED:
            made = _MARKED[name](self._marked())
            self._stack.append(made)
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise Damaged  # opcodes that no torch.save writes: extension codes, INST, OBJ, buffers out of band

    def _marked(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _global(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(resolve(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Damaged
        self._stack.append(resolve(module, name))

    def _instance(self, argument: Any) -> None:
        raise Refused(str(argument).replace(" ", "."))

    def _reduce(self, _: Any) -> None:
        arguments = self._stack.pop()
        self._charge(cost(arguments))
        self._stack[-1] = call(self._stack[-1], arguments)

    def _new(self, _: Any) -> None:
        arguments = self._stack.pop()
        if not isinstance(arguments, tuple):
            raise Damaged
        self._stack[-1] = new(self._stack[-1], arguments)

    def _new_with_keywords(self, _: Any) -> None:
        self._stack.pop()
        self._new(None)

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        build(self._stack[-1], state)

    def _reference(self, _: Any) -> None:
        if self._persistent is None:
            raise Damaged
        self._stack.append(self._persistent(self._stack.pop()))

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self._stack.append({})
        self._set(items)

    def _frozen(self, _: Any) -> None:
        items = self._marked()
        self._charge(check_keys(items) * len(items))
        self._stack.append(frozenset(items))

    def _add(self, _: Any) -> None:
        items = self._marked()
        if not isinstance(self._stack[-1], Opaque):
            target = self._container(set)
            self._charge(check_keys(items) * (len(target) + len(items)))
            target.update(items)

    def _set_one(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _set_many(self, _: Any) -> None:
        self._set(self._marked())

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _append_many(self, _: Any) -> None:
        self._extend(self._marked())

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _pop_marked(self, _: Any) -> None:
        self._marked()

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], Opaque):
            self._container(list).extend(items)

    def _set(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], Opaque):  # a dict of a class of its own
            return
        target = self._container(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if check_key(key):  # it may collide with all that are there
                self._charge(len(target))
            if key in target:
                raise Unreadable(f"it holds the key {_shown(key)} twice, which no program writes; save it again")
            target[key] = value

    def _container(self, kind: type[Any]) -> Any:
        target = self._stack[-1]
        if type(target) is not kind and not (kind is dict and type(target) is OrderedDict):
            raise Damaged
        return target


_ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "INST": Machine._instance,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._new,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "BUILD": Machine._build,
    "BINPERSID": Machine._reference,
    "DICT": Machine._dict,
    "FROZENSET": Machine._frozen,
    "ADDITEMS": Machine._add,
    "SETITEM": Machine._set_one,
    "SETITEMS": Machine._set_many,
    "APPEND": Machine._append,
    "APPENDS": Machine._append_many,
    "DUP": Machine._duplicate,
    "POP": Machine._pop,
    "POP_MARK": Machine._pop_marked,
}


def _shown(key: object) -> str:
    return repr(key[:80]) if isinstance(key, str) else f"of type {type(key).__name__}"
