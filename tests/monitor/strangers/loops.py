"""Training loops of strangers: what happens between two updates of an ordinary network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..brute import Ear
from .sets import MLP, STEPS, Set, error, mlp, sgd


def adversaries_in_one_dict(on: Set) -> None:
    """Generator and discriminator in one ModuleDict, two optimizers, one Monitor: every update is a step."""
    model = nn.ModuleDict({
        "g": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6)),
        "d": nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)),
    })  # fmt: skip
    pair = [torch.optim.Adam(model[k].parameters(), lr=1e-3, betas=(0.5, 0.9)) for k in ("g", "d")]
    on.watch(model, pair, {"g.1": (Ear("g.0"), "g.0.bias"), "d.1": (Ear("d.0"), "d.0.bias")})
    # The generator runs in every other step; the discriminator sees 600 rows in the one and 300 in the other.
    on.expected = {"g.1": {(1, 4, 24, None, False)}, "d.1": {(1, 5, 12, None, False), (2, 8, 15, 25, False)}}
    for _, z, real in zip(range(STEPS // 2), on.batches(4), on.batches(6), strict=False):
        pair[1].zero_grad()
        with on.forward():
            fake = model["g"](z)
        with on.forward():
            good = model["d"](real)
        with on.forward():
            bad = model["d"](fake.detach())
        loss = F.softplus(-good).mean() + F.softplus(bad).mean()
        loss.backward()
        pair[1].step()
        on.update(loss)
        pair[0].zero_grad()
        with on.forward():
            score = model["d"](fake)
        loss = F.softplus(-score).mean()
        loss.backward()
        pair[0].step()
        on.update(loss)


def triplets(on: Set) -> None:
    """Three forwards of the root, one backward, one update."""
    model = mlp()
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP)
    for _, x in zip(range(STEPS), on.batches(3, 6, rows=100), strict=False):
        out = []
        for i in range(3):
            with on.forward(100):
                out.append(model(x[:, i]))
        optimizer.zero_grad()
        loss = F.triplet_margin_loss(*out)
        loss.backward()
        optimizer.step()
        on.update(loss)


def accumulation_with_a_remainder(on: Set) -> None:
    """Micro-batches of uneven size, divided losses, an update after the last of them."""
    model = mlp()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    on.watch(model, optimizer, MLP)
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        losses = []
        for part in x.split(128):
            with on.forward(len(part)):
                out = model(part)
            losses.append(error(out) * len(part) / len(x))
            losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
        on.update(*losses)


def autocast_bfloat16(on: Set) -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(True), nn.Flatten(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    on.watch(model, optimizer, {"1": (Ear("0", "nupp"), "0.bias"), "4": (Ear("3"), "3.bias")})
    for _, x in zip(range(STEPS), on.batches(1, 4, 4), strict=False):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16), on.forward():
            loss = error(model(x))
        loss.backward()
        optimizer.step()
        on.update(loss)


def all_bfloat16(on: Set) -> None:
    model = mlp().bfloat16()
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP)
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        optimizer.zero_grad()
        with on.forward():
            loss = error(model(x.bfloat16()))
        loss.backward()
        optimizer.step()
        on.update(loss)


def double_precision(on: Set) -> None:
    model = mlp().double()
    optimizer = torch.optim.Rprop(model.parameters(), lr=1e-3)
    on.watch(model, optimizer, MLP)
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        optimizer.zero_grad()
        with on.forward():
            loss = error(model(x.double()))
        loss.backward()
        optimizer.step()
        on.update(loss)


def closure_of_lbfgs(on: Set) -> None:
    """The forwards of a closure, as many as the line search wants, belong to one step."""
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.05, max_iter=3, line_search_fn="strong_wolfe")
    on.watch(model, optimizer, MLP)
    on.expected = {}  # the line search decides how many forwards a step has
    for _, x in zip(range(STEPS), on.batches(6), strict=False):

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            with on.forward():
                loss = error(model(x))
            loss.backward()
            return loss

        on.update(optimizer.step(closure))


def sharpness_aware(on: Set) -> None:
    """Two forwards and backwards a step, of which the first is at perturbed weights; one update."""
    model = mlp()
    optimizer = sgd(model, momentum=0.9)
    on.watch(model, optimizer, MLP)
    for _, x in zip(range(STEPS), on.batches(6, rows=150), strict=False):
        with on.forward(150):
            first = error(model(x))
        first.backward()
        with torch.no_grad():
            moves = [0.05 * p.grad / (p.grad.norm() + 1e-12) for p in model.parameters()]
            for p, e in zip(model.parameters(), moves, strict=True):
                p.add_(e)
        optimizer.zero_grad()
        with on.forward(150):
            second = error(model(x))
        second.backward()
        with torch.no_grad():
            for p, e in zip(model.parameters(), moves, strict=True):
                p.sub_(e)
        optimizer.step()
        optimizer.zero_grad()
        on.update(first, second)


def modes_mixed_in_a_step(on: Set) -> None:
    """A teacher pass of the same model in eval mode, a pass under no_grad, then the one that counts."""
    model = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.2), nn.Linear(9, 2))
    optimizer = sgd(model)
    on.watch(model, optimizer, {"2": (Ear("1"), "1.bias")})
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        model.eval()
        teacher = model(x + 5)
        model.train()
        with torch.no_grad():
            model(x - 5)
        with on.forward():
            out = model(x)
        optimizer.zero_grad()
        loss = error(out - teacher.detach())
        loss.backward()
        optimizer.step()
        on.update(loss)


def empty_and_lonely_batches(on: Set) -> None:
    """A sampler that now and then gives nothing, or one row, beside the usual batch: micro-batches of one step."""
    model = mlp()
    optimizer = sgd(model)
    on.watch(model, optimizer, MLP)
    for step, x in zip(range(STEPS), on.batches(6), strict=False):
        optimizer.zero_grad()
        losses = []
        for part in (x[:0], x[:1], x[1:]) if step % 3 else (x, x[:0]):
            if len(part):
                with on.forward(len(part)):
                    out = model(part)
            else:
                out = model(part)
            losses.append((out.double() - 1).square().sum())
            losses[-1].backward()
        for p in model.parameters():
            p.grad /= 300
        optimizer.step()
        on.update(*losses)


def channels_last(on: Set) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).to(memory_format=torch.channels_last)
    optimizer = sgd(model)
    on.watch(model, optimizer, {"1": (Ear("0", "nupp"), "0.bias"), "3": (Ear("2", "nupp"), "2.bias")})
    for _, x in zip(range(STEPS), on.batches(2, 6, 6), strict=False):
        with on.forward():
            out = model(x.to(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=False)
        error(out).backward()
        optimizer.step()
        on.update(error(out))


def functional_parameters(on: Set) -> None:
    """torch.func: the parameters of a forward are not the model's own, and the update is by hand."""
    model = mlp()
    on.watch(model, None, MLP)
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        params = {k: p.detach().clone().requires_grad_() for k, p in model.named_parameters()}
        with on.forward():
            loss = error(torch.func.functional_call(model, params, (x,)))
        grads = torch.autograd.grad(loss, tuple(params.values()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p.sub_(g, alpha=0.01)
        if on.monitor is not None:
            on.monitor.step()
        on.update(loss)


def gradient_penalty(on: Set) -> None:
    """Double backward: the gradient of the output is part of the loss."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=True)
    on.watch(model, optimizer, MLP)
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        x = x.requires_grad_()
        with on.forward():
            out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        loss = error(out) + (slope.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on.update(loss)


def update_inside_of_backward(on: Set) -> None:
    """An optimizer per parameter, each stepping as soon as its gradient is there: one step a backward."""
    model = mlp()
    each = {p: torch.optim.Adam([p], lr=1e-3, fused=True) for p in model.parameters()}

    def hook(p: Tensor) -> None:
        each[p].step()
        each[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(hook)
    on.watch(model, list(each.values()), MLP)
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        with on.forward():
            loss = error(model(x))
        loss.backward()
        on.update(loss)


def hand_written_update(on: Set) -> None:
    """No optimizer, and the user's own forward hook that changes what the activation gets."""
    model = mlp()
    model[0].register_forward_hook(lambda _, __, out: out * 1.5)
    on.watch(model, None, MLP)
    for _, x in zip(range(STEPS), on.batches(6), strict=False):
        with on.forward():
            loss = error(model(x))
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.01 * p.grad
        if on.monitor is not None:
            on.monitor.step()
        on.update(loss)


SCRIPTS = (
    adversaries_in_one_dict,
    triplets,
    accumulation_with_a_remainder,
    autocast_bfloat16,
    all_bfloat16,
    double_precision,
    closure_of_lbfgs,
    sharpness_aware,
    modes_mixed_in_a_step,
    empty_and_lonely_batches,
    channels_last,
    functional_parameters,
    gradient_penalty,
    update_inside_of_backward,
    hand_written_update,
)
