"""What a follower says and hands on is what the history has, and each step once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

import gaba
from gaba.integrations._follow import Follower, steps_of

TASKS = ["a", "b", "c"]


def make(weighting: str = "inverse", **settings: object) -> tuple[gaba.Balancer, torch.nn.Linear]:
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    return gaba.Balancer(TASKS, shared=net, weighting=weighting, **settings), net  # pyright: ignore[reportArgumentType]


def take(balancer: gaba.Balancer, net: torch.nn.Linear, n: int, missing: str = "") -> None:
    for _ in range(n):
        parts = net(torch.randn(8, 4)).square().mean(0)
        losses = dict(zip(TASKS, parts * torch.tensor([100.0, 1.0, 0.1]), strict=True))
        balancer.backward({name: loss for name, loss in losses.items() if name != missing})


def test_each_look_tells_of_the_steps_since_the_last() -> None:
    balancer, net = make()
    take(balancer, net, 2)
    follower = Follower(balancer, "x")
    assert follower.look() == {}
    take(balancer, net, 3)
    found, history = follower.look(), balancer.history
    for k, task in enumerate(TASKS):
        assert math.isclose(found[f"x/losses/{task}"], history.losses[2:, k].mean())
        assert found[f"x/norms/{task}"] == history.norms[-1, k]
        assert found[f"x/weights/{task}"] == history.weights[-1, k]
        assert found[f"x/contributions/{task}"] == history.contributions[-1, k]
        assert found[f"x/saturated/{task}"] == 0
    assert found["x/gain"] == history.gain[-1]
    assert found["x/imbalance"] == history.imbalance[-1]
    assert follower.look() == {}


def test_what_was_not_seen_is_left_out_and_what_was_seen_last_is_told() -> None:
    balancer, net = make(every=2)
    follower = Follower(balancer)
    take(balancer, net, 2, missing="c")  # the first is measured, the second is not
    found = follower.look()
    assert found["gaba/norms/a"] == balancer.history.norms[0, 0]
    assert found["gaba/imbalance"] == balancer.history.imbalance[0]
    assert found["gaba/weights/c"] == 0
    assert not {"gaba/norms/c", "gaba/losses/c", "gaba/contributions/c"} & set(found)
    assert all(math.isfinite(value) for value in found.values())


def test_saturated_is_the_part_of_the_steps() -> None:
    floor = gaba.stabilisers.Floor(0.1, mode="project")
    balancer, net = make(weight_stabiliser=floor)
    follower = Follower(balancer)
    take(balancer, net, 5)
    found = follower.look()
    for k, task in enumerate(TASKS):
        assert found[f"gaba/saturated/{task}"] == balancer.history.saturated[:, k].mean()
    assert found["gaba/saturated/a"] == 1


def test_sinks_get_each_step_once_and_as_it_was(tmp_path: Path) -> None:
    balancer, net = make("equal-share")
    with gaba.RunRecord(tmp_path / "run.jsonl", balancer.tasks) as record:
        follower = Follower(balancer, sinks=[record])
        for n, missing in ((2, ""), (3, "b"), (0, ""), (1, "")):
            take(balancer, net, n, missing)
            follower.look()
    read, own = gaba.History.read(tmp_path / "run.jsonl"), balancer.history
    for name in ("steps", "losses", "norms", "weights", "saturated", "gain", "finite", "measured"):
        np.testing.assert_array_equal(getattr(read, name), getattr(own, name))
    np.testing.assert_allclose(read.times, own.times, atol=1e-3)
    np.testing.assert_allclose(read.cosines, own.cosines, atol=1e-12)
    assert read.about == own.about
    assert [step.gramian is None for step in steps_of(own, 4)] == [False, False]
