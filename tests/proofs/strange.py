"""Strange forwards: ways in which numbers of the input get past whoever follows tensors.

Each takes (module, x); the module has `fc`, a Linear(4, 8) whose units stay under zero on [0, 1]^4, and `fc2` on top of
it. What each does to x lifts some units over zero for some inputs, unless it stands in `HARMLESS`.
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = torch.tensor([[0.0, 0.0], [0.0, 100.0]])
SHIFT = torch.full((1,), 0.5)


class Host(nn.Module):
    """Runs one of the functions below as its forward."""

    def __init__(self, function: Callable[[Host, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 8)
        with torch.no_grad():
            self.fc.bias -= 3
            self.fc2.bias -= 3
        self.register_buffer("count", torch.zeros(1))
        self.function = function
        self.calls = 0
        self.last: Tensor = torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Foreign(torch.autograd.Function):
    """Leaves torch and comes back."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 100)


def two_layers(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc2(torch.relu(m.fc(x))))


def branch(m: Host, x: Tensor) -> Tensor:
    """The unit that fires does so at the site that was seen first, on the path that was not taken."""
    h = torch.relu(m.fc(x))
    return h if x.sum() < 7 else torch.relu(m.fc(100 * x))


def loop(m: Host, x: Tensor) -> Tensor:
    while bool(x.max() > 0.999) and bool(x.max() < 1000):
        x = 10 * x
    return torch.relu(m.fc(x))


def item(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) * -x.max().item())


def tolist(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 100 * torch.tensor(x.tolist())[:, :1])


def through_numpy(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 100 * torch.from_numpy(x.numpy())[:, :1])


def numpy_array(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 100 * torch.as_tensor(np.asarray(x))[:, :1])


def made_of_tensors(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 100 * torch.tensor([x[0, 0], x[-1, 0]])[:1])


def made_of_a_tensor(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 100 * x.new_tensor(x)[:, :1])


def old_constructor(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 100 * torch.FloatTensor([x[0, 0]]))


def list_of_indices(m: Host, x: Tensor) -> Tensor:
    high = (x[0, 0] > 0.5).long()
    return torch.relu(m.fc(x) + STEPS[[[high], [high]]])


def table(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + STEPS[1][(x[:, 0] > 0.9).long()].unsqueeze(1))


def mask(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x * (1 + 100 * len(x[x > 0.5]))))


def shape(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x * torch.where(x > 0.5)[0].numel()))


def text(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x * float(f"{x[0, 0]}") * 100))


def thread(m: Host, x: Tensor) -> Tensor:
    made: list[Tensor] = []
    runner = threading.Thread(target=lambda: made.append(m.fc(100 * x).detach()))
    runner.start()
    runner.join()
    return torch.relu(made[0])


def state_in_a_buffer(m: Host, x: Tensor) -> Tensor:
    m.count.add_(1)
    return torch.relu(m.fc(x) + m.count)


def state_in_an_attribute(m: Host, x: Tensor) -> Tensor:
    h = torch.relu(m.fc(x) + m.last)
    m.last = h.mean(0) * 3 + 2.5 * x[0, 0]
    return h


def state_in_a_number(m: Host, x: Tensor) -> Tensor:
    m.calls += 1
    return torch.relu(m.fc(x) + m.calls)


def state_in_a_weight(m: Host, x: Tensor) -> Tensor:
    m.fc.bias.data.add_(100 * x.mean())
    return torch.relu(m.fc(x))


def torch_noise(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 5 * torch.randn(8))


def numpy_noise(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 5 * float(np.random.randn()))


def python_noise(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + 5 * random.gauss(0, 1))


def dropout(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(F.dropout(10 * x, 0.5, True)))


def across_samples(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + x.sum(0, keepdim=True)[:, :1])


def batch_size(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(x) + x.shape[0])


def foreign(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(Foreign.apply(x)))


def hidden_copy(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(copy.deepcopy(100 * x)))


def bytes_of_it(m: Host, x: Tensor) -> Tensor:
    held = bytearray(bytes(x.contiguous().untyped_storage()))
    return torch.relu(m.fc(100 * torch.frombuffer(held, dtype=torch.float32)[: x.numel()].view(x.shape)))


def spectrum(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(100 * torch.fft.ifft(torch.fft.fft(x)).real))


def sparse(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc((100 * x).to_sparse().to_dense()))


def through_data(m: Host, x: Tensor) -> Tensor:
    y = x.clone()
    y.data.mul_(100)
    return torch.relu(m.fc(y))


def through_a_view(m: Host, x: Tensor) -> Tensor:
    y = x.clone()
    y.t()[2].mul_(100)
    return torch.relu(m.fc(y))


def through_storage(m: Host, x: Tensor) -> Tensor:
    y = x.clone()
    z = torch.empty(0).set_(y)
    z.mul_(100)
    return torch.relu(m.fc(y))


def other_bits(m: Host, x: Tensor) -> Tensor:
    y = x.clone()
    y.view(torch.int32).add_(1 << 26)
    return torch.relu(m.fc(y))


def lazily_negated(m: Host, x: Tensor) -> Tensor:
    return torch.relu(m.fc(torch._neg_view(100 * x)))


def checked(m: Host, x: Tensor) -> Tensor:
    if torch.isnan(x).any() or bool((x < 0).any()):
        raise ValueError("the input is no image")
    return torch.relu(m.fc(x))


def constants(m: Host, x: Tensor) -> Tensor:
    scale = float(SHIFT.max()) + torch.arange(8)[None].float().mean().item()
    return torch.relu(m.fc(x) + torch.tensor([SHIFT.item() / scale]) + SHIFT * 0.1)


def scratch_memory(m: Host, x: Tensor) -> Tensor:
    y = torch.empty(x.shape[0], 8)
    y[:, :4], y[:, 4:] = m.fc(x)[:, :4], m.fc(x)[:, 4:]
    return torch.relu(y)


def in_double(m: Host, x: Tensor) -> Tensor:
    return torch.relu(F.linear(x.double(), m.fc.weight.double(), m.fc.bias.double()))


def autocast(m: Host, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.relu(m.fc(x))


def vectorised(m: Host, x: Tensor) -> Tensor:
    return torch.relu(torch.vmap(lambda row: row @ m.fc.weight.mT + m.fc.bias)(x))


HARMLESS = (two_layers, checked, constants, scratch_memory, in_double, autocast, vectorised)
SILENCING = (
    branch, loop, item, tolist, through_numpy, numpy_array, made_of_tensors, made_of_a_tensor, list_of_indices, mask,
    shape, text, state_in_a_buffer, state_in_a_weight, numpy_noise, python_noise, foreign, bytes_of_it,
)  # fmt: skip
"""After these nothing at all is claimed."""
LIFTING = (
    old_constructor, table, thread, state_in_an_attribute, state_in_a_number, torch_noise, dropout, across_samples,
    batch_size, hidden_copy, spectrum, sparse, through_data, through_a_view, through_storage, other_bits,
    lazily_negated,
)  # fmt: skip
"""These leave some sites without a bound, or with one that is right."""
