"""Watcher: sees every activation that a forward pass executes, and counts what its units do.

A function mode sees every torch call, those of modules included, whatever its spelling; module hooks only keep the
path of the module that runs. In a call: no wait for the device, no reference to an activation kept past the forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from . import tracing
from .calls import (
    ActivationCall,
    Frame,
    Reading,
    Readings,
    Sighting,
    countable,
    gradient_hook,
    in_backward,
    inside_script,
    is_activation,
)
from .counts import SiteCounter
from .kinds import KINDS, Arguments, Kind, is_activation_module, kind_of_function, kind_of_module, refined
from .producers import ProducerInputs
from .sites import Key, Site, Sites, calling_line
from .tracing import NOTHING, ParameterNames, Trace, Tracer, Traces, tensors_of

_INSIDE = (("relu", "rnn_relu"), ("tanh", "rnn_tanh"), ("sigmoid and tanh", "lstm"), ("sigmoid and tanh", "gru"))
_FUSED = {name: inside for inside, op in _INSIDE for name in (op, f"{op}_cell")}
_FOREIGN = "takes a tensor from code that cannot be seen (a scripted function, an op of its own)"
_CLAMPS = frozenset(("clamp", "clip", "clamp_min"))
_MAXIMA = frozenset(("maximum", "max", "fmax", "amax"))


class Watcher(TorchFunctionMode):
    """Finds the sites of a model and counts them, while it is attached.

    Args:
        model: the model, wrappers removed.
        include, exclude: patterns of site names (`fnmatch`); None includes all.
        gradients: also measure dL/dz of the backward pass that follows each forward.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        include: Iterable[str] | str | None = None,
        exclude: Iterable[str] | str | None = None,
        gradients: bool = False,
    ) -> None:
        super().__init__()
        self.sites = Sites(include, exclude)
        self.inputs = ProducerInputs()
        self.counters: dict[str, SiteCounter] = {}
        self.unsupported: dict[str, str] = {}
        self._gradients = gradients
        self._paths = tracing.module_paths(model)
        self._kinds: dict[type, Kind | None] = {}
        self._called: set[nn.Module] = set()
        self._frames: list[Frame] = []
        self._absorbed = 0
        self._calls: dict[str, int] = {}
        self._zeros: dict[int, bool] = {}
        self._handles: list[Any] = []
        self._module_hooks: list[Any] = []
        self._names = ParameterNames(model, self._scope)
        self._readings = Readings()
        self._tracer = Tracer(Traces(), self._names, self._scope, self._on_producer)
        for module, path in self._paths.items():
            if isinstance(module, torch.jit.ScriptModule) and not inside_script(path, self._paths):
                self.unsupported[path] = (
                    "scripted: TorchScript runs outside of Python; audit the module it was made from"
                )

    # -- attaching -----------------------------------------------------------------------------------------------

    @contextmanager
    def attached(self) -> Iterator[Watcher]:
        """Follow the modules inside of the block, leaving no hook behind; `with watcher` then sees what is executed."""
        try:
            self.attach(self._paths)
            yield self
        finally:
            self.detach()

    def attach(self, modules: Iterable[nn.Module]) -> None:
        """Follow which of these modules runs."""
        self._kinds.clear()
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):
                continue
            enter = module.register_forward_pre_hook(self._enter_module, prepend=True, with_kwargs=True)
            leave = module.register_forward_hook(self._leave_module, always_call=True)
            self._module_hooks += (enter, leave)

    def detach(self) -> None:
        """Remove every hook, and forget the forward pass that was under way."""
        for handle in self._module_hooks:
            handle.remove()
        self._module_hooks.clear()
        self._frames.clear()
        self._forget()

    def renew(self, model: nn.Module) -> None:
        """Learn the modules and parameters of a model that has changed."""
        self._paths = tracing.module_paths(model)
        self._names = ParameterNames(model, self._scope)
        self._tracer.rename(self._names)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing inside of the block."""
        self._absorbed += 1
        try:
            yield
        finally:
            self._absorbed -= 1

    def begin(self, inputs: Iterable[Any], batch_dim: int, batch: int | None) -> None:
        """Start a forward pass on these input tensors, of which dimension `batch_dim` holds `batch` samples."""
        self._forget()
        self._tracer.unbatched = False
        self._tracer.batch = batch
        for tensor in tensors_of(inputs):
            self._tracer.traces.put(tensor, tracing.input_trace(tensor, batch_dim, batch))

    def end(self) -> int:
        """End a forward pass (and its backward pass, if any). Returns the number of samples it held."""
        for counter in self.counters.values():
            counter.end_forward()
        for site in self.sites:
            site.calls = max(site.calls, self._calls.get(site.name, 0))
        self.inputs.settle()
        for place in self._tracer.foreign:
            self.unsupported.setdefault(place or "the model", _FOREIGN)
        self._forget()
        return 1 if self._tracer.unbatched or self._tracer.batch is None else self._tracer.batch

    @property
    def uncalled(self) -> list[str]:
        """Paths of the activation modules that no forward pass reached."""
        return [p for m, p in self._paths.items() if m not in self._called and is_activation_module(m)]

    def _blind(self) -> bool:
        """True while what runs is not the model as it was written."""
        return False

    def _forget(self) -> None:
        for handle in self._handles:
            handle.remove()
        for counter in self.counters.values():
            counter.drop_forward()
        self._handles.clear()
        self._calls.clear()
        self._names.forget()
        self._tracer.traces.clear()

    # -- modules -------------------------------------------------------------------------------------------------

    def _scope(self) -> str:
        return self._frames[-1].path if self._frames else ""

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._called.add(module)
        leaf = not module._modules or next(module.children(), None) is None
        frame = Frame(self._paths[module], module, (*args, *kwargs.values()) if leaf else ())
        self._frames.append(frame)
        cls = type(module)
        if cls not in self._kinds:
            self._kinds[cls] = kind_of_module(module)
        kind = None if self._absorbed else self._kinds[cls]
        if kind is not None:
            z = next(iter(tensors_of(frame.inputs)), None)
            with torch._C.DisableTorchFunction():
                frame.call = self._call(z, kind, kind.name, self._trace(z)) if z is not None else None
            self._absorbed += frame.call is not None

    def _leave_module(self, module: nn.Module, args: Any, out: Any) -> None:
        while self._frames:
            frame = self._frames.pop()
            if frame.call is not None:
                self._absorbed -= 1
                if frame.module is module and isinstance(out, torch.Tensor):
                    with torch._C.DisableTorchFunction():
                        self._returned(frame.call, out)
            if frame.module is module:
                break

    # -- functions -----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling() or self._blind():  # a part that is compiled cannot be seen into
            return func(*args, **kwargs)
        name = tracing.canonical_name(func)
        if name in tracing.BLIND:
            return func(*args, **kwargs)
        call = self._before(name, args, kwargs)
        out = func(*args, **kwargs)
        self._after(name, args, kwargs, call, out)
        return out

    def _before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActivationCall | None:
        if self._absorbed:
            return None
        kind = kind_of_function(name)
        if kind is not None:
            return self._activation(name, kind, Arguments(args, kwargs))
        return self._maximum(name, Arguments(args, kwargs)) if name in _MAXIMA else None

    def _after(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: ActivationCall | None, out: Any
    ) -> None:
        if call is None or call.trace is None:
            self._propagate(name, Arguments(args, kwargs), out)
        if call is not None:
            self._returned(call, out)

    def _activation(self, name: str, kind: Kind, arguments: Arguments) -> ActivationCall | None:
        """Count the activation that a call is, before it runs (it may overwrite z); None if it is none after all."""
        if name in _CLAMPS:
            arguments = self._plain_bounds(arguments)
        exact = refined(kind, arguments)
        x = arguments.get(0, "input", arguments.kwargs.get("self"))
        if exact is None or not countable(x):
            return None
        if name in _CLAMPS and not self._has_units(x):
            return None  # bounds on masks, lengths and distances are no activations
        if exact.gate is None:
            return self._call(x, exact, name, self._trace(x))
        z = exact.gate(x, arguments)
        return self._call(z, exact, name, self._tracer.traces.one(tracing.sliced(self._trace(x), x, z)))

    def _plain_bounds(self, arguments: Arguments) -> Arguments:
        """clamp(min=tensor(0.0)) is clamp(min=0)."""

        def plain(value: Any) -> Any:
            return 0.0 if isinstance(value, torch.Tensor) and value.numel() == 1 and self._is_zero(value) else value

        args = (*arguments.args[:1], *map(plain, arguments.args[1:]))
        return Arguments(args, {k: v if k == "input" else plain(v) for k, v in arguments.kwargs.items()})

    def _maximum(self, name: str, arguments: Arguments) -> ActivationCall | None:
        """maximum(x, 0) is a rectifier; the maximum of pieces with producers of their own is a maxout."""
        x, other = arguments.get(0, "input"), arguments.get(1, "other")
        if countable(x) and countable(other):
            for z, floor in ((x, other), (other, x)):
                if self._has_units(z) and self._is_zero(floor) and floor.numel() in (1, z.numel()):
                    return self._call(z, KINDS["maximum"], name, self._trace(z))
        pieces = tracing.maxout_pieces(self._tracer, name, arguments)
        if pieces is None:
            return None
        margin, trace, h = pieces
        call = self._call(margin, KINDS["maxout"], name, trace)
        self._returned(call, h)
        return ActivationCall(None, call.kind, call.plan, call.shape, None)

    def _propagate(self, name: str, arguments: Arguments, out: Any) -> None:
        if name in _FUSED:
            reason = f"fused: the {_FUSED[name]} inside of {name} cannot be seen from Python"
            self.unsupported.setdefault(self._scope() or f"{name}()", reason)
        try:
            tracing.propagate(name, self._tracer, arguments, out)
        except Exception as error:  # an op called in a way that its handler does not know: its result is untraced
            place = f"{self._scope()}.{name}()".lstrip(".")
            self.unsupported.setdefault(
                place, f"not followed ({type(error).__name__}: {error}); units behind it may be guessed"
            )

    # -- sites ---------------------------------------------------------------------------------------------------

    def _trace(self, z: torch.Tensor) -> Trace:
        trace = self._tracer.traces.get(z)
        if trace is not None:
            return trace
        name = self._names(z)
        return NOTHING if name is None else Trace(None, (name,), frozenset((name,)))

    def _has_units(self, z: torch.Tensor) -> bool:
        trace = self._tracer.traces.get(z)
        return trace is not None and trace.layout is not None and trace.layout.units is not None

    def _is_zero(self, tensor: torch.Tensor) -> bool:
        trace = self._tracer.traces.get(tensor)
        if trace is not None:
            return trace.zero
        if self._names(tensor) is not None:
            return False
        # The value of a buffer or of a constant from elsewhere decides; that of a buffer is looked up once.
        if not self._names.owns(tensor):
            return not bool(tensor.any())
        if id(tensor) not in self._zeros:
            self._zeros[id(tensor)] = not bool(tensor.any())
        return self._zeros[id(tensor)]

    def _call(self, z: torch.Tensor, kind: Kind, function: str, trace: Trace) -> ActivationCall:
        mapped = z
        z, reading = self._readings.of(z, trace, self._tracer)
        site, counter = self._site(z, kind, function, trace, reading), None
        if site is not None:
            site.producers.update(dict.fromkeys(trace.producers))
            site.guessed |= reading.guessed
            site.batch_lost |= reading.lost
            counter = self._observe(Sighting(site, kind, function, z, reading.layout, reading.plan, mapped is not z))
        return ActivationCall(counter, kind, reading.plan, z.shape, reading.after)

    def _observe(self, seen: Sighting) -> SiteCounter | None:
        """Count one activation call. Returns where its output is to be counted, None if it is not."""
        counter = self.counters.get(seen.site.name)
        if counter is None:
            counter = self.counters[seen.site.name] = SiteCounter(seen.plan.unit_count, seen.z.device)
        if self._gradients and seen.z.requires_grad and not seen.mapped:
            hook = seen.z.register_hook(gradient_hook(counter, seen.plan))  # type: ignore[no-untyped-call]
            self._handles.append(hook)
        # A checkpointed block runs again for its gradients; an expert may get no token.
        if in_backward() or not seen.z.numel():
            return None
        self._calls[seen.site.name] = self._calls.get(seen.site.name, 0) + 1
        done = counter.observe(seen.z, seen.kind, seen.plan, self._tracer.batch, output=True)
        return None if done else counter

    def _site(self, z: torch.Tensor, kind: Kind, function: str, trace: Trace, reading: Reading) -> Site | None:
        frame = self._frames[-1] if self._frames else None
        path = frame.path if frame is not None else ""
        key: Key = (path, function, trace.lineage, reading.plan.unit_count)
        known, site = self.sites.find(key)
        if known or in_backward():  # what backward code of the model's own computes is no site
            return site
        module = frame is not None and path != "" and is_activation(frame, z)
        base = path if module else f"{path}.{function}()".lstrip(".")
        return self.sites.add(key, base, kind, None if module else calling_line(), reading.layout.unit_dim)

    def _returned(self, call: ActivationCall, out: Any) -> None:
        if not isinstance(out, torch.Tensor):
            return
        if call.counter is not None:
            h = tracing.unmapped(out, None, None)[0]
            if h.shape == call.shape:
                call.counter.observe_output(h, call.kind, call.plan)
        if call.trace is not None:
            self._tracer.traces.put_one(out, call.trace)
        elif (trace := self._tracer.traces.get(out)) is not None:
            self._tracer.traces.put(out, Trace(trace.layout, (), trace.lineage))

    def _on_producer(self, name: str, x: torch.Tensor, groups: int, dim: int) -> None:
        if self.inputs.asks(name) and not in_backward():
            self.inputs.observe(name, tracing.unmapped(x, None, None)[0], groups, dim)
