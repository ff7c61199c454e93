"""`nn.TransformerEncoder` and `nn.Transformer`: the activation is a function, and eval takes a fused path.

torch.nn.modules.transformer. The tape listens to `linear1`, whose output is the pre-activation; such a hook keeps
torch off the fused path while the tape runs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .tape import Replica, Want, sequences


class Encoder(nn.Module):
    def __init__(
        self, norm_first: bool, batch_first: bool, activation: str | nn.Module, mask: bool = False, layers: int = 2
    ) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 10, 0.1, activation, batch_first=batch_first, norm_first=norm_first)
        nested = not norm_first and batch_first
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=nested)
        self.head = nn.Linear(8, 3)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        padding = None
        if self.mask:
            padding = torch.zeros(x.shape[:2], dtype=torch.bool)
            padding[0, -1] = True
        return self.head(self.encoder(x, src_key_padding_mask=padding))


class Seq2Seq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 10, batch_first=True)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.transformer(src, tgt)


def _both(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 5, 8, generator=generator), torch.randn(rows, 3, 8, generator=generator)


def _encoder(name: str, op: str, build: Callable[[], nn.Module], batch_first: bool, site: str) -> Replica:
    dead = ((0, 7), (4,))
    return Replica(
        name,
        build,
        sequences(5, 8, 0 if batch_first else 1),
        tuple(
            Want(
                f"encoder.layers.{i}.{site}",
                op,
                10,
                (f"encoder.layers.{i}.linear1",),
                f"encoder.layers.{i}.linear1.bias",
                dead[i],
            )
            for i in range(2)
        ),
        batch_dim=0 if batch_first else 1,
        listen={
            f"encoder.layers.{i}.{site}": (f"encoder.layers.{i}.linear1", "npu" if batch_first else "pnu")
            for i in range(2)
        },
    )


REPLICAS = (
    _encoder("encoder-postnorm-relu", "relu", lambda: Encoder(False, True, "relu"), True, "relu()"),
    _encoder("encoder-postnorm-gelu", "gelu", lambda: Encoder(False, True, "gelu"), True, "gelu()"),
    _encoder("encoder-postnorm-masked", "relu", lambda: Encoder(False, True, "relu", True), True, "relu()"),
    _encoder("encoder-postnorm-module", "relu", lambda: Encoder(False, True, nn.ReLU()), True, "activation"),
    _encoder("encoder-postnorm-time-first", "relu", lambda: Encoder(False, False, "relu"), False, "relu()"),
    _encoder("encoder-prenorm-relu", "relu", lambda: Encoder(True, True, "relu"), True, "relu()"),
    _encoder("encoder-prenorm-time-first", "gelu", lambda: Encoder(True, False, "gelu"), False, "gelu()"),
    Replica(
        "transformer-seq2seq",
        Seq2Seq,
        _both,
        (
            Want(
                "transformer.encoder.layers.0.relu()",
                "relu",
                10,
                ("transformer.encoder.layers.0.linear1",),
                "transformer.encoder.layers.0.linear1.bias",
                (3,),
            ),
            Want(
                "transformer.decoder.layers.0.relu()",
                "relu",
                10,
                ("transformer.decoder.layers.0.linear1",),
                "transformer.decoder.layers.0.linear1.bias",
                (1, 8),
            ),
        ),
        listen={
            f"transformer.{part}.layers.0.relu()": (f"transformer.{part}.layers.0.linear1", "npu")
            for part in ("encoder", "decoder")
        },
    ),
)
