"""The weights of physics-informed networks: by inverse norms, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from gaba.arrays import work_dtype
from gaba.rules._base import Measured, Needs, StatefulWeighting


@final
@dataclass(frozen=True, eq=False)
class AveragedWeights:
    """What `PINN` and `PINNAnnealing` remember.

    Attributes:
        weights: (K,), the running averages.
    """

    weights: Tensor

    @staticmethod
    def ones(n_tasks: int) -> AveragedWeights:
        """Every weight 1, as before the first measurement."""
        return AveragedWeights(torch.ones(n_tasks, dtype=work_dtype(torch.get_default_device())))

    def towards(self, asked: Tensor, decay: float, usable: Tensor) -> AveragedWeights:
        """λ ← d λ + (1 − d) λ̂ where ``usable`` (K,), and as it was elsewhere."""
        new = decay * self.weights + (1 - decay) * asked
        return AveragedWeights(torch.where(usable, new, self.weights))


@final
@dataclass(frozen=True)
class PINN(StatefulWeighting[AveragedWeights]):
    """Average weights that make the contributions equal: λ_k ← d λ_k + (1 − d) Σ_j g_j / g_k.

    g_k is the norm of task k, d the decay; every λ_k starts at 1. The weights (K,) are those of
    ``scale="rule"``. At rest λ_k g_k = Σ_j g_j for every task: that is
    :class:`gaba.rules.InverseNorm` at another length, with the weights averaged in place of the
    norms. The original measures in every 1000th step (``every=1000`` of the Balancer).

    A task whose norm is 0, or that is missing, keeps its weight; the sum is over those present.

    Args:
        decay: d, in [0, 1).
        total: ``"sum"`` for Σ_j g_j as published, or ``"mean"`` for (1/K) Σ_j g_j, which is what
            the authors' code has: the same proportions, K times as short.

    Raises:
        ValueError: A setting is out of its range.

    Source: Wang, Sankaran, Wang and Perdikaris, An Expert's Guide to Training Physics-informed
    Neural Networks, 2023, section 5.1 (grad norm weighting) and algorithm 1.

    Example:
        >>> import torch
        >>> from gaba.rules import PINN, Measured
        >>> rule, norms = PINN(decay=0.9), torch.tensor([4.0, 1.0])
        >>> weights, state = rule.update(Measured(norms, norms), rule.init(2))
        >>> [round(w, 6) for w in weights.tolist()]  # .9 + .1 · 5/4 and .9 + .1 · 5
        [1.025, 1.4]
    """

    decay: float = 0.9
    total: Literal["sum", "mean"] = "sum"
    needs: ClassVar[Needs] = "norms"

    def __post_init__(self) -> None:
        check_decay("PINN", self.decay)
        if self.total not in ("sum", "mean"):
            raise ValueError(
                f"PINN: total must be 'sum' or 'mean', found {self.total!r}; 'sum' is as published"
            )

    def init(self, n_tasks: int) -> AveragedWeights:
        """Every weight 1."""
        return AveragedWeights.ones(n_tasks)

    def update(
        self, measured: Measured, state: AveragedWeights, present: Tensor | None = None
    ) -> tuple[Tensor, AveragedWeights]:
        """The weights (K,) with the norms that were measured taken in."""
        norms = measured.norms
        assert norms is not None
        here = torch.ones_like(norms, dtype=torch.bool) if present is None else present
        total = torch.where(here, norms, torch.zeros_like(norms)).sum()
        if self.total == "mean":
            total = total / here.sum()
        new = state.towards(total / norms, self.decay, here & (norms != 0))
        return new.weights, new


def check_decay(rule: str, decay: float) -> None:
    """Refuse a ``decay`` outside [0, 1)."""
    if not 0 <= decay < 1:
        raise ValueError(
            f"{rule}: decay must lie in [0, 1), found {decay!r}; .9 is that of the original"
        )
