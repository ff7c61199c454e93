"""What a user of the command line has: a module with factories and data, and a way to run the program in process."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from typer.testing import CliRunner

from deadrelu.cli.app import app

DEAD = [1, 5]
ROWS = 40

# Command lines, to be completed: by a SPEC, by nothing, and for a checkpoint that a test writes as bad.pt.
NET = ("audit", "shop:net", "--data")
DATA = ("--data", "x.npy")
CHECKPOINT = ("audit", "bad.pt", "--model", "shop:blank", *DATA)

SOURCE = '''
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

DEAD = [1, 5]


def rows(count=40):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(0))


def blank():
    """The architecture; its weights come from a checkpoint."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def net():
    model = blank()
    with torch.no_grad():
        model[0].bias.fill_(0.5)
        model[0].bias[DEAD] = -1e3
    return model


built = net()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = net()

    def forward(self, x):
        return self.body(x)


class Words(nn.Module):
    """Takes its inputs by name, integers and floats."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.body = net()

    def forward(self, tokens, scale):
        return self.body(self.table(tokens) * scale)


def chatty():
    print("building, please wait")
    return net()


def linear():
    return nn.Linear(4, 3)


def gelu():
    return nn.Sequential(nn.Linear(4, 8), nn.GELU())


def conv():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(10)
        model[0].bias[DEAD] = -1e3
    return model


def grey():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(10)
        model[0].bias[DEAD] = -1e3
    return model


def needs(width):
    return nn.Linear(width, 3)


def number():
    return 7


def broken():
    raise RuntimeError("no weights today")


def leaves():
    raise SystemExit(0)


def interrupted():
    raise KeyboardInterrupt


def failing_rows():
    yield rows()
    raise LookupError("row 41 is lost")


def nan_in_the_second_batch():
    for index, batch in enumerate(rows().split(10)):
        if index == 1:
            batch = batch.clone()
            batch[[2, 7]] = float("nan")
        yield batch, torch.zeros(len(batch))


loader = DataLoader(TensorDataset(rows(), torch.zeros(40)), batch_size=16)


def empty_loader():
    return DataLoader(TensorDataset(rows(0)))


class Items(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return rows()[index].double().numpy(), index


class Stream(IterableDataset):
    def __iter__(self):
        return iter(rows())


class LostItems(Items):
    def __getitem__(self, index):
        if index == 17:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


class NanItems(Items):
    def __getitem__(self, index):
        return rows()[index] / (0 if index == 23 else 1)


class Plain:
    """A map-style dataset that inherits from nothing."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return rows()[index]


def pair():
    return rows().numpy(), torch.zeros(40).numpy()


def generator():
    yield from rows().split(10)


def float64_batches():
    return [batch.double() for batch in rows().split(10)]
'''


def rows(count: int = ROWS) -> torch.Tensor:
    """Return inputs of the networks above, shape (count, 4)."""
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(0))


def deadrelu(*words: str) -> Any:
    """Run the command line in this process; the result has `exit_code`, `stdout`, `stderr`."""
    # Older releases of click mix stderr into stdout unless told not to; newer ones know no such option.
    separate = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**separate).invoke(app, list(words), catch_exceptions=False)


def refused(*words: str) -> str:
    """Run the command line, which must refuse with exit status 2 and one line on stderr, and return that line."""
    result = deadrelu(*words)
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr)
    assert result.stdout == ""
    assert result.stderr.startswith("deadrelu: error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    assert "Traceback" not in result.stderr
    return str(result.stderr)
