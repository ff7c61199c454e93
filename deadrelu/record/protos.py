"""Protos: TensorBoard's protocol buffers; values put into them, and taken out of bytes that nobody vouches for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

from .names import PLUGIN, SCHEMA

Value = Any
"""A `Summary.Value`; the package publishes no types."""

Content = bytes | NDArray[Any]

_DTYPES = {types_pb2.DT_UINT8: np.uint8, types_pb2.DT_DOUBLE: np.float64, types_pb2.DT_FLOAT: np.float32}
_TYPES = {np.dtype(dtype): number for number, dtype in _DTYPES.items()}
_TAG = 500


@dataclass(frozen=True, slots=True)
class Told:
    """What one event tells: its step, its time, and its values."""

    step: int
    wall_time: float
    values: Sequence[Value]


class Shelf:
    """Makes values for one event file. What a tag is about stands with its first value alone: nobody reads it twice."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def scalar(self, tag: str, number: float) -> Value:
        """Return a scalar for the stock dashboards."""
        return summary_pb2.Summary.Value(tag=legible(tag), simple_value=number)

    def histogram(self, tag: str, table: NDArray[np.float64]) -> Value:
        """Return a histogram for the stock dashboards: rows of left edge, right edge, count."""
        return self._value(legible(tag), "histograms", b"", table)

    def text(self, tag: str, markdown: str) -> Value:
        """Return a text for the stock dashboards."""
        return self._value(legible(tag), "text", b"", markdown.encode("utf-8", "backslashreplace"))

    def own(self, tag: str, content: Content, **about: Any) -> Value:
        """Return a value of the record; `about` says what it is."""
        return self._value(tag, PLUGIN, json.dumps({"schema": SCHEMA, **about}).encode(), content)

    def _value(self, tag: str, plugin: str, about: bytes, content: Content) -> Value:
        value = summary_pb2.Summary.Value(tag=tag, tensor=_tensor(content))
        if tag not in self._known:
            self._known.add(tag)
            value.metadata.plugin_data.plugin_name = plugin
            value.metadata.plugin_data.content = about
            value.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
        return value


def event(step: int, wall_time: float, values: Sequence[Value]) -> Any:
    """Return the `Event` that holds these values."""
    return event_pb2.Event(step=step, wall_time=wall_time, summary=summary_pb2.Summary(value=values))


def opening(wall_time: float) -> Any:
    """Return the `Event` that an event file begins with."""
    return event_pb2.Event(wall_time=wall_time, file_version="brain.Event:2")


def told(data: bytes) -> Told | None:
    """Return what the bytes of an event tell, None if they are none."""
    try:
        found = event_pb2.Event.FromString(data)
    except DecodeError:
        return None
    return Told(found.step, found.wall_time, found.summary.value)


def content(value: Value) -> Content | None:
    """Return the array, or the one string, of a value; None if it is neither or does not fit its shape."""
    tensor = value.tensor
    if tensor.dtype == types_pb2.DT_STRING:
        return bytes(tensor.string_val[0]) if len(tensor.string_val) == 1 else None
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        return None
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    try:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    except ValueError:
        return None


def number(value: Value) -> float | None:
    """Return the number of a scalar, as any SummaryWriter writes it; None for anything else."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.tensor.tensor_shape.dim:
        return None
    if len(value.tensor.float_val) == 1:
        return float(value.tensor.float_val[0])
    held = content(value)
    return float(held) if isinstance(held, np.ndarray) and held.size == 1 else None


@lru_cache(1 << 14)
def legible(text: str) -> str:
    """Return a tag of bounded length without control characters, which no dashboard could show.

    >>> legible("layer\\n1")
    'layer\\\\n1'
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return safe if len(safe) <= _TAG else f"{safe[: _TAG // 2]}…{safe[-_TAG // 2 :]}"


def _tensor(content: Content) -> Any:
    if isinstance(content, bytes):
        return tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING, tensor_shape=tensor_shape_pb2.TensorShapeProto(), string_val=[content]
        )
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in content.shape]
    return tensor_pb2.TensorProto(
        dtype=_TYPES[content.dtype],
        tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims),
        tensor_content=content.tobytes(),
    )
