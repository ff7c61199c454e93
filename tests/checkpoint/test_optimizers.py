"""Whose state is whose: every optimizer of torch, groups, buffers in between, and what cannot be known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from versions import told

from deadrelu.checkpoint import Checkpoint, ParameterStates, open_checkpoint
from deadrelu.checkpoint.optimizer import guess_class

from .writers import model, opened, trained

OPTIMIZERS: list[tuple[Any, dict[str, Any], str]] = [
    (torch.optim.Adam, {}, "Adam"),
    (torch.optim.AdamW, {}, "AdamW"),
    (torch.optim.AdamW, {"amsgrad": True}, "AdamW"),
    (torch.optim.NAdam, {}, "NAdam"),
    (torch.optim.RAdam, {}, "RAdam"),
    (torch.optim.Adamax, {}, "Adamax"),
    (torch.optim.Adagrad, {}, "Adagrad"),
    (torch.optim.Adadelta, {}, "Adadelta"),
    (torch.optim.RMSprop, {"momentum": 0.9}, "RMSprop"),
    (torch.optim.Rprop, {}, "Rprop"),
    (torch.optim.ASGD, {}, "ASGD"),
    (torch.optim.SGD, {}, "SGD"),
    (torch.optim.SGD, {"momentum": 0.9}, "SGD"),
    (torch.optim.Adafactor, {}, "Adafactor"),
]


def both(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> Checkpoint:
    return opened({"model": network.state_dict(), "optimizer": optimizer.state_dict()}, path)


def stepped(network: nn.Module, optimizer: torch.optim.Optimizer, *inputs: torch.Tensor) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        network(*inputs).square().sum().backward()
        optimizer.step()


def check(states: ParameterStates | None, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fail unless every state that was assigned is that of the very parameter."""
    assert states is not None
    parameters = dict(network.named_parameters())
    for name, kept in states.states.items():
        live = optimizer.state[parameters[name]]
        assert set(kept) == set(live)
        assert all(torch.equal(kept[key], value) for key, value in live.items() if isinstance(value, torch.Tensor))
        group = optimizer.param_groups[states.groups[name]]["params"]
        assert any(parameter is parameters[name] for parameter in group)


@pytest.mark.parametrize(("kind", "settings", "expected"), OPTIMIZERS)
def test_every_optimizer(kind: Any, settings: dict[str, Any], expected: str, tmp_path: Path) -> None:
    network, optimizer = trained(kind, **settings)
    checkpoint = both(network, optimizer, tmp_path / "net.pt")
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.guess == told(expected)
    states = checkpoint.parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert list(states.states) == [name for name, _ in network.named_parameters()]
    assert (dict(states.uncertain), states.unmatched, states.how) == ({}, 0, "order")


def test_classes_that_the_keys_do_not_tell() -> None:
    """Before torch 2.7, Adam and AdamW wrote the same keys; unknown ones are not guessed."""
    old = [{"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "params": [0]}]
    assert guess_class(old, [{"step": 1, "exp_avg": 0, "exp_avg_sq": 0}]) == "Adam or AdamW"
    assert guess_class([{**old[0], "decoupled_weight_decay": False}], []) == "Adam"
    assert guess_class([{"lr": 1, "betas": (0.9, 0.99), "weight_decay": 0, "params": []}], [{"exp_avg": 0}]) == "Lion"
    assert guess_class([{"lr": 1, "params": []}], [{"z": 0}]) is None
    assert (
        guess_class([{"lr": 1, "betas": (0.9, 0.9), "eps": 0, "params": []}], [{"exp_avg": 0, "exp_avg_sq": 0}]) is None
    )


class Mixed(nn.Module):
    """Equal shapes, a buffer between parameters that has their shape, a frozen parameter, a tied one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.register_buffer("offset", torch.zeros(6))
        self.norm = nn.LayerNorm(6)
        self.second = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.second.weight
        self.last = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.first(x + self.offset))
        return self.last(self.tied(self.second(h).relu()))


def test_a_buffer_of_the_same_shape_makes_its_neighbours_uncertain(tmp_path: Path) -> None:
    """A state_dict lists a module's own buffers first: `offset` could be `first.bias`."""
    network = Mixed()
    optimizer = torch.optim.Adam(network.parameters())
    stepped(network, optimizer, torch.randn(4, 6))
    checkpoint = both(network, optimizer, tmp_path / "net.pt")
    assert next(iter(checkpoint.weights)) == "offset"
    states = checkpoint.parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert {"first.weight", "second.weight", "last.weight", "last.bias"} <= set(states.states)
    known = checkpoint.parameter_states(parameters=[name for name, _ in network.named_parameters()])
    check(known, network, optimizer)
    assert known is not None
    assert list(known.states) == [name for name, _ in network.named_parameters()]


def test_groups_by_kind(tmp_path: Path) -> None:
    """Weights with decay, then biases and norms without, as most training programs sort them."""
    network = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0}])
    stepped(network, optimizer, torch.randn(4, 6))
    states = both(network, optimizer, tmp_path / "net.pt").parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert len(states.states) == 8
    assert (states.groups["0.weight"], states.groups["0.bias"]) == (0, 1)


