"""A resumed run continues its record: steps, silences, deaths."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import nn

import deadrelu


def play(
    monitor_state: Path | None, first: int, last: int, state: dict[str, torch.Tensor] | None
) -> tuple[deadrelu.Monitor, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 2))
    if state is not None:
        model.load_state_dict(state)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    with deadrelu.Monitor(model, optimizer, window=7, strict=True) as monitor:
        if monitor_state is not None:
            monitor.load_state_dict(torch.load(monitor_state, weights_only=True))
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(100, 5, generator=generator)).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                if step == 9:
                    model[0].bias[3] = -1e3
                if step == 59:
                    model[0].bias[3] = 1.0
    return monitor, model


def told(monitor: deadrelu.Monitor) -> list[tuple[object, ...]]:
    return [
        (d.site, d.unit, d.last_fired, d.confirmed, d.revived, d.max_z_before, d.max_z_after) for d in monitor.deaths
    ]


def test_a_run_in_three_parts_is_one_run(tmp_path: Path) -> None:
    """Source: issue of the monitor: a resumed run continues its record. Interrupted in the silence, and while dead."""
    whole, _ = play(None, 0, 75, None)
    assert [t[2:5] for t in told(whole) if t[1] == 3] == [(9, 39, 60)]
    state, model = None, None
    for first, last in ((0, 20), (20, 50), (50, 75)):
        monitor, model = play(state, first, last, None if model is None else model.state_dict())
        state = tmp_path / "monitor.pt"
        torch.save(monitor.state_dict(), state)
    assert told(monitor) == told(whole)
    assert monitor.steps == whole.steps == 75
    assert monitor.report().samples == 7500


def test_a_state_comes_before_the_first_step() -> None:
    import pytest

    monitor, model = play(None, 0, 3, None)
    again = deadrelu.Monitor(model, torch.optim.SGD(model.parameters(), 0.1))
    again.load_state_dict(monitor.state_dict())
    with pytest.raises(deadrelu.DeadReluError, match="already"):
        monitor.load_state_dict(monitor.state_dict())
    again.close()
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_a_model_is_copied_and_pickled_while_it_is_watched() -> None:
    """A copy (an average of weights, a checkpoint of the whole module) has hooks that do nothing."""
    import copy

    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 2))
    with deadrelu.Monitor(model, torch.optim.SGD(model.parameters(), 0.1), strict=True) as monitor:
        model(torch.randn(3, 5)).sum().backward()
        twin = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        x = torch.randn(3, 5)
        torch.testing.assert_close(twin(x), model(x))
        torch.testing.assert_close(loaded(x), model(x))
        assert monitor.attached
