"""Exact norms with the gradient of one task held at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Observation, TaskGradients
from gaba.measurement._gradients import known_shared, norm, scaled, task_passes


def stream(graph: LossGraph, *, gramian: bool, gradients: bool) -> Observation:
    """Each task's norm, and Σ_k c_k ∇L_k with the coefficients c = ``graph.factors``.

    Raises:
        ValueError: the Gramian is asked for, or the gradients while no coefficients are known.
    """
    if gramian:
        raise ValueError(
            "mode='stream' lets each gradient go before the next is there, and so gives no "
            "Gramian: use ExactNorms(mode='store'), or a weighting that needs norms only"
        )
    if gradients and graph.factors is None:
        raise ValueError("factors must be known for mode='stream', found None: give them LossGraph")
    losses = graph.losses
    leaves = (not gradients and graph.shared.parameters()) or graph.leaves
    theta = known_shared(graph, leaves)
    scales = graph.scales([leaves[i] for i in theta])
    total: list[Tensor | None] = [None] * len(leaves)
    norms: list[Tensor] = []
    unreached: list[int] = []
    for k, loss in enumerate(losses):
        (of,) = task_passes([loss], leaves, free=gradients and k == len(losses) - 1)
        mine = [of[i] for i in theta]
        norms.append(norm(scaled(mine, scales), losses[0].device))
        if all(g is None for g in mine):
            unreached.append(k)
        if gradients and graph.factors is not None:
            _add(total, of, graph.factors[k])
        del of, mine  # or they would be there while the next pass runs
    return Observation(
        norms=graph.unscaled(torch.stack(norms)),
        gramian=None,
        unreached=tuple(unreached),
        gradients=TaskGradients(tuple(leaves), (total,), weighted=True) if gradients else None,
    )


def _add(total: list[Tensor | None], gradients: Sequence[Tensor | None], factor: Tensor) -> None:
    """Add factor · gradients to the total, in place from the second time on, with no third copy."""
    for i, (sum_so_far, gradient) in enumerate(zip(total, gradients, strict=True)):
        if gradient is None:
            continue
        largest = min(torch.finfo(gradient.dtype).max, torch.finfo(factor.dtype).max)
        c = factor.clamp(max=largest).to(gradient.dtype)
        if sum_so_far is None:
            total[i] = gradient * c
        elif sum_so_far.is_sparse:
            total[i] = gradient * c + sum_so_far  # the one that may be dense in front
        elif gradient.is_sparse:
            total[i] = sum_so_far + gradient * c
        else:
            sum_so_far.addcmul_(gradient, c)
