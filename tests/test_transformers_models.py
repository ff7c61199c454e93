"""Exact dead sets in Hugging Face models, no token counted as a unit (the models: transformers_models.py)."""

from __future__ import annotations

import pytest
from transformers_models import (
    BERT_SITES,
    CASES,
    DEAD,
    FFN,
    OPT_SITES,
    POOLER,
    ROWS,
    T5_SITES,
    TOKENS,
    albert,
    bert,
    llama,
    opt,
    t5,
    text,
)

import deadrelu


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
