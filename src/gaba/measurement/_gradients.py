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

from gaba._array import on_device, work_dtype
from gaba.graph import LossGraph, reachable_leaves
from gaba.measurement._base import Gradients, Observation, TaskGradients
from gaba.shared import SharedAuto

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
    device: torch.device,
    *,
    gramian: bool,
    gradients: TaskGradients | None = None,
    state: Any = (),
) -> Observation:
    """What the K rows of gradients ``own`` come to: norms, Gramian, and who reaches nothing."""
    norms = torch.stack([norm(grads, device) for grads in own])
    return Observation(
        norms=norms,
        gramian=gramian_of(own, norms) if gramian else None,
        unreached=tuple(k for k, grads in enumerate(own) if all(g is None for g in grads)),
        gradients=gradients,
        state=state,
    )


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


def gramian_of(of: Sequence[Gradients], norms: Tensor) -> Tensor:
    """⟨∇L_k, ∇L_l⟩ (K, K), accumulated over the parameters from gradients of unit length."""
    length = torch.where(norms > 0, norms, torch.ones_like(norms))
    cosines = torch.zeros(len(of), len(of), dtype=norms.dtype, device=norms.device)
    for parts in zip(*of, strict=True):
        present = [k for k, g in enumerate(parts) if g is not None]
        if not present:
            continue
        unit = torch.stack([_unit(parts[k], length[k]) for k in present])
        rows = on_device(present, norms.device)
        cosines[rows[:, None], rows] += (unit @ unit.T).to(cosines.dtype)
    cosines = (cosines + cosines.T) / 2  # a product of matrices need not be symmetric to the bit
    gramian = cosines * (norms[:, None] * norms)
    gramian.diagonal().copy_(norms.square())
    return gramian


def _unit(gradient: Tensor | None, length: Tensor) -> Tensor:
    assert gradient is not None
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    dense = torch.view_as_real(dense) if dense.is_complex() else dense
    return (dense.detach().to(length.dtype) / length).flatten()
