"""Scan: what the words of `deadrelu audit` ask for, done."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .. import auditing
from ..errors import InputError
from ..report import Report
from .blind import audit_blind
from .exits import say
from .sources import model_dtype, open_source
from .targets import load_target
from .values import check_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for; the fields are the options of `deadrelu audit`."""

    target: str
    model: str | None
    data: str | None
    input_shape: str | None
    input_range: str | None
    exhaustive: bool
    batch_size: int
    max_samples: int | None
    device: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]


def scan(request: Request) -> Report:
    """Load the model, open the data, and audit.

    Raises:
        InputError: something in the request cannot be used; the message is one line.
    """
    if request.exhaustive and request.max_samples is not None:
        raise InputError("--exhaustive says that the data is complete, --max-samples that a part will do; drop one")
    if request.data is None:
        return _blind(request)
    if request.input_shape is not None or request.input_range is not None:
        raise InputError("--input-shape and --input-range declare inputs, --data gives them; drop one of the two")
    device = None if request.device is None else check_device(request.device)
    model = load_target(request.target, request.model)
    source = open_source(request.data, model_dtype(model))
    if source.sample_only and request.exhaustive:
        raise InputError("--exhaustive says that the data is complete, which random data never is; drop one of the two")
    if source.note is not None:
        say(f"note: {source.note}")
    return auditing.audit(
        model,
        source.data,
        batch_size=request.batch_size,
        exhaustive=request.exhaustive,
        max_samples=request.max_samples,
        device=device,
        include=list(request.include) or None,
        exclude=list(request.exclude) or None,
        progress=sys.stderr.isatty(),
    )


def _blind(request: Request) -> Report:
    for given, option in ((request.exhaustive, "--exhaustive"), (request.max_samples is not None, "--max-samples")):
        if given:
            raise InputError(f"{option} speaks of data, and there is none; add --data SPEC, or drop it")
    return audit_blind(
        request.target,
        request.model,
        input_shape=request.input_shape,
        input_range=request.input_range,
        device=request.device,
        include=request.include,
        exclude=request.exclude,
    )
