"""Exact norms, with the largest and the mean entry of each gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from gaba.autograd.passes import Gradients, TaskGradients, task_passes
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import observed, scaled
from gaba.tensors import as_work, entries, work_dtype


@final
@dataclass(frozen=True)
class ElementNorms(Measurement):
    """Exact norms, and of each gradient its largest and its mean entry in absolute value.

    :attr:`Observation.statistics` (K, 2) is max_i |(∇L_k)_i| and (1/P) Σ_i |(∇L_k)_i|, with P the
    number of shared values; one that a task does not reach counts with 0.

    Raises:
        ValueError: The run has several ranks; a maximum cannot be told from what they exchange.

    Source: Wang, Teng and Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in
    Physics-Informed Neural Networks, SIAM J. Sci. Comput. 2021, algorithm 1.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> request = Request(LossGraph([w @ w, 2 * w.sum()], as_shared([w])))
        >>> ElementNorms().update(request, ())[0].statistics.tolist()
        [[8.0, 7.0], [2.0, 2.0]]
    """

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses; there is no state."""
        graph = told.graph
        if told.ranks.several:
            raise ValueError(
                "ElementNorms works on one rank, found several: use another rule, or the Balancer "
                "with sync=False for each rank by itself"
            )
        theta, leaves = graph.theta, graph.leaves if told.gradients else graph.theta
        rows = task_passes(graph, leaves, free=told.frees)
        own = [row[: len(theta)] for row in rows]
        found = TaskGradients(leaves, tuple(rows)) if told.gradients else None
        seen = observed(told, own, theta=theta, gradients=found)
        n, scales = sum(p.numel() for p in theta), told.scales(theta)
        sizes = torch.stack([_largest_and_mean(scaled(r, scales), n, graph.device) for r in own])
        return replace(seen, statistics=graph.spread(told.unscaled(sizes))), state


def _largest_and_mean(row: Gradients, n: int, device: torch.device) -> Tensor:
    """max|g| and Σ|g|/n, (2,)."""
    found = [as_work(_absolute(g)) for g in row if g is not None and g.numel()]
    if not found:
        return torch.zeros(2, dtype=work_dtype(device), device=device)
    largest = torch.stack([g.max() for g in found]).max()
    return torch.stack([largest, torch.stack([g.sum() for g in found]).sum() / n])


def _absolute(gradient: Tensor) -> Tensor:
    parts = entries(gradient)
    return torch.view_as_complex(parts).abs() if gradient.is_complex() else parts.abs()
