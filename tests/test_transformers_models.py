"""Planted dead units in tiny, randomly initialised Hugging Face models: exact dead sets, no token counted as a unit.

Every model is built from a config object; nothing is downloaded. A unit is planted dead by a bias of -1,000, which no
normalised hidden state of these sizes can outweigh, or, where the map has no bias, by a weight row of zeros: z is then
0 on every token, and ReLU's slope is 0 there (DESIGN 2: active is z > 0). The other units see some hundred distinct
hidden states, with a bias of LIFT where there is one, and fire on many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import deadrelu

transformers = pytest.importorskip("transformers")

ROWS, TOKENS, VOCABULARY, WIDTH, FFN = 24, 6, 40, 16, 24
DEAD = ([1, 7, 23], [0, 5])
DEAD_HEAD = [2, 9]
LIFT = 2.0
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": FFN,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

Batch = Any


@dataclass(frozen=True)
class Expected:
    """One site: its name, kind, width, silent units, and tokens seen per row."""

    site: str
    op: str
    units: int = FFN
    dead: list[int] = field(default_factory=list)
    tokens: int = TOKENS


def ids(seed: int = 0, rows: int = ROWS) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (rows, TOKENS), generator=torch.Generator().manual_seed(seed))


def kill(linear: nn.Module, units: list[int], lift: float = LIFT) -> None:
    """Silence output units of a Linear or of a transformers Conv1D: by the bias, else by a zero weight row."""
    with torch.no_grad():
        if linear.bias is not None:
            linear.bias.fill_(lift)
            linear.bias[units] = -1e3
        else:
            linear.weight[units] = 0.0


def build(model_class: str, config_class: str, linear: str, **options: Any) -> nn.Module:
    """Build a random model in eval mode and plant DEAD in the layers that `linear.format(layer)` names."""
    torch.manual_seed(3)
    config = getattr(transformers, config_class)(**options)
    model: nn.Module = getattr(transformers, model_class)(config).eval()
    for layer, units in enumerate(DEAD):
        kill(model.get_submodule(linear.format(layer)), units)
    return model


def opt(model_class: str = "OPTForCausalLM") -> nn.Module:
    sizes = {k: v for k, v in SIZES.items() if k not in ("intermediate_size", "initializer_range")}
    prefix = "" if model_class == "OPTModel" else "model."
    return build(
        model_class,
        "OPTConfig",
        prefix + "decoder.layers.{}.fc1",
        ffn_dim=FFN,
        word_embed_proj_dim=WIDTH,
        init_std=0.3,
        **sizes,
    )


def bert(hidden_act: str, **options: Any) -> nn.Module:
    linear = "bert.encoder.layer.{}.intermediate.dense"
    return build(
        "BertForSequenceClassification",
        "BertConfig",
        linear,
        hidden_act=hidden_act,
        **SIZES,
        **options,
    )


def t5(feed_forward_proj: str) -> nn.Module:
    torch.manual_seed(3)
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=8,
        d_ff=FFN,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        initializer_factor=1.0,
        feed_forward_proj=feed_forward_proj,
    )
    model: nn.Module = transformers.T5ForConditionalGeneration(config).eval()
    name = "wi_0" if feed_forward_proj.startswith("gated") else "wi"
    for half, layer in (("encoder", 1), ("decoder", 2)):
        for block, units in enumerate(DEAD):
            kill(
                model.get_submodule(f"{half}.block.{block}.layer.{layer}.DenseReluDense.{name}"),
                units,
            )
    return model


def gpt2() -> nn.Module:
    return build(
        "GPT2LMHeadModel",
        "GPT2Config",
        "transformer.h.{}.mlp.c_fc",
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        n_inner=FFN,
        vocab_size=VOCABULARY,
        n_positions=16,
        activation_function="relu",
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    )


def vit() -> nn.Module:
    return build(
        "ViTForImageClassification",
        "ViTConfig",
        "vit.layers.{}.mlp.fc1",
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        hidden_act="relu",
        initializer_range=0.3,
    )


def distilbert() -> nn.Module:
    model = build(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        "distilbert.transformer.layer.{}.ffn.lin1",
        dim=WIDTH,
        hidden_dim=FFN,
        n_layers=2,
        n_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=16,
        activation="relu",
        initializer_range=0.3,
    )
    kill(model.get_submodule("pre_classifier"), DEAD_HEAD, lift=10.0)  # one token per row only
    return model


def llama() -> nn.Module:
    linear = "model.layers.{}.mlp.gate_proj"
    return build("LlamaForCausalLM", "LlamaConfig", linear, num_key_value_heads=2, **SIZES)


def albert() -> nn.Module:
    """Three layers that share one set of weights: one site whose calls add positions."""
    torch.manual_seed(3)
    sizes = SIZES | {"num_hidden_layers": 3}
    model: nn.Module = transformers.AlbertModel(
        transformers.AlbertConfig(embedding_size=8, num_hidden_groups=1, hidden_act="relu", **sizes)
    ).eval()
    kill(
        model.get_submodule("encoder.albert_layer_groups.0.albert_layers.0.ffn"),
        DEAD[0],
    )
    return model


def text(labels: int | None = None) -> dict[str, torch.Tensor]:
    batch = {
        "input_ids": ids(),
        "attention_mask": torch.ones(ROWS, TOKENS, dtype=torch.long),
    }
    if labels is not None:
        batch["labels"] = torch.zeros(ROWS, dtype=torch.long) if labels == 1 else ids(1)
    return batch


def ffn_sites(pattern: str, op: str = "relu", tokens: int = TOKENS) -> list[Expected]:
    return [Expected(pattern.format(layer), op, dead=units, tokens=tokens) for layer, units in enumerate(DEAD)]


POOLER = Expected("bert.pooler.activation", "tanh", WIDTH, tokens=1)
T5_SITES = [
    *ffn_sites("encoder.block.{}.layer.1.DenseReluDense.act"),
    *ffn_sites("decoder.block.{}.layer.2.DenseReluDense.act"),
]
OPT_SITES = ffn_sites("model.decoder.layers.{}.activation_fn")
BERT_SITES = ffn_sites("bert.encoder.layer.{}.intermediate.intermediate_act_fn")
DISTILBERT_SITES = [
    *ffn_sites("distilbert.transformer.layer.{}.ffn.activation"),
    Expected(
        "relu()", "relu", WIDTH, DEAD_HEAD, tokens=1
    ),  # nn.ReLU()(x) in forward: a module that the model does not hold
]
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Batch], list[Expected]]] = {
    "opt, dict with labels": (opt, lambda: text(2), OPT_SITES),
    "opt, bare tensor": (opt, ids, OPT_SITES),
    "opt, (ids, mask)": (
        opt,
        lambda: (ids(), torch.ones(ROWS, TOKENS, dtype=torch.long)),
        OPT_SITES,
    ),
    "opt, labels that forward refuses": (
        lambda: opt("OPTModel"),
        lambda: text(2),
        ffn_sites("decoder.layers.{}.activation_fn"),
    ),
    "bert, relu": (lambda: bert("relu"), lambda: text(1), [*BERT_SITES, POOLER]),
    "t5, relu": (lambda: t5("relu"), lambda: text(2), T5_SITES),
    "gpt2, relu, Conv1D": (
        gpt2,
        lambda: text(2),
        ffn_sites("transformer.h.{}.mlp.act"),
    ),
    "vit, relu": (
        vit,
        lambda: {"pixel_values": torch.randn(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(0))},
        ffn_sites("vit.layers.{}.mlp.activation_fn", tokens=5),  # 4 patches and the class token
    ),
    "distilbert, relu": (distilbert, lambda: text(1), DISTILBERT_SITES),
}


@pytest.mark.parametrize("case", CASES)
def test_dead_sets_are_exact(case: str) -> None:
    """Source: planted units, see the module's text."""
    make, batch, expected = CASES[case]
    report = deadrelu.audit(make(), [batch()], exhaustive=True)
    assert [s.site for s in report.sites] == [e.site for e in expected]
    for site, want in zip(report.sites, expected, strict=True):
        assert (site.op, site.units, site.samples) == (want.op, want.units, ROWS), site.site
        assert site.positions == ROWS * want.tokens, site.site
        assert site.dead.nonzero()[0].tolist() == want.dead, site.site
    assert report.samples == ROWS
    assert report.coverage.batch_lost == ()
    assert report.coverage.unsupported == ()


