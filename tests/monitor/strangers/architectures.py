"""Architectures of strangers, each in the plainest training loop that suits it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..brute import Ear
from .sets import DEATHS, STEPS, Set, error, plain, sgd

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}


def conv_batchnorm(on: Set) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 3, groups=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    optimizer = sgd(model, momentum=0.9)
    on.watch(model, optimizer, {"2": (Ear("1", "nupp"), "1.bias"), "6": (Ear("5", "nupp"), "5.bias")})
    plain(on, model, optimizer, 2, 6, 6)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu, self.sum = nn.ReLU(inplace=True), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(self.sum(out))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 5, 3, padding=1)
        self.layers = nn.Sequential(Block(5), Block(5))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(F.relu(self.stem(x))).mean((2, 3)))


def resnet_in_place(on: Set) -> None:
    """One in-place `self.relu` per block, the second time on a sum that `+=` made."""
    model = ResNet()
    optimizer = sgd(model, momentum=0.9, weight_decay=1e-4)
    sites: dict[str, tuple[Ear, str | None]] = {"relu()": (Ear("stem", "nupp"), "stem.bias")}
    for i in range(2):
        sites[f"layers.{i}.relu"] = (Ear(f"layers.{i}.bn1", "nupp"), f"layers.{i}.bn1.bias")
        sites[f"layers.{i}.relu#1"] = (Ear(f"layers.{i}.sum", "nupp"), None)
    on.watch(model, optimizer, sites)
    plain(on, model, optimizer, 2, 5, 5)


def transformer_encoder(on: Set) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 10, dropout=0.1, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    on.watch(
        model, optimizer,
        {f"layers.{i}.relu()": (Ear(f"layers.{i}.linear1", "npu"), f"layers.{i}.linear1.bias") for i in range(2)},
    )  # fmt: skip
    plain(on, model, optimizer, 4, 8)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.out = nn.Linear(5 + 7, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 7)
        for t in range(x.shape[1]):
            h = torch.relu(self.gate(torch.cat((x[:, t], h), 1)))
        return self.out(h)


def recurrent_cell(on: Set) -> None:
    model = Cell()
    optimizer = sgd(model)
    on.watch(model, optimizer, {"relu()": (Ear("gate"), "gate.bias")})
    for step, x in zip(range(STEPS), on.batches(6, 5), strict=False):  # sequences of another length every time
        with on.forward():
            loss = error(model(x[:, : 2 + step % 5]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        on.update(loss)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.merge, self.norm, self.out = nn.Conv2d(8, 5, 3, padding=1), nn.GroupNorm(1, 5), nn.Conv2d(5, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(a))
        c = torch.cat((a, F.relu_(self.up(b))), 1)
        return self.out(self.norm(self.merge(c)).clamp_(min=0))


def u_net(on: Set) -> None:
    model = UNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    on.watch(model, optimizer, {
        "relu()": (Ear("down1", "nupp"), "down1.bias"),
        "relu()#1": (Ear("down2", "nupp"), "down2.bias"),
        "relu()#2": (Ear("up", "nupp"), "up.bias"),
        "clamp()": (Ear("norm", "nupp", op="clamp"), "norm.bias"),
    })  # fmt: skip
    plain(on, model, optimizer, 1, 4, 4)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU())
        self.score = nn.Linear(8, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.score((self.tower(left) - self.tower(right)).abs())


def siamese(on: Set) -> None:
    model = Siamese()
    optimizer = sgd(model)
    on.watch(
        model, optimizer,
        {"tower.1": (Ear("tower.0"), "tower.0.bias"), "tower.3": (Ear("tower.2"), "tower.2.bias")},
    )  # fmt: skip
    for _, a, b in zip(range(STEPS), on.batches(6), on.batches(6), strict=False):
        optimizer.zero_grad()
        with on.forward():
            out = model(left=a, right=b)
        loss = error(out)
        loss.backward()
        optimizer.step()
        on.update(loss)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Dropout(0.2), nn.ReLU(True), nn.Linear(8, 8))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = x + checkpoint(block, x, use_reentrant=i == 0)
        return x


def checkpointing_both_ways(on: Set) -> None:
    """A reentrant block and one that is not: both run again in backward, with the same dropout."""
    model = Checkpointed()
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-3)
    sites = {f"blocks.{i}.3": (Ear(f"blocks.{i}.2"), f"blocks.{i}.1.bias") for i in range(2)}
    on.watch(model, optimizer, sites)
    plain(on, model, optimizer, 6)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 9)
        self.heads = nn.ModuleDict({name: nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 1)) for name in "ab"})
        self.act = nn.ReLU()

    def forward(self, x: Tensor, task: str) -> dict[str, Tensor]:
        shared = self.act(self.trunk(x))
        names = "ab" if task == "both" else task
        return {name: self.heads[name](shared) for name in names}


def tasks_in_turn(on: Set) -> None:
    """A head per task, a task per step, now and then both, and two backward passes through one graph."""
    model = Heads()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sites = {f"heads.{n}.1": (Ear(f"heads.{n}.0"), f"heads.{n}.0.bias") for n in "ab"}
    on.watch(model, optimizer, {"act": (Ear("trunk"), "trunk.bias"), **sites})
    on.expected = {
        "act": DEATHS,
        "heads.a.1": {(1, 5, 18, None, False), (2, 8, 21, 25, False)},
        "heads.b.1": {(1, 4, 18, None, False), (2, 8, 22, 26, False)},
    }
    for step, x in zip(range(STEPS), on.batches(6), strict=False):
        with on.forward():
            out = model(x, task=("both", "a", "both", "b")[step % 4])
        optimizer.zero_grad()
        losses = [error(o) for o in out.values()]
        for loss in losses:
            loss.backward(retain_graph=True)
        optimizer.step()
        on.update(*losses)


class Moody(nn.Module):
    """Control flow by the step, by a coin (stochastic depth) and by the data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.extra, self.out = nn.Linear(8, 5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            if torch.rand(()) < 0.6:
                x = x + F.relu(block(x))
        out = self.out(x)
        if bool(out.mean() > 0):
            out = out + F.relu(self.extra(x)).sum(1, keepdim=True)
        return out


def dynamic_control_flow(on: Set) -> None:
    """Functional calls of one module, any of them missing in any step: told apart by what feeds them."""
    model = Moody()
    optimizer = sgd(model)
    on.watch(model, optimizer, {"relu()": (Ear("stem"), "stem.bias")}, include=["relu()"])
    plain(on, model, optimizer, 6)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 8), nn.ReLU6(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), 4), batch_first=True)
        return self.head(self.lstm(packed)[1][0][-1])


