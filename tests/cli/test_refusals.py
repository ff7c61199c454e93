"""Every bad input: exit status 2, one line on stderr that names the culprit, no traceback, nothing left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from .shop import CHECKPOINT, DATA, NET, deadrelu, refused, rows

pytestmark = pytest.mark.usefixtures("workplace")

FILE = ("audit", "net.pt", "--data", "x.npy", "--model")


def nothing() -> None:
    """Prepare nothing."""


def state(**changes: Any) -> dict[str, Any]:
    """Return the state_dict of `shop:blank`, with keys changed, or left out where the value is None."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    merged = {**model.state_dict(), **{key.replace("_", "."): value for key, value in changes.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def save(what: Any, path: str = "bad.pt") -> Callable[[], None]:
    return lambda: torch.save(what, path)


def array(what: Any, path: str = "bad.npy") -> Callable[[], None]:
    return lambda: np.save(path, what)


def write(text: bytes, path: str) -> Callable[[], None]:
    return lambda: Path(path).write_bytes(text) and None


def truncate(source: str, path: str) -> Callable[[], None]:
    return lambda: Path(path).write_bytes(Path(source).read_bytes()[:-300]) and None


def module(source: str, name: str = "mine.py") -> Callable[[], None]:
    return lambda: Path(name).write_text(source) and None


def poisoned(row: float = float("nan")) -> np.ndarray[Any, Any]:
    values = rows().numpy().copy()
    values[[3, 17, 20, 21], 2] = row
    return values


