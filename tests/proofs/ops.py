"""Ops: one function per op that `deadrelu.proofs` bounds, and per way of writing through views; all of (2, 8, 6, 6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Op = Callable[[Tensor], Tensor]


def _named(home: object, names: str) -> dict[str, Op]:
    return {name: getattr(home, name) for name in names.split()}


def activations() -> dict[str, Op]:
    slopes = torch.randn(8)
    return {
        **_named(
            F, "relu relu6 hardtanh hardswish hardsigmoid softshrink hardshrink leaky_relu rrelu elu celu selu gelu"
        ),
        **_named(F, "silu mish softplus logsigmoid softsign tanhshrink glu"),
        **_named(torch, "sigmoid tanh"),
        "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
        "prelu": lambda x: F.prelu(x, slopes),
        "threshold-down": lambda x: F.threshold(x, 0.1, -0.5),
        "threshold-up": lambda x: F.threshold(x, 0.1, 0.5),
        "leaky-negative": lambda x: F.leaky_relu(x, -0.3),
        "celu-steep": lambda x: F.celu(x, 2.5),
        "elu-negative": lambda x: F.elu(x, -1.5),
        "softplus-negative": lambda x: F.softplus(x, -1.5),
        "hardtanh-uneven": lambda x: F.hardtanh(x, -0.2, 0.3),
        "relu-in-place": lambda x: x.clone().relu_(),
        "celu-in-place": lambda x: F.celu(x.clone(), 0.7, inplace=True),
    }


def layers() -> dict[str, Op]:
    batch_norm = nn.BatchNorm2d(8).eval()
    with torch.no_grad():
        for tensor in (batch_norm.weight, batch_norm.bias, batch_norm.running_mean):
            tensor.normal_()
        batch_norm.weight[:2] = 0.0
        batch_norm.running_var.uniform_(0.1, 2.0)
    scale = torch.randn(6)
    attention = nn.MultiheadAttention(6, 2, batch_first=True).eval()
    plain = nn.MultiheadAttention(6, 2, batch_first=True).eval()
    found: dict[str, Op] = {
        "linear": nn.Linear(6, 5),
        "linear-half": nn.Sequential(Cast(torch.bfloat16), nn.Linear(6, 3).bfloat16(), Cast(torch.float32)),
        "conv": nn.Conv2d(8, 6, 3),
        "conv-stride": nn.Conv2d(8, 6, 3, padding=1, stride=2),
        "conv-groups": nn.Conv2d(8, 8, 3, groups=4, dilation=2, padding=2),
        "conv-depthwise": nn.Conv2d(8, 8, 3, groups=8),
        "conv-same": nn.Conv2d(8, 4, (3, 2), padding="same"),
        "conv-transposed": nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1),
        "conv-transposed-groups": nn.ConvTranspose2d(8, 4, 3, groups=2),
        "conv1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 4, 3, padding=1)),
        "conv3d": nn.Sequential(nn.Unflatten(2, (2, 3)), nn.Conv3d(8, 4, 2)),
        "batch-norm": batch_norm,
        "batch-norm-of-the-batch": nn.BatchNorm2d(8, track_running_stats=False).eval(),
        "instance-norm": nn.InstanceNorm2d(8, affine=True),
        "layer-norm": nn.LayerNorm(6),
        "layer-norm-2d": nn.LayerNorm((6, 6)),
        "layer-norm-linear": nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 9)),
        "rms-norm-linear": nn.Sequential(nn.RMSNorm(6, eps=1e-5), nn.Linear(6, 9, bias=False)),
        "rms-norm-by-hand": lambda x: scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
        "group-norm": nn.GroupNorm(2, 8),
        "response-norm": nn.LocalResponseNorm(3),
        "attention": lambda x: attention(x[:, 0], x[:, 1], x[:, 2])[0],
        "attention-fused": lambda x: plain(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0],
        "attention-function": lambda x: F.scaled_dot_product_attention(x, 2 * x, x),
        "encoder": nn.TransformerEncoderLayer(6, 2, 12, batch_first=True, activation="gelu", norm_first=True).eval(),
        "scripted": torch.jit.script(nn.Sequential(nn.Conv2d(8, 3, 3), nn.ReLU())),
    }
    found["encoder"] = _rows(found["encoder"])
    for mode in ("circular", "reflect", "replicate"):
        found[f"conv-{mode}"] = nn.Conv2d(8, 4, 3, padding=1, padding_mode=mode)
    return found | recurrent()


def recurrent() -> dict[str, Op]:
    cells = {"lstm": nn.LSTM(6, 4, batch_first=True), "gru": nn.GRU(6, 4, batch_first=True)}
    cells["rnn"] = nn.RNN(6, 4, batch_first=True, nonlinearity="relu")
    return {name: lambda x, cell=cell: cell(x[:, 0])[0] for name, cell in cells.items()}


class Cast(nn.Module):
    """Turns numbers into another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def _rows(layer: Op) -> Op:
    return lambda x: layer(x[:, 0])


