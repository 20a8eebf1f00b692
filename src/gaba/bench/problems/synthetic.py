"""Forty linear regressions that compete for eight shared features, with every optimum known.

Task k is y_k = ⟨a_k, x⟩ + σ_k ε with x ∈ ℝ³² and ε standard normal and ‖a_k‖ = 1, and its loss is
L_k = s_k · mean (ŷ_k − y_k)², with s_k from 0.01 to 100, evenly spaced in the logarithm. The model
is ŷ_k = ⟨h_k, W x⟩ with a shared W (8, 32) and heads h_k: eight features for forty tasks whose a_k
span twelve dimensions.

What is known. E(ŷ_k − y_k)² = ‖Wᵀh_k − a_k‖² + σ_k², since E xxᵀ = 1: task k alone has its optimum
s_k σ_k² where Wᵀh_k = a_k, and its excess over that, relative to what the prediction 0 has, is
e_k = ‖Wᵀh_k − a_k‖², without data and without noise. Under fixed weights λ_k the least of
Σ λ_k s_k e_k over all W and h is the sum of the squared singular values of the rows √(λ_k s_k) a_k
from the ninth on (Eckart and Young, 1936), reached by the projection of the rows on the first eight
right singular vectors. With λ_k s_k the same for all k, it bounds the mean excess from below.
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

TASKS = 40
INPUTS, SPANNED, FEATURES = 32, 12, 8
NOISE = (0.2, 1.0)
"""σ of even and of odd tasks."""


@final
@dataclass(frozen=True)
class Regressions:
    """The forty tasks, the same for every seed."""

    @cached_property
    def scales(self) -> np.ndarray:
        """The scales s of the losses, (40,), from 0.01 to 100."""
        return np.logspace(-2, 2, TASKS)

    @cached_property
    def noise(self) -> np.ndarray:
        """The standard deviations σ of the noise, (40,)."""
        return np.resize(NOISE, TASKS)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """The rows a_k, (40, 32), of length 1, in a subspace of 12 dimensions."""
        draw = np.random.default_rng(0)
        basis = np.linalg.qr(draw.normal(size=(INPUTS, SPANNED)))[0]
        a = draw.normal(size=(TASKS, SPANNED)) * 0.85 ** np.arange(SPANNED) @ basis.T
        return a / np.linalg.norm(a, axis=1, keepdims=True)

    def best(self, weights: np.ndarray) -> np.ndarray:
        """The excess e (40,) of each task at the optimum of Σ λ_k L_k under weights λ (40,)."""
        rows = np.sqrt(weights * self.scales)[:, None] * self.coefficients
        kept = np.linalg.svd(rows, full_matrices=False)[2][:FEATURES]
        rest = self.coefficients - self.coefficients @ kept.T @ kept
        return (rest**2).sum(axis=1)

    @cached_property
    def least_mean_excess(self) -> float:
        """The lower bound of the mean excess, which weights in proportion to 1/s reach."""
        return float(self.best(1 / self.scales).mean())


@final
class _Training(LinearTraining):
    def __init__(self, tasks: Regressions, seed: int, device: torch.device) -> None:
        given = tasks.coefficients, tasks.noise, tasks.scales
        super().__init__(Synthetic.tasks, *given, FEATURES, tasks.least_mean_excess, seed, device)

    def losses(self) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self._errors().mean(dim=0).unbind(), strict=True))

    def losses_of_halves(self) -> dict[str, Tensor]:
        halves = self._errors().reshape(2, -1, TASKS).mean(dim=1)
        return dict(zip(self.tasks, halves.unbind(dim=1), strict=True))


@final
class Synthetic(Problem):
    """Forty linear regressions, their losses over four decades, on eight shared linear features.

    Judged by each task's excess e_k over its own optimum, relative to that of the prediction 0. It
    is an exact expectation, not an estimate, so validation and test are the same. Shown besides:
    the mean excess, and by how much it is above the least that eight features allow.
    """

    name = "synthetic-40"
    tasks: tuple[str, ...] = tuple(f"t{k:02d}" for k in range(TASKS))
    metrics: tuple[Metric, ...] = tuple(
        Metric(f"excess_t{k:02d}", task=f"t{k:02d}") for k in range(TASKS)
    )
    steps = 1500
    learning_rates: Rates = {"adam": (3e-3, 1e-2, 3e-2), "sgd": (0.1, 0.3, 1.0)}  # noqa: RUF012

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return _Training(Regressions(), seed, device)
