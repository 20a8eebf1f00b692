"""The strategy inside Flower: real messages, real records, no simulation engine."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower has an environment of its own: make test-flwr")

from flwr.app import (  # pyright: ignore[reportMissingImports]
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy import FedAvg  # pyright: ignore[reportMissingImports]

from gaba.domains.federated import BalancedFedAvg, ClientWeights
from gaba.stabilisers import LogEMA

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "federated.py"
GLOBAL = np.array([1.0, -2.0, 0.5])
PULLS = {1: np.array([3.0, 0, 0]), 2: np.array([0, 40.0, 0]), 3: np.array([0, 0, 0.5])}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_federated", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


benchmark = load()


def record(values: Any, name: str = "w") -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(values))})


def reply(arrays: ArrayRecord, examples: Any = 10, loss: float = 1.0) -> RecordDict:
    metrics = MetricRecord({"num-examples": examples, "loss": loss})
    return RecordDict({"arrays": arrays, "metrics": metrics})


def messages(strategy: Any, clients: int, server_round: int = 1) -> list[Message]:
    grid = benchmark.InProcessGrid(lambda *_: None, clients)
    sent = strategy.configure_train(server_round, record(GLOBAL), ConfigRecord(), grid)
    return sorted(sent, key=lambda message: message.metadata.dst_node_id)


def answered(strategy: Any, contents: list[Any]) -> tuple[Any, Any]:
    sent = messages(strategy, len(contents))
    replies = [
        Message(error=content, reply_to=message)
        if isinstance(content, Error)
        else Message(content, reply_to=message)
        for message, content in zip(sent, contents, strict=True)
    ]
    return strategy.aggregate_train(1, replies)


def test_each_client_moves_the_global_model_equally_far() -> None:
    strategy = BalancedFedAvg(ClientWeights(scale="simplex"))
    arrays, _ = answered(strategy, [reply(record(GLOBAL + pull)) for pull in PULLS.values()])
    moved = arrays["w"].numpy() - GLOBAL
    np.testing.assert_allclose(moved, moved[0], rtol=1e-9)  # the pulls are along the axes
    expected = 1 / sum(1 / np.linalg.norm(pull) for pull in PULLS.values())
    assert moved[0] == pytest.approx(expected)
    assert strategy.rounds[-1].imbalance == pytest.approx(1)


def test_by_default_the_step_is_as_long_as_the_median() -> None:
    strategy = BalancedFedAvg()
    arrays, _ = answered(strategy, [reply(record(GLOBAL + pull)) for pull in PULLS.values()])
    median = 3.0  # of .5, 3 and 40
    np.testing.assert_allclose(arrays["w"].numpy() - GLOBAL, median / 3, rtol=1e-9)


def test_with_equal_norms_by_examples_it_is_flowers_own_fedavg() -> None:
    draw = np.random.default_rng(0)
    pulls = [pull / np.linalg.norm(pull) for pull in draw.standard_normal((4, 3))]
    contents = [reply(record(GLOBAL + p), examples=5 * k + 1, loss=k) for k, p in enumerate(pulls)]
    ours = answered(BalancedFedAvg(ClientWeights("examples")), contents)
    flowers = answered(FedAvg(), contents)
    np.testing.assert_allclose(ours[0]["w"].numpy(), flowers[0]["w"].numpy(), rtol=1e-9)
    assert dict(ours[1]) == pytest.approx(dict(flowers[1]))


BAD = {
    "nan": (reply(record(GLOBAL + math.nan)), "norm is nan"),
    "infinite": (reply(record(GLOBAL + math.inf)), "norm is inf"),
    "error": (Error(code=2, reason="out of memory"), "error 2: out of memory"),
    "nothing": (RecordDict({"metrics": MetricRecord({"num-examples": 1})}), "no arrays"),
    "empty": (reply(ArrayRecord({})), "no arrays"),
    "another shape": (reply(record(np.zeros(7))), "difference in w"),
    "another name": (reply(record(GLOBAL, "v")), "difference in v, w"),
    "no examples": (reply(record(GLOBAL), examples=0), "positive number, found 0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_client_that_answers_badly_is_left_out_and_the_others_share(kind: str) -> None:
    bad, reason = BAD[kind]
    strategy = BalancedFedAvg()
    good = [reply(record(GLOBAL + PULLS[k])) for k in (1, 3)]
    arrays, metrics = answered(strategy, [good[0], bad, good[1]])
    assert np.isfinite(arrays["w"].numpy()).all()
    assert metrics["loss"] == pytest.approx(1)
    seen = strategy.rounds[-1]
    assert seen.weights.keys() == {1, 3}
    assert reason in seen.left_out[2]
    assert seen.weights[3] / seen.weights[1] == pytest.approx(3.0 / 0.5)


def test_a_round_without_a_usable_client_leaves_the_model_alone() -> None:
    strategy = BalancedFedAvg()
    broken = [BAD["nan"][0], BAD["error"][0]]
    assert answered(strategy, broken) == (None, None)
    assert strategy.rounds[-1].left_out.keys() == {1, 2}
    assert strategy.aggregate_train(2, []) == (None, None)


def test_beliefs_go_on_over_rounds_and_missing_clients() -> None:
    strategy = BalancedFedAvg(ClientWeights(believe=LogEMA(0.5)))
    both = [reply(record(GLOBAL + PULLS[1])), reply(record(GLOBAL + PULLS[2]))]
    answered(strategy, both)
    answered(strategy, [both[0], BAD["error"][0]])
    answered(strategy, [both[0], reply(record(GLOBAL + PULLS[2] / 40 * 2.5))])
    # client 2 answered twice: norms 40, then 2.5, of which 10 is the mean with weights 1 : 2
    believed = math.exp((math.log(40) / 2 + math.log(2.5)) / 1.5)
    weights = strategy.rounds[-1].weights
    assert weights[1] / weights[2] == pytest.approx(believed / 3)


def test_a_whole_run_of_flower_with_a_wild_client_learns() -> None:
    digits = benchmark.Digits.simulated(200, 100)
    wild = benchmark.SETTINGS["wild"]
    found = {
        name: benchmark.run(name, wild, digits, rounds=4, seed=0) for name in ("FedAvg", "balanced")
    }
    assert found["balanced"]["imbalance"] == pytest.approx(1, rel=1e-6)
    assert found["balanced"]["part"] == pytest.approx(0.1, rel=1e-6)
    assert found["FedAvg"]["part"] > 0.5
    assert found["balanced"]["accuracy"][-1] > found["FedAvg"]["accuracy"][-1]


def test_the_benchmark_writes_its_page(tmp_path: Path) -> None:
    arguments = ["--quick", "--rounds", "1", "--seeds", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "federated.md").read_text()
    assert "simulated patterns (a trial, not to be cited)" in page
    assert all(f"| {name} |" in page for name in benchmark.STRATEGIES)
    assert (tmp_path / "federated.png").read_bytes().startswith(b"\x89PNG")
