"""The pieces of the turbofan application in a training loop of your own, on a simulated fleet.

The argument is the number of steps (default 20; a good model takes many more).
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import gaba
from gaba import turbofan
from gaba.turbofan.simulate import simulate

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
torch.manual_seed(0)
prepared: turbofan.Prepared = turbofan.prepare(simulate(train_engines=10, test_engines=8))
seen: turbofan.Windows = prepared.train
model = turbofan.TurbofanNet("small")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
balancer = gaba.Balancer(turbofan.TASKS, model.backbone)
rows = np.random.default_rng(0)

for i in range(steps):
    drawn = seen.take(rows.integers(len(seen), size=64))
    batch = turbofan.Batch(*map(torch.from_numpy, (drawn.inputs, drawn.rul, drawn.health)))
    step = balancer.backward(turbofan.losses(model(batch.inputs), batch))
    optimizer.step()
    optimizer.zero_grad()
    if i % 5 == 0 and step.measured:
        print(f"step {i}: contributions {float(step.imbalance):.2f} times apart")

predictions: turbofan.Predictions = turbofan.predict(model, prepared.test.inputs)
errors = predictions.rul - prepared.test.rul
print(f"simulated test engines: RMSE {np.sqrt(np.mean(errors**2)):.1f} cycles after {steps} steps")
