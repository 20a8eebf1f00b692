"""Weights that are learnt so that contributions follow the training rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from gaba.rules._adam import Adam, Moments
from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._memory import DTYPE, check_not_negative, check_positive, masked, zeros

Descent = Literal["adam", "sgd"]


@final
@dataclass(frozen=True, eq=False)
class LearntWeights:
    """The weights so far, and what their next step needs.

    Attributes:
        weights: (K,), w.
        first: (K,), the first loss of each task.
        seen: (K,), bool, whether there has been one.
        moments: Adam's.
    """

    weights: Tensor
    first: Tensor
    seen: Tensor
    moments: Moments


@final
@dataclass(frozen=True)
class GradNorm(StatefulWeighting[LearntWeights]):
    """Learn the weights w by which contributions follow the training rates, ``GradNorm``.

    One step of gradient descent on Σ_k |w_k g_k − ḡ r_k^α| in w, in which ḡ r_k^α counts as
    constant; then w is brought back to Σ_k w_k = K. g_k is the norm of task k, ḡ = (1/K) Σ_j w_j
    g_j the mean contribution, r_k = (L_k/L_k(0)) / ((1/K) Σ_j L_j/L_j(0)) how slowly task k learns,
    with L_k(0) the first loss that was seen of it. Raw weights: w, from 1. As published, the step
    of w acts in the next step of the model. Norms, losses, weights: (K,).

    At α = 0 all contributions are asked to be the same: the fixed point is then exactly
    :class:`InverseNorm`, and what is learnt in thousands of steps is known after one. The published
    norms are of the last shared layer alone: give the Balancer ``measurement="last-layer"``, and
    ``norm_stabiliser=None``.

    Two points beyond the paper: a weight that a step would make negative becomes 0 (its slope is
    then −g_k or 0, so that it can come back); and where tasks are missing, ḡ, r and the sum that w
    is brought back to are of those present.

    Args:
        alpha: α, zero or more; 0 asks for equal contributions, 1.5 is the paper's.
        learning_rate: of w, positive. Adam changes a weight by about this much in a step; plain
            gradient descent by this much times g_k.
        descent: ``"adam"`` or ``"sgd"``.

    Raises:
        ValueError: a setting is out of its range, or no norms were measured. A norm or loss that is
            not finite, and losses that are all 0, give NaN in the state, which the Balancer drops.

    Source: Chen et al., GradNorm, ICML 2018, equations 1 and 2 and algorithm 1; the defaults are
    those of its experiments.

    Example:
        >>> import torch
        >>> rule, losses = GradNorm(alpha=0.0, learning_rate=0.1), torch.tensor([1.0, 1.0])
        >>> state = rule.init(2)
        >>> for _ in range(200):
        ...     weights, state = rule.update(Measured(losses, torch.tensor([3.0, 1.0])), state)
        >>> [round(float(w), 1) for w in weights]  # InverseNorm, times K
        [0.5, 1.5]
    """

    alpha: float = 1.5
    learning_rate: float = 0.025
    descent: Descent = "adam"
    needs: ClassVar[Needs] = "norms"

    def __post_init__(self) -> None:
        check_not_negative("GradNorm", "alpha", self.alpha)
        check_positive("GradNorm", "learning_rate", self.learning_rate)
        if self.descent not in get_args(Descent):
            raise ValueError(
                f"GradNorm: descent must be one of {', '.join(get_args(Descent))}, found "
                f"{self.descent!r}"
            )

    def init(self, n_tasks: int) -> LearntWeights:
        """All weights 1, no loss seen."""
        return LearntWeights(
            torch.ones(n_tasks, dtype=DTYPE),
            zeros(n_tasks),
            torch.zeros(n_tasks, dtype=torch.bool),
            Moments.zero(n_tasks),
        )

    def update(
        self, measured: Measured, state: LearntWeights, present: Tensor | None = None
    ) -> tuple[Tensor, LearntWeights]:
        """The weights w (K,) of this step, and the state with the step of w made."""
        if measured.norms is None:
            raise ValueError("GradNorm needs norms, found none: use measurement='exact'")
        losses, here = masked(measured.losses, present, 1.0)
        norms, _ = masked(measured.norms, present, 0.0)
        first = torch.where(here & ~state.seen, losses, state.first)
        rates = torch.where(here, losses / torch.where(here, first, 1.0), 0.0)
        pulls = torch.where(here, state.weights * norms, 0.0)
        wanted = pulls.sum() / here.sum() * (rates / (rates.sum() / here.sum())) ** self.alpha
        slope = torch.where(here, (pulls - wanted).sign() * norms, 0.0)
        moved, moments = self._step(state.weights, slope, state.moments, here)
        moved = moved.clamp(min=0)
        before, after = (torch.where(here, w, 0.0).sum() for w in (state.weights, moved))
        weights = torch.where(here & (after != 0), moved * (before / after), state.weights)
        return state.weights, LearntWeights(weights, first, state.seen | here, moments)

    def _step(
        self, weights: Tensor, slope: Tensor, moments: Moments, here: Tensor
    ) -> tuple[Tensor, Moments]:
        if self.descent == "adam":
            return Adam(self.learning_rate).step(weights, slope, moments, here)
        return weights - self.learning_rate * slope, moments
