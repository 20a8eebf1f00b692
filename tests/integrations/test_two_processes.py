"""Accelerate, Fabric and the Trainer in two processes, against each of them in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("_two_processes.py")
NAMES = ("accelerate", "fabric", "transformers")


def trained(name: str, processes: int, place: Path) -> dict[str, torch.Tensor]:
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *(several if processes > 1 else []), str(SCRIPT), name, str(place)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(place)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one_does(name: str, tmp_path: Path) -> None:
    one, two = (trained(name, n, tmp_path / f"{n}.pt") for n in (1, 2))
    assert float((one["weights"] - 0.5).abs().max()) > 0.2
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_every_framework_trains_the_same(tmp_path: Path) -> None:
    found = [trained(name, 1, tmp_path / name) for name in NAMES]
    for other in found[1:]:
        for key, value in found[0].items():
            torch.testing.assert_close(other[key], value, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_observing_changes_no_bit_and_tells_the_norms_of_the_whole_batch(tmp_path: Path) -> None:
    one, two, plain = (
        trained(name, n, tmp_path / f"{name}-{n}.pt")
        for name, n in (("observed", 1), ("observed", 2), ("plain", 2))
    )
    assert plain.pop("norms").numel() == 0
    for key, value in plain.items():
        assert torch.equal(two[key], value), key
    assert one["norms"].isfinite().all()
    torch.testing.assert_close(two["norms"], one["norms"], rtol=1e-8, atol=0)
