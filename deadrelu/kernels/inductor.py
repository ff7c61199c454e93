"""Inductor: the kernels that torch's inductor makes of the formulas, which read a tensor once; for CUDA.

One function is made for a look, a dtype and an order of samples, units and positions in memory; it knows no sizes, so
that the last batch of an epoch needs none of its own. What they cannot read is declined, and the reference does it.

To make one takes seconds, in which nothing else goes on, and what it saves is a few reads of a tensor: see `DUE`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import threading
from collections import Counter

import torch

from ..errors import InputError
from ..kinds import Interval, Kind
from .formulas import BYTE, Formula, in_order
from .looks import Engaged, Sums
from .lowering import Lowered, lowered
from .plan import Plan
from .roles import POSITION, SAMPLE, Dense, dense, is_memory, rounded
from .selfcheck import agrees, strange

DUE = 20e12
"""Bytes of memory traffic that a function would have saved from which on it is made: 10 s, about as long as making it
takes (imports, inductor, Triton and its choice of block sizes), at 2 TB/s, the memory of a data-centre GPU. So the
reference costs no more than the compilation until then, and both together no more than twice what the better of them
would have (rent until you could have bought). With float32 outputs of 25 MB that is 100,000 counts of them. None of
these numbers was measured on a GPU."""
LARGE = 1 << 18
"""Elements under which a look is over sooner than launched: they are not worth it, however often they come."""
_MOST = 32
"""Functions that a process makes at most."""
_LONGEST = 1 << 31
"""Elements that the indices of a function count."""
_SAVED = {"engaged": 8, "rectified": 9, "maximum": 5, "magnitude": 2, "squares": 15}
"""Tensors of the size of z, in its dtype if that is float32, that the reference moves besides the one read."""

NO_CUDA = "there is no CUDA device"
log = logging.getLogger("deadrelu")


Key = tuple[Formula, torch.dtype, torch.device]
Intervals = tuple[Interval, ...]
Known = tuple[Key, tuple[int, ...], tuple[int, ...]]


def missing(device: str) -> str:
    """Return what inductor lacks to compile for a type of device; empty if nothing that is seen without trying."""
    if device == "cpu":
        names = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
        return "" if any(name and shutil.which(name) for name in names) else "no C++ compiler was found ($CXX, g++)"
    if not torch.cuda.is_available():
        return NO_CUDA
    if importlib.util.find_spec("triton") is None:
        return "Triton, which inductor needs, is not installed"
    return "" if torch.cuda.get_device_capability() >= (7, 0) else "Triton needs a GPU of compute capability 7.0"


class Inductor:
    """The functions that were made in this process. Each method returns None or False where there is none.

    Attributes:
        reason: why none is made or used any more; empty if nothing went wrong.
    """

    def __init__(self, *, forced: str = "") -> None:
        """Forced: the setting that asks for a function at the first look, and for an error if there can be none."""
        self.reason = ""
        self._forced = forced
        self._made: dict[Key, Lowered] = {}
        self._due: Counter[Key] = Counter()
        self._lock = threading.Lock()

    def described(self) -> str:
        """Return one line: what computes, or will."""
        if self.reason:
            return f"reference: {self.reason}"
        if self._forced:
            return "inductor, compiled at the first look of each sort"
        sorts = f"{len(self._made)} sorts of looks"
        return f"inductor for {sorts}; reference, until {DUE / 1e12:.0f} TB of traffic could have been saved by another"

    def engaged(
        self, z: torch.Tensor, kind: Kind, plan: Plan, sums: Sums, *, rectified: bool = False
    ) -> Engaged | None:
        """See `kernels.engaged`."""
        rectified = rectified and kind.positive
        found = self._run("rectified" if rectified else "engaged", z, plan, sums, kind.intervals)
        return None if found is None else Engaged(found[0], plan.sample_count, rectified)

    def reach(self, z: torch.Tensor, plan: Plan, row: torch.Tensor) -> None:
        """Return None: torch's own reduction reads the tensor once, and is launched sooner."""

    def maximum(self, z: torch.Tensor, plan: Plan) -> torch.Tensor | None:
        """See `kernels.maximum`."""
        found = self._run("maximum", z, plan)
        return None if found is None else found[0].reshape(plan.unit_count)

    def magnitude(self, h: torch.Tensor, plan: Plan, sums: Sums) -> bool:
        """See `kernels.magnitude`."""
        return self._run("magnitude", h, plan, sums) is not None

    def squares(self, g: torch.Tensor, plan: Plan, sums: Sums) -> bool:
        """See `kernels.squares`."""
        return self._run("squares", g, plan, sums) is not None

    def _run(
        self, name: str, tensor: torch.Tensor, plan: Plan, sums: Sums | None = None, intervals: Intervals = ()
    ) -> list[torch.Tensor] | None:
        """Return what the function of a look finds, marks as (samples, units); None if there is none for the tensor."""
        if self.reason:
            self._refuse()
        if self.reason or (tensor.numel() < LARGE and not self._forced):
            return None
        known = _known(name, intervals, tensor, plan)
        if known is None:
            return None
        key, sizes, strides = known
        address = tensor.data_ptr()
        if not address or address % 16:  # its storage was given back; inductor would copy it
            return None
        z = tensor.detach().as_strided(sizes, strides)
        if sums is not None and (type(sums.rows) is not torch.Tensor or sums.rows.device != z.device):
            return None
        try:
            function = self._made.get(key) or self._make(key, z)
            if function is None:
                return None
            found = list(function([z, *(getattr(sums, row) for row in key[0].rows)]))
        except Exception as error:
            self._fail(error)
            return None
        if name in ("engaged", "rectified"):
            found[0] = in_order(found[0], key[0].roles, plan.sample_count, plan.unit_count)
        return found

    def _make(self, key: Key, z: torch.Tensor) -> Lowered | None:
        """Return the function of a look that has none, if it is due; it is checked on this tensor first."""
        if not self._forced:
            self._due[key] += _SAVED[key[0].name] * z.numel() * z.element_size()
            if self._due[key] < DUE or len(self._made) >= _MOST:
                return None
        if _capturing(z):
            return None
        if not self._lock.acquire(blocking=False):  # another thread makes one
            return None
        try:
            function = lowered(key[0], tuple(z.shape), z.dtype, z.device)
            with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunction():
                small = strange(key[0], z.dtype, z.device)
                same = agrees(function, key[0], z, near=False)  # Triton chooses the sizes of blocks by this one
                same &= agrees(function, key[0], small, near=False)
                same &= agrees(function, key[0], small.nan_to_num(0, 5, -5), near=True)
                if not same:  # waits for the device, once
                    raise RuntimeError(f"its {key[0].name} of {key[0].roles} is wrong")
            self._made[key] = function
            return function
        finally:
            self._lock.release()

    def _fail(self, error: Exception) -> None:
        """Leave everything to the reference from now on."""
        if not self.reason:
            lines = str(error).strip().splitlines() or [""]
            self.reason = f"inductor failed with {type(error).__name__}: {lines[0][:300]}"
            self._made.clear()
            log.info("%s; plain torch computes from now on", self.reason)
        self._refuse()

    def _refuse(self) -> None:
        if self._forced:
            raise InputError(f"{self._forced}, but {self.reason}; unset it to compute without") from None


