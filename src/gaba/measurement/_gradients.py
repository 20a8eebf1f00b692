"""The gradients of each task: how they are taken, their norms and their inner products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import (
    Tensor,
    _foreach_norm,  # pyright: ignore[reportPrivateImportUsage]
)
from torch.autograd.graph import GradientEdge

from gaba.arrays import on_device, work_dtype
from gaba.autograd.graph import LossGraph, reachable_leaves
from gaba.measurement._averages import averages
from gaba.measurement._base import Gradients, Observation, TaskGradients
from gaba.autograd.shared import SharedAuto

_SAFE = (1e-12, 1e18)  # norms whose squares, and those of their parts, float32 sums without loss


def task_passes(
    losses: Sequence[Tensor], inputs: Sequence[Tensor | GradientEdge], *, free: bool
) -> list[tuple[Tensor | None, ...]]:
    """K rows ∂L_k/∂inputs, by one pass a task, which goes no deeper than to the inputs.

    With ``free`` the last pass frees the part of the graph that it goes through.
    """
    last = len(losses) - 1
    return [
        torch.autograd.grad(
            loss,
            cast("Sequence[Tensor]", inputs),  # which may be edges, or both
            retain_graph=not free or k < last,
            allow_unused=True,
        )
        for k, loss in enumerate(losses)
    ]


def known_shared(graph: LossGraph, leaves: Sequence[Tensor]) -> list[int]:
    """The positions of θ among ``leaves``, told before the first pass by walking the graph."""
    if isinstance(graph.shared, SharedAuto):
        own = [{id(leaf) for leaf in reachable_leaves([loss])} for loss in graph.losses]
        graph.shared.learn(leaves, [[id(leaf) in reached for leaf in leaves] for reached in own])
    theta = {id(p) for p in graph.shared.parameters()}
    return [i for i, leaf in enumerate(leaves) if id(leaf) in theta]


def observed(
    own: Sequence[Gradients],
    graph: LossGraph,
    *,
    gramian: bool,
    theta: Sequence[Tensor] | None,
    scales: Sequence[Tensor] | None = None,
    gradients: TaskGradients | None = None,
    state: Any = (),
) -> Observation:
    """What the K rows of gradients ``own`` come to: norms, Gramian, and who reaches nothing.

    Args:
        own: K rows of this rank's gradients.
        graph: the losses that they are of.
        gramian: give the Gramian too.
        theta: what the columns are gradients of; ``None`` for features, of which each rank has
            others: of those, the gradients of the mean loss are the ranks' own, divided by R.
        scales: the metric, one tensor a column (:meth:`LossGraph.scales`).
        gradients: passed on.
        state: passed on.
    """
    reached = [any(g is not None for g in row) for row in own]
    ranks = graph.ranks
    if ranks.several:
        if theta is None:
            return summed(own, reached, graph, gramian=gramian, shrink=ranks.size, state=state)
        means = averages(ranks, theta, graph.step)
        for row in own:
            means.add(scaled(row, scales))
        return summed(means.parts(), reached, graph, gramian=gramian, state=state)
    device = graph.losses[0].device
    norms = torch.stack([norm(scaled(grads, scales), device) for grads in own])
    gram = gramian_of(own, norms, scales) if gramian else None
    return Observation(
        norms=graph.unscaled(norms),
        gramian=None if gram is None else graph.unscaled(graph.unscaled(gram)),
        unreached=tuple(k for k, found in enumerate(reached) if not found),
        gradients=gradients,
        state=state,
    )


def summed(
    parts: Sequence[Gradients],
    reached: Sequence[bool],
    graph: LossGraph,
    *,
    gramian: bool,
    shrink: float = 1.0,
    state: Any = (),
) -> Observation:
    """Norms (and Gramian) from each rank's part of the K gradients, by one sum over the ranks.

    Args:
        parts: K rows of tensors that this rank alone has.
        reached: for each task, whether this rank's loss reaches the shared part.
        graph: the losses that they are of.
        gramian: give the Gramian too.
        shrink: what the rows are to be divided by.
        state: passed on.
    """
    k, device = len(parts), graph.losses[0].device
    local = torch.stack([norm(row, device) for row in parts])
    squares = gramian_of(parts, local) if gramian else local.square()
    flags = torch.tensor(reached, dtype=squares.dtype).to(device, non_blocking=True)
    heard = graph.ranks.total(torch.cat([squares.flatten(), flags]))
    unit = graph.unscaled(torch.ones_like(local[0])) / shrink
    found = heard[:-k] * unit.square()
    gram = found.view(k, k) if gramian else None
    unreached = ()
    if not all(reached):
        unreached = tuple(i for i, n in enumerate(heard[-k:].tolist()) if not n)
    return Observation(
        norms=(found if gram is None else gram.diagonal()).sqrt(),
        gramian=gram,
        unreached=unreached,
        gradients=None,
        state=state,
    )


def scaled(gradients: Gradients, scales: Sequence[Tensor] | None) -> Gradients:
    """P ∘ ∇L_k parameter by parameter, or the gradients as they are in the Euclidean metric."""
    if scales is None:
        return gradients
    return [None if g is None else _real(g) * p for g, p in zip(gradients, scales, strict=True)]


def norm(gradients: Gradients, device: torch.device) -> Tensor:
    """The Euclidean norm (a scalar tensor) of one task's gradient, given parameter by parameter."""
    dtype = work_dtype(device)
    dense = [_dense(g) for g in gradients if g is not None and g.numel()]
    if not dense:
        return torch.zeros((), dtype=dtype, device=device)
    if device.type == "cpu":  # here a look at the result costs nothing: take the fast kernel first
        fast = _norm_of_norms(dense, torch.float32)
        if _SAFE[0] < float(fast) < _SAFE[1]:
            return fast
    if dtype == torch.float64:
        return _norm_of_norms(dense, dtype)
    largest = torch.stack([g.abs().max().to(dtype) for g in dense]).max()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return _norm_of_norms([g / scale for g in dense], dtype) * scale


