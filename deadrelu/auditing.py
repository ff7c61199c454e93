"""audit: which units of a model are dead on given data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from .backward import backward
from .batches import Caller, Forward, Source, prepared, source, tensors_in
from .counts import SiteCounter
from .errors import DataError, DeadReluError, ModelError, refused
from .hooks import Watcher
from .report import Coverage, Report
from .status import confidence, site_reports
from .tracing import unwrapped
from .untouched import placed, untouched

Loss = Callable[[Any, Any], torch.Tensor]
Patterns = Iterable[str] | str | None

_REFUSALS = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
)


def audit(
    model: nn.Module,
    data: Any,
    *,
    forward: Forward | None = None,
    loss: Loss | None = None,
    batch_size: int = 128,
    batch_dim: int = 0,
    exhaustive: bool = False,
    max_samples: int | None = None,
    device: str | torch.device | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    progress: bool = False,
) -> Report:
    """Run a model over data and say what each unit of each activation did.

    The model runs in eval mode and comes back as it was: parameters, buffers, gradients, `.training`, hooks and random
    states bit for bit, also after an exception.

    Args:
        model: any module; wrappers (compiled, data parallel) are looked through.
        data: a tensor or array (cut into batches; a tuple or dict of them is cut in parallel), a Dataset, or an
            iterable of batches. A batch is a tensor; a tuple or list (inputs first; what forward does not accept is
            dropped); or a dict (keyword inputs; keys that forward does not accept are dropped).
        forward: how to run the model on a batch, if neither of these fits.
        loss: maps (output, batch) to a scalar; with it, gradient flow is measured too.
        batch_size: rows of a batch cut from a tensor or Dataset.
        batch_dim: the dimension of the inputs that holds the samples.
        exhaustive: the data is all there is, so that every silent unit is dead.
        max_samples: stop after this many samples; a tensor or Dataset is sampled at random then.
        device: where to run; None is where the model's parameters are.
        include, exclude: patterns (`fnmatch`) of site names, such as `encoder.*`.
        progress: show a progress bar, if standard error is a terminal.

    Returns:
        A `Report` with one `SiteReport` per activation executed, in order of first execution.

    Raises:
        DataError: the data is empty or unreadable, or the model refuses a batch (the error is then also an instance of
            the type that the model raised).
        ModelError: the model is no module, is not initialised, or executed no activation.

    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU())
    >>> model[0].weight.data = torch.tensor([[1.0], [-1.0]])
    >>> report = audit(model, torch.tensor([[1.0], [2.0], [3.0]]), exhaustive=True)
    >>> report["1"].dead.tolist(), report["1"].sample_rate.tolist()
    ([False, True], [1.0, 0.0])
    """
    inner = _checked(model)
    if exhaustive and max_samples is not None:
        raise DataError("exhaustive says that data is complete, max_samples that a part will do; give one of the two")
    batches = source(data, batch_size=batch_size, batch_dim=batch_dim, max_samples=max_samples)
    watcher = Watcher(inner, include=include, exclude=exclude, gradients=loss is not None)
    with (
        placed(inner, _device(device)) as home,
        untouched(inner, batches.generators),
        _gradients(inner, loss is not None),
    ):
        run = _Run(inner, watcher, Caller(inner, forward), loss, batch_dim, home, batches.cast)
        with watcher.attached():
            for batch in _bar(batches, progress):
                run.step(batch)
                if max_samples is not None and run.samples >= max_samples:
                    break
        return run.report(exhaustive=exhaustive)


def _checked(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        hint = "call the factory" if callable(model) else "build it first"
        raise ModelError(f"model is a {type(model).__name__}; expected a torch.nn.Module: {hint}")
    inner = unwrapped(model)
    if isinstance(inner, torch.jit.ScriptModule):
        raise ModelError("model is TorchScript, which runs outside of Python; audit the module that it was made from")
    lazy = [name for name, p in inner.named_parameters() if nn.parameter.is_lazy(cast(Any, p))]
    if lazy:
        raise ModelError(f"{lazy[0]} is not initialised (a lazy module); run the model on one batch first")
    empty = next((name for name, p in inner.named_parameters() if p.is_meta), None)
    if empty is not None:
        raise ModelError(f"{empty} is on the meta device and has no values; load or initialise the model first")
    return inner


def _device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"device {device!r} cannot be used: {_first_line(error)}; expected cpu, cuda, cuda:1..."
        ) from None
    # "cuda" alone compares unequal to the "cuda:0" that tensors report.
    where = torch.empty(0, device=found).device
    if where.type == "meta":
        raise ModelError("device 'meta' computes nothing; expected cpu, cuda, cuda:1...")
    return where


@contextmanager
def _gradients(model: nn.Module, measured: bool) -> Iterator[None]:
    """Frozen parameters are thawed for the while (`untouched` freezes them again): dL/dz is there either way."""
    with torch.inference_mode(False), torch.set_grad_enabled(measured):
        for parameter in model.parameters() if measured else ():
            if parameter.is_floating_point():
                parameter.requires_grad_()
        yield


def _bar(batches: Source, progress: bool) -> Iterator[Any]:
    if not (progress and sys.stderr.isatty()):
        yield from batches.batches
        return
    from .render.progress import bar

    yield from bar(batches.batches, "Auditing", batches.total)


class _Run:
    """One pass over the data."""

    def __init__(
        self,
        model: nn.Module,
        watcher: Watcher,
        caller: Caller,
        loss: Loss | None,
        batch_dim: int,
        device: torch.device | None,
        cast: bool,
    ) -> None:
        self.samples = 0
        self._batches = 0
        self._model = model
        self._watcher = watcher
        self._caller = caller
        self._loss = loss
        self._batch_dim = batch_dim
        self._device = device
        self._dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
        self._cast = cast
        self._nan = 0

    def step(self, batch: Any) -> None:
        """Run the model on one batch, and backward through its loss if there is one."""
        batch = prepared(batch, self._device, self._dtype, self._cast)
        if next((t.shape[0] for t in tensors_in(batch) if t.ndim), None) == 0:
            return
        if not self._batches:
            with self._watcher.paused():
                self._caller.settle(self._model, prepared(batch, None, None, False))
        args, kwargs = self._caller.inputs(batch)
        inputs = list(tensors_in((args, kwargs)))
        self._nan += any(_holds_nan(t) for t in inputs if t.is_floating_point() and not t.is_cuda)
        self._watcher.begin(inputs, self._batch_dim, _rows(inputs, self._batch_dim))
        with self._watcher:
            try:
                output = self._caller(self._model, batch, args, kwargs)
            except DeadReluError:
                raise
            except _REFUSALS as error:
                raise refused(error, self._refusal(error, inputs)) from error
            if self._loss is not None:
                self._backward(self._loss, output, batch)
        self.samples += self._watcher.end()
        self._batches += 1

    def _backward(self, loss: Loss, output: Any, batch: Any) -> None:
        try:
            backward(loss(output, batch), self._model.parameters())
        except DeadReluError:
            raise
        except _REFUSALS as error:
            raise refused(
                error,
                f"loss failed on batch {self._batches}: {type(error).__name__}: {_first_line(error)}; "
                "expected loss=lambda output, batch: a number that depends on the output",
            ) from error

    def _refusal(self, error: Exception, inputs: list[torch.Tensor]) -> str:
        shapes = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in inputs[:3]) or "no tensor"
        return (
            f"the model refused batch {self._batches} ({shapes}): {type(error).__name__}: {_first_line(error)}; "
            "expected what its forward accepts: check the shape and dtype, or pass forward=lambda model, batch: ..."
        )

    def report(self, *, exhaustive: bool) -> Report:
        """Return what was found.

        Raises:
            DataError: there was no batch.
            ModelError: no activation was executed.
        """
        if not self._batches:
            raise DataError("data gave no batch with a sample in it; expected at least one")
        watcher = self._watcher
        counts = SiteCounter.hosts([watcher.counters[site.name] for site in watcher.sites])
        found = [
            (site, counted, watcher.inputs.dead(site.producers, site.units))
            for site, counted in zip(watcher.sites, counts, strict=True)
        ]
        sites = site_reports(found, exhaustive=exhaustive)
        if not sites:
            raise ModelError(self._nothing())
        return Report(
            mode="audit",
            evidence="exhaustive" if exhaustive else "statistical",
            samples=self.samples,
            sites=sites,
            coverage=self._coverage(),
            confidence=None if exhaustive else confidence(sites),
        )

    def _coverage(self) -> Coverage:
        watcher = self._watcher
        guessed = tuple(
            (site.name, f"no op before it tells the units apart; they were taken along dimension {site.unit_dim}")
            for site in watcher.sites
            if site.guessed
        )
        return Coverage(
            sites=len(watcher.counters),
            uncalled=tuple(watcher.uncalled),
            unsupported=(*watcher.unsupported.items(), *guessed, *self._dirty()),
            merged=tuple((site.name, site.calls) for site in watcher.sites if site.calls > 1),
            batch_lost=tuple(site.name for site in watcher.sites if site.batch_lost),
        )

    def _dirty(self) -> tuple[tuple[str, str], ...]:
        reason = f"{self._nan} of {self._batches} batches hold NaN, which counts as inactive: clean the data"
        return (("data", reason),) if self._nan else ()

    def _nothing(self) -> str:
        watcher = self._watcher
        if watcher.sites.left_out:
            return f"{watcher.sites.patterns} leaves out all {watcher.sites.left_out} sites; loosen the patterns"
        unseen = "; ".join(f"{module}: {reason}" for module, reason in watcher.unsupported.items())
        return (
            "the model executed no activation"
            + (f" that can be seen ({unseen})" if unseen else "")
            + "; expected ReLU or the like: a module, a function, or one named with deadrelu.register_kind"
        )


def _holds_nan(tensor: torch.Tensor) -> bool:
    total = tensor.sum().item()  # a third of the time of a look at each element; NaN also if infinities meet
    return total != total and bool(tensor.isnan().any())


def _rows(inputs: list[torch.Tensor], batch_dim: int) -> int | None:
    for tensor in inputs:
        if tensor.ndim and -tensor.ndim <= batch_dim < tensor.ndim:
            return int(tensor.shape[batch_dim])
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
