"""Choice: which implementation of the kernels computes, and why.

The reference, until compiled ones are there. On the CPU they are made in the background once a tensor is large enough
for them to pay, or taken from the cache of an earlier run; nothing waits for them, and whatever fails leaves the
reference. On CUDA inductor makes them once they are due (`inductor.py`).

`DEADRELU_KERNELS` forces one: `reference`; `native`, which waits for the compiler and fails if it cannot be had; or
`inductor`, on the CPU as well, which compiles at the first look of each sort and fails where it cannot.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import torch

from ..errors import InputError
from . import inductor, library
from .inductor import Inductor
from .library import UnusableError
from .native import Native
from .selfcheck import check

VARIABLE = "DEADRELU_KERNELS"
_ALLOWED = ("auto", "reference", "native", "inductor")
_FORCED = ("native", "inductor")
LARGE = 1 << 15
"""Elements from which on a tensor is worth compiled kernels."""


class Choice:
    """What this process computes with.

    Attributes:
        native: the compiled kernels of the CPU, once they are there; those of inductor if they are forced.
        reason: why there are none and there will be none in this process; empty if that is not known.
        cuda: the kernels of CUDA, as long as there may be some.
        cuda_reason: why there are none.
    """

    def __init__(self) -> None:
        self.native: Native | Inductor | None = None
        self.reason = ""
        self.cuda: Inductor | None = None
        self.cuda_reason = ""
        self._forced = ""
        self._building: tuple[int, int, Path] | None = None  # our process, the compiler's, what it makes
        self._lock = threading.Lock()

    def renew_lock(self) -> None:
        """Take a lock of our own in a forked process: what held the other one is not there."""
        self._lock = threading.Lock()

    def ready(self, elements: int) -> Native | Inductor | None:
        """Return the compiled kernels for a tensor of so many elements; None if the reference is to be used.

        Raises:
            InputError: the environment asks for what there is not.
        """
        if self.native is not None or (self.reason and not self._forced):
            return self.native
        if elements < LARGE and self._building is None and os.environ.get(VARIABLE, "auto") == "auto":
            return None
        forced = _wanted() in _FORCED
        if not self._lock.acquire(blocking=forced):
            return None
        try:
            if self.native is None:
                self._advance(forced=forced)
        finally:
            self._lock.release()
        return self.native

    def _advance(self, *, forced: bool) -> None:
        if _wanted() == "reference":
            self.reason, self._forced = f"{VARIABLE}=reference", ""
            return
        try:
            if _wanted() == "inductor":
                self.native = _inductor("cpu")
            else:
                self._seek(forced=forced)
        except UnusableError as error:
            self.reason, self._forced = str(error), _wanted() if forced else ""
            if forced:
                raise _refusal(error) from None

    def ready_on(self, tensor: torch.Tensor) -> Inductor | None:
        """Return what may compute a tensor that is not on the CPU; None if the reference is to be used.

        Raises:
            InputError: the environment asks for what there is not.
        """
        if not tensor.is_cuda or (self.cuda is None and self.cuda_reason):
            return None
        if self.cuda is None:
            self._choose_cuda()
        return self.cuda

    def _choose_cuda(self) -> None:
        wanted = _wanted()
        if wanted in ("reference", "native"):
            self.cuda_reason = f"{VARIABLE}={wanted}" + (", which computes on the CPU" if wanted == "native" else "")
            return
        try:
            self.cuda = _inductor("cuda")
        except UnusableError as error:
            if wanted == "inductor":
                raise _refusal(error) from None
            self.cuda_reason = str(error)

    def _seek(self, *, forced: bool) -> None:
        """Load the library; if it is not there, see to it that it will be."""
        own = os.getpid()
        if self._building is None or self._building[0] != own:  # the compiler that a parent started is not ours
            self._building = None
            command = library.compiler()
            path = library.target(command)
            if not path.exists():
                said = library.failure(path)
                if said is not None and not forced:
                    raise UnusableError(said)
                self._building = own, library.start(path, command), path
        if self._building is not None:
            _, process, path = self._building
            if not library.ended(process, wait=forced):
                return
            self._building = None
        try:
            native = Native(library.load(path))
        except OSError:
            raise UnusableError(library.failure(path) or f"{path} was not made") from None
        wrong = check(native)
        if wrong:
            raise UnusableError(f"{path} computes {wrong} wrongly")
        self.native = native

    def described(self) -> str:
        """Return one line: what computes on the CPU, or will.

        Raises:
            InputError: the environment asks for what there is not.
        """
        wanted = _wanted()
        if wanted == "auto" and self.native is None and not self.reason:
            try:
                command = library.compiler()
                path = library.target(command)
                said = library.failure(path)
                if path.exists():
                    self.ready(LARGE)
                elif said is None:
                    when = "at the first large tensor, or in a long training"
                    return f"reference, until {command[0]} has compiled native ones ({when})"
                else:
                    self.reason = said
            except UnusableError as error:
                self.reason = str(error)
        elif wanted != "auto":
            self.ready(LARGE)
        if isinstance(self.native, Inductor):
            return self.native.described()
        return "native, compiled for this processor" if self.native is not None else f"reference: {self.reason}"

    def described_cuda(self) -> str:
        """Return one line: what computes on CUDA, or would.

        Raises:
            InputError: the environment asks for what there is not.
        """
        if not torch.cuda.is_available():
            return f"none: {inductor.NO_CUDA}"
        if self.cuda is None and not self.cuda_reason:
            self._choose_cuda()
        return f"reference: {self.cuda_reason}" if self.cuda is None else self.cuda.described()


def _inductor(device: str) -> Inductor:
    """Return the kernels that inductor makes for a type of device.

    Raises:
        UnusableError: it cannot make any.
    """
    lacks = inductor.missing(device)
    if lacks:
        raise UnusableError(lacks)
    return Inductor(forced=f"{VARIABLE}=inductor" if _wanted() == "inductor" else "")


def _refusal(error: UnusableError) -> InputError:
    """Return what to raise where the environment asks for kernels that cannot be had."""
    return InputError(f"{VARIABLE}={_wanted()}, but {error}; mend that, or unset {VARIABLE} to compute without")


def _wanted() -> str:
    value = os.environ.get(VARIABLE, "auto") or "auto"
    if value not in _ALLOWED:
        raise InputError(f"{VARIABLE}={value!r} is no choice of kernels; expected {', '.join(_ALLOWED)}")
    return value


CHOICE = Choice()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CHOICE.renew_lock)