def test_a_backbone_and_a_head_of_equal_shapes_are_not_told_apart(tmp_path: Path) -> None:
    """The head first, all layers alike: nothing in the file says which is which, and nothing is claimed."""
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    optimizer = torch.optim.Adam([{"params": network[2].parameters()}, {"params": network[:2].parameters()}])
    stepped(network, optimizer, torch.randn(4, 6))
    checkpoint = both(network, optimizer, tmp_path / "net.pt")
    states = checkpoint.parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert states.states == {}
    assert set(states.uncertain.values()) == {"other parameters of its shape could have this state"}
    assert states.unmatched == 6


def test_parameters_that_never_had_a_gradient(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 2))
    optimizer = torch.optim.Adam(network.parameters())
    stepped(nn.Sequential(network[0], network[2]), optimizer, torch.randn(4, 6))
    states = both(network, optimizer, tmp_path / "net.pt").parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert dict(states.states["1.weight"]) == {}
    assert len(states.states) == 6


def test_named_parameters(tmp_path: Path) -> None:
    """Since torch 2.6 an optimizer may hold names; then neither order nor shapes matter."""
    network = Mixed()
    named = list(network.named_parameters())
    optimizer = torch.optim.Adam([{"params": named[::2]}, {"params": named[1::2]}])
    stepped(network, optimizer, torch.randn(4, 6))
    states = both(network, optimizer, tmp_path / "net.pt").parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert states.how == "names"
    assert set(states.states) == {name for name, _ in named}
    assert set(states.uncertain) == {"offset"}


def test_keys_that_are_names(tmp_path: Path) -> None:
    """As the distributed state-dict functions write them."""
    network, optimizer = trained()
    held = optimizer.state_dict()
    names = [f"module.{name}" for name, _ in network.named_parameters()]
    held["state"] = {name: held["state"][index] for index, name in enumerate(names)}
    held["param_groups"][0]["params"] = names
    checkpoint = opened({"model": network.state_dict(), "optimizer": held}, tmp_path / "net.pt")
    states = checkpoint.parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert (states.how, len(states.states)) == ("names", 6)


def test_a_format_that_lost_the_order(tmp_path: Path) -> None:
    """A safetensors file is sorted: a shape that occurs once is certain, the others are not."""
    from safetensors.torch import save_file

    network = Mixed()
    optimizer = torch.optim.Adam(network.parameters())
    stepped(network, optimizer, torch.randn(4, 6))
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "tied.weight"}
    save_file(state, tmp_path / "model.safetensors")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    from deadrelu.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(tmp_path)
    states = checkpoint.parameter_states()
    check(states, network, optimizer)
    assert states is not None
    assert set(states.states) == {"last.weight", "last.bias"}
    assert states.how == "shapes"
    known = checkpoint.parameter_states(parameters=[name for name, _ in network.named_parameters()])
    check(known, network, optimizer)
    assert known is not None
    assert len(known.states) == 8


