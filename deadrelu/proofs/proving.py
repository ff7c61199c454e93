"""prove: which units of a model are dead for every input of a declared box."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ..errors import DeadReluError, ModelError, refused
from ..sites import Site
from ..tracing import unwrapped
from ..untouched import placed, untouched
from .box import Box, declared
from .corner import highest
from .enclosure import Enclosure, Tensor
from .proof import Proof, SiteProof
from .prover import Bound, Prover

Patterns = Iterable[str] | str | None

_SIZES = (2, 3)
_REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError)


def prove(
    model: nn.Module,
    *,
    input_shape: Any,
    input_range: Any,
    dtype: torch.dtype | None = None,
    batch_size: int | None = None,
    batch_dim: int = 0,
    device: str | torch.device | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
) -> Proof:
    """Show of as many units as possible that no input of a declared box makes them fire.

    The model runs in eval mode on a random input of the box, and bounds are carried beside everything that it computes,
    whatever its spelling. What cannot be bounded is unbounded from there on, and said so. The model comes back as it
    was. Of a unit that is not proved dead nothing is claimed: bounds grow with depth.

    Args:
        model: any module; wrappers (compiled, data parallel) are looked through.
        input_shape: of one sample, without the batch: (3, 224, 224); a list of shapes for several inputs; a dict by
            keyword.
        input_range: (low, high), both within the box, numbers or of the shape of one sample; per input if there are
            several.
        dtype: of the inputs; None: that of the model's parameters, or int64 if the model takes tokens.
        batch_size: the number of samples that it is to hold for; None: any number, which is tried with two sizes.
        batch_dim: the dimension of the inputs that holds the samples.
        device: where to run; None is where the model's parameters are.
        include, exclude: patterns (`fnmatch`) of site names.

    Returns:
        A `Proof`, with the sites and units that `audit` finds.

    Raises:
        DataError: shapes and ranges do not fit, or the model refuses an input of the box.
        ModelError: the model is no module, or executed no activation.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).double()
    >>> model[0].weight.data = torch.tensor([[1.0, -2.0], [1.0, -2.0]]).double()
    >>> model[0].bias.data = torch.tensor([-0.5, -1.5]).double()
    >>> proof = prove(model, input_shape=(2,), input_range=(0, 1))
    >>> proof["1"].dead.tolist(), proof["1"].upper.round(3).tolist()
    ([False, True], [0.5, -0.5])
    """
    inner = _checked(model)
    box = declared(input_shape, input_range, dtype)
    where = torch.device(device) if device is not None else None
    with placed(inner, where) as home, untouched(inner), torch.inference_mode(False), torch.no_grad():
        run = _Run(inner, box, batch_dim, home, Prover(inner, include=include, exclude=exclude))
        sizes = _SIZES if batch_size is None else (batch_size, batch_size)
        passes = [run.forward(rows) for rows in sizes]
    return run.proof(passes, batch_size)


def maximising_corner(
    model: nn.Module,
    site: str,
    unit: int,
    *,
    input_shape: Any,
    input_range: Any,
    dtype: torch.dtype | None = None,
    batch_size: int = 2,
    batch_dim: int = 0,
) -> list[Tensor] | None:
    """Return the input at which the pre-activation of a unit reaches the upper bound that `prove` gives.

    Returns:
        One tensor per input, of one sample; None where no corner of the box is known to reach the bound: behind another
        activation bounds are seldom reached, and of whole numbers no slope tells.

    Raises:
        DataError, ModelError: as `prove`; ModelError also if there is no such site or unit.
    """
    inner = _checked(model)
    box = declared(input_shape, input_range, dtype)
    with untouched(inner), torch.inference_mode(False), torch.no_grad():
        home = next((t.device for t in (*inner.parameters(), *inner.buffers())), None)
        run = _Run(inner, box, batch_dim, home, Prover(inner))
        bounds = run.forward(batch_size)
        if site not in bounds or not 0 <= unit < len(bounds[site].upper):
            raise ModelError(f"no unit {unit} of a site {site!r}; the sites are {', '.join(bounds) or 'none'}")
        return run.corner(bounds[site], site, unit, batch_size)


def _checked(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        hint = "call the factory" if callable(model) else "build it first"
        raise ModelError(f"model is a {type(model).__name__}; expected a torch.nn.Module: {hint}")
    inner = unwrapped(model)
    if isinstance(inner, torch.jit.ScriptModule):
        raise ModelError("model is TorchScript, which runs outside of Python; prove the module that it was made from")
    for name, p in inner.named_parameters():
        if nn.parameter.is_lazy(cast(Any, p)) or p.is_meta:
            raise ModelError(f"{name} has no values yet; load or initialise the model first")
    return inner


class _Run:
    """The forward passes of one proof."""

    def __init__(self, model: nn.Module, box: Box, batch_dim: int, device: torch.device | None, prover: Prover) -> None:
        self._model = model
        self._batch_dim = batch_dim
        self._prover = prover
        self._draws = 0
        self._device = device
        floats = [p.dtype for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()]
        self._dtype = floats[0] if floats else torch.get_default_dtype()
        self._box = self._fitting(box)

    def _fitting(self, box: Box) -> Box:
        """The box as the model takes it: of tokens, if it refuses other numbers."""
        tokens = box.as_tokens()
        if tokens is None:
            return box
        for candidate in (box, tokens):
            try:
                args, kwargs = candidate.inputs(_SIZES[0], self._batch_dim, 0, self._device, self._dtype)
                self._model(*args, **kwargs)
            except Exception:  # whatever it is, the model says it again
                continue
            return candidate
        return box

    def forward(self, rows: int) -> dict[str, Bound]:
        """Bound one forward pass of `rows` samples."""
        prover, machine = self._prover, self._prover.machine
        args, kwargs = self._box.inputs(rows, self._batch_dim, self._draws, self._device, self._dtype)
        self._draws += 1
        inputs = [*args, *kwargs.values()]
        for tensor, side in zip(inputs, self._box.sides, strict=True):
            low, high = (self._wide(end, rows) for end in side.ends(tensor.dtype))
            prover.memory.new(tensor, Enclosure(low, high))
        prover.begin(inputs, self._batch_dim, rows)
        with prover.attached(), _drawn(self), _kept(self._model, self), machine, prover:
            try:
                self._model(*args, **kwargs)
            except DeadReluError:
                raise
            except _REFUSALS as error:
                raise refused(error, self._refusal(error, inputs)) from error
        prover.end()
        return prover.bounds

    def constant(self, tensor: Tensor) -> bool:
        return self._prover.memory.constant(tensor) or self._prover.machine.lost is not None

    def _wide(self, end: Tensor, rows: int) -> Tensor:
        return end.to(self._device).expand(rows, *end.shape).movedim(0, self._batch_dim)

    def corner(self, bound: Bound, site: str, unit: int, rows: int) -> list[Tensor] | None:
        """Return the sample at which a unit reaches its bound."""
        where = {"batch_dim": self._batch_dim, "draw": 0, "device": self._device, "dtype": self._dtype}
        return highest(self._model, self._box, bound, site, unit, rows, **where)

    def lose(self, why: str) -> None:
        self._prover.machine.lost = self._prover.machine.lost or why

    def _refusal(self, error: Exception, inputs: list[Tensor]) -> str:
        shapes = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in inputs[:3])
        said = next(iter(str(error).strip().splitlines()), "no message")
        return (
            f"the model refused an input of the box ({shapes}): {type(error).__name__}: {said}; expected what its "
            "forward accepts: check input_shape (without the batch) and dtype, or give the one batch_size that it takes"
        )

    def proof(self, passes: list[dict[str, Bound]], batch_size: int | None) -> Proof:
        """Return what holds in all of the passes.

        Raises:
            ModelError: no activation was executed.
        """
        prover = self._prover
        if not any(passes) and prover.sites.left_out:
            raise ModelError(f"{prover.sites.patterns} leaves out all sites; loosen the patterns")
        if not any(passes):
            raise ModelError(
                "the model executed no activation; expected ReLU or the like: a module, a function, or one named with "
                "deadrelu.register_kind"
            )
        if any(found.keys() != passes[0].keys() for found in passes):
            self.lose("other sites run at another batch size, or at the next forward: prove it for one batch_size")
        lost = prover.machine.lost
        unseen = [(module, f"cannot be seen into: {reason}") for module, reason in prover.unsupported.items()]
        return Proof(
            domain=str(self._box),
            sites=tuple(
                _site(site, [found[site.name] for found in passes if site.name in found], lost)
                for site in prover.sites
                if any(site.name in found for found in passes)
            ),
            batch_size=batch_size,
            unfollowed=(*prover.machine.unfollowed.items(), *unseen),
            lost=lost,
        )


def _site(site: Site, seen: list[Bound], lost: str | None) -> SiteProof:
    first = seen[0]
    same = torch.ones_like(first.silent) if lost is None else torch.zeros_like(first.silent)
    silent, upper, lower = first.silent, first.upper, first.lower
    for other in seen[1:]:
        same = same & _equal(first, other)
        silent, upper, lower = silent & other.silent, upper.maximum(other.upper), lower.minimum(other.lower)
    reason = lost or next((f.reason for f in seen if f.reason is not None), None)
    if reason is None and not bool(same.all()):
        reason = "its bounds change with the batch size, or from forward to forward: prove it for one batch_size"
    return SiteProof(
        site=site.name,
        op=site.kind.name,
        source=site.source,
        producers=tuple(site.producers),
        unit_dim=site.unit_dim,
        units=site.units,
        can_die=site.kind.can_die,
        silent=(silent & same).numpy(),
        upper=torch.where(same, upper, torch.inf).numpy(),
        lower=torch.where(same, lower, -torch.inf).numpy(),
        reason=reason,
    )


def _equal(a: Bound, b: Bound) -> Tensor:
    """Equal but for the rounding of our own float64."""
    size = a.upper.abs().nan_to_num(posinf=0.0) + a.lower.abs().nan_to_num(posinf=0.0)

    def alike(one: Tensor, other: Tensor) -> Tensor:
        return (one == other) | ((one - other).abs() <= 1e-12 * size)

    return alike(a.upper, b.upper) & alike(a.lower, b.lower) & (a.silent == b.silent)


@contextmanager
def _drawn(run: _Run) -> Iterator[None]:
    """Random numbers of Python and NumPy come on a way that nobody sees."""
    before = random.getstate(), _drawn_by_numpy()
    yield
    same = before == (random.getstate(), _drawn_by_numpy())
    if not same:
        run.lose("the model draws random numbers outside of torch")


def _drawn_by_numpy() -> tuple[bytes, int]:
    state: Any = np.random.get_state()
    return state[1].tobytes(), state[2]


@contextmanager
def _kept(model: nn.Module, run: _Run) -> Iterator[None]:
    """A forward that writes its own state leaves another model to the next one."""
    state = {name: (b, b.detach().clone()) for name, b in model.named_buffers()}
    versions = {name: (p, p._version) for name, p in model.named_parameters()}
    yield
    current = dict(model.named_buffers())
    changed = [name for name, (b, copy) in state.items() if current.get(name) is not b or not _same(b, copy)]
    changed += [name for name, (p, version) in versions.items() if p._version != version]
    changed += [name for name, p in model.named_parameters() if not run.constant(p)]
    if changed:
        run.lose(f"the model writes {changed[0]}: the next forward starts from another state")


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
