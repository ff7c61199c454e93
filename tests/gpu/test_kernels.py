"""The kernels on a GPU: equal to those on the CPU to the last count, whatever the layout, dtype and memory."""

from __future__ import annotations

import pytest
import torch
from test_kernels import DTYPES, FOLDED, IMAGES, LATER, MEMORY, PLAIN, TOKENS, values

from deadrelu.kernels import Sums, engaged, magnitude, maximum, squares
from deadrelu.kinds import KINDS
from deadrelu.tracing.layout import Layout, plan

from .conftest import Gpu

LAYOUTS = {"image": IMAGES, "tokens": TOKENS, "folded": FOLDED, "plain": PLAIN, "later": LATER}
EXACT = ("count", "samples", "top", "largest")


def looked(layout: Layout, kind: str, z: torch.Tensor) -> tuple[Sums, torch.Tensor, torch.Tensor]:
    """Return the sums of one tensor, which samples fired, and the largest of each unit."""
    made, sums = plan(layout), Sums(layout.units or 1, z.device)
    fired = engaged(z, KINDS[kind], made, sums).fired
    magnitude(z, KINDS[kind], made, sums)
    squares(z, made, sums)
    return sums, fired, maximum(z, made)


@pytest.mark.parametrize("kind", ["relu", "relu6", "silu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_as_on_the_cpu(gpu: Gpu, name: str, dtype: torch.dtype, kind: str) -> None:
    """NaN and infinities included; sums may differ in the last digits. Nothing waits for the device."""
    layout = LAYOUTS[name]
    for strange in (False, True):
        z = values(layout, dtype, 3, strange=strange)
        there = z.to("cuda")
        with gpu.silent():
            found, fired, top = looked(layout, kind, there)
        expected, known, highest = looked(layout, kind, z)
        for part in EXACT:
            torch.testing.assert_close(
                getattr(found, part).cpu(), getattr(expected, part), rtol=0, atol=0, equal_nan=True
            )
        for part in ("magnitude", "square"):
            torch.testing.assert_close(
                getattr(found, part).cpu(), getattr(expected, part), rtol=1e-6, atol=0, equal_nan=True
            )
        assert torch.equal(fired.cpu(), known)
        torch.testing.assert_close(top.cpu(), highest, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("memory", MEMORY)
def test_however_it_lies_in_memory(gpu: Gpu, memory: str) -> None:
    """The numbers of its contiguous copy."""
    z = values(IMAGES, torch.float32, 4, strange=True)
    lies = MEMORY[memory](z)
    there = (
        torch.empty_strided(lies.size(), lies.stride(), device="cuda").copy_(lies)
        if 0 not in lies.stride()
        else (lies[:1].to("cuda").expand(lies.shape))
    )
    found, fired, top = looked(IMAGES, "relu", there)
    expected, known, highest = looked(IMAGES, "relu", lies.clone(memory_format=torch.contiguous_format))
    for part in EXACT:
        torch.testing.assert_close(getattr(found, part).cpu(), getattr(expected, part), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(fired.cpu(), known)
    torch.testing.assert_close(top.cpu(), highest, rtol=0, atol=0, equal_nan=True)
