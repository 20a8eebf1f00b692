"""Norms at the output of the model, a mean over the items of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gaba.arrays import work_dtype
from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Gradients, Measurement, Observation, TaskGradients
from gaba.measurement._gradients import gramian_of, norm, task_passes


@final
@dataclass(frozen=True)
class OutputNorms(Measurement):
    """The norms of ∂L_k/∂y, with y the output of the model, and one backward pass from there.

    With ``per_item`` the norm of task k is (1/B) Σ_b ‖∂L_k/∂y_b‖₂ over the B items of the batch (of
    all outputs, where y is several), and else ‖∂L_k/∂y‖₂ of the whole batch. They say how hard a
    loss pulls on what the model puts out, not on its parameters, which is what some rules ask for
    (:class:`gaba.rules.EnCodec`). y is what the module given as ``shared`` returns, or what is
    named by ``backward(losses, features=y)``.

    The combined gradient at y, Σ_k c_k ∂L_k/∂y, goes down by one pass. What lies above y, heads or
    a discriminator, gets c_k ∇L_k on the way, as from any Balancer; with ``above=False`` it gets
    nothing, as in the original (but where someone listens to the backward pass, in a distributed
    run or by hooks, or where the caller makes it, that pass starts at the losses and reaches all).
    A loss that is no function of y, such as a commitment loss, cannot be among the tasks: call its
    own ``backward(retain_graph=True)`` first.

    On R ranks the norm per item is the mean over all items of all ranks, divided by R, as the
    gradients of the mean loss are: the update is that of one process with all of the batch. (The
    original does not divide, and so has an update 1/R as long.) Without ``per_item`` it is the mean
    of the ranks' norms, divided by R.

    Cost: K passes from the losses to y, and one below. Held: K gradients of y.

    Args:
        per_item: whether to take the norm of each item by itself, along the first dimension of y.
        above: whether what lies above y gets a gradient.

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
        >>> graph = LossGraph([y.sum(), 5 * y.sum()], shared)
        >>> [round(g, 4) for g in OutputNorms()(graph).norms.tolist()]  # √3 for each of 4 items
        [1.7321, 8.6603]
    """

    per_item: bool = True
    above: bool = True

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        device = graph.losses[0].device
        edges = graph.features or ()
        if not graph.ranks.all(bool(edges), device):
            raise ValueError(
                "OutputNorms needs the output y that every loss is computed from, found none, or a "
                "path around it: pass backward(losses, features=y), or use measurement='exact'"
            )
        if graph.metric is not None:
            raise ValueError(
                "OutputNorms sees no parameters, and so not the metric of the optimizer: use "
                "metric='euclidean'"
            )
        if gramian and (self.per_item or graph.ranks.several):
            raise ValueError(
                "OutputNorms has no Gramian of items or of several ranks: use per_item=False on "
                "one rank, or measurement='exact'"
            )
        by_hand = gradients and (graph.apart or not self.above)
        heads = graph.heads if by_hand and self.above else ()
        passes = task_passes(graph.losses, (*edges, *heads), free=by_hand)
        rows, of = [row[: len(edges)] for row in passes], [row[len(edges) :] for row in passes]
        found = TaskGradients(heads, tuple(of), edges, tuple(rows)) if by_hand else None
        counts = [self._lengths(row, device) for row in rows]
        heard = graph.ranks.total(torch.stack(counts))  # sums of norms, and of how many
        norms = heard[:, 0] / heard[:, 1].clamp(min=1) / graph.ranks.size
        gram = gramian_of(rows, norms) if gramian else None
        return Observation(
            norms=graph.unscaled(norms),
            gramian=None if gram is None else graph.unscaled(graph.unscaled(gram)),
            unreached=tuple(k for k, row in enumerate(rows) if all(g is None for g in row)),
            gradients=found,
            state=state,
        )

    def _lengths(self, row: Gradients, device: torch.device) -> Tensor:
        """The sum of the norms of one task on this rank, and of how many it is the sum: (2,)."""
        dtype, found = work_dtype(device), [g.detach() for g in row if g is not None]
        one = torch.ones((), dtype=dtype, device=device)
        if not self.per_item or not found:
            return torch.stack([norm(row, device), one])
        if not all(g.ndim for g in found):
            raise ValueError(
                "OutputNorms per item needs outputs whose first dimension is that of the batch, "
                "found a scalar: use per_item=False"
            )
        items = [g.abs().to(dtype).reshape(len(g), -1).norm(dim=1) for g in found]
        return torch.stack([torch.cat(items).sum(), one * sum(map(len, items))])
