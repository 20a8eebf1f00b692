"""Exact norms, with the largest and the mean entry of each gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gaba.arrays import work_dtype
from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Gradients, Measurement, Observation, TaskGradients
from gaba.measurement._gradients import known_shared, observed, scaled, task_passes


@final
@dataclass(frozen=True)
class ElementNorms(Measurement):
    """Exact norms, and of each gradient its largest and its mean entry in absolute value.

    With ∇L_k the gradient of task k with respect to all P shared parameters: the norms are ‖∇L_k‖₂,
    and :attr:`Observation.statistics` (K, 2) is max_i |(∇L_k)_i| and (1/P) Σ_i |(∇L_k)_i|, in the
    same metric. A parameter that a task does not reach counts among the P, with 0.

    Cost: K passes, as for :class:`gaba.measurement.ExactNorms`, and one look at each gradient.
    Held: K gradients.

    Raises:
        ValueError: The run has several ranks; a maximum cannot be told from what they exchange.

    Source: Wang, Teng and Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in
    Physics-Informed Neural Networks, SIAM J. Sci. Comput. 2021, algorithm 1.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> seen = ElementNorms()(LossGraph([w @ w, 2 * w.sum()], as_shared([w])))
        >>> seen.statistics.tolist()
        [[8.0, 7.0], [2.0, 2.0]]
    """

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        if graph.ranks.several:
            raise ValueError(
                "ElementNorms works on one rank, found several: use another weighting, or the "
                "Balancer with sync=False for each rank by itself"
            )
        leaves = graph.leaves if gradients else graph.shared.parameters() or graph.leaves
        theta = known_shared(graph, leaves)
        rows = task_passes(graph.losses, leaves, free=gradients)
        graph.shared.learn(leaves, [[g is not None for g in row] for row in rows])
        own = [[row[i] for i in theta] for row in rows]
        shared = [leaves[i] for i in theta]
        scales = graph.scales(shared)
        found = TaskGradients(tuple(leaves), tuple(rows)) if gradients else None
        seen = observed(own, graph, gramian=gramian, theta=shared, scales=scales, gradients=found)
        entries = sum(p.numel() for p in shared)
        device = graph.losses[0].device
        statistics = torch.stack(
            [_largest_and_mean(scaled(row, scales), entries, device) for row in own]
        )
        unit = graph.unscaled(torch.ones_like(statistics))
        return Observation(
            seen.norms,
            seen.gramian,
            seen.unreached,
            seen.gradients,
            state,
            statistics * unit,
        )


def _largest_and_mean(row: Gradients, entries: int, device: torch.device) -> Tensor:
    """max|g| and Σ|g| over ``entries``, (2,)."""
    found = [_absolute(g) for g in row if g is not None and g.numel()]
    if not found:
        return torch.zeros(2, dtype=work_dtype(device), device=device)
    largest = torch.stack([g.max() for g in found]).max()
    return torch.stack([largest, torch.stack([g.sum() for g in found]).sum() / entries])


def _absolute(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return gradient.detach().abs().to(work_dtype(gradient.device))
