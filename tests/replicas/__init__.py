"""Small replicas of awkward real architectures: every activation, its name, its units, and planted dead units."""

from __future__ import annotations

from . import (
    albert,
    branching,
    convnext,
    crelu,
    densenet,
    dpn,
    encoder,
    gated,
    googlenet,
    gpt,
    linear_attention,
    mixer,
    mobilenet,
    recurrent,
    resnet,
    senet,
    shared,
    shufflenet,
    swin,
    t5,
    unet,
    vgg,
    wrapped,
    zoo,
)
from .tape import Replica

REPLICAS: tuple[Replica, ...] = (
    *resnet.REPLICAS,
    *densenet.REPLICAS,
    *googlenet.REPLICAS,
    *dpn.REPLICAS,
    *mobilenet.REPLICAS,
    *senet.REPLICAS,
    *shufflenet.REPLICAS,
    *unet.REPLICAS,
    *vgg.REPLICAS,
    *encoder.REPLICAS,
    *t5.REPLICAS,
    *gpt.REPLICAS,
    *mixer.REPLICAS,
    *convnext.REPLICAS,
    *swin.REPLICAS,
    *recurrent.REPLICAS,
    *albert.REPLICAS,
    *linear_attention.REPLICAS,
    *gated.REPLICAS,
    *shared.REPLICAS,
    *crelu.REPLICAS,
    *wrapped.REPLICAS,
    *branching.REPLICAS,
    *zoo.REPLICAS,
)

__all__ = ["REPLICAS", "Replica"]