def pooling() -> dict[str, Op]:
    return {
        "max": nn.MaxPool2d(2),
        "max-overlapping": nn.MaxPool2d(3, 1, 1),
        "max-dilated": nn.MaxPool2d(2, dilation=2, ceil_mode=True),
        "average": nn.AvgPool2d(3, 2, 1),
        "average-inside": nn.AvgPool2d(2, count_include_pad=False, padding=1),
        "adaptive-average": nn.AdaptiveAvgPool2d((4, 3)),
        "adaptive-average-one": nn.AdaptiveAvgPool2d(1),
        "adaptive-max": nn.AdaptiveMaxPool2d(4),
        "power": nn.LPPool2d(2, 2),
        "nearest": nn.Upsample(scale_factor=2),
        "nearest-odd": nn.Upsample(size=(7, 11)),
        "bilinear": nn.Upsample(scale_factor=1.7, mode="bilinear"),
        "max-1d": lambda x: F.max_pool1d(x.flatten(2), 3, 2),
        "average-1d": lambda x: F.avg_pool1d(x.flatten(2), 3, 2),
        "max-3d": lambda x: F.max_pool3d(x.unsqueeze(2), (1, 2, 2)),
        "average-3d": lambda x: F.avg_pool3d(x.unsqueeze(2), (1, 2, 2)),
        "softmax": lambda x: x.softmax(-1),
        "softmax-sharp": lambda x: F.softmax(20 * x, 1),
        "logsumexp": lambda x: x.logsumexp(-1),
        "sum": lambda x: x.sum((1, 2)),
        "mean": lambda x: x.mean((2, 3)),
        "mean-of-all": lambda x: x.mean(),
        "cumsum": lambda x: x.cumsum(1),
        "amax": lambda x: x.amax((1, 2)),
        "max-dim": lambda x: x.max(1)[0],
        "min-of-all": lambda x: x.min(),
        "argmax": lambda x: x.argmax(1),
        "var": lambda x: x.var(1),
        "std": lambda x: x.std((1, 2), unbiased=False),
        "norm": lambda x: x.norm(dim=1),
        "normalize": lambda x: F.normalize(x, dim=1),
        "sort": lambda x: x.sort(1)[0],
        "topk": lambda x: x.topk(3, 1)[0],
    }


def arithmetic() -> dict[str, Op]:
    right, left = torch.randn(6, 4), torch.randn(5, 6)
    functions = "exp log sqrt rsqrt reciprocal abs neg square sin cos erf sign floor ceil round trunc log1p atan expm1"
    found: dict[str, Op] = _named(torch, functions)
    for power in (1, 2, 3, 4, 0.5, -1, 1.5, 0.0):
        found[f"power {power}"] = lambda x, p=power: x**p
    found |= {
        "add": lambda x: x + x.flip(0),
        "add-alpha": lambda x: torch.add(x, x.roll(1, -1), alpha=-2.5),
        "sub": lambda x: x - x.mean(0),
        "rsub": lambda x: 0.1 - x,
        "mul": lambda x: x * x.roll(1, 0),
        "mul-itself": lambda x: x * x,
        "mul-zero": lambda x: x * 0,
        "div": lambda x: x / (x.abs() + 0.1),
        "div-constant": lambda x: x / 3,
        "rdiv": lambda x: 1 / (x * x + 1),
        "maximum": lambda x: torch.maximum(x, x.roll(1, 2)),
        "minimum": lambda x: torch.minimum(x, torch.tensor(0.1)),
        "clamp": lambda x: x.clamp(-0.1, 0.2),
        "clamp-min": lambda x: x.clamp(min=0),
        "clamp-tensor": lambda x: torch.clamp(x, min=torch.tensor(0.1)),
        "where": lambda x: torch.where(x > 0, 2 * x, -x),
        "masked-fill": lambda x: x.masked_fill(x < 0.1, 3.0),
        "addcmul": lambda x: torch.addcmul(x, x, x, value=0.3),
        "matmul": lambda x: x @ x.mT,
        "matmul-right": lambda x: x @ right,
        "matmul-left": lambda x: left @ x,
        "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
        "standardised": lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5),
        "huge": lambda x: (x * 1e30) * 1e10,
        "tiny": lambda x: (x * 1e-30) * 1e-12,
        "half": lambda x: (x.half() * 1.7 + 0.3).float(),
        "double": lambda x: (x.double() * 1e-3).float() * 7,
        "long": lambda x: (x * 3).long(),
        "masks": lambda x: ((x > 0) & (x < 0.5) | (x == 0)).float(),
        "isnan": lambda x: torch.where(torch.isnan(x), 0.0, x),
    }
    return found


