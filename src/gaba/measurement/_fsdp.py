"""Exact norms where FSDP has spread the shared parameters over the ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gaba.autograd.passes import Gradients, explained
from gaba.autograd.sharding import copies, holds_gradients_back, local_part, sharded
from gaba.autograd.shared import SharedModule
from gaba.measurement.base import Observation, Request
from gaba.measurement.norms import summed


def sharded_passes(request: Request) -> Observation:
    """The norms from :func:`sharded_rows`."""
    rows = sharded_rows(request)
    return summed(request, rows, [any(g is not None for g in row) for row in rows])


def sharded_rows(request: Request) -> list[Gradients]:
    """One pass of FSDP a task, which leaves each rank its part of the averaged gradient.

    ``.grad`` of the shared parameters is set aside meanwhile, and that of all others is not
    touched: the passes fill only what lies below the features.

    Raises:
        ValueError: what lies below the features is not the shared part, or FSDP has been told not
            to reduce gradients now.
    """
    graph = request.graph
    theta = graph.theta
    inputs = _shared_in_use(request, theta)
    if isinstance(graph.shared, SharedModule) and holds_gradients_back(graph.shared.module):
        raise ValueError(
            "ExactNorms on parameters that FSDP has sharded needs gradients reduced in the steps "
            "that measure: leave set_requires_gradient_sync(True), or use the default method"
        )
    if request.metric is not None:
        raise ValueError(
            "metric='optimizer' cannot read a state that FSDP has sharded: use metric='euclidean', "
            "or wrap the model in DistributedDataParallel"
        )
    parts, aside = [], [p.grad for p in theta]
    try:
        for loss in graph.losses:
            for p in theta:
                p.grad = None
            with explained():
                torch.autograd.backward(loss, retain_graph=True, inputs=inputs)
            found = [None if p.grad is None else local_part(p.grad) for p in theta]
            parts.append(_weighed(found, theta))
    finally:
        for p, gradient in zip(theta, aside, strict=True):
            p.grad = gradient
    return parts


def _shared_in_use(request: Request, theta: Sequence[nn.Parameter]) -> Sequence[Tensor]:
    """The leaves that stand for θ in this graph: those that lie below the features."""
    below = request.graph.below if request.graph.features is not None else ()
    shapes = sorted(tuple(leaf.shape) for leaf in below)
    if not all(sharded([p]) for p in theta) or shapes != sorted(tuple(p.shape) for p in theta):
        raise ValueError(
            "ExactNorms on parameters that FSDP has sharded needs shared=... to be a module that "
            "is all there is below the features, and FSDP to hold all of it: use "
            "DistributedDataParallel"
        )
    return below


def _weighed(row: Gradients, theta: Sequence[Tensor]) -> Gradients:
    """Each part divided by the root of how often it counts: one that lies on n ranks is n times."""
    return [
        g if g is None or (n := copies(p)) == 1 else g / n**0.5
        for g, p in zip(row, theta, strict=True)
    ]
