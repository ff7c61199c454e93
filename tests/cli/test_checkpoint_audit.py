"""`deadrelu audit TARGET` without data: a checkpoint by itself, a range of inputs, and the gates of both."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from .shop import DEAD, deadrelu, refused, rows

pytestmark = pytest.mark.usefixtures("workplace")

BORN = [2, 3]


def train(path: str = "run.pt", updates: int = 300) -> nn.Sequential:
    """Save a training dictionary whose units 2 and 3 of 16 never had a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].bias += 1
        model[0].bias[BORN] = -1e3
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(updates):
        x, y = torch.randn(32, 4, generator=generator), torch.randn(32, 3, generator=generator)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": updates}, path)
    return model


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_training_dictionary() -> None:
    train()
    result = deadrelu("audit", "run.pt")
    assert result.exit_code == 0, result.stderr
    said = flat(result.stdout)
    assert "2 of 19 units (10.5 %) have no gradient: layer 0 has the most, 2 of 16." in said
    assert "it may fire all the same" in said
    assert "layer 0: units 2 and 3." in said
    assert result.stderr == ""


def test_json_lists_every_claim() -> None:
    train()
    result = deadrelu("audit", "run.pt", "--json", "-")
    told = json.loads(result.stdout)
    assert told["mode"] == "checkpoint"
    assert (told["dead"], told["samples"]) == (0, 0)
    first = told["sites"][0]
    assert [c["unit"] for c in first["claims"]] == BORN
    assert {c["claim"] for c in first["claims"]} == {"never_gradient"}
    assert {c["level"] for c in first["claims"]} == {"optimizer"}
    assert {c["steps"] for c in first["claims"]} == {300}
    assert first["activation_rate"] == [None] * 16
    assert deadrelu("audit", "run.pt", "--format", "json").stdout == result.stdout


def test_weights_alone() -> None:
    """`net.pt` of the workplace is a bare state_dict: there is nothing to say, and that is said."""
    result = deadrelu("audit", "net.pt")
    assert result.exit_code == 0
    assert "they cannot say that all fire" in flat(result.stdout)
    assert "the file holds no state of one" in flat(result.stdout)


def test_markdown_and_html() -> None:
    train()
    result = deadrelu("audit", "run.pt", "--format", "markdown", "--html", "page.html")
    assert result.stdout.startswith("## 2 of 19 units")
    assert "| 0 | 16 | 2 | 2 |" in result.stdout
    assert "have no gradient" in Path("page.html").read_text(encoding="utf-8")


def test_html_and_markdown_of_an_audit_on_data() -> None:
    result = deadrelu(
        "audit", "shop:net", "--data", "x.npy", "--exhaustive", "--html", "p.html", "--format", "markdown"
    )
    assert result.exit_code == 0
    assert result.stdout.startswith("## 2 of 8 units (25.0 %) are dead")
    assert "2 of 8 units" in Path("p.html").read_text(encoding="utf-8")


def test_safetensors_and_patterns() -> None:
    model = train()
    pytest.importorskip("safetensors.torch").save_file(model.state_dict(), "net.safetensors")
    told = json.loads(deadrelu("audit", "net.safetensors", "--include", "2", "--json", "-").stdout)
    assert [site["site"] for site in told["sites"]] == ["2"]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_screen_keeps_within_its_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train()
    held = torch.load("run.pt", weights_only=True)
    held["model"] = {f"encoder.a_block_with_a_long_name.{k}": v for k, v in held["model"].items()}
    torch.save(held, "run.pt")
    monkeypatch.setenv("COLUMNS", str(width))
    result = deadrelu("audit", "run.pt", "--all")
    assert max(map(len, result.stdout.splitlines())) <= width


def test_nothing_in_a_name_reaches_the_terminal() -> None:
    torch.save({"fc\x1b[31m\n.weight": torch.zeros(4, 3), "fc2.weight": torch.ones(2, 4)}, "odd.pt")
    result = deadrelu("audit", "odd.pt", "--all")
    assert "\x1b" not in result.stdout
    assert "fc\\x1b[31m" in result.stdout


# Gates


@pytest.mark.parametrize(
    ("gates", "code", "words"),
    [
        (["11%"], 0, ()),
        (["10%"], 1, ("2 of 19 units (10.53 %) are dead or have no gradient", "more than --fail-above 10 %")),
        (["0=12.5%"], 0, ()),
        (["0=12%"], 1, ("0: 2 of 16 units (12.5 %)", "--fail-above 0=12 %")),
        (["*=1%", "50%"], 1, ("0: 2 of 16",)),
        (["2=0%"], 0, ()),
        (["10%", "0=0.01"], 1, ("2 of 19", "2 of 16")),
    ],
)
def test_gates_of_a_checkpoint(gates: list[str], code: int, words: tuple[str, ...]) -> None:
    train()
    result = deadrelu("audit", "run.pt", *(word for gate in gates for word in ("--fail-above", gate)))
    assert result.exit_code == code, result.stderr
    assert all(word in result.stderr for word in words)
    assert bool(result.stderr) == bool(words)


