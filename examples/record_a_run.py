"""Stream a run to a file, read it back, and ask what it says.

The file is JSONL, a line a step. You can read it while the run continues.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import gaba

torch.manual_seed(0)
trunk = torch.nn.Linear(4, 2)
balancer = gaba.Balancer(tasks=["loud", "quiet"], shared=trunk, method="sqrt-inverse")


def next_step() -> gaba.Step:
    outputs = trunk(torch.randn(16, 4)).square().mean(0)
    return balancer.backward({"loud": 100 * outputs[0], "quiet": outputs[1]})


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "run.jsonl")
    record = gaba.RunRecord(path, tasks=balancer.tasks, meta={"seed": 0})
    for _ in range(100):
        record.write(next_step())
    record.close()  # or: with gaba.RunRecord(...) as record
    print("a step as it is written:", path.read_text(encoding="utf-8").splitlines()[2][:60], "...")
    history = gaba.History.read(path)

print(f"{len(history)} steps; columns such as history.norms have the shape {history.norms.shape}")
print(gaba.diagnose(history))
print("\nThe second half alone:", gaba.diagnose(history[50:]), sep="\n")
print("the last step:", history[-1].asdict()["multipliers"])

balancer.reset()  # another phase of training: forget what was learnt about the norms
print("after a reset:", balancer.multipliers)
