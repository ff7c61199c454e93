"""A real run on the digits with a spike of the learning rate: `timeline` and `diff` beside what Monitor said of it."""

from __future__ import annotations

import numpy as np
import pytest

import deadrelu
from deadrelu.checkpoint import open_checkpoint
from deadrelu.differences import Timeline

from .runs import BAD, EVERY, FACTOR, RATE, SPIKE, STEPS, Run, network

OWN = {"weights", "bias", "either", "both", "several"}


@pytest.fixture(scope="module")
def course(run: Run) -> Timeline:
    return deadrelu.timeline(list(run.folder.iterdir()), model=network(), data=run.data)


def test_the_first_bad_checkpoint_is_the_one_after_the_spike(course: Timeline) -> None:
    assert [moment.step for moment in course.moments] == list(range(EVERY, STEPS + 1, EVERY))
    assert course.first_bad is not None
    assert course.moments[course.first_bad].step == BAD
    assert course.series[0].site == "3"
    assert "first bad checkpoint is ckpt_250.pt (step 250)" in str(course)


def test_silent_shares_are_those_of_audits(run: Run, course: Timeline) -> None:
    masks: dict[str, list[np.ndarray]] = {one.site: [] for one in course.series}
    for step in range(EVERY, STEPS + 1, EVERY):
        net = network()
        net.load_state_dict(open_checkpoint(run.folder / f"ckpt_{step}.pt").weights)
        report = deadrelu.audit(net, run.data)
        for one in course.series:
            masks[one.site].append(report[one.site].silent)
    for one in course.series:
        table = np.array(masks[one.site])
        assert one.silent == tuple(table.mean(1))
        lived = ~np.logical_or.accumulate(table)
        assert one.survival == tuple(lived.sum(1) / lived[0].sum())
    deaths = sum((table[1:] & ~table[:-1]).sum() for table in map(np.array, masks.values()))
    assert sum(moment.deaths for moment in course.moments) == deaths


def test_causes_between_checkpoints_are_what_monitor_said(run: Run) -> None:
    """Monitor: units of site 3 that died of the learning rate by their own weight. Interventions: their own step."""
    said = {d.unit: d for d in run.deaths if d.site == "3" and SPIKE <= (d.killed_by_step or 0) < BAD}
    assert len(said) > 10
    assert {(d.cause, d.parameter, d.origin) for d in said.values()} == {("learning_rate", "2.weight", None)}
    found = deadrelu.diff(run.folder / "ckpt_200.pt", run.folder / "ckpt_250.pt", model=network(), data=run.data)
    both = [death for death in found["3"].deaths if death.unit in said]
    assert len(both) > 10
    assert all(death.cause in OWN for death in both)
    assert found["3"].revived_by["own"] == len(found["3"].deaths)
    assert found["3"].revived_by["upstream"] == 0


def test_safe_rates_of_one_update_are_monitors(run: Run) -> None:
    """Both redo the update at smaller rates, Monitor on the next batches too: mostly equal within 10 %."""
    ratios = []
    for step in (SPIKE + 1, SPIKE + 2):
        found = deadrelu.diff(
            run.before[step], run.after[step], model=network(), data=run.batch[step], update=True, lr=RATE * FACTOR
        )
        safe = {death.unit: death.safe_lr for death in found["3"].deaths}
        for death in run.deaths:
            if death.site == "3" and death.killed_by_step == step and death.safe_lr is not None:
                mine = safe.get(death.unit)
                ratios.append(mine / death.safe_lr if mine is not None else float("nan"))
    assert len(ratios) > 10
    assert sum(0.9 < ratio < 1.11 for ratio in ratios) >= 0.8 * len(ratios)


def test_learning_rate_from_the_old_states_optimizer(run: Run) -> None:
    found = deadrelu.diff(
        run.folder / "ckpt_200.pt", run.folder / "ckpt_250.pt", model=network(), data=run.data, update=True
    )
    assert found.lr == RATE
