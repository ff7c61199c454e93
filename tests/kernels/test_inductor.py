"""Kernels of inductor: compiled they equal the reference, in one read.

Compiling takes seconds: a few formulas are. What they compute is tried as plain torch in `test_formulas.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from elements import sums
from tensors import IMAGES_ONLY, MEMORY, plain, values, with_strange_units
from torch.overrides import TorchFunctionMode

from deadrelu.kernels import inductor, reference
from deadrelu.kernels.formulas import BYTE, Formula
from deadrelu.kernels.inductor import Inductor
from deadrelu.kernels.lowering import lowered
from deadrelu.kinds import INF, KINDS

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
