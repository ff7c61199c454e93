"""Train on real handwritten digits with one line more, and read which units one bad update killed, when and of what.

Run: python examples/02_monitor.py   (a few seconds on a CPU; needs scikit-learn, pip install 'deadrelu[demo]')
"""

import logging
from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import deadrelu

logging.getLogger("deadrelu").setLevel(logging.ERROR)  # each event is also logged while it happens; not here
torch.manual_seed(0)

pixels, digits = load_digits(return_X_y=True)
x, y = torch.tensor(pixels / 8 - 1, dtype=torch.float32), torch.tensor(digits)

layers = OrderedDict(
    fc1=nn.Linear(64, 64), relu1=nn.ReLU(), fc2=nn.Linear(64, 64), relu2=nn.ReLU(), out=nn.Linear(64, 10)
)
for layer in (layers["fc1"], layers["fc2"]):
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
model = nn.Sequential(layers)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

with deadrelu.Monitor(model, optimizer) as monitor:  # the line more
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 20.0 if step == 100 else 0.05  # a schedule with a typing mistake in it
        rows = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()

print(monitor.report())

# Every death is there to work with: when, of what, what moved the unit's input under zero, what would have saved it.
death = next(death for death in monitor.deaths if death.killed_by_step == 100 and death.parameter and death.safe_lr)
print(f"\n{death.site}, unit {death.unit}: last fired at step {death.last_fired}, confirmed at {death.confirmed}")
print(f"cause: {death.cause}, by {death.parameter} at a learning rate of {death.lr:g}")
print("margin moved by", ", ".join(f"{part} {moved:+.2f}" for part, moved in death.shares.items()))
print(f"the same update at a learning rate of about {death.safe_lr:.3g} or less leaves it alive")
