"""Kernels of inductor: the formulas equal a look at each element; compiled they still do, in one read; nothing breaks.

Compiling takes seconds. Whatever can be tried on the formulas themselves is, as plain torch; a few are compiled.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from elements import CASES, KIND_LIST, assert_engaged, assert_sizes, sums
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import indices, layouts
from tensors import DTYPES, IMAGES_ONLY, MEMORY, inside, matrix, plain, values, with_strange_units
from torch.overrides import TorchFunctionMode

from deadrelu import kernels
from deadrelu.errors import InputError
from deadrelu.kernels import Plan, inductor, reference
from deadrelu.kernels.choice import Choice
from deadrelu.kernels.formulas import BYTE, Formula
from deadrelu.kernels.inductor import Inductor
from deadrelu.kernels.lowering import lowered
from deadrelu.kernels.roles import dense
from deadrelu.kinds import INF, KINDS, Kind
from deadrelu.tracing.layout import BATCH, UNIT, Layout, plan

DEVICES = [torch.device(name) for name in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))]
LACKS = inductor.missing("cpu")
compiles = pytest.mark.skipif(bool(LACKS), reason=LACKS)
every_device = pytest.mark.parametrize("device", DEVICES, ids=str)
RELU = KINDS["relu"]
Run = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]


def as_written(formula: Formula, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Run:
    """Return the function of a formula as it stands, in place of a compiled one."""
    return lambda given: formula.function()(*given)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Inductor:
    """Kernels that compute by the formulas themselves."""
    monkeypatch.setattr(inductor, "lowered", as_written)
    return Inductor(forced="asked for")


# -- the formulas -----------------------------------------------------------------------------------------------------


def is_read(z: torch.Tensor, made: Plan) -> bool:
    """True if a count of such a tensor is made by inductor."""
    return dense(z, made) is not None and (made.position_count > 1 or (z.shape[0] % 8 == 0 and z.shape[0] > 8))


@every_device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "unit", "memory"), [*CASES, ((24, 100), 1, "turned"), ((64, 3), 1, "contiguous")])
def test_every_memory(
    written: Inductor, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], unit: int, memory: str
) -> None:
    """Source: DESIGN 2 (active), by numpy in float64: counts, samples, marks and largest equal; sums near."""
    z = with_strange_units(values(shape, dtype, seed=len(memory)), unit)
    z = {**MEMORY, **IMAGES_ONLY}[memory](z)
    made, flat = plain(shape, unit), matrix(z, unit)
    z = z.to(device)
    if not is_read(z, made):
        to = sums(made.unit_count, z.device)
        assert written.engaged(z, RELU, made, to) is None
        assert not to.count.any()
        return
    for kind in KIND_LIST[:4]:
        assert_engaged(written, z, flat, kind, made)
    assert_sizes(written, z, flat, made)


def test_every_memory_reads_most() -> None:
    """The test above would pass if nothing were read: of its cases these are."""
    read = 0
    for shape, unit, memory in CASES:
        z = {**MEMORY, **IMAGES_ONLY}[memory](torch.zeros(shape))
        read += is_read(z, plain(shape, unit))
    assert read > 30


@every_device
@pytest.mark.parametrize("kind", KIND_LIST, ids=lambda kind: kind.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "unit"), [((24, 100), 1), ((11, 5, 4, 4), 1), ((3, 9, 70), 2)])
def test_every_kind_at_its_bounds(
    written: Inductor, device: torch.device, kind: Kind, dtype: torch.dtype, shape: tuple[int, ...], unit: int
) -> None:
    """The bounds themselves and their neighbours among the numbers of a dtype, NaN and both infinities."""
    ends = torch.tensor([end for pair in kind.intervals for end in pair], dtype=torch.float64).to(dtype)
    up, down = torch.tensor(INF, dtype=dtype), torch.tensor(-INF, dtype=dtype)
    strange = torch.tensor([torch.nan, INF, -INF, 0.0, -0.0], dtype=dtype)
    picks = torch.cat((ends, torch.nextafter(ends, up), torch.nextafter(ends, down), strange))
    z = picks[torch.randint(len(picks), shape, generator=torch.Generator().manual_seed(3))]
    assert_engaged(written, z.to(device), matrix(z, unit), kind, plain(shape, unit))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(layout=layouts(), seed=st.integers(0, 99), kind=st.sampled_from(KIND_LIST), dtype=st.sampled_from(DTYPES))
def test_every_layout(layout: Layout, seed: int, kind: Kind, dtype: torch.dtype) -> None:
    """Units and samples of several factors, in any order: what is read is right, the rest is declined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inductor, "lowered", as_written)
        z, made = values(layout.shape, dtype, seed), plan(layout)
        found = sums(made.unit_count)
        seen = Inductor(forced="asked for").engaged(z, kind, made, found)
    if seen is None:
        assert not found.count.any()
        return
    units, samples = indices(layout, UNIT).flatten(), indices(layout, BATCH).flatten()
    on = inside(kind, z.double().reshape(-1).numpy(), dtype)
    fired = np.zeros((layout.samples or 1, layout.units or 1), bool)
    count = np.zeros(layout.units or 1)
    for yes, unit, sample in zip(on.tolist(), units.tolist(), samples.tolist(), strict=True):
        fired[sample, unit] |= yes
        count[unit] += yes
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_array_equal(seen.fired, fired)
    np.testing.assert_array_equal(found.samples, fired.sum(0))