def test_what_is_only_likely_trips_no_gate() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    nn.init.constant_(model[1].bias, -9)
    torch.save(model.state_dict(), "bn.pt")
    result = deadrelu("audit", "bn.pt", "--fail-above", "0%")
    assert result.exit_code == 0
    assert "may be rare or silent" in flat(result.stdout)


@pytest.mark.parametrize(("gate", "code"), [("1=25%", 0), ("1=24%", 1), ("*=10%", 1)])
def test_gates_of_an_audit_on_data(gate: str, code: int) -> None:
    result = deadrelu("audit", "shop:net", "--data", "x.npy", "--fail-above", gate)
    assert result.exit_code == code
    assert ("1: 2 of 8 units (25 %) are silent" in result.stderr) == bool(code)


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("fc*=10%", ("no site has such a name", "there are 1")),
    ],
)
def test_a_gate_that_guards_nothing(gate: str, words: tuple[str, ...]) -> None:
    """A typing error must not let everything pass."""
    result = deadrelu("audit", "shop:net", "--data", "x.npy", "--fail-above", gate)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words)


# Every input of a range


def test_a_proof() -> None:
    words = ("audit", "net.pt", "--model", "shop:blank", "--input-shape", "4", "--input-range", "-1,1")
    result = deadrelu(*words, "--json", "-")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["evidence"] == "proved"
    assert told["sites"][0]["dead"] == DEAD
    assert "every input of 4 numbers from -1 to 1" in result.stderr
    assert "no input of the declared domain (4 numbers from -1 to 1)" in flat(deadrelu(*words).stdout)
    assert deadrelu(*words, "--fail-above", "20%").exit_code == 1


