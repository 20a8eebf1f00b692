"""Exact norms: one backward pass a task."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final, get_args
from weakref import WeakSet

import torch
from torch import Tensor

from gaba.autograd.graph import LossGraph
from gaba.autograd.losses import check_choice
from gaba.autograd.passes import (
    Gradients,
    TaskGradients,
    explained,
    one_pass,
    task_passes,
)
from gaba.autograd.sharding import sharded
from gaba.autograd.shared import Shared
from gaba.measurement._fsdp import sharded_passes
from gaba.measurement.averages import averages
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import norm, observation, observed, scaled, summed

Mode: TypeAlias = Literal["store", "stream", "batched"]

_unbatchable: WeakSet[Shared] = WeakSet()  # where it failed: told once, and not tried again


@final
@dataclass(frozen=True)
class ExactNorms(Measurement):
    """The norms g_k = ‖∇_θ L_k‖₂ from the K per-task gradients themselves.

    Args:
        mode: how the passes are made. ``"store"``: one a task, and the K gradients, those of the
            heads included, are held until they are combined, which needs no further pass.
            ``"stream"``: each gradient is let go before the next is there, and the combined
            gradient is one more backward pass; it gives no Gramian. ``"batched"``: K passes through
            the heads and one through the shared part that carries all K (``torch.vmap``); where
            that cannot be done (one warning says so), it is ``"store"``.

    On several ranks the gradients are averaged before they are measured
    (:class:`gaba.ranks.Sync`), and the combined gradient is one more pass.

    Norms are accumulated in float32 at least and in float64 where float32 would lose them: 1e-23
    and 1e20 neither vanish nor overflow.

    Source: Chen et al., GradNorm, ICML 2018, section 3.1, here over all shared parameters.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> graph = LossGraph([w @ w, 2 * w.sum()], as_shared([w]))
        >>> seen, _ = ExactNorms().update(Request(graph, gramian=True), ())
        >>> [[round(x, 4) for x in row] for row in seen.gramian.tolist()]
        [[100.0, 28.0], [28.0, 8.0]]
    """

    mode: Mode = "store"

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, get_args(Mode))

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses; there is no state."""
        graph = told.graph
        if self.mode == "stream" and told.gramian:
            raise ValueError(
                "mode='stream' lets each gradient go before the next is there, and so gives no "
                "Gramian: use ExactNorms(mode='store'), or a rule that needs norms only"
            )
        if sharded(graph.theta):
            return sharded_passes(told), state
        if self.mode == "stream" or (told.ranks.several and self.mode != "batched"):
            return _one_at_a_time(told), state
        leaves, n = graph.leaves if told.gradients else graph.theta, len(graph.theta)
        rows = _batched_passes(graph, leaves) if self.mode == "batched" else None
        if rows is None:
            rows = task_passes(graph, leaves, free=told.frees)
        found = TaskGradients(leaves, tuple(rows)) if told.gradients else None
        own = [row[:n] for row in rows]
        return observed(told, own, theta=graph.theta, gradients=found), state


def _one_at_a_time(request: Request) -> Observation:
    """One pass a task; on several ranks a gradient is averaged while the next pass runs."""
    graph, ranks = request.graph, request.ranks
    theta = graph.theta
    if not theta:
        raise ValueError(
            "shared must hold parameters that two tasks reach, found none that is trainable: pass "
            "shared=model.backbone"
        )
    scales = request.scales(theta)
    means = averages(ranks, theta, request.step) if ranks.several else None
    norms: list[Tensor] = []
    reached: list[bool] = []
    for loss in graph.losses:
        row = one_pass(graph, loss, theta)
        reached.append(any(g is not None for g in row))
        if means is None:
            norms.append(norm(scaled(row, scales), graph.device))
        else:
            means.add(scaled(row, scales))
        del row  # or it would be there while the next pass runs
    if means is not None:
        return summed(request, means.parts(), reached)
    return observation(request, torch.stack(norms), reached)


def _batched_passes(graph: LossGraph, leaves: Sequence[Tensor]) -> list[Gradients] | None:
    """A row ∂L_k/∂leaves for each task, or ``None`` if they must be taken one after the other.

    One pass a task through its head, to the features z; then one through what lies below, with the
    gradients ∂L_k/∂z as a batch. The graph is kept.
    """
    edges = graph.features
    if edges is None or not graph.apart or graph.shared in _unbatchable:
        return None
    above = {id(leaf) for leaf in graph.heads}
    heads = [leaf for leaf in leaves if id(leaf) in above]
    below = [leaf for leaf in leaves if id(leaf) not in above]
    rows = task_passes(graph, (*edges, *heads), free=False)
    at = [[g for g in row[: len(edges)] if g is not None] for row in rows]
    if any(len(found) < len(edges) for found in at):
        return None  # a batch would hide which task does not reach which parameter
    try:
        with explained():
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
    found: list[Gradients] = []
    for k, row in enumerate(rows):
        parts = [None if g is None else g[k] for g in stacked]
        of = dict(zip(map(id, (*heads, *below)), (*row[len(edges) :], *parts), strict=True))
        found.append([of[id(leaf)] for leaf in leaves])
    return found
