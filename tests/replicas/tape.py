"""Tape: the pre-activations that a replica says it feeds to its activations, rearranged by hand.

A replica calls `note(self, "relu", z, "nupp")` right before an activation. Without a tape running that is one
comparison; with one, z is cloned (an in-place activation overwrites it next) and rearranged to
(samples, positions, units) by the letters of the layout: `n` sample, `p` position, `u` unit, one letter per dimension.
`(np)` is one dimension that folds the samples (outer) and the positions (inner); `(pn)` and `(up)` alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_running: Tape | None = None


def to_samples(z: Tensor, layout: str, rows: int, units: int | None = None) -> NDArray[np.float64]:
    """Return z as (samples, positions, units) in float64; `units` is needed for a dimension `(up)` or `(pu)` only."""
    sizes = {"n": rows, "u": units}
    letters: list[str] = []
    shape: list[int] = []
    dims = re.findall(r"\([a-z]+\)|[a-z]", layout)
    assert len(dims) == z.dim(), f"layout {layout!r} does not fit a tensor of {z.dim()} dimensions"
    for dim, size in zip(dims, z.shape, strict=True):
        if len(dim) == 1:
            letters.append(dim)
            shape.append(size)
            continue
        outer, inner = dim[1], dim[2]
        known = sizes[inner] if outer == "p" else sizes[outer]
        assert known is not None
        letters += [outer, inner]
        shape += [size // known, known] if outer == "p" else [known, size // known]
    split = z.detach().to(torch.float64, copy=True).contiguous().numpy().reshape(shape)
    order = [i for letter in "npu" for i, found in enumerate(letters) if found == letter]
    count = dict.fromkeys("npu", 1)
    for letter, size in zip(letters, shape, strict=True):
        count[letter] *= size
    return split.transpose(order).reshape(count["n"], count["p"], count["u"])


@dataclass
class Tape:
    """What one replica fed to its activations: per site, one array (samples, positions, units) per forward pass."""

    model: nn.Module
    forwards: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    _now: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def write(self, module: nn.Module, site: str, z: Tensor, layout: str, units: int | None = None) -> None:
        """Add one call of an activation; calls of one forward pass add positions."""
        path = next(name for name, found in self.model.named_modules() if found is module)
        name = f"{path}.{site}" if path else site
        self._now.setdefault(name, []).append(to_samples(z, layout, self.rows, units))

    @contextmanager
    def forward(self, rows: int) -> Iterator[None]:
        """Record one forward pass over a batch of `rows` samples."""
        global _running
        _running, self.rows, self._now = self, rows, {}
        try:
            yield
        finally:
            _running = None
        for name, calls in self._now.items():
            self.forwards.setdefault(name, []).append(np.concatenate(calls, axis=1))
            self.calls[name] = max(self.calls.get(name, 0), len(calls))


def note(module: nn.Module, site: str, z: Tensor, layout: str, units: int | None = None) -> None:
    """Tell the running tape, if there is one, that `module` feeds z to the activation `site`."""
    if _running is not None:
        _running.write(module, site, z, layout, units)


@dataclass(frozen=True)
class Want:
    """What the audit must say of one site.

    Attributes:
        site: its name.
        op: its canonical kind.
        units: its units.
        producers: module paths that must be among its producers.
        kill: name of the bias (or norm beta) that is set to -1000 for the units `dead`, to +1000 for `high`.
        dead: indices into that parameter.
        high: indices into that parameter, for kinds that are flat at both ends.
    """

    site: str
    op: str
    units: int
    producers: tuple[str, ...]
    kill: str | None = None
    dead: tuple[int, ...] = ()
    high: tuple[int, ...] = ()


@dataclass(frozen=True)
class Replica:
    """A small model, its data, and what an audit of it must find, in order of first execution.

    Attributes:
        name: name of the test case.
        build: builds the model, weights drawn from the global generator.
        batch: makes one batch of that many rows from a generator.
        sites: the expected sites, in order of first execution.
        batch_dim: dimension of the inputs that holds the samples.
        listen: for activations inside torch's own modules: site -> (path of the module whose output is z, layout).
        uncalled: activation modules that no forward pass reaches.
        wrap: what a user puts around the model, such as `nn.DataParallel`.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int, torch.Generator], Any]
    sites: tuple[Want, ...]
    batch_dim: int = 0
    listen: dict[str, tuple[str, str]] = field(default_factory=dict)
    uncalled: tuple[str, ...] = ()
    wrap: Callable[[nn.Module], Callable[..., Any]] | None = None

    def model(self, seed: int = 0) -> nn.Module:
        """Return the model in eval mode with generic norm statistics and the planted units dead."""
        torch.manual_seed(seed)
        model = self.build()
        unsettle(model)
        with torch.no_grad():
            for want in self.sites:
                if want.kill is not None:
                    model.get_parameter(want.kill)[list(want.dead)] = -1e3
                    model.get_parameter(want.kill)[list(want.high)] = 1e3
        return model.eval()

    def data(self, sizes: tuple[int, ...] = (5, 4, 2), seed: int = 1) -> list[Any]:
        """Return one batch of each size."""
        generator = torch.Generator().manual_seed(seed)
        return [self.batch(rows, generator) for rows in sizes]

    def record(self, model: nn.Module, data: list[Any]) -> Tape:
        """Run the model over the data under a tape."""
        tape = Tape(model)
        handles = []
        for site, (path, layout) in self.listen.items():

            def hook(_: nn.Module, __: Any, z: Tensor, site: str = site, layout: str = layout) -> None:
                note(model, site, z, layout)

            handles.append(model.get_submodule(path).register_forward_hook(hook))
        for batch in data:  # with gradients on: torch then keeps off its fused paths
            inputs = batch if isinstance(batch, (tuple, dict)) else (batch,)
            first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs[0]
            with tape.forward(first.shape[self.batch_dim]):
                model(**inputs) if isinstance(inputs, dict) else model(*inputs)
        for handle in handles:
            handle.remove()
        return tape