def test_a_proof_of_a_factory() -> None:
    result = deadrelu("audit", "shop:conv", "--input-shape", "3,8,8", "--input-range", "0,1", "--json", "-")
    assert json.loads(result.stdout)["sites"][0]["dead"] == DEAD


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("net.pt", "--model", "shop:blank"), ("--data", "--input-shape", "--input-range")),
        (("shop:net",), ("--data", "--input-shape")),
        (("shop:net", "--input-range", "0,1"), ("--input-shape",)),
        (("shop:net", "--input-shape", "4"), ("--input-range",)),
        (("shop:net", "--input-shape", "4,x", "--input-range", "0,1"), ("'4,x'", "3,224,224")),
        (("shop:net", "--input-shape", "4", "--input-range", "1,0"), ("'1,0'", "lowest")),
        (("shop:net", "--input-shape", "4", "--input-range", "nan,1"), ("'nan,1'",)),
        (("shop:net", "--input-shape", "4", "--input-range", "0"), ("'0'",)),
        (("shop:net", "--input-shape", "5", "--input-range", "0,1"), ("refused an input",)),
        (("shop:net", "--input-shape", "4", "--input-range", "0,1", "--data", "x.npy"), ("drop one",)),
        (("net.pt", "--input-shape", "4", "--input-range", "0,1"), ("--model pkg.mod:factory",)),
        (("net.pt", "--exhaustive"), ("--exhaustive", "--data")),
        (("net.pt", "--max-samples", "3"), ("--max-samples", "--data")),
        (("net.pt", "--device", "cpu"), ("--device",)),
        (("net.pt", "--include", "fc*"), ("all 2 layers",)),
        (("net.pt", "--fail-above", "=5%"), ("'=5%'",)),
        (("net.pt", "--fail-above", "fc=five"), ("'five'",)),
        (("gone.pt",), ("gone.pt", "no such file")),
        (("net.pt", "--model", "."), (".", "weights")),
    ],
)
def test_what_is_missing_is_named(words: tuple[str, ...], expected: tuple[str, ...]) -> None:
    line = refused("audit", *words)
    assert all(word in line for word in expected), line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02cposix\nsystem\n(X\x01\0\0\0atR.", b"noise" * 99])
def test_hostile_files(content: bytes) -> None:
    Path("bad.pt").write_bytes(content)
    assert "bad.pt" in refused("audit", "bad.pt")


def test_nan_weights() -> None:
    """A training that diverged: named, and nothing else of the file is believed."""
    held: dict[str, Any] = dict(torch.load("net.pt", weights_only=True))
    held["2.bias"][1] = float("nan")
    torch.save(held, "bad.pt")
    assert "1 of 4 tensors hold NaN or inf: 2.bias (1)" in refused("audit", "bad.pt")


# A Hugging Face folder


@pytest.fixture
def opt() -> str:
    """Save a tiny OPT with two dead units in its first block, and tokens for it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = {"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 16}
    config = transformers.OPTConfig(**settings, max_position_embeddings=16, word_embed_proj_dim=8)
    model = transformers.OPTForCausalLM(config)
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.bias[DEAD] = -1e3
    model.save_pretrained("opt")
    np.save("tokens.npy", torch.randint(0, 40, (20, 6), generator=torch.Generator().manual_seed(0)).numpy())
    return "opt"


def test_a_folder_builds_its_own_model(opt: str) -> None:
    result = deadrelu("audit", opt, "--data", "tokens.npy", "--exhaustive", "--json", "-")
    assert result.exit_code == 0, result.stderr
    sites = json.loads(result.stdout)["sites"]
    assert [site["dead"] for site in sites] == [DEAD, []]


def test_a_folder_by_itself_and_in_a_range(opt: str) -> None:
    assert "12 layers" in deadrelu("audit", opt).stdout
    result = deadrelu("audit", opt, "--input-shape", "6", "--input-range", "0,39", "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["sites"][0]["dead"] == DEAD


def test_a_folder_as_the_model_of_another_file(opt: str) -> None:
    held = pytest.importorskip("safetensors.torch").load_file("opt/model.safetensors")
    torch.save(held, "later.pt")
    result = deadrelu("audit", "later.pt", "--model", opt, "--data", "tokens.npy", "--exhaustive", "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["sites"][0]["dead"] == DEAD


def test_names_of_an_earlier_release() -> None:
    """transformers itself writes the names that this ViT had in earlier releases, and knows its way back."""
    transformers = pytest.importorskip("transformers")
    settings = {"image_size": 8, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(**settings, intermediate_size=16, hidden_act="relu")
    model = transformers.ViTForImageClassification(config)
    with torch.no_grad():
        next(m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == 16).bias[DEAD] = -1e3
    model.save_pretrained("vit")
    words = ("audit", "vit", "--data", "random:20,3,8,8", "--json", "-")
    result = deadrelu(*words)
    assert result.exit_code == 0, result.stderr
    (site,) = [site for site in json.loads(result.stdout)["sites"] if site["op"] == "relu"]
    assert site["undecided"] == DEAD


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "mine", "auto_map": {"AutoModel": "evil.Evil"}}, "'mine'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000"),
        ({"hidden_size": 10**5, "word_embed_proj_dim": 10**5, "ffn_dim": 10**5}, "parameters, but the weights hold"),
        ({"hidden_size": "wide"}, "cannot build opt"),
        ({"activation_function": "__import__"}, "cannot build opt"),
    ],
)
def test_a_config_of_strangers(opt: str, changes: dict[str, Any], expected: str) -> None:
    """Code beside the config is never imported, and memory is asked for after it is known how much."""
    told = json.loads(Path(opt, "config.json").read_text(encoding="utf-8"))
    Path(opt, "config.json").write_text(json.dumps(told | changes), encoding="utf-8")
    Path(opt, "evil.py").write_text("open('ran', 'w')\nclass Evil: ...\n", encoding="utf-8")
    assert expected in refused("audit", opt, "--data", "tokens.npy")
    assert not Path("ran").exists()


@pytest.mark.parametrize("where", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_settings_that_would_fetch_code_are_dropped(opt: str, where: str) -> None:
    told = json.loads(Path(opt, "config.json").read_text(encoding="utf-8"))
    changes = {where: "stranger/kernel", "auto_map": {"AutoModel": "evil.Evil"}}
    Path(opt, "config.json").write_text(json.dumps(told | changes), encoding="utf-8")
    Path(opt, "evil.py").write_text("open('ran', 'w')\nclass Evil: ...\n", encoding="utf-8")
    result = deadrelu("audit", opt, "--data", "tokens.npy", "--exhaustive", "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert not Path("ran").exists()


def test_without_transformers(opt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    line = refused("audit", opt, "--data", "tokens.npy")
    assert re.search(r"pip install .*transformers", line)
    assert "--model pkg.mod:factory" in line


def test_a_model_that_a_folder_does_not_describe() -> None:
    train()
    rows()
    Path("plain").mkdir()
    torch.save(torch.load("net.pt", weights_only=True), "plain/pytorch_model.bin")
    assert "config.json" in refused("audit", "net.pt", "--model", "plain", "--data", "x.npy")
