"""Archives and headers made to lead astray: names that escape, entries that overlap, lengths that lie."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from versions import WRITES_WEIGHT_TABLES

from deadrelu.checkpoint import open_checkpoint
from deadrelu.errors import CheckpointError

from .crafted import SYSTEM, mapping, pickle, refusal, tensor, text
from .writers import model

GOOD = mapping((text("w"), tensor()))


def zipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive with these entries, twice the same name where it is given twice."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for entry, content in entries:
                info = zipfile.ZipInfo(entry)
                info.compress_type = compression
                archive.writestr(info, content)
    return stream.getvalue()


def parts(**changes: bytes) -> list[tuple[str, bytes]]:
    return [
        ("a/data.pkl", changes.get("pkl", pickle(GOOD))),
        ("a/byteorder", changes.get("order", b"little")),
        ("a/data/0", changes.get("data", bytes(16))),
    ]


def patched(data: bytes, marker: bytes, at: int, value: bytes, nth: int = 0) -> bytes:
    """Return `data` with `value` written `at` bytes after the start of the nth `marker`."""
    start = -1
    for _ in range(nth + 1):
        start = data.index(marker, start + 1)
    return data[: start + at] + value + data[start + at + len(value) :]


def overlapping() -> bytes:
    """Two directory entries for the same bytes: what zip bombs without nesting are made of."""
    data = zipped([*parts(), ("a/data/1", bytes(16))])
    header = data.rindex(b"PK\x03\x04")
    other = data.rindex(b"PK\x03\x04", 0, header)
    return patched(data, b"PK\x01\x02", 42, struct.pack("<I", other), nth=3)


def nested() -> bytes:
    """An entry whose length reaches over the entry behind it."""
    data = zipped([*parts(), ("a/data/1", bytes(1000))])
    data = patched(data, b"PK\x01\x02", 20, struct.pack("<II", 600, 600), nth=2)
    return patched(data, b"PK\x03\x04", 18, struct.pack("<II", 600, 600), nth=2)


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "an absolute name": (lambda: zipped([*parts(), ("/etc/passwd", b"x")]), "points out of the archive"),
    "a name that climbs": (lambda: zipped([*parts(), ("a/../../x", b"x")]), "points out of the archive"),
    "a name that climbs backwards": (lambda: zipped([*parts(), ("a\\..\\..\\x", b"x")]), "points out"),
    "a drive": (lambda: zipped([*parts(), ("C:/x", b"x")]), "points out of the archive"),
    "a name twice": (lambda: zipped([*parts(), *parts()]), "twice"),
    "two checkpoints": (lambda: zipped([*parts(), ("b/data.pkl", b"")]), "2 checkpoints"),
    "compressed": (lambda: zipped(parts(data=bytes(10_000_000)), zipfile.ZIP_DEFLATED), "compressed"),
    "encrypted": (lambda: patched(zipped(parts()), b"PK\x01\x02", 8, b"\x01\x00"), "encrypted"),
    "overlapping": (overlapping, "overlap"),
    "reaching over": (nested, "overlap"),
    "no pickle": (lambda: zipped(parts()[1:]), "damaged"),
    "no data": (lambda: zipped(parts()[:2]), "damaged"),
    "too little data": (lambda: zipped(parts(data=bytes(15))), "damaged"),
    "an unknown byte order": (lambda: zipped(parts(order=b"middle")), "damaged"),
    "a byte order without end": (lambda: zipped(parts(order=b"little" * 10_000)), "damaged"),
    "an entry behind the end": (
        lambda: patched(zipped(parts()), b"PK\x01\x02", 42, struct.pack("<I", 1 << 30), nth=2),
        "damaged",
    ),
    "a length behind the end": (
        lambda: patched(zipped(parts()), b"PK\x01\x02", 20, struct.pack("<II", 1 << 30, 1 << 30), nth=2),
        "overlap",
    ),
    "a directory behind the end": (
        lambda: patched(zipped(parts()), b"PK\x05\x06", 12, struct.pack("<II", 1 << 31, 1 << 31)),
        "damaged",
    ),
    "a directory without end": (
        lambda: b"PK\x03\x04" + bytes(100) + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 100, 4, 0),
        "damaged",
    ),
    "something in front": (lambda: b"PK\x03\x04junk" + zipped(parts()), "damaged"),
    "an empty archive": (lambda: b"PK\x03\x04" + zipped([]), "damaged"),
    "a program's package": (lambda: zipped([("a/code.py", b"x")]), "damaged"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(case: str, tmp_path: Path) -> None:
    make, expected = ARCHIVES[case]
    (tmp_path / "bad.pt").write_bytes(make())
    assert expected in refusal(tmp_path / "bad.pt")


def test_the_archive_without_harm_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.pt").write_bytes(zipped(parts()))
    assert open_checkpoint(tmp_path / "good.pt").weights["w"].tolist() == [0] * 4


def test_a_directory_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    with open(path, "wb") as stream:
        stream.write(b"PK\x03\x04")
        stream.truncate(70 << 20)
        stream.seek(70 << 20)
        stream.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, (70 << 20) - 4, 4, 0))
    assert "table of contents" in refusal(path)


def header(described: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with this header, JSON or bytes."""
    content = described if isinstance(described, bytes) else json.dumps(described).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def weight(first: int = 0, last: int = 16, dtype: Any = "F32", shape: Any = (4,), **more: Any) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}, **more}


HEADERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "damaged"),
    "short": (b"\x08\0\0\0", "damaged"),
    "a header behind the end": (header(weight(), bytes(16), 1 << 20), "damaged"),
    "a header without end": (header(weight(), bytes(16), 1 << 62), "header claims"),
    "a header of nothing": (struct.pack("<Q", 0) + bytes(16), "JSON"),
    "no JSON": (header(b"{]", bytes(16)), "JSON"),
    "a list": (header([], bytes(16)), "JSON object"),
    "no text": (header(b"{\xff\xfe}", bytes(16)), "JSON"),
    "deep": (header(b'{"w":' + b"[" * 200_000, bytes(16)), "JSON"),
    "wide": (header(b'{"w":[' + b"[]," * 4_100_000 + b"1]}"), "values"),
    "a name twice": (header(b'{"w":' + json.dumps(weight()["w"]).encode() + b',"w":{}}', bytes(16)), "twice"),
    "a huge shape on small data": (header(weight(shape=[1 << 40, 1 << 40]), bytes(16)), "damaged"),
    "a shape beyond counting": (header(weight(shape=[10**30]), bytes(16)), "damaged"),
    "a negative shape": (header(weight(shape=[-4]), bytes(16)), "damaged"),
    "a shape of fractions": (header(weight(shape=[4.0]), bytes(16)), "damaged"),
    "a shape of truths": (header(weight(0, 4, shape=[True]), bytes(4)), "damaged"),
    "a shape of infinities": (
        header(b'{"w":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,16]}}', bytes(16)),
        "dam",
    ),
    "too many dimensions": (header(weight(0, 4, shape=[1] * 65), bytes(4)), "damaged"),
    "data behind the end": (header(weight(0, 1 << 40, shape=[1 << 38]), bytes(16)), "damaged"),
    "data in front of the start": (header(weight(-16, 0), bytes(16)), "damaged"),
    "data turned around": (header(weight(16, 0), bytes(16)), "damaged"),
    "another length than the shape's": (header(weight(shape=[3]), bytes(16)), "damaged"),
    "another dtype than the length": (header(weight(dtype="F64"), bytes(16)), "damaged"),
    "a dtype that is a list": (header(weight(dtype=["F32"]), bytes(16)), "no weights"),
    "a dtype that nobody knows": (header(weight(dtype="F128"), bytes(16)), "no weights"),
    "overlapping": (header(weight(v={"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}), bytes(16)), "overlap"),
    "a gap": (header(weight(8, 24), bytes(24)), "gaps"),
    "data left over": (header(weight(), bytes(20)), "damaged"),
    "no tensor": (header({"__metadata__": {"a": "b"}}), "no weights"),
    "metadata of numbers": (header({"__metadata__": 7}), "damaged"),
    "a tensor of text": (header({"w": "F32"}, bytes(16)), "damaged"),
    "a tensor without a shape": (header({"w": {"dtype": "F32"}}, bytes(16)), "damaged"),
    "a pickle by that name": (pickle(SYSTEM), "damaged"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_safetensors_headers(case: str, tmp_path: Path) -> None:
    content, expected = HEADERS[case]
    (tmp_path / "bad.safetensors").write_bytes(content)
    line = refusal(tmp_path / "bad.safetensors")
    assert expected in line
    assert "torch.save(" not in line


def test_a_good_header_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.safetensors").write_bytes(header(weight(), struct.pack("<4f", 1, 2, 3, 4)))
    assert open_checkpoint(tmp_path / "good.safetensors").weights["w"].tolist() == [1, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe.pt")
    assert "regular file" in refusal(tmp_path / "pipe.pt")
    assert "regular file" in refusal_of_device()
    assert "no such file" in refusal(tmp_path / "none.pt")
    os.symlink("turning.pt", tmp_path / "turning.pt")
    refusal(tmp_path / "turning.pt")
    with pytest.raises(CheckpointError):
        open_checkpoint("a\0b.pt")


def refusal_of_device() -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint("/dev/zero")
    return str(caught.value)


def exported(path: Path) -> dict[str, bytes]:
    """Return the entries of an exported program, written to `path` where torch writes a table of weights."""
    if not WRITES_WEIGHT_TABLES:
        return tabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model().eval(), (torch.randn(2, 3, 6, 6),)), path)
    with zipfile.ZipFile(path) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def tabled() -> dict[str, bytes]:
    """Return the entries that torch since 2.8 writes for the model: a table, and a file for each weight."""
    network, config, entries = model(), {}, {}
    parameters = dict(network.named_parameters())
    for index, (name, value) in enumerate(network.state_dict().items()):
        meta = {
            "dtype": {torch.float32: 7, torch.int64: 5}[value.dtype],
            "sizes": [{"as_int": size} for size in value.shape],
            "strides": [{"as_int": stride} for stride in value.stride()],
            "storage_offset": {"as_int": 0},
        }
        entry = {"path_name": f"weight_{index}", "is_param": name in parameters, "use_pickle": False}
        config[name] = {**entry, "tensor_meta": meta}
        entries[f"net/data/weights/weight_{index}"] = value.numpy().tobytes()
    return {
        **entries,
        "net/data/weights/model_weights_config.json": json.dumps({"config": config}).encode(),
        "net/models/model.json": b"{}",
        "net/data/sample_inputs/model.pt": b"",
        "net/archive_format": b"pt2",
        "net/byteorder": b"little",
    }


def test_exported_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of it but the weights may be hostile without being looked at; the weights may not be."""
    monkeypatch.chdir(tmp_path)
    entries = exported(tmp_path / "net.pt2")
    table = next(entry for entry in entries if entry.endswith("_weights_config.json"))
    path = tmp_path / "bad.pt2"

    def write(**changes: bytes) -> None:
        path.write_bytes(zipped(list({**entries, **changes}.items())))

    def described(**changes: Any) -> None:
        config = json.loads(entries[table])
        config["config"]["0.weight"].update(changes)
        write(**{table: json.dumps(config).encode()})

    def meta(**changes: Any) -> None:
        described(tensor_meta={**json.loads(entries[table])["config"]["0.weight"]["tensor_meta"], **changes})

    samples = next(entry for entry in entries if "sample_inputs" in entry)
    graph = next(entry for entry in entries if entry.endswith("models/model.json"))
    write(**{samples: pickle(SYSTEM), graph: b"__import__('os').system('touch ran')"})
    assert set(open_checkpoint(path).weights) == set(model().state_dict())
    for name_of_data in ("../../weight_1", "/etc/passwd", "a/b", "..\\x", 7, None):
        described(path_name=name_of_data)
        assert "outside of its folder" in refusal(path)
    described(path_name="weight_99")
    refusal(path)
    weights = table.rpartition("/")[0]
    described(use_pickle=True)
    refusal(path)
    first = json.loads(entries[table])["config"]["0.weight"]["path_name"]
    inner = io.BytesIO()
    torch.save(torch.ones(3), inner)
    config = json.loads(entries[table])
    config["config"]["0.weight"]["use_pickle"] = True
    write(**{table: json.dumps(config).encode(), f"{weights}/{first}": inner.getvalue()})
    assert open_checkpoint(path).weights["0.weight"].tolist() == [1, 1, 1]
    write(**{table: json.dumps(config).encode(), f"{weights}/{first}": zipped(parts(pkl=pickle(SYSTEM)))})
    assert "nothing of it was run" in refusal(path)
    for changes in (
        {"sizes": [{"as_int": 1 << 40}], "strides": [{"as_int": 1}]},
        {"sizes": [{"as_int": 4}], "strides": [{"as_int": 1 << 60}]},
        {"sizes": [{"as_int": 1 << 50}], "strides": [{"as_int": 0}]},
        {"storage_offset": {"as_int": -1}},
        {"storage_offset": {"as_int": 1 << 40}},
        {"sizes": [{"as_expr": "__import__('os')"}]},
        {"sizes": 7},
        {"dtype": [7]},
        {"dtype": 8},
    ):
        meta(**changes)
        refusal(path)
    for content in (b"", b"{", b"[]", b'{"config": 7}', b'{"config": {"w": 7}}', b'{"config": {}}'):
        write(**{table: content})
        refusal(path)
    assert not Path("ran").exists()


def test_exported_programs_of_older_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before torch 2.8 every part but the graph was a pickle: that of the weights is read, and may not be hostile."""
    monkeypatch.chdir(tmp_path)
    path, inner = tmp_path / "bad.pt2", io.BytesIO()
    torch.save(model().state_dict(), inner)
    hostile = zipped(parts(pkl=pickle(SYSTEM)))
    others = {
        "serialized_exported_program.json": b"__import__('os').system('touch ran')",
        "serialized_constants.pt": hostile,
        "serialized_example_inputs.pt": hostile,
        "version": b"8.8",
    }
    path.write_bytes(zipped([("serialized_state_dict.pt", inner.getvalue()), *others.items()]))
    assert set(open_checkpoint(path).weights) == set(model().state_dict())
    path.write_bytes(zipped([("serialized_state_dict.pt", hostile), *others.items()]))
    assert "nothing of it was run" in refusal(path)
    for content in (b"", pickle(SYSTEM), zipped(parts(pkl=pickle(b"K\x07")))):
        path.write_bytes(zipped([("serialized_state_dict.pt", content), *others.items()]))
        refusal(path)
    assert not Path("ran").exists()
