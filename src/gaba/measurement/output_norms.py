"""Norms at the output of the model, a mean over the items of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gaba.autograd.passes import Gradients, TaskGradients, task_passes
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import gramian_of, norm, observation
from gaba.tensors import as_work


@final
@dataclass(frozen=True)
class OutputNorms(Measurement):
    """The norms of ∂L_k/∂y, with y the output of the model, and one backward pass from there.

    They say how hard a loss pulls on what the model puts out, not on its parameters. y is what the
    module given as ``shared`` returns, or what ``backward(losses, features=y)`` names. A loss that
    is no function of y, such as a commitment loss, cannot be among the tasks.

    On R ranks the norm per item is the mean over all items of all ranks, divided by R, as the
    gradients of the mean loss are. Without ``per_item`` it is the mean of the ranks' norms, over R.

    Args:
        per_item: report (1/B) Σ_b ‖∂L_k/∂y_b‖₂ over the B items of the batch, along the first
            dimension of y; else ‖∂L_k/∂y‖₂ of the whole batch.
        above: whether what lies above y, heads or a discriminator, gets a gradient. Where a real
            backward pass is made (several ranks, hooks, ``balancer(losses)``) it gets one anyway.

    Raises:
        ValueError: y cannot be found, a path leads around it, an output has no first dimension, or
            the metric is the optimizer's.

    Source: Défossez et al., High Fidelity Neural Audio Compression, 2022, section 3.4 (balancer).

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> model = torch.nn.Linear(2, 3)
        >>> shared, y = as_shared(model), model(torch.ones(4, 2))
        >>> seen, _ = OutputNorms().update(Request(LossGraph([y.sum(), 5 * y.sum()], shared)), ())
        >>> [round(g, 4) for g in seen.norms.tolist()]  # √3 for each of 4 items
        [1.7321, 8.6603]
    """

    per_item: bool = True
    above: bool = True

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses at the output; there is no state."""
        device, ranks = told.graph.device, told.ranks
        if not ranks.all(bool(told.graph.features), device):
            raise ValueError(
                "OutputNorms needs the output y that every loss is computed from, found none, or a "
                "path around it: pass backward(losses, features=y), or use measure='exact'"
            )
        if told.metric is not None:
            raise ValueError(
                "OutputNorms sees no parameters, and so not the metric of the optimizer: use "
                "metric='euclidean'"
            )
        if told.gramian and (self.per_item or ranks.several):
            raise ValueError(
                "OutputNorms has no Gramian of items or of several ranks: use per_item=False on "
                "one rank, or measure='exact'"
            )
        rows, found = self._passes(told)
        counts = torch.stack([self._lengths(row, device) for row in rows])
        heard = ranks.total(counts)  # sums of norms, and of how many
        norms = heard[:, 0] / heard[:, 1].clamp(min=1) / ranks.size
        gram = gramian_of(rows, norms) if told.gramian else None
        reached = [any(g is not None for g in row) for row in rows]
        return observation(told, norms, reached, gramian=gram, gradients=found), state

    def _passes(self, request: Request) -> tuple[Sequence[Gradients], TaskGradients | None]:
        """A row ∂L_k/∂y for each task, with what can be combined by hand if that is wanted."""
        graph = request.graph
        edges = graph.features or ()
        by_hand = request.gradients and (graph.apart or not self.above)
        heads = graph.heads if by_hand and self.above else ()
        rows = task_passes(graph, (*edges, *heads), free=by_hand and request.frees)
        at = tuple(row[: len(edges)] for row in rows)
        if not by_hand:
            return at, None
        return at, TaskGradients(heads, tuple(row[len(edges) :] for row in rows), edges, at)

    def _lengths(self, row: Gradients, device: torch.device) -> Tensor:
        """The sum of the norms of one task on this rank, and of how many it is the sum: (2,)."""
        found = [g.detach() for g in row if g is not None]
        whole = norm(row, device)
        if not self.per_item or not found:
            return torch.stack([whole, torch.ones_like(whole)])
        if not all(g.ndim for g in found):
            raise ValueError(
                "OutputNorms per item needs outputs whose first dimension is that of the batch, "
                "found a scalar: use per_item=False"
            )
        items = [as_work(g.abs()).reshape(len(g), -1).norm(dim=1) for g in found]
        return torch.stack([torch.cat(items).sum(), torch.full_like(whole, sum(map(len, items)))])
