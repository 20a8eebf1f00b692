"""Exact norms: one backward pass a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from gaba.ranks.wrappers import sharded
from gaba.autograd.graph import LossGraph
from gaba.measurement._across import averaged_passes, sharded_passes
from gaba.measurement._base import Measurement, Observation, TaskGradients
from gaba.measurement._batched import batched_passes
from gaba.measurement._gradients import norm, observed, task_passes
from gaba.measurement._stream import stream

__all__ = ["ExactNorms", "norm"]

Mode = Literal["store", "stream", "batched"]


@final
@dataclass(frozen=True)
class ExactNorms(Measurement):
    """The norms g_k = ‖∇_θ L_k‖₂ from the K per-task gradients themselves.

    One ``torch.autograd.grad`` a task, through its head and the shared part at once. The gradients
    of the heads come out of the same pass, so that the combined gradient needs no further one:
    K passes in all, where K probes and a backward pass are K + 1.

    Args:
        mode: how the passes are made. ``"store"``: one after the other, the K gradients held until
            they are combined. ``"stream"``: each gradient is added to the combined one, with the
            weights known before this step, and let go: two gradients are held at the same time
            whatever K, and a weight acts one step late; the record shows the weights that acted.
            It gives no Gramian and no ``heads="plain"``. Where someone listens to the backward
            pass, or the caller makes it, that pass has the weights of this step. ``"batched"``:
            K passes through the heads and one through the shared part that carries all K
            (``torch.vmap``), memory as for ``"store"`` and more for what is in between; faster for
            small layers and large K. Without a boundary between heads and shared part, or where
            the shared part cannot be batched (one warning says so), it is ``"store"``.

    On several ranks the gradients are averaged before they are measured
    (:class:`gaba.ranks.Sync`), and the combined gradient is one more pass, which the wrapper
    of the model reduces. Where FSDP has sharded θ, each task's pass is one of FSDP's own.

    Norms are accumulated in float32 at least and in float64 where float32 would lose them: 1e-23
    and 1e20 neither vanish nor overflow. The Gramian has the squared norms on its diagonal; off it
    are the inner products of the gradients divided by their norms, times the two norms.

    Source: Chen et al., GradNorm, ICML 2018, section 3.1 (norm of the gradient of the weighted
    single-task loss), here over all shared parameters and at weight 1.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> seen = ExactNorms()(LossGraph([w @ w, 2 * w.sum()], as_shared([w])), gramian=True)
        >>> [round(g, 4) for g in seen.norms.tolist()]
        [10.0, 2.8284]
        >>> [[round(x, 4) for x in row] for row in seen.gramian.tolist()]
        [[100.0, 28.0], [28.0, 8.0]]
    """

    mode: Mode = "store"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"mode must be one of {', '.join(get_args(Mode))}, found {self.mode!r}"
            )

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        if self.mode == "stream" and (gramian or not graph.ranks.several):
            return stream(graph, gramian=gramian, gradients=gradients)
        losses, shared = graph.losses, graph.shared
        known = shared.parameters()  # before any pass, after which FSDP has others in their place
        if sharded(known):
            return sharded_passes(graph, gramian=gramian)
        if graph.ranks.several and self.mode != "batched":
            return averaged_passes(graph, gramian=gramian)
        leaves = (not gradients and known) or graph.leaves
        of = batched_passes(graph, leaves) if self.mode == "batched" else None
        if of is None:
            of = task_passes(losses, leaves, free=gradients)
        shared.learn(leaves, [[g is not None for g in grads] for grads in of])
        theta = {id(p) for p in (*known, *shared.parameters())}
        own = [[g for p, g in zip(leaves, grads, strict=True) if id(p) in theta] for grads in of]
        shared_leaves = [p for p in leaves if id(p) in theta]
        scales = graph.scales(shared_leaves)
        found = TaskGradients(tuple(leaves), tuple(of)) if gradients else None
        return observed(
            own, graph, gramian=gramian, theta=shared_leaves, scales=scales, gradients=found
        )
