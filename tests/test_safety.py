"""Balancing by the default breaks nothing: the cases of ``benchmarks/safety.py``, few seeds."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gaba

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RUNS = [
    ("hinge", "SGD", 1),
    ("cross-entropy", "SGD", 2),
    ("cross-entropy", "Adam", 1),
    ("dead", "SGD", 1),
    ("flip", "SGD", 1),
    ("back-3", "SGD", 1),
    ("back-6", "SGD", 1),
    ("alternating", "SGD", 1),
    ("bonus", "SGD", 1),
    ("bonus", "Adam", 1),
    ("entropy", "SGD", 1),
    ("micro", "SGD", 2),
    ("head-6", "SGD", 1),
    ("head-6", "Adam", 3),
    ("head-2", "SGD", 1),
]
SLOWER = [("rare", "SGD"), ("masked", "Adam")]
"""A rare task is pressed down where it is loud, as any other."""


@pytest.fixture
def safety(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("safety")


def test_the_default_is_that_of_the_library(safety: ModuleType) -> None:
    method = gaba.methods.get("gaba")
    assert safety.Setting() == safety.Setting(method.limit, method.recovery)


@pytest.mark.parametrize(("case", "optimizer", "seeds"), RUNS)
def test_the_default_ends_no_worse_than_the_plain_sum(
    safety: ModuleType, case: str, optimizer: str, seeds: int
) -> None:
    _, (found,) = safety.measure(safety.CASES[case], optimizer, [safety.Setting()], range(seeds))
    assert found.bounded, (found.most, found.least)
    assert found.ratio <= found.allowed, found.ratios


@pytest.mark.parametrize(("case", "optimizer"), SLOWER)
def test_a_rare_task_is_pressed_down_to_a_half_at_most(
    safety: ModuleType, case: str, optimizer: str
) -> None:
    """Σ m g = Σ g and equal contributions leave every multiplier at 1/K or more."""
    _, (found,) = safety.measure(safety.CASES[case], optimizer, [safety.Setting()], range(1))
    assert found.least >= 0.5
    assert found.most <= safety.Setting().limit
    assert math.isfinite(found.ratio)


def test_every_case_is_tested(safety: ModuleType) -> None:
    assert {case for case, *_ in (*RUNS, *SLOWER)} == set(safety.CASES)


def test_a_run_that_breaks_is_unsafe(safety: ModuleType) -> None:
    def breaks(combined: Any, optimizer: str, seed: int) -> float:
        return math.nan if combined.setting and seed == 1 else 1.0

    settings = [safety.Setting(limit) for limit in (32.0, 100.0)]
    _, found = safety.measure(safety.Case("", "", breaks), "SGD", settings, range(3))
    assert [outcome.holds for outcome in found] == [False, False]
    assert safety.measure(safety.Case("", "", breaks), "SGD", settings, range(1))[1][0].holds


def test_a_multiplier_beyond_the_limit_is_unsafe(safety: ModuleType) -> None:
    inside = safety.Outcome((1.0,), 1.1, most=32.0, least=1 / 32, limit=32.0)
    assert inside.holds
    assert not safety.replace(inside, most=33.0).holds
    assert not safety.replace(inside, least=0.03).holds
    assert not safety.replace(inside, ratios=(1.3, 1.0)).holds


def test_a_limit_that_nothing_came_near_changes_nothing(safety: ModuleType) -> None:
    tried: list[float] = []

    def apart(ratio: float) -> Any:
        def run(combined: Any, optimizer: str, seed: int) -> float:
            weight = torch.nn.Parameter(torch.zeros(2))
            backward = combined.over(["loud", "quiet"], [weight])
            for _ in range(100):
                weight.grad = None
                backward({"loud": ratio * weight[0], "quiet": weight[1]})
            tried.append(combined.setting.limit if combined.setting else 0.0)
            assert weight.grad is not None
            return float(weight.grad[0])

        return safety.Case("", "", run)

    settings = [safety.Setting(limit) for limit in (32.0, 1000.0)]
    _, (small, large) = safety.measure(apart(10.0), "SGD", settings, range(1))
    assert tried == [0.0, 32.0]
    assert small.ratios == large.ratios == (pytest.approx(5.5 / 10),)
    assert (small.limit, large.limit) == (32.0, 1000.0)
    _, (small, large) = safety.measure(apart(500.0), "SGD", settings, range(1))
    assert tried == [0.0, 32.0, 0.0, 32.0, 1000.0]
    assert (small.most, large.most) == (32.0, pytest.approx(250.5))