def _capturing(z: torch.Tensor) -> bool:
    """True while what is done on the device of a tensor becomes a CUDA graph, where nothing can be compiled."""
    return z.is_cuda and torch.cuda.is_current_stream_capturing()


def _known(name: str, intervals: Intervals, tensor: torch.Tensor, plan: Plan) -> Known | None:
    """Return what computes a look at such a tensor, and how to view it, worked out once; None if nothing does."""
    if not is_memory(tensor):
        return None
    asked = (name, intervals, tensor.dtype, tensor.device, tensor.shape, tensor.stride())
    try:
        return plan.memo[asked]  # type: ignore[no-any-return]
    except KeyError:
        found = plan.memo[asked] = _key(name, intervals, tensor, plan)
        return found


def _key(name: str, intervals: Intervals, tensor: torch.Tensor, plan: Plan) -> Known | None:
    """Return the same, worked out."""
    filled, ends = dense(tensor, plan), rounded(intervals, tensor.dtype)
    if filled is None or ends is None or tensor.numel() >= _LONGEST:
        return None
    if name in ("engaged", "rectified"):
        filled = _with_bytes(filled) if ends else None
    if filled is None or not filled.roles:
        return None
    formula = Formula(name, filled.roles, ends)
    return (formula, tensor.dtype, tensor.device), filled.sizes, filled.strides


def _with_bytes(filled: Dense) -> Dense | None:
    """Return a tensor of a single position with the samples cut into bytes; None if they do not fill them."""
    if POSITION in filled.roles:
        return filled
    at = filled.roles.find(SAMPLE)
    if at < 0 or filled.sizes[at] % 8 or filled.sizes[at] < 16:
        return None
    roles, sizes, strides = filled.roles, filled.sizes, filled.strides
    return Dense(
        roles[: at + 1] + BYTE + roles[at + 1 :],
        (*sizes[:at], sizes[at] // 8, 8, *sizes[at + 1 :]),
        (*strides[:at], 8 * strides[at], *strides[at:]),
    )