def moves() -> dict[str, Op]:
    table = torch.randn(9, 4)
    return {
        "cat": lambda x: torch.cat([x, 2 * x, torch.ones_like(x)], 1),
        "stack": lambda x: torch.stack([x, -x], 1),
        "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=0.7),
        "permuted": lambda x: x.permute(3, 1, 0, 2).flatten(1).mT.contiguous() * 2,
        "roll-flip": lambda x: x.roll((1, 2), (1, 2)).flip(1),
        "repeat": lambda x: x.repeat(1, 2, 1, 1).tril(),
        "repeat-interleave": lambda x: x.repeat_interleave(2, 1),
        "expand": lambda x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1) + x[:, :4],
        "gather": lambda x: x.gather(1, x.argmax(1, keepdim=True)),
        "index": lambda x: table[((x.clamp(-1, 1) + 1) * 4).long()],
        "embedding": lambda x: F.embedding(((x.clamp(-1, 1) + 1) * 4).long(), table),
        "pixel-shuffle": nn.PixelShuffle(2),
        "pixel-unshuffle": nn.PixelUnshuffle(2),
        "channel-shuffle": nn.ChannelShuffle(4),
        "patches": nn.Unfold(2),
        "windows": lambda x: x.unfold(2, 3, 1).sum(-1),
        "strided": lambda x: x.as_strided((3, 4), (2, 1), 5) * 2,
        "vmap": lambda x: torch.vmap(lambda row: (row * 2).sum(0))(x),
        "in-place": in_place,
        "buffer": buffer,
        "out": out,
        "data": data,
        "index-put": lambda x: x.clone().index_put_((torch.tensor([0, 1]), torch.tensor([1, 2])), torch.tensor(2.0)),
        "as-whole-numbers": lambda x: (x.clone().view(torch.int32) + 1).view(torch.float32),
    }


def in_place(x: Tensor) -> Tensor:
    """Writes through slices, halves, masks and a transposed view; the whole sees all of it."""
    y = x.clone()
    y[:, 0] = 5.0
    y[:, 1:3].relu_()
    y.add_(1).mul_(y)
    first, second = y.chunk(2, 1)
    first.sub_(second)
    y[y > 3] = 0
    y.transpose(1, 2)[0, 0].fill_(-0.5)
    return y


def buffer(x: Tensor) -> Tensor:
    """Fills constant memory with what depends on the input, part by part."""
    y = torch.zeros(x.shape[0], 3, *x.shape[2:])
    y[:, 0] = x[:, 0]
    y[:, 2].copy_(x[:, 1] * 2)
    y.transpose(1, 2)[:, :, 1] += x[:, 2]
    return y


def out(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    torch.mul(x, 2, out=y)
    torch.add(y, x, out=y)
    return y


def data(x: Tensor) -> Tensor:
    y = x.clone()
    y.data.mul_(-3)
    return y + 1


FAMILIES: dict[str, Callable[[], dict[str, Op]]] = {
    "activations": activations,
    "layers": layers,
    "pooling": pooling,
    "arithmetic": arithmetic,
    "moves": moves,
}
UNBOUNDED = {
    "as-whole-numbers": "memory that is read as another dtype",
    "huge": None,
    "power -1": "zero",
    "power 0.0": "power is 0",
    "log": "divide by zero",
    "log1p": "divide by zero",
    "rsqrt": "divide by zero",
    "reciprocal": "divide by zero",
}
"""What has no bounds on a box around zero, and a part of the reason; all others have."""
