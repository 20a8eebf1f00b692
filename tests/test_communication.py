"""The cost model of the benchmark of communication, and that the benchmark runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from _python import POLICY, run

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_cost")


@pytest.mark.parametrize("ranks", [2, 4, 1024])
def test_a_sum_costs_a_rank_twice_its_size_at_most(cost: Any, ranks: int) -> None:
    sums = cost.numbers("exact", 1e9, 3)
    assert cost.sent(sums, ranks) < 2 * sum(sums)
    assert cost.sent(sums, ranks) == pytest.approx(2 * sum(sums), rel=1.01 / ranks)
    assert cost.sent(sums, 1) == 0
    link = cost.Link(latency=1e-5, bandwidth=1e9)
    assert link.seconds(cost.sent(sums, ranks), 0) == pytest.approx(cost.sent(sums, ranks) / 1e9)
    assert cost.messages([1.0], ranks) == 2 * (ranks - 1)


def test_only_exact_norms_grow_with_the_model(cost: Any) -> None:
    for way in cost.WAYS:
        small, large = (sum(cost.numbers(way, p, 3)) for p in (1e6, 1e10))
        assert (small < large) == (way == "exact")


@pytest.mark.slow
def test_the_benchmark_runs_and_the_model_says_what_is_sent(tmp_path: Path) -> None:
    asked = ["--ranks", "2", "--parameters", "20000", "--steps", "2", "--out", str(tmp_path)]
    script = str(BENCHMARKS / "communication.py")
    done = run([script, *asked], cwd=Path.cwd(), policy=POLICY)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "communication.md").read_text()
    assert page.count("| 2 |") == 3
    assert "| 10 G | 1,024 | exact | 240 GB |" in page