@pytest.mark.parametrize("case", CASES)
def test_producers_are_the_maps_into_the_ffn(case: str) -> None:
    """Source: the forward methods of the models; the producer is the op with parameters that made z (DESIGN 6.1)."""
    make, batch, expected = CASES[case]
    report = deadrelu.audit(make(), [batch()], exhaustive=True)
    last = ("fc1", "dense", "wi", "c_fc", "lin1", "pre_classifier")
    for want in expected:
        producers = report[want.site].producers
        assert len(producers) == 1, (want.site, producers)
        assert producers[0].rsplit(".", 1)[-1] in last, (want.site, producers)


def test_batches_add_up_to_the_whole() -> None:
    """Source: counts merge by + (DESIGN 4): three loaded batches of dicts say what one batch says."""
    model, whole = bert("relu"), text(1)
    parts = [{k: v[i : i + 8] for k, v in whole.items()} for i in range(0, ROWS, 8)]
    one = deadrelu.audit(model, [whole], exhaustive=True)
    many = deadrelu.audit(model, parts, exhaustive=True)
    assert many.samples == one.samples == ROWS
    for a, b in zip(one.sites, many.sites, strict=True):
        assert a.status == b.status
        assert a.positions == b.positions


def test_smooth_units_saturate_and_do_not_die() -> None:
    """Source: GELU's slope at -1,000 is 0 to machine precision: saturated, never dead (DESIGN 2)."""
    report = deadrelu.audit(bert("gelu"), [text(1)], exhaustive=True)
    assert [s.site for s in report.sites] == [s.site for s in BERT_SITES] + [POOLER.site]
    for site, want in zip(report.sites, BERT_SITES, strict=False):
        assert (site.op, site.units, site.can_die) == ("gelu", FFN, False)
        assert site.saturated.nonzero()[0].tolist() == want.dead
        assert site.dead_fraction is None
        assert not site.dead.any()
    assert report.dead_fraction is None
    assert report.units_can_die == 0


