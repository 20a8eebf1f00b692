"""An exponential average that knows how much it has seen of each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaba.stabilisers._checks import DTYPE


@final
@dataclass(frozen=True, eq=False)
class Running:
    """A weighted sum of the samples of each task, and the sum of those weights.

    Attributes:
        mean: m_k ← d m_k + (1 − d) x_k for each sample x_k of task k: (K,).
        mass: b_k ← d b_k + (1 − d), which rises from 0 to 1: (K,). The average is m_k / b_k, so
            that no power of the decay is needed, and each task counts its own samples.
    """

    mean: Tensor
    mass: Tensor

    @staticmethod
    def empty(n_tasks: int) -> Running:
        """Nothing seen yet."""
        return Running(torch.zeros(n_tasks, dtype=DTYPE), torch.zeros(n_tasks, dtype=DTYPE))

    @staticmethod
    def uniform(n_tasks: int) -> Running:
        """As if 1/K had been seen for ever; the mass is 1 and stays exactly 1."""
        mean = torch.full((n_tasks,), 1 / n_tasks, dtype=DTYPE)
        return Running(mean, torch.ones(n_tasks, dtype=DTYPE))

    def advance(self, sample: Tensor, decay: float, seen: Tensor) -> Running:
        """The next state: ``sample`` (K,) taken in where ``seen`` (K,), all else as it was."""
        return Running(
            torch.where(seen, decay * self.mean + (1 - decay) * sample, self.mean),
            torch.where(seen, decay * self.mass + (1 - decay), self.mass),
        )
