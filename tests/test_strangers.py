"""Strangers: architectures whose samples, units or producers are easily lost on the way, each against its own oracle.

Ground truth: every model rearranges its own pre-activations by hand to (samples, positions, units) where it computes
them; counts follow from DESIGN 2 (ReLU: active where z > 0), names and producers from DESIGN 2 and 6.1.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deadrelu
from deadrelu.errors import DataError
from deadrelu.report import SiteReport

Tape = dict[str, list[np.ndarray]]


class Taped(nn.Module):
    """A model that writes down its pre-activations while it has a tape."""

    tape: Tape | None = None

    def note(self, site: str, z: Tensor, *shape: int) -> Tensor:
        """Write down z, which has `shape` (samples, positions, units) or takes it by a view."""
        if self.tape is not None:
            self.tape.setdefault(site, []).append(z.detach().double().reshape(shape).numpy())
        return z


def kill(bias: Tensor, *units: int) -> None:
    """Plant dead units."""
    with torch.no_grad():
        bias[list(units)] = -1e4


def check(model: Taped, batches: list[Any], planted: dict[str, tuple[int, ...]]) -> deadrelu.Report:
    """Audit a model and compare every site that it wrote down; the planted units are dead, exactly."""
    model.eval()
    tapes: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        model.tape = {}
        with torch.no_grad():
            model(*batch) if isinstance(batch, tuple) else model(batch)
        for site, calls in model.tape.items():
            tapes.setdefault(site, []).append(np.concatenate(calls, 1))
    model.tape = None
    report = deadrelu.audit(model, batches, exhaustive=True)
    assert report.coverage.batch_lost == ()
    assert set(tapes) <= {site.site for site in report.sites}
    for site, zs in tapes.items():
        compare(report[site], zs)
    for site, units in planted.items():
        assert set(units) <= set(np.flatnonzero(report[site].dead)), site
    return report


def compare(found: SiteReport, zs: list[np.ndarray]) -> None:
    samples, positions = sum(len(z) for z in zs), sum(z.shape[0] * z.shape[1] for z in zs)
    active = sum((z > 0).sum((0, 1)) for z in zs)
    fired = sum((z > 0).any(1).sum(0) for z in zs)
    assert (found.units, found.samples, found.positions) == (zs[0].shape[2], samples, positions), found.site
    np.testing.assert_array_equal(found.activation_rate, active / positions)
    np.testing.assert_array_equal(found.sample_rate, fired / samples)
    np.testing.assert_array_equal(found.dead, active == 0)


class Detr(Taped):
    """Learned queries attend to themselves, then to an image (Carion et al. 2020, arXiv:2005.12872)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, 2, 1)
        self.query = nn.Parameter(torch.randn(4, 8))
        self.own, self.cross = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)
        self.linear1, self.linear2, self.box = nn.Linear(8, 10), nn.Linear(10, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        memory = self.backbone(x).flatten(2).permute(2, 0, 1)
        y = self.query.unsqueeze(1).repeat(1, n, 1)
        y = y + self.own(y, y, y)[0]
        y = y + self.cross(y, memory, memory)[0]
        z = self.linear1(y)
        self.note("relu()", z.transpose(0, 1), n, 4, 10)
        z = self.box((y + self.linear2(F.relu(z))).transpose(0, 1))
        return F.relu(self.note("relu()#1", z, n, 4, 6))


# One sample alone, a short last batch, as many samples as queries, as many as features.
@pytest.mark.parametrize("sizes", [(1,), (5, 3), (4, 4), (8,)], ids=str)
def test_learned_queries_know_of_the_samples_once_they_attended_to_them(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Detr()
    kill(model.linear1.bias, 9)
    kill(model.box.bias, 2)
    report = check(model, [torch.randn(n, 3, 8, 8) for n in sizes], {"relu()": (9,), "relu()#1": (2,)})
    assert report["relu()"].producers == ("linear1",)


class Inducing(Taped):
    """Points attend to learned ones, in all spellings (Lee et al. 2019, arXiv:1810.00825)."""

    def __init__(self) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.randn(1, 3, 8))
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        points = self.learned.repeat(n, 1, 1)
        fused = self.out(F.scaled_dot_product_attention(self.q(x), self.k(points), self.v(points)))
        self.note("relu()", fused, n, length, 8)
        by_hand = self.out((self.q(x) @ self.k(points).transpose(1, 2)).softmax(-1) @ self.v(points))
        self.note("relu()", by_hand, n, length, 8)
        return F.relu(fused) + F.relu(by_hand)


@pytest.mark.parametrize("sizes", [(1,), (5, 2), (3,)], ids=str)
def test_the_batch_axis_survives_attention_to_learned_keys(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Inducing()
    kill(model.out.bias, 2)
    check(model, [torch.randn(n, 3, 8) for n in sizes], {"relu()": (2,)})


class Twins(Taped):
    """Two inputs in one batch, taken apart again: Siamese networks, contrastive views, guidance of diffusion."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        n = len(a)
        z = self.encoder(torch.cat((a, b)))
        self.note("relu()", z.view(2, n, 6).transpose(0, 1), n, 2, 6)
        u, v = F.relu(z).chunk(2)
        z = self.head((u - v).abs())
        return F.relu(self.note("relu()#1", z, n, 1, 3))


def test_views_that_share_a_batch_are_the_same_samples_again_once_they_part() -> None:
    torch.manual_seed(0)
    model = Twins()
    kill(model.encoder.bias, 1)
    kill(model.head.bias, 2)
    batches = [(torch.randn(n, 4), torch.randn(n, 4)) for n in (5, 1, 6)]
    check(model, batches, {"relu()": (1,), "relu()#1": (2,)})


class Experts(Taped):
    """Weights of all experts in one parameter, as large mixtures hold them."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 8)), nn.Parameter(torch.randn(3, 8, 8))
        self.gate, self.out = nn.Linear(8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        tokens = x.reshape(-1, 8)
        chosen = self.gate(tokens).argmax(-1)
        y = getattr(self, self.spelling)(tokens, chosen)
        z = self.out(y.view(n, length, 8))
        return F.relu(self.note("relu()#1", z, n, length, 5))

    def loop(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        y = torch.zeros_like(tokens)
        for e in F.one_hot(chosen, 3).sum(0).nonzero():
            (rows,) = torch.where(chosen == e)
            h = F.relu(F.linear(tokens[rows], self.up[e[0]]))
            y.index_add_(0, rows, F.linear(h, self.down[e[0]]))
        return y

    def gathered(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        h = F.relu(torch.bmm(self.up[chosen], tokens.unsqueeze(-1)).squeeze(-1))
        return torch.bmm(self.down[chosen], h.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("spelling", ["loop", "gathered"])
def test_experts_are_their_weights_and_lose_no_sample(spelling: str) -> None:
    torch.manual_seed(0)
    model = Experts(spelling).eval()
    kill(model.out.bias, 4)
    with torch.no_grad():
        model.up[:, 6] = 0
    batches = [torch.randn(n, 4, 8) for n in (5, 3)]
    report = deadrelu.audit(model, batches, exhaustive=True)
    experts, out = report.sites
    assert (experts.producers, experts.units, np.flatnonzero(experts.dead).tolist()) == (("up",), 8, [6])
    assert (out.producers, out.samples, out.positions) == (("out",), 8, 32)
    assert out.dead[4]
    # The tokens of an expert are a part of a batch; those that were only gathered are still whole samples.
    assert report.coverage.batch_lost == (("relu()",) if spelling == "loop" else ())


class Routed(Taped):
    """Whole samples are sent to experts, each of which sees a part of the batch, or nothing of it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.experts = nn.ModuleList(nn.Sequential(nn.Conv1d(4, 6, 2), nn.ReLU(), nn.Conv1d(6, 3, 2)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = x[:, :3, 0].argmax(1), x.new_zeros(len(x), 3, 5)
        for i, expert in enumerate(self.experts):
            mask = chosen == i
            numbers = mask.nonzero()[:, 0]
            if self.way == "backwards":
                numbers = numbers.flip(0) - len(x)
            given = x[mask] if self.way == "mask" else x.index_select(0, numbers) if self.way == "ahead" else x[numbers]
            z = expert[0](given)
            if len(z):
                self.note(f"experts.{i}.1", z.transpose(1, 2), len(z), 6, 6)
            out[numbers] = expert[2](expert[1](z))
        return out


@pytest.mark.parametrize("way", ["mask", "ahead", "backwards"])
def test_what_an_expert_is_sent_are_samples(way: str) -> None:
    torch.manual_seed(0)
    model = Routed(way)
    for i, expert in enumerate(model.experts):
        kill(expert[0].bias, i)
    batches = [torch.randn(n, 4, 7) for n in (9, 1, 20)]
    report = check(model, batches, {f"experts.{i}.1": (i,) for i in range(3)})
    assert sum(site.samples for site in report.sites) == report.samples == 30


def test_a_grouped_product_is_made_by_its_weights() -> None:
    """torch.nn.functional.grouped_mm: row i of the input times the matrix of the group that i lies in."""
    if not hasattr(F, "grouped_mm"):
        pytest.skip("this torch has no grouped_mm")

    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(2, 8, 16, dtype=torch.bfloat16))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(F.grouped_mm(x, self.up, offs=torch.tensor([2, len(x)], dtype=torch.int32)))

    torch.manual_seed(0)
    model = Grouped()
    with torch.no_grad():
        model.up[:, :, 5] = 0
    site = deadrelu.audit(model, [torch.randn(6, 8, dtype=torch.bfloat16)], exhaustive=True).sites[0]
    assert (site.producers, site.units, site.samples) == (("up",), 16, 6)
    assert site.dead[5]


class Table(Taped):
    """An embedding that is a parameter and an index."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Parameter(torch.randn(20, 6)), nn.Parameter(torch.randn(9, 6))
        self.head = nn.Linear(6, 5)

    def forward(self, ids: Tensor) -> Tensor:
        n, length = ids.shape
        x = self.note("relu()", self.words[ids], n, length, 6)
        z = self.head(F.relu(x) + self.places[torch.arange(length)])
        return F.relu(self.note("relu()#1", z, n, length, 5))


@pytest.mark.parametrize(("n", "length"), [(5, 4), (4, 4), (6, 6), (1, 3)])
def test_an_indexed_parameter_is_an_embedding(n: int, length: int) -> None:
    torch.manual_seed(0)
    model = Table()
    kill(model.head.bias, 3)
    report = check(model, [torch.randint(0, 20, (n, length))], {"relu()#1": (3,)})
    assert report["relu()"].producers == ("words",)


class Ragged(Taped):
    """Sequences of different lengths through a packed LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        z = self.head(y)
        return F.relu(self.note("relu()", z, len(x), y.shape[1], 5))


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 1), (1, 7), (3, 3)])
def test_one_hot_classes_keep_the_samples(shape: tuple[int, ...]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(9, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.fc(F.one_hot(x, 9).float()))

    torch.manual_seed(0)
    model, x = Net(), torch.randint(9, shape)
    report = deadrelu.audit(model, x)
    z = model.fc(F.one_hot(x, 9).float()).view(shape[0], -1, 4)
    assert not report.coverage.batch_lost
    assert (report["relu()"].samples, report["relu()"].positions) == (shape[0], z[..., 0].numel())
    assert report["relu()"].sample_rate.tolist() == pytest.approx((z > 0).any(1).double().mean(0).tolist())


def test_sequences_are_samples_again_after_a_packed_lstm() -> None:
    torch.manual_seed(0)
    model = Ragged()
    kill(model.head.bias, 2)
    check(model, [(torch.randn(4, 6, 4), torch.tensor([6, 2, 5, 1]))], {"relu()": (2,)})


def test_an_optional_input_is_kept_where_the_batch_needs_it() -> None:
    """nn.EmbeddingBag refuses flat indices without offsets, which look like labels: one number per sample."""

    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(20, 6)

        def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
            return F.relu(self.bag(ids, offsets))

    batch = (torch.arange(13), torch.tensor([0, 3, 8]))
    assert deadrelu.audit(Bags(), [batch], exhaustive=True).sites[0].positions == 3
    labelled = (torch.arange(12).view(3, 4), torch.tensor([1, 0, 1]))  # refused with offsets: a label
    assert deadrelu.audit(Bags(), [labelled], exhaustive=True).sites[0].samples == 3


def test_the_wrapper_of_a_compiled_part_is_in_no_name() -> None:
    """DESIGN 2: `module.` and `_orig_mod.` are stripped."""
    model = nn.Sequential()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        model.add_module("fc", torch.compile(nn.Linear(4, 6), backend="eager"))
        model.add_module("act", torch.compile(nn.ReLU(), backend="eager"))
    site = deadrelu.audit(model, torch.randn(3, 4), exhaustive=True).sites[0]
    assert (site.site, site.producers) == ("act", ("fc",))


@pytest.mark.parametrize("setting", [{"batch_size": 2.5}, {"max_samples": 2.5}], ids=str)
def test_a_size_that_is_no_whole_number_is_a_data_error(setting: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="whole number"):
        deadrelu.audit(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.randn(3, 4), **setting)


class HalfInferring(nn.Module):
    """Is in inference mode for a part of its forward pass, and calls one activation in and out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            h = self.relu(self.b(self.relu(self.a(x))))
        return self.relu(self.b(h.clone()))


def test_inference_mode_inside_of_a_model() -> None:
    """Counters that are made inside of it are added to outside."""
    torch.manual_seed(0)
    model, x = HalfInferring(), torch.randn(300, 4)
    report = deadrelu.audit(model, x, batch_size=100)
    with torch.no_grad():
        first = model.a(x)
        second = model.b(first.relu())
        third = model.b(second.relu())
    np.testing.assert_array_equal(report["relu"].max_z, first.amax(0))
    np.testing.assert_array_equal(report["relu#1"].max_z, torch.maximum(second, third).amax(0))
