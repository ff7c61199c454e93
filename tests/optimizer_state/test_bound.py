"""The bound that needs no reference: k <= ln(C / r) / ln(sqrt(beta2) / beta1), for any gradients whatever."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deadrelu.optimizer_state import Remembered, read_gradients
from deadrelu.optimizer_state.moments import Decay, Moments, levels

HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(["zero", "noise", "constant", "spike", "faint", "alternating", "geometric"]),
        st.integers(1, 60),
        st.floats(-6, 6),
    ),
    min_size=1,
    max_size=5,
)


def played(history: list[tuple[str, int, float]], generator: torch.Generator) -> list[torch.Tensor]:
    """Return the gradients of 4 units with 3 numbers each, update by update."""
    steps = []
    for kind, length, scale in history:
        base = torch.randn(4, 3, generator=generator) * 10**scale
        for t in range(length):
            noise = torch.randn(4, 3, generator=generator) * 10**scale
            steps.append(
                {
                    "zero": torch.zeros(4, 3),
                    "noise": noise,
                    "constant": base,
                    "spike": noise * (1e6 if t == length // 2 else 1),
                    "faint": noise * 1e-9,
                    "alternating": base * (-1) ** t,
                    "geometric": base * 0.9**t,
                }[kind]
            )
    return steps


@settings(max_examples=60, deadline=None)
@given(
    HISTORIES,
    st.integers(0, 1100),
    st.sampled_from([(0.9, 0.999), (0.9, 0.95), (0.5, 0.9), (0.95, 0.98), (0.8, 0.99)]),
    st.integers(0, 2**32 - 1),
)
def test_there_was_a_gradient_within_the_bound(
    history: list[tuple[str, int, float]], silent: int, betas: tuple[float, float], seed: int
) -> None:
    gradients = played(history, torch.Generator().manual_seed(seed)) + [torch.zeros(4, 3)] * silent
    gradients += [torch.zeros(4, 3)] * max(0, 30 - len(gradients))
    parameter = torch.nn.Parameter(torch.zeros(4, 3))
    optimizer = torch.optim.Adam([parameter], lr=0.0, betas=betas)
    last = torch.full((4,), -1)
    for step, gradient in enumerate(gradients):
        parameter.grad = gradient
        optimizer.step()
        last[(gradient != 0).any(1)] = step
    truth = len(gradients) - 1 - last
    state = optimizer.state[parameter]
    reading = read_gradients(Remembered(parameter.detach(), state, optimizer.param_groups[0]))
    for claim in reading.claims:
        if claim.claim == "never_gradient":
            assert last[claim.unit] == -1
        else:
            assert truth[claim.unit] <= claim.bound == claim.high
    if reading.layer is not None and reading.layer.bound is not None:
        assert truth.min() <= reading.layer.bound
    decay = Decay((betas[0], betas[0]), betas[1])
    seen = levels(Moments(state["exp_avg"], state["exp_avg_sq"], parameter.detach(), len(gradients), decay))
    for unit in range(4):  # units that are not claimed, too
        if seen.touched[unit] and not seen.worn[unit] and not seen.coarse[unit]:
            most = (decay.log_ceiling - seen.fresh[unit]) / decay.rates[0]
            assert truth[unit] <= most + 0.05


def test_the_ceiling_is_reached_by_the_worst_gradients() -> None:
    """g proportional to (beta1 / beta2)^age makes Cauchy and Schwarz an equality."""
    for beta1, beta2 in ((0.9, 0.999), (0.9, 0.95), (0.5, 0.9)):
        m = v = 0.0
        for age in range(4000, -1, -1):
            g = (beta1 / beta2) ** age
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        assert math.isclose(math.log(m / math.sqrt(v)), Decay((beta1, beta1), beta2).log_ceiling, rel_tol=1e-9)


def test_the_ceiling_at_the_usual_betas() -> None:
    """C = 0.1 / sqrt(0.001 (1 - 0.81 / 0.999)) = 7.27."""
    expected = 0.1 / math.sqrt(0.001 * (1 - 0.81 / 0.999))
    assert math.isclose(math.exp(Decay((0.9, 0.9), 0.999).log_ceiling), expected, rel_tol=1e-12)