def _norm_of_norms(dense: list[Tensor], dtype: torch.dtype) -> Tensor:
    kinds = {g.dtype for g in dense}
    if len(kinds) > 1 or any(kind.itemsize < dtype.itemsize for kind in kinds):
        wide = max(dtype, *kinds, key=lambda kind: kind.itemsize)
        parts = torch.stack(_foreach_norm(dense, 2.0, wide))
    else:
        parts = torch.stack(_foreach_norm(dense))
    return torch.linalg.vector_norm(parts.to(work_dtype(parts.device)))


def _dense(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


def gramian_of(
    of: Sequence[Gradients], norms: Tensor, scales: Sequence[Tensor] | None = None
) -> Tensor:
    """⟨∇L_k, ∇L_l⟩ (K, K), accumulated over the parameters from gradients of unit length.

    With ``scales`` P it is ⟨P∇L_k, P∇L_l⟩, and ``norms`` are those of P∇L_k.
    """
    length = torch.where(norms > 0, norms, torch.ones_like(norms))
    cosines = torch.zeros(len(of), len(of), dtype=norms.dtype, device=norms.device)
    for i, column in enumerate(zip(*of, strict=True)):
        present = [k for k, g in enumerate(column) if g is not None]
        if not present:
            continue
        parts = column if scales is None else scaled(column, [scales[i]] * len(column))
        unit = torch.stack([_unit(parts[k], length[k]) for k in present])
        rows = on_device(present, norms.device)
        cosines[rows[:, None], rows] += (unit @ unit.T).to(cosines.dtype)
    cosines = (cosines + cosines.T) / 2  # a product of matrices need not be symmetric to the bit
    gramian = cosines * (norms[:, None] * norms)
    gramian.diagonal().copy_(norms.square())
    return gramian


def _unit(gradient: Tensor | None, length: Tensor) -> Tensor:
    assert gradient is not None
    return (_real(gradient).to(length.dtype) / length).flatten()


def _real(gradient: Tensor) -> Tensor:
    dense = gradient.detach().to_dense() if gradient.is_sparse else gradient.detach()
    return torch.view_as_real(dense) if dense.is_complex() else dense
