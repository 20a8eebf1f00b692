"""A smooth version of the largest loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._memory import (
    check_count,
    check_positive,
    counts,
    masked,
    positive,
    softmax,
    zeros,
)


@final
@dataclass(frozen=True, eq=False)
class Nadir:
    """The losses to compare with, as they are being averaged.

    Attributes:
        total: (K,), the sum of the losses that count.
        count: (K,), int64, how many losses each task has had, those before the window included.
    """

    total: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class SmoothTchebycheff(StatefulWeighting[Nadir]):
    """Descend on a smooth maximum of the relative log-losses, K μ log Σ_k e^{l_k/μ}.

    l_k = log(L_k/n_k), with L_k the loss of task k and n_k a point of comparison; the ideal point
    is 0. Raw weights: w_k = K softmax(l/μ)_k / L_k, what the gradient of that has. Losses, weights:
    (K,). Small μ looks at the worst task alone; large μ comes to Σ_k log L_k,
    :class:`ScaleInvariant`.

    For the first ``warm_up`` + ``window`` losses of a task w_k = 1/L_k, and n_k is the mean over
    the last ``window`` of these. The published code for deep networks counts in epochs: 4 to warm
    up and 1 to average. Tasks not so far yet keep 1/L_k while the others have come to the softmax.

    Args:
        mu: μ, positive.
        warm_up: how many losses pass before they are averaged, zero or more.
        window: how many are averaged, at least 1.

    Raises:
        ValueError: a setting is out of its range. Where a loss is not above 0 the weights are NaN,
            and the Balancer learns nothing from the step.

    Source: Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML
    2024, definition of g^(STCH); relative log-losses, n_k and K as in its published code.

    Example:
        >>> import torch
        >>> rule = SmoothTchebycheff(mu=1.0, warm_up=0, window=1)
        >>> weights, state = rule.update(Measured(torch.tensor([1.0, 10.0])), rule.init(2))
        >>> weights, state = rule.update(Measured(torch.tensor([0.5, 10.0])), state)
        >>> weights  # 2 · (⅓, ⅔) / L
        tensor([1.3333, 0.1333], dtype=torch.float64)
    """

    mu: float = 1.0
    warm_up: int = 400
    window: int = 100
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_positive("SmoothTchebycheff", "mu", self.mu)
        check_count("SmoothTchebycheff", "warm_up", self.warm_up, 0)
        check_count("SmoothTchebycheff", "window", self.window)

    def init(self, n_tasks: int) -> Nadir:
        """No loss seen."""
        return Nadir(zeros(n_tasks), counts(n_tasks))

    def update(
        self, measured: Measured, state: Nadir, present: Tensor | None = None
    ) -> tuple[Tensor, Nadir]:
        """The weights (K,) of this step, and the state with its losses taken in."""
        losses, here = masked(measured.losses, present, 1.0)
        losses = positive(losses)
        warm = state.count >= self.warm_up + self.window
        ready = here & warm
        nadir = torch.where(warm, state.total / self.window, 1.0)
        part = ready.sum() * softmax((losses / nadir).log() / self.mu, ready)
        weights = torch.where(ready, part, 1.0) / losses
        counted = here & (state.count >= self.warm_up) & ~warm
        total = torch.where(counted, state.total + losses, state.total)
        return weights, Nadir(total, torch.where(warm, state.count, state.count + here))
