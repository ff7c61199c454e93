"""Handlers of ops that copy numbers to other places: what comes out is one of what went in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .arithmetic import _either
from .calls import Call, Unfollowed, flat
from .enclosure import Enclosure, Tensor

_SETTINGS = frozenset(("out", "dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "implicit"))


def moved(call: Call) -> tuple[Enclosure, ...]:
    """The same move of both bounds.

    Raises:
        Unfollowed: where the numbers go depends on the input.
    """
    function = getattr(torch.ops.aten, call.name)
    reasons: list[str] = []

    def side(which: str, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(side(which, entry) for entry in value)
        if isinstance(value, float):  # the value of a padding, as it is stored
            found = call.within(value)
            return float(found.low if which == "low" else found.high)
        if not isinstance(value, Tensor):
            return value
        found = call.within(value)
        reasons.extend([found.reason] if found.reason else [])
        return (found.low if which == "low" else found.high).contiguous()

    def run(which: str) -> list[Tensor]:
        given = {}
        for key, value in call.given.items():
            if key in _SETTINGS:
                continue
            given[key] = _places(call, key, value) if key in _INDICES else side(which, value)
        return list(flat([function(**given)]))

    reason = None
    lows, highs = run("low"), run("high")
    reason = reasons[0] if reasons else None
    return tuple(Enclosure(low, high, reason=reason) for low, high in zip(lows, highs, strict=True))


_INDICES = frozenset(("index", "indices", "mask"))


def _places(call: Call, key: str, value: Any) -> Any:
    if any(not call.is_constant(t) for t in flat([value])):
        raise Unfollowed(f"its {key} depends on the input")
    return value


def taken(call: Call) -> tuple[Enclosure, ...]:
    """index, gather, index_select: with places that depend on the input, any entry."""
    try:
        return moved(call)
    except Unfollowed:
        places = list(flat([call.get("index"), call.get("indices")]))
        if any(t.dtype in (torch.bool, torch.uint8) for t in places) or not call["self"].numel():
            raise
    x = call.read("self")
    return (Enclosure(x.low.amin().expand(call.shape), x.high.amax().expand(call.shape), reason=x.reason),)


def embedding(call: Call) -> Enclosure:
    """Rows of a table: those that the bounds of the index allow."""
    rows, index = call.bounds("weight"), call.read("indices")
    last = rows.low.shape[0] - 1
    first = index.low.clamp(0, last).long()
    stop = index.high.clamp(0, last).long()
    pairs, which = torch.stack((first.reshape(-1), stop.reshape(-1))).unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
    if pairs.shape[1] > 4096 and not bool((pairs[0] == pairs[1]).all()):
        pairs = torch.stack((first.min(), stop.max())).unsqueeze(1)
        which = torch.zeros_like(which)
    if bool((pairs[0] == pairs[1]).all()):
        return Enclosure(rows.low[first], rows.high[first], reason=rows.reason)
    lows = torch.stack([rows.low[a : b + 1].amin(0) for a, b in pairs.T.tolist()])
    highs = torch.stack([rows.high[a : b + 1].amax(0) for a, b in pairs.T.tolist()])
    return Enclosure(lows[which].view(call.shape), highs[which].view(call.shape), reason=rows.reason)


def put(call: Call) -> tuple[Enclosure, ...] | Enclosure:
    """index_put: a mask that depends on the input leaves each entry as it was, or makes it the value."""
    indices = call["indices"]
    mask = indices[0] if len(indices) == 1 else None
    scalar = call["values"].numel() == 1
    if mask is None or mask.dtype != torch.bool or mask.shape != call["self"].shape or not scalar or call["accumulate"]:
        if call["accumulate"]:
            raise Unfollowed("it adds to what is there")
        return moved(call)
    return _either(call.within(mask), call.bounds("values"), call.bounds("self"))


def filled(call: Call) -> Enclosure:
    """fill, full_like: one number everywhere."""
    value = call.bounds("value" if "value" in call.given else "fill_value")
    return Enclosure(value.low.expand(call.shape), value.high.expand(call.shape))


def constant_of(value: float) -> Callable[[Call], Enclosure]:
    """Return the handler of zero_, zeros_like, ones_like."""

    def handler(call: Call) -> Enclosure:
        same = torch.full(call.shape, value, dtype=torch.float64, device=call.outs[0].device)
        return Enclosure(same, same)

    return handler


def nearest(call: Call) -> Enclosure:
    """upsample_nearest: places are computed in the precision of the numbers, so they are looked up in it."""
    x = call.bounds("self")
    spatial = x.low.shape[2:]
    dtype = torch.float64 if call.dtype == torch.float64 else torch.float32
    if spatial.numel() >= 1 << 24:
        raise Unfollowed("it has too many positions")
    places = torch.arange(spatial.numel(), dtype=dtype, device=x.low.device).view(1, 1, *spatial)
    settings = {key: value for key, value in call.given.items() if key not in ("self", "out")}
    found = getattr(torch.ops.aten, call.name)(places, **settings).long().flatten()
    low, high = (t.flatten(2)[:, :, found].reshape(call.shape) for t in (x.low, x.high))
    return Enclosure(low, high, reason=x.reason)
