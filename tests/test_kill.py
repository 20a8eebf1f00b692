"""A training that is killed at any time, and started again, comes to the very same end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys, time
from pathlib import Path
import torch
import gaba

folder, pause = Path(sys.argv[1]), float(sys.argv[2])
torch.manual_seed(0)
trunk = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.2), torch.nn.Tanh())
heads = torch.nn.ModuleDict({t: torch.nn.Linear(6, 1) for t in ("a", "b")})
parts = torch.nn.ModuleDict({"trunk": trunk, "heads": heads})
optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-2)
balancer = gaba.Balancer(["a", "b"], trunk, accumulate=2)
saved = folder / "saved.pt"
start = 0
if saved.exists():
    found = torch.load(saved, weights_only=True)
    parts.load_state_dict(found["parts"])
    optimizer.load_state_dict(found["optimizer"])
    balancer.load_state_dict(found["balancer"])
    torch.set_rng_state(found["random"])
    start = found["step"]
with gaba.RunRecord(folder / "run.jsonl", ["a", "b"], resume_at=start) as record:
    for step in range(start, 120):
        x = torch.randn(8, 4)
        z = trunk(x)
        losses = {"a": heads["a"](z).square().mean(), "b": 90 * heads["b"](z).abs().mean()}
        record.write(balancer.backward(losses))
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
            state = {
                "parts": parts.state_dict(),
                "optimizer": optimizer.state_dict(),
                "balancer": balancer.state_dict(),
                "random": torch.get_rng_state(),
                "step": step + 1,
            }
            torch.save(state, folder / "saved.partial")
            os.replace(folder / "saved.partial", saved)
        time.sleep(pause)
weights = {n: p.tolist() for n, p in parts.named_parameters()}
(folder / "end.json").write_text(json.dumps([weights, balancer.multipliers]))
"""


def start(folder: Path, pause: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(pause)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def lines(folder: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time"} for line in found if "step" in line]


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_one_that_was_never_killed(tmp_path: Path) -> None:
    calm, harsh = tmp_path / "calm", tmp_path / "harsh"
    calm.mkdir()
    harsh.mkdir()
    assert start(calm, 0).wait(120) == 0
    drawn, kills = random.Random(0), 0
    while kills < 20:
        process = start(harsh, 0.02)
        began = (harsh / "run.jsonl").stat().st_size if (harsh / "run.jsonl").exists() else 0
        goal = began + drawn.randrange(1, 1500)  # bytes: within a line as well as between two
        while process.poll() is None:
            if (harsh / "run.jsonl").exists() and (harsh / "run.jsonl").stat().st_size >= goal:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        assert process.wait(60) == -signal.SIGKILL
        kills += 1
    assert start(harsh, 0).wait(120) == 0
    assert (harsh / "end.json").read_text() == (calm / "end.json").read_text()
    assert lines(harsh) == lines(calm)
    assert len(lines(calm)) == 120
