"""A tiny simulated fleet and settings with which a run takes about a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gaba.turbofan import TrainConfig
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.simulate import simulate


def tiny_fleet(seed: int = 0) -> Fleet:
    return simulate(train_engines=6, test_engines=4, seed=seed, conditions=2)


def tiny_config(run_dir: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        subset="simulated",
        method="gaba",
        run_dir=str(run_dir),
        steps=8,
        steps_per_epoch=2,
        warmup_steps=2,
        batch_size=16,
        stop_patience=100,
    )
    return replace(config, **changes)


def same(a: object, b: object) -> bool:
    """Whether two nested states hold the same values, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b
