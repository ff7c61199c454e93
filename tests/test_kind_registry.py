"""The registry of activation kinds: what is found by which name or class, what is refused, and how to take it back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadrelu import kinds
from deadrelu.errors import RegistryError
from deadrelu.kinds import Kind, kind_of_function, kind_of_module, register_kind


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.relu, "relu"),
        (torch.clip, "clamp"),
        (torch.special.expit, "sigmoid"),
        (F.logsigmoid, "logsigmoid"),
        (torch._C._nn.log_sigmoid, "logsigmoid"),
        (torch.prelu, "prelu"),
    ],
)
def test_kind_of_function(function: Callable[..., Tensor], name: str) -> None:
    """Several names of torch lead to one kind."""
    found = kind_of_function(function.__name__.removeprefix("special_"))
    assert found is not None
    assert found.name == name


def test_functions_that_are_no_activation() -> None:
    assert kind_of_function("add") is None
    assert kind_of_function("softmax") is None


class Named(nn.Module):
    """Registered by its class, or by its qualified name."""


class Child(Named):
    """Of a subclass."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the registries, so that nothing stays."""
    for table in ("KINDS", "_BY_FUNCTION", "_BY_MODULE"):
        monkeypatch.setattr(kinds, table, dict(getattr(kinds, table)))


@pytest.mark.parametrize("key", [Named, f"{__name__}.Named"])
@pytest.mark.usefixtures("registry")
def test_kind_of_module(key: type | str) -> None:
    """A class, given as such or by name, and its subclasses; plain modules of torch are seen by what they call."""
    assert kind_of_module(Named()) is None
    kind = register_kind(Kind("named", modules=(key,)))
    assert kind_of_module(Named()) is kind
    assert kind_of_module(Child()) is kind
    assert kind_of_module(nn.ReLU()) is None
    kinds.unregister_kind("named")
    assert kind_of_module(Child()) is None


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.ReLU(), True),
        (nn.GLU(), True),
        (nn.PReLU(), True),
        (type("Mine", (nn.ReLU,), {})(), True),
        (nn.Softmax(-1), False),
        (nn.LogSoftmax(-1), False),
        (nn.MultiheadAttention(4, 2), False),
        (nn.Linear(2, 2), False),
        (nn.Sequential(nn.ReLU()), False),
        (Named(), False),
    ],
)
def test_is_activation_module(module: nn.Module, expected: bool) -> None:
    assert kinds.is_activation_module(module) is expected


@pytest.mark.usefixtures("registry")
def test_a_registered_module_is_an_activation_module() -> None:
    register_kind(Kind("named", modules=(Named,)))
    assert kinds.is_activation_module(Child())


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        (Kind("relu"), "relu"),
        (Kind("mine", functions=("free", "gelu")), "gelu"),
        (Kind("mine", modules=(Child, Named)), "Named"),
        (Kind("mine", functions=("free",), modules=("transformers.activations.NewGELUActivation",)), "NewGELU"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_a_taken_name_is_refused_and_nothing_is_registered(kind: Kind, taken: str) -> None:
    """Source: STYLE 11: a registry refuses duplicates; the message says which name, and half a kind is none."""
    register_kind(Kind("held", modules=(Named,)))
    before = [dict(table) for table in (kinds.KINDS, kinds._BY_FUNCTION, kinds._BY_MODULE)]
    with pytest.raises(RegistryError, match=rf"'{kind.name}'.*{taken}.*registered already"):
        register_kind(kind)
    assert before == [kinds.KINDS, kinds._BY_FUNCTION, kinds._BY_MODULE]


@pytest.mark.usefixtures("registry")
def test_unregister_frees_every_name() -> None:
    kind = Kind("mine", functions=("one", "two"), modules=(Named,))
    for _ in range(2):
        assert register_kind(kind) is kind
        assert kind_of_function("two") is kind
        kinds.unregister_kind("mine")
        assert kind_of_function("two") is None
    with pytest.raises(RegistryError, match=r"no activation kind 'mine'.*relu"):
        kinds.unregister_kind("mine")
