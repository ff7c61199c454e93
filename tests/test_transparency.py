"""An audit changes nothing: what a user can see is bit for bit as before, however the audit ends (DESIGN 5.1)."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from awkward import Awkward, awkward, images, keep, square
from states import assert_same, hook_state, module_state, tensor_state, torch_state
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import deadrelu
from deadrelu.errors import ModelError


class Boom(Exception):
    """What a user's model or loss raises; no other code knows it."""


def interrupted() -> Iterator[torch.Tensor]:
    yield images(8)
    raise KeyboardInterrupt


def failing_loss(output: torch.Tensor, _batch: Any) -> torch.Tensor:
    raise Boom("in loss")


def end_well(model: Awkward) -> None:
    deadrelu.audit(model, images(), batch_size=8)


def end_well_with_loss(model: Awkward) -> None:
    report = deadrelu.audit(model, images(), batch_size=8, loss=square)
    assert all(site.grad_flow is not None for site in report.sites)


def fail_with(error: BaseException, calls: int, **options: Any) -> Callable[[Awkward], None]:
    def end(model: Awkward) -> None:
        model.fail, model.until = error, calls
        expected = (KeyboardInterrupt,) if isinstance(error, KeyboardInterrupt) else (Boom, deadrelu.DeadReluError)
        try:
            with pytest.raises(expected):
                deadrelu.audit(model, images(), batch_size=8, **options)
        finally:
            model.fail, model.until = None, 0

    return end


def interrupt_in_data(model: Awkward) -> None:
    with pytest.raises(KeyboardInterrupt):
        deadrelu.audit(model, interrupted())


def interrupt_in_data_with_loss(model: Awkward) -> None:
    with pytest.raises(KeyboardInterrupt):
        deadrelu.audit(model, interrupted(), loss=square)


def fail_in_loss(model: Awkward) -> None:
    with pytest.raises((Boom, deadrelu.DeadReluError)):
        deadrelu.audit(model, images(), batch_size=8, loss=failing_loss)


def fail_on_data(model: Awkward) -> None:
    with pytest.raises(deadrelu.DeadReluError):
        deadrelu.audit(model, torch.zeros(4, 5))  # the wrong shape
    with pytest.raises(deadrelu.DeadReluError):
        deadrelu.audit(model, [])


def use_up_a_loader(model: Awkward) -> None:
    deadrelu.audit(model, DataLoader(TensorDataset(images(), torch.zeros(24)), batch_size=8, shuffle=True))


ENDINGS: dict[str, Callable[[Awkward], None]] = {
    "well": end_well,
    "well, with a loss": end_well_with_loss,
    "well, shuffled loader": use_up_a_loader,
    "exception in the first forward": fail_with(Boom("in forward"), 0),
    "exception in a later forward": fail_with(Boom("in forward"), 2),
    "exception in forward, with a loss": fail_with(Boom("in forward"), 2, loss=square),
    "interrupt in forward": fail_with(KeyboardInterrupt(), 2),
    "interrupt in forward, with a loss": fail_with(KeyboardInterrupt(), 2, loss=square),
    "interrupt in the data": interrupt_in_data,
    "interrupt in the data, with a loss": interrupt_in_data_with_loss,
    "exception in the loss": fail_in_loss,
    "bad data": fail_on_data,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_state_is_as_before(ending: str) -> None:
    """Source: DESIGN 5.1. Parameters, buffers, .training, requires_grad, .grad, RNG, hooks, modes, flags."""
    model = awkward()
    model(images(4)).sum().backward()  # a use before, so that lazily made state is there
    before, world = module_state(model), torch_state()
    ENDINGS[ending](model)
    assert_same(before, module_state(model))
    assert_same(world, torch_state())


@pytest.mark.parametrize("training", [True, False])
def test_the_outputs_are_as_before(training: bool) -> None:
    """Source: the same model, seeds and inputs without an audit in between; with noise, so the RNG state counts too."""
    plain, audited = awkward().train(training), awkward().train(training)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    want = [plain(images(4)) for _ in range(2)]
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    got = [audited(images(4))]
    end_well_with_loss(audited)
    got.append(audited(images(4)))
    assert [tensor_state(t) for t in got] == [tensor_state(t) for t in want]
    assert_same(
        {k: v for k, v in module_state(plain).items() if "buffer" in k},
        {k: v for k, v in module_state(audited).items() if "buffer" in k},
    )


@pytest.mark.parametrize("loss", [None, square])
def test_what_the_model_computes_during_the_audit(loss: Any) -> None:
    """Source: the plain eval forward, batch by batch, bit for bit."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 4)
    )
    model(images())  # moves the running statistics
    seen: list[torch.Tensor] = []

    def forward(m: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        seen.append(m(batch))
        return seen[-1]

    deadrelu.audit(model, images(), batch_size=8, forward=forward, loss=loss)
    model.eval()
    with torch.no_grad():
        want = [model(part) for part in images().split(8)]
    for out in seen:
        assert any(torch.equal(out.detach(), w) for w in want)
    assert all(any(torch.equal(out.detach(), w) for out in seen) for w in want)


def test_the_users_modes_stay() -> None:
    """An audit inside of the caller's own function mode, no_grad, inference mode, global hook leaves each in place."""

    class Mine(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    model, handle = awkward(), torch.nn.modules.module.register_module_forward_hook(keep)
    try:
        with Mine(), torch.no_grad():
            world = torch_state()
            end_well_with_loss(model)
            assert_same(world, torch_state())
        with torch.inference_mode():
            world = torch_state()
            end_well(model)
            assert_same(world, torch_state())
    finally:
        handle.remove()


@pytest.mark.parametrize("own", ["loader", "sampler"])
def test_a_loaders_own_generator_is_as_before(own: str) -> None:
    """Source: the order of the next epoch of a loader that no audit used."""

    def loader() -> DataLoader[Any]:
        data, rng = TensorDataset(images()), torch.Generator().manual_seed(4)
        if own == "loader":
            return DataLoader(data, batch_size=8, shuffle=True, generator=rng)
        return DataLoader(data, batch_size=8, sampler=RandomSampler(data, generator=rng))

    plain, used = loader(), loader()
    deadrelu.audit(awkward(), used)
    torch.manual_seed(0)
    want = [x for (x,) in plain]
    torch.manual_seed(0)
    assert all(torch.equal(x, w) for (x,), w in zip(used, want, strict=True))


def test_a_fused_optimizer_does_not_step() -> None:
    """A step fused into backward (post-accumulate-grad hooks) and hooks on parameters must not run in an audit."""
    model, runs = awkward(), []
    for p in model.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: (runs.append("step"), p.data.sub_(p.grad))[0])
            p.register_hook(lambda g: runs.append("hook"))
    before = module_state(model)
    report = deadrelu.audit(model, images(), batch_size=8, loss=square)
    assert all((site.grad_flow > 0).any() for site in report.sites if site.grad_flow is not None)
    assert runs == []
    assert_same(before, module_state(model))


def test_the_data_is_as_before() -> None:
    """The caller's tensors keep value, version and .grad, also when the first operation of the model is in place."""
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 4), nn.ReLU(inplace=True))
    x = torch.randn(32, 5, generator=torch.Generator().manual_seed(2))
    for data in (x, [x], TensorDataset(x)):
        kept = x.clone()
        deadrelu.audit(model, data, batch_size=8, loss=square)
        assert torch.equal(x, kept)
        assert (x.requires_grad, x.grad, x._backward_hooks) == (False, None, None)


