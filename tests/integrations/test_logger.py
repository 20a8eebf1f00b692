"""What a logger collects is what the history has, each step once, at a cost of the new steps."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gaba
from gaba.integrations._logger import HistoryLogger

TASKS = ["a", "b", "c"]


def make(method: Any = "inverse", **settings: Any) -> tuple[gaba.Balancer, torch.nn.Linear]:
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    return gaba.Balancer(TASKS, net, method, **settings), net


def take(balancer: gaba.Balancer, net: torch.nn.Linear, n: int, missing: str = "") -> None:
    for _ in range(n):
        parts = net(torch.randn(8, 4)).square().mean(0)
        losses = dict(zip(TASKS, parts * torch.tensor([100.0, 1.0, 0.1]), strict=True))
        balancer.backward({name: loss for name, loss in losses.items() if name != missing})


def test_it_tells_of_the_steps_since_the_last_time() -> None:
    balancer, net = make("equal-share")
    take(balancer, net, 2)
    logger = HistoryLogger(balancer, "x")
    assert logger.collect() == {}
    take(balancer, net, 3)
    found, history = logger.collect(), balancer.history
    for k, task in enumerate(TASKS):
        assert math.isclose(found[f"x/losses/{task}"], history.losses[2:, k].mean())
        for name in ("norms", "multipliers", "weights", "contributions", "shares"):
            assert found[f"x/{name}/{task}"] == getattr(history, name)[-1, k]
        assert found[f"x/saturated/{task}"] == 0
    assert found["x/imbalance"] == history.imbalance[-1]
    assert len(found) == 7 * 3 + 1
    assert logger.collect() == {}


def test_what_was_not_seen_is_left_out_and_what_was_seen_last_is_told() -> None:
    balancer, net = make(every=2)
    logger = HistoryLogger(balancer)
    take(balancer, net, 2, missing="c")  # the first is measured, the second is not
    found = logger.collect()
    assert found["gaba/norms/a"] == balancer.history.norms[0, 0]
    assert found["gaba/imbalance"] == balancer.history.imbalance[0]
    assert found["gaba/weights/c"] == 0
    assert not {f"gaba/{name}/c" for name in ("norms", "losses", "multipliers")} & set(found)
    assert not any(name.startswith(("gaba/contributions/c", "gaba/shares")) for name in found)
    assert all(math.isfinite(value) for value in found.values())


def test_the_shares_of_the_last_measured_update_are_told() -> None:
    balancer, net = make("gaba", every=2)
    logger = HistoryLogger(balancer)
    take(balancer, net, 4)  # the first gives norms, the third is measured along its update
    found, shares = logger.collect(), balancer.history.shares
    assert balancer.history.engines.tolist() == ["norms", "", "probe", ""]
    told = [found[f"gaba/shares/{task}"] for task in TASKS]
    assert told == shares[2].tolist()
    assert math.isclose(sum(told), 1, rel_tol=1e-6)
    take(balancer, net, 1, missing="c")
    assert logger.collect()["gaba/shares/c"] == 0


def test_saturated_is_the_part_of_the_steps() -> None:
    floor = gaba.stabilisers.Floor(0.1, mode="project")
    balancer, net = make(gaba.methods.get("inverse").replace(smooth=floor))
    logger = HistoryLogger(balancer)
    take(balancer, net, 5)
    found = logger.collect()
    for k, task in enumerate(TASKS):
        assert found[f"gaba/saturated/{task}"] == balancer.history.saturated[:, k].mean()
    assert found["gaba/saturated/a"] == 1


def test_sinks_get_each_step_once_and_as_it_was(tmp_path: Path) -> None:
    balancer, net = make("equal-share")
    with gaba.RunRecord(tmp_path / "run.jsonl", balancer.tasks) as record:
        logger = HistoryLogger(balancer, sinks=[record])
        for n, missing in ((2, ""), (3, "b"), (0, ""), (1, "")):
            take(balancer, net, n, missing)
            logger.collect()
    read, own = gaba.History.read(tmp_path / "run.jsonl"), balancer.history
    names = ("steps", "losses", "norms", "multipliers", "saturated", "finite", "measured")
    for name in (*names, "combined"):
        np.testing.assert_array_equal(getattr(read, name), getattr(own, name))
    np.testing.assert_allclose(read.times, own.times, atol=1e-3)
    np.testing.assert_allclose(read.cosines, own.cosines, atol=1e-12)
    assert read.about == own.about
    assert set(own.combined) == {"by-hand"}
    assert not np.isnan(own.cosines[[0, -1]]).any()


class Written:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.steps: list[gaba.Step] = []

    def write(self, step: gaba.Step) -> None:
        self.steps.append(step)


def test_collecting_costs_the_new_steps_however_long_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: Counter[str] = Counter()
    columns = [name for name, kind in vars(gaba.History).items() if isinstance(kind, property)]
    assert {"losses", "multipliers", "weights", "imbalance", "steps", "cosines"} <= set(columns)
    for name in columns:
        read = vars(gaba.History)[name].fget

        def counted(history: gaba.History, name: str = name, read: Any = read) -> Any:
            rows[name] += len(history)
            return read(history)

        monkeypatch.setattr(gaba.History, name, property(counted))
    balancer, net = make("equal-share")
    sink = Written()
    logger = HistoryLogger(balancer, sinks=[sink])
    touched = []
    for before in (2, 400):
        take(balancer, net, before)
        logger.collect()
        take(balancer, net, 3)
        rows.clear()
        assert logger.collect()
        touched.append(dict(rows))
    assert touched[0] == touched[1]
    assert touched[0]["losses"] >= 3
    assert [step.step for step in sink.steps] == list(range(408))


@pytest.mark.parametrize("method", ["gaba", "equal-share", "pcgrad"])
def test_recording_never_alters_the_numbers(method: str) -> None:
    found = []
    for recorded in (False, True):
        balancer, net = make(method)
        logger = HistoryLogger(balancer, sinks=[Written()])
        for _ in range(4):
            take(balancer, net, 1)
            if recorded:
                logger.collect()
        assert net.weight.grad is not None
        found.append((net.weight.grad, balancer.multipliers, torch.get_rng_state()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert torch.equal(found[0][2], found[1][2])