@torch.no_grad()
def unsettle(model: nn.Module) -> None:
    """Give norms statistics and affine parameters of their own, and weights a variance that keeps the units firing."""
    scaled: set[int] = set()
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            if id(module.weight) not in scaled:  # weights may be shared
                module.weight.mul_(6**0.5)  # from torch's variance 1 / (3 fan_in) to He's 2 / fan_in
                scaled.add(id(module.weight))
            continue
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name, None)
            if isinstance(value, Tensor) and value.dim() == 1 and not isinstance(module, nn.PReLU):
                low, high = (0.5, 1.5) if name in ("weight", "running_var") else (-0.3, 0.3)
                value.uniform_(low, high)


def images(channels: int = 3, size: int = 8) -> Callable[[int, torch.Generator], Tensor]:
    """Return a maker of random image batches (rows, channels, size, size)."""
    return lambda rows, generator: torch.randn(rows, channels, size, size, generator=generator)


def sequences(time: int = 5, width: int = 8, batch_dim: int = 0) -> Callable[[int, torch.Generator], Tensor]:
    """Return a maker of random sequences (rows, time, width), or (time, rows, width) for `batch_dim=1`."""

    def make(rows: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(rows, time, width, generator=generator)
        return x.transpose(0, 1).contiguous() if batch_dim == 1 else x

    return make


def tokens(time: int = 5, words: int = 20) -> Callable[[int, torch.Generator], Tensor]:
    """Return a maker of random token ids (rows, time)."""
    return lambda rows, generator: torch.randint(words, (rows, time), generator=generator)


def vectors(width: int = 8) -> Callable[[int, torch.Generator], Tensor]:
    """Return a maker of random rows (rows, width)."""
    return lambda rows, generator: torch.randn(rows, width, generator=generator)