def test_t5_gated_gelu_is_one_site_per_block() -> None:
    """Source: T5DenseGatedActDense: gelu_new(wi_0 x) * wi_1 x. The tanh inside of gelu_new is no site of its own."""
    report = deadrelu.audit(t5("gated-gelu"), [text(2)], exhaustive=True)
    assert [s.site for s in report.sites] == [e.site for e in T5_SITES]
    for site in report.sites:
        assert site.op.startswith("gelu")
        assert (site.units, site.can_die, site.samples, site.positions) == (
            FFN,
            False,
            ROWS,
            ROWS * TOKENS,
        )
        assert [p.rsplit(".", 1)[-1] for p in site.producers] == ["wi_0"]
        # wi_0 has no bias: the planted rows give z = 0, where the slope of GELU is 1/2
        assert not site.saturated.any()
        assert (site.max_z[DEAD[0] if ".0." in site.site[:16] else DEAD[1]] == 0).all()


def test_llama_silu_gate() -> None:
    """Source: LlamaMLP: down(silu(gate x) * up x); the site is the gate, fed by gate_proj, and SiLU cannot die."""
    report = deadrelu.audit(llama(), [text()], exhaustive=True)
    assert [s.site for s in report.sites] == [f"model.layers.{i}.mlp.act_fn" for i in range(2)]
    for layer, site in enumerate(report.sites):
        assert (site.op, site.units, site.can_die) == ("silu", FFN, False)
        assert (site.samples, site.positions) == (ROWS, ROWS * TOKENS)
        assert site.producers == (f"model.layers.{layer}.mlp.gate_proj",)
        assert (site.max_z[DEAD[layer]] == 0).all()


def test_albert_shared_layers_are_one_site() -> None:
    """Source: ALBERT runs one layer three times. One site, whose calls add positions and not samples (DESIGN 2)."""
    report = deadrelu.audit(albert(), [text()], exhaustive=True)
    shared = "encoder.albert_layer_groups.0.albert_layers.0.activation"
    assert [s.site for s in report.sites] == [shared, "pooler_activation"]
    site = report[shared]
    assert site.dead.nonzero()[0].tolist() == DEAD[0]
    assert (site.units, site.samples, site.positions) == (FFN, ROWS, 3 * ROWS * TOKENS)
    assert report.coverage.merged == ((shared, 3),)


def test_chunked_feed_forward_is_one_site() -> None:
    """Source: apply_chunking_to_forward cuts the tokens into chunks: two calls of the same pair in one forward."""
    report = deadrelu.audit(bert("relu", chunk_size_feed_forward=TOKENS // 2), [text(1)], exhaustive=True)
    assert [s.site for s in report.sites] == [s.site for s in BERT_SITES] + [POOLER.site]
    for site, want in zip(report.sites, BERT_SITES, strict=False):
        assert site.dead.nonzero()[0].tolist() == want.dead
        assert (site.units, site.samples, site.positions) == (FFN, ROWS, ROWS * TOKENS)
    assert report.coverage.merged == tuple((want.site, 2) for want in BERT_SITES)


def test_grad_flow_of_a_language_model() -> None:
    """Source: a dead unit's dL/dz is 0 at the pre-activation (DESIGN 2); the loss is the model's own, from labels."""
    model = opt()
    report = deadrelu.audit(model, [text(2)], loss=lambda output, batch: output.loss, exhaustive=True)
    for site, want in zip(report.sites, OPT_SITES, strict=True):
        assert site.grad_flow is not None
        assert (site.grad_flow[want.dead] == 0).all()
        assert (site.grad_flow[~site.dead] > 0).all()
    assert all(p.grad is None for p in model.parameters())
