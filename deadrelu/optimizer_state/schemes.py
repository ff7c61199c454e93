"""Schemes: which optimizer wrote a parameter's state, told by its keys, and whether that state can be dated."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

from .claims import Declined

Family = Literal["moments", "momentum"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a state that can be dated came about.

    Attributes:
        name: the optimizer, as far as the keys tell.
        family: `moments`: averages of the gradient and of its square; `momentum`: one decaying sum of gradients.
        decoupled: the weight decay passes the gradient by; None if the keys do not tell.
    """

    name: str
    family: Family
    decoupled: bool | None = False


_ADAM_STATE = frozenset(("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "mu_product"))
# Settings that change nothing about how the two averages are formed. One that is not among them may: ADOPT and SOAP
# keep averages of those names that are averages of something else.
_PLAIN = frozenset(
    """
    params param_names lr betas eps weight_decay amsgrad maximize foreach capturable differentiable fused
    decoupled_weight_decay momentum_decay correct_bias bias_correction step momentum dampening nesterov
    base_momentum max_momentum initial_lr max_lr min_lr swa_lr name
    """.split()
)
_LABELS = ("lr", "name", "group", "layer", "label", "tag", "type", "_id")

_UNKNOWN = "an optimizer that is not known"

# (optimizer, keys of the state, keys of the group); the first row whose keys are all there.
_OTHERS: tuple[tuple[str, str, str], ...] = (
    ("8-bit optimizer", "state1", ""),
    ("8-bit optimizer", "qmap1", ""),
    ("Muon", "", "ns_steps"),
    ("SOAP", "", "precondition_frequency"),
    ("Adafactor", "", "beta2_decay"),
    ("Adafactor", "", "relative_step"),
    ("Adafactor", "exp_avg_sq_row", ""),
    ("Adafactor", "row_var", ""),
    ("Adamax", "exp_inf", ""),
    ("AdaBelief", "exp_avg_var", ""),
    ("Adan", "exp_avg_diff", ""),
    ("Prodigy", "", "d_coef"),
    ("ScheduleFree", "z", ""),
    ("Adadelta", "acc_delta", ""),
    ("Adadelta", "", "rho"),
    ("RMSprop", "square_avg", ""),
    ("Adagrad", "sum", ""),
    ("Rprop", "", "etas"),
    ("ASGD", "", "lambd"),
    ("LBFGS", "", "history_size"),
)


def recognised(state: Set[str], group: Mapping[str, Any]) -> Scheme | Declined:
    """Return the scheme of a state with these keys, or why it cannot be dated.

    Source: the state and group keys that the classes of torch.optim write; checked against each of them in the tests.
    """
    for name, needs, settings in _OTHERS:
        if set(needs.split()) <= state and set(settings.split()) <= group.keys():
            return _not_dated(name)
    if {"momentum", "dampening"} <= group.keys():
        found: Scheme | str = Scheme("SGD", "momentum")
    else:
        found = _with_betas(state, group) if "betas" in group else _UNKNOWN
    if isinstance(found, str):
        return _not_dated(found)
    odd = sorted(key for key in group if key not in _PLAIN and not any(label in key for label in _LABELS))
    return _not_dated(f"an optimizer with the setting {odd[0][:40]!r}") if odd else found


def _with_betas(state: Set[str], group: Mapping[str, Any]) -> Scheme | str:
    """Return the scheme of a group with betas, or the name of an optimizer that cannot be dated."""
    if "exp_avg" in state and "exp_avg_sq" not in state:
        return "Lion"
    if not {"exp_avg", "exp_avg_sq"} <= state <= _ADAM_STATE:
        return _UNKNOWN
    if "weight_decay" not in group:
        return "SparseAdam"  # its averages stand still where there is no gradient
    decoupled = group.get("decoupled_weight_decay")
    if "momentum_decay" in group:
        return Scheme("NAdam", "moments", bool(decoupled))
    if "correct_bias" in group:
        return Scheme("AdamW", "moments", True)
    if "amsgrad" not in group and "bias_correction" not in group:
        return Scheme("RAdam", "moments", bool(decoupled))
    if decoupled is None:
        return Scheme("Adam or AdamW", "moments", None)
    return Scheme("AdamW" if decoupled else "Adam", "moments", bool(decoupled))


def _not_dated(name: str) -> Declined:
    return Declined("other_optimizer", f"the state was written by {name}, whose memory of a gradient cannot be dated")
