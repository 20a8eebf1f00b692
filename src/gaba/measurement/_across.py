"""Exact norms where the shared parameters live on several ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gaba.ranks.wrappers import copies, holds_gradients_back, local_part, sharded
from gaba.autograd.graph import LossGraph
from gaba.measurement._averages import averages
from gaba.measurement._base import Gradients, Observation
from gaba.measurement._gradients import known_shared, scaled, summed, task_passes
from gaba.autograd.shared import SharedModule


def averaged_passes(graph: LossGraph, *, gramian: bool) -> Observation:
    """One pass a task; each gradient is averaged over the ranks while the next pass runs."""
    leaves = graph.shared.parameters() or graph.leaves
    theta = [leaves[i] for i in known_shared(graph, leaves)]
    if not theta:
        raise ValueError(
            "shared='auto' has found nothing that two tasks share: pass shared=model.backbone"
        )
    scales, means = graph.scales(theta), averages(graph.ranks, theta, graph.step)
    reached = []
    for loss in graph.losses:
        (row,) = task_passes([loss], theta, free=False)
        reached.append(any(g is not None for g in row))
        means.add(scaled(row, scales))
        del row  # or it would be there while the next pass runs
    return summed(means.parts(), reached, graph, gramian=gramian)


def sharded_passes(graph: LossGraph, *, gramian: bool) -> Observation:
    """One pass of FSDP a task, which leaves each rank its part of the averaged gradient.

    ``.grad`` of the shared parameters is set aside meanwhile, and that of all others is not
    touched: the passes fill what lies below the features alone.

    Raises:
        ValueError: what lies below the features is not the shared part, or FSDP has been told not
            to reduce gradients now.
    """
    theta = graph.shared.parameters()
    inputs = _shared_in_use(graph, theta)
    if isinstance(graph.shared, SharedModule) and holds_gradients_back(graph.shared.module):
        raise ValueError(
            "ExactNorms on parameters that FSDP has sharded needs gradients reduced in the steps "
            "that measure: leave set_requires_gradient_sync(True), or use measurement='features'"
        )
    if graph.metric is not None:
        raise ValueError(
            "metric='optimizer' cannot read a state that FSDP has sharded: use metric='euclidean', "
            "or wrap the model in DistributedDataParallel"
        )
    parts, reached, aside = [], [], [p.grad for p in theta]
    try:
        for loss in graph.losses:
            for p in theta:
                p.grad = None
            torch.autograd.backward(loss, retain_graph=True, inputs=inputs)
            found = [None if p.grad is None else local_part(p.grad) for p in theta]
            reached.append(any(g is not None for g in found))
            parts.append(_weighed(found, theta))
    finally:
        for p, gradient in zip(theta, aside, strict=True):
            p.grad = gradient
    return summed(parts, reached, graph, gramian=gramian)


def _shared_in_use(graph: LossGraph, theta: Sequence[nn.Parameter]) -> Sequence[Tensor]:
    """The leaves that stand for θ in this graph: those that lie below the features."""
    below = graph.below if graph.features is not None else ()
    shapes = sorted(tuple(leaf.shape) for leaf in below)
    if not all(sharded([p]) for p in theta) or shapes != sorted(tuple(p.shape) for p in theta):
        raise ValueError(
            "ExactNorms on parameters that FSDP has sharded needs shared=... to be a module that "
            "is all there is below the features, and FSDP to hold all of it: use "
            "measurement='features', or wrap the model in DistributedDataParallel"
        )
    return below


def _weighed(row: Gradients, theta: Sequence[Tensor]) -> Gradients:
    """Each part divided by the root of how often it counts: one that lies on n ranks is n times."""
    return [
        g if g is None or (n := copies(p)) == 1 else g / n**0.5
        for g, p in zip(row, theta, strict=True)
    ]