CASES: dict[str, tuple[Callable[[], None], tuple[str, ...], tuple[str, ...]]] = {
    "data empty": (nothing, ("audit", "shop:net", "--data", ""), ("--data is empty", "pkg.mod:callable")),
    # TARGET
    "checkpoint missing": (nothing, ("audit", "gone.pt", "--model", "shop:blank", *DATA), ("gone.pt", "no such file")),
    "checkpoint missing, no model": (nothing, ("audit", "gone.pt", *DATA), ("gone.pt", "no such file")),
    "checkpoint without a model": (nothing, ("audit", "net.pt", *DATA), ("net.pt", "--model pkg.mod:factory")),
    "factory with a model": (nothing, ("audit", "shop:net", "--model", "shop:net", *DATA), ("--model", "drop one")),
    "checkpoint is a folder": (
        lambda: Path("bad.pt").mkdir(),
        CHECKPOINT,
        ("bad.pt", "folder"),
    ),
    "checkpoint truncated": (truncate("net.pt", "bad.pt"), CHECKPOINT, ("bad.pt", "cut short")),
    "checkpoint empty": (write(b"", "bad.pt"), CHECKPOINT, ("bad.pt", "damaged")),
    "checkpoint is text": (write(b"hello, world", "bad.pt"), CHECKPOINT, ("bad.pt", "damaged")),
    "checkpoint holds a list": (save([1, 2]), CHECKPOINT, ("bad.pt", "list", "state_dict")),
    "checkpoint holds numbers": (save({"epoch": 3}), CHECKPOINT, ("bad.pt", "epoch", "state_dict")),
    "checkpoint holds a module": (save(nn.Linear(2, 2)), CHECKPOINT, ("torch.nn.modules.linear.Linear", "state_dict")),
    "unknown format": (write(b"x", "net.h5"), ("audit", "net.h5", *DATA), ("net.h5", ".ckpt")),
    "neither file nor reference": (nothing, ("audit", "resnet", *DATA), ("resnet", "pkg.mod:factory")),
    "key missing": (save(state(**{"2_bias": None})), CHECKPOINT, ("1 missing", "2.bias")),
    "key unknown": (save(state(extra_weight=torch.ones(2))), CHECKPOINT, ("1 unknown", "extra.weight")),
    "shape differs": (save(state(**{"0_weight": torch.ones(9, 4)})), CHECKPOINT, ("0.weight", "[9, 4]", "[8, 4]")),
    "another model": (
        save({f"layer{i}.w": torch.ones(1) for i in range(9)}),
        CHECKPOINT,
        ("4 missing", "9 unknown", "layer0.w, layer1.w, layer2.w and 6 more"),
    ),
    "a value that is no tensor": (save(state(**{"2_bias": "text"})), CHECKPOINT, ("bad.pt", "2.bias")),
    # pkg.mod:factory
    "no such module": (nothing, ("audit", "store:net", *DATA), ("no module named 'store'",)),
    "no such submodule": (nothing, ("audit", "shop.models:net", *DATA), ("shop.models",)),
    "a file name as module": (nothing, ("audit", "shop.py:net", *DATA), ("shop.py is a file name",)),
    "no such name": (nothing, ("audit", "shop:nett", *DATA), ("module shop has no 'nett'", "net")),
    "module raises": (
        module("import json\n\nvalue = {}['lost']\n"),
        ("audit", "mine:net", *DATA),
        ("KeyError: 'lost'", "mine.py:3"),
    ),
    "module imports what is missing": (
        module("import no_such_thing\n"),
        ("audit", "mine:net", *DATA),
        ("No module named 'no_such_thing'", "mine.py:1"),
    ),
    "module does not parse": (module("def net(:\n"), ("audit", "mine:net", *DATA), ("SyntaxError", "mine.py:1")),
    "module leaves": (module("raise SystemExit(0)\n"), ("audit", "mine:net", *DATA), ("SystemExit", "mine.py:1")),
    "factory raises": (nothing, ("audit", "shop:broken", *DATA), ("RuntimeError: no weights today", "shop.py:")),
    "factory leaves": (nothing, ("audit", "shop:leaves", *DATA), ("SystemExit", "shop.py:")),
    "factory needs arguments": (nothing, ("audit", "shop:needs", *DATA), ("shop:needs", "'width'")),
    "factory gives a number": (nothing, ("audit", "shop:number", *DATA), ("type int", "nn.Module")),
    "model of the checkpoint gives a number": (nothing, (*FILE, "shop:number"), ("type int", "nn.Module")),
    "model without activations": (nothing, ("audit", "shop:linear", *DATA), ("activation",)),
    # SPEC
    "no data": (nothing, ("audit", "shop:net"), ("--data",)),
    "unknown SPEC": (nothing, (*NET, "everything"), ("everything", ".npy", "pkg.mod:callable")),
    "data missing": (nothing, (*NET, "gone.npy"), ("gone.npy", "no such file")),
    "data of unknown format": (write(b"1,2", "x.csv"), (*NET, "x.csv"), ("x.csv", ".npz")),
    "npy truncated": (truncate("x.npy", "bad.npy"), (*NET, "bad.npy"), ("bad.npy", "cut short")),
    "npy with objects": (array(np.array([{}, []], dtype=object)), (*NET, "bad.npy"), ("bad.npy", "never unpickled")),
    "npy with text": (array(np.array(["a", "b"])), (*NET, "bad.npy"), ("bad.npy", "<U1", "numbers")),
    "npy of one number": (array(np.float32(3)), (*NET, "bad.npy"), ("bad.npy", "single number")),
    "npy empty": (array(np.zeros((0, 4))), (*NET, "bad.npy"), ("bad.npy", "(0, 4)")),
    "npz truncated": (
        lambda: (np.savez("good.npz", x=rows().numpy()), truncate("good.npz", "bad.npz")())[1],
        (*NET, "bad.npz"),
        ("bad.npz", "cut short"),
    ),
    "npz empty": (lambda: np.savez("bad.npz"), (*NET, "bad.npz"), ("bad.npz", "no arrays")),
    "npz with objects": (
        lambda: np.savez("bad.npz", x=np.array([{}, []], dtype=object)),
        (*NET, "bad.npz"),
        ("bad.npz", "never unpickled"),
    ),
    "npz of different lengths": (
        lambda: np.savez("bad.npz", x=np.zeros((3, 4)), y=np.zeros(2)),
        (*NET, "bad.npz"),
        ("bad.npz", "0: 3, 1: 2"),
    ),
    "pt with a number": (save(3.0), (*NET, "bad.pt"), ("bad.pt", "float")),
    "pt with text": (save({"x": "text"}), (*NET, "bad.pt"), ("bad.pt", "'x'", "str")),
    "pt sparse": (save(torch.eye(4).to_sparse()), (*NET, "bad.pt"), ("bad.pt", "sparse")),
    "pt with code": (save(nn.ReLU()), (*NET, "bad.pt"), ("torch.nn.modules.activation.ReLU", "torch.save(inputs")),
    "safetensors truncated": (write(b"\x08\0\0\0\0\0\0\0{", "bad.safetensors"), (*NET, "bad.safetensors"), ("bad.",)),
    "folder without pictures": (lambda: Path("photos").mkdir(), (*NET, "photos"), ("photos", "no pictures", ".png")),
    "random without a shape": (nothing, (*NET, "random"), ("random:1000,3,32,32",)),
    "random with one number": (nothing, (*NET, "random:1000"), ("random:1000", "shape of one sample")),
    "random with a zero": (nothing, (*NET, "random:0,4"), ("random:0,4",)),
    "random with text": (nothing, (*NET, "random:many,4"), ("random:many,4",)),
    "random too large": (nothing, (*NET, "random:1000000,1000000,1000"), ("do not fit", "fewer samples")),
    "random and exhaustive": (nothing, (*NET, "random:9,4", "--exhaustive"), ("--exhaustive", "never is")),
    "data callable raises": (nothing, (*NET, "shop:broken"), ("RuntimeError: no weights today", "shop.py:")),
    "data raise on the way": (nothing, (*NET, "shop:failing_rows"), ("LookupError: row 41 is lost", "shop.py:")),
    "dataset raises on the way": (nothing, (*NET, "shop:LostItems"), ("OSError: the disk is gone", "shop.py:")),
    "data are a number": (nothing, (*NET, "shop:number"), ("shop:number", "int", "DataLoader")),
    "loader empty": (nothing, (*NET, "shop:empty_loader"), ("expected",)),
    "wrong shape": (array(np.zeros((6, 5), dtype=np.float32)), (*NET, "bad.npy"), ("5", "4")),
    "a batch that the model refuses": (array(np.zeros((6, 4), dtype=np.int64)), (*NET, "bad.npy"), ("refuse",)),
    # NaN and inf
    "NaN in npy": (array(poisoned()), (*NET, "bad.npy"), ("4 of 40 rows", "3, 17, 20, ...", "NaN")),
    "inf in npy": (array(poisoned(np.inf)), (*NET, "bad.npy"), ("4 of 40 rows", "3, 17, 20, ...")),
    "overflow in float32": (array(poisoned(1).astype(float) * 1e39), (*NET, "bad.npy"), ("40 of 40", "float32")),
    "NaN in pt": (save({"x": torch.tensor(poisoned())}), (*NET, "bad.pt"), ("'x'", "4 of 40 rows")),
    "NaN in a batch": (nothing, (*NET, "shop:nan_in_the_second_batch"), ("batch 1", "2 of 10 rows", "2, 7")),
    "NaN in an item": (nothing, (*NET, "shop:NanItems"), ("item 23", "NaN")),
    # options
    "batch size": (nothing, (*NET, "x.npy", "--batch-size", "0"), ("--batch-size",)),
    "max samples": (nothing, (*NET, "x.npy", "--max-samples", "-1"), ("--max-samples",)),
    "batch size is text": (nothing, (*NET, "x.npy", "--batch-size", "many"), ("--batch-size", "integer")),
    "fail above is text": (nothing, (*NET, "x.npy", "--fail-above", "some"), ("--fail-above 'some'", "5%")),
    "fail above is a bare percent": (nothing, (*NET, "x.npy", "--fail-above", "5"), ("--fail-above '5'", "0.05")),
    "fail above is one": (nothing, (*NET, "x.npy", "--fail-above", "1"), ("1% or 100%",)),
    "fail above is negative": (nothing, (*NET, "x.npy", "--fail-above", "-5%"), ("--fail-above",)),
    "fail above is nan": (nothing, (*NET, "x.npy", "--fail-above", "nan"), ("--fail-above 'nan'",)),
    "complete and a part": (
        nothing,
        (*NET, "x.npy", "--exhaustive", "--max-samples", "9"),
        ("--exhaustive", "--max-samples"),
    ),
    "device unknown": (nothing, (*NET, "x.npy", "--device", "abacus"), ("--device 'abacus'", "cpu")),
    "device without numbers": (nothing, (*NET, "x.npy", "--device", "meta"), ("meta",)),
    "include matches nothing": (nothing, (*NET, "x.npy", "--include", "head.*"), ("include",)),
    "unknown option": (nothing, (*NET, "x.npy", "--exaustive"), ("--exaustive", "--exhaustive", "--help")),
    "unknown command": (nothing, ("adit",), ("adit", "--help")),
    "no target": (nothing, ("audit",), ("TARGET",)),
    "json in no folder": (nothing, (*NET, "x.npy", "--json", "gone/r.json"), ("--json", "gone", "No such file")),
    "json is a folder": (lambda: Path("out").mkdir(), (*NET, "x.npy", "--json", "out"), ("--json", "folder")),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, workplace: Path) -> None:
    """Source: DESIGN 5.3, 5.4, 11."""
    prepare, command, expected = CASES[case]
    prepare()
    before = sorted(workplace.rglob("*"))
    line = refused(*command)
    for word in expected:
        assert word in line
    assert len(line) < 1100
    assert [p for p in sorted(workplace.rglob("*")) if "__pycache__" not in p.parts] == before


