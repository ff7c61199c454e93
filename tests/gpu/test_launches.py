"""What deadrelu launches in a step: one reduction for each site, and nothing else on most steps."""

from __future__ import annotations

import pytest
import torch

from .emulated import Device
from .trainings import Training

RELU6 = 7
"""How far inside z is: two differences, their minimum, its largest and that of z, each put into its place."""
SITES = {"mlp": 2, "cnn": 3, "transformer": 1}


def counted(device: Device, training: Training, steps: int) -> list[int]:
    """Return how many kernels deadrelu has launched in each step."""
    found = []
    for _ in range(steps):
        before = device.own
        training.step()
        found.append(device.own - before)
    return found


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_an_ordinary_step_is_one_reduction_for_each_site(emulation: Device, net: str) -> None:
    """Past the first 100, of which the updates are kept. Of a ReLU6 two numbers are kept."""
    training = Training(net, "cuda", options={}, lr=1e-3)
    counted(emulation, training, 120)
    own = sorted(counted(emulation, training, 40))
    assert own[20] == (SITES[net] if net == "cnn" else 1 + RELU6)


def test_half_precision_takes_one_launch_more(emulation: Device) -> None:
    """What belongs into the rows, which are float32, is written for all sites together."""
    training = Training("cnn", "cuda", options={}, lr=1e-3, dtype=torch.bfloat16)
    counted(emulation, training, 120)
    assert sorted(counted(emulation, training, 40))[20] == SITES["cnn"] + 1


def test_the_first_steps_keep_their_updates_in_one_launch_more(emulation: Device) -> None:
    """The parameters after the update, of all layers at once, and a copy of the inputs."""
    training = Training("cnn", "cuda", options={}, lr=1e-3)
    counted(emulation, training, 22)
    assert sorted(counted(emulation, training, 20))[10] == SITES["cnn"] + 2


def test_a_captured_step(emulation: Device) -> None:
    """Counts, gradients, rows of each site, and a look at the model's input: at one step in ten at most."""
    training = Training("cnn", "cuda", options={}, lr=1e-3)
    counted(emulation, training, 120)
    own = counted(emulation, training, 30)
    captured = [number for number in own if number > 20]
    assert 1 <= len(captured) <= 4
    assert max(captured) <= 40 * SITES["cnn"]