def test_copy_and_pickle_after_an_audit() -> None:
    """Source: a model that no audit saw; nothing left behind hinders a copy or goes along with it."""
    model = awkward(parametrised=False)  # weight_norm's own hooks cannot be pickled
    end_well_with_loss(model)
    untouched = awkward(parametrised=False)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for (name, a), (_, b) in zip(twin.named_modules(), untouched.named_modules(), strict=True):
            hooks = [[[f for _, f in table] for table in hook_state(m).values()] for m in (a, b)]
            assert hooks[0] == hooks[1], name
            assert (a.training, sorted(vars(a))) == (b.training, sorted(vars(b))), name
        states = [[tensor_state(t) for t in (*m.parameters(), *m.buffers())] for m in (twin, untouched)]
        assert states[0] == states[1]


class Checkpointed(nn.Module):
    """A model with a segment under activation checkpointing (mode None: without)."""

    def __init__(self, mode: bool | None) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.mode = mode
        self.stem = nn.Linear(5, 8)
        self.segment = nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)
        with torch.no_grad():
            self.segment[0].bias.fill_(1.0)
            self.segment[0].bias[[2, 3]] = -100.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = self.segment(x) if self.mode is None else checkpoint(self.segment, x, use_reentrant=self.mode)
        return self.head(x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("loss", [None, square])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_segments(reentrant: bool, loss: Any) -> None:
    """Source: the same model without checkpointing. The replay in backward counts no second time."""
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(2))
    model = Checkpointed(reentrant)
    model(x).sum().backward()
    before = module_state(model)
    got = deadrelu.audit(model, x, batch_size=16, exhaustive=True, loss=loss)
    assert_same(before, module_state(model))
    want = deadrelu.audit(Checkpointed(None), x, batch_size=16, exhaustive=True, loss=loss)
    assert got["segment.1"].dead.nonzero()[0].tolist() == [2, 3]
    assert [s.site for s in got.sites] == [s.site for s in want.sites]
    for a, b in zip(got.sites, want.sites, strict=True):
        assert (a.samples, a.positions, a.status) == (b.samples, b.positions, b.status) == (64, 64, b.status)
        assert (a.grad_flow is None) == (loss is None)
        if loss is not None:
            np.testing.assert_allclose(a.grad_flow, b.grad_flow, rtol=1e-5)


def test_lazy_modules_are_refused_and_stay_lazy() -> None:
    """Source: DESIGN 5.4: a message says what happened and what to do; an audit must not initialise anything."""
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU())
    with pytest.raises(ModelError, match=r"(?i)initiali[sz]ed") as caught:
        deadrelu.audit(model, torch.randn(8, 3))
    assert "\n" not in str(caught.value)
    assert type(model[0]) is nn.LazyLinear
    assert isinstance(model[0].weight, nn.UninitializedParameter)