def test_an_unwritable_file_is_refused_before_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan may take an hour; that its result has nowhere to go is known before."""

    def scan(*_: object, **__: object) -> None:
        raise AssertionError("scanned")

    monkeypatch.setattr("deadrelu.auditing.audit", scan)
    assert "--json" in refused(*NET, "x.npy", "--json", "gone/report.json")
    with pytest.raises(AssertionError, match="scanned"):
        scan()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_no_permission() -> None:
    Path("locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(*NET, "x.npy", "--json", "locked/report.json")
    Path("net.pt").chmod(0)
    assert "no permission" in refused(*FILE, "shop:blank")


def test_pictures_that_cannot_be_used() -> None:
    image = pytest.importorskip("PIL.Image")
    Path("photos").mkdir()
    image.new("RGB", (8, 6)).save("photos/a.png")
    image.new("RGB", (8, 6)).save("photos/b.png")
    image.new("L", (8, 6)).save("photos/c.png")
    line = refused("audit", "shop:conv", "--data", "photos")
    assert "a.png 3x6x8 and c.png 1x6x8" in line
    Path("photos/c.png").write_bytes(b"not a picture")
    assert "c.png" in refused("audit", "shop:conv", "--data", "photos")
    Path("photos/c.png").write_bytes(Path("photos/a.png").read_bytes()[:-30])
    assert "c.png" in refused("audit", "shop:conv", "--data", "photos")


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("PIL", (*NET, "photos"), "images"),
        ("sklearn.datasets", ("demo",), "demo"),
    ],
)
def test_an_extra_that_is_not_installed(
    package: str, command: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line says which command installs what is missing."""
    monkeypatch.setitem(sys.modules, package, None)
    Path("photos").mkdir()
    assert f"pip install 'deadrelu[{extra}]'" in refused(*command)


def test_interrupted() -> None:
    result = deadrelu("audit", "shop:interrupted", *DATA)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "deadrelu: interrupted\n")
