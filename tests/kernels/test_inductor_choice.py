"""When inductor makes kernels, what if that fails, and who computes then: here as plain torch, nothing is compiled."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from elements import sums
from tensors import Run, as_written, plain, values

from deadrelu import kernels
from deadrelu.errors import InputError
from deadrelu.kernels import inductor, reference
from deadrelu.kernels.choice import Choice
from deadrelu.kernels.formulas import Formula
from deadrelu.kernels.inductor import Inductor
from deadrelu.kinds import INF, KINDS, Kind

LACKS = inductor.missing("cpu")
compiles = pytest.mark.skipif(bool(LACKS), reason=LACKS)
RELU = KINDS["relu"]


# -- when -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Formula]:
    """What was compiled, in order; nothing really is."""
    made: list[Formula] = []

    def noted(formula: Formula, *given: Any) -> Run:
        made.append(formula)
        return as_written(formula, *given)

    monkeypatch.setattr(inductor, "lowered", noted)
    return made


def test_it_is_due_when_as_much_could_have_been_saved(asked: list[Formula], monkeypatch: pytest.MonkeyPatch) -> None:
    """12 looks at 64 KiB, of which eight tensors each could be saved, come to 6 MiB; the eleventh is below."""
    monkeypatch.setattr(inductor, "LARGE", 1 << 14)
    monkeypatch.setattr(inductor, "DUE", 12 * 8 * (1 << 16))
    z, made, own = torch.ones(16, 16, 64), plain((16, 16, 64), 1), Inductor()
    for _ in range(11):
        assert own.engaged(z, RELU, made, sums(16)) is None
    assert not asked
    assert own.engaged(z, RELU, made, sums(16)) is not None
    assert [(found.name, found.roles) for found in asked] == [("engaged", "sup")]
    part = torch.ones(17, 16, 64)  # another size needs no code of its own, another order in memory does
    assert own.engaged(part, RELU, plain((17, 16, 64), 1), sums(16)) is not None
    assert own.engaged(part, RELU, plain((17, 16, 64), 2), sums(64)) is None
    assert own.engaged(z[:15], RELU, plain((15, 16, 64), 1), sums(16)) is None, "small"
    assert len(asked) == 1
    assert own.described().startswith("inductor for 1 sorts of looks; reference, until 0 TB")


def test_no_more_functions_than_a_few_dozen(asked: list[Formula], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor, "LARGE", 1)
    monkeypatch.setattr(inductor, "DUE", 0)
    z, made, own = torch.ones(16, 16, 4), plain((16, 16, 4), 1), Inductor()
    for i in range(inductor._MOST + 5):
        kind = Kind(f"from {i}", intervals=((float(i), INF),))
        assert (own.engaged(z, kind, made, sums(16)) is None) == (i >= inductor._MOST)
    assert len(asked) == inductor._MOST


def test_nothing_is_compiled_into_a_graph(asked: list[Formula], monkeypatch: pytest.MonkeyPatch) -> None:
    """While a CUDA graph is recorded the reference computes; what was compiled before may be recorded."""
    monkeypatch.setattr(inductor, "_capturing", lambda z: True)
    z, made, own = torch.ones(16, 16, 4), plain((16, 16, 4), 1), Inductor(forced="asked for")
    assert own.engaged(z, RELU, made, sums(16)) is None
    monkeypatch.undo()
    monkeypatch.setattr(inductor, "lowered", as_written)
    assert own.engaged(z, RELU, made, sums(16)) is not None
    monkeypatch.setattr(inductor, "_capturing", lambda z: True)
    assert own.engaged(z, RELU, made, sums(16)) is not None


# -- what fails leaves the reference ----------------------------------------------------------------------------------


def wrong(formula: Formula, *given: Any) -> Run:
    """Return a function that counts one too many."""
    right = as_written(formula, *given)

    def run(given: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        found = right(given)
        given[1].add_(1)
        return found

    return run


def refuses(*_: Any) -> Run:
    raise RuntimeError("no such compiler\nand a traceback")


def fails_later(formula: Formula, *given: Any) -> Run:
    """Return a function that passes its checks and fails then."""
    right, calls = as_written(formula, *given), iter(range(2))

    def run(given: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        if next(calls, None) is None:
            raise torch.OutOfMemoryError("out of memory")
        return right(given)

    return run


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (refuses, "RuntimeError: no such compiler"),
        (wrong, "RuntimeError: its engaged of sup is wrong"),
        (fails_later, "OutOfMemoryError: out of memory"),
    ],
)
def test_a_failure_is_said_once(
    broken: Any, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing was added; from then on inductor is not asked again, whatever the look."""
    monkeypatch.setattr(inductor, "lowered", broken)
    monkeypatch.setattr(inductor, "LARGE", 1)
    monkeypatch.setattr(inductor, "DUE", 0)
    z, made, own, to = torch.ones(16, 16, 4), plain((16, 16, 4), 1), Inductor(), sums(16)
    with caplog.at_level(logging.INFO, "deadrelu"):
        for _ in range(3):
            assert own.engaged(z, RELU, made, to) is None
            assert own.maximum(z, made) is None
    assert not to.count.any()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert said in caplog.text
    assert own.described() == f"reference: inductor failed with {said}"
    forced = Inductor(forced="DEADRELU_KERNELS=inductor")
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"^DEADRELU_KERNELS=inductor, but inductor failed with .*unset it"
        ) as raised:
            forced.engaged(z, RELU, made, to)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["count", "samples", "top", "magnitude"])
