"""Pickles made to run code, to reach beyond their bytes, or to exhaust the machine: refused, and nothing happened."""

from __future__ import annotations

import contextlib
import pickle as pickles
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from deadrelu.checkpoint import open_checkpoint, read_saved
from deadrelu.errors import CheckpointError

from .crafted import (
    MAGIC,
    SYSTEM,
    mapping,
    name,
    number,
    numbers,
    pickle,
    refusal,
    storage,
    tensor,
    text,
    write_old,
    write_zip,
)

GOOD = (text("w"), tensor())


def ran() -> None:
    """Leave a trace: what a crafted file would do."""
    Path("ran").touch()


class Attack:
    """Unpickling it calls a function of this test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (ran, ())


class Setter:
    """Unpickling it runs a method of a class of this test."""

    def __init__(self) -> None:
        self.value = 1

    def __setstate__(self, state: Any) -> None:
        ran()


CALLS = {
    "posix.system": SYSTEM,
    "os.system": name("os", "system") + b"(" + text("touch ran") + b"tR",
    "builtins.eval": name("__builtin__", "eval") + b"(" + text("open('ran', 'w')") + b"tR",
    "builtins.exec": name("builtins", "exec") + b"(" + text("open('ran', 'w')") + b"tR",
    "subprocess.Popen": name("subprocess", "Popen") + b"(" + text("touch") + b"tR",
    "a stacked name": b"\x80\x04" + text("os") + text("system") + b"\x93(" + text("touch ran") + b"tR",
    "a dotted name": b"\x80\x04" + text("pathlib") + text("Path.touch") + b"\x93(" + text("ran") + b"tR",
    "an instance": b"(" + text("touch ran") + b"iposix\nsystem\n",
    "an object": b"(" + name("posix", "system") + text("touch ran") + b"o",
    "a new object": name("subprocess", "Popen") + b"(" + text("touch") + b"t\x81",
    "a name that is not called": name("os", "system"),
    "a method by getattr": name("builtins", "getattr") + b"(" + name("pathlib", "Path") + text("touch") + b"tR)R",
    "a placeholder that is called": name("mine", "Class") + b")\x81)R",
    "a partial that is called": name("functools", "partial") + b"(" + name("mine", "run") + b"tR)R",
    "torch.hub.load": name("torch.hub", "load") + b"(" + text("x") + b"tR",
    "torch.load": name("torch", "load") + b"(" + text("evil.pt") + b"tR",
    "torch.storage._load_from_bytes": name("torch.storage", "_load_from_bytes") + b"(" + b"C\x01xtR",
    "numpy": name("numpy.testing._private.utils", "runstring") + b"(" + text("1") + b"}tR",
    "a user's function": name("mine", "run") + b")R",
    "a reconstructor": name("copy_reg", "_reconstructor") + b"(" + name("os", "system") + b"N" + b"NtR",
    "an empty module": name("", "system") + b")R",
    "a tensor of a function": name("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + name("posix", "system")
    + name("torch", "Tensor")
    + b"("
    + text("touch ran")
    + b"tNtR",
    "an extension code": b"\x82\x01",
}
PLACES = {
    "the weight": lambda call: mapping((text("w"), call)),
    "beside the weight": lambda call: mapping(GOOD, (text("x"), call)),
    "a key": lambda call: mapping((call, tensor())),
    "the hyper-parameters": lambda call: mapping(
        (text("state_dict"), mapping(GOOD)), (text("hyper_parameters"), mapping((text("x"), call)))
    ),
    "the optimizer": lambda call: mapping(
        (text("model"), mapping(GOOD)),
        (text("optimizer"), mapping((text("state"), mapping((number(0), call))), (text("param_groups"), b"]"))),
    ),
    "everything": lambda call: call,
    "what is thrown away": lambda call: call + b"0" + mapping(GOOD),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_code_never_runs(call: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: DESIGN 11. Wherever it stands in the file, in both containers; the file stays the only one."""
    monkeypatch.chdir(tmp_path)
    body = PLACES[place](CALLS[call])
    for write in (write_zip, write_old):
        write(body, tmp_path / "bad.pt")
        line = refusal(tmp_path / "bad.pt")
        if call in (
            "posix.system",
            "builtins.eval",
            "builtins.exec",
            "subprocess.Popen",
            "torch.hub.load",
            "torch.load",
        ):
            assert repr(call) in line
            assert "nothing of it was run" in line
    assert not Path("ran").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("zipped", [True, False])
