"""Train a small network on real handwritten digits at too high a learning rate, and find the units it lost.

Run: python examples/01_audit.py   (a few seconds on a CPU; needs scikit-learn, pip install 'deadrelu[demo]')
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import deadrelu

torch.manual_seed(0)

# 1,797 images of 8x8 pixels. The network learns from 1,347 of them; the other 450 are what it is audited on.
pixels, digits = load_digits(return_X_y=True)
order = torch.randperm(len(pixels))
x = torch.tensor(pixels / 16, dtype=torch.float32)[order]
y = torch.tensor(digits)[order]

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)  # ten times the usual
for _ in range(15):
    for rows in torch.randperm(1347).split(32):
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()

# The whole held-out set is what we want to know about, so it is declared complete. Without `exhaustive`, 450 samples
# would not be enough to call a silent unit dead, and the report would say how many more it needs.
report = deadrelu.audit(model, x[1347:], exhaustive=True)
print(report)

# Every number is there to work with. "1" is the path of the first ReLU in the model.
site = report["1"]
print(f"site {site.site}: {site.op} after {', '.join(site.producers)}, {site.units} units")
print(f"dead units: {site.dead.nonzero()[0].tolist()}")
print(f"busiest unit: {site.activation_rate.argmax()}, active for {site.activation_rate.max():.0%} of the digits")
