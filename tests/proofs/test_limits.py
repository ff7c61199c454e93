"""What cannot be followed: nothing false is claimed of it, it is named, and the model comes back as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import states
import torch
from torch import Tensor, nn

import deadrelu
from deadrelu.errors import DataError, ModelError
from deadrelu.proofs import maximising_corner, prove

from . import strange
from .strange import HARMLESS, LIFTING, SILENCING, Host

BOX = {"input_shape": (4,), "input_range": (0, 1)}
every = pytest.mark.parametrize("function", [*HARMLESS, *LIFTING, *SILENCING], ids=lambda f: f.__name__)


def rows() -> Tensor:
    x = torch.rand(1000, 4, generator=torch.Generator().manual_seed(0))
    return torch.cat((x, x.round(), torch.zeros(1, 4), torch.ones(1, 4)))


def forwards(model: nn.Module, x: Tensor) -> Iterator[deadrelu.Report]:
    """Audits of several batch sizes; the model keeps what state it makes."""
    for batch in (1, 3, 1000):
        yield deadrelu.audit(model, x if batch > 1 else x[-40:], batch_size=batch, exhaustive=True)


@every
def test_nothing_that_is_claimed_is_false(function) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proof = prove(Host(function), **BOX)
        assert proof.lost is None or (proof.dead, proof.unbounded[0][1]) == (0, proof.lost)
        for report in forwards(Host(function), rows()) if proof.lost is None else ():
            for seen in report.sites:
                site = proof[seen.site]
                assert not (site.dead & ~seen.silent).any()
                assert (np.nan_to_num(seen.max_z, nan=-np.inf) <= site.upper).all()


@pytest.mark.parametrize("function", HARMLESS, ids=lambda f: f.__name__)
def test_harmless_forwards_are_proved(function) -> None:
    proof = prove(Host(function), **BOX)
    assert proof.lost is None
    assert proof.unbounded == ()
    assert all(site.dead.all() for site in proof)


@pytest.mark.parametrize("function", SILENCING, ids=lambda f: f.__name__)
def test_other_paths_end_all_claims(function) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proof = prove(Host(function), **BOX)
    assert proof.lost
    assert proof.dead == 0
    assert all(site.reason == proof.lost and np.isinf(site.upper).all() for site in proof)


def test_the_strange_forwards_do_fire() -> None:
    """Otherwise the tests above prove nothing."""
    silent = []
    for function in (*LIFTING, *SILENCING):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fires = any((~s.silent).any() for r in forwards(Host(function), rows()) for s in r.sites)
        silent += [] if fires else [function.__name__]
    assert set(silent) <= {"shape", "item", "lazily_negated", "dropout", "state_in_a_buffer"}


def test_reasons_name_the_place() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.tail = Tail()

        def forward(self, x: Tensor) -> Tensor:
            return self.tail(self.body(x))

    class Tail(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(torch.special.gammaln(x))

    proof = prove(Net(), **BOX)
    assert proof["body.1"].reason is None
    assert [place for place, _ in proof.unfollowed] == ["tail.special_gammaln"] or "lgamma" in str(proof.unfollowed)
    assert proof["tail.relu()"].reason is not None
    assert "tail" in proof["tail.relu()"].reason
    assert dict(proof.unbounded).keys() == {"tail.relu()"}


# -- the model comes back as it was ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [False, True], ids=["fine", "refusing"])
def test_the_model_and_torch_are_left_as_they_were(wrong: bool) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5)
    )
    model.train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].eval()
    model[0].bias.requires_grad_(False)
    before = states.module_state(model), states.torch_state()
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(torch.ones(1, 3, 8, 8))
    box = {"input_shape": (3, 9, 9) if wrong else (3, 8, 8), "input_range": (0, 1)}
    if wrong:
        with pytest.raises(DataError, match="refused an input of the box"):
            prove(model, **box)
    else:
        prove(model, **box)
        maximising_corner(model, "2", 0, **box)
    assert (states.module_state(model), states.torch_state()) == before
    assert torch.equal(copy.deepcopy(model).eval()(torch.ones(1, 3, 8, 8)), expected)


# -- inputs ------------------------------------------------------------------------------------------------------------


def test_tokens_are_bounded_by_the_rows_of_their_table() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(10, 6), nn.Linear(6, 5, bias=False)

        def forward(self, tokens: Tensor) -> Tensor:
            return torch.relu(self.fc(self.table(tokens)))

    model = Net().double()
    with torch.no_grad():
        model.table.weight.copy_(torch.arange(60).view(10, 6))
        model.fc.weight.copy_(torch.eye(6)[:5])
    proof = prove(model, input_shape=(7,), input_range=(2, 4))
    assert "whole numbers" in proof.domain
    assert proof["relu()"].upper.tolist() == pytest.approx([24, 25, 26, 27, 28])
    assert proof["relu()"].lower.tolist() == pytest.approx([12, 13, 14, 15, 16])
    ends = torch.tensor([0, 9]), torch.tensor([0, 9])
    exact = prove(model, input_shape=(2,), input_range=ends, dtype=torch.long)
    assert exact["relu()"].upper.tolist() == pytest.approx([54, 55, 56, 57, 58])


def test_several_inputs_by_order_and_by_name() -> None:
    class Net(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.relu(a - 2 * b)

    ranges = [(0, 1), (0.75, 1)]
    proof = prove(Net(), input_shape=[(3,), (3,)], input_range=ranges)
    assert proof["relu()"].upper == pytest.approx([-0.5] * 3)
    named = prove(Net(), input_shape={"b": (3,), "a": (3,)}, input_range={"a": (0, 1), "b": (0.75, 1)})
    assert named["relu()"].dead.all()
    shared = prove(Net(), input_shape=[(3,), (3,)], input_range=(-1, 1))
    assert shared["relu()"].upper == pytest.approx([3.0] * 3)
    assert not shared.dead


def test_the_batch_may_stand_elsewhere() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.RNN(3, 4), First(), nn.ReLU())
    proof = prove(model, input_shape=(5, 3), input_range=(0, 1), batch_dim=1)
    assert proof["2"].units == 4
    assert (proof["2"].upper <= 1.0001).all()


class First(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0]


@pytest.mark.parametrize(
    ("shape", "ends", "message"),
    [
        ((4,), (1, 0), "low end over its high end"),
        ((4,), (0, float("inf")), "not finite"),
        ((4,), 1.0, r"expected \(low, high\)"),
        ((4,), ([0.0, 0.0], 1), "does not fit the input shape"),
        (4, (0, 1), "expected the shape of one sample"),
        ((-1, 4), (0, 1), "negative size"),
        ([(4,), (4,)], [(0, 1)], "2 input shapes, but 1 ranges"),
        ({"x": (4,)}, {"y": (0, 1)}, "expected 'x' too"),
        ((5,), (0, 1), "refused an input of the box"),
    ],
)
def test_a_box_that_does_not_fit_is_refused(shape, ends, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prove(Host(strange.two_layers), input_shape=shape, input_range=ends)


def test_models_that_cannot_be_proved_are_refused() -> None:
    for model, message in (
        (nn.Linear, "expected a torch.nn.Module"),
        (nn.Sequential(nn.Linear(4, 2)), "executed no activation"),
        (nn.Sequential(nn.Linear(4, 2, device="meta"), nn.ReLU()), "no values yet"),
    ):
        with pytest.raises(ModelError, match=message):
            prove(model, **BOX)
    with pytest.raises(ModelError, match="leaves out all sites"):
        prove(Host(strange.two_layers), **BOX, include="head*")
    with pytest.raises(ModelError, match="no unit 9"):
        maximising_corner(Host(strange.two_layers), "relu()", 9, **BOX)


def test_a_proof_becomes_json() -> None:
    held = prove(Host(strange.two_layers), **BOX).to_dict()
    assert held["level"] == "proved"
    assert held["domain"] == "4 numbers from 0 to 1"
    assert held["dead"] == held["units_can_die"] == 16
    assert held["sites"][0]["dead"] == list(range(8))
    lost = prove(Host(strange.item), **BOX).to_dict()
    assert lost["sites"][0]["upper"] == [None] * 8
