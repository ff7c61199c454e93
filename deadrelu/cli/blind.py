"""Blind: what `deadrelu audit` says without data: of a checkpoint by itself, or for every input of a declared box."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..forensics import examine, proof_report
from ..proofs import prove
from ..report import Report
from .exits import say
from .targets import is_checkpoint, load_target, opened
from .values import check_device, parse_range, parse_shape


def audit_blind(
    target: str,
    model: str | None,
    *,
    input_shape: str | None,
    input_range: str | None,
    device: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> Report:
    """Return what can be said without data.

    Raises:
        InputError: an option is missing or does not fit; the message names it.
    """
    if (input_shape is None) != (input_range is None):
        given, missing = ("--input-range", "--input-shape 3,224,224")
        if input_range is None:
            given, missing = ("--input-shape", "--input-range 0,1")
        raise InputError(f"{given} says half of the inputs that a proof is to hold for; add {missing}")
    if input_shape is None or input_range is None:
        if model is not None or not is_checkpoint(target):
            built = target if model is None else model
            load_target(target, model)  # what is wrong with it comes first
            raise InputError(
                f"{built} builds a model, but nothing says on which inputs; add --data SPEC, or --input-shape and "
                "--input-range for what holds on every input of a range (a checkpoint alone goes without --model)"
            )
        if device is not None:
            raise InputError("--device is where a model runs, and there is none; drop it, or add --model and --data")
        return examine(opened(Path(target).expanduser()), include=include, exclude=exclude)
    shape, span = parse_shape(input_shape), parse_range(input_range)
    where = None if device is None else check_device(device)
    proof = prove(
        load_target(target, model),
        input_shape=shape,
        input_range=span,
        device=where,
        include=list(include) or None,
        exclude=list(exclude) or None,
    )
    if proof.lost is not None:
        say(f"note: nothing can be proved of this model: {proof.lost}")
        return proof_report(proof)
    say(f"note: proved for every input of {proof.domain}, in any batch; a unit that is not proved dead may still be")
    return proof_report(proof)
