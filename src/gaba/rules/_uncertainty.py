"""Weights from learnt variances of the tasks' errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.rules._adam import Adam, Moments
from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._memory import check_positive, masked, zeros


@final
@dataclass(frozen=True, eq=False)
class LogVariances:
    """The learnt log-variances.

    Attributes:
        s: (K,), s_k = log σ_k².
        moments: Adam's.
    """

    s: Tensor
    moments: Moments


@final
@dataclass(frozen=True)
class Uncertainty(StatefulWeighting[LogVariances]):
    """Learn a variance σ_k² for each task, and weigh it by its inverse, w_k = ½ e^{−s_k}.

    s_k = log σ_k² descends, from 0 and by Adam, on Σ_k (½ e^{−s_k} L_k + ½ s_k), the loss that the
    model descends on at the same time; L_k is the loss of task k. Raw weights: w. Losses, weights:
    (K,).

    Wherever the losses are, s_k is drawn to log L_k, and so w_k to ½/L_k: learnt slowly, this is
    :class:`ScaleInvariant` (Σ log L_k) up to the factor ½. The paper has e^{−s_k} L_k + ½ s_k for
    cross-entropies: another start of the way to the same ½/L_k, and not offered apart.

    Args:
        learning_rate: of s, positive. The papers leave s to the model's optimizer; .025 is what
            Navon et al. 2022 take. Each s_k moves by about this much in a step.

    Raises:
        ValueError: ``learning_rate`` is out of its range. A negative loss is followed as the
            formula says, s falling and w growing without bound.

    Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics, CVPR 2018, equation 7 and section 3.2 (s = log σ²).

    Example:
        >>> import torch
        >>> rule = Uncertainty(learning_rate=0.5)
        >>> state = rule.init(2)
        >>> for _ in range(200):
        ...     weights, state = rule.update(Measured(torch.tensor([5.0, 0.5])), state)
        >>> weights
        tensor([0.1000, 1.0000], dtype=torch.float64)
    """

    learning_rate: float = 0.025
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_positive("Uncertainty", "learning_rate", self.learning_rate)

    def init(self, n_tasks: int) -> LogVariances:
        """All variances 1."""
        return LogVariances(zeros(n_tasks), Moments.zero(n_tasks))

    def update(
        self, measured: Measured, state: LogVariances, present: Tensor | None = None
    ) -> tuple[Tensor, LogVariances]:
        """The weights (K,) of this step, and the state with the step of s made."""
        losses, here = masked(measured.losses, present, 1.0)
        weights = 0.5 * torch.exp(-state.s)
        slope = 0.5 - weights * losses
        s, moments = Adam(self.learning_rate).step(state.s, slope, state.moments, here)
        return weights, LogVariances(s, moments)
