"""Captures: what a captured step keeps of a site until its window ends, and the quantities that are measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
QUANTITIES = ("weight", "decay", "bias", "upstream", "input", "margin", "std", "own", "kick", "rate", "turn")
"""What a capture measures of each unit: the five parts since the capture before (in units of z), the margin, the
standard deviation of z, the own step in mean z since then and by the update of this step, the activation rate, and how
far that update turned the unit: the spread of its own step over rows, over that of z (or of the layer before a norm).
"""


_TOGETHER = 1 << 21
"""Elements of the variants of z that are measured in one go: small ones cost launches, large ones memory."""


@dataclass(slots=True, eq=False)
class Capture:
    """What is kept of one captured step of a site until its window ends; z is ax + b + rest on every row.

    Attributes:
        step: the step.
        ax, b, rest: A(x) of the reference rows (rows, units), the bias (units,), and what else was in z.
        active: engaged pairs of each unit (units,), out of `pairs`.
        moved: A(x) of the rows of the capture before, None after the first.
        starved: the same without the features that died since, None if none did.
        decayed: sum of lr * decay since the capture before.
        after: A(x) of these rows after the update of this step, None before it.
        b_after: the bias after it.
        inner: of the layer before a norm, A(x) before and after the update, None without one.
    """

    step: int
    ax: torch.Tensor
    b: torch.Tensor
    rest: torch.Tensor
    active: torch.Tensor
    pairs: int
    moved: torch.Tensor | None = None
    starved: torch.Tensor | None = None
    decayed: float = 0.0
    after: torch.Tensor | None = None
    b_after: torch.Tensor | None = None
    inner: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Captures:
    """The captures of one site in a window, on the host: `values` is (captures, len(QUANTITIES), units)."""

    steps: list[int]
    values: Array


@dataclass(slots=True, eq=False)
class Measured:
    """The captures of one site, window by window.

    Attributes:
        last: the last capture of the windows before.
        before: mean and deviation of z without its bias, and the bias, at that capture, (units,) each.
    """

    last: Capture | None = None
    before: dict[str, Array] | None = None

    def window(self, captures: list[Capture]) -> Captures:
        """Return QUANTITIES of the captures of a window, each against the one before: one transfer from the device."""
        pairs = zip(captures, [self.last, *captures[:-1]], strict=True)
        moments = [_moments(list(group)) for _, group in groupby(pairs, _alike)]
        raw = torch.cat([values.flatten(0, 1) for _, values in moments]).cpu().double().numpy()
        found: list[Array] = []
        at = 0
        for names, values in moments:
            for _ in range(len(values)):
                piece = raw[at : at + values.shape[1]]
                at += values.shape[1]
                seen = dict(zip(names, piece, strict=True))
                with np.errstate(over="ignore", invalid="ignore"):  # a run that explodes overflows here, too
                    found.append(_quantities(seen, self.before, captures[len(found)].pairs))
                self.before = {name: seen[name] for name in ("mean now", "std now", "bias")}
        # The weights have moved on: A(x) of the next comparison is the one before the update, as captured.
        self.last = captures[-1]
        return Captures([now.step for now in captures], np.stack(found))


def _alike(pair: tuple[Capture, Capture | None]) -> tuple[Any, ...]:
    now, old = pair
    return now.ax.shape, now.ax.dtype, now.inner is None, None if now.moved is None or old is None else old.ax.shape


def _moments(pairs: list[tuple[Capture, Capture | None]]) -> tuple[list[str], torch.Tensor]:
    """Return, per capture, mean and deviation over rows of what the quantities are made of, and what else is needed.

    The captures are of one shape. The result is names and (captures, names, units). A bias is the same in every row:
    it is no part of the variants of z.
    """
    nows = [now for now, _ in pairs]
    ax, b, rest = (_stack([getattr(now, name) for now in nows]) for name in ("ax", "b", "rest"))
    variants = {"now": ax + rest, "step": _stack([now.after for now in nows]) - ax}
    olds = [old for now, old in pairs if old is not None and now.moved is not None]
    if olds:
        old_rest = _stack([old.rest for old in olds])
        moved = _stack([now.moved for now in nows])
        variants["moved"] = moved + old_rest
        if any(now.starved is not None for now in nows):
            starved = _stack([now.moved if now.starved is None else now.starved for now in nows])
            variants["starved"] = starved + old_rest
        if any(now.decayed for now in nows):
            half = torch.tensor([now.decayed / 2 for now in nows], dtype=ax.dtype, device=ax.device)[:, None, None]
            old_ax = _stack([old.ax for old in olds])
            variants["shrunk"] = old_ax - half * (old_ax + moved) + old_rest
    inner = [_stack(list(pair)) for pair in zip(*(now.inner for now in nows if now.inner is not None), strict=True)]
    if inner:
        variants |= {"inner": inner[0], "turned": inner[1] - inner[0]}
    alike = len({z.shape for z in variants.values()}) == 1
    if alike and len(variants) * ax.numel() <= _TOGETHER:
        stds, means = map(torch.unbind, _std_mean(torch.stack(list(variants.values()))))
    else:
        stds, means = zip(*map(_std_mean, variants.values()), strict=True)
    beside = (_stack([now.active for now in nows]).to(ax.dtype), b, _stack([now.b_after for now in nows]) - b)
    names = [f"mean {name}" for name in variants] + [f"std {name}" for name in variants] + ["active", "bias", "fall"]
    return names, torch.stack((*means, *stds, *beside), 1)


def _stack(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor:
    held = [tensor for tensor in tensors if tensor is not None]
    return held[0][None] if len(held) == 1 else torch.stack(held)


def _std_mean(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (standard deviation, mean) over rows, the last axis but one; several times faster than torch.std_mean."""
    mean = z.mean(-2, keepdim=True)
    centred = z - mean
    return centred.square_().sum(-2).div_(max(1, z.shape[-2] - 1)).sqrt_(), mean.squeeze(-2)


def _quantities(seen: dict[str, Array], before: dict[str, Array] | None, pairs: int) -> Array:
    """Return QUANTITIES (quantities, units) of one capture from its moments and those of the capture before."""
    out = np.zeros((len(QUANTITIES), len(seen["bias"])))
    std = seen["std now"]
    now = seen["mean now"] + seen["bias"] + 2 * std
    out[5], out[6], out[8], out[9] = now, std, seen["mean step"] + seen["fall"], seen["active"] / pairs
    out[10] = _over(seen["std step"], std)
    if "std inner" in seen:
        np.fmax(out[10], _over(seen["std turned"], seen["std inner"]), out=out[10])
    if "mean moved" not in seen or before is None:
        return out
    then, bias = before["mean now"] + 2 * before["std now"], seen["bias"] - before["bias"]
    moved = seen["mean moved"] + 2 * seen["std moved"]
    decay = np.zeros_like(std)
    if "mean shrunk" in seen:
        decay = seen["mean shrunk"] + 2 * seen["std shrunk"] - then
    starved = seen["mean starved"] + 2 * seen["std starved"] if "mean starved" in seen else moved
    # A bias adds the same to every row: its part does not depend on the order in which weight and bias move.
    out[:5] = moved - then - decay, decay, bias, starved - moved, now - seen["bias"] - starved
    out[7] = seen["mean moved"] - before["mean now"] + bias
    return out


def _over(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
