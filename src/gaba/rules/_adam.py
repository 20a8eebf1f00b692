"""Adam on a vector of K numbers, one a task, as a pure step of an explicit state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaba.rules._memory import counts, zeros


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """What Adam remembers of the slopes of each task.

    Attributes:
        mean: (K,), the exponential average of the slopes.
        square: (K,), that of their squares.
        count: (K,), int64, how many steps each task has made.
    """

    mean: Tensor
    square: Tensor
    count: Tensor

    @staticmethod
    def zero(n_tasks: int) -> Moments:
        """Before the first step."""
        return Moments(zeros(n_tasks), zeros(n_tasks), counts(n_tasks))


@final
@dataclass(frozen=True)
class Adam:
    """x ← x − η m̂ / (√v̂ + ε), with m̂ and v̂ the debiased averages of the slope s and of s².

    A task that is left out of a step keeps its number, its averages and its count.

    Attributes:
        learning_rate: η.
        decay: added to the slope as decay · x.
        betas: with which the two averages forget.
        eps: ε.

    Source: Kingma and Ba, Adam, ICLR 2015, algorithm 1.

    Example:
        >>> import torch
        >>> x, moments = torch.zeros(2).double(), Moments.zero(2)
        >>> here = torch.tensor([True, False])
        >>> Adam(0.1, eps=0.0).step(x, torch.tensor([5.0, -3.0]).double(), moments, here)[0]
        tensor([-0.1000,  0.0000], dtype=torch.float64)
    """

    learning_rate: float
    decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def step(
        self, x: Tensor, slope: Tensor, moments: Moments, here: Tensor
    ) -> tuple[Tensor, Moments]:
        """The next x (K,) and moments, for the tasks in the mask ``here`` (K,)."""
        slope = slope + self.decay * x
        one, two = self.betas
        mean = one * moments.mean + (1 - one) * slope
        square = two * moments.square + (1 - two) * slope.square()
        count = moments.count + 1
        root = (square / (1 - torch.pow(two, count.to(x.dtype)))).sqrt()
        step = mean / (1 - torch.pow(one, count.to(x.dtype))) / (root + self.eps)
        return torch.where(here, x - self.learning_rate * step, x), Moments(
            torch.where(here, mean, moments.mean),
            torch.where(here, square, moments.square),
            torch.where(here, count, moments.count),
        )
