"""Norms at the features, of the sub-batch on which a task pulls hardest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gaba.autograd.passes import Gradients, task_passes
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import norm, observation


@final
@dataclass(frozen=True)
class SubBatchNorms(Measurement):
    """g_k = √λ_k, λ_k the largest eigenvalue of the kernel of n sub-batches at the features z.

    The kernel of task k is J Jᵀ; row j of J is the gradient ∂ℓ_jk/∂z of the mean loss ℓ_jk of
    sub-batch j. Where each item has features of its own, the rows are at right angles, and
    λ_k = max_j ‖∂ℓ_jk/∂z‖². Then one pass a task through the heads gives them all: L_k has to be
    a mean over the B items, and ∂ℓ_jk/∂z is B/B_j times the B_j rows of ∂L_k/∂z that are of
    sub-batch j. On several ranks the norm is the mean of theirs.

    Args:
        parts: n, at least 1. 1 takes the whole batch.

    Raises:
        ValueError: ``parts`` is below 1, the features cannot be found or a path leads around them,
            one has no first dimension, or the Gramian or another metric is asked for.

    Source: Qin et al., NTKMTL, NeurIPS 2025 (arXiv 2510.18258), NTKMTL-SR; n = 4 there.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> model = torch.nn.Linear(2, 1)
        >>> shared, z = as_shared(model), model(torch.ones(4, 2))
        >>> loss = (torch.tensor([[1.0], [1.0], [3.0], [3.0]]) * z).mean()
        >>> seen, _ = SubBatchNorms(parts=2).update(Request(LossGraph([loss, loss], shared)), ())
        >>> round(float(seen.norms[0]), 4)  # of the second half, whose gradient is (3/2, 3/2)
        2.1213
    """

    parts: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.parts, int) or self.parts < 1:
            raise ValueError(
                f"parts must be a whole number of at least 1, found {self.parts!r}: the published "
                "code has 4"
            )

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses at the features; there is no state."""
        graph, ranks = told.graph, told.ranks
        if not ranks.all(bool(graph.features), graph.device):
            raise ValueError(
                "SubBatchNorms needs the features z that every loss is computed from, found none, "
                "or a path around them: pass backward(losses, features=z), or use measure='exact'"
            )
        if told.gramian or told.metric is not None:
            asked = "the Gramian" if told.gramian else "metric='optimizer'"
            raise ValueError(
                f"SubBatchNorms sees features and no parameters, found that {asked} is asked for: "
                "use measure='exact'"
            )
        rows = task_passes(graph, graph.features or (), free=False)
        own = torch.stack([self._length(row, graph.device) for row in rows])
        norms = ranks.total(own) / ranks.size
        reached = [any(g is not None for g in row) for row in rows]
        return observation(told, norms, reached), state

    def _length(self, row: Gradients, device: torch.device) -> Tensor:
        """The norm () of the sub-batch whose gradient is longest, of one task on this rank."""
        found = [self._split(g.detach()) for g in row if g is not None]
        lengths = [
            norm([parts[j] for parts in found if j < len(parts)], device) for j in range(self.parts)
        ]
        return torch.stack(lengths).amax()

    def _split(self, gradient: Tensor) -> list[Tensor]:
        """∂ℓ_j/∂z for each sub-batch j of one feature."""
        if not gradient.ndim:
            raise ValueError(
                "SubBatchNorms needs features whose first dimension is that of the batch, found a "
                "scalar: use measure='exact'"
            )
        size = len(gradient)
        return [part * (size / len(part)) for part in gradient.chunk(self.parts) if len(part)]