def test_the_common_layouts_are_read(written: Inductor) -> None:
    """Images, channels last, tokens, rows, heads of one projection, no batch axis."""
    for z, made in (
        (torch.zeros(4, 6, 5, 3), plain((4, 6, 5, 3), 1)),
        (torch.zeros(4, 5, 3, 6).permute(0, 3, 1, 2), plain((4, 6, 5, 3), 1)),
        (torch.zeros(4, 7, 6), plain((4, 7, 6), 2)),
        (torch.zeros(1, 7, 6), plain((1, 7, 6), 2)),
        (torch.zeros(16, 6), plain((16, 6), 1)),
        (torch.zeros(28, 6), Plan((4, 7, 6), (2,), (0,), (1,), (4, 7, 6))),
        (torch.zeros(4, 7, 2, 3), Plan(None, (2, 3), (0,), (1,), (4, 7, 2, 3))),
        (torch.zeros(5, 6), Plan(None, (1,), (), (0,), (5, 6))),
    ):
        assert written.engaged(z, RELU, made, sums(made.unit_count)) is not None


def test_counts_beyond_the_integers_of_float32(written: Inductor) -> None:
    """2^24 + 3 positions of one unit, all engaged: float32 would count 2^24."""
    many = (1 << 24) + 3
    z = torch.ones(1, dtype=torch.bfloat16).expand(2 * many).clone().view(1, 2, many)
    to = sums(2)
    assert written.engaged(z, RELU, plain((1, 2, many), 1), to) is not None
    assert to.count.tolist() == [float(many)] * 2


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_is_no_memory_is_declined(written: Inductor) -> None:
    """Other layouts, subclasses, transforms, addresses at odd places; and tensors whose storage was given back."""
    made, freed = plain((16, 6), 1), torch.ones(16, 6)
    freed.untyped_storage().resize_(0)
    cases = {
        "subclass": torch.ones(16, 6).as_subclass(type("Own", (torch.Tensor,), {})),
        "sparse": torch.ones(16, 6).to_sparse(),
        "meta": torch.ones(16, 6, device="meta"),
        "whole": torch.ones(16, 6, dtype=torch.int32),
        "negated": torch._neg_view(torch.ones(16, 6)),
        "freed": freed,
        "one past a sixteenth": torch.ones(97)[1:].view(16, 6),
        "another shape": torch.ones(16, 7),
        "empty": torch.ones(0, 6),
    }
    for name, z in cases.items():
        assert written.engaged(z, RELU, made, sums(6)) is None, name
    far = Kind("far", intervals=((1e6, INF),))  # 1e6 is no float16
    assert written.engaged(torch.ones(16, 6, dtype=torch.float16), far, made, sums(6)) is None

    def inner(z: torch.Tensor) -> torch.Tensor:
        assert written.engaged(z, RELU, made, sums(6)) is None
        return z.sum()

    torch.vmap(inner)(torch.ones(3, 16, 6))
    torch.func.grad(inner)(torch.ones(16, 6))
    assert not written.reason
    assert written.engaged(torch.ones(16, 6), RELU, made, sums(6)) is not None


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
