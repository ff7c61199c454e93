"""Swin: windows are folded into the batch by view and permute. After microsoft/Swin-Transformer.

Here the MLP works on the windows themselves, so that its batch is (rows x windows).
"""

from __future__ import annotations

from torch import Tensor, nn

from .tape import Replica, Want, images, note


def window_partition(x: Tensor, size: int) -> Tensor:
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size, size, c)


def window_reverse(windows: Tensor, size: int, h: int, w: int) -> Tensor:
    b = int(windows.shape[0] / (h * w / size / size))
    x = windows.view(b, h // size, w // size, size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, -1)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        note(self, "act", x, "(np)pu")
        return self.fc2(self.act(x))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mlp = Mlp(width, 9)

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, c = x.shape
        windows = window_partition(self.norm(x), 2).view(-1, 4, c)
        count = windows.shape[0]
        q, k, v = self.qkv(windows).reshape(count, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        windows = ((q @ k.transpose(-2, -1)).softmax(dim=-1) @ v).transpose(1, 2).reshape(count, 4, c)
        windows = windows + self.mlp(windows)
        return x + window_reverse(windows.view(-1, 2, 2, c), 2, h, w)


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 6, 2, 2)
        self.layers = nn.Sequential(Block(6), Block(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        return self.head(self.layers(x).mean((1, 2)))


REPLICAS = (
    Replica(
        "swin",
        Swin,
        images(),
        (
            Want("layers.0.mlp.act", "relu", 9, ("layers.0.mlp.fc1",), "layers.0.mlp.fc1.bias", (0, 8)),
            Want("layers.1.mlp.act", "relu", 9, ("layers.1.mlp.fc1",), "layers.1.mlp.fc1.bias", (4,)),
        ),
    ),
)
