"""ALBERT: one block serves as every layer, so its activations are one site each, whose calls add positions.

The second activation reads the residual stream: what feeds the stream differs from layer to layer, the block does not.
After Lan et al. 2019 (arXiv:1909.11942), transformers.models.albert.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .tape import Replica, Want, note, tokens


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.ffn = nn.Linear(width, 10)
        self.activation = nn.ReLU()
        self.ffn_output = nn.Linear(10, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        y = self.ffn(x)
        note(self, "activation", y, "npu")
        y = x + self.ffn_output(self.activation(y))
        note(self, "relu()", y, "npu")
        return F.relu(y)


class Albert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer = Layer(8)
        self.pooler = nn.Linear(8, 7)
        self.pooler_activation = nn.Tanh()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for _ in range(3):
            x = self.layer(x)
        z = self.pooler(x[:, 0])
        note(self, "pooler_activation", z, "nu")
        return self.pooler_activation(z)


REPLICAS = (
    Replica(
        "albert",
        Albert,
        tokens(),
        (
            Want("layer.activation", "relu", 10, ("layer.ffn",), "layer.ffn.bias", (3, 9)),
            Want("layer.relu()", "relu", 8, ("layer.ffn_output",), "layer.ffn_output.bias", (0,)),
            Want("pooler_activation", "tanh", 7, ("pooler",), "pooler.bias", (1,), (6,)),
        ),
    ),
)
