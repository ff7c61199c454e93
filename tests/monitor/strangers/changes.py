"""What strangers do to a network while it trains: wrap, copy, prune, freeze, re-initialise, re-parametrise it."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from ..brute import Ear
from .sets import MLP, STEPS, Set, error, mlp, plain, sgd


class Wrapper(nn.Module):
    """What DistributedDataParallel does to the names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return self.module(*args, **kwargs)


def wrapped_like_ddp(on: Set) -> None:
    inner = mlp()
    model = Wrapper(inner)
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP, heard=inner)
    plain(on, model, optimizer, 6)


def data_parallel(on: Set) -> None:
    inner = mlp()
    model = nn.DataParallel(inner)
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP, heard=inner)
    plain(on, model, optimizer, 6)


def moving_average_and_best_copy(on: Set) -> None:
    """An EMA that is updated at every step, validated, and a best copy that is put back in the middle."""
    model = mlp()
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    best = copy.deepcopy(model.state_dict())
    for step, x in zip(range(STEPS), on.batches(6), strict=False):
        with on.forward():
            loss = error(model(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        average(x)  # in training mode, with gradients: not the model
        saved = copy.deepcopy(model)
        if step == 3:
            best = saved.state_dict()
        if step == 4:
            model.load_state_dict(best)
        on.update(loss)


def reinitialised_in_the_middle(on: Set) -> None:
    """`model.apply` of an initialisation brings the dead back, and the optimizer forgets what it knew."""
    model = mlp()
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP)
    on.expected = {site: {(1, 5, 15, 27, False), (2, 8, 18, 25, False)} for site in MLP}

    def fresh(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight)
            nn.init.constant_(module.bias, 0.5)

    for step, x in zip(range(STEPS), on.batches(6), strict=False):
        optimizer.zero_grad()
        with on.forward():
            loss = error(model(x))
        loss.backward()
        optimizer.step()
        on.update(loss)
        if step == 26:
            model.apply(fresh)
            optimizer.state.clear()


def pruned_in_the_middle(on: Set) -> None:
    """Masks come at step 10: `weight` is a product from then on, and the bias a parameter of another name."""
    model = mlp()
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP)
    for step, x in zip(range(STEPS), on.batches(6), strict=False):
        if step == 10:
            prune.l1_unstructured(model[0], "weight", amount=0.3)
            prune.ln_structured(model[2], "weight", amount=2, n=2, dim=0)
        if step == 30:
            prune.remove(model[0], "weight")
        optimizer.zero_grad()
        with on.forward():
            loss = error(model(x))
        loss.backward()
        optimizer.step()
        on.update(loss)


def frozen_then_thawed(on: Set) -> None:
    """A head is trained first; the trunk joins with a parameter group of its own."""
    model = mlp()
    for p in model[0].parameters():
        p.requires_grad_(False)
    optimizer = sgd(model, momentum=0.9)
    on.watch(model, optimizer, MLP)
    for step, x in zip(range(STEPS), on.batches(6), strict=False):
        if step == 12:
            for p in model[0].parameters():
                p.requires_grad_(True)
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 1e-3})
        optimizer.zero_grad()
        with on.forward():
            loss = error(model(x))
        loss.backward()
        optimizer.step()
        on.update(loss)


def normed_weights(on: Set) -> None:
    """weight_norm and spectral_norm as parametrizations: asking for a weight may move its state."""
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 9)), nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(9, 7)), nn.ReLU(),
        parametrizations.orthogonal(nn.Linear(7, 7)), nn.ReLU(), nn.Linear(7, 2),
    )  # fmt: skip
    optimizer = sgd(model)
    on.watch(model, optimizer, {f"{i}": (Ear(f"{i - 1}"), f"{i - 1}.bias") for i in (1, 3, 5)})
    plain(on, model, optimizer, 6)


def old_weight_norm(on: Set) -> None:
    """The hook of before parametrizations, which sets `weight` to a plain tensor at every forward."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        first = nn.utils.weight_norm(nn.Linear(6, 9))
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(9, 2))
    optimizer = sgd(model)
    on.watch(model, optimizer, {"1": (Ear("0"), "0.bias")})
    plain(on, model, optimizer, 6)


SCRIPTS = (
    wrapped_like_ddp,
    data_parallel,
    moving_average_and_best_copy,
    reinitialised_in_the_middle,
    pruned_in_the_middle,
    frozen_then_thawed,
    normed_weights,
    old_weight_norm,
)
