"""Stores of results that were never trained: what is true of every method in them is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from gaba.bench.problem import Metric, Problem, Session
from gaba.bench.store import Store
from gaba.bench.trial import Trial

RATES = (1e-3, 1e-2)
TASKS = ("rul", "health", "wear")


@final
class Planted(Problem):
    """A problem by its name and metrics alone."""

    def __init__(self, name: str, tasks: Sequence[str] = TASKS[:2], up: bool = True) -> None:
        self.name, self.tasks = name, tuple(tasks)
        first = [Metric(f"rmse_{tasks[0]}", tasks[0], reference=40.0)]
        rest = [Metric(f"f1_{t}", t, higher_is_better=up, reference=0.3) for t in tasks[1:]]
        self.metrics = (*first, *rest)

    def start(self, seed: int, device: torch.device) -> Session:
        raise NotImplementedError


@final
@dataclass(frozen=True)
class World:
    """What is true: the mean quality of each method, and the spread over seeds.

    ``own`` is the part of the spread that the methods do not have in common at a seed.
    """

    means: Mapping[str, float]
    problems: tuple[Planted, ...]
    seeds: int = 5
    noise: float = 0.02
    own: float = 0.3
    optimizers: tuple[Any, ...] = ("adam",)
    sweep: int = 0
    diverges: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    warms_up: tuple[str, ...] = ()
    luck: int = 0

    def write(self, path: Path) -> dict[str, Problem]:
        """The store of all tuning and final runs; the problems by name."""
        with Store(path) as store:
            for i, problem in enumerate(self.problems):
                for j, optimizer in enumerate(self.optimizers):
                    rng = np.random.default_rng([self.luck, i, j])
                    for trial, mean in self._trials(problem, optimizer):
                        store.put(trial, self._result(trial, problem, mean, rng))
        return {problem.name: problem for problem in self.problems}

    def _trials(self, problem: Planted, optimizer: Any) -> list[tuple[Trial, float]]:
        found: list[tuple[Trial, float]] = []
        alone = {f"single:{task}": 0.25 for task in problem.tasks}
        for method, mean in {**self.means, **alone}.items():
            at = Trial(problem.name, method, optimizer, RATES[1], 0.0, seed=0, steps=100)
            if method == "fixed-sweep":
                found += self._sweep(at, problem, mean)
                at = replace(at, multipliers=(1.0,) * len(problem.tasks))
            elif not method.startswith("frozen:"):
                bad = mean + 0.1
                tune = replace(at, seed=100, stage="tune")
                found += [(replace(tune, learning_rate=RATES[0]), bad), (tune, mean)]
            found += [(replace(at, seed=seed), mean) for seed in range(self.seeds)]
        return found

    def _sweep(self, at: Trial, problem: Planted, mean: float) -> list[tuple[Trial, float]]:
        k = len(problem.tasks)
        points: list[tuple[Trial, float]] = []
        for first in np.linspace(0.05, 0.95, self.sweep):
            weights = (float(first), *[float(1 - first) / (k - 1)] * (k - 1))
            worse = mean + 0.4 * (first - 1 / k) ** 2
            held = tuple(k * weight for weight in weights)
            points.append((replace(at, seed=100, stage="grid", multipliers=held), worse))
        return points

    def _result(
        self, trial: Trial, problem: Planted, mean: float, rng: np.random.Generator
    ) -> dict[str, Any]:
        if trial.method in self.fails and trial.seed == 0:
            return {"error": "ValueError: the solver <gave> up"}
        common = np.random.default_rng([self.luck, trial.seed, len(problem.name)]).normal()
        quality = mean * (1 + self.noise * common) + self.noise * mean * rng.normal() * self.own
        diverged = trial.method in self.diverges and trial.seed == 0
        test = figures(problem, quality, trial.multipliers)
        seconds = 3.0 if trial.method.startswith("inverse") else 2.0
        k = len(problem.tasks)
        return {
            "validation": test,
            "test": {name: float("nan") for name in test} if diverged else test,
            "quality": float("inf") if diverged else quality,
            "seconds": seconds,
            "seconds_per_step": seconds / 100,
            "peak_memory_bytes": 2**22,
            "weights_mean": dict.fromkeys(problem.tasks, 1 / k),
            "weights_std": dict.fromkeys(problem.tasks, 0.01),
            "multipliers": dict.fromkeys(problem.tasks, 1.0),
            "warm_up": 100 if trial.method in self.warms_up else 0,
            "saturated": 0.25,
            "imbalance_median": 3.0,
            "steps": 100,
            "diverged": diverged,
            "error": None,
        }


def figures(
    problem: Planted, quality: float, multipliers: Sequence[float] | None = None
) -> dict[str, float]:
    """Test figures of that quality; multipliers tilt it between the first metric and the rest."""
    first, *rest = problem.metrics
    tilt = 0.0 if multipliers is None else 0.1 * (multipliers[0] - 1) / len(problem.tasks)
    found = {first.name: first.reference * (quality - tilt * len(rest))}
    for metric in rest:
        part = quality + tilt
        up = 1 - part * (1 - metric.reference)
        found[metric.name] = up if metric.higher_is_better else part * metric.reference
    return found | {"nasa": 300 * quality}


def world(problems: int = 8, **settings: Any) -> World:
    """``inverse`` is a fifth better than ``uniform``; ``gaba`` and all else is the same as it."""
    named = tuple(
        Planted(f"problem-{i}", TASKS[: 2 + (i % 3 == 0)], up=i % 2 == 0) for i in range(problems)
    )
    means = {
        "uniform": 0.30,
        "gaba": 0.30,
        "inverse": 0.24,
        "frozen:gaba": 0.30,
        "frozen:inverse": 0.30,
        "fixed-tuned": 0.30,
        "fixed-sweep": 0.25,
        "sqrt-inverse": 0.30,
    }
    return World(means, named, **{"sweep": 9, **settings})
