"""State over ranks, four ranks, a rank that dies; and a training started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import _state_cases
from _ranks import ranked, split

TWO, _ = split(_state_cases, slow=("four",))
FOUR = [
    "case_four_ranks",
    "case_state_is_saved_once_and_restored_on_all_ranks",
    "case_state_of_two_ranks_is_restored_on_four",
]
FOUR_SLOW = [
    "case_four_ranks_in_a_static_graph",
    "case_four_ranks_with_tasks_missing",
    "case_a_rank_dies_and_the_others_raise_in_time",
]

test_two_ranks = ranked("_state_cases", 2, TWO)
test_four_ranks = ranked("_state_cases", 4, FOUR)
test_four_ranks_slowly = ranked("_state_cases", 4, FOUR_SLOW, pytest.mark.slow)


SCRIPT = """
import sys, torch, torch.distributed as dist, gaba
dist.init_process_group("gloo")
torch.manual_seed(0)
trunk, heads = torch.nn.Linear(4, 3), torch.nn.ModuleList([torch.nn.Linear(3, 1) for _ in "ab"])
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.heads = trunk, heads
    def forward(self, x):
        z = self.trunk(x)
        return [head(z) for head in self.heads]
model = torch.nn.parallel.DistributedDataParallel(Net())
balancer = gaba.Balancer(["a", "b"], shared=trunk)
for step in range(3):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(10 * step + dist.get_rank()))
    a, b = model(x)
    balancer.backward({"a": a.square().mean(), "b": 90 * b.abs().mean()})
found = torch.tensor(list(balancer.weights.values()))
both = [torch.empty_like(found) for _ in range(dist.get_world_size())]
dist.all_gather(both, found)
assert all(torch.equal(found, other) for other in both)
if dist.get_rank() == 0:
    print("alike on", dist.get_world_size())
dist.barrier()
"""


@pytest.mark.slow
def test_started_by_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node=2", str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "alike on 2" in done.stdout
