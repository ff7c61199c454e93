"""Every form of data and batch that `audit` takes, and every option."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import DEAD, ROWS, UNITS, WIDTH, Masked, Named, Pair, mlp, rows
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import deadrelu


class Items(Dataset[Any]):
    """A map-style dataset of (x, label)."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> Any:
        return rows()[i], i % 3


class Stream(IterableDataset[Any]):
    """An iterable-style dataset of rows."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from rows()


def check(report: deadrelu.Report, site: str = "1", samples: int = ROWS) -> None:
    assert [s.site for s in report.sites] == [site]
    found = report[site]
    assert (found.samples, found.positions, found.units, report.samples) == (samples, samples, UNITS, samples)
    assert found.dead.nonzero()[0].tolist() == DEAD


DATA: dict[str, Callable[[], Any]] = {
    "tensor": rows,
    "numpy, float32": lambda: rows().numpy(),
    "numpy, float64": lambda: rows().double().numpy(),
    "numpy, not contiguous": lambda: np.asfortranarray(rows().numpy()),
    "numpy, read-only": lambda: np.frombuffer(rows().numpy().tobytes(), dtype=np.float32).reshape(ROWS, WIDTH),
    "TensorDataset": lambda: TensorDataset(rows()),
    "TensorDataset with labels": lambda: TensorDataset(rows(), torch.zeros(ROWS)),
    "Dataset": Items,
    "IterableDataset": Stream,
    "DataLoader": lambda: DataLoader(Items(), batch_size=16),
    "DataLoader of a stream": lambda: DataLoader(Stream(), batch_size=16),
    "DataLoader, shuffled": lambda: DataLoader(Items(), batch_size=16, shuffle=True),
    "list of tensors": lambda: list(rows().split(20)),
    "list of numpy arrays": lambda: [part.numpy() for part in rows().split(20)],
    "generator of tensors": lambda: (part for part in rows().split(20)),
    "tuples (x, y)": lambda: [(part, torch.zeros(len(part))) for part in rows().split(20)],
    "lists [x, y]": lambda: [[part, torch.zeros(len(part))] for part in rows().split(20)],
    "tuples (x,)": lambda: [(part,) for part in rows().split(20)],
}


@pytest.mark.parametrize("form", DATA)
def test_every_form_of_data(form: str) -> None:
    """Source: DESIGN 5.1, the same 50 rows in every form."""
    check(deadrelu.audit(mlp(), DATA[form](), batch_size=16, exhaustive=True))


BATCHES: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Tensor], Any]]] = {
    "dict": (Named, lambda x: {"x": x}),
    "dict, labels dropped": (Named, lambda x: {"x": x, "labels": torch.zeros(len(x))}),
    "dict, a dropped key of another length": (Named, lambda x: {"class_weights": torch.ones(3), "x": x}),
    "dict, labels first": (Named, lambda x: {"labels": torch.zeros(len(x)), "x": x}),
    "dict, a scalar first": (Named, lambda x: {"temperature": torch.tensor(1.0), "x": x}),
    "dict, optional key": (Masked, lambda x: {"x": x, "mask": torch.ones(len(x), 1)}),
    "(x, mask), optional second input": (Masked, lambda x: (x, torch.ones(len(x), 1))),
    "(x, y), optional second input, labels": (Masked, lambda x: (x, torch.arange(len(x)))),
    "(x, y), optional second input, one-hot labels": (Masked, lambda x: (x, torch.eye(3)[torch.arange(len(x)) % 3])),
    "(x, y), optional second input, names": (Masked, lambda x: (x, [f"row {i}" for i in range(len(x))])),
    "(x, scale)": (Pair, lambda x: (x, torch.ones(len(x), 1))),
    "(x, scale, y)": (Pair, lambda x: (x, torch.ones(len(x), 1), torch.zeros(len(x)))),
}


@pytest.mark.parametrize("form", BATCHES)
def test_every_form_of_batch(form: str) -> None:
    """Source: DESIGN 5.1: inputs first, what forward does not accept is dropped."""
    make, batch = BATCHES[form]
    data = [batch(part) for part in rows().split(20)]
    check(deadrelu.audit(make(), data, exhaustive=True), "body.1")


def test_numbers_do_not_depend_on_the_form() -> None:
    """Source: the plain forward: activation_rate is the mean of z > 0, whatever carried the rows."""
    model = mlp()
    with torch.no_grad():
        want = (model[0](rows()) > 0).double().mean(0).numpy()
    for form, make in DATA.items():
        got = deadrelu.audit(model, make(), batch_size=16)["1"].activation_rate
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12, err_msg=form)


def test_forward_runs_any_batch() -> None:
    """A batch of any shape, and a model that needs more than one call, through `forward`."""

    def forward(model: nn.Module, batch: Any) -> Any:
        return model(batch.rows / 2, scale=torch.full((len(batch.rows), 1), 2.0))

    data = [SimpleNamespace(rows=part) for part in rows().split(20)]
    check(deadrelu.audit(Pair(), data, forward=forward, exhaustive=True), "body.1")


def test_loss_sees_output_and_batch() -> None:
    """Source: DESIGN 5.1: `loss=lambda output, batch: ...` gets what forward returned and the whole batch."""
    seen: list[tuple[torch.Size, torch.Size]] = []

    def loss(output: torch.Tensor, batch: Any) -> torch.Tensor:
        seen.append((output.shape, batch[1].shape))
        return F.cross_entropy(output, batch[1])

    report = deadrelu.audit(mlp(), DataLoader(Items(), batch_size=25), loss=loss, exhaustive=True)
    check(report)
    assert set(seen) == {((25, 3), (25,))}
    flow = report["1"].grad_flow
    assert flow is not None
    assert (flow[DEAD] == 0).all()
    assert (flow > 0).sum() == UNITS - len(DEAD)


class TimeFirst(nn.Module):
    """A recurrent layout: (time, batch, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def test_batch_dim() -> None:
    """With `batch_dim=1` the second axis holds the samples, and a tensor is cut into batches along it."""
    x = rows(4 * ROWS).view(4, ROWS, WIDTH)
    report = deadrelu.audit(TimeFirst(), x, batch_dim=1, batch_size=16, exhaustive=True)
    site = report["body.1"]
    assert (site.samples, site.positions, report.samples) == (ROWS, 4 * ROWS, ROWS)
    assert site.dead.nonzero()[0].tolist() == DEAD
    with torch.no_grad():
        fired = TimeFirst().body[0](x) > 0
    np.testing.assert_allclose(site.sample_rate, fired.any(0).double().mean(0))
    np.testing.assert_allclose(site.activation_rate, fired.double().mean((0, 1)))
    loaded = deadrelu.audit(TimeFirst(), list(x.split(20, dim=1)), batch_dim=1, exhaustive=True)
    assert loaded.to_dict() == deadrelu.audit(TimeFirst(), x, batch_dim=1, batch_size=20, exhaustive=True).to_dict()


@pytest.mark.parametrize("limit", [1, 16, 17, 33, 50, 1_000])
@pytest.mark.parametrize("form", ["tensor", "DataLoader", "generator of tensors", "tuples (x, y)"])
def test_max_samples(form: str, limit: int) -> None:
    """The scan stops once `max_samples` are seen, at the end of a loaded batch at the latest."""
    report = deadrelu.audit(mlp(), DATA[form](), batch_size=16, max_samples=limit)
    size = 20 if form in ("generator of tensors", "tuples (x, y)") else 16
    assert min(limit, ROWS) <= report.samples <= min(-(-limit // size) * size, ROWS)
    assert report["1"].samples == report["1"].positions == report.samples


def test_max_samples_reads_no_further() -> None:
    """Source: an endless stream ends."""

    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield rows()

    assert deadrelu.audit(mlp(), endless(), max_samples=120).samples in (120, 150)


class Branches(nn.Module):
    """Sites by module and by function, in two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.left = mlp()
        self.right = nn.ModuleDict({"map": nn.Linear(WIDTH, UNITS), "act": nn.GELU()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.left(x)).sum() + self.right["act"](self.right["map"](x)).sum()


@pytest.mark.parametrize(
    ("include", "exclude", "sites"),
    [
        (None, None, ["left.1", "relu()", "right.act"]),
        (["left.*"], None, ["left.1"]),
        (["left.1", "right.act"], None, ["left.1", "right.act"]),
        (None, ["left.*"], ["relu()", "right.act"]),
        (["*"], ["*relu()", "right.*"], ["left.1"]),
        (["*.act", "*relu*"], ["right*"], ["relu()"]),
        (["right.???"], None, ["right.act"]),
    ],
)
def test_include_and_exclude(include: list[str] | None, exclude: list[str] | None, sites: list[str]) -> None:
    """Patterns of fnmatch on the names of sites; exclude wins."""
    report = deadrelu.audit(Branches(), rows(), include=include, exclude=exclude)
    assert [s.site for s in report.sites] == sites


def test_one_pattern_is_a_string() -> None:
    """A bare string is one pattern, not a list of letters."""
    assert [s.site for s in deadrelu.audit(Branches(), rows(), include="left.*").sites] == ["left.1"]
    assert [s.site for s in deadrelu.audit(Branches(), rows(), exclude="left.*").sites] == ["relu()", "right.act"]


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None])
def test_device(device: Any) -> None:
    """The data go to the device; None stands for the model's own."""
    check(deadrelu.audit(mlp(), rows(), device=device, exhaustive=True))
    assert deadrelu.audit(nn.ReLU(), rows(), device=device).samples == ROWS  # a model without parameters


def test_another_device_leaves_the_model_where_it_was() -> None:
    """`meta` holds no numbers: refused in one line, and the model's tensors are still on the CPU."""
    model = mlp()
    with pytest.raises(deadrelu.DeadReluError):
        deadrelu.audit(model, rows(), device="no_such_device")
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    check(deadrelu.audit(model, rows(), exhaustive=True))


def test_progress_changes_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar goes to a screen only: nothing on stdout, and in a pipe nothing at all (DESIGN 5.3)."""
    quiet = deadrelu.audit(mlp(), rows(), batch_size=16, progress=False)
    assert deadrelu.audit(mlp(), rows(), batch_size=16, progress=True).to_dict() == quiet.to_dict()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_half_precision_and_double_models() -> None:
    """Floating data follow the model's dtype, as numpy's float64 default needs; integers stay integers."""
    for dtype in (torch.float64, torch.bfloat16):
        check(deadrelu.audit(mlp().to(dtype), rows().numpy(), exhaustive=True))
    embed = nn.Sequential(nn.Embedding(9, WIDTH), mlp())
    report = deadrelu.audit(embed, torch.arange(ROWS).remainder(9).view(ROWS // 5, 5).numpy(), exhaustive=True)
    site = report["1.1"]
    assert (site.units, site.samples, site.positions) == (UNITS, ROWS // 5, ROWS)
    assert site.dead.nonzero()[0].tolist() == DEAD


def test_autocast_of_the_caller_holds() -> None:
    """Under the caller's autocast the layers run in bfloat16, and the counts are those of that forward."""
    model = mlp()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = deadrelu.audit(model, rows(), exhaustive=True)
        with torch.no_grad():
            z = model[0](rows())
    assert z.dtype == torch.bfloat16
    check(report)
    np.testing.assert_array_equal(report["1"].activation_rate, (z > 0).double().mean(0))
    np.testing.assert_array_equal(report["1"].max_z, z.double().amax(0))


def test_unbatched_input_is_one_sample() -> None:
    """Source: DESIGN 2: unbatched input is one sample."""
    report = deadrelu.audit(mlp(), list(rows(7)), exhaustive=True)
    assert report["1"].units == UNITS
    assert report.samples == report["1"].samples == 7


def test_nan_in_the_data_is_counted_as_inactive() -> None:
    """Source: DESIGN 2: NaN counts as inactive, +inf as active; max_z leaves NaN aside; JSON holds null for inf."""
    x = torch.tensor([[float("nan"), float("inf"), -1.0, 2.0], [float("nan"), -1.0, float("nan"), float("nan")]])
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 1))
    report = deadrelu.audit(model, x, exhaustive=True)
    assert any("NaN" in reason for _, reason in report.coverage.unsupported)  # said, not swallowed
    site = report["0"]
    np.testing.assert_array_equal(site.activation_rate, [0, 0.5, 0, 0.5])
    assert site.dead.nonzero()[0].tolist() == [0, 2]
    np.testing.assert_array_equal(site.max_z[1:], [np.inf, -1.0, 2.0])
    assert site.to_dict()["max_z"][1:] == [None, -1.0, 2.0]
