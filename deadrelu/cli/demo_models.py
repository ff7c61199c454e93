"""Demo models: the two networks of `deadrelu demo`, importable as `deadrelu.cli.demo_models:mlp` and `:cnn`."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

FEATURES = 20
HIDDEN = 64
CLASSES = 10


def mlp() -> nn.Sequential:
    """Return a tabular network: inputs (N, 20), two hidden layers of 64 units, 10 classes."""
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(FEATURES, HIDDEN),
            relu1=nn.ReLU(),
            fc2=nn.Linear(HIDDEN, HIDDEN),
            relu2=nn.ReLU(),
            out=nn.Linear(HIDDEN, CLASSES),
        )
    )


def cnn() -> nn.Sequential:
    """Return a small convolutional network: inputs (N, 1, 8, 8), 16 and 32 channels, 10 classes."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, padding=1),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            out=nn.Linear(32 * 4 * 4, CLASSES),
        )
    )
