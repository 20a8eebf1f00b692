"""Six linear regressions of which one is seldom there and one has two labels in a batch.

As in :mod:`gaba.bench.problems.synthetic`, y_k = ⟨a_k, x⟩ + σ ε with x ∈ ℝ¹⁶, ε standard normal,
‖a_k‖ = 1 and σ = ½, the loss is s_k · mean (ŷ_k − y_k)², and ŷ_k = ⟨h_k, W x⟩ with a shared
W (4, 16): four features for six tasks whose a_k span six dimensions. Four tasks have s_k of 0.01,
0.1, 10 and 100 and a label for each of the 64 examples. The other two have s_k = 1:

- ``seldom`` has all its 64 labels, but only in one batch of four. Its place among the four is
  drawn, after the first batch, which has it; in the other three the task is missing.
- ``sparse`` has two labels in every batch, one in each half, so its gradient is mostly noise.

They are no easier and no harder to learn than the others, and all six count alike. So what is seen
is what a method does where a task is missing and where its gradient's norm is that of noise. This
protocol is this package's own; it is published nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from gaba.bench.problem import Metric, Problem, Rates, Session
from gaba.bench.problems._linear import LinearTraining

TASKS: tuple[str, ...] = ("t0", "t1", "seldom", "sparse", "t2", "t3")
SCALES: tuple[float, ...] = (0.01, 0.1, 1.0, 1.0, 10.0, 100.0)
INPUTS, FEATURES = 16, 4
NOISE = 0.5
PERIOD = 4
"""``seldom`` is in one of so many batches."""
LABELLED = 2
"""Labels of ``sparse`` in a batch."""


@final
@dataclass(frozen=True)
class Regressions:
    """The six tasks, the same for every seed."""

    @cached_property
    def coefficients(self) -> np.ndarray:
        """The rows a_k, (6, 16), of length 1; any two have the same angle, of cosine ⅓."""
        draw = np.random.default_rng(0)
        basis = np.linalg.qr(draw.normal(size=(INPUTS, len(TASKS))))[0].T
        cosines = np.full((len(TASKS), len(TASKS)), 1 / 3) + np.eye(len(TASKS)) * 2 / 3
        return np.linalg.cholesky(cosines) @ basis

    @cached_property
    def least_mean_excess(self) -> float:
        """The lower bound of the mean excess: of the squared singular values the last two, by 6."""
        found = np.linalg.svd(self.coefficients, compute_uv=False)
        return float((found[FEATURES:] ** 2).sum()) / len(TASKS)


@final
class _Training(LinearTraining):
    def __init__(self, tasks: Regressions, seed: int, device: torch.device) -> None:
        given = tasks.coefficients, np.full(len(TASKS), NOISE), np.array(SCALES)
        super().__init__(TASKS, *given, FEATURES, tasks.least_mean_excess, seed, device)
        self.made = self.turn = 0

    def _each(self) -> dict[str, Tensor]:
        """The losses of the labelled examples by task, of one half and then of the other."""
        each = dict(zip(TASKS, self._errors().unbind(dim=1), strict=True))
        each["sparse"] = each["sparse"][:: self.batch // LABELLED]
        if not self._has_seldom():
            del each["seldom"]
        return each

    def _has_seldom(self) -> bool:
        place, self.made = self.made % PERIOD, self.made + 1
        if place == 0 and self.made > 1:
            self.turn = int(torch.randint(PERIOD, (), generator=self.generator))
        return place == self.turn

    def losses(self) -> dict[str, Tensor]:
        return {task: each.mean() for task, each in self._each().items()}

    def losses_of_halves(self) -> dict[str, Tensor]:
        return {task: each.reshape(2, -1).mean(dim=1) for task, each in self._each().items()}


@final
class SyntheticRare(Problem):
    """Six linear regressions on four features; one is seldom there, one has two labels a batch.

    Judged by each task's excess e_k over its own optimum, relative to that of the prediction 0. It
    is an exact expectation, not an estimate, so validation and test are the same. Shown besides:
    the mean excess, and by how much it is above the least that four features allow.
    """

    name = "synthetic-rare"
    tasks = TASKS
    metrics: tuple[Metric, ...] = tuple(Metric(f"excess_{task}", task=task) for task in TASKS)
    steps = 1500
    learning_rates: Rates = {"adam": (3e-3, 1e-2, 3e-2), "sgd": (3e-2, 0.1, 0.3)}  # noqa: RUF012

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return _Training(Regressions(), seed, device)
