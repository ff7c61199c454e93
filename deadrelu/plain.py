"""Plain: columns and records of a report as JSON types, and back from JSON that somebody else may have written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Types = tuple[type, ...]

_STEP: Types = (int, type(None))
_WORD: Types = (str, type(None))
_NUMBER: Types = (int, float, type(None))

_DEATH: dict[str, Types] = {
    **dict.fromkeys(("site", "cause", "cause_evidence"), (str,)),
    **dict.fromkeys(("unit", "confirmed", "resolution"), (int,)),
    **dict.fromkeys(("last_fired", "killed_by_step", "revived"), _STEP),
    **dict.fromkeys(("parameter", "origin"), _WORD),
    **dict.fromkeys(("margin_before", "margin_after", "max_z_before", "max_z_after", "kick", "lr", "safe_lr"), _NUMBER),
    "born_dead": (bool,),
    "shares": (dict, type(None)),
}
_EVENT: dict[str, Types] = {
    **dict.fromkeys(("kind", "site"), (str,)),
    **dict.fromkeys(("steps", "units"), (list,)),
    **dict.fromkeys(("cause", "remedy"), _WORD),
    **dict.fromkeys(("lr", "safe_lr"), _NUMBER),
    "count": (int,),
    "saved": _STEP,
}

_SITE: dict[str, Types] = {
    **dict.fromkeys(("site", "op"), (str,)),
    **dict.fromkeys(("units", "samples", "positions"), (int,)),
    "source": _WORD,
    "unit_dim": _STEP,
    "can_die": (bool,),
}
_COLUMNS = ("activation_rate", "sample_rate", "rate_upper", "max_z", "dormant_score")


def indices(mask: NDArray[np.bool_]) -> list[int]:
    """Return where a mask (units,) is true."""
    return [int(i) for i in np.flatnonzero(mask)]


def numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Return values (units,) as a list; what is not finite becomes None."""
    return [float(v) if math.isfinite(v) else None for v in values]


def mask(where: Sequence[int], units: int) -> NDArray[np.bool_]:
    """Return the mask of shape (units,) that is true at these indices.

    Raises:
        IndexError: there is no such unit.
        ValueError: they are no indices.
    """
    found = np.zeros(units, dtype=bool)
    if where:
        places = np.array(where)
        if places.dtype.kind not in "iu" or places.ndim != 1 or places.min() < 0:
            raise ValueError("expected indices of units")
        found[places] = True
    return found


def column(values: Sequence[float | None], units: int) -> NDArray[np.float64]:
    """Return a list of numbers as an array of shape (units,), None as NaN.

    Raises:
        TypeError, ValueError: they are no numbers, or not as many.
    """
    held = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    if held.shape != (units,):
        raise ValueError(f"expected {units} numbers, found shape {held.shape}")
    return held


def death(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of "deaths" whose fields are there and of their types.

    Raises:
        ValueError: they are not.
    """
    found = _checked(told, _DEATH, "death")
    whole(found["unit"])
    shares = found["shares"] or {}
    column(list(shares.values()), len(shares))
    return found


def event(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of "events" whose fields are there and of their types.

    Raises:
        ValueError: they are not.
    """
    found = _checked(told, _EVENT, "event")
    steps, units = found["steps"], found["units"]
    if len(steps) != 2 or not all(type(number) is int for number in (*steps, *units)):
        raise ValueError("an event's steps are not two, or its units not whole numbers")
    return found


def site(told: Mapping[str, Any], statuses: Sequence[str]) -> dict[str, Any]:
    """Return a record of "sites" as the fields of a `SiteReport`; `statuses` are in the order in which they hold.

    Raises:
        KeyError, TypeError, ValueError, IndexError: it is no such record.
    """
    fields = _checked({name: told[name] for name in _SITE}, _SITE, "site")
    units = len(column(told["activation_rate"], fields["units"]))
    status = np.full(units, statuses[-1], dtype=object)
    for word in reversed(statuses[:-1]):
        status[mask(told[word], units)] = word
    return {
        **fields,
        **{name: column(told[name], units) for name in _COLUMNS},
        "producers": words(told["producers"]),
        "status": tuple(status.tolist()),
        "grad_flow": None if told["grad_flow"] is None else column(told["grad_flow"], units),
        "grad_dead": mask(told["grad_dead"], units),
        "input_dead": mask(told["input_dead"], units),
        "claims": tuple(dict(claim) for claim in told["claims"]),
    }


def coverage(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the "coverage" as the fields of a `Coverage`.

    Raises:
        KeyError, TypeError, ValueError: it is no such record.
    """
    return {
        "sites": whole(told["sites"]),
        "uncalled": words(told["uncalled"]),
        "unsupported": tuple(words((found["module"], found["reason"])) for found in told["unsupported"]),
        "merged": tuple((*words((found["site"],)), whole(found["calls"])) for found in told["merged"]),
        "batch_lost": words(told["batch_lost"]),
    }


def words(told: Sequence[str]) -> tuple[str, ...]:
    """Return a list of words as a tuple.

    Raises:
        ValueError: something else is among them.
    """
    if not all(type(word) is str for word in told):
        raise ValueError("expected a list of words")
    return tuple(told)


def whole(told: int) -> int:
    """Return a number of something.

    Raises:
        ValueError: it is none.
    """
    if type(told) is not int or told < 0:
        raise ValueError(f"expected a number of something, found {told!r}")
    return told


def one_of(known: Sequence[Any], told: Any) -> Any:
    """Return one of the words that are known.

    Raises:
        ValueError: it is none of them.
    """
    if told not in known:
        raise ValueError(f"expected one of {', '.join(known)}, found {told!r}")
    return told


def _checked(told: Mapping[str, Any], types: Mapping[str, Types], what: str) -> dict[str, Any]:
    for name, allowed in types.items():
        if name not in told:
            raise ValueError(f"a {what} has no {name!r}")
        if type(told[name]) not in allowed:
            raise ValueError(f"the {name!r} of a {what} is a {type(told[name]).__name__}")
        if type(told[name]) is float and not math.isfinite(told[name]):
            raise ValueError(f"the {name!r} of a {what} is {told[name]}")
    return dict(told)
