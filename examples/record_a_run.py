"""Stream a run to a file, read it back, and ask what it says.

The file is JSONL, a line a step, and may be read while the run goes on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import gaba
from gaba.diagnosis import diagnose

torch.manual_seed(0)
trunk = torch.nn.Linear(4, 2)
balancer = gaba.Balancer(tasks=["loud", "quiet"], shared=trunk, weighting="sqrt-inverse")


def next_step() -> gaba.Step:
    outputs = trunk(torch.randn(16, 4)).square().mean(0)
    return balancer.backward({"loud": 100 * outputs[0], "quiet": outputs[1]})


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "run.jsonl")
    with gaba.RunRecord(path, tasks=balancer.tasks, meta={"seed": 0}) as record:
        for _ in range(100):
            record.write(next_step())
    print("a step as it is written:", path.read_text(encoding="utf-8").splitlines()[1][:60], "...")
    history = gaba.History.read(path)

print(f"{len(history)} steps; columns such as history.norms have the shape {history.norms.shape}")
print(diagnose(history))