def test_an_optimizer_of_another_model(tmp_path: Path) -> None:
    network = model()
    _, optimizer = trained()
    other = nn.Sequential(nn.Linear(3, 3))
    stranger = torch.optim.Adam(other.parameters())
    stepped(other, stranger, torch.randn(2, 3))
    states = both(network, stranger, tmp_path / "net.pt").parameter_states()
    assert states is not None
    assert states.states == {}
    assert set(states.uncertain.values()) == {"the shapes in the optimizer do not fit the weights in their order"}
    assert opened(network.state_dict(), tmp_path / "alone.pt").parameter_states() is None
    two = {"model": network.state_dict(), "optimizers": [optimizer.state_dict(), stranger.state_dict()]}
    checkpoint = opened(two, tmp_path / "two.pt")
    assert checkpoint.optimizer is None
    assert [state.name for state in checkpoint.optimizers] == ["optimizers[0]", "optimizers[1]"]
    first = checkpoint.parameter_states(checkpoint.optimizers[0])
    assert first is not None
    assert len(first.states) == 6


def test_lbfgs_keeps_lists_of_tensors(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.LBFGS(network.parameters())
    x = torch.randn(5, 3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = network(x).square().sum()
        loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.step(closure)  # type: ignore[arg-type]
    checkpoint = both(network, optimizer, tmp_path / "net.pt")
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.guess == "LBFGS"
    kept = checkpoint.optimizer.state[0]
    live = optimizer.state_dict()["state"][0]
    assert all(torch.equal(a, b) for a, b in zip(kept["old_dirs"], live["old_dirs"], strict=True))


def _trained(sizes: tuple[int, int], updates: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(sizes[1])
    model = nn.Sequential(nn.Linear(*sizes), nn.ReLU(), nn.Linear(sizes[1], 2))
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(updates):
        optimizer.zero_grad()
        model(torch.randn(4, sizes[0])).square().mean().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("alike", [True, False], ids=["one architecture", "two architectures"])
@pytest.mark.parametrize(
    "names",
    [
        ("G", "D", "optG", "optD"),
        ("netG_state_dict", "netD_state_dict", "optimizerG_state_dict", "optimizerD_state_dict"),
        ("generator", "discriminator", "optimizer_d", "optimizer_g"),
    ],
)
def test_the_optimizers_of_two_models(names: tuple[str, ...], alike: bool, tmp_path: Path) -> None:
    """Each is matched within its model: by shapes where only one fits, else by name. The counts of updates tell."""
    (g, opt_g), (d, opt_d) = _trained((6, 9), 3), _trained((6, 9) if alike else (6, 11), 5)
    held: dict[str, Any] = {names[0]: g.state_dict(), names[1]: d.state_dict()}
    for name, optimizer in ((n, opt_g if "G" in n or n.endswith("_g") else opt_d) for n in names[2:]):
        held[name] = optimizer.state_dict()
    torch.save(held, tmp_path / "gan.pt")
    found = open_checkpoint(tmp_path / "gan.pt")
    assert found.models == names[:2]
    for optimizer in found.optimizers:
        states = found.parameter_states(optimizer)
        mine, steps = (names[0], 3) if "G" in optimizer.name or optimizer.name.endswith("_g") else (names[1], 5)
        assert states is not None
        assert list(states.states) == [f"{mine}.{leaf}" for leaf in ("0.weight", "0.bias", "2.weight", "2.bias")]
        assert {int(values["step"]) for values in states.states.values()} == {steps}


def test_optimizers_that_could_go_with_either_model_stay_uncertain(tmp_path: Path) -> None:
    (a, first), (b, second) = _trained((6, 9), 3), _trained((6, 9), 5)
    held = {"a": a.state_dict(), "b": b.state_dict(), "optimizers": [first.state_dict(), second.state_dict()]}
    torch.save(held, tmp_path / "gan.pt")
    found = open_checkpoint(tmp_path / "gan.pt")
    read = [found.parameter_states(optimizer) for optimizer in found.optimizers]
    assert [states is not None and not states.states for states in read] == [True, True]