def lstm_with_a_head(on: Set) -> None:
    model = Lstm()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 7)
    on.watch(model, optimizer, {"head.2": (Ear("head.1", op="relu6"), "head.1.bias")})
    for _, x in zip(range(STEPS), on.batches(4, 5), strict=False):
        optimizer.zero_grad()
        with on.forward():
            loss = error(model(x))
        loss.backward()
        optimizer.step()
        schedule.step()
        on.update(loss)


def last_batch_smaller(on: Set) -> None:
    """Epochs of 600 rows in batches of 256: what is left is smaller."""
    model = nn.Sequential(
        nn.Conv1d(3, 5, 2), nn.InstanceNorm1d(5, affine=True), nn.ReLU(), nn.Flatten(), nn.Linear(15, 2)
    )
    optimizer = sgd(model)
    on.watch(model, optimizer, {"2": (Ear("1", "nup"), "1.bias")})
    on.expected = {"2": {(1, 5, 20, None, False), (2, 8, 23, 25, False)}}
    data = next(on.batches(3, 4, rows=600))
    for _ in range(20):
        for x in data.split(256):
            optimizer.zero_grad()
            with on.forward(len(x)):
                loss = error(model(x))
            loss.backward()
            optimizer.step()
            on.update(loss)


class Named(nn.Module):
    """Dictionaries in, a tuple out, and an activation that is looked up by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc1, self.fc2 = nn.Embedding(11, 6), nn.Linear(6, 9), nn.Linear(9, 2)
        self.act = ACTIVATIONS["relu"]

    def forward(self, *, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        x = self.act(self.fc1(self.embed(ids)))
        return self.fc2((x * mask[..., None]).sum(1)), None


def tokens_by_keyword(on: Set) -> None:
    model = Named()
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-3)
    on.watch(model, optimizer, {"relu()": (Ear("fc1", "npu"), "fc1.bias")})
    for _, x in zip(range(STEPS), on.batches(5), strict=False):
        ids = (x.abs() * 4).long().clamp(max=10)
        optimizer.zero_grad()
        with on.forward():
            out, _ = model(ids=ids, mask=(ids > 1).float())
        loss = error(out)
        loss.backward()
        optimizer.step()
        on.update(loss)


class Experts(nn.Module):
    """Rows are sent to experts, by their numbers, by a mask, or in one order for all."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.trunk, self.gate, self.way = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 3), way
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[:, :3].argmax(1)
        x = self.trunk(x)
        weight = self.gate(x).softmax(1).gather(1, chosen[:, None])
        out = x.new_zeros(len(x), 2)
        if self.way == "order":
            order = chosen.argsort()
            parts = x[order].split(torch.bincount(chosen, minlength=3).tolist())
            mixed = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
            return out.index_copy(0, order, mixed) * weight
        for i, expert in enumerate(self.experts):
            rows = chosen == i if self.way == "mask" else (chosen == i).nonzero().flatten()
            given = x.index_select(0, rows) if self.way == "selected" else x[rows]
            mixed = expert(given) * weight[rows]
            if self.way == "mask":
                out[rows] = mixed
            else:
                out = out.index_add(0, rows, mixed)
        return out


def routed(on: Set, way: str) -> None:
    model = Experts(way)
    optimizer = sgd(model)
    sites = {f"experts.{i}.1": (Ear(f"experts.{i}.0"), f"experts.{i}.0.bias") for i in range(3)}
    on.watch(model, optimizer, {"trunk.1": (Ear("trunk.0"), None), **sites})
    plain(on, model, optimizer, 6, rows=900)


SCRIPTS = (
    conv_batchnorm,
    resnet_in_place,
    transformer_encoder,
    recurrent_cell,
    u_net,
    siamese,
    checkpointing_both_ways,
    tasks_in_turn,
    dynamic_control_flow,
    lstm_with_a_head,
    last_batch_smaller,
    tokens_by_keyword,
)
