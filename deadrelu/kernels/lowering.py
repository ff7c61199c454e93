"""Lowering: makes one compiled function of a formula, by torch's inductor, for tensors of any size.

Formulas are traced by hand and given to inductor: torch.compile would look at its guards at every call, and share its
limits and settings with the model's own compilations. A thread of its own compiles, while the caller waits: what a
training has switched on in its thread (modes, autocast, transforms, inference, a default device) is not on there.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from .formulas import BYTE, Formula
from .roles import UNIT

_SETTINGS = {
    "split_reductions": False,  # a formula's two reductions are its own split: another would double the launches
    "compile_threads": 1,  # or inductor starts processes, which stay
    "fx_graph_cache": False,  # in torch 2.6 its key fails, with a traceback; what Triton and C++ make is cached anyway
    "cpp_wrapper": False,
    "max_autotune": False,
    "triton.cudagraphs": False,
    "trace.enabled": False,
}
Lowered = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]


def lowered(formula: Formula, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Lowered:
    """Return a function of a list, which it empties: a dense tensor, and the rows that the formula adds to.

    Args:
        formula: what it computes.
        sizes: those of the tensor; any others that are larger than 1 do as well, but for the 8 samples of a byte.
        dtype, device: of the tensor.
    """
    with ThreadPoolExecutor(max_workers=1) as clean:
        return clean.submit(_lowered, formula, sizes, dtype, device).result()


def _lowered(formula: Formula, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Lowered:
    from torch._inductor import config

    here = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with warnings.catch_warnings(), config.patch(_SETTINGS), torch.no_grad(), here:
        warnings.simplefilter("ignore")
        return _compiled(formula, sizes, dtype, device)


def _compiled(formula: Formula, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Lowered:
    # Seconds to import, and only who compiles waits for them.
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    roles, shapes = formula.roles, ShapeEnv()
    fake = FakeTensorMode(shape_env=shapes)
    symbols = [n if role == BYTE else _symbol(shapes, role, n) for role, n in zip(roles, sizes, strict=True)]
    with fake:
        tensor = torch.empty(symbols, dtype=dtype, device=device)
        # Behind another row: nothing is promised of the address of any.
        units = symbols[roles.index(UNIT)] if UNIT in roles else 1
        held = torch.empty((1 + len(formula.rows), units), dtype=torch.float64, device=device).unbind()[1:]
    with tracing(TracingContext(fake)):
        tracer = make_fx(formula.function(), tracing_mode="symbolic", decomposition_table=select_decomp_table())
        graph = tracer(tensor, *held)
        made: Any = compile_fx_inner(graph, [n.meta["val"] for n in graph.graph.nodes if n.op == "placeholder"])
    if shapes.guards:
        raise RuntimeError(f"inductor's code holds for some sizes only ({shapes.guards[0].expr})")
    return made  # type: ignore[no-any-return]


def _symbol(shapes: Any, role: str, size: int) -> Any:
    """Return a number of which the compiled code knows no more than that it is larger than 1."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic

    source = ConstantSource(f"deadrelu_{role}")
    known = shapes.create_symbol(size, source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
    return shapes.create_symintnode(known, hint=size, source=source)
