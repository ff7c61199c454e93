"""One clear line for everything that `audit` refuses: what happened, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nets import WIDTH, Named, Pair, mlp, rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import deadrelu
from deadrelu.errors import DataError, InputError, ModelError


def spent() -> Iterator[torch.Tensor]:
    data = iter([rows()])
    next(data)
    return data


class Refuses(nn.Module):
    """Raises an error of its own, of several lines."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("this batch\nis not\nfor me")


BAD: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
    "empty list": (DataError, lambda: deadrelu.audit(mlp(), [])),
    "empty tensor": (DataError, lambda: deadrelu.audit(mlp(), rows(0))),
    "empty loader": (DataError, lambda: deadrelu.audit(mlp(), DataLoader(TensorDataset(rows(0))))),
    "generator that is used up": (DataError, lambda: deadrelu.audit(mlp(), spent())),
    "empty batch": (DataError, lambda: deadrelu.audit(mlp(), [rows(0)])),
    "wrong shape": (DataError, lambda: deadrelu.audit(mlp(), torch.randn(8, WIDTH + 1))),
    "0-d tensor": (DataError, lambda: deadrelu.audit(mlp(), torch.tensor(1.0))),
    "a refused batch": (DataError, lambda: deadrelu.audit(Refuses(), rows())),
    "batch of strings": (DataError, lambda: deadrelu.audit(mlp(), [["a", "b"]])),
    "batch that is a string": (DataError, lambda: deadrelu.audit(mlp(), ["a", "b"])),
    "data that is a string": (DataError, lambda: deadrelu.audit(mlp(), "data.npy")),
    "data that is None": (DataError, lambda: deadrelu.audit(mlp(), None)),
    "data that is a number": (DataError, lambda: deadrelu.audit(mlp(), 3)),
    "numpy objects": (DataError, lambda: deadrelu.audit(mlp(), np.array([object()] * 4))),
    "numpy strings": (DataError, lambda: deadrelu.audit(mlp(), np.array(["a", "b"]))),
    "dict without the input": (DataError, lambda: deadrelu.audit(Named(), [{"y": rows()}])),
    "too few inputs": (DataError, lambda: deadrelu.audit(Pair(), [(rows(),)])),
    "no activations": (ModelError, lambda: deadrelu.audit(nn.Linear(WIDTH, 2), rows())),
    "nothing included": (InputError, lambda: deadrelu.audit(mlp(), rows(), include=["nothing.*"])),
    "not a module": (ModelError, lambda: deadrelu.audit(lambda x: x, rows())),
    "a class": (ModelError, lambda: deadrelu.audit(nn.ReLU, rows())),
    "a state_dict": (ModelError, lambda: deadrelu.audit(mlp().state_dict(), rows())),
    "lazy parameters": (ModelError, lambda: deadrelu.audit(nn.Sequential(nn.LazyLinear(4), nn.ReLU()), rows())),
    "batch_size -1": (InputError, lambda: deadrelu.audit(mlp(), rows(), batch_size=-1)),
    "batch_size 0": (InputError, lambda: deadrelu.audit(mlp(), rows(), batch_size=0)),
    "max_samples 0": (InputError, lambda: deadrelu.audit(mlp(), rows(), max_samples=0)),
    "max_samples -5": (InputError, lambda: deadrelu.audit(mlp(), rows(), max_samples=-5)),
    "batch_dim 5": (InputError, lambda: deadrelu.audit(mlp(), rows(), batch_dim=5)),
    "a loss that is no number": (InputError, lambda: deadrelu.audit(mlp(), rows(), loss=lambda o, b: o)),
    "a loss without a graph": (InputError, lambda: deadrelu.audit(mlp(), rows(), loss=lambda o, b: 1.0)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case: str) -> None:
    """Source: DESIGN 5.4: one root, one line that says what happened, what was expected, what to do."""
    error, act = BAD[case]
    with pytest.raises(error) as caught:
        act()
    assert isinstance(caught.value, deadrelu.DeadReluError)
    message = str(caught.value)
    assert len(message) > 20
    assert "\n" not in message


def test_messages_name_the_culprit() -> None:
    """A message that does not say which shape, which key or which type arrived helps nobody."""
    for act, words in (
        (lambda: deadrelu.audit(mlp(), torch.randn(8, WIDTH + 1)), ("8", str(WIDTH + 1))),
        (lambda: deadrelu.audit(Refuses(), rows()), ("ValueError", "this batch")),
        (lambda: deadrelu.audit(mlp(), rows(), batch_size=-1), ("batch_size", "-1")),
        (lambda: deadrelu.audit(mlp().state_dict(), rows()), ("OrderedDict",)),
        (lambda: deadrelu.audit(mlp(), rows(), include=["nothing.*"]), ("include", "1")),
    ):
        with pytest.raises(deadrelu.DeadReluError) as caught:
            act()
        for word in words:
            assert word in str(caught.value)


def test_the_cause_stays_with_the_error() -> None:
    """The model's own exception is the cause of ours, so that a traceback leads to it."""
    with pytest.raises(DataError) as caught:
        deadrelu.audit(Refuses(), rows())
    assert isinstance(caught.value.__cause__, ValueError)
