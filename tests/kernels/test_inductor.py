"""Kernels of inductor: compiled they equal the reference, in one read; when that is done, and what if it fails.

Compiling takes seconds: a few formulas are. What they compute is tried as plain torch in `test_formulas.py`.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from elements import sums
from tensors import IMAGES_ONLY, MEMORY, Run, as_written, plain, values, with_strange_units
from torch.overrides import TorchFunctionMode

from deadrelu import kernels
from deadrelu.errors import InputError
from deadrelu.kernels import inductor, reference
from deadrelu.kernels.choice import Choice
from deadrelu.kernels.formulas import BYTE, Formula
from deadrelu.kernels.inductor import Inductor
from deadrelu.kernels.lowering import lowered
from deadrelu.kinds import INF, KINDS, Kind

DEVICES = [torch.device(name) for name in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))]
LACKS = inductor.missing("cpu")
compiles = pytest.mark.skipif(bool(LACKS), reason=LACKS)
every_device = pytest.mark.parametrize("device", DEVICES, ids=str)
RELU = KINDS["relu"]


# -- compiled ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of its own for what inductor compiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(scope="module", params=DEVICES, ids=str)
def compiled(request: pytest.FixtureRequest, cache: None) -> tuple[Inductor, torch.device]:
    """Kernels that compile, and where."""
    if request.param.type == "cpu" and LACKS:
        pytest.skip(LACKS)
    return Inductor(forced="asked for"), request.param


LOOKS = (
    # name, roles, dtype; batches of the last shape but for the first size
    ("rectified", torch.float32, "contiguous", (32, 9, 13, 5), 1),
    ("rectified", torch.bfloat16, "contiguous", (32, 100), 1),
    ("engaged", torch.float16, "channels last", (4, 5, 9, 7), 1),
    ("squares", torch.float32, "contiguous", (9, 31, 70), 2),
    ("maximum", torch.float64, "contiguous", (6, 40), 1),
    ("magnitude", torch.float32, "contiguous", (16, 7, 300), 1),
)


@pytest.mark.parametrize(("name", "dtype", "memory", "shape", "unit"), LOOKS, ids=lambda value: str(value))
def test_compiled(
    compiled: tuple[Inductor, torch.device],
    name: str,
    dtype: torch.dtype,
    memory: str,
    shape: tuple[int, ...],
    unit: int,
) -> None:
    """Equal to the reference; and one function serves every batch size, and other numbers of units and positions."""
    made, device = compiled
    before = len(made._made)
    kind = KINDS["gelu"] if name == "engaged" else RELU
    for seed, batch in enumerate((shape[0], 2 * shape[0], 16 if len(shape) == 2 else 3)):
        sizes = (batch, *(n + seed for n in shape[1:]))
        z = with_strange_units(values(sizes, dtype, seed), unit)
        z = {**MEMORY, **IMAGES_ONLY}[memory](z).to(device)
        finite = z.nan_to_num(0, 5, -5)
        found, expected = sums(sizes[unit], device), sums(sizes[unit], device)
        shaped = plain(sizes, unit)
        if name in ("engaged", "rectified"):
            seen = made.engaged(z, kind, shaped, found, rectified=name == "rectified")
            known = reference.engaged(z, kind, shaped, expected)
            assert seen is not None
            assert torch.equal(seen.fired, known.fired)
            if name == "rectified":
                expected.magnitude.add_(reference.magnitude(z.relu(), KINDS["silu"], shaped))
        elif name == "maximum":
            top = made.maximum(z, shaped)
            assert top is not None
            found.top.copy_(top)
            expected.top.copy_(reference.maximum(z, shaped))
        elif name == "squares":
            assert made.squares(finite, shaped, found)
            reference.squares(finite, shaped, expected)
        else:
            assert made.magnitude(finite, shaped, found)
            expected.magnitude.add_(reference.magnitude(finite, KINDS["silu"], shaped))
        for row in ("count", "samples", "top", "largest"):
            torch.testing.assert_close(getattr(found, row), getattr(expected, row), rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(found.rows, expected.rows, rtol=1e-5, atol=0, equal_nan=True)
    assert len(made._made) == before + 1
    assert not made.reason


class TwoReads:
    """A formula that cannot be computed in one read: how many numbers exceed half of the largest."""

    name, roles, rows = "two reads", "su", ()

    def function(self) -> Callable[..., tuple[torch.Tensor, ...]]:
        return lambda z: ((z > z.amax(0) / 2).sum(0),)


def reads(source: str) -> int:
    """Return how many loops, or kernels of Triton, of generated code read the first argument."""
    (first,) = re.findall(r"^ +(\w+),(?: .*)? = args$", source, re.MULTILINE)
    if "async_compile.triton" in source:
        return len(re.findall(rf"\.run\((?:.*, )?{first}\b", source))
    (body,) = re.findall(r"void +kernel\(.*async_compile.wait", source, re.DOTALL)
    loops: list[tuple[int, int]] = []  # those that a line stands in: indentation, number
    found = set()
    for number, line in enumerate(body.splitlines()):
        indent = len(line) - len(line.lstrip())
        begins = re.match(r" *for ?\(int64_t x\d+=", line)
        if line.strip():
            loops = [loop for loop in loops if loop[0] < indent or (loop[0] == indent and not begins)]
        if begins:
            loops.append((indent, number))
        if re.search(r"\bin_ptr0( \+|\[)", line):
            found.add(loops[-1])
    return len(found)


@compiles
@every_device
@pytest.mark.parametrize(
    ("formula", "sizes", "expected"),
    [
        (Formula("rectified", "sup", ((0.0, INF),)), (16, 24, 200), 1),
        (Formula("rectified", f"s{BYTE}u", ((0.0, INF),)), (16, 8, 200), 1),
        (Formula("squares", "spu"), (16, 70, 200), 1),
        (TwoReads(), (16, 200), 2),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_tensor_is_read_once(
    formula: Any, sizes: tuple[int, ...], expected: int, device: torch.device, cache: None
) -> None:
    """Source: DESIGN 9 (one read of the tensor), seen in the code that inductor makes."""
    made: Any = lowered(formula, sizes, torch.float32, device)
    assert reads(made.source_code) == expected


class Counting(TorchFunctionMode):
    """A mode of the user's, which sees every torch call of its thread."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


@compiles
def test_what_a_training_has_switched_on(cache: None) -> None:
    """The first look may come anywhere; what is compiled must not depend on it, nor anything stay different."""
    import torch._dynamo
    from torch._inductor import config

    z, made, device = values((32, 9, 6), torch.bfloat16, 1), plain((32, 9, 6), 1), torch.device("cpu")
    before, state, counters = config.save_config(), torch.get_rng_state(), repr(torch._dynamo.utils.counters)
    own, to, expected = Inductor(forced="asked for"), sums(9), sums(9)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu"), Counting() as mode:
            seen = own.engaged(z, KINDS["gelu"], made, to)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
    assert seen is not None
    assert torch.equal(seen.fired, reference.engaged(z, KINDS["gelu"], made, expected).fired)
    assert torch.equal(to.rows.nan_to_num(7), expected.rows.nan_to_num(7))
    assert torch.equal(torch.get_rng_state(), state)
    assert config.save_config() == before
    assert repr(torch._dynamo.utils.counters) == counters
    assert "amax" not in mode.seen
    assert to.rows.device == device
    grown = z.clone().requires_grad_()
    assert own.engaged(grown, KINDS["gelu"], made, to) is not None
    assert not to.rows.requires_grad


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
