"""`deadrelu audit` on good input: every form of TARGET and SPEC, every option, every exit status but errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .shop import DEAD, ROWS, deadrelu, rows

pytestmark = pytest.mark.usefixtures("workplace")


def audited(*words: str) -> dict[str, Any]:
    """Run an audit that declares its data complete, and return the JSON that it prints."""
    result = deadrelu("audit", *words, "--exhaustive", "--json", "-")
    assert result.exit_code == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["schema"] == "deadrelu.report/1"
    return report


def dead(*words: str) -> list[int]:
    (site,) = audited(*words)["sites"]
    assert (site["units"], site["samples"]) == (8, ROWS)
    indices: list[int] = site["dead"]
    return indices


@pytest.mark.parametrize("target", ["shop:net", "shop:built", "shop:Net"])
def test_a_factory_an_instance_and_a_class(target: str) -> None:
    """Ground truth: the biases of units 1 and 5 are -1000."""
    assert dead(target, "--data", "x.npy") == DEAD


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
def test_a_checkpoint(suffix: str) -> None:
    """Ground truth: the biases of units 1 and 5 in the file are -1000; the factory alone has none dead."""
    Path("net.pt").rename("weights" + suffix)
    assert dead("weights" + suffix, "--model", "shop:blank", "--data", "x.npy") == DEAD


def save_npz(path: str, **arrays: np.ndarray[Any, Any]) -> str:
    np.savez(path, **arrays)
    return path


def test_every_file_of_data() -> None:
    """The same rows in every format give the same report; labels and float64 make no difference."""
    x, y = rows(), torch.zeros(ROWS, dtype=torch.int64)
    np.save("double.npy", x.double().numpy())
    np.save("fortran.npy", np.asfortranarray(x.numpy()))
    np.save("swapped.npy", x.numpy().astype(">f4"))
    torch.save(x, "x.pt")
    torch.save(x.double(), "double.pt")
    torch.save((x, y), "pair.pt")
    torch.save([x, y], "list.pt")
    specs = [
        "double.npy",
        "fortran.npy",
        "swapped.npy",
        "x.pt",
        "double.pt",
        "pair.pt",
        "list.pt",
        save_npz("x.npz", x=x.numpy()),
        save_npz("yx.npz", y=y.numpy(), x=x.numpy(), other=np.zeros(3)),
        save_npz("in_order.npz", inputs=x.numpy(), labels=y.numpy()),
    ]
    expected = audited("shop:built", "--data", "x.npy")
    for spec in specs:
        assert audited("shop:built", "--data", spec) == expected, spec
    assert expected["sites"][0]["dead"] == DEAD


def test_safetensors() -> None:
    torch_files = pytest.importorskip("safetensors.torch")
    torch_files.save_file({"x": rows(), "y": torch.zeros(ROWS)}, "pair.safetensors")
    torch_files.save_file({"anything": rows()}, "one.safetensors")
    assert dead("shop:net", "--data", "pair.safetensors") == DEAD
    assert dead("shop:net", "--data", "one.safetensors") == DEAD
    words = {"tokens": torch.arange(ROWS).remainder(9), "scale": torch.ones(ROWS, 4), "labels": torch.zeros(ROWS)}
    torch_files.save_file(words, "words.safetensors")
    assert dead("shop:Words", "--data", "words.safetensors") == DEAD


def test_inputs_by_name() -> None:
    """A dict holds keyword inputs; integers stay integers, and what forward does not accept is dropped."""
    words = {
        "tokens": torch.arange(ROWS).remainder(9),
        "scale": torch.ones(ROWS, 4).double(),
        "labels": torch.zeros(40),
    }
    torch.save(words, "words.pt")
    assert dead("shop:Words", "--data", "words.pt") == DEAD


@pytest.mark.parametrize(
    "name",
    ["loader", "Items", "Stream", "Plain", "pair", "generator", "rows", "float64_batches"],
)
def test_data_from_python(name: str) -> None:
    """A loader, datasets of every style, arrays, generators: objects, classes and functions."""
    assert dead("shop:net", "--data", f"shop:{name}", "--batch-size", "16") == DEAD


@pytest.mark.parametrize(("mode", "factory"), [("RGB", "conv"), ("P", "conv"), ("L", "grey"), ("1", "grey")])
def test_a_folder_of_images(mode: str, factory: str) -> None:
    image = pytest.importorskip("PIL.Image")
    for index in range(ROWS):
        folder = Path("pictures") / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        image.fromarray(pixels).convert(mode).save(folder / f"{index}.png")
    Path("pictures/readme.txt").write_text("not a picture")
    assert dead(f"shop:{factory}", "--data", "pictures") == DEAD


def test_random_data_is_named_weak() -> None:
    result = deadrelu("audit", "shop:net", "--data", f"random:{ROWS},4")
    assert result.exit_code == 0
    assert "random data is weak evidence" in result.stderr


def test_random_data_is_the_same_every_time() -> None:
    first, second = (deadrelu("audit", "shop:built", "--data", "random:64,4", "--json", "-").stdout for _ in range(2))
    assert first == second
    assert json.loads(first)["samples"] == 64


def test_the_screen() -> None:
    result = deadrelu("audit", "shop:net", "--data", "x.npy", "--exhaustive")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "2 of 8 units" in result.stdout


def test_without_exhaustive_forty_samples_decide_nothing() -> None:
    """Source: DESIGN 3: 2,995 silent samples are needed."""
    report = json.loads(deadrelu("audit", "shop:net", "--data", "x.npy", "--json", "-").stdout)
    assert (report["dead"], report["sites"][0]["undecided"]) == (0, DEAD)


@pytest.mark.parametrize(
    ("limit", "status"), [("24%", 1), ("0.24", 1), ("25%", 0), ("25 %", 0), ("0.25", 0), ("100%", 0), ("0", 1)]
)
@pytest.mark.parametrize("words", [[], ["--exhaustive"]])
def test_fail_above(limit: str, status: int, words: list[str]) -> None:
    """Source: DESIGN 5.3: the silent fraction, 2 of 8, is compared, strictly greater; undecided units are silent."""
    result = deadrelu("audit", "shop:net", "--data", "x.npy", "--fail-above", limit, *words)
    assert result.exit_code == status
    assert "2 of 8" in result.stdout
    assert ("2 of 8 units (25 %) are silent" in result.stderr) == bool(status)


def test_fail_above_with_nothing_that_can_die() -> None:
    """Zero never stands for unknown: the exit status is clean and a note says why."""
    result = deadrelu("audit", "shop:gelu", "--data", "x.npy", "--fail-above", "1%")
    assert result.exit_code == 0
    assert "nothing to compare" in result.stderr


def test_json_to_a_file_keeps_the_screen() -> None:
    Path("report.json").write_text("the report of yesterday")
    result = deadrelu("audit", "shop:net", "--data", "x.npy", "--exhaustive", "--json", "report.json")
    assert result.exit_code == 0
    assert "2 of 8" in result.stdout
    text = Path("report.json").read_text(encoding="utf-8")
    assert json.loads(text)["sites"][0]["dead"] == DEAD
    assert text.endswith("}\n")
    assert sorted(p.name for p in Path().iterdir() if p.is_file()) == ["net.pt", "report.json", "shop.py", "x.npy"]


def test_json_holds_the_report_when_the_threshold_is_exceeded() -> None:
    words = ["audit", "shop:net", "--data", "x.npy", "--json", "-", "--fail-above", "1%"]
    result = deadrelu(*words)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["silent_fraction"] == 0.25


def test_what_the_users_code_prints_goes_to_stderr() -> None:
    result = deadrelu("audit", "shop:chatty", "--data", "x.npy", "--json", "-")
    assert json.loads(result.stdout)["samples"] == ROWS
    assert "building, please wait" in result.stderr


def test_max_samples() -> None:
    report = json.loads(deadrelu("audit", "shop:net", "--data", "x.npy", "--max-samples", "7", "--json", "-").stdout)
    assert report["samples"] == 7


def test_include_and_exclude() -> None:
    torch.save(torch.randn(9, 4), "x.pt")
    words = ["audit", "shop:Net", "--data", "x.npy", "--json", "-"]
    sites = [s["site"] for s in json.loads(deadrelu(*words, "--include", "body.*").stdout)["sites"]]
    assert sites == ["body.1"]
    assert deadrelu(*words, "--include", "body.*", "--exclude", "*.1").exit_code == 2


def test_device() -> None:
    assert dead("shop:net", "--data", "x.npy", "--device", "cpu") == DEAD


def test_all_sites_are_listed() -> None:
    for words in ([], ["--all"]):
        result = deadrelu("audit", "shop:net", "--data", "x.npy", *words)
        assert result.exit_code == 0


def test_data_and_checkpoint_are_only_read() -> None:
    """The files are memory-mapped; neither may change."""
    before = {path: Path(path).read_bytes() for path in ("x.npy", "net.pt")}
    assert deadrelu("audit", "net.pt", "--model", "shop:blank", "--data", "x.npy").exit_code == 0
    assert {path: Path(path).read_bytes() for path in before} == before
