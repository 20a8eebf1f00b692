"""The adaptive weight of the discriminator in VQGAN and in what was built on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.arrays import work_dtype
from gaba.rules._base import Measured, Needs, StatefulWeighting


@final
@dataclass(frozen=True, eq=False)
class AdaptiveWeights:
    """What `VQGAN` remembers.

    Attributes:
        steps: (), int64, how many steps it has weighed.
        weights: (K,), the weights as they would be once every task is let in.
    """

    steps: Tensor
    weights: Tensor


@final
@dataclass(frozen=True)
class VQGAN(StatefulWeighting[AdaptiveWeights]):
    """Let another task pull as hard as the reconstruction, from a given step on.

    λ_r = 1 and, for every other task k, λ_k = w · clamp(g_r / (g_k + ε), 0, M), which is 0 in the
    first ``start`` steps. r is the reference (the reconstruction), g_k the norm of task k in the
    measurement's unit, w the weight of the discriminator, ε and M the bounds of the original. So
    contributions are as w : 1. The weights (K,) are those of ``scale="rule"``.

    The original measures g on the weight of the last layer of the decoder
    (:class:`gaba.measurement.LastLayerNorms`), and takes a norm as it is, unsmoothed. Where the
    reference is missing, the weights are the last ones.

    Args:
        weight: w, zero or more.
        start: the number of steps before the others are let in; only measured steps count.
        epsilon: ε, positive.
        most: M, positive.
        reference: the position of the reference among the tasks.

    Raises:
        ValueError: A setting is out of its range.

    Source: Esser, Rombach and Ommer, Taming Transformers for High-Resolution Image Synthesis, CVPR
    2021, equation 7; ε = 1e-4 and M = 1e4 are those of the authors' code, where the paper has 1e-6.

    Example:
        >>> import torch
        >>> from gaba.rules import VQGAN, Measured
        >>> rule, norms = VQGAN(weight=0.5, start=1), torch.tensor([3.0, 0.0299])
        >>> first, state = rule.update(Measured(norms, norms), rule.init(2))
        >>> second, state = rule.update(Measured(norms, norms), state)
        >>> first.tolist(), [round(w, 3) for w in second.tolist()]
        ([1.0, 0.0], [1.0, 50.0])
    """

    weight: float = 1.0
    start: int = 0
    epsilon: float = 1e-4
    most: float = 1e4
    reference: int = 0
    needs: ClassVar[Needs] = "norms"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(
                f"VQGAN: weight must be finite and zero or more, found {self.weight:g}; 1 lets the "
                "others pull as hard as the reference"
            )
        for name, value in (("epsilon", self.epsilon), ("most", self.most)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"VQGAN: {name} must be finite and positive, found {value:g}; leave it out for "
                    "that of the original"
                )
        for name, number in (("start", self.start), ("reference", self.reference)):
            if number < 0:
                raise ValueError(f"VQGAN: {name} must be zero or more, found {number}; it counts")

    def init(self, n_tasks: int) -> AdaptiveWeights:
        """No step weighed yet, all weights 1."""
        if self.reference >= n_tasks:
            raise ValueError(
                f"VQGAN: reference must be the position of one of the {n_tasks} tasks, found "
                f"{self.reference}; positions count from 0"
            )
        weights = torch.ones(n_tasks, dtype=work_dtype(torch.get_default_device()))
        return AdaptiveWeights(torch.zeros((), dtype=torch.int64), weights)

    def update(
        self, measured: Measured, state: AdaptiveWeights, present: Tensor | None = None
    ) -> tuple[Tensor, AdaptiveWeights]:
        """The weights (K,) for the norms that were measured."""
        norms = measured.norms
        assert norms is not None
        here = torch.ones_like(norms, dtype=torch.bool) if present is None else present
        first = torch.arange(len(norms), device=norms.device) == self.reference
        ratio = (norms[self.reference] / (norms + self.epsilon)).clamp(0, self.most) * self.weight
        asked = torch.where(first, torch.ones_like(norms), ratio)
        weights = torch.where(here & here[self.reference], asked, state.weights)
        let_in = first | (state.steps >= self.start)
        acting = torch.where(let_in, weights, torch.zeros_like(weights))
        return acting, AdaptiveWeights(state.steps + 1, weights)
