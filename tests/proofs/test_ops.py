"""Every op that is bounded: what it computes on points of a box lies within its bounds, also inside of composed ones.

The oracle is torch itself: `Witness` compares the result of each single op with its bounds, element by element, on
random points, on corners and on the two extreme corners, over boxes of six kinds (wide, narrow, a point, far from
zero, near the largest and the smallest numbers that still make sense).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deadrelu.proofs.enclosure import Enclosure
from deadrelu.proofs.rounding import outward
from deadrelu.proofs.shadow import living_tensors
from deadrelu.proofs.table import HANDLERS

from .ops import FAMILIES, UNBOUNDED
from .witness import points, watched

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),
]

SHAPE = (2, 8, 6, 6)
KINDS = ((1.0, 1.0), (1.0, 0.0), (3.0, 2.0), (0.01, 0.01), (30.0, 3e-3), (1e3, 1e3))


def boxes(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Return the ends of the boxes, as float64 numbers that float32 holds."""
    found = []
    for i, (scale, width) in enumerate(KINDS):
        centre = torch.randn(SHAPE, generator=generator, dtype=torch.float64) * scale
        half = torch.rand(SHAPE, generator=generator, dtype=torch.float64) * width
        centre = centre.abs() + half if i == 2 else centre
        found.append(((centre - half).float().double(), (centre + half).float().double()))
    return found


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_leaves_its_bounds(family: str) -> None:
    torch.manual_seed(3)
    ops = FAMILIES[family]()
    constants = living_tensors()
    generator = torch.Generator().manual_seed(4)
    around_zero, *others = boxes(generator)
    seen: set[str] = set()
    for name, op in ops.items():
        for low, high in (around_zero, *others):
            for point in points(low, high, torch.float32, generator, 3):
                witness, result, found = watched(op, point.clone(), low, high, constants)
                assert witness.escaped is None, f"{name}: {witness.escaped}"
                assert witness.lost is None, f"{name}: {witness.lost}"
                assert found is not None
                seen |= witness.seen
                if low is around_zero[0]:
                    assert found.bounded == (name not in UNBOUNDED), f"{name}: {found.reason}"
                    assert (UNBOUNDED.get(name) or "") in (found.reason or "")
                assert witness.outside(result, name) is None
    assert len(seen & set(HANDLERS)) > 8


def test_a_bound_that_is_too_tight_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: each of these mistakes is found by the same comparison."""
    torch.manual_seed(5)
    ops = {name: op for family in FAMILIES.values() for name, op in family().items()}
    constants = living_tensors()
    generator = torch.Generator().manual_seed(6)
    low, high = boxes(generator)[0]

    def escapes(name: str) -> bool:
        return any(
            watched(ops[name], point.clone(), low, high, constants)[0].escaped is not None
            for point in points(low, high, torch.float32, generator, 8)
        )

    tight = {
        "conv": "convolution",
        "layer-norm": "native_layer_norm",
        "batch-norm": "native_batch_norm",
        "max": "max_pool2d_with_indices",
        "matmul": "bmm",
        "gelu": "gelu",
        "add": "add",
        "where": "where",
        "softmax": "_softmax",
        "attention-function": "_scaled_dot_product_flash_attention_for_cpu",
    }
    for name, op in tight.items():
        assert not escapes(name)
        honest = HANDLERS[op]

        def narrowed(call, honest=honest):
            found = honest(call)
            first = found[0] if isinstance(found, tuple) else found
            if first.point:
                return found
            middle, half = (first.low + first.high) / 2, (first.high - first.low) / 2
            return Enclosure(middle - 0.05 * half, middle + 0.05 * half)

        monkeypatch.setitem(HANDLERS, op, narrowed)
        assert escapes(name), f"narrow bounds of {op} were not noticed"
        monkeypatch.undo()


def test_rounding_is_granted() -> None:
    """Without the margin, a sum of products at one point of float32 leaves its bounds."""
    torch.manual_seed(7)
    layer = torch.nn.Linear(300, 300)
    x = torch.randn(64, 300)
    witness, result, found = watched(layer, x, x, x, living_tensors())
    assert witness.escaped is None
    assert found is not None
    exact = x.double() @ layer.weight.double().T + layer.bias.double()
    assert bool((exact != result.double()).any())
    spread = (found.high - found.low).max()
    assert 0 < float(spread) < 1e-2


def test_signs_survive_rounding() -> None:
    low, high = outward(
        torch.tensor([0.0, 1e-300, -1.0]).double(), torch.tensor([0.0, 1.0, -1e-300]).double(), torch.float32
    )
    assert low.tolist()[0] == high.tolist()[0] == 0.0
    assert low.tolist()[1] == 0.0
    assert high.tolist()[2] == 0.0
