"""What a search in share space tries: a training of a problem, with what it says on the way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast, final, get_args

import torch

import gaba
from gaba import methods
from gaba.bench import _points
from gaba.bench._data import drawn_from
from gaba.bench.problem import Problem
from gaba.bench.problems import PROBLEMS
from gaba.bench.trial import Optimizer, Trial, _Training, problem_of, validations

Train: TypeAlias = "Callable[[dict[str, float]], Generator[tuple[int, float]]]"
"""From targets to steps and validation figures, as they come; the last one counts."""


@final
@dataclass(frozen=True)
class Objective:
    """What is to be made small.

    Attributes:
        name: of the study, by default.
        tasks: whose targets are searched.
        about: the settings that two calls of one study must have in common.
        steps: of a whole training; None where nobody knows.
        train: one training.
    """

    name: str
    tasks: tuple[str, ...]
    about: Mapping[str, Any]
    steps: int | None
    train: Train


def objective_of(
    spec: str,
    steps: int | None,
    method: str,
    optimizer: str,
    learning_rate: float | None,
    *,
    seed: int,
    data_dir: str | Path | None,
) -> Objective:
    """A problem of the benchmark; the best validation quality so far counts."""
    folder = None if data_dir is None else str(data_dir)
    problem = problem_of(spec, folder)
    if optimizer not in get_args(Optimizer) or optimizer not in problem.learning_rates:
        known = ", ".join(problem.learning_rates)
        raise ValueError(
            f"optimizer must be one that {problem.name} has learning rates for, found "
            f"{optimizer!r}: {known}"
        )
    rates = _points.settings(problem.learning_rates[optimizer], problem.weight_decays)[0]
    trial = Trial(
        problem=problem.name,
        method=methods.spelled(method),
        optimizer=cast("Optimizer", optimizer),
        learning_rate=rates.learning_rate if learning_rate is None else learning_rate,
        weight_decay=rates.weight_decay,
        seed=seed,
        steps=problem.steps if steps is None else steps,
        stage="tune",
        spec=None if spec in PROBLEMS else spec,
        data_dir=folder,
    )
    if trial.steps < 1:
        raise ValueError(f"steps must be at least 1, found {trial.steps}")
    _balancer(trial, problem, [torch.nn.Parameter(torch.ones(1))], None, {})  # refuses at once
    about = {
        "problem": spec,
        "method": trial.method,
        "optimizer": optimizer,
        "learning_rate": trial.learning_rate,
        "weight_decay": trial.weight_decay,
        "steps": trial.steps,
        "seed": seed,
    }

    def train(targets: dict[str, float]) -> Generator[tuple[int, float]]:
        return trained(trial, problem, targets)

    return Objective(problem.name, problem.tasks, about, trial.steps, train)


def trained(
    trial: Trial, problem: Problem, targets: Mapping[str, float]
) -> Generator[tuple[int, float]]:
    """Train with these targets: after each validation its step and the best quality so far.

    No test data are read. A training that diverges ends with infinity.

    >>> from gaba.bench import load
    >>> trial = Trial("conflict-toy", "gaba", "adam", 0.01, 0.0, seed=0, steps=40)
    >>> found = list(trained(trial, load("conflict-toy"), {"f1": 0.7, "f2": 0.3}))
    >>> len(found), found[-1][0], found[-1][1] <= found[0][1]
    (20, 40, True)
    """
    device, due = torch.device(trial.device), validations(trial.steps)
    with drawn_from(trial.seed, device):
        session = problem.start(trial.seed, device)
        training = _Training(trial, problem, session, device)
        training.balancer = _balancer(
            trial, problem, session.shared, training.optimizer, targets
        ).to(device)
        while training.steps < trial.steps and not training.diverged:
            training.step()
            training.steps += 1
            if training.steps in due and not training.diverged:
                training.validate()
                if not training.diverged:
                    yield training.steps, training.quality
        if training.diverged:
            yield trial.steps, float("inf")


def _balancer(
    trial: Trial,
    problem: Problem,
    shared: Any,
    optimizer: torch.optim.Optimizer | None,
    targets: Mapping[str, float],
) -> gaba.Balancer:
    method = methods.get(trial.method, problem.tasks, shared)
    if method.measured.loss_shape or method.metric == "optimizer":
        needs = "losses by halves" if method.measured.loss_shape else "optimizer="
        raise ValueError(
            f"method must be one that takes share targets of plain losses, found {trial.method!r}, "
            f"which needs {needs}: use gaba, inverse or equal-share"
        )
    return gaba.Balancer(
        problem.tasks, shared, method, share_targets=targets or dict.fromkeys(problem.tasks, 1.0)
    )