def test_attacks_that_pickle_would_run(
    protocol: int, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown first: `pickle` runs them. Then: nothing here does, and data files are refused as well."""
    monkeypatch.chdir(tmp_path)
    for attack in (Attack(), Setter()):
        pickles.loads(pickles.dumps(attack, protocol))
        assert Path("ran").exists()
        Path("ran").unlink()
    options: dict[str, Any] = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    for attack, held in (
        (a, h) for a in (Attack(), Setter()) for h in ({"w": a}, {"model": {"w": torch.ones(2)}, "x": a})
    ):
        if protocol >= 2:  # torch.save knows no older ones
            torch.save(held, "bad.pt", **options)
        else:
            Path("bad.pt").write_bytes(MAGIC + pickles.dumps(held, protocol))
        with pytest.raises(CheckpointError, match=r"nothing of it was run|damaged"):
            read_saved("bad.pt")
        if isinstance(attack, Attack):
            refusal(Path("bad.pt"))
        elif "model" in held and protocol >= 2:  # an object that is not called is a placeholder
            assert list(open_checkpoint("bad.pt").weights) == ["w"]
        assert not Path("ran").exists()


TENSORS = {
    "a huge storage": tensor(storage(count=1 << 60), shape=numbers(1 << 60)),
    "a storage beyond counting": tensor(storage(count=1 << 70), shape=numbers(4)),
    "a negative storage": tensor(storage(count=-1)),
    "more than the entry holds": tensor(storage(count=5), shape=numbers(5)),
    "a shape beyond the storage": tensor(shape=numbers(5)),
    "a huge shape": tensor(shape=numbers(1 << 40, 1 << 40), stride=numbers(1, 1)),
    "a shape beyond counting": tensor(shape=numbers(1 << 70), stride=numbers(0)),
    "a stride beyond the storage": tensor(stride=numbers(2)),
    "a huge stride": tensor(stride=numbers(1 << 62)),
    "a negative stride": tensor(offset=3, stride=numbers(-1)),
    "an offset beyond the storage": tensor(offset=1),
    "a negative offset": tensor(offset=-1, shape=numbers(1)),
    "a negative size": tensor(shape=numbers(-4)),
    "one repeated without end": tensor(shape=numbers(1 << 50), stride=numbers(0)),
    "one repeated 30 million times": tensor(shape=numbers(30_000_000), stride=numbers(0)),
    "empty and huge": tensor(shape=numbers(0, 1 << 62, 1 << 62), stride=numbers(1, 1, 1)),
    "empty and beyond the storage": tensor(offset=5, shape=numbers(0)),
    "too many dimensions": tensor(shape=numbers(*[1] * 65), stride=numbers(*[1] * 65)),
    "fewer strides than sizes": tensor(shape=numbers(2, 2)),
    "sizes that are no numbers": tensor(shape=b"(" + text("4") + b"t"),
    "sizes that are truths": tensor(shape=b"(\x88t"),
    "a shape that is no tuple": tensor(shape=number(4)),
    "a storage that is no storage": tensor(number(0)),
    "a storage of no kind": tensor(storage(kind="PickleStorageX")),
    "a storage that is missing": tensor(storage(key="7")),
    "a storage outside of the archive": tensor(storage(key="../../../../etc/passwd")),
    "quantized": tensor(storage(kind="QInt8Storage")),
    "an id of another kind": b"(" + text("file") + text("/etc/passwd") + b"tQ",
    "an id that is a text": text("x") + b"Q",
    "an id as a line": b"Px\n",
    "a parameter of nothing": name("torch._utils", "_rebuild_parameter") + b"(N\x89NtR",
    "too few arguments": name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + b"tR",
    "a state set on a tensor": tensor() + b"}b",
}


@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("write", [write_zip, write_old])
def test_tensors_stay_inside_of_their_bytes(case: str, write: Any, tmp_path: Path) -> None:
    write(mapping((text("w"), TENSORS[case])), tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt")


def test_the_crafted_file_without_harm_is_read(tmp_path: Path) -> None:
    """Else the refusals above would prove nothing."""
    data = struct.pack("<4f", 1, 2, 3, 4)
    write_zip(mapping(GOOD), tmp_path / "good.pt", {"0": data})
    assert open_checkpoint(tmp_path / "good.pt").weights["w"].tolist() == [1, 2, 3, 4]
    write_old(mapping(GOOD), tmp_path / "good.pt", data=data)
    assert open_checkpoint(tmp_path / "good.pt").weights["w"].tolist() == [1, 2, 3, 4]
    write_zip(
        mapping((text("w"), tensor(offset=1, shape=numbers(2), stride=numbers(2)))), tmp_path / "v.pt", {"0": data}
    )
    assert open_checkpoint(tmp_path / "v.pt").weights["w"].tolist() == [2, 4]


def test_bytes_that_are_no_truth_values(tmp_path: Path) -> None:
    """A bool tensor of other bytes than 0 and 1 makes torch's own operations disagree with each other."""
    write_zip(
        mapping((text("w"), tensor(storage(kind="BoolStorage")))), tmp_path / "b.pt", {"0": bytes([0, 1, 2, 255])}
    )
    read = open_checkpoint(tmp_path / "b.pt").weights["w"]
    assert read.tolist() == [False, True, True, True]
    assert int(read.sum()) == 3


DEEP = 50_000
SHAPES = {
    "a list in a list": b"]" * DEEP + b"a" * (DEEP - 1),
    "a tuple in a tuple": b")" + b"\x85" * DEEP,
    "a dict in a dict": (b"}" + text("w")) * DEEP + b"N" + b"s" * DEEP,
    "a key of tuples": b"})" + b"\x85" * 100_000 + b"Ns",
    "a set of tuples": name("builtins", "set") + b"(](" + b")" + b"\x85" * 100_000 + b"etR",
    "a dict in itself": b"}q\x00" + text("self") + b"h\x00s",
    "a list in itself": b"]q\x00h\x00a",
    "a list of a list of a list": b"".join([b"]q\x00(" + b"h\x00" * 0 + b"e"] + [b"](h\x00h\x00h\x00eq\x00"] * 60),
    "a key twice": mapping(GOOD, GOOD),
    "a key that is a list": b"}]Ns",
    "a key that is a tensor": mapping((tensor(), tensor())),
    "a number without end": b"\x8b\xff\xff\xff\x7f" + b"\x01" * 50,
    "a text without end": b"\x8d" + struct.pack("<Q", 1 << 62) + b"a",
    "bytes without end": b"\x8e" + struct.pack("<Q", 1 << 40) + b"a",
    "an unknown operation": b"\xff",
    "nothing": b"",
    "an empty stack": b"0",
    "a mark that is missing": b"t",
    "a memory that is empty": b"h\x07",
    "a protocol of the future": b"\x80\xfe" + b"N",
    "a line without end": b"c" + b"a" * 100_000,
    "a decimal without end": b"I" + b"9" * 60_000 + b"\n",
    "no text": b"X\x02\x00\x00\x00\xff\xfe",
    "buffers elsewhere": b"\x97",
    "an odd number of items": b"}(" + text("w") + b"u",
    "items for a text": text("w") + b"(NNu",
    "items for a list": b"](NNu",
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("write", [write_zip, write_old])
def test_shapes_that_break_readers(case: str, write: Any, tmp_path: Path) -> None:
    """Neither recursion, nor hashing, nor printing, nor freeing them harms the process."""
    write(SHAPES[case], tmp_path / "bad.pt")
    refusal(tmp_path / "bad.pt")
    with contextlib.suppress(CheckpointError):  # as data, some of them are merely strange
        read_saved(tmp_path / "bad.pt")


def test_deep_values_beside_good_weights_do_no_harm(tmp_path: Path) -> None:
    for case in ("a list in a list", "a tuple in a tuple", "a dict in a dict", "a dict in itself", "a list in itself"):
        body = mapping((text("model"), mapping(GOOD)), (text("x"), SHAPES[case]))
        write_zip(body, tmp_path / "deep.pt")
        checkpoint = open_checkpoint(tmp_path / "deep.pt")
        assert list(checkpoint.weights) == ["w"]
        assert repr(checkpoint)


def test_operations_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deadrelu.checkpoint import machine

    monkeypatch.setattr(machine, "MOST_OPERATIONS", 1000)
    write_zip(b"](" + b"N" * 2000 + b"e", tmp_path / "bad.pt")
    assert "more than 1,000 objects" in refusal(tmp_path / "bad.pt")
    monkeypatch.setattr(machine, "MOST_BYTES", 1 << 20)
    write_zip(b"T" + struct.pack("<I", 3 << 20) + bytes(3 << 20), tmp_path / "bad.pt")
    assert "exceeds 1 MiB" in refusal(tmp_path / "bad.pt")


def test_names_cannot_grow_without_end(tmp_path: Path) -> None:
    """A long key above many short ones: a few hundred kilobytes that would become gigabytes of names."""
    inner = b"}(" + tensor() + b"q\x010" + b"".join(text(str(i)) + b"h\x01" for i in range(4000)) + b"u"
    outer = mapping((text("model"), mapping((text("k" * 60_000), inner))))
    write_zip(outer, tmp_path / "bad.pt")
    assert "names of its weights are longer" in refusal(tmp_path / "bad.pt")


def test_a_bare_pickle_and_other_strangers(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    for content, expected in (
        (pickle(SYSTEM), "posix.system"),
        (pickles.dumps({"w": [1.0]}), "damaged"),
        (b"", "damaged"),
        (b"\x80", "damaged"),
        (MAGIC, "damaged"),
        (b"PK\x03\x04", "damaged"),
        (b"\x1f\x8b" + bytes(100), "damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "damaged"),
        (b"x" * 257 + b"ustar" + bytes(300), "tar file"),
        (b"<html>404</html>", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "damaged"),
    ):
        path.write_bytes(content)
        assert expected in refusal(path), content[:20]


def _chosen(number: int) -> bytes:
    """Return a complex number whose hash, real + 1000003 * imaginary, is 0 whatever `number` is."""
    parts = b"G" + struct.pack(">d", -1000003.0 * number) + b"G" + struct.pack(">d", float(number))
    return b"h\x00" + parts + b"\x86R"


def _nested(depth: int, width: int) -> bytes:
    """Return a tuple of `width` times the same tuple of `width` times ...: small to write, endless to hash."""
    levels = (b"(" + (b"h" + bytes([level])) * width + b"tq" + bytes([level + 1]) for level in range(depth))
    return b"K\x01q\x00" + b"".join(levels)


_LIST = b"]q\x00(" + b"N" * 100_000 + b"e"
_BOOK = b"X" + struct.pack("<I", 8 << 20) + b"a" * (8 << 20) + b"q\x00"
_COPY = b"h\x01h\x00\x85R"
_ENCODE = b"h\x01h\x00" + text("latin1") + b"\x86R"
_NUMBERS = name("builtins", "complex") + b"q\x00"
_TOO_MUCH = "describes more than"
_GREEDY = {
    "keys that collide": (_NUMBERS + b"}(" + b"".join(_chosen(i) + b"N" for i in range(1, 5000)) + b"u", _TOO_MUCH),
    "a set of them": (_NUMBERS + b"\x8f(" + b"".join(_chosen(i) for i in range(1, 5000)) + b"\x90", _TOO_MUCH),
    "a key that is a tree": (b"}" + _nested(3, 60) + b"Ns", "damaged"),
    "a list, copied and copied": (_LIST + name("collections", "deque") + b"q\x01(" + _COPY * 100 + b"l", _TOO_MUCH),
    "a set, built and built": (_LIST + name("builtins", "set") + b"q\x01(" + _COPY * 100 + b"l", _TOO_MUCH),
    "a text, copied and copied": (_BOOK + name("_codecs", "encode") + b"q\x01(" + _ENCODE * 50 + b"l", _TOO_MUCH),
    "a name as long as a book": (_BOOK + b"(" + b"h\x00h\x00\x93" * 50 + b"l", "damaged"),
}


@pytest.mark.parametrize("kind", _GREEDY)
def test_a_few_bytes_do_not_buy_much_work(kind: str, tmp_path: Path) -> None:
    """What a file may copy, compare and hash is charged to it.

    Longer ones of the kind took from half a minute to for ever, or gigabytes.
    """
    body, reason = _GREEDY[kind]
    write_zip(body, tmp_path / "w.pt")
    assert reason in refusal(tmp_path / "w.pt")


def test_names_of_storages_are_texts(tmp_path: Path) -> None:
    """A list of a list of ... of nine lists each is never written out, nor hashed."""
    levels = (b"(" + (b"h" + bytes([level])) * 9 + b"lq" + bytes([level + 1]) for level in range(40))
    tree = pickle(b"]q\x00" + b"".join(levels))
    (tmp_path / "w.pt").write_bytes(MAGIC + pickle(mapping(GOOD)) + tree)
    assert "damaged" in refusal(tmp_path / "w.pt")


def test_pairs_of_numbers_may_be_keys(tmp_path: Path) -> None:
    """Few of them, as among hyper-parameters, are no attack."""
    held = {"model": {"0.weight": torch.ones(2, 2)}, "edges": {(i, i + 1): i for i in range(500)}, "set": {(1, 2)}}
    torch.save(held, tmp_path / "w.pt")
    assert open_checkpoint(tmp_path / "w.pt").others["edges"] == "a dict of 500 entries"


def test_many_weights_in_the_same_few_bytes(tmp_path: Path) -> None:
    """Each alone may repeat its numbers; a hundred thousand such would be read for days."""
    side = (1 << 24) - 32
    items = [(text(f"w{i}"), tensor(shape=numbers(side + i), stride=numbers(0))) for i in range(32)]
    write_zip(mapping(*items), tmp_path / "w.pt")
    assert "overlap without end" in refusal(tmp_path / "w.pt")
    write_zip(mapping(*items[:2]), tmp_path / "few.pt")
    assert len(open_checkpoint(tmp_path / "few.pt").weights) == 2
