"""Training scripts of strangers: every death is dated as the brute-force diary has it, and the training is untouched.

Ground truth: the diary (brute.py), from DESIGN 2, 5.1, 5.2 and 6.3; and the same script without a Monitor, bit for bit.
"""

from __future__ import annotations

import pytest
import torch

from .strangers import architectures, changes, loops
from .strangers.architectures import Experts
from .strangers.sets import DEATHS, MLP, STEPS, Script, Set, error, mlp, plain, planted, play, sgd

SCRIPTS = (*architectures.SCRIPTS, *loops.SCRIPTS, *changes.SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_script(script: Script) -> None:
    """Nothing is missed, nothing invented, and what was planted is there."""
    lives, on = play(script)
    assert lives
    for site, deaths in (dict.fromkeys(on.plants, DEATHS) if on.expected is None else on.expected).items():
        assert planted(lives, site) >= deaths, site


def test_experts_that_get_a_part_of_the_batch() -> None:
    """Rows picked by a mask are samples no more: a call counts as one, coverage says so, and no death comes early."""
    torch.manual_seed(0)
    on, model = Set(True), Experts()
    optimizer = sgd(model)
    on.watch(model, optimizer, {})
    with torch.no_grad():
        model.experts[0][0].bias[1] = -1e3
    plain(on, model, optimizer, 6)
    on.monitor.close()
    report = on.monitor.report()
    assert report.coverage.batch_lost == tuple(f"experts.{i}.1" for i in range(3))
    assert on.monitor.deaths == []
    assert bool(report["experts.0.1"].undecided[1])
    assert report["experts.0.1"].samples <= STEPS


@pytest.mark.parametrize("what", ["losses", "weights"])
def test_the_comparison_of_trainings_can_fail(what: str) -> None:
    """A monitor that touches the training is found out."""

    def script(on: Set) -> None:
        model = mlp()
        optimizer = sgd(model)
        on.watch(model, optimizer, MLP)
        for _, x in zip(range(3), on.batches(6), strict=False):
            with on.forward():
                loss = error(model(x)) + (1e-9 if on.on and what == "losses" else 0)
            loss.backward()
            optimizer.step()
            on.update(loss)
        if on.on and what == "weights":
            model[0].weight.data[0, 0] += 1e-6

    with pytest.raises(AssertionError, match="the training differs"):
        play(script)
