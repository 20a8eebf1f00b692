"""All K gradients of the shared part by one pass that carries K of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from weakref import WeakSet

import torch
from torch import Tensor

from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Gradients
from gaba.measurement._gradients import task_passes
from gaba.autograd.shared import Shared

_unbatchable: WeakSet[Shared] = WeakSet()  # where it failed: told once, and not tried again


def batched_passes(graph: LossGraph, leaves: Sequence[Tensor]) -> list[Gradients] | None:
    """K rows ∂L_k/∂leaves, or ``None`` if they must be taken one after the other.

    One pass a task through its head, to the features z; then one through what lies below, with the
    K gradients ∂L_k/∂z as a batch. The graph is kept.
    """
    edges = graph.features
    if edges is None or not graph.apart or graph.shared in _unbatchable:
        return None
    above = {id(leaf) for leaf in graph.heads}
    heads = [leaf for leaf in leaves if id(leaf) in above]
    below = [leaf for leaf in leaves if id(leaf) not in above]
    rows = task_passes(graph.losses, (*edges, *heads), free=False)
    at = [[g for g in row[: len(edges)] if g is not None] for row in rows]
    if any(len(found) < len(edges) for found in at):
        return None  # a batch would hide which task does not reach which parameter
    try:
        stacked = torch.autograd.grad(
            edges,
            below,
            [torch.stack(column) for column in zip(*at, strict=True)],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
    except RuntimeError as error:
        _unbatchable.add(graph.shared)
        warnings.warn(
            "the shared part cannot carry a batch of gradients, so ExactNorms(mode='batched') "
            f"takes them one after the other, as mode='store' does: {str(error).splitlines()[0]}",
            stacklevel=4,
        )
        return None
    return [
        _in_order(leaves, heads, row[len(edges) :], below, [_part(g, k) for g in stacked])
        for k, row in enumerate(rows)
    ]


def _part(stacked: Tensor | None, k: int) -> Tensor | None:
    return None if stacked is None else stacked[k]


def _in_order(
    leaves: Sequence[Tensor],
    heads: Sequence[Tensor],
    at_heads: Gradients,
    below: Sequence[Tensor],
    at_below: Gradients,
) -> list[Tensor | None]:
    of = {id(p): g for p, g in zip((*heads, *below), (*at_heads, *at_below), strict=True)}
    return [of[id(leaf)] for leaf in leaves]
