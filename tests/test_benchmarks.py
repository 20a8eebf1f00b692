"""The benchmarks run, and write tables of the promised shape; what they measure is not tested."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import _python

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODELS = {"turbofan-small", "turbofan-paper", "mlp", "vit", "resnet"}


def run(name: str, out: Path, *arguments: str, quick: bool = True) -> str:
    words = [str(BENCHMARKS / name), *(["--quick"] if quick else []), "--out", str(out)]
    folder = out if out.is_dir() else out.parent
    done = _python.run([*words, *arguments], cwd=folder, policy=_python.POLICY)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def records(out: Path, name: str) -> list[dict[str, Any]]:
    found = json.loads((out / f"{name}.json").read_text())
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (out / f"{name}.md").read_text()
    assert f"torch {torch.__version__}" in page
    assert "A trial run with tiny models: not to be cited." in page
    assert all(record["environment"]["threads"] == 1 for record in found)
    return found


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_step_cost(tmp_path: Path) -> None:
    run("step_cost.py", tmp_path, "--tasks", "2", "--budget", "0")
    found = records(tmp_path, "step_cost")
    assert {record["model"] for record in found} == MODELS
    for record in found:
        methods = record["methods"]
        assert {"again", "published", "store", "every-10", "gaba"} <= set(methods)
        assert {"jd-rows", "jd-batched", "jd-autogram"} <= set(methods)
        for name, method in methods.items():
            if name in ("published", "store", "jd-rows"):
                assert method["status"] == "runs", method["note"]
            if method["status"] == "runs":
                low, high = method["quartiles"]
                assert 0 < low <= method["ratio"] <= high
                assert method["repetitions"] >= 1
            else:
                assert method["note"], f"{name} says {method['status']} without a reason"
        if methods["every-10"]["status"] == "runs":
            assert methods["every-10"]["steps"] == 10
        if methods["gaba"]["status"] == "runs":
            assert methods["gaba"]["steps"] == 8


@pytest.mark.slow
def test_memory(tmp_path: Path) -> None:
    run("memory.py", tmp_path, "--models", "mlp", "--tasks", "2", "8")
    found = records(tmp_path, "memory")
    assert [(r["model"], r["tasks"]) for r in found] == [("mlp", 2), ("mlp", 8)]
    for record in found:
        assert record["plain_bytes"] > record["shared_bytes"] > 0
        for method in record["methods"].values():
            if method["status"] == "runs":
                above = method["bytes"] - record["plain_bytes"]
                assert method["gradients"] * record["shared_bytes"] == pytest.approx(above, abs=10)
    # K gradients held at once grow with K; the published loop, which holds one, does not.
    two, eight = (record["methods"] for record in found)
    assert eight["store"]["gradients"] - two["store"]["gradients"] > 5
    assert abs(eight["published"]["gradients"] - two["published"]["gradients"]) < 1


@pytest.mark.slow
def test_tracked(tmp_path: Path) -> None:
    """Every method has its ratio, and the shares of the probe are near the exact ones."""
    asked = ("--models", "mlp", "--tasks", "3", "--seconds", "0.05", "--steps", "12")
    page = tmp_path / "tracked.md"
    said = run("tracked.py", page, *asked)
    assert page.read_text().strip() == said.split("mlp/3", 1)[1].strip()
    found = json.loads(page.with_suffix(".json").read_text())
    cost, error = found["cost"]["mlp/3"], found["error"]["mlp/3"]
    for name in ("again", "idle", "measuring", "products", "exact every step", "TorchJD autogram"):
        low, high = cost[name]["quartiles"]
        assert 0 < low <= cost[name]["ratio"] <= high
    idle, measuring = cost["idle"]["ratio"], max(cost["measuring"]["ratio"], cost["idle"]["ratio"])
    share = (measuring - idle) / cost["every"]
    assert cost["default"]["ratio"] == pytest.approx(idle + share)
    assert error["float32"]["measured"] >= 1
    assert error["float32"]["rms"] < 0.05
    assert error["float32"]["wrong signs"] == 0


@pytest.mark.slow
def test_heads_and_scale(tmp_path: Path) -> None:
    """Every way runs a case and a problem; the second call finds all of it made."""
    page = tmp_path / "heads_and_scale.md"
    asked = ["--cases", "rare", "--problems", "conflict-toy", "--seeds", "2", "--steps", "30"]
    first = run("heads_and_scale.py", page, *asked, quick=False)
    lines = [json.loads(line) for line in page.with_suffix(".jsonl").read_text().splitlines()]
    cases = [line for line in lines if "case" in line]
    assert [(c["optimizer"], c["holds"] == (c["ratio"] <= 1.1)) for c in cases] == [
        (optimizer, True) for optimizer in ("SGD", "Adam") for _ in range(4)
    ]
    assert len(lines) - len(cases) == 8  # 4 ways of 2 seeds
    second = run("heads_and_scale.py", page, *asked, quick=False)
    assert second.strip() == page.read_text().strip()
    assert first.endswith(second)


@pytest.mark.slow
def test_tracked_quality(tmp_path: Path) -> None:
    """A run a method and seed, taken up again where it was; ratios to exact equal shares."""
    page = tmp_path / "tracked_quality.md"
    asked = ["--problems", "conflict-toy", "--seeds", "2", "--methods", "gaba", "equal-share"]
    for seeds in ("1", "2"):
        asked[3] = seeds
        run("tracked_quality.py", page, *asked, "--steps", "60", quick=False)
    lines = [json.loads(line) for line in page.with_suffix(".jsonl").read_text().splitlines()]
    made = [(line["method"], line["seed"]) for line in lines]
    assert made == [("gaba", 0), ("equal-share", 0), ("gaba", 1), ("equal-share", 1)]
    ratios = [lines[i]["quality"] / lines[i + 1]["quality"] for i in (0, 2)]
    mean = (ratios[0] * ratios[1]) ** 0.5
    (row,) = (line for line in page.read_text().splitlines() if "conflict-toy" in line)
    assert f"| {mean:.3f} (" in row


@pytest.mark.slow
def test_norm_error(tmp_path: Path) -> None:
    run("norm_error.py", tmp_path, "--models", "mlp", "vit", "--budget", "0")
    found = records(tmp_path, "norm_error")
    assert {record["model"] for record in found} == {"mlp", "vit"}
    for record in found:
        assert record["seeds"] == 1
        assert record["norm_ratio"] >= 1
        assert set(record["methods"]) == {"output", "layer"}
        for method in record["methods"].values():
            assert method["status"] == "runs", method["note"]
            assert method["error"] > 0


@pytest.mark.slow
def test_a_run_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    asked = ("--tasks", "2", "--budget", "0")
    assert "mlp, K = 2" in run("step_cost.py", tmp_path, "--models", "mlp", *asked)
    first = records(tmp_path, "step_cost")
    said = run("step_cost.py", tmp_path, "--models", "vit", "mlp", "--resume", *asked)
    assert "vit, K = 2" in said
    second = records(tmp_path, "step_cost")
    assert [record["model"] for record in second] == ["mlp", "vit"]
    assert "mlp, K = 2" not in said
    assert second[0] == first[0]
    assert "K = 2" not in run("step_cost.py", tmp_path, "--table-only")
    assert records(tmp_path, "step_cost") == second


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_the_peak_is_of_what_is_held_at_once(size: int) -> None:
    peak_bytes = load("_peak").peak_bytes

    def one_after_the_other() -> None:
        for _ in range(5):
            torch.empty(size)

    def at_once() -> list[torch.Tensor]:
        return [torch.empty(size) for _ in range(5)]

    def in_a_backward_pass() -> None:
        x = torch.ones(size, requires_grad=True)  # held: x, exp(x) and its gradient, that of x
        x.exp().backward(torch.ones(size))

    assert peak_bytes(one_after_the_other) == pytest.approx(4 * size, rel=0.02)
    assert peak_bytes(at_once) == pytest.approx(20 * size, rel=0.02)
    assert 12 * size <= peak_bytes(in_a_backward_pass) <= 16 * size * 1.02


def test_the_evidence_table_has_the_differences_to_uniform() -> None:
    evidence = load("evidence")
    same = dict.fromkeys(range(5), 0.5)
    worse = {seed: 0.55 + 0.001 * seed for seed in range(5)}
    place = ("multi-mnist", "adam")
    others = [("pinn-burgers", "adam"), ("synthetic-40", "adam")]
    found = {p: {"uniform": same, "inverse": worse, "frozen:x": same} for p in (place, *others)}
    ratios = {p: {"uniform": 1.0, "inverse": 1.5} for p in found}
    lines = evidence.table(found, ratios).splitlines()
    assert len(lines) == 3
    assert lines[2] == "| `inverse` | **+9.9** | **+9.9** | **+9.9** | 1.50 |"
    assert evidence.difference(same, same) == (0.0, False)
    said = evidence.against(found, [place, *others], "inverse", "uniform")
    assert said == "+9.9 (+9.7 to +10.0), p 0.00, 15 pairs"
    assert all(config.is_file() for config in evidence.CONFIGS)


@pytest.mark.parametrize(
    "config", sorted((BENCHMARKS / "evidence").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_evidence_is_a_benchmark_that_can_be_read(config: Path) -> None:
    from gaba.bench import Config

    read = Config.read(config)
    assert read.store == f"runs/evidence/{config.stem}.sqlite"
    assert len(read.seeds) >= 5
    assert "fixed-sweep" in read.methods