def test_the_check_sees_every_row(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever row of the sums a function gets wrong."""

    def spoilt(formula: Formula, *given: Any) -> Run:
        right, at = as_written(formula, *given), 1 + formula.rows.index(name)

        def run(given: list[torch.Tensor]) -> Sequence[torch.Tensor]:
            rows = list(given)
            found = right(given)
            rows[at].mul_(1.001)
            return found

        return run

    monkeypatch.setattr(inductor, "lowered", spoilt)
    with pytest.raises(InputError, match="is wrong"):
        Inductor(forced="x").engaged(torch.ones(16, 16, 4), RELU, plain((16, 16, 4), 1), sums(16), rectified=True)


# -- the choice -------------------------------------------------------------------------------------------------------


@compiles
def test_it_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, too, for every look that the kernels are asked for."""
    monkeypatch.setenv("DEADRELU_KERNELS", "inductor")
    monkeypatch.setattr(inductor, "lowered", as_written)
    choice = Choice()
    monkeypatch.setattr(kernels, "CHOICE", choice)
    z, made, to, expected = values((16, 4), torch.float32, 0).nan_to_num(), plain((16, 4), 1), sums(4), sums(4)
    seen = kernels.engaged(z, RELU, made, to, rectified=True)
    kernels.squares(z, made, to)
    assert isinstance(choice.native, Inductor)
    assert {formula.name for formula, *_ in choice.native._made} == {"rectified", "squares"}
    assert torch.equal(kernels.maximum(z, made), reference.maximum(z, made))
    assert kernels.reach(z, made, torch.empty(4)) is None
    assert torch.equal(seen.fired, reference.engaged(z, RELU, made, expected).fired)
    assert torch.equal(to.rows[:3], expected.rows[:3])
    assert choice.described() == "inductor, compiled at the first look of each sort"


def test_it_is_forced_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call says so, in one line."""
    monkeypatch.setenv("DEADRELU_KERNELS", "inductor")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    choice = Choice()
    for _ in range(2):
        with pytest.raises(InputError, match=r"^DEADRELU_KERNELS=inductor, but no C\+\+ compiler was found") as raised:
            choice.ready(1)
        assert "\n" not in str(raised.value)


class Elsewhere:
    """As much of a CUDA tensor as a choice looks at."""

    is_cuda = True


@pytest.mark.parametrize(
    ("wanted", "cuda", "triton", "said"),
    [
        ("auto", False, True, "reference: there is no CUDA device"),
        ("auto", True, False, "reference: Triton, which inductor needs, is not installed"),
        ("reference", True, True, "reference: DEADRELU_KERNELS=reference"),
        ("native", True, True, "reference: DEADRELU_KERNELS=native, which computes on the CPU"),
        ("auto", True, True, "inductor for 0 sorts of looks; reference, until 20 TB of traffic could have been saved"),
        ("inductor", True, True, "inductor, compiled at the first look of each sort"),
    ],
)
def test_the_choice_on_cuda(wanted: str, cuda: bool, triton: bool, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADRELU_KERNELS", wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if triton else None)
    choice, z = Choice(), Elsewhere()
    found = choice.ready_on(z)  # type: ignore[arg-type]
    assert (found is None) == said.startswith("reference:")
    assert choice.ready_on(z) is found  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choice.described_cuda().startswith(said)


def test_what_is_missing_is_an_error_if_it_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADRELU_KERNELS", "inductor")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice = Choice()
    assert choice.described_cuda() == "none: there is no CUDA device"
    for _ in range(2):
        with pytest.raises(InputError, match=r"^DEADRELU_KERNELS=inductor, but there is no CUDA device; mend"):
            choice.ready_on(Elsewhere())  # type: ignore[arg-type]
