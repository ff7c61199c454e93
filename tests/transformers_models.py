"""Tiny, randomly initialised Hugging Face models with planted dead units, and the sites that they must have.

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
